"""Interrupts: what guests get and how long they run for it, what devices cost the host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.context import vcpu_name
from xtrace.reports import bars, parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from xtrace.host.interrupts import DeviceIrq, Injected, Interrupts, VectorUse
    from xtrace.host.tally import Spread

TITLE: Final = "Interrupts"
NONE: Final = (
    "None: no guest was injected an interrupt and no device's handler ran, or the TRC_HVM and TRC_HW events that tell "
    "were not traced."
)
WAKES: Final = (
    "A vCPU that an interrupt woke is busy with it from the VM entry that delivers it until it blocks, preemption "
    "included. An interrupt that comes to a vCPU already running is timed the same way."
)


def answer(found: Interrupts) -> Iterator[str]:
    """What guests get and what devices cost."""
    if found.guest:
        count = sum(one.count for one in found.guest)
        vcpus = len({(one.domain, one.vcpu) for one in found.guest})
        told = f"{_counted(vcpus, 'vCPU')} got {_counted(count, 'interrupt')}{_rate(found.guest)}"
        woken = sum(one.wake.count for one in found.guest)
        if woken:
            mean = sum(one.wake.total_ns for one in found.guest) / woken
            told += f"; {units.count(woken)} woke one that then ran {units.time(mean)} on average until it blocked"
        yield f"{told}."
    if found.devices:
        count, total = sum(one.count for one in found.devices), sum(one.total_ns for one in found.cpus)
        shares = [one.percent for one in found.cpus if one.percent is not None]
        most = f", at most {_percent(max(shares))} of a CPU’s time" if shares else ""
        yield f"Handlers of devices ran {_counted(count, 'time')}{_rate(found.devices)} for {units.time(total)}{most}."


def section(found: Interrupts) -> Section:
    """Guests' interrupts, then the devices', then how vectors were given away."""
    text = list(answer(found))
    if found.guest:
        text.append(WAKES)
    if found.unattributed:
        text.append(f"Which vCPU ran is not known of {_counted(found.unattributed, 'injection')}: not in the figures.")
    return Section("interrupts", TITLE, tuple(text) or (NONE,), (), tuple(_tables(found)))


def _tables(found: Interrupts) -> Iterator[Table]:
    if found.guest:
        yield _guest(found)
    if found.raised:
        heads = (Head("vCPU", False), Head("what", False), Head("count"), Head("a second"))
        rows = [
            (Cell(vcpu_name(one.domain, one.vcpu)), Cell(one.name), parts.count(one.count), parts.per_s(one.per_s))
            for one in sorted(found.raised, key=lambda one: -one.count)
        ]
        yield parts.table("What else the hypervisor gave guests, most first", heads, rows, "lines")
    if found.devices:
        yield from _of_devices(found)
    if found.vectors:
        yield _vectors(found)


def _of_devices(found: Interrupts) -> Iterator[Table]:
    yield _devices("Handlers of device interrupts by irq, most time first", found, found.devices)
    heads = (Head("CPU"), Head("count"), Head("a second"), Head("time"), Head("% of CPU"))
    rows = [
        (
            Cell(str(one.cpu), one.cpu),
            parts.count(one.count),
            parts.per_s(one.per_s),
            parts.time(one.total_ns),
            _share(one.percent),
        )
        for one in sorted(found.cpus, key=lambda one: -one.total_ns)
    ]
    yield parts.table("The same by CPU, most time first", heads, rows, "CPUs")
    if len(found.on_cpus) > len(found.devices):
        yield _devices("The same by irq and CPU", found, found.on_cpus)


def _guest(found: Interrupts) -> Table:
    heads = (
        Head("vCPU", False),
        Head("vector"),
        Head("count"),
        Head("a second"),
        Head("woke", title="the vCPU was blocked, and this woke it"),
        Head("mean", title="from the VM entry that delivers it until the vCPU blocks"),
        Head("p50"),
        Head("p95"),
        Head("alone", title="of those that woke it: no other vector came before it blocked"),
        Head("mean"),
        Head("running", title="it came to a vCPU that ran already, which blocked later"),
        Head("mean"),
    )
    rows = [
        (
            Cell(vcpu_name(one.domain, one.vcpu)),
            Cell("–") if one.vector is None else Cell(f"{one.vector:#04x}", one.vector),
            parts.count(one.count),
            parts.per_s(one.per_s),
            *_spread(one.wake),
            parts.time(one.wake.p50_ns),
            parts.time(one.wake.p95_ns),
            *_spread(one.alone),
            *_spread(one.interrupt),
        )
        for one in sorted(found.guest, key=lambda one: -one.count)
    ]
    caption = (
        "Interrupts that guests got, most first. Behind woke, alone and running: mean time until the vCPU blocked; p50 "
        "and p95 are by time"
    )
    return parts.table(caption, heads, rows, "lines")


def _spread(time: Spread) -> tuple[Cell, Cell]:
    return parts.count(time.count), parts.time(time.mean_ns)


def _devices(caption: str, found: Interrupts, rows: tuple[DeviceIrq, ...]) -> Table:
    vectors: dict[int | None, list[int]] = defaultdict(list)
    for use in found.vectors:
        vectors[use.irq].append(use.vector)
    on_cpu = rows is found.on_cpus
    heads = [Head("irq"), *([Head("CPU")] if on_cpu else [Head("vectors", False)])]
    heads += [Head(name) for name in ("count", "a second", "time", "% of CPU", "mean", "p5", "p50", "p95", "max")]
    cells = []
    for one in sorted(rows, key=lambda one: -one.time.total_ns):
        given = ", ".join(f"{vector:#04x}" for vector in vectors[one.irq]) or "–"
        times = (one.time.mean_ns, one.time.p5_ns, one.time.p50_ns, one.time.p95_ns, one.time.max_ns)
        cells.append(
            (
                Cell(str(one.irq), one.irq),
                Cell(str(one.cpu), one.cpu) if on_cpu else Cell(given),
                parts.count(one.count),
                parts.per_s(one.per_s),
                parts.time(one.time.total_ns),
                _share(one.percent),
                *map(parts.time, times),
            )
        )
    untimed = sum(one.untimed for one in rows)
    unknown = f"; {units.count(untimed)} began before the tracing and have no time" if untimed else ""
    return parts.table(f"{caption}; quantiles are over handlers, not by time{unknown}", heads, cells, "lines")


def _vectors(found: Interrupts) -> Table:
    names = ("assigned", "bound", "cleared", "moved", "cleaned up", "delayed", "unmapped")
    heads = [Head("irq"), Head("vector"), *map(Head, names)]
    rows = [(_irq(one), Cell(f"{one.vector:#04x}", one.vector), *map(parts.count, _uses(one))) for one in found.vectors]
    return parts.table("Vectors that irqs were given or lost: counts of records", heads, rows, "lines")


def _irq(one: VectorUse) -> Cell:
    return Cell("–") if one.irq is None else Cell(str(one.irq), one.irq)


def _uses(one: VectorUse) -> tuple[int, ...]:
    return one.assigned, one.bound, one.cleared, one.moved, one.cleaned_up, one.delayed, one.unmapped


def _share(percent: float | None) -> Cell:
    return Cell("–") if percent is None else Cell(_percent(percent).removesuffix(" %"), percent)


def _percent(percent: float) -> str:
    return f"{percent:.3f} %"


def _rate(rows: tuple[Injected, ...] | tuple[DeviceIrq, ...]) -> str:
    rates = [one.per_s for one in rows if one.per_s is not None]
    return f" ({sum(rates):,.1f} a second)" if rates else ""


def _counted(count: int, noun: str) -> str:
    return f"{units.count(count)} {noun}" + ("" if count == 1 else "s")


def pictures(found: Interrupts) -> tuple[Picture, ...]:
    """Guests' interrupts by vCPU and vector, and devices' time by CPU and irq."""
    found_pictures = []
    if found.guest:
        counts: dict[str, dict[str, float]] = defaultdict(dict)
        for one in found.guest:
            vector = "no vector" if one.vector is None else f"vector {one.vector:#04x}"
            counts[vcpu_name(one.domain, one.vcpu)][vector] = one.count
        figure = bars.stacked(counts, "interrupts")
        caption = "Injections by vCPU, of those that got most, and by vector as the guest has it."
        found_pictures.append(parts.picture(figure, "interrupts-guest", "Interrupts that guests got", caption))
    if len(found.on_cpus) > 1:
        times: dict[str, dict[str, float]] = defaultdict(dict)
        for device in found.on_cpus:
            times[f"CPU {device.cpu}"][f"irq {device.irq}"] = device.time.total_ns / 1e6
        figure = bars.stacked(times, "ms in handlers")
        caption = "By CPU, of those that spent most, and by irq."
        found_pictures.append(
            parts.picture(figure, "interrupts-devices", "Time in handlers of device interrupts", caption)
        )
    return tuple(found_pictures)

"""Power: how CPUs slept, what woke them, and their frequency."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.reports import bars, parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from xtrace.host.power import CState, Power

TITLE: Final = "Power"
NONE: Final = "Nothing: the trace has no records of C-states or frequencies (TRC_PM)."
LENGTHS: Final = {
    "ticks": "Sleeps are as long as the tick words of their records say, which count ns.",
    "pm timer": "Sleeps are as long as the tick words of their records say, which count the ACPI timer at 3.58 MHz.",
    "records": "Sleeps are as long as between the times of their records, with which their tick words do not agree.",
}
RECORDED: Final = (
    "A C-state is told as recorded: by its number where the mwait driver runs, by its place in Xen's table where the "
    "ACPI driver does. Quantiles are of sleeps, not of time."
)


def answer(found: Power) -> Iterator[str]:
    """How long CPUs slept, and what woke them most."""
    sleeps = sum(one.sleeps for one in found.c_states)
    if sleeps:
        cpus = len({one.cpu for one in found.c_states})
        asleep = sum(one.residency.total_ns for one in found.c_states if one.residency)
        told = f"{cpus} CPU{'s' if cpus > 1 else ''} slept {units.count(sleeps)} times, {units.time(asleep)} together"
        if found.wake_ups:
            most = found.wake_ups[0]
            told += f"; what woke them was most often {most.name} ({units.count(most.count)} times)"
        yield f"{told}."
    changes = sum(one.count for one in found.frequency)
    if changes:
        yield f"Frequencies changed {units.count(changes)} times."


def section(found: Power) -> Section:
    """C-states first, then what woke CPUs, then frequencies."""
    tables = tuple(_tables(found))
    if not tables:
        return Section("power", TITLE, (NONE,))
    text = list(answer(found))
    if found.lengths is not None:
        text += [LENGTHS[found.lengths], RECORDED]
    return Section("power", TITLE, tuple(text), (), tables)


def _tables(found: Power) -> Iterator[Table]:
    if found.c_states:
        heads = (
            "CPU",
            "C-state",
            "sleeps",
            "asleep",
            "of span",
            "mean",
            "p50",
            "p95",
            "to timer",
            "predicted",
            "shorter",
        )
        yield parts.table(
            "Sleeps by CPU and C-state; to timer, predicted: mean expectations; shorter: than predicted",
            map(Head, heads),
            [_state(one) for one in found.c_states],
            "lines",
        )
    if found.wake_ups or found.unlisted:
        rows = [
            (Cell(one.name), Cell(f"0x{one.vector:02x}", one.vector), parts.count(one.count)) for one in found.wake_ups
        ]
        if found.unlisted:
            rows.append((Cell("none listed"), Cell("–"), parts.count(found.unlisted)))
        yield parts.table(
            "Vectors pending when CPUs woke up, all CPUs; a record lists the lowest four",
            (Head("vector", False), Head("number"), Head("wake-ups")),
            rows,
            "vectors",
        )
    if found.frequency:
        yield parts.table(
            "Changes of frequency, by the CPU that recorded them, which need not be the one that changed",
            (Head("CPU"), Head("from, MHz"), Head("to, MHz"), Head("changes")),
            [
                (
                    Cell(str(one.cpu), one.cpu),
                    Cell(units.count(one.old_mhz), one.old_mhz),
                    Cell(units.count(one.new_mhz), one.new_mhz),
                    parts.count(one.count),
                )
                for one in found.frequency
            ],
            "lines",
        )


def _state(one: CState) -> tuple[Cell, ...]:
    long = one.residency
    share = Cell("–") if one.share is None else Cell(f"{100 * one.share:.1f} %", one.share)
    times = (long.mean_ns, long.p50_ns, long.p95_ns) if long else (None, None, None)
    return (
        Cell(str(one.cpu), one.cpu),
        Cell(str(one.c_state), one.c_state),
        parts.count(one.sleeps),
        parts.time(long.total_ns if long else 0),
        share,
        *map(parts.time, times),
        parts.time(one.expected.mean_ns),
        parts.time(one.predicted.mean_ns),
        parts.count(one.shorter),
    )


def pictures(found: Power) -> tuple[Picture, ...]:
    """Sleep by CPU and C-state."""
    shown: dict[str, dict[str, float]] = {}
    for one in found.c_states:
        if one.residency:
            shown.setdefault(f"CPU {one.cpu}", {})[f"C-state {one.c_state}"] = one.residency.total_ns / 1e9
    if not shown:
        return ()
    figure = bars.stacked(shown, "seconds")
    return (
        parts.picture(figure, "power", "How CPUs slept", "Time asleep by C-state as recorded; those that slept most."),
    )

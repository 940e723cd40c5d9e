"""CPUs: how busy each was and with whom, and where vCPUs stayed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xtrace.context import IDLE_DOMAIN, domain_name, vcpu_name
from xtrace.reports import bars, parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from xtrace.host.cpus import Affinity, Cpus, CpuUse
    from xtrace.host.tally import Spread

TITLE: Final = "CPUs"
NONE: Final = "Not known: no vCPU is seen to come onto a CPU and to leave it, or changes of run states were not traced."
MEANING: Final = (
    "A stay is from when a vCPU comes onto a CPU until it leaves it; before the first and after the last such record "
    "of a CPU it is not known what it did. Quantiles of CPUs are weighted by time, those of affinity are of stays."
)
NAMED: Final = 4
"""Domains or CPUs that a cell names."""
SPREAD: Final = tuple(map(Head, ("stays", "time", "mean", "p5", "p50", "p95", "longest")))


def answer(found: Cpus) -> Iterator[str]:
    """How busy CPUs were, on the whole and at most."""
    known = [one for one in found.cpus if one.busy_share is not None]
    if not known:
        return
    shares = [one.busy_share or 0.0 for one in known]
    told = f"{len(known)} CPU{'s were' if len(known) > 1 else ' was'} busy {100 * sum(shares) / len(shares):.1f} %"
    told += " of the time"
    if len(known) > 1:
        most, least = (pick(known, key=lambda one: (one.busy_share or 0.0, -one.cpu)) for pick in (max, min))
        told += f", from {100 * min(shares):.1f} % (CPU {least.cpu}) to {100 * max(shares):.1f} % (CPU {most.cpu})"
    yield f"{told}."


def section(found: Cpus) -> Section:
    """Shares first, then all figures, then affinity."""
    if not found.cpus:
        return Section("cpus", TITLE, (NONE,))
    return Section("cpus", TITLE, (*answer(found), MEANING), (), tuple(_tables(found)))


def _tables(found: Cpus) -> Iterator[Table]:
    yield parts.table(
        "Share of the span that each CPU was busy, and with which domains, busiest first",
        (
            Head("CPU"),
            Head("busy"),
            Head("idle"),
            Head("lost"),
            Head("not known"),
            Head("domains, of its busy time", False),
        ),
        [_use(one) for one in sorted(found.cpus, key=lambda one: (-(one.busy_share or 0), one.cpu))],
        "CPUs",
    )
    yield parts.table(
        "All stays on CPUs; quantiles weighted by time",
        (Head("CPU"), Head("what", False), *SPREAD),
        [
            (Cell(str(one.cpu), one.cpu), Cell(what), *_spread(spread))
            for one in found.cpus
            for what, spread in (("running", one.running), ("idle", one.idle), ("lost", one.lost))
            if spread
        ],
        "lines",
    )
    # An idle vCPU never moves.
    vcpus = [one for one in found.affinity if one.domain != IDLE_DOMAIN]
    if not vcpus:
        return
    yield parts.table(
        "Affinity: how long vCPUs stayed on a CPU before they moved, most moves first; plain quantiles",
        (Head("vCPU", False), *SPREAD[:1], *SPREAD[2:], Head("CPUs, of its time", False)),
        [_affinity(one) for one in sorted(vcpus, key=lambda one: (-one.stays.count, one.domain, one.vcpu))],
        "vCPUs",
    )
    moved = [(one, on) for one in vcpus for on in one.cpus if len(one.cpus) > 1]
    if moved:
        yield parts.table(
            "Affinity by CPU, of vCPUs that moved; plain quantiles",
            (Head("vCPU", False), Head("CPU"), *SPREAD),
            [(_who(one), Cell(str(on.cpu), on.cpu), *_spread(on.stays)) for one, on in moved],
            "lines",
        )


def _use(one: CpuUse) -> tuple[Cell, ...]:
    known = one.known_share
    busy = one.busy_share
    idle = None if known is None or busy is None else known - busy
    whole = None if known is None or not one.lost or not _length(one) else one.lost.total_ns / _length(one)
    left = None if known is None else max(0.0, 1 - known - (whole or 0))
    ran = one.running.total_ns if one.running else 0
    domains = [(domain_name(on.domain), on.running.total_ns / ran) for on in one.domains if ran]
    return (Cell(str(one.cpu), one.cpu), *map(_share, (busy, idle, whole, left)), Cell(_named(domains)))


def _length(one: CpuUse) -> float:
    """Of the span, from a share of it."""
    told = sum(spread.total_ns for spread in (one.running, one.idle) if spread)
    return told / one.known_share if one.known_share else 0.0


def _affinity(one: Affinity) -> tuple[Cell, ...]:
    spread = _spread(one.stays)
    ranked = sorted(one.cpus, key=lambda on: (-on.stays.total_ns, on.cpu))
    cpus = [(f"{on.cpu}:", on.stays.total_ns / one.stays.total_ns) for on in ranked]
    return (_who(one), spread[0], *spread[2:], Cell(_named(cpus)))


def _named(shares: list[tuple[str, float]]) -> str:
    shown = [f"{name} {100 * share:.0f} %" for name, share in shares[:NAMED]]
    if len(shares) > NAMED:
        shown.append(f"{len(shares) - NAMED} more")
    return ", ".join(shown) or "–"


def _share(share: float | None) -> Cell:
    return Cell(f"{100 * share:.1f} %", share) if share else Cell("–", share)


def _spread(one: Spread) -> tuple[Cell, ...]:
    times = (one.total_ns, one.mean_ns, one.p5_ns, one.p50_ns, one.p95_ns, one.max_ns)
    return (parts.count(one.count), *map(parts.time, times))


def _who(one: Affinity) -> Cell:
    return Cell(vcpu_name(one.domain, one.vcpu), (one.domain << 16) + one.vcpu)


def pictures(found: Cpus) -> tuple[Picture, ...]:
    """CPUs by what they did."""
    shown = {f"CPU {one.cpu}": dict(_seconds(one)) for one in found.cpus}
    if not shown:
        return ()
    figure = bars.stacked(shown, "seconds")
    caption = "Time of each CPU by the domain that ran there; of many, those of which most is known."
    return (parts.picture(figure, "cpus", "What CPUs did", caption),)


def _seconds(one: CpuUse) -> Iterator[tuple[str, float]]:
    for on in one.domains:
        yield domain_name(on.domain), on.running.total_ns / 1e9
    for name, spread in (("idle", one.idle), ("lost", one.lost)):
        if spread:
            yield name, spread.total_ns / 1e9

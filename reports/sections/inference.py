"""What was inferred of a trace without the tracepoints, with evidence and confidence beside each figure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.reports import parts
from xtrace.reports.page import Cell, Head, Section, Table

if TYPE_CHECKING:
    from xtrace.inference import Inference

GUESSES: Final = {
    "calibration": "time calibration",
    "kick": "kick (P2M change)",
    "call": "function call",
    "flush": "TLB flush",
}
BOUNDS: Final = (
    "Targets are those seen, a lower bound: a CPU that ran a PV guest or the hypervisor leaves no record of an "
    "interrupt. That 0xfb and 0xfd have a lock each is assumed, as it is in Xen up to 4.22 (docs/inference.md)."
)
LEFT_OUT: Final = (
    "What callers paid, lock wait, delivery, execution, fairness, contention, cost, stragglers and waste need the "
    "tracepoints (docs/tracepoints.md) and are left out."
)


def answer(found: Inference) -> Iterator[str]:
    """How many were inferred, and how sure that is."""
    if not found.guesses:
        yield "No call and no flush of this selection shows."
        return
    counts = ", ".join(f"{units.count(one.count)} × {GUESSES[one.guess]}" for one in found.guesses)
    count, right = sum(one.count for one in found.guesses), sum(one.expected for one in found.guesses)
    yield (
        f"Inferred from interrupts on the targets, not traced: {counts}; about {units.count(round(right))} of "
        f"{units.count(count)} are right by their confidence."
    )


def section(found: Inference) -> Section:
    """Counts, likely initiators and targets."""
    text = (*answer(found), BOUNDS, *_overlapping(found), LEFT_OUT)
    tables = (_guesses(found), _initiators(found), _targets(found)) if found.guesses else ()
    return Section("inferred", "Calls and flushes, inferred", text, tables=tables)


def _overlapping(found: Inference) -> Iterator[str]:
    if found.overlapping:
        yield (
            "But interrupts overlap as they cannot under one lock: this may be a hypervisor whose calls need none. "
            f"About {100 * found.overlapping:.0f} % of the episodes with several targets are then more than one each; "
            "their confidence is that much lower."
        )


def _guesses(found: Inference) -> Table:
    heads: tuple[Head, ...] = (
        Head("what, probably", False),
        Head("vector", False),
        Head("count"),
        Head("per second"),
        Head("targets seen"),
    )
    heads += (Head("at most"), Head("handled within"), Head("confidence"), Head("evidence", False))
    rows = [
        (
            Cell(GUESSES[one.guess]),
            Cell(f"{one.vector:#x}"),
            parts.count(one.count),
            parts.per_s(one.per_s),
            Cell(f"{one.targets:.1f}", one.targets),
            parts.count(one.most),
            parts.time(one.handled_ns),
            _chance(one.confidence),
            Cell("inferred"),
        )
        for one in found.guesses
    ]
    return parts.table(
        "By what they probably are; targets on average, handling by the median target in a guest, an upper bound",
        heads,
        rows,
        "kinds",
    )


def _initiators(found: Inference) -> Table:
    heads: tuple[Head, ...] = (Head("likely initiator", False), Head("kind", False), Head("count"), Head("per second"))
    heads += (Head("before its silence", False), Head("confidence"), Head("of the initiator"), Head("evidence", False))
    rows = [
        (
            Cell("not seen" if one.cpu is None else f"CPU {one.cpu}", -1 if one.cpu is None else one.cpu),
            Cell(one.kind),
            parts.count(one.count),
            parts.per_s(one.per_s),
            Cell(one.preceded_by or "–"),
            _chance(one.confidence),
            _chance(one.initiator_confidence),
            Cell("inferred"),
        )
        for one in found.initiators
    ]
    return parts.table("By likely initiator, and the most frequent record before it fell silent", heads, rows, "CPUs")


def _targets(found: Inference) -> Table:
    heads: tuple[Head, ...] = (
        Head("target", False),
        Head("kind", False),
        Head("count"),
        Head("woken"),
        Head("per second"),
    )
    heads += (Head("handled within"), Head("confidence"), Head("evidence", False))
    rows = [
        (
            Cell(f"CPU {one.cpu}", one.cpu),
            Cell(one.kind),
            parts.count(one.count),
            parts.count(one.idle),
            parts.per_s(one.per_s),
            parts.time(one.handled_ns),
            _chance(one.confidence),
            Cell("inferred"),
        )
        for one in found.targets
    ]
    return parts.table(
        "By target; woken: it slept; handling by the median of those in a guest, an upper bound", heads, rows, "CPUs"
    )


def _chance(chance: float | None) -> Cell:
    return Cell("–") if chance is None else Cell(f"{chance:.2f}", chance)

"""Clocks: by how much those of CPUs differ, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.reports import parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xtrace.skew import OfCpu, Skew

MAX_BARS: Final = 128
LINEAR: Final = 20
"""A scale is linear unless one clock is so many times worse known, or further off, than half of them."""

KINDS: Final = {
    "start": "a target runs a function after its START",
    "send": "a target runs a function after its SEND, under a lock",
    "done": "DONE comes after the last target's EXIT (the initiator waits)",
    "lock": "the next SEND under a lock comes after DONE",
    "wake": "a vCPU runs after its wake-up",
    "hand-over": "a vCPU goes on elsewhere after it stopped running",
}

RULE: Final = (
    "A clock's bounds are what the evidence leaves: where one CPU's record cannot come before another's, the time "
    "between them by their clocks limits how far these can differ."
)


def answer(found: Skew | None) -> Iterator[str]:
    """Whether clocks differ, by how much at most, and what to do; nothing where they agree."""
    if found is not None and found.status in ("differ", "contradictory"):
        yield _verdict(found)


def section(found: Skew | None) -> Section:
    """The verdict, each CPU's clock with its bounds, and the evidence."""
    return Section("clocks", "Clocks: do those of CPUs agree?", tuple(_text(found)), tables=tuple(_tables(found)))


def _text(found: Skew | None) -> Iterator[str]:
    if found is None:
        yield "Not looked at: that takes one more pass over the trace, for --section clocks."
        return
    yield _verdict(found)
    if found.status in ("agree", "differ"):
        yield RULE
        unknown = sum(one.low_ns is None and one.high_ns is None for one in found.cpus)
        if unknown:
            yield f"Of {units.count(unknown)} CPUs nothing can be told: no evidence ties them to CPU {found.reference}."
    if found.min_stay_ns:
        yield (
            f"Stays of vCPUs, or holds of locks, shorter than {units.time(found.min_stay_ns)} were left aside: clocks "
            "that differ may have put them out of order."
        )
    if found.exceptions:
        yield (
            f"The {found.exceptions} pieces of evidence of each kind and pair of CPUs that say most were left aside, "
            "because they contradict the others."
        )
    left_out = [one.kind for one in found.kinds if not one.used]
    if found.reference is not None and left_out:
        yield f"Evidence that contradicts the rest was not used: {', '.join(left_out)}."


def _verdict(found: Skew) -> str:
    if found.captures > 1:
        return (
            f"The file holds {units.count(found.captures)} captures one behind the other, which have no common time: "
            "give them one by one."
        )
    if found.status == "unknown":
        return (
            "Not known: nothing in this trace happens on one CPU because of another. Capture class sched, too, or use "
            "a hypervisor with the tracepoints."
        )
    if found.status == "contradictory":
        return (
            "No constant difference for each CPU explains all of the evidence: clocks drift, or differ by more than "
            "the stays of vCPUs last. Times between CPUs are not to be trusted; --fix-skew takes nothing off."
        )
    within = "" if found.within_ns is None else f" to within {_sign(found.within_ns)}"
    if found.status == "agree":
        return f"No difference shows: all evidence fits clocks that agree, and they do{within}."
    count = len(found.offsets_ns)
    clocks = "The clock of 1 CPU differs" if count == 1 else f"The clocks of {units.count(count)} CPUs differ"
    done = "that was taken off (--fix-skew), and" if found.fixed else "--fix-skew takes that off, after which"
    far = max(map(abs, found.offsets_ns.values()))
    return f"{clocks} from CPU {found.reference}'s by up to {units.time(far)}: {done} all bounded ones agree{within}."


def _sign(ns: int) -> str:
    return f"±{units.time(ns)}"


def _tables(found: Skew | None) -> Iterator[Table]:
    if found is None or not found.kinds:
        return
    if found.reference is not None:
        yield parts.table(
            f"Clocks against CPU {found.reference}'s, furthest off first: positive is ahead",
            (
                Head("CPU"),
                Head("off by", title="what --fix-skew takes off"),
                Head("at least"),
                Head("at most"),
                Head("evidence", title="pieces that the CPU has a part in"),
            ),
            [
                (Cell(str(one.cpu), one.cpu), *map(_time, _values(one)), parts.count(one.evidence))
                for one in sorted(found.cpus, key=lambda one: (-abs(one.offset_ns or 0), one.cpu))
            ],
            "CPUs",
        )
    yield parts.table(
        "Evidence: what cannot be the other way round, between two CPUs",
        (Head("what", False), Head("pieces"), Head("used", False)),
        [(Cell(KINDS[one.kind]), parts.count(one.count), Cell("yes" if one.used else "no")) for one in found.kinds],
        "kinds",
    )


def _values(one: OfCpu) -> tuple[int | None, ...]:
    return one.offset_ns, one.low_ns, one.high_ns


def _time(ns: int | None) -> Cell:
    if ns is None:
        return Cell("–")
    return Cell(("−" if ns < 0 else "+" if ns > 0 else "") + units.time(abs(ns)), ns)


def pictures(found: Skew | None) -> tuple[Picture, ...]:
    """Each CPU's bounds, where there are any."""
    if found is None or not any(one.low_ns is not None and one.high_ns is not None for one in found.cpus):
        return ()
    return (
        parts.picture(
            bounds(found),
            "clocks",
            f"Clocks against CPU {found.reference}'s",
            "Bars: between these bounds lies how far each clock is ahead. Points: the estimate, which is 0 unless that "
            "is out of the question. Where some lie far beyond the others, the scale is linear near 0 only.",
        ),
    )


def bounds(found: Skew) -> Figure:
    """Bounds and estimate by CPU; of many CPUs those furthest off."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    from xtrace.reports.figures import SIZE
    from xtrace.reports.svg import AFTER, BAD, style

    known = [one for one in found.cpus if one.low_ns is not None and one.high_ns is not None]
    known.sort(key=lambda one: (-abs(one.offset_ns or 0), one.cpu))
    shown = sorted(known[:MAX_BARS], key=lambda one: one.cpu)
    low, high, offset = ([value or 0 for value in side] for side in zip(*map(_bar, shown), strict=True))
    with style():
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.bar(range(len(shown)), [top - end for top, end in zip(high, low, strict=True)], 0.7, low, color=AFTER)
        axes.plot(range(len(shown)), offset, "o", color=BAD, markersize=4)
        axes.axhline(0, color="black", linewidth=0.8)
        widths = sorted(max(top, -end) for top, end in zip(high, low, strict=True) if top > end)
        if widths and max(high[-1], widths[-1]) > LINEAR * widths[len(widths) // 2]:
            axes.set_yscale("symlog", linthresh=widths[len(widths) // 2])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda ns, _: _time(round(ns)).text))
        step = max(1, -(-len(shown) // 12))
        axes.set_xticks(range(0, len(shown), step), [str(one.cpu) for one in shown[::step]])
        axes.set_xlabel("CPU")
        axes.set_ylabel("ahead by")
        axes.grid(axis="x", visible=False)
        axes.use_sticky_edges = False
        axes.autoscale_view()
    return figure


def _bar(one: OfCpu) -> tuple[int | None, ...]:
    return one.low_ns, one.high_ns, one.offset_ns

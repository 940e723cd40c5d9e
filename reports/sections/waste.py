"""Wasted work: handlers that found nothing to do, and requests looked at in vain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.reports import parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xtrace.questions.waste import OfCpu, OfFlight, Waste

MAX_BARS: Final = 128

RULE: Final = (
    "A handler walks the requests in flight once, from the lowest initiator up, and runs those that are for its CPU. "
    "An interrupt that comes when such a walk has begun finds its function done. No record says when a handler runs: "
    "what counts handlers is estimated from SEND, ENTER and EXIT."
)


def answer(found: Waste) -> Iterator[str]:
    """The share of handlers for nothing, and what the walk costs; only where requests can meet."""
    if found.model != "lockless" or not found.handlers:
        return
    if found.idle and found.idle_share is not None:
        yield (
            f"About {units.count(found.idle)} of {units.count(found.handlers)} handlers "
            f"({100 * found.idle_share:.1f} %) found nothing to do: one at work already had run their function before "
            "their interrupt came."
        )
    else:
        yield f"None of {units.count(found.handlers)} handlers came for nothing."
    if found.scanned_per_served is not None:
        yield f"Handlers looked at {found.scanned_per_served:.2f} requests for each function that they ran."


def section(found: Waste) -> Section:
    """Handlers by what they found: of the host, by requests in flight, by target."""
    return Section("waste", "Wasted work", tuple(_text(found)), tables=tuple(_tables(found)))


def _text(found: Waste) -> Iterator[str]:
    if found.model == "unknown":
        yield "Not known: the records do not tell which design of calls and flushes this hypervisor has."
        return
    if not found.handlers:
        yield "No handler ran."
        return
    if found.model == "legacy":
        yield (
            f"None: {units.count(found.handlers)} handlers ran {units.count(found.served or 0)} functions. Under the "
            "locks one call and one flush are in flight at a time, each with its own vector, until all targets have "
            "answered. So each interrupt finds its request, and no other."
        )
        return
    yield from answer(found)
    yield RULE


def _tables(found: Waste) -> Iterator[Table]:
    if found.model != "lockless" or not found.handlers:
        return
    every = [
        ("interrupts sent, one a target other than the initiator", found.ipis),
        ("  whose function another handler had begun to run", found.late),
        ("  that began no handler: one was pending", found.coalesced),
        ("handlers", found.handlers),
        ("  of it called by a CPU in its own mask", found.direct),
        ("  of it found nothing to do", found.idle),
        ("requests looked at", found.scanned),
        ("functions run", found.served),
    ]
    rows = [(Cell(name), Cell("–") if count is None else parts.count(count)) for name, count in every]
    yield parts.table("All handlers", (Head("", False), Head("count")), rows, "lines")
    yield parts.table(
        "By requests in flight on the host when the handler began",
        (Head("in flight"), *_HEADS),
        [(Cell(_range(one), one.low), *_found(one)) for one in found.in_flight],
        "lines",
    )
    yield parts.table(
        "By target CPU, most handlers for nothing first",
        (Head("CPU"), Head("interrupts"), Head("too late"), *_HEADS),
        [
            (Cell(str(one.cpu), one.cpu), parts.count(one.ipis), parts.count(one.late), *_found(one))
            for one in sorted(found.cpus, key=lambda one: (-one.idle, one.cpu))
        ],
        "CPUs",
    )


_HEADS: Final = tuple(map(Head, ("handlers", "for nothing", "share", "looked at", "functions", "looks a function")))


def _found(one: OfCpu | OfFlight) -> tuple[Cell, ...]:
    share = 100 * one.idle / one.handlers if one.handlers else None
    looks = one.scanned / one.served if one.served else None
    return (
        parts.count(one.handlers),
        parts.count(one.idle),
        Cell("–") if share is None else Cell(f"{share:.1f} %", share),
        parts.count(one.scanned),
        parts.count(one.served),
        Cell("–") if looks is None else Cell(f"{looks:.2f}", looks),
    )


def _range(one: OfFlight) -> str:
    return str(one.low) if one.low == one.high else f"{one.low}-{one.high}"


def pictures(found: Waste) -> tuple[Picture, ...]:
    """What the walk costs by requests in flight, and handlers by what they found, by target."""
    if found.model != "lockless" or not found.handlers:
        return ()
    return (
        parts.picture(
            _looks(found),
            "waste-in-flight",
            "What the walk costs as more is in flight",
            "Requests looked at for each function run, and the share of handlers that found nothing to do. Those that "
            "began with none in flight found nothing.",
        ),
        parts.picture(
            _by_cpu(found),
            "waste-by-cpu",
            "Handlers by target CPU",
            "Estimated: those that ran a function, and those that found nothing to do.",
        ),
    )


def _looks(found: Waste) -> Figure:
    from matplotlib.figure import Figure

    from xtrace.reports.figures import SIZE
    from xtrace.reports.svg import AFTER, BAD, style

    rows = [one for one in found.in_flight if one.low]
    with style():
        figure = Figure(figsize=SIZE, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        _bars(upper, [one.scanned / one.served if one.served else 0 for one in rows], AFTER, "{:.2f}")
        _bars(lower, [100 * one.idle / one.handlers for one in rows], BAD, "{:.0f}")
        upper.set_ylabel("looks a function")
        lower.set_ylabel("% for nothing")
        lower.set_xlabel("requests in flight when the handler began")
        lower.set_xticks(range(len(rows)), [_range(one) for one in rows])
    return figure


def _bars(axes: Axes, values: list[float], colour: str, shown: str) -> None:
    axes.bar(range(len(values)), values, color=colour, width=0.7)
    for x, value in enumerate(values):
        axes.text(x, value, shown.format(value), ha="center", va="bottom", fontsize=8)
    axes.margins(y=0.25)
    axes.grid(axis="x", visible=False)


def _by_cpu(found: Waste) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from xtrace.reports.figures import SIZE
    from xtrace.reports.svg import AFTER, BAD, style

    # Neighbours share a bar where there are more than can be told apart.
    width = max(1, -(-len(found.cpus) // MAX_BARS))
    groups = [found.cpus[first : first + width] for first in range(0, len(found.cpus), width)]
    idle = [sum(one.idle for one in group) for group in groups]
    useful = [sum(one.handlers for one in group) - missed for group, missed in zip(groups, idle, strict=True)]
    with style():
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.bar(range(len(groups)), useful, color=AFTER, width=0.8, label="ran a function")
        axes.bar(range(len(groups)), idle, bottom=useful, color=BAD, width=0.8, label="found nothing")
        step = max(1, -(-len(groups) // 16))
        axes.set_xticks(range(0, len(groups), step), [str(group[0].cpu) for group in groups[::step]])
        axes.set_xlabel("target CPU")
        axes.set_ylabel("handlers")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside upper left", ncols=2)
    return figure

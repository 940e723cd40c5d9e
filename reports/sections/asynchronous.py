"""Asynchronous calls: what was left to do when their callers had returned, and who paid for it later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.reports import parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xtrace.questions.asynchronous import After, Asynchronous, OfFunction

SPREAD: Final = ("mean", "p50", "p90", "p99", "max")
MAX_BARS: Final = 12

RULES: Final = {
    "lockless": (
        "Such a call returns as soon as it is sent. The next call or flush of its CPU waits until all targets have "
        "checked in."
    ),
    "legacy": (
        "Such a call returns once all targets have checked in, and holds the lock until then. So its CPU's next call "
        "or flush never waits for it."
    ),
    "unknown": "The records do not tell the design, so what the next call of the CPU had to wait for is not known.",
}

CHECK_IN: Final = (
    "A target checks in right before it runs the function, and ENTER is the record of that. Return is DONE. Negative "
    "times are before return."
)


def answer(found: Asynchronous) -> Iterator[str]:
    """How much was still running when callers had returned, and what that cost the next call; nothing of no calls."""
    if not found.calls:
        return
    worst = found.functions[0]
    if worst.unfinished.count:
        left = (
            f"of {worst.name} {units.count(worst.unfinished.count)} of {units.count(worst.targets)} targets were not "
            f"through when the caller had returned, by up to {units.time(worst.unfinished.max_ns)}"
        )
    else:
        left = "all targets were through when their callers returned"
    yield f"wait = 0: {_of(found.calls, 'call')} of {_of(len(found.functions), 'function')}; {left}{_held_up(found)}."


def _of(count: int, what: str) -> str:
    return f"{units.count(count)} {what}{'' if count == 1 else 's'}"


def _held_up(found: Asynchronous) -> str:
    waits = [one.next_held_up for one in found.functions if one.next_held_up is not None]
    if not waits:
        return ""
    count = sum(one.count for one in waits)
    if not count:
        return "; no next call was delayed"
    return f"; {_of(count, 'next call')} had to wait for that, {units.time(sum(one.sum_ns for one in waits))} in all"


def section(found: Asynchronous) -> Section:
    """By function what was left to do, how long it took, and what other meanings of waiting would have cost."""
    if not found.calls:
        return Section("asynchronous", "Asynchronous calls", ("No asynchronous call in this trace.",))
    text = (*answer(found), RULES[found.model], CHECK_IN)
    return Section("asynchronous", "Asynchronous calls", text, tables=tuple(_tables(found)))


def _tables(found: Asynchronous) -> Iterator[Table]:
    functions = found.functions
    name = Head("function", False)
    yield parts.table(
        "Targets that had not begun, or not ended, when the caller had returned, and how much later they had",
        (name, *map(Head, ("calls", "targets", "not begun", "at most", "in all", "not ended", "at most", "in all"))),
        [
            (
                Cell(one.name),
                parts.count(one.calls),
                parts.count(one.targets),
                *_after(one.to_begin),
                *_after(one.unfinished),
            )
            for one in functions
        ],
        "functions",
    )
    yield parts.table(
        "From the caller's return until the last target had checked in, and until the last function had ended",
        (name, Head("until", False), Head("before return"), *map(Head, SPREAD)),
        [row for one in functions for row in _spreads(one)],
        "lines",
    )
    yield parts.table(
        "What callers paid, and would have with each meaning of waiting: START to DONE, SEND, last ENTER, last EXIT; "
        "means",
        (name, *map(Head, ("calls", "paid", "for nothing", "for check-in", "for the end"))),
        [
            (
                Cell(one.name),
                parts.count(one.calls),
                *map(parts.time, (one.paid_ns, one.sent_ns, one.checked_in_ns, one.complete_ns)),
            )
            for one in functions
        ],
        "functions",
    )
    yield parts.table(
        "Next calls and flushes of the same CPU that had to wait until all targets of one had checked in, and how long",
        (name, *map(Head, ("calls", "held up", "at most", "in all"))),
        [(Cell(one.name), parts.count(one.calls), *_after(one.next_held_up)) for one in functions],
        "functions",
    )


def _after(one: After | None) -> tuple[Cell, Cell, Cell]:
    if one is None:
        return Cell("–"), Cell("–"), Cell("–")
    return parts.count(one.count), parts.time(one.max_ns), parts.time(one.sum_ns)


def _spreads(one: OfFunction) -> Iterator[tuple[Cell, ...]]:
    for until, before, spread in (
        ("check-in", one.all_checked_in, one.to_check_in),
        ("end", one.all_complete, one.to_complete),
    ):
        share = f"{units.count(before)} of {units.count(one.calls)}"
        yield (Cell(one.name), Cell(until), Cell(share, before), *(parts.time(spread[key]) for key in SPREAD))


def pictures(found: Asynchronous) -> tuple[Picture, ...]:
    """The way of a call of each function on average, and where its caller returned."""
    if not found.calls:
        return ()
    more = len(found.functions) - MAX_BARS
    return (
        parts.picture(
            _way(found.functions[:MAX_BARS]),
            "asynchronous",
            "When asynchronous calls were sent, had checked in, and had ended",
            "Means from START; the mark is where the caller returned, so all beyond it was done behind its back."
            + (f" {more} more functions are not shown." if more > 0 else ""),
            wide=True,
        ),
    )


def _way(functions: tuple[OfFunction, ...]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    from xtrace.reports.svg import BAD, INK, PHASE_1, PHASE_2, PHASE_3, style

    with style():
        figure = Figure(figsize=(10.0, 1.1 + 0.38 * len(functions)), layout="constrained")
        axes = figure.add_subplot()
        for y, one in enumerate(functions):
            # Some targets may have ended before the call was sent on the clock.
            ends = (one.sent_ns, max(one.checked_in_ns, one.sent_ns), max(one.complete_ns, one.sent_ns))
            begin = 0.0
            for end, colour, label in zip(
                ends,
                (PHASE_1, PHASE_2, PHASE_3),
                ("until sent", "until all checked in", "until all had ended"),
                strict=True,
            ):
                axes.barh(y, end - begin, left=begin, color=colour, height=0.6, label=None if y else label)
                begin = end
            axes.plot(
                [one.paid_ns] * 2,
                [y - 0.42, y + 0.42],
                color=BAD,
                linewidth=2.5,
                label=None if y else "caller returned",
            )
        axes.set_yticks(range(len(functions)), [units.printable(one.name) for one in functions], color=INK)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda ns, _: units.time(ns)))
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside upper left", ncols=4)
    return figure

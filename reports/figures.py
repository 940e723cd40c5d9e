"""Figures of calls and flushes, for a report, a notebook or a file.

Each takes tables as `Trace.df_episodes()` and `Trace.df_deliveries()` give them (or some of their rows) and returns a
Matplotlib Figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray

from xtrace import units
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.reports.svg import (
    ACCENT,
    AFTER,
    BAD,
    BEFORE,
    GOOD,
    GRID,
    INK,
    PHASE_1,
    PHASE_2,
    PHASE_3,
    PHASE_4,
    STYLE,
    style,
)

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.comparison import Cell
    from xtrace.questions.contests import Waiter
    from xtrace.swimlanes import Swimlane

Kind = Literal["call", "flush"]
Tables = tuple["pd.DataFrame", "pd.DataFrame"]
"""Episodes and deliveries of a trace."""

SIZE: Final = (5.0, 3.1)
WIDE: Final = (10.0, 3.4)
COLOURS: Final = (BEFORE, AFTER, ACCENT, PHASE_3, GOOD, PHASE_4)
"""Of the sides, which begin again where there are more."""

POINTS: Final = 400
BINS: Final = 48
TIME_BINS: Final = 320
MAX_MARKS: Final = 128
STRONGEST: Final = 80.0


def ecdf(sides: Mapping[str, pd.DataFrame], kind: Kind = "call", column: str = "total_ns") -> Figure:
    """Share of complete episodes that took at most so long, one line a side, on a logarithmic axis of time."""
    with style():
        figure, axes = _one()
        for (name, episodes), colour in zip(sides.items(), _colours(sides), strict=False):
            values = _times(episodes, kind, column)
            if len(values):
                share = np.linspace(0, 1, min(POINTS, max(len(values), 2)))
                # The tail is what people look for: it gets points of its own.
                share = np.unique(np.concatenate((share, 1 - np.geomspace(1 / len(values), 0.05, 40))))
                axes.plot(
                    np.quantile(values, share, method="inverted_cdf"),
                    100 * share,
                    color=colour,
                    label=name,
                    drawstyle="steps-post",
                )
        _time_axis(axes.xaxis, axes)
        axes.set_xlabel(_column_name(column))
        axes.set_ylabel(f"% of {KIND_NOUNS[kind]}")
        axes.set_ylim(0, 100)
        _legend(axes, len(sides))
    return figure


def histogram(sides: Mapping[str, pd.DataFrame], kind: Kind = "call", column: str = "total_ns") -> Figure:
    """How often complete episodes took so long: logarithmic bins of time, all sides on the same ones."""
    with style():
        figure, axes = _one()
        values = {name: _times(episodes, kind, column) for name, episodes in sides.items()}
        every = np.concatenate(list(values.values()))
        if len(every):
            low, high = every.min(), every.max()
            edges = np.geomspace(low, max(high, low * 1.1), BINS + 1)
            edges[-1] *= 1 + 1e-9
            for (name, mine), colour in zip(values.items(), _colours(sides), strict=False):
                count = np.histogram(mine, edges)[0]
                axes.stairs(count, edges, color=colour, label=name, fill=True, alpha=0.25)
                axes.stairs(count, edges, color=colour)
        _time_axis(axes.xaxis, axes)
        axes.set_xlabel(_column_name(column))
        axes.set_ylabel(KIND_NOUNS[kind])
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        _legend(axes, len(sides))
    return figure


def heat_map(before: Tables, after: Tables, kind: Kind = "call") -> Figure:
    """The grid: change of the mean of what callers paid, by CPUs in the mask and callers at work."""
    from xtrace.comparing import grid
    from xtrace.sides import Run, costs

    sides = [costs([Run({}, frozenset(), *tables)], kind) for tables in (before, after)]
    return grid_of(grid(*sides))


def grid_of(cells: Sequence[Cell]) -> Figure:
    """`heat_map` of cells that are already there (`compare.Cell`)."""
    from matplotlib.patches import Rectangle

    masks = list(dict.fromkeys(str(cell.mask) for cell in cells))
    callers = sorted({str(cell.callers) for cell in cells}, key=lambda name: int(name.split("-")[0]))
    with style():
        figure = Figure(figsize=(max(3.4, 1.4 + 1.1 * len(callers)), 1.0 + 0.42 * len(masks)), layout="constrained")
        axes = figure.add_subplot()
        for cell in cells:
            x, y = callers.index(str(cell.callers)), masks.index(str(cell.mask))
            percent, verdict = cell.change.percent, cell.change.verdict
            told = percent is not None and verdict in ("faster", "slower")
            colour = {"faster": GOOD, "slower": BAD}.get(verdict, GRID)
            strength = 0.12 + 0.6 * min(abs(percent or 0) / STRONGEST, 1) if told else 0.35
            axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour, alpha=strength, linewidth=0))
            mark = {"no change": " ~", "too few": " ?"}.get(verdict, "")
            axes.text(
                x, y, f"{units.percent(percent)} %{mark}" if percent is not None else "?", ha="center", va="center"
            )
        axes.set_xlim(-0.5, len(callers) - 0.5)
        axes.set_ylim(len(masks) - 0.5, -0.5)
        axes.set_xticks(range(len(callers)), callers)
        axes.set_yticks(range(len(masks)), masks)
        axes.set_xlabel("callers at work")
        axes.set_ylabel("CPUs in the mask")
        axes.grid(False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def timeline(sides: Mapping[str, pd.DataFrame], kind: Kind = "call") -> Figure:
    """Over time, how many episodes waited before they were sent (the lock queue) and how many were in flight.

    A panel a side; each point is the mean over one of TIME_BINS equal parts of the longest span.
    """
    with style():
        figure = Figure(figsize=(WIDE[0], 0.6 + 1.45 * max(len(sides), 1)), layout="constrained")
        panels = figure.subplots(max(len(sides), 1), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        rows = {name: _complete(episodes, kind) for name, episodes in sides.items()}
        end = max((int(one["done_ns"].max()) for one in rows.values() if len(one)), default=1)
        edges = np.linspace(0, end, TIME_BINS + 1)
        for axes, (name, mine) in zip(panels, rows.items(), strict=False):
            start, send, done = (mine[column].to_numpy(np.float64) for column in ("start_ns", "send_ns", "done_ns"))
            for begin, until, colour, label in (
                (start, send, BAD, "waiting to send"),
                (send, done, AFTER, "in flight"),
            ):
                axes.stairs(_mean_open(begin, until, edges), edges / 1e9, color=colour, fill=True, alpha=0.35)
                axes.stairs(_mean_open(begin, until, edges), edges / 1e9, color=colour, label=label)
            axes.set_title(name, loc="left")
            axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        if len(panels):
            _legend_above(figure, panels[0])
            panels[-1].set_xlabel("seconds")
        figure.supylabel(f"{KIND_NOUNS[kind]}, mean", fontsize=STYLE["font.size"])
    return figure


def waits_by_cpu(sides: Mapping[str, pd.DataFrame], kind: Kind = "call", column: str = "total_ns") -> Figure:
    """What each initiating CPU waited.

    A line from the 10th to the 90th percentile, a dot at the mean, a tick at the longest.
    """
    with style():
        rows = {name: _complete(episodes, kind) for name, episodes in sides.items()}
        cpus = sorted({int(cpu) for one in rows.values() for cpu in one["initiator"].unique()})
        # Neighbours share a mark where there are more than can be told apart.
        width = max(1, -(-len(cpus) // MAX_MARKS))
        groups = [cpus[first : first + width] for first in range(0, len(cpus), width)]
        place = {cpu: x for x, group in enumerate(groups) for cpu in group}
        figure = Figure(figsize=SIZE if len(groups) <= 24 else WIDE, layout="constrained")
        axes = figure.add_subplot()
        apart = 0.7 / max(len(sides), 1)
        for index, ((name, one), colour) in enumerate(zip(rows.items(), _colours(sides), strict=False)):
            if not len(one):
                continue
            by_cpu = one.groupby(one["initiator"].map(place))[column]
            low, high, mean, longest = by_cpu.quantile(0.1), by_cpu.quantile(0.9), by_cpu.mean(), by_cpu.max()
            x = mean.index.to_numpy(np.float64) + (index - (len(sides) - 1) / 2) * apart
            axes.vlines(x, low.to_numpy(float), high.to_numpy(float), color=colour, alpha=0.45, linewidth=3)
            axes.plot(x, mean.to_numpy(float), "o", color=colour, label=f"{name}: mean", markersize=5)
            axes.plot(x, longest.to_numpy(float), "_", color=colour, label=f"{name}: longest", markersize=9)
        axes.set_yscale("log")
        _time_axis(axes.yaxis, axes)
        step = max(1, len(groups) // 24)
        axes.set_xticks(range(0, len(groups), step), [str(group[0]) for group in groups[::step]])
        axes.set_xlabel("initiating CPU")
        axes.set_ylabel(_column_name(column))
        _legend_above(figure, axes)
    return figure


def contest(sides: Mapping[str, Sequence[Waiter]]) -> Figure:
    """What competing requests cost each CPU, by side: mean with its interval, 90th percentile, longest."""
    with style():
        cpus = sorted({one.cpu for waiters in sides.values() for one in waiters})
        place = {cpu: x for x, cpu in enumerate(cpus)}
        figure = Figure(figsize=SIZE if len(cpus) <= 24 else WIDE, layout="constrained")
        axes = figure.add_subplot()
        apart = 0.7 / max(len(sides), 1)
        for index, ((name, waiters), colour) in enumerate(zip(sides.items(), _colours(sides), strict=False)):
            x = np.array([place[one.cpu] for one in waiters]) + (index - (len(sides) - 1) / 2) * apart
            mean = np.array([one.mean_ns for one in waiters])
            low, high = (
                np.array([one.mean_ns if end is None else end for one, end in zip(waiters, ends, strict=True)])
                for ends in ([one.low_ns for one in waiters], [one.high_ns for one in waiters])
            )
            axes.vlines(x, mean, [one.p90_ns for one in waiters], color=colour, alpha=0.25, linewidth=7)
            axes.errorbar(
                x,
                mean,
                [mean - low, high - mean],
                fmt="o",
                color=colour,
                markersize=5,
                capsize=3,
                label=f"{name}: mean",
            )
            axes.plot(x, [one.max_ns for one in waiters], "_", color=colour, label=f"{name}: longest", markersize=9)
        axes.set_yscale("log")
        _time_axis(axes.yaxis, axes)
        step = max(1, len(cpus) // 24)
        axes.set_xticks(range(0, len(cpus), step), [str(cpu) for cpu in cpus[::step]])
        axes.set_xlabel("initiating CPU")
        axes.set_ylabel("what a request cost")
        _legend_above(figure, axes)
    return figure


def phases(sides: Mapping[str, pd.DataFrame], kind: Kind = "call") -> Figure:
    """Where the mean total goes: lock wait, then in flight, by side."""
    with style():
        figure = Figure(figsize=(SIZE[0], 0.9 + 0.45 * len(sides)), layout="constrained")
        axes = figure.add_subplot()
        for y, episodes in enumerate(sides.values()):
            rows = _complete(episodes, kind)
            if len(rows):
                wait = float(rows["lock_wait_ns"].mean())
                flight = float(rows["total_ns"].mean()) - wait
                axes.barh(y, wait, color=BAD, height=0.6, label="lock wait" if not y else None)
                axes.barh(y, flight, left=wait, color=PHASE_2, height=0.6, label="sent to done" if not y else None)
        axes.set_yticks(range(len(sides)), list(sides))
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.time(value)))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"mean total of {KIND_NOUNS[kind]}")
        _legend_above(figure, axes)
    return figure


SPAN_COLOURS: Final = {
    "lock wait": BAD,
    "sent": GRID,
    "delivery": PHASE_1,
    "execution": PHASE_2,
    "completion": PHASE_3,
    "other function": PHASE_4,
    "own request": ACCENT,
}


def swimlane(lanes: Swimlane) -> Figure:
    """One episode (`swimlanes.swimlanes` makes the data from tables): a lane a CPU, the initiator first.

    The upper bar of a lane is the episode, the lower one what the CPU did besides.
    """
    with style():
        figure = Figure(figsize=(WIDE[0], 1.3 + 0.36 * len(lanes.cpus)), layout="constrained")
        axes = figure.add_subplot()
        named: set[str] = set()
        for y, cpu in enumerate(lanes.cpus):
            for span in cpu.spans:
                own = span.what in ("other function", "own request")
                low = y + 0.08 if own else y - 0.34
                axes.broken_barh(
                    [((span.begin_ns - lanes.from_ns) / 1e3, max(span.end_ns - span.begin_ns, 0) / 1e3)],
                    (low, 0.26 if own else 0.4),
                    facecolors=SPAN_COLOURS[span.what],
                    label=None if span.what in named else span.what,
                )
                named.add(span.what)
            if cpu.marks_ns:
                x = (np.array(cpu.marks_ns) - lanes.from_ns) / 1e3
                axes.plot(x, np.full(len(x), y + 0.4), "|", color=INK, markersize=4, alpha=0.6)
        axes.set_yticks(range(len(lanes.cpus)), [cpu.label for cpu in lanes.cpus])
        axes.set_ylim(len(lanes.cpus) - 0.45, -0.55)
        axes.set_xlim(0, (lanes.to_ns - lanes.from_ns) / 1e3)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.time(1e3 * value)))
        axes.grid(axis="y", visible=False)
        _legend_above(figure, axes, columns=7)
    return figure


def _colours(sides: Mapping[str, object]) -> Iterator[str]:
    return cycle(COLOURS if len(sides) > 1 else (AFTER,))


def _one() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.add_subplot()


def _complete(episodes: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """Complete ones of a kind; calls that carry a flush are left out."""
    rows = episodes
    if "kind" in rows:
        rows = rows[rows["kind"] == kind]
    if "complete" in rows:
        rows = rows[rows["complete"]]
    if "parent" in rows:
        rows = rows[rows["parent"].isna()]
    return rows


def _times(episodes: pd.DataFrame, kind: Kind, column: str) -> NDArray[np.float64]:
    """In ns, at least 1: the axis is logarithmic."""
    times: NDArray[np.float64] = np.maximum(_complete(episodes, kind)[column].to_numpy(np.float64), 1.0)
    return times


def _mean_open(begin: NDArray[np.float64], end: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """By bin, the mean number of spans open in it."""

    def passed(times: NDArray[np.float64]) -> NDArray[np.float64]:
        ordered = np.sort(times)
        sums = np.append(0.0, np.cumsum(ordered))
        count = np.searchsorted(ordered, edges)
        area: NDArray[np.float64] = count * edges - sums[count]
        return area

    found: NDArray[np.float64] = np.diff(passed(begin) - passed(end)) / np.diff(edges)
    return np.maximum(found, 0)


def _time_axis(axis: Any, axes: Axes) -> None:
    if axis is axes.xaxis:
        axes.set_xscale("log")
    axis.set_major_locator(LogLocator(10, numticks=7))
    axis.set_minor_locator(LogLocator(10, subs=(2, 5), numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: units.time(value).replace(".00", "").replace(".0", "")))
    low, high = axis.get_view_interval()
    wanted = high / max(low, 1e-9) < 50
    axis.set_minor_formatter(
        FuncFormatter(lambda value, _: units.time(value).replace(".00", "").replace(".0", "") if wanted else "")
    )


def _column_name(column: str) -> str:
    return {"total_ns": "START to DONE", "paid_ns": "what callers paid"}.get(column, column.removesuffix("_ns"))


def _legend(axes: Axes, count: int) -> None:
    if count > 1:
        axes.legend(loc="best")


def _legend_above(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """What the marks mean, where there are any."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=columns)

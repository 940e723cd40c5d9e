"""VM exits: which reasons cost the most, what handled them, whose they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.context import domain_name, vcpu_name
from xtrace.reports import parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xtrace.host.exits import ExitHandling, ExitMix, ExitPath, ExitReason, Exits

TITLE: Final = "VM exits"
NAMED: Final = 3
"""Reasons that a sentence names."""
COLOURED: Final = 6
"""Reasons that a picture tells apart."""
BARS: Final = 24
"""vCPUs, and reasons, that a picture has room for."""

NONE: Final = (
    "No VM exit of this selection ended: the trace has no HVM or PVH guest, or its TRC_HVM events were not traced."
)

TIMES: Final = (
    Head("exits"),
    Head("time", title="from the exit until the guest went on, or its vCPU became runnable"),
    Head("% of span", title="of one CPU"),
    Head("mean"),
    Head("p5"),
    Head("p50"),
    Head("p95"),
    Head("max"),
)


def answer(found: Exits) -> Iterator[str]:
    """What exits took, and for what."""
    if not found.totals:
        return
    asleep = [one.time for one in found.mixes if one.group == "halt"]
    halts, slept = sum(one.count for one in asleep), sum(one.total_ns for one in asleep)
    count = sum(one.time.count for one in found.totals) - halts
    whole = sum(one.time.total_ns for one in found.totals) - slept
    halting = {one.name for one in found.handlings if one.what == "hlt"}
    awake = [one for one in found.totals if one.name not in halting]
    named = [
        f"{one.name} {units.time(one.time.total_ns)} ({100 * one.time.total_ns / whole:.0f} %)"
        for one in awake[:NAMED]
        if whole and 100 * one.time.total_ns >= whole
    ]
    most = f", most for {', '.join(named)}" if named else ""
    beside = f"; beside them vCPUs slept {units.time(slept)} in {_counted(halts, 'halt')}" if halts else ""
    yield f"{_counted(count, 'exit')} took {units.time(whole)} of vCPUs’ time{most}{beside}."


def section(found: Exits) -> Section:
    """Reasons over all vCPUs first, then what handled them, then by domain and vCPU."""
    if not found.totals:
        return Section("exits", TITLE, (NONE,))
    tables = [_totals(found), _handled(found), _mixes(found)]
    if len({one.domain for one in found.domains}) > 1:
        tables.append(_reasons("By domain and reason", "domain", found.domains))
    tables += [
        _reasons("By vCPU and reason, most time first", "vCPU", _most(found.vcpus)),
        _handlings(found),
        *_paths(found),
    ]
    return Section("exits", TITLE, (*answer(found), *_meaning(found)), (), tuple(tables))


def _meaning(found: Exits) -> Iterator[str]:
    yield (
        "An exit ends when its vCPU enters the guest again, or becomes runnable: waiting for a CPU is in no figure, "
        "sleep in HLT is in that of its reason. Quantiles are over exits, not weighted by time."
    )
    if any(one.kind == "interrupt" and one.number is None for one in found.handlings):
        yield "On SVM no record tells which host interrupt ended a stay in the guest."
    if found.unended:
        yield f"The end of {_counted(found.unended, 'exit')} in all the trace was not seen: not in any figure."


def _totals(found: Exits) -> Table:
    heads = (Head("reason", False), *TIMES)
    rows = [(Cell(one.name), *_times(one)) for one in found.totals]
    return parts.table("Exits by reason, all vCPUs", heads, rows, "reasons")


def _handled(found: Exits) -> Table:
    """What handled the exits of all vCPUs."""
    sums: dict[tuple[str, str], list[float]] = {}
    for one in found.handlings:
        held = sums.setdefault((one.name, one.what), [0, 0, 0])
        held[0] += one.time.count
        held[1] += one.time.total_ns
        held[2] += one.percent or 0
    heads = (Head("reason", False), Head("handled as", False), *TIMES[:4])
    rows = [
        (
            Cell(name),
            Cell(what),
            parts.count(count),
            parts.time(total),
            Cell(f"{percent:.2f}", percent),
            parts.time(total / count),
        )
        for (name, what), (count, total, percent) in sorted(sums.items(), key=lambda item: -item[1][1])
    ]
    return parts.table("What handled the exits, all vCPUs", heads, rows, "lines")


def _mixes(found: Exits) -> Table:
    heads = (Head("domain", False), Head("group", False), *TIMES)
    rows = [
        (Cell(domain_name(one.domain), one.domain), Cell(one.group), *_times(one))
        for one in sorted(found.mixes, key=lambda one: (one.domain, -one.time.total_ns))
    ]
    return parts.table("Exits by domain in ten groups (those without exits left out)", heads, rows, "lines")


def _most(rows: Iterable[ExitReason]) -> list[ExitReason]:
    return sorted(rows, key=lambda one: -one.time.total_ns)


def _reasons(caption: str, whose: str, rows: Sequence[ExitReason]) -> Table:
    heads = (Head(whose, False), Head("reason", False), *TIMES)
    return parts.table(caption, heads, [(_who(one), Cell(one.name), *_times(one)) for one in rows], "lines")


def _who(one: ExitReason) -> Cell:
    domain = one.domain or 0
    return Cell(domain_name(domain), domain) if one.vcpu is None else Cell(vcpu_name(domain, one.vcpu))


def _handlings(found: Exits) -> Table:
    heads = (Head("vCPU", False), Head("reason", False), Head("handled as", False), *TIMES[:2], *TIMES[3:7])
    rows = [
        (Cell(vcpu_name(one.domain, one.vcpu)), Cell(one.name), Cell(one.what), *_short(one))
        for one in sorted(found.handlings, key=lambda one: -one.time.total_ns)
    ]
    return parts.table("By vCPU and what handled them, most time first", heads, rows, "lines")


def _short(one: ExitHandling) -> tuple[Cell, ...]:
    time = one.time
    shown = (time.total_ns, time.mean_ns, time.p5_ns, time.p50_ns, time.p95_ns)
    return parts.count(time.count), *map(parts.time, shown)


def _paths(found: Exits) -> Iterator[Table]:
    if not found.paths:
        return
    heads = (Head("vCPU", False), Head("what was done", False), *TIMES)
    rows = [(Cell(vcpu_name(one.domain, one.vcpu)), Cell(one.path), *_times(one)) for one in found.paths]
    yield parts.table("What shadow paging did; an exit may be in several lines", heads, rows, "lines")


def _times(one: ExitReason | ExitMix | ExitPath) -> tuple[Cell, ...]:
    """The columns of TIMES."""
    time, percent = one.time, one.percent
    share = Cell("–") if percent is None else Cell(f"{percent:.2f}", percent)
    spread = map(parts.time, (time.mean_ns, time.p5_ns, time.p50_ns, time.p95_ns, time.max_ns))
    return parts.count(time.count), parts.time(time.total_ns), share, *spread


def _counted(count: int, noun: str) -> str:
    return f"{units.count(count)} {noun}" + ("" if count == 1 else "s")


def pictures(found: Exits) -> tuple[Picture, ...]:
    """Where the time of exits went, and how long they took."""
    if not found.totals:
        return ()
    return (
        parts.picture(
            shares(found),
            "exits-shares",
            "Time in VM exits by vCPU and reason",
            "% of the span of time, on one CPU. Reasons beyond the first few are one.",
        ),
        parts.picture(
            ranges(found),
            "exits-ranges",
            "How long VM exits take",
            "By reason, over all vCPUs: 5 % of exits were shorter than the left end of the line, half than the dot, "
            "95 % than its right end. The axis is logarithmic.",
        ),
    )


def shares(found: Exits) -> Figure:
    """A Matplotlib Figure: a bar a vCPU, of those that spent most in exits, in parts by reason."""
    from matplotlib.figure import Figure

    from xtrace.reports.svg import AFTER, BEFORE, PHASE_1, PHASE_2, PHASE_3, PHASE_4, style

    colours = (AFTER, BEFORE, PHASE_3, PHASE_1, PHASE_4, PHASE_2)
    reasons = [one.name for one in found.totals[:COLOURED]]
    if len(found.totals) > COLOURED:
        reasons[-1] = "others"
    bars: dict[tuple[int, int], list[float]] = {}
    for one in found.vcpus:
        bar = bars.setdefault((one.domain or 0, one.vcpu or 0), [0.0] * len(reasons))
        bar[reasons.index(one.name) if one.name in reasons else -1] += one.percent or 0
    most = sorted(sorted(bars, key=lambda who: -sum(bars[who]))[:BARS])
    with style():
        figure = Figure(figsize=(5.0, 1.4 + 0.3 * len(most)), layout="constrained")
        axes = figure.add_subplot()
        left = [0.0] * len(most)
        for place, (reason, colour) in enumerate(zip(reasons, colours, strict=False)):
            part = [bars[who][place] for who in most]
            axes.barh(range(len(most)), part, 0.7, left, color=colour, label=reason)
            left = [before + more for before, more in zip(left, part, strict=True)]
        axes.set_yticks(range(len(most)), [vcpu_name(*who) for who in most])
        axes.set_ylim(len(most) - 0.5, -0.5)
        axes.set_xlabel("% of the span")
        axes.grid(False, axis="y")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def ranges(found: Exits) -> Figure:
    """A Matplotlib Figure: a line a reason from p5 to p95, a dot at p50."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    from xtrace.reports.svg import AFTER, PHASE_1, style

    rows = found.totals[:BARS]
    with style():
        figure = Figure(figsize=(5.0, 0.9 + 0.3 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for y, one in enumerate(rows):
            low, middle, high = (max(ns or 0, 1) for ns in (one.time.p5_ns, one.time.p50_ns, one.time.p95_ns))
            axes.plot([low, high], [y, y], color=PHASE_1, linewidth=5, solid_capstyle="butt")
            axes.plot([middle], [y], "o", color=AFTER)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, numticks=7))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: units.time(value).replace(".00", "").replace(".0", ""))
        )
        axes.xaxis.set_minor_formatter("")
        axes.set_yticks(range(len(rows)), [one.name for one in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(False, axis="y")
    return figure

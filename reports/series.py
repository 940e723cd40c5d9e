"""Sections over time: what of each interval matters most, as tables and as plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace import units
from xtrace.context import IDLE_DOMAIN, domain_name
from xtrace.reports import parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table
from xtrace.series import Subject, figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xtrace.series import Interval

MOST: Final = 6
"""Columns of a table and lines of a plot: the largest."""
S: Final = 1e9


class Scale(NamedTuple):
    """How figures of an interval are shown: times `factor`, and by its length in s where they add up over time."""

    unit: str
    factor: float
    text: Callable[[float], str]
    adds_up: bool = True


def _three(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


CPUS: Final = Scale("CPUs", 1 / S, lambda value: f"{value:.2f}")
PERCENT: Final = Scale("%", 100 / S, lambda value: f"{value:.1f}")
PER_S: Final = Scale("per second", 1, _three)
BYTES_PER_S: Final = Scale("bytes per second", 1, units.size)
TIME: Final = Scale("ns", 1, units.time, adds_up=False)


class Headline(NamedTuple):
    """Which figures of a section stand for it over time.

    section, table, measures  as the columns of `series.SERIES`
    subject                   what a column of the table is called, empty for figures that are left out
    """

    section: str
    caption: str
    table: str
    measures: tuple[str, ...]
    scale: Scale
    subject: Callable[[Subject], str]


def _domain(of: Subject) -> str:
    return "" if of.domain is None else domain_name(of.domain)


def _guest(of: Subject) -> str:
    """A domain but the idle one, whose vCPUs wait whenever there is work."""
    return "" if of.domain == IDLE_DOMAIN else _domain(of)


def _cpu(of: Subject) -> str:
    return "" if of.cpu is None else f"CPU {of.cpu}"


def _name(of: Subject) -> str:
    return of.name or "all"


def _domain_and_name(of: Subject) -> str:
    return f"{_domain(of)} {of.name}".strip()


def _whole_domain(of: Subject) -> str:
    """Rows of vCPUs are told once more in those of their domain."""
    return _domain_and_name(of) if of.vcpu is None else ""


EPISODES: Final = tuple(
    headline
    for noun, nouns in (("call", "calls"), ("flush", "flushes"))
    for headline in (
        Headline(nouns, f"{nouns.capitalize()} per second", "", ("count",), PER_S, _name),
        Headline(
            nouns, f"What {nouns} cost their callers: each {noun} that started there", "", ("total_ns",), TIME, _name
        ),
    )
)
HEADLINES: Final = (
    *EPISODES,
    Headline(
        "runstates", "Running: so many CPUs were busy with each domain", "vcpus", ("running_total_ns",), CPUS, _domain
    ),
    Headline(
        "runstates", "Runnable: so many vCPUs of each domain waited", "vcpus", ("runnable_total_ns",), CPUS, _guest
    ),
    Headline("cpus", "CPUs busy, % of the time", "cpus", ("running_total_ns",), PERCENT, _cpu),
    Headline("exits", "VM exits per second, by reason", "totals", ("time_count",), PER_S, _name),
    Headline("exits", "Time in VM exits, as CPUs, by reason", "totals", ("time_total_ns",), CPUS, _name),
    Headline(
        "addresses", "Time by address space (CR3), as CPUs", "spaces", ("total_total_ns",), CPUS, _domain_and_name
    ),
    Headline("interrupts", "Interrupts injected into guests per second", "guest", ("count",), PER_S, _domain_and_name),
    Headline("interrupts", "Device interrupts per second", "cpus", ("count",), PER_S, _cpu),
    Headline("pv", "PV events per second", "events", ("count",), PER_S, _whole_domain),
    Headline(
        "memory",
        "Memory operations per second, done by and done for domains",
        "operations",
        ("done_by", "done_for"),
        PER_S,
        _domain_and_name,
    ),
    Headline("power", "CPUs asleep, % of the time", "c_states", ("residency_total_ns",), PERCENT, _cpu),
    Headline("volume", "Trace written per second, by class", "classes", ("size_bytes",), BYTES_PER_S, _name),
)
"""Of every section of which all intervals are told; questions are told in JSON and with --series only."""


class Lines(NamedTuple):
    """Values over time, float64 (names, intervals), NaN where there is none; largest sum first, where they add up.

    left_out: smaller ones that are not 0
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    left_out: int


def lines(spans: Sequence[Interval], headline: Headline) -> Lines:
    """The largest that a headline tells of these intervals."""
    scale = headline.scale
    found: dict[str, NDArray[np.float64]] = {}
    for place, interval in enumerate(spans):
        length = max(interval.end_ns - interval.begin_ns, 1) / S if scale.adds_up else 1
        for of, measure, value in figures(interval.sections.get(headline.section)):
            if of.table == headline.table and measure in headline.measures and (name := headline.subject(of)):
                line = found.setdefault(name, np.full(len(spans), 0.0 if scale.adds_up else np.nan))
                line[place] = (line[place] if scale.adds_up else 0) + value * scale.factor / length
    order = sorted(found, key=lambda name: -found[name].sum()) if scale.adds_up else list(found)
    order = [name for name in order if found[name].any()]
    values = np.array([found[name] for name in order[:MOST]]).reshape(-1, len(spans))
    return Lines(tuple(order[:MOST]), values, len(order) - len(values))


def sections(spans: Sequence[Interval]) -> Iterator[Section]:
    """A chapter of tables, without pictures; none where there are no intervals."""
    for section, _ in _chapter(spans):
        yield section


def illustrated(spans: Sequence[Interval]) -> Iterator[Section]:
    """The chapter with its plots."""
    for section, told in _chapter(spans):
        pictures = [_picture(number, spans, *one) for number, one in enumerate(told)]
        yield replace(section, pictures=tuple(pictures))


def _chapter(spans: Sequence[Interval]) -> Iterator[tuple[Section, list[tuple[Headline, Lines]]]]:
    if not spans:
        return
    told = [(headline, found) for headline in HEADLINES if (found := lines(spans, headline)).names]
    sentence = (
        f"{units.count(len(spans))} intervals of {units.time(spans[0].end_ns - spans[0].begin_ns)}, the last one maybe "
        "shorter. Of each section what matters most; --series writes all of its figures, --format json, too."
    )
    yield Section("intervals", "Over time", (sentence,), (), tuple(_table(spans, *one) for one in told)), told


def _table(spans: Sequence[Interval], headline: Headline, found: Lines) -> Table:
    heads = [Head("from"), *(Head(name) for name in found.names)]
    rows = []
    for place, interval in enumerate(spans):
        values = found.values[:, place].tolist()
        cells = [Cell("–") if np.isnan(value) else Cell(headline.scale.text(value), value) for value in values]
        rows.append((Cell(f"{interval.begin_ns / S:g} s", interval.begin_ns), *cells))
    more = f"; the largest {len(found.names)} of {len(found.names) + found.left_out}" if found.left_out else ""
    return parts.table(f"{headline.caption}{more}", heads, rows, "intervals")


def _picture(number: int, spans: Sequence[Interval], headline: Headline, found: Lines) -> Picture:
    caption = f"By interval; the largest {len(found.names)}." if found.left_out else "By interval."
    return parts.picture(plot(spans, headline, found), f"series-{number}", headline.caption, caption, wide=True)


def plot(spans: Sequence[Interval], headline: Headline, found: Lines) -> Figure:
    """A Matplotlib Figure: a line each over time, in steps of the intervals."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    from xtrace.reports.svg import ACCENT, AFTER, BEFORE, GOOD, PHASE_3, PHASE_4, style

    with style():
        figure = Figure(figsize=(10.0, 2.6), layout="constrained")
        axes = figure.add_subplot()
        edges = np.array([*(one.begin_ns for one in spans), spans[-1].end_ns]) / S
        for name, values, colour in zip(
            found.names, found.values, (AFTER, BEFORE, PHASE_3, ACCENT, GOOD, PHASE_4), strict=False
        ):
            axes.stairs(values, edges, color=colour, label=name, baseline=None)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("s since the first timestamp")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if headline.scale in (TIME, BYTES_PER_S):
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: headline.scale.text(value)))
        else:
            axes.set_ylabel(headline.scale.unit)
        if len(found.names) > 1:
            figure.legend(loc="outside right upper")
    return figure

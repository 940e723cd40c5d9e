"""The page of `xtrace analyze --html`: an analysis as facts for the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xtrace import __version__, units
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.episodes.tables import to_pandas
from xtrace.reports import chapters, figures, parts, pictured, series
from xtrace.reports.page import Cell, Head, Page, Picture, Point, Section, Table
from xtrace.reports.sections import inference
from xtrace.reports.terminal import NO_EVIDENCE, TITLES
from xtrace.swimlanes import worst_of

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.host.summary import Host
    from xtrace.provenance import Provenance
    from xtrace.questions.answers import Answers
    from xtrace.selection import Selection
    from xtrace.series import Interval
    from xtrace.summary import Breakdown
    from xtrace.swimlanes import Swimlane
    from xtrace.trace import Trace

EPISODE_COLUMNS: Final = (
    "kind",
    "initiator",
    "start_ns",
    "send_ns",
    "done_ns",
    "lock_wait_ns",
    "total_ns",
    "parent",
    "complete",
)
WORST_LANES: Final = 2
SPREAD: Final = ("mean", "p50", "p90", "p99", "max")


def page(
    document: dict[str, Any],
    kinds: Mapping[str, Breakdown],
    episodes: pd.DataFrame,
    found: Answers,
    host: Host | None,
    spans: Sequence[Interval],
    lanes: Sequence[Swimlane],
    alerts: Sequence[str],
    origin: Provenance,
) -> Page:
    """All that the page shows; kinds: the breakdowns of what has complete episodes; episodes: those selected."""
    trace = document["trace"]
    # What cost most comes first.
    order = sorted(kinds, key=lambda kind: -sum(row["sum_ns"] for row in kinds[kind].functions))
    sections: list[Section] = []
    of_host: list[Point] = []
    first: Picture | None = None
    for kind in order:
        shown = list(_of_kind(kind, document["episodes"][kind], kinds[kind], episodes))  # type: ignore[arg-type]
        if first is None:
            first = shown[0].pictures[1]
            shown[0] = Section(shown[0].key, shown[0].title, (), shown[0].pictures[:1], shown[0].tables)
        sections += shown
    if found.inferred is not None:
        sections.append(inference.section(found.inferred))
    if kinds:
        sections += chapters.illustrated(found)
    if lanes:
        sections.append(pictured.lanes([("", lane) for lane in lanes]))
    if host is not None:
        from xtrace.reports import host as host_chapters

        sections += host_chapters.illustrated(host)
        of_host += host_chapters.points(host)
    sections += series.illustrated(spans)
    rows = [(Cell(name), parts.count(count)) for name, count in document["events"].items()]
    events = parts.table("Records by event", (Head("event", False), Head("records")), rows, "events")
    sections.append(Section("events", "Events in the trace", tables=(events,)))
    sections.append(parts.origin(origin, (document,)))
    return Page(
        f"{'The host' if document['hypervisor']['evidence'] == 'none' else 'Calls and TLB flushes'} in {trace['path']}",
        tuple(
            answer(document, {kind: kinds[kind] for kind in order})
            if found.inferred is None
            else (*inference.answer(found.inferred), inference.LEFT_OUT)
        ),
        tuple(alerts),
        (trust(document),),
        first,
        tuple(sections),
        __version__,
        (*(chapters.points(found) if kinds else ()), *of_host),
    )


def of_trace(
    trace: Trace,
    selection: Selection,
    document: dict[str, Any],
    kinds: Mapping[str, Breakdown],
    found: Answers,
    host: Host | None,
    spans: Sequence[Interval],
    alerts: Sequence[str],
    origin: Provenance,
) -> Page:
    """The page of a trace of which analysis and breakdowns are there already."""
    episodes = to_pandas(trace.tables.episodes.select(EPISODE_COLUMNS))
    episodes = episodes[episodes["complete"]]
    chosen = selection.starts(episodes["initiator"].to_numpy(), episodes["start_ns"].to_numpy(np.int64))
    lanes = worst_of(trace, selection, WORST_LANES)
    return page(document, kinds, episodes[chosen], found, host, spans, lanes, alerts, origin)


def trust(document: dict[str, Any]) -> str:
    """The line on what the figures rest on."""
    trace, hypervisor = document["trace"], document["hypervisor"]
    lost, skipped = trace["lost_records"], trace["skipped_bytes"]
    return (
        f"{units.time(trace['duration_ns'])}, {units.count(trace['records'])} records, {len(trace['cpus'])} CPUs "
        f"({units.numbers(trace['cpus'])}), lost records: {units.count(lost) if lost else 'none'}, skipped bytes: "
        f"{units.count(skipped) if skipped else 'none'}, {units.frequency(trace['cpu_hz'])} "
        f"({trace['cpu_hz_source']}), evidence: {hypervisor['evidence']}, SMP model: {hypervisor['smp_model']}, "
        f"vendor: {hypervisor['vendor']}"
    )


def answer(document: dict[str, Any], kinds: Mapping[str, Breakdown]) -> Iterator[str]:
    """What the trace says, most expensive kind first; or why it says nothing."""
    if document["hypervisor"]["evidence"] == "none":
        yield "No calls or flushes to show: the trace holds no TRC_HW_SMP records."
        yield NO_EVIDENCE[document["hypervisor"]["vendor"]]
        yield "Trace a hypervisor with the tracepoints."
        return
    if not kinds:
        yield "No call and no flush of this selection is complete."
    for kind, one in kinds.items():
        summary = document["episodes"][kind]
        total = one.phases["total"]
        paid = sum(row["sum_ns"] for row in one.functions)
        nouns = KIND_NOUNS[kind]
        yield (
            f"{units.count(summary['complete'])} {nouns} cost their callers {units.time(paid)}: "
            f"{units.time(total['mean'])} on average, {units.time(total['p99'])} at the 99th percentile, "
            f"{units.time(total['max'])} at worst."
        )
        wait = (one.phases["lock wait"]["mean"] or 0.0) / (total["mean"] or 1.0)
        overlapping = units.count(summary["overlapping"]) if summary["overlapping"] else "none"
        yield f"{100 * wait:.0f} % of that was lock wait; {overlapping} overlapped another in flight."
        longest = max(summary["fairness"]["initiators"], key=lambda row: row["mean"])
        if len(summary["fairness"]["initiators"]) > 1:
            yield (
                f"CPU {longest['cpu']} paid most for one: {units.time(longest['mean'])} on average over "
                f"{units.count(longest['count'])}."
            )


def _of_kind(kind: figures.Kind, summary: dict[str, Any], one: Breakdown, episodes: pd.DataFrame) -> Iterator[Section]:
    title = TITLES[kind]
    sides = {KIND_NOUNS[kind]: episodes}
    phases = Table(
        "By phase; delivery and execution by target",
        (Head("phase", False), *map(Head, SPREAD)),
        tuple((Cell(name), *(parts.time(phase[key]) for key in SPREAD)) for name, phase in one.phases.items()),
    )
    yield Section(f"{kind}-distribution", title, (), pictured.distributions(sides, kind, "total_ns"), (phases,))
    yield Section(f"{kind}-time", f"{title}: over time", (), (pictured.over_time(sides, kind),))
    rows = [
        (
            Cell(str(row["cpu"]), row["cpu"]),
            parts.count(row["count"]),
            *(parts.time(row[key]) for key in ("sum_ns", *SPREAD[:-1], "max")),
        )
        for row in summary["fairness"]["initiators"]
    ]
    heads = (Head("CPU"), Head("count"), Head("sum"), *map(Head, SPREAD))
    yield Section(
        f"{kind}-who",
        f"{title}: who waits",
        (),
        (pictured.by_cpu(sides, kind, "total_ns", ""),),
        (parts.table("By initiating CPU", heads, rows, "CPUs"),),
    )
    functions = [
        (
            Cell(row["name"]),
            parts.count(row["count"]),
            Cell(f"{row['targets']:.1f}", row["targets"]),
            *(parts.time(row[key]) for key in ("sum_ns", "mean", "p50", "p90", "p99", "max")),
        )
        for row in one.functions
    ]
    name = "function" if kind == "call" else "flags"
    cells = [
        (Cell(str(mask), mask), Cell(str(flight), flight), parts.count(count), parts.time(mean))
        for (mask, flight), (count, mean) in sorted(one.grid.items())
    ]
    worst = [
        (
            Cell(f"{row['start_ns'] / 1e9:.6f} s", row["start_ns"]),
            Cell(str(row["initiator"]), row["initiator"]),
            Cell(str(row["what"])),
            parts.count(row["n_targets"]),
            parts.time(row["total_ns"]),
            parts.time(row["lock_wait_ns"]),
            Cell(str(row["straggler"]), row["straggler"]),
        )
        for row in one.worst
    ]
    yield Section(
        f"{kind}-what",
        f"{title}: of what",
        tables=(
            parts.table(
                f"By {name}",
                (Head(name, False), Head("count"), Head("targets"), Head("sum"), *map(Head, SPREAD)),
                functions,
                "lines",
            ),
            parts.table(
                "Mean total by CPUs in the mask and episodes in flight at the start",
                tuple(map(Head, ("CPUs in mask", "in flight", "count", "mean"))),
                cells,
                "cells",
            ),
            parts.table(
                "Worst",
                (
                    Head("at"),
                    Head("by CPU"),
                    Head("what", False),
                    *map(Head, ("targets", "total", "lock wait", "last CPU")),
                ),
                worst,
                "episodes",
            ),
        ),
    )

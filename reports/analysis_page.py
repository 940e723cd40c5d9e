"""The page of `xtrace analyze --html`: an analysis as facts for the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xtrace import __version__, units
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.episodes.tables import to_pandas
from xtrace.reports import chapters, figures, host, parts, pictured, series
from xtrace.reports.page import Cell, Head, Page, Picture, Section, Table
from xtrace.reports.sections import inference
from xtrace.reports.terminal import NO_EVIDENCE, TITLES
from xtrace.swimlanes import worst_of

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.provenance import Provenance
    from xtrace.selection import Selection
    from xtrace.summary import Analysis, Breakdown
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


def of_trace(trace: Trace, selection: Selection, found: Analysis, alerts: Sequence[str], origin: Provenance) -> Page:
    """The page of a trace of which the analysis is there already."""
    document, inferred = found.document, found.answers.inferred
    kinds = found.breakdowns()
    # What cost most comes first.
    order = sorted(kinds, key=lambda kind: -sum(row["sum_ns"] for row in kinds[kind].functions))
    episodes = _complete(trace, selection)
    sections: list[Section] = []
    first: Picture | None = None
    for kind in order:
        shown = list(_of_kind(kind, document["episodes"][kind], kinds[kind], episodes))  # type: ignore[arg-type]
        if first is None:
            first = shown[0].pictures[1]
            shown[0] = Section(shown[0].key, shown[0].title, (), shown[0].pictures[:1], shown[0].tables)
        sections += shown
    if inferred is not None:
        sections.append(inference.section(inferred))
    if kinds:
        sections += chapters.illustrated(found.answers)
    if lanes := worst_of(trace, selection, WORST_LANES):
        sections.append(pictured.lanes([("", lane) for lane in lanes]))
    sections += [*host.illustrated(found.host), *series.illustrated(found.intervals)]
    rows = [(Cell(name), parts.count(count)) for name, count in document["events"].items()]
    events = parts.table("Records by event", (Head("event", False), Head("records")), rows, "events")
    sections.append(Section("events", "Events in the trace", tables=(events,)))
    sections.append(parts.origin(origin, (document,)))
    told = answer(document, {kind: kinds[kind] for kind in order})
    subject = "The host" if document["hypervisor"]["evidence"] == "none" else "Calls and TLB flushes"
    return Page(
        f"{subject} in {document['trace']['path']}",
        tuple(told) if inferred is None else (*inference.answer(inferred), inference.LEFT_OUT),
        tuple(alerts),
        (trust(document),),
        first,
        tuple(sections),
        __version__,
        (*(chapters.points(found.answers) if kinds else ()), *host.points(found.host)),
    )


def _complete(trace: Trace, selection: Selection) -> pd.DataFrame:
    """The complete episodes that are selected."""
    episodes = to_pandas(trace.tables.episodes.select(EPISODE_COLUMNS))
    episodes = episodes[episodes["complete"]]
    return episodes[selection.starts(episodes["initiator"].to_numpy(), episodes["start_ns"].to_numpy(np.int64))]


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

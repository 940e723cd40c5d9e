"""What the pages of an analysis and of a comparison have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from xtrace import units
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.reports import figures
from xtrace.reports.page import Cell, Head, Picture, Section, Table
from xtrace.reports.svg import inline

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.figure import Figure

    from xtrace.provenance import Provenance
    from xtrace.reports.figures import Kind
    from xtrace.swimlanes import Swimlane

MAX_ROWS: Final = 500


def picture(figure: Figure, name: str, title: str, caption: str, *, wide: bool = False) -> Picture:
    """A figure with its caption."""
    return Picture(title, caption, inline(figure, f"figure-{name}", f"{title}. {caption}"), wide)


def time(ns: float | None) -> Cell:
    """A time, sorted by its length."""
    return Cell(units.time(ns), ns) if ns is not None else Cell("–")


def count(value: float) -> Cell:
    """A whole number."""
    return Cell(units.count(value), float(value))


def table(caption: str, heads: Iterable[Head], rows: Sequence[tuple[Cell, ...]], what: str) -> Table:
    """A table of at most MAX_ROWS; what: its rows, to say how many more there are."""
    more = len(rows) - MAX_ROWS
    left_out = f"… and {units.count(more)} more {what}" if more > 0 else ""
    return Table(caption, tuple(heads), tuple(rows[:MAX_ROWS]), left_out)


def distributions(sides: Mapping[str, pd.DataFrame], kind: Kind, column: str) -> tuple[Picture, Picture]:
    """How long episodes took, as shares and as counts."""
    nouns = KIND_NOUNS[kind]
    return (
        picture(
            figures.ecdf(sides, kind, column),
            f"{kind}-ecdf",
            f"How long {nouns} took",
            "Share that took at most so long; the time axis is logarithmic. Further left is faster.",
        ),
        picture(
            figures.histogram(sides, kind, column),
            f"{kind}-histogram",
            f"How often {nouns} took so long",
            "Logarithmic bins of time, the same for all.",
        ),
    )


def over_time(sides: Mapping[str, pd.DataFrame], kind: Kind) -> Picture:
    """The lock queue and the number in flight."""
    return picture(
        figures.timeline(sides, kind),
        f"{kind}-timeline",
        f"{KIND_NOUNS[kind].capitalize()} over time",
        "Mean number waiting to be sent (the queue for the lock) and in flight, sent and not done.",
        wide=True,
    )


def by_cpu(sides: Mapping[str, pd.DataFrame], kind: Kind, column: str, where: str) -> Picture:
    """What each initiating CPU waited."""
    return picture(
        figures.waits_by_cpu(sides, kind, column),
        f"{kind}-by-cpu",
        f"Waits by CPU number{where}",
        "Line: 10th to 90th percentile; dot: mean; tick: longest.",
    )


def lanes(some: Sequence[tuple[str, Swimlane]]) -> Section:
    """The worst episodes; each with the name of its side, or ''."""
    pictures = []
    for number, (side, lane) in enumerate(some):
        of = f"{side}: " if side else ""
        more = f" {lane.left_out} more targets, which ended earlier, are not shown." if lane.left_out else ""
        pictures.append(
            picture(
                figures.swimlane(lane),
                f"lane-{number}",
                f"{of}{lane.kind} {lane.episode} of CPU {lane.initiator}, {units.time(lane.total_ns)}",
                f"From {lane.from_ns / 1e9:.6f} s. Upper bars: this {lane.kind}; lower bars: what the CPU did besides; "
                f"small marks: other records that it wrote.{more}",
                wide=True,
            )
        )
    return Section("worst", "The worst, CPU by CPU", pictures=tuple(pictures))


def origin(found: Provenance, documents: Sequence[dict[str, Any]]) -> Section:
    """Files, hashes, options and versions; and what of each trace could be read."""
    files = [
        (
            Cell(one.path),
            Cell(one.role),
            Cell("–") if one.size_bytes is None else count(one.size_bytes),
            Cell(one.sha256 or "read from a pipe"),
        )
        for one in found.files
    ]
    traces = []
    for document in documents:
        trace, hypervisor = document["trace"], document["hypervisor"]
        traces.append(
            (
                Cell(trace["path"]),
                time(trace["duration_ns"]),
                count(trace["records"]),
                count(trace["lost_records"]),
                count(trace["skipped_bytes"]),
                Cell(units.frequency(trace["cpu_hz"]), trace["cpu_hz"]),
                Cell(trace["cpu_hz_source"]),
                Cell(hypervisor["smp_model"]),
                Cell(hypervisor["vendor"]),
                Cell(hypervisor["evidence"]),
            )
        )
    heads = [Head("file", False), Head("as", False), Head("bytes"), Head("SHA-256", False)]
    trust = [Head("trace", False), *map(Head, ("span", "records", "lost records", "skipped bytes", "CPU frequency"))]
    trust += [Head(name, False) for name in ("known from", "SMP model", "vendor", "evidence")]
    settings = [(Cell(name), Cell(value)) for name, value in (*found.options, *found.versions)]
    return Section(
        "provenance",
        "Where this comes from",
        tables=(
            table("Files", heads, files, "files"),
            table("What of each trace could be read", trust, traces, "traces"),
            table("Options and versions", [Head("name", False), Head("value", False)], settings, "options"),
        ),
    )

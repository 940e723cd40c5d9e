"""What the pages of an analysis and of a comparison have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from xtrace import units
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xtrace.provenance import Provenance

MAX_ROWS: Final = 500


def picture(figure: Figure, name: str, title: str, caption: str, *, wide: bool = False) -> Picture:
    """A figure with its caption."""
    # Tables are printed without Matplotlib, which takes long to load.
    from xtrace.reports.svg import inline

    return Picture(title, caption, inline(figure, f"figure-{name}", f"{title}. {caption}"), wide)


def time(ns: float | None) -> Cell:
    """A time, sorted by its length."""
    return Cell(units.time(ns), ns) if ns is not None else Cell("–")


def count(value: float) -> Cell:
    """A whole number."""
    return Cell(units.count(value), float(value))


def per_s(rate: float | None) -> Cell:
    """How many a second."""
    return Cell("–") if rate is None else Cell(f"{rate:,.1f}", rate)


def table(caption: str, heads: Iterable[Head], rows: Sequence[tuple[Cell, ...]], what: str) -> Table:
    """A table of at most MAX_ROWS; what: its rows, to say how many more there are."""
    more = len(rows) - MAX_ROWS
    left_out = f"… and {units.count(more)} more {what}" if more > 0 else ""
    return Table(caption, tuple(heads), tuple(rows[:MAX_ROWS]), left_out)


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

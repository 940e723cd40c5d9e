"""Tables for the console: what `xtrace analyze` and `xtrace info` print."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xtrace import units
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.host import NAMES as HOST_NAMES
from xtrace.questions import NAMES, OF_STOCK_TRACES
from xtrace.reports import chapters, host, series
from xtrace.reports.sections import inference

if TYPE_CHECKING:
    from xtrace.dataset.write import Written
    from xtrace.inference import Inference
    from xtrace.reports.page import Point, Section
    from xtrace.summary import Analysis, Breakdown

PIPE_WIDTH = 110
BAR_WIDTH = 40
MAX_ROWS = 10
MAX_SKIPS = 8
TITLES = {"call": "Function calls", "flush": "TLB flushes"}

NO_EVIDENCE = {
    "svm": "A stock AMD (SVM) trace names no interrupt vector, so calls and flushes cannot even be guessed at.",
    "vmx": "A stock Intel (VMX) trace names the interrupts of calls and flushes on their targets, but none shows here.",
    "unknown": "Without HVM guests a stock trace shows neither calls and flushes nor the interrupts they send.",
}


def console(width: int | None = None) -> Console:
    """A console on standard output: as wide as the terminal, PIPE_WIDTH in a pipe; colour only on a terminal."""
    if width is None and not sys.stdout.isatty():
        width = PIPE_WIDTH
    return Console(width=width, highlight=False, soft_wrap=False)


def analysis(out: Console, found: Analysis, lost_by_cpu: dict[int, int], wanted: frozenset[str]) -> None:
    """Print an analysis: what it rests on, what it comes to, then each kind of episode; or only what is wanted.

    Of a trace without the tracepoints the host is most of what there is to tell. Intervals come last.
    """
    document, answers = found.document, found.answers
    trust(out, document["trace"], lost_by_cpu, document["hypervisor"])
    exact = document["hypervisor"]["evidence"] == "exact"
    if answers.inferred is not None:
        _inferred(out, answers.inferred, wanted)
    elif not exact:
        _no_evidence(out, document)
    if not wanted:
        _in_short(out, (*(chapters.points(answers) if exact else ()), *host.points(found.host)))
    if exact:
        kinds = found.breakdowns()
        for kind, nouns in KIND_NOUNS.items():
            if document["episodes"][kind]["count"] and (not wanted or nouns in wanted):
                _kind(out, kind, document["episodes"][kind], kinds.get(kind))
    # Of a trace without the tracepoints few questions have an answer.
    for section in chapters.sections(answers, wanted if exact else wanted & OF_STOCK_TRACES):
        chapter(out, section)
    for section in host.sections(found.host, wanted if wanted or exact else HOST_NAMES):
        # Unasked, what a trace does not hold is not told.
        if wanted or section.tables:
            chapter(out, section)
    for section in series.sections(found.intervals):
        chapter(out, section, len(found.intervals))
    if not wanted:
        more = (*NAMES, "host") if exact else ("addresses", *sorted(OF_STOCK_TRACES))
        out.print()
        out.print(Text(f"More: --section {', '.join(more)}; or all", style="dim"))


def _in_short(out: Console, points: Iterable[Point]) -> None:
    out.print()
    for point in points:
        out.print(Text.assemble((f"{point.label}: ", "bold"), units.printable(point.text)))


def stored(out: Console, written: Written) -> None:
    """Where a trace is in a dataset, and how much it holds."""
    rows = ", ".join(f"{units.count(count)} {table}" for table, count in written.rows.items())
    out.print(Text(f"{units.printable(str(written.folder))}: {rows}; {units.size(written.size_bytes)}"), soft_wrap=True)


def trust(
    out: Console,
    trace: dict[str, Any],
    lost_by_cpu: dict[int, int],
    hypervisor: dict[str, Any] | None = None,
) -> None:
    """The lines that say what the figures rest on."""
    line = Text()
    line.append(units.printable(trace["path"]), style="bold")
    cpus = trace["cpus"]
    line.append(
        f"  {units.time(trace['duration_ns'])}, {units.count(trace['records'])} records, "
        f"{len(cpus)} CPUs ({units.numbers(cpus)})"
    )
    out.print(line)
    line = Text("lost records: ")
    if lost_by_cpu:
        worst = sorted(lost_by_cpu.items(), key=lambda item: -item[1])
        where = ", ".join(f"CPU {cpu}: {units.count(count)}" for cpu, count in worst[:MAX_ROWS])
        more = f", {len(worst) - MAX_ROWS} more CPUs" if len(worst) > MAX_ROWS else ""
        line.append(f"{units.count(trace['lost_records'])} ({where}{more})", style="bold red")
    else:
        line.append("none")
    line.append("  skipped bytes: ")
    skipped = trace["skipped_bytes"]
    line.append(
        f"{units.count(skipped)} of {units.count(trace['bytes'])}" if skipped else "none",
        style="bold red" if skipped else "",
    )
    line.append(f"  {units.frequency(trace['cpu_hz'])} ")
    sources = {"option": "(given)", "trace": "(from the trace)", "default": "(assumed)"}
    line.append(sources[trace["cpu_hz_source"]], style="yellow" if trace["cpu_hz_source"] == "default" else "")
    if hypervisor:
        vendor = "" if hypervisor["vendor"] == "unknown" else f", {hypervisor['vendor']}"
        line.append(f"  evidence: {hypervisor['evidence']}")
        if hypervisor["evidence"] != "none":
            line.append(f", SMP model {hypervisor['smp_model']}")
        line.append(vendor)
    out.print(line)


def _inferred(out: Console, found: Inference, wanted: frozenset[str]) -> None:
    if not wanted or wanted.intersection(KIND_NOUNS.values()):
        chapter(out, inference.section(found))
    elif wanted - OF_STOCK_TRACES - set(HOST_NAMES):
        out.print()
        out.print(inference.LEFT_OUT)


def _no_evidence(out: Console, document: dict[str, Any]) -> None:
    out.print()
    out.print(
        "No calls or flushes to show: the trace holds no TRC_HW_SMP records. "
        + NO_EVIDENCE[document["hypervisor"]["vendor"]]
        + " Trace a hypervisor with the tracepoints (docs/tracepoints.md)."
    )


def chapter(out: Console, one: Section, rows: int = MAX_ROWS) -> None:
    """Print a section of a page: its sentences, and the first rows of its tables."""
    out.print()
    out.rule(Text(one.title, style="bold"), align="left", style="dim")
    for sentence in one.text:
        out.print(Text(units.printable(sentence)))
    for table in one.tables:
        title(out, table.caption)
        shown = new_table(*(head.text for head in table.heads), left=0)
        for column, head in zip(shown.columns, table.heads, strict=True):
            column.justify = "right" if head.numeric else "left"
        for row in table.rows[:rows]:
            shown.add_row(*(Text(units.printable(cell.text), style=TONES[cell.tone]) for cell in row))
        _left_out(shown, len(table.rows) - rows)
        out.print(shown)


TONES: Final = {"": "", "good": "green", "bad": "bold red", "muted": "dim"}


def _kind(out: Console, kind: str, summary: dict[str, Any], breakdown: Breakdown | None) -> None:
    plural = KIND_NOUNS[kind]
    out.print()
    out.rule(
        Text(TITLES[kind], style="bold"),
        align="left",
        style="dim",
    )
    incomplete = summary["count"] - summary["complete"]
    out.print(
        f"{units.count(summary['count'])} {plural}, {units.count(summary['complete'])} complete"
        + (f" ({incomplete} cut or damaged, not in the figures below)" if incomplete else "")
        + f", {units.count(summary['targets'])} targets, {units.count(summary['overlapping'])} overlapping another"
    )
    if breakdown is None:
        return
    _phases(out, breakdown)
    _histogram(out, breakdown, plural)
    _functions(out, kind, breakdown)
    _grid(out, breakdown)
    _worst(out, breakdown)
    _initiators(out, summary)


def title(out: Console, text: str) -> None:
    """A heading, with a blank line before."""
    out.print()
    out.print(Text(text, style="bold"))


def new_table(*heads: str, left: int = 1) -> Table:
    """An empty table with these column heads, of which so many are set flush left."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, head in enumerate(heads):
        table.add_column(
            head, justify="left" if place < left else "right", no_wrap=True, overflow="ellipsis", min_width=4
        )
    return table


def _phases(out: Console, breakdown: Breakdown) -> None:
    title(out, "Where the time goes")
    table = new_table("phase", "mean", "p50", "p90", "p99", "max")
    for name, phase in breakdown.phases.items():
        label = "  " + name if name.startswith("of it") else name
        table.add_row(label, *(units.time(phase[key]) for key in ("mean", "p50", "p90", "p99", "max")))
    out.print(table)


def _histogram(out: Console, breakdown: Breakdown, plural: str) -> None:
    title(out, "Total time")
    table = new_table("from", plural, "", left=0)
    table.columns[2].justify = "left"
    most = max(count for _, count in breakdown.histogram)
    room = max(8, min(BAR_WIDTH, out.width - 30))
    for low, count in breakdown.histogram:
        bar = "█" * (count * room // most) or ("▏" if count else "")
        table.add_row(units.time(low), units.count(count), Text(bar, style="cyan"))
    out.print(table)


def _functions(out: Console, kind: str, breakdown: Breakdown) -> None:
    first = "function" if kind == "call" else "flags"
    title(out, f"By {first}")
    table = new_table(first, "count", "targets", "mean", "p99", "max", "sum")
    for row in breakdown.functions[:MAX_ROWS]:
        table.add_row(
            Text(units.printable(row["name"])),
            units.count(row["count"]),
            f"{row['targets']:.1f}",
            *(units.time(row[column]) for column in ("mean", "p99", "max", "sum_ns")),
        )
    _left_out(table, len(breakdown.functions) - MAX_ROWS)
    out.print(table)


def _left_out(table: Table, more: int) -> None:
    if more > 0:
        table.add_row(Text(f"… {more} more", style="dim"))


def _grid(out: Console, breakdown: Breakdown) -> None:
    """Mean total by CPUs in the mask (rows) and episodes in flight at the start (columns)."""
    masks = sorted({mask for mask, _ in breakdown.grid})
    flights = sorted({flight for _, flight in breakdown.grid})
    shown = flights[: max(1, (out.width - 14) // 18)]
    title(out, "Mean total by CPUs in the mask and episodes in flight (count)")
    table = new_table("in mask", *(f"{flight} in flight" for flight in shown))
    for mask in masks[: 2 * MAX_ROWS]:
        cells = []
        for flight in shown:
            count, mean = breakdown.grid.get((mask, flight), (0, None))
            cells.append(f"{units.time(mean)} ({count})" if count else "")
        table.add_row(str(mask), *cells)
    _left_out(table, len(masks) - 2 * MAX_ROWS)
    out.print(table)
    if len(flights) > len(shown):
        out.print(Text(f"… and {len(flights) - len(shown)} more columns, up to {flights[-1]} in flight", style="dim"))


def _worst(out: Console, breakdown: Breakdown) -> None:
    title(out, "Worst")
    table = new_table("at", "by CPU", "what", "targets", "total", "lock wait", "last CPU", left=0)
    table.columns[2].justify = "left"
    for row in breakdown.worst:
        table.add_row(
            f"{row['start_ns'] / 1e9:.6f} s",
            str(row["initiator"]),
            Text(units.printable(str(row["what"]))),
            str(row["n_targets"]),
            units.time(row["total_ns"]),
            units.time(row["lock_wait_ns"]),
            str(row["straggler"]),
        )
    out.print(table)


def _initiators(out: Console, summary: dict[str, Any]) -> None:
    title(out, "Busiest initiators")
    table = new_table("CPU", "count", "sum", "mean", "p50", "p99", "max", left=0)
    rows = summary["fairness"]["initiators"]
    for row in rows[:MAX_ROWS]:
        table.add_row(
            str(row["cpu"]),
            units.count(row["count"]),
            *(units.time(row[key]) for key in ("sum_ns", "mean", "p50", "p99", "max")),
        )
    _left_out(table, len(rows) - MAX_ROWS)
    out.print(table)


def info(out: Console, document: dict[str, Any], lost_by_cpu: dict[int, int]) -> None:
    """Print what the container holds."""
    trust(out, document["trace"], lost_by_cpu)
    captures = document["captures"]
    out.print(
        f"{units.size(document['trace']['bytes'])} in {units.count(document['windows'])} windows"
        + (f", {captures} captures one behind the other" if captures > 1 else "")
    )
    title(out, "By CPU")
    table = new_table("CPU", "windows", "bytes", "lost records", left=0)
    for row in document["cpus"][:64]:
        table.add_row(str(row["cpu"]), units.count(row["windows"]), units.count(row["bytes"]), units.count(row["lost"]))
    _left_out(table, len(document["cpus"]) - 64)
    out.print(table)
    title(out, "By class")
    table = new_table("class", "records", "bytes")
    for row in document["classes"]:
        table.add_row(row["class"], units.count(row["records"]), units.count(row["bytes"]))
    out.print(table)
    title(out, "By event")
    table = new_table("event", "records", "bytes")
    for row in document["events"]:
        table.add_row(row["event"], units.count(row["records"]), units.count(row["bytes"]))
    out.print(table)
    if document["skips"]:
        title(out, "Damage")
        table = new_table("at byte", "skipped", "reason", left=0)
        table.columns[2].justify, table.columns[2].no_wrap = "left", False
        for skip in document["skips"][: 4 * MAX_SKIPS]:
            table.add_row(units.count(skip["offset"]), units.count(skip["length"]), skip["reason"])
        _left_out(table, len(document["skips"]) - 4 * MAX_SKIPS)
        out.print(table)

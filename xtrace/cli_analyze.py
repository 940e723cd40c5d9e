"""The command `xtrace analyze`."""

from __future__ import annotations

from typing import Annotated

import typer

from xtrace.cli_common import (
    CpusOption,
    FixSkewOption,
    ForceOption,
    FromOption,
    HtmlOption,
    HzOption,
    SymbolsOption,
    TableFormat,
    ToOption,
    TraceArgument,
    check_html,
    interval,
    opened,
    print_json,
    sections,
    selection,
    warn,
    warnings,
    write_html,
)
from xtrace.cli_table import check_table, write_table
from xtrace.errors import UsageError
from xtrace.host import NAMES as HOST_NAMES
from xtrace.questions import NAMES


def analyze(
    trace: TraceArgument,
    symbols: SymbolsOption = None,
    cpu_hz: HzOption = None,
    cpus: CpusOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    section: Annotated[
        str | None,
        typer.Option(
            "--section",
            metavar="LIST",
            help=f"Print only these: calls, flushes, {', '.join(NAMES)}; "
            f"host, or of it {', '.join(HOST_NAMES)}; or all.",
        ),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option("--interval", metavar="TIME", help="Also tell each section for every 1s, 200ms, … of the trace."),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(
            "--series", metavar="FILE", help="With --interval: write it as a table, FILE.parquet or FILE.csv."
        ),
    ] = None,
    fix_skew: FixSkewOption = False,
    html: HtmlOption = None,
    force: ForceOption = False,
    format_: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.table,
) -> None:
    """Say what calls and flushes cost: how many, how long, in which phase; who waits for whom, is it fair, who pays.

    And what the host did meanwhile: run states, VM exits, interrupts. That takes one more pass, so of traces above
    64 MiB that have the tracepoints it is told only for --html or where --section names it, as are log-dirty phases
    and clocks.
    With --cpus, --from or --to an episode counts when its initiator is one of the CPUs and it starts in the span.
    """
    part, every_ns = selection(cpus, from_, to), interval(every)
    wanted = sections(section)
    check_html(html, force)
    if series is not None:
        if every_ns is None:
            raise UsageError("--series: give --interval, too")
        check_table(series, "--series", force=force)
    parts = HOST_NAMES if html is not None else wanted.intersection(HOST_NAMES) if wanted else None
    passes = {name.replace("-", "_"): html is not None or name in wanted for name in ("log-dirty", "clocks")}
    with opened(trace, cpu_hz, symbols, once=False, fix_skew=fix_skew) as source:
        from xtrace.series import series_table
        from xtrace.summary import analyzed

        found = analyzed(source, part, host=parts, every_ns=every_ns, sections=wanted, **passes)
        warn(source)
        if series is not None:
            write_table(series, series_table(found.intervals))
        if html is not None:
            from xtrace.provenance import provenance
            from xtrace.reports import analysis_page

            options = {"--cpu-hz": cpu_hz, "--cpus": cpus, "--from": from_, "--to": to, "--interval": every}
            options |= {"--fix-skew": "yes" if fix_skew else None}
            origin = provenance([("trace", trace), ("symbols", symbols)], options)
            write_html(html, analysis_page.of_trace(source, part, found, tuple(warnings(source)), origin))
        if format_ is TableFormat.json:
            print_json(found.document)
            return
        from xtrace.reports import terminal

        terminal.analysis(terminal.console(), found, source.lost_by_cpu, wanted)

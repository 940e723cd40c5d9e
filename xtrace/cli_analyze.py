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
    log_dirty, clocks = (html is not None or name in wanted for name in ("log-dirty", "clocks"))
    only_episodes = bool(wanted) and not wanted.intersection(HOST_NAMES)
    with opened(
        trace, cpu_hz, symbols, once=only_episodes and not part and not log_dirty and not clocks, fix_skew=fix_skew
    ) as source:
        from xtrace.host import by_default
        from xtrace.series import intervals, series_table
        from xtrace.summary import analysis, breakdown, choose

        chosen = choose(source, part)
        found = source.answers(part, log_dirty=log_dirty, clocks=clocks)
        parts = (
            HOST_NAMES if html is not None else tuple(wanted.intersection(HOST_NAMES)) if wanted else by_default(source)
        )
        host = source.host(part, parts, every_ns) if parts else None
        spans = intervals(source, part, wanted, every_ns, host) if every_ns is not None else ()
        whole = None if host is None else host.whole
        document = analysis(source, part, chosen, found, host, spans)
        warn(source)
        kinds = {}
        if html is not None or format_ is TableFormat.table:
            kinds = {kind: breakdown(one, kind) for kind, one in chosen.items() if len(one.complete)}
        if series is not None:
            write_table(series, series_table(spans))
        if html is not None:
            from xtrace.provenance import provenance
            from xtrace.reports import analysis_page

            options = {"--cpu-hz": cpu_hz, "--cpus": cpus, "--from": from_, "--to": to, "--interval": every}
            options |= {"--fix-skew": "yes" if fix_skew else None}
            origin = provenance([("trace", trace), ("symbols", symbols)], options)
            alerts = tuple(warnings(source))
            page = analysis_page.of_trace(source, part, document, kinds, found, whole, spans, alerts, origin)
            write_html(html, page)
        if format_ is TableFormat.json:
            print_json(document)
            return
        from xtrace.reports import terminal

        terminal.analysis(terminal.console(), document, kinds, found, whole, spans, source.lost_by_cpu, wanted)

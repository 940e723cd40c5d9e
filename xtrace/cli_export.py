"""The command `xtrace export`."""

from __future__ import annotations

from typing import Annotated

import typer

from xtrace.cli_common import (
    CpusOption,
    FixSkewOption,
    ForceOption,
    FromOption,
    HzOption,
    SymbolsOption,
    ToOption,
    TraceArgument,
    opened,
    say,
    selection,
    warn,
)


def export(
    trace: TraceArgument,
    perfetto: Annotated[
        str,
        typer.Option("--perfetto", metavar="OUT", help="The file to write, for ui.perfetto.dev (docs/perfetto.md)."),
    ],
    symbols: SymbolsOption = None,
    cpus: CpusOption = None,
    domain: Annotated[
        str | None,
        typer.Option("--domain", metavar="LIST", help="Only these domains, and what happens while they run: 0,3."),
    ] = None,
    from_: FromOption = None,
    to: ToOption = None,
    cpu_hz: HzOption = None,
    fix_skew: FixSkewOption = False,
    force: ForceOption = False,
) -> None:
    """Write a trace for another program: a timeline for Perfetto's viewer.

    With --cpus: rows of these CPUs, and the calls and flushes that they ask for, with what all targets run; run
    states of vCPUs are of all CPUs. With --domain: its vCPUs, and what happens on a CPU, or is asked for by it,
    while one of them runs there. With --from or --to: what is going on in the span, cut at its ends and marked
    `clipped`; a call or flush is there if it starts in the span.
    """
    from xtrace.output import check
    from xtrace.selection import parse_numbers

    part = selection(cpus, from_, to)
    domains = None if domain is None else parse_numbers(domain, "--domain", 0xFFFF)
    check(perfetto, force=force)
    from xtrace import perfetto as writing
    from xtrace.timeline.marks import Scope

    writing.schema()
    with opened(trace, cpu_hz, symbols, once=False, fix_skew=fix_skew) as source:
        packets = writing.write(source, perfetto, Scope(part, domains))
        warn(source)
    say(f"perfetto: {perfetto}, {packets:,} packets")

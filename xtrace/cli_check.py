"""The command `xtrace check`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from xtrace.cli_common import (
    CpusOption,
    FixSkewOption,
    FromOption,
    HzOption,
    SymbolsOption,
    TableFormat,
    ToOption,
    TraceArgument,
    opened,
    print_json,
    selection,
    warn,
)
from xtrace.errors import ViolationError


def check(
    trace: TraceArgument,
    model: Annotated[
        Literal["legacy", "lockless"] | None,
        typer.Option("--model", help="The design whose promises count; without it the one that the trace shows."),
    ] = None,
    symbols: SymbolsOption = None,
    cpu_hz: HzOption = None,
    cpus: CpusOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    fix_skew: FixSkewOption = False,
    format_: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.table,
) -> None:
    """Say where a trace breaks what its hypervisor's design promises, with the records that show it; then exit with 7.

    What a trace cannot show, because it begins, ends or misses records there, is no violation: such calls and flushes
    are counted as not judged. A table shows the first few violations of each rule, JSON all. With --cpus, --from or
    --to a call or flush counts when its initiator is one of the CPUs and it starts in the span.
    """
    part = selection(cpus, from_, to)
    with opened(trace, cpu_hz, symbols, once=False, fix_skew=fix_skew) as source:
        from xtrace.needs import missing
        from xtrace.protocol.checking import check as checked
        from xtrace.protocol.checking import document

        if format_ is TableFormat.json:
            found = checked(source, model, selection=part)
            print_json(document(source, found))
        else:
            from xtrace.reports import protocol, terminal

            found = checked(source, model, selection=part, at_most=protocol.SHOWN)
            protocol.show(terminal.console(), found)
        warn(source)
        if source.tables.evidence != "exact":
            raise missing(source, "SMP_*", "TLB_FLUSH_*")
        if found.count:
            raise ViolationError(f"{source.name}: {found.verdict()}")

"""The command `xtrace dataset`."""

from __future__ import annotations

from typing import Annotated

import typer

from xtrace.cli_common import (
    FixSkewOption,
    HzOption,
    SymbolsOption,
    TableFormat,
    opened_file,
    print_json,
    warn,
)
from xtrace.errors import UsageError


def dataset(
    traces: Annotated[
        list[str],
        typer.Argument(metavar="TRACE…", help="Files that xentrace wrote, plain, .gz, .xz or .zst; - for stdin."),
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="DIR", help="The dataset; made, or added to.")],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What a single TRACE is called there; default: its file's name."),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="HOST", help="Where it was captured; kept in the table traces.")
    ] = None,
    symbols: SymbolsOption = None,
    cpu_hz: HzOption = None,
    fix_skew: FixSkewOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace another trace of the same name.")] = False,
    format_: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.table,
) -> None:
    """Store traces as Parquet, for pandas, DuckDB, Polars and xtrace itself: episodes, deliveries, runstates, events.

    A trace that is there already is replaced in one step. Every command that takes a trace takes DIR/trace=NAME.
    """
    from pathlib import Path

    from xtrace.dataset.layout import name_of
    from xtrace.dataset.write import document, write

    if name is not None and len(traces) > 1:
        raise UsageError("--name is for one trace; give the others one at a time")
    names = [name_of(path, name) for path in traces]
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice is not None:
        raise UsageError(f"several traces would be called {twice}; give them one at a time, with --name")
    root = Path(output)
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root}: not a folder")
    found = []
    for path, called in zip(traces, names, strict=True):
        with opened_file(path, cpu_hz, symbols, fix_skew=fix_skew) as trace:
            found.append(write(trace, root, called, host=host, force=force))
            warn(trace)
        if format_ is TableFormat.table:
            from xtrace.reports import terminal

            terminal.stored(terminal.console(), found[-1])
    if format_ is TableFormat.json:
        print_json(document(found))

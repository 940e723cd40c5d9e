"""The command `xtrace table`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

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
from xtrace.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa


def table(
    name: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="episodes, deliveries, runstates, exits, wakes; or events: a name, class, pattern (*EXIT*) or id.",
        ),
    ],
    trace: TraceArgument,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write FILE.parquet or FILE.csv; default: CSV to stdout."),
    ] = None,
    cpus: CpusOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    cpu_hz: HzOption = None,
    symbols: SymbolsOption = None,
    fix_skew: FixSkewOption = False,
    force: ForceOption = False,
) -> None:
    """Print a table of a trace, one row a thing: a call or flush, a stay in a runstate, a VM exit, a record.

    What plots and scripts want: each row has its time, CPU, domain and vCPU, and what it took.
    """
    from xtrace.named_tables import named_table, write_csv

    part = selection(cpus, from_, to)
    if output is not None:
        check_table(output, "--output", force=force)
    with opened(trace, cpu_hz, symbols, once=False, fix_skew=fix_skew) as source:
        found = named_table(source, name, part)
        if output is None:
            write_csv(found, sys.stdout.buffer)
        else:
            write_table(output, found)
        warn(source)


def check_table(path: str, option: str, *, force: bool) -> None:
    """Raise UsageError where a table cannot be written, before any work is done."""
    from pathlib import Path

    from xtrace.named_tables import WRITERS
    from xtrace.output import check

    if Path(path).suffix not in WRITERS:
        raise UsageError(f"{option} {path}: give a name that ends in {' or '.join(WRITERS)}")
    check(path, force=force)


def write_table(path: str, found: pa.Table) -> None:
    """Write a table, whole or not at all, and say where. Raises InputError where it cannot be written."""
    from pathlib import Path

    from xtrace.named_tables import WRITERS
    from xtrace.output import whole

    with whole(Path(path)) as file:
        WRITERS[Path(path).suffix](found, file)
    say(f"table: {path}, {found.num_rows} rows")

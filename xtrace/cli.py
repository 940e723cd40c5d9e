"""The command line: each command parses its arguments, calls one function and prints."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from xtrace import (
    __version__,
    cli_analyze,
    cli_check,
    cli_compare,
    cli_dataset,
    cli_emulator,
    cli_export,
    cli_table,
    cli_tracepoints,
)
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
    say,
    selection,
    warn,
)
from xtrace.errors import XtraceError

app = typer.Typer(
    name="xtrace",
    help="What cross-CPU function calls and TLB flushes cost on a Xen host, from xentrace files.",
    epilog="Exit codes: 0 done, 2 wrong usage, 3 nothing usable in the input, 5 and 6 compare --fail-on, 7 check.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class RecordFormat(StrEnum):
    """How records are printed."""

    text = "text"
    json = "json"
    raw = "raw"
    xenalyze = "xenalyze"


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """What comes before a command."""
    if version:
        typer.echo(f"xtrace {__version__}")
        raise typer.Exit


app.command(epilog="Example: xtrace analyze trace.bin --symbols xen-syms.map --from 2s --to 2.5s")(cli_analyze.analyze)


@app.command(epilog="Example: xtrace info trace.bin.xz")
def info(
    trace: TraceArgument,
    cpu_hz: HzOption = None,
    format_: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.table,
) -> None:
    """Show the container: windows, CPUs, volume by class and event, span, loss and damage."""
    with opened(trace, cpu_hz, None, once=True) as source:
        document = source.info
        warn(source)
        if format_ is TableFormat.json:
            print_json(document)
            return
        from xtrace.reports import terminal

        terminal.info(terminal.console(), document, source.lost_by_cpu)


@app.command(epilog="Example: xtrace dump trace.bin --event 'TLB_FLUSH*' --cpu 0-3 --from 1.2s --to 1.3s")
def dump(
    trace: TraceArgument,
    event: Annotated[
        str | None,
        typer.Option("--event", metavar="LIST", help="Only these events: a name, class, pattern (*EXIT*) or id."),
    ] = None,
    cpus: CpusOption = None,
    domain: Annotated[
        str | None,
        typer.Option("--domain", metavar="LIST", help="Only while a vCPU of these domains is on the CPU: 0,3."),
    ] = None,
    from_: FromOption = None,
    to: ToOption = None,
    cpu_hz: HzOption = None,
    symbols: SymbolsOption = None,
    fix_skew: FixSkewOption = False,
    format_: Annotated[RecordFormat, typer.Option("--format", help="How to print.")] = RecordFormat.text,
) -> None:
    """Print records of all CPUs in order of time, names and fields decoded."""
    from xtrace.selection import parse_events, parse_numbers

    part = selection(cpus, from_, to)
    events = None if event is None else parse_events(event)
    domains = None if domain is None else parse_numbers(domain, "--domain", 0xFFFF)
    with opened(trace, cpu_hz, symbols, once=False, fix_skew=fix_skew) as source:
        from xtrace.reports import records

        for lines in records.lines(source, format_.value, part, events, domains):
            if lines:
                sys.stdout.write("\n".join(lines) + "\n")
        warn(source)


app.command(epilog="Example: xtrace compare old/*.bin vs new/*.bin --html report.html")(cli_compare.compare)
app.command(epilog="Example: xtrace check trace.bin --model lockless")(cli_check.check)
app.command(epilog="Example: xtrace table deliveries trace.bin -o deliveries.parquet")(cli_table.table)
app.command(epilog="Example: xtrace dataset old/*.bin new/*.bin -o data")(cli_dataset.dataset)
app.command(epilog="Example: xtrace export --perfetto trace.perfetto-trace trace.bin --symbols xen-syms.map")(
    cli_export.export
)
app.add_typer(cli_emulator.app, name="emulate")
app.command(epilog="Example: xtrace whatif legacy.bin --model lockless --against lockless.bin")(cli_emulator.whatif)
app.command(epilog="Example: xtrace tracepoints legacy > legacy.cocci")(cli_tracepoints.tracepoints)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every expected failure is one line on standard error."""
    try:
        code = app(arguments, standalone_mode=False)
        sys.stdout.flush()
    except XtraceError as error:
        say(f"xtrace: {error}")
        return error.exit_code
    except BrokenPipeError:
        # The reader, `head` for instance, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":
            # Its message is the help, already in lines.
            typer.echo(message, err=True)
        else:
            say(f"xtrace: {message}")
        return int(getattr(error, "exit_code", 2))
    return code if isinstance(code, int) else 0

"""The command line: each command parses its arguments, calls one function and prints."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from xtrace import __version__
from xtrace.errors import UsageError, XtraceError

if TYPE_CHECKING:
    from xtrace.selection import Selection
    from xtrace.trace import Trace

app = typer.Typer(
    name="xtrace",
    help="What cross-CPU function calls and TLB flushes cost on a Xen host, from xentrace files.",
    epilog="Exit codes: 0 done, 2 wrong usage, 3 nothing usable in the input.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class TableFormat(StrEnum):
    """How a table command prints."""

    table = "table"
    json = "json"


class RecordFormat(StrEnum):
    """How records are printed."""

    text = "text"
    json = "json"
    raw = "raw"


TraceArgument = Annotated[
    str,
    typer.Argument(metavar="TRACE", help="A file that xentrace wrote, plain, .gz, .xz or .zst; - for stdin."),
]
HzOption = Annotated[
    str | None,
    typer.Option("--cpu-hz", metavar="HZ", help="TSC frequency of the traced host: 2596.1M, 2.4G or plain Hz."),
]
CpusOption = Annotated[
    str | None, typer.Option("--cpus", "--cpu", metavar="LIST", help="Only records of these CPUs: 0-3,8.")
]
FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="Only from this time on: 1.5 (seconds), 200ms, 35us, 120ns."),
]
ToOption = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only before this time.")]
SymbolsOption = Annotated[
    str | None,
    typer.Option("--symbols", metavar="MAP", help="Names hypervisor functions: xen-syms.map, nm output."),
]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """What comes before a command."""
    if version:
        typer.echo(f"xtrace {__version__}")
        raise typer.Exit


@app.command(epilog="Example: xtrace analyze trace.bin --symbols xen-syms.map --from 2s --to 2.5s")
def analyze(
    trace: TraceArgument,
    symbols: SymbolsOption = None,
    cpu_hz: HzOption = None,
    cpus: CpusOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    format_: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.table,
) -> None:
    """Say what calls and flushes cost: how many, how long, in which phase, by whom.

    With --cpus, --from or --to an episode counts when its initiator is one of the CPUs and it starts in the span.
    """
    selection = _selection(cpus, from_, to)
    with _opened(trace, cpu_hz, symbols, once=not selection) as opened:
        from xtrace.summary import analysis, breakdown, choose

        chosen = choose(opened, selection)
        document = analysis(opened, selection, chosen)
        _warn(opened)
        if format_ is TableFormat.json:
            _print_json(document)
            return
        from xtrace.reports import terminal

        kinds = {kind: breakdown(one, kind) for kind, one in chosen.items() if len(one.complete)}
        terminal.analysis(terminal.console(), document, kinds, opened.lost_by_cpu)


@app.command(epilog="Example: xtrace info trace.bin.xz")
def info(
    trace: TraceArgument,
    cpu_hz: HzOption = None,
    format_: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.table,
) -> None:
    """Show the container: windows, CPUs, volume by class and event, span, loss and damage."""
    with _opened(trace, cpu_hz, None, once=True) as opened:
        document = opened.info
        _warn(opened)
        if format_ is TableFormat.json:
            _print_json(document)
            return
        from xtrace.reports import terminal

        terminal.info(terminal.console(), document, opened.lost_by_cpu)


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
    format_: Annotated[RecordFormat, typer.Option("--format", help="How to print.")] = RecordFormat.text,
) -> None:
    """Print records of all CPUs in order of time, names and fields decoded."""
    from xtrace.selection import parse_events, parse_numbers

    selection = _selection(cpus, from_, to)
    events = None if event is None else parse_events(event)
    domains = None if domain is None else parse_numbers(domain, "--domain", 0xFFFF)
    with _opened(trace, cpu_hz, symbols, once=False) as opened:
        from xtrace.reports import records

        for lines in records.lines(opened, format_.value, selection, events, domains):
            if lines:
                sys.stdout.write("\n".join(lines) + "\n")
        _warn(opened)


def _selection(cpus: str | None, from_: str | None, to: str | None) -> Selection:
    from xtrace.selection import Selection, parse_cpus, parse_time

    return Selection(
        None if cpus is None else parse_cpus(cpus),
        None if from_ is None else parse_time(from_, "--from"),
        None if to is None else parse_time(to, "--to"),
    )


MAX_HZ_DIGITS = 30


def _hz(text: str | None) -> int | None:
    """`2596.1M`, `2.4G`, `2400000000` in Hz."""
    if text is None:
        return None
    factor = {"k": 10**3, "m": 10**6, "g": 10**9}.get(text[-1:].lower(), 1)
    whole, _, fraction = text.rstrip("kKmMgG").partition(".")
    if len(text) > MAX_HZ_DIGITS or not whole.isdecimal() or (fraction and not fraction.isdecimal()):
        raise UsageError(f"--cpu-hz {text}: not a frequency; give for example 2596.1M")
    return int(whole) * factor + int(fraction or "0") * factor // int(10 ** len(fraction))


@contextmanager
def _opened(path: str, cpu_hz: str | None, symbols: str | None, *, once: bool) -> Iterator[Trace]:
    from xtrace.trace import Trace

    with (
        _Progress() as progress,
        Trace(
            path,
            cpu_hz=_hz(cpu_hz),
            symbols=symbols,
            workers=os.cpu_count() or 1,
            progress=progress.update,
            once=once,
        ) as trace,
    ):
        if symbols is not None:
            # A bad map is worth knowing before a long pass.
            _ = trace.symbols
        yield trace


class _Progress:
    """A bar on standard error for what takes longer than a second, and only on a terminal."""

    PATIENCE_S = 1.0

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int | None) -> None:
        if not sys.stderr.isatty() or time.monotonic() - self._begun < self.PATIENCE_S:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("reading", total=total)
            self._bar.start()
        if done < self._done:
            self._bar.reset(self._task, total=total)
        self._done = done
        self._bar.update(self._task, completed=done)


SHOWN_SKIPS = 5


def _warn(trace: Trace) -> None:
    """On standard error: what a reader of the figures must know and might not look for."""
    for skip in trace.survey.skips[:SHOWN_SKIPS]:
        what = f"{skip.length} bytes skipped" if skip.length else "nothing skipped"
        _say(f"warning: {trace.reader.name}, byte {skip.offset}: {what}: {skip.reason}")
    more = len(trace.survey.skips) - SHOWN_SKIPS
    if more > 0:
        _say(f"warning: {more} more damaged places; `xtrace info` lists them")
    if trace.survey.captures > 1:
        _say(f"warning: {trace.survey.captures} captures one behind the other: a CPU's clock starts over")
    if trace.clock.source == "default":
        _say(f"warning: CPU frequency not known, {trace.clock.hz / 1e9:g} GHz assumed; give --cpu-hz (see `xl info`)")


def _say(text: str) -> None:
    from xtrace.reports.units import printable

    typer.echo(printable(text), err=True)


def _print_json(document: dict[str, Any]) -> None:
    import json

    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every expected failure is one line on standard error."""
    try:
        code = app(arguments, standalone_mode=False)
        sys.stdout.flush()
    except XtraceError as error:
        _say(f"xtrace: {error}")
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
        _say(f"xtrace: {error.format_message()}")
        return int(getattr(error, "exit_code", 2))
    return code if isinstance(code, int) else 0

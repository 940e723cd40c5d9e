"""What commands share: the arguments that mean the same everywhere, opening traces, progress, messages."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import typer

from xtrace.errors import UsageError

if TYPE_CHECKING:
    from xtrace.reports.page import Page
    from xtrace.selection import Selection
    from xtrace.trace import Trace
    from xtrace.trace_file import TraceFile

AnyTrace = TypeVar("AnyTrace", bound="Trace")


class TableFormat(StrEnum):
    """How a table command prints."""

    table = "table"
    json = "json"


TraceArgument = Annotated[
    str,
    typer.Argument(metavar="TRACE", help="A file of xentrace, plain, .gz, .xz or .zst; - for stdin; or a dataset."),
]
HzOption = Annotated[
    str | None,
    typer.Option("--cpu-hz", metavar="HZ", help="TSC frequency of the traced host: 2596.1M, 2.4G or plain Hz."),
]
SymbolsOption = Annotated[
    str | None,
    typer.Option("--symbols", metavar="MAP", help="Names hypervisor functions: xen-syms.map, nm output."),
]
CpusOption = Annotated[
    str | None, typer.Option("--cpus", "--cpu", metavar="LIST", help="Only records of these CPUs: 0-3,8.")
]
FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="Only from this time on: 1.5 (seconds), 200ms, 35us, 120ns."),
]
ToOption = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only before this time.")]
HtmlOption = Annotated[
    str | None, typer.Option("--html", metavar="OUT.html", help="Write a report: one page that needs nothing else.")
]
FixSkewOption = Annotated[
    bool, typer.Option("--fix-skew", help="Take off what clocks of CPUs differ by, as far as it shows.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]


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
def opened(
    path: str, cpu_hz: str | None, symbols: str | None, *, once: bool, fix_skew: bool = False
) -> Iterator[Trace]:
    """The trace at this path, closed at the end, with a progress bar."""
    from xtrace.opening import open as open_trace

    with _opened(open_trace, path, cpu_hz, symbols, once=once, fix_skew=fix_skew) as trace:
        yield trace


@contextmanager
def opened_file(path: str, cpu_hz: str | None, symbols: str | None, *, fix_skew: bool = False) -> Iterator[TraceFile]:
    """As `opened`, but only a file or a pipe."""
    from xtrace.trace_file import TraceFile

    with _opened(TraceFile, path, cpu_hz, symbols, once=False, fix_skew=fix_skew) as trace:
        yield trace


@contextmanager
def _opened(
    open_trace: Callable[..., AnyTrace],
    path: str,
    cpu_hz: str | None,
    symbols: str | None,
    *,
    once: bool,
    fix_skew: bool,
) -> Iterator[AnyTrace]:
    with (
        _Progress("reading") as progress,
        open_trace(
            path,
            cpu_hz=_hz(cpu_hz),
            symbols=symbols,
            workers=os.cpu_count() or 1,
            progress=progress.update,
            once=once,
            fix_skew=fix_skew,
        ) as trace,
    ):
        if symbols is not None:
            # A bad map is worth knowing before a long pass.
            _ = trace.symbols
        yield trace


@contextmanager
def work_progress(verb: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for work of so many steps; gives the function that moves it."""
    with _Progress(verb) as progress:
        yield progress.update


class _Progress:
    """A bar on standard error for what takes longer than a second, and only on a terminal.

    verb: what is being done; for `reading` steps are bytes.
    """

    PATIENCE_S = 1.0

    def __init__(self, verb: str) -> None:
        self._verb = verb
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
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            steps = DownloadColumn() if self._verb == "reading" else MofNCompleteColumn()
            columns = (TextColumn(self._verb), BarColumn(), steps, TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._verb, total=total)
            self._bar.start()
        if done < self._done:
            self._bar.reset(self._task, total=total)
        self._done = done
        self._bar.update(self._task, completed=done)


def selection(cpus: str | None, from_: str | None, to: str | None) -> Selection:
    """What the options --cpus, --from and --to mean. Raises UsageError."""
    from xtrace.selection import Selection, parse_cpus, parse_time

    return Selection(
        None if cpus is None else parse_cpus(cpus),
        None if from_ is None else parse_time(from_, "--from"),
        None if to is None else parse_time(to, "--to"),
    )


KIND_SECTIONS = ("calls", "flushes")
HOST = "host"
"""What --section calls all parts of the host's summary together."""


def sections(text: str | None) -> frozenset[str]:
    """Which parts of an analysis the option --section names; none where it is not given. Raises UsageError."""
    from xtrace.host import NAMES as HOST_NAMES
    from xtrace.questions import NAMES

    known = (*KIND_SECTIONS, *NAMES, *HOST_NAMES)
    names = frozenset(name.strip() for name in (text or "").split(",") if name.strip())
    if "all" in names:
        return frozenset(known)
    unknown = names.difference(known, {HOST})
    if unknown or (text is not None and not names):
        raise UsageError(
            f"--section {text}: give some of {', '.join(known)}; {HOST} for the last {len(HOST_NAMES)}; or all"
        )
    return names - {HOST} | (frozenset(HOST_NAMES) if HOST in names else frozenset())


def interval(text: str | None) -> int | None:
    """What the option --interval means, in ns. Raises UsageError."""
    from xtrace.selection import parse_time

    every_ns = None if text is None else parse_time(text, "--interval")
    if every_ns == 0:
        raise UsageError(f"--interval {text}: give more than 0, for example 1s or 200ms")
    return every_ns


SHOWN_SKIPS = 5


def warn(trace: Trace) -> None:
    """On standard error: what a reader of the figures must know and might not look for."""
    for warning in warnings(trace):
        say(f"warning: {warning}")


def warnings(trace: Trace) -> Iterator[str]:
    """What a reader of the figures must know and might not look for."""
    for skip in trace.survey.skips[:SHOWN_SKIPS]:
        what = f"{skip.length} bytes skipped" if skip.length else "nothing skipped"
        yield f"{trace.name}, byte {skip.offset}: {what}: {skip.reason}"
    more = len(trace.survey.skips) - SHOWN_SKIPS
    if more > 0:
        yield f"{more} more damaged places; `xtrace info` lists them"
    if trace.survey.captures > 1:
        yield f"{trace.survey.captures} captures one behind the other: a CPU's clock starts over"
    if trace.clock.source == "default":
        yield f"CPU frequency not known, {trace.clock.hz / 1e9:g} GHz assumed; give --cpu-hz (see `xl info`)"
    from xtrace.skew import alert, at_hand

    clocks = alert(at_hand(trace))
    if clocks is not None:
        yield clocks


def check_html(path: str | None, force: bool) -> None:
    """Raise UsageError where a report cannot be written, before any work is done."""
    if path is not None:
        from xtrace.output import check

        check(path, force=force)


def write_html(path: str, page: Page) -> None:
    """Write a report, whole or not at all, and say where. Raises InputError where it cannot be written."""
    from pathlib import Path

    from xtrace.output import whole
    from xtrace.reports.page import render

    with whole(Path(path)) as file:
        file.write(render(page).encode())
    say(f"report: {path}")


def say(text: str) -> None:
    """A line on standard error."""
    from xtrace.units import printable

    typer.echo(printable(text), err=True)


def print_json(document: dict[str, Any]) -> None:
    """A document on standard output."""
    import json

    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")

"""The command `xtrace tracepoints`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from xtrace.cli_common import ForceOption, say
from xtrace.errors import UsageError
from xtrace.tracepoint_files import NAMES, Piece, steps, text, write


def tracepoints(
    piece: Annotated[
        Piece | None,
        typer.Argument(metavar="FILE", help="Print header, the C header, or legacy or lockless, a semantic patch."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="DIR", help="Write all files into this folder.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Add the tracepoints to a Xen source tree: print the steps, or one of the files, or write all of them.

    legacy is for Xen as released, with call_lock and flush_lock; lockless for Xen with the series of April 2026.
    """
    if output is None:
        sys.stdout.write(steps() if piece is None else text(NAMES[piece]))
    elif piece is not None:
        raise UsageError(f"tracepoints: --output writes all files; leave out {piece} or --output")
    else:
        for path in write(Path(output), force=force):
            say(f"written: {path}")

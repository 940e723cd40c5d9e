"""Storing traces from Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from xtrace.dataset.layout import name_of
from xtrace.dataset.stored import StoredTrace
from xtrace.dataset.write import write
from xtrace.errors import UsageError
from xtrace.trace_file import TraceFile

if TYPE_CHECKING:
    from xtrace.trace import Trace


def store(
    trace: Trace | str | os.PathLike[str],
    root: str | os.PathLike[str],
    *,
    name: str | None = None,
    host: str | None = None,
    force: bool = False,
) -> StoredTrace:
    """Add a trace to a dataset, as `xtrace dataset` does, and return it as it is there.

    trace  a file, or one opened with a frequency or symbols of its own
    root   the folder of the dataset; made where it is not there
    name   what the trace is called there; default: its file's name without suffix
    host   where it was captured
    force  replace another trace of that name; the same one is replaced in any case

    Raises UsageError where another trace has that name, or no name can be made, and InputError where the trace cannot
    be read or the folder not be written.
    """
    if isinstance(trace, StoredTrace):
        raise UsageError(f"{trace.folder}: is stored already; give the file")
    if not isinstance(trace, TraceFile):
        with TraceFile(cast("str", trace)) as opened:
            return store(opened, root, name=name, host=host, force=force)
    called = name_of(str(trace.reader.path), name)
    return StoredTrace(write(trace, Path(root), called, host=host, force=force).folder)

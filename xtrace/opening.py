"""Which traces a path means: a file, a pipe, or what a dataset holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xtrace.errors import UsageError
from xtrace.trace_file import TraceFile

if TYPE_CHECKING:
    from xtrace.trace import Trace


def open(path: str | os.PathLike[str], **options: Any) -> Trace:  # noqa: A001
    """The trace at a path: a file, `-`, a dataset of one trace, or one trace of a dataset (`data/trace=NAME`).

    options: as for `TraceFile`. Raises InputError where the file cannot be read or holds no xentrace window, and
    UsageError for a dataset of several traces.
    """
    if not Path(path).is_dir():
        return TraceFile(path, **options)
    from xtrace.dataset.stored import StoredTrace

    partitions = traces_at(path)
    if len(partitions) > 1:
        raise UsageError(f"{path}: a dataset of {len(partitions)} traces; name one, such as {partitions[0]}")
    kept = {name: options[name] for name in ("cpu_hz", "symbols", "fix_skew") if name in options}
    return StoredTrace(partitions[0], **kept)


def traces_at(path: str | os.PathLike[str]) -> list[Path]:
    """The traces that a path means: itself, or all those of a dataset. Raises InputError for any other folder."""
    if not Path(path).is_dir():
        return [Path(path)]
    from xtrace.dataset.layout import partitions

    return partitions(Path(path))

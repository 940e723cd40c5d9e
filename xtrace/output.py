"""Files that appear under their name once they are whole, and replace nothing unasked."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from xtrace.errors import InputError, UsageError


def check(*paths: str | Path, force: bool) -> None:
    """Raise UsageError where a file is in the way, or cannot be there, before any work is done."""
    for one in map(Path, paths):
        if one.is_dir():
            raise UsageError(f"{one}: a directory; give a file name")
        if one.exists() and not force:
            raise UsageError(f"{one}: exists already; give --force to replace it")
        if not one.parent.is_dir():
            raise UsageError(f"{one.parent}: no such directory")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name once all of it is written. Raises InputError where it cannot be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                yield file
                file.flush()
                _give_usual_mode(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def _give_usual_mode(descriptor: int) -> None:
    """The mode that any new file would have; temporary ones are private."""
    mask = os.umask(0)
    os.umask(mask)
    os.fchmod(descriptor, 0o666 & ~mask)

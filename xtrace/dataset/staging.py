"""Folders that appear under their name once they are whole, and replace another of that name in one step."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from xtrace.errors import InputError

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_TAKEN: Final = {errno.ENOTEMPTY, errno.EEXIST}
_UNSUPPORTED: Final = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which is `target` afterwards. Raises InputError where it cannot be written.

    Whoever reads meanwhile finds the old folder or the new one, whole; an interruption leaves the old one. What a
    killed process left behind is removed by the next one.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear(target.parent)
        folder, lock = _begin(target.parent)
        try:
            yield folder
            _settle(folder)
            _put(folder, target)
        finally:
            # After an exchange this is what was there before.
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error


def _places(root: Path) -> list[tuple[Path, str]]:
    """Where unfinished folders may be, and how their names begin.

    Beside the root, since patterns such as `*` and `**` find hidden folders inside it; inside it where the one around
    it is on another file system, or not ours to write to.
    """
    root = root.resolve()
    inside = [(root, ".unfinished-")]
    around = root.parent
    if around.stat().st_dev != root.stat().st_dev or not os.access(around, os.W_OK):
        return inside
    return [(around, f".{root.name}.unfinished-"), *inside]


def _begin(root: Path) -> tuple[Path, int]:
    """A new folder, locked for as long as this process lives."""
    place, prefix = _places(root)[0]
    while True:
        folder = Path(tempfile.mkdtemp(dir=place, prefix=prefix))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_SH)
        # Another process may have taken it for an abandoned one before it was locked.
        if folder.exists():
            mask = os.umask(0)
            os.umask(mask)
            folder.chmod(0o777 & ~mask)
            return folder, lock
        os.close(lock)


def _clear(root: Path) -> None:
    """Remove what processes that are gone left unfinished."""
    for place, prefix in _places(root):
        for folder in place.glob(f"{glob.escape(prefix)}*"):
            with contextlib.suppress(OSError):
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(lock)


def _settle(folder: Path) -> None:
    """Have all of it on disk before it gets its name."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(folder: Path, target: Path) -> None:
    """Let the folder be the target; what was there is the folder afterwards, or gone."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        if not _exchange(folder, target):
            # A file system that cannot exchange: for a moment neither is there.
            old = folder.with_name(f"{folder.name}-old")
            target.rename(old)
            folder.rename(target)
            shutil.rmtree(old, ignore_errors=True)
    _sync(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step (Linux, renameat2); False where the system or file system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    reason = ctypes.get_errno()
    if reason in _UNSUPPORTED:
        return False
    raise OSError(reason, os.strerror(reason), str(other))

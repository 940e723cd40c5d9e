"""Where the bytes come from: a path, a pipe, standard input (`-`), each plain or as .gz, .xz or .zst."""

from __future__ import annotations

import gzip
import lzma
import os
import stat
import sys
import zlib
from pathlib import Path
from typing import Any, Final, Self

from xtrace.errors import InputError

CHUNK_BYTES: Final = 8 << 20
STEP_BYTES: Final = 4 << 10

_MAGIC: Final = {b"\x1f\x8b": "gz", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}


class Source:
    """The uncompressed bytes of a trace, in order.

    name         how messages call it
    path         the file, where its bytes can be read again by position (a regular, uncompressed file)
    total_bytes  bytes on disk, for a progress bar; None for a pipe
    ended_early  True once a compressed stream broke off before its end
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = "<stdin>" if str(path) == "-" else str(path)
        self.path: Path | None = None
        self.total_bytes: int | None = None
        self.ended_early = False
        self._raw = self._open(path)
        try:
            head = self._raw.peek(6)[:6]
        except OSError as reason:
            self._raw.close()
            raise InputError(f"{self.name}: cannot be read: {reason.strerror}") from None
        kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
        self.compression = kind
        self._stream: Any = self._decompressor(kind)
        status = os.fstat(self._raw.fileno())
        if stat.S_ISREG(status.st_mode):
            self.total_bytes = status.st_size
            if kind is None and str(path) != "-":
                self.path = Path(path)

    def _open(self, path: str | os.PathLike[str]) -> _Raw:
        try:
            descriptor = os.dup(sys.stdin.fileno()) if str(path) == "-" else os.open(path, os.O_RDONLY)
        except (OSError, ValueError) as reason:
            why = reason.strerror if isinstance(reason, OSError) else str(reason)
            raise InputError(f"{self.name}: cannot be opened: {why}") from None
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise InputError(f"{self.name}: is a directory; name a trace file in it")
        return _Raw(descriptor)

    def _decompressor(self, kind: str | None) -> Any:
        raw: Any = self._raw
        if kind == "gz":
            return gzip.GzipFile(fileobj=raw)
        if kind == "xz":
            return lzma.LZMAFile(raw)
        if kind == "zst":
            import pyarrow as pa

            return pa.CompressedInputStream(raw, "zstd")
        return raw

    def read_into(self, room: memoryview) -> int:
        """Fill `room` with the next bytes; returns how many there were, fewer than its length only at the end."""
        filled = 0
        # A decompressor that meets a broken end forgets what the call that met it had unpacked: many small calls.
        step = len(room) if self.compression is None else STEP_BYTES
        try:
            while filled < len(room):
                count = self._stream.readinto(room[filled : filled + step])
                if not count:
                    break
                filled += count
        except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile):
            self.ended_early = True
        except OSError as reason:
            if self.compression is None:
                raise InputError(f"{self.name}: cannot be read: {reason.strerror}") from None
            self.ended_early = True
        return filled

    def seek(self, offset: int) -> None:
        """Go on at this byte of a file that has a `path`."""
        self._raw.seek(offset)

    def position(self) -> int:
        """Bytes taken from the file on disk so far."""
        return self._raw.taken

    def close(self) -> None:
        """Release the file."""
        self._stream.close()
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Raw:
    """A descriptor read in full chunks, so that a pipe's short reads do not show; counts what it gave."""

    def __init__(self, descriptor: int) -> None:
        self._file: Any = os.fdopen(descriptor, "rb", buffering=1 << 16)
        self._head = b""
        self.taken = 0
        self.closed = False

    def peek(self, size: int) -> bytes:
        """The first bytes, which the next read gives again; a buffered file's own peek may see less of a pipe."""
        self._head = bytes(self._file.read(size))
        return self._head

    def read(self, size: int = -1) -> bytes:
        head, self._head = (self._head, b"") if size < 0 else (self._head[:size], self._head[size:])
        data: bytes = head + self._file.read(size if size < 0 else size - len(head))
        self.taken += len(data)
        return data

    def readinto(self, room: memoryview) -> int:
        head = self._head[: len(room)]
        self._head = self._head[len(head) :]
        room[: len(head)] = head
        count = len(head) + int(self._file.readinto(room[len(head) :]))
        self.taken += count
        return count

    def fileno(self) -> int:
        return int(self._file.fileno())

    def seek(self, offset: int) -> None:
        self._head = b""
        self.taken = self._file.seek(offset)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True
        self._file.close()

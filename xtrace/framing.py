"""Bytes → windows: follow the chain of CPU_CHANGE headers, and find it again where it breaks.

xentrace writes windows one behind the other, each a CPU_CHANGE record that names a CPU and a size, then that
many bytes of records (tools/xentrace/xentrace.c). While each window ends where the next begins, this is a hop
from header to header. Where it does not, records are read one by one and strictly, as far as they make sense;
then the next plausible header is looked for, and what lies between is skipped and listed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from xtrace.parsers.container import CPU_CHANGE_HEADER, MAX_CPU
from xtrace.parsers.container import WINDOW_HEADER_BYTES as HEADER_BYTES
from xtrace.scan import MAX_RECORD_WORDS, RECORD_WORDS, Words, record_starts
from xtrace.source import CHUNK_BYTES

BLOCK_BYTES: Final = CHUNK_BYTES
MAX_WINDOW_BYTES: Final = 64 << 20
"""A window larger than this is read in pieces, so that memory stays bounded whatever a header says."""

MAX_LEAP_CYCLES: Final = 1 << 44
"""In damaged places a step in time beyond this (hours) is a misread record."""

MAX_RECORD_BYTES: Final = 4 * MAX_RECORD_WORDS
CLASS_MASK: Final = 0x0FFF0000
"""Bits of a header word that name a trace class; Xen writes no record without one (xen/common/trace.c)."""

_WORD: Final = struct.Struct("<I")
_TSC: Final = struct.Struct("<Q")
_HEADER: Final = struct.Struct("<III")
_PATTERN: Final = CPU_CHANGE_HEADER.to_bytes(4, "little")
_WORDS: Final[list[int]] = RECORD_WORDS.tolist()


class Skip(NamedTuple):
    """Bytes that were not decoded; length 0 where only the framing was wrong and nothing was lost."""

    offset: int
    length: int
    reason: str


@dataclass(slots=True)
class Block:
    """Some whole windows that stand together in the input, each with its header.

    offset   byte position of `words[0]` in the uncompressed input
    words    uint32, headers included
    windows  int64 (n, 3): first word behind the header, end word, CPU; where a window larger than
             MAX_WINDOW_BYTES is continued, its first word has no header before it
    """

    offset: int
    words: Words
    windows: NDArray[np.int64]
    path: Path | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """A worker process reads the words again instead of having them sent, where the file allows."""
        if self.path is None:
            return Block, (self.offset, self.words, self.windows)
        return load_block, (self.path, self.offset, self.words.nbytes, self.windows)

    def headers(self) -> NDArray[np.int64]:
        """Word positions of the CPU_CHANGE records."""
        first = self.windows[:, 0] - HEADER_BYTES // 4
        return first[1:] if len(first) and first[0] < 0 else first


def load_block(path: Path, offset: int, size: int, windows: NDArray[np.int64]) -> Block:
    """The block of a file at this place; OSError where the file cannot be read."""
    words = np.fromfile(path, "<u4", size // 4, offset=offset)
    return Block(offset, words, windows, path)


class ByteSource(Protocol):
    """What a Framer reads: `Source`, or bytes in memory."""

    path: Path | None
    compression: str | None
    ended_early: bool

    def read(self) -> bytes:
        """The next bytes, empty at the end."""
        ...


@dataclass(slots=True)
class Framer:
    """Cuts a source into blocks. `skips` and `total_bytes` are complete once `blocks()` has ended.

    distrust_first  read the records of the first window one by one although its size fits
    """

    source: ByteSource
    distrust_first: bool = False
    skips: list[Skip] = field(default_factory=list)
    total_bytes: int = 0
    _buffer: bytes = b""
    _base: int = 0
    _at: int = 0
    _ended: bool = False

    def blocks(self) -> Iterator[Block]:
        """Blocks of about BLOCK_BYTES, in input order."""
        while self._has(1):
            windows = [] if self.distrust_first else self._follow_chain()
            if windows:
                yield self._take(windows)
            elif self._has(HEADER_BYTES) and self._is_header(0):
                yield from self._broken_window()
            else:
                self._skip_to_header(
                    "no window header" if self._offset() else "the file does not begin with a window"
                )
            self.distrust_first = False
        self.total_bytes = self._offset()
        if self.source.ended_early:
            self.skips.append(Skip(self.total_bytes, 0, f"the {self.source.compression} stream ends early"))

    def _follow_chain(self) -> list[tuple[int, int, int]]:
        """Hop over sound windows until a block is full, the chain breaks or the input ends."""
        windows: list[tuple[int, int, int]] = []
        end = 0
        self._has(HEADER_BYTES)
        while end < BLOCK_BYTES and self._is_header(end):
            _, cpu, size = _HEADER.unpack_from(self._buffer, self._at + end)
            first, after = end + HEADER_BYTES, end + HEADER_BYTES + size
            if self._available() < after + 4:
                # The next header is not in memory: finish this block first, so that the buffer stays small.
                if windows or size > MAX_WINDOW_BYTES:
                    break
                self._has(after + HEADER_BYTES)
            if not (self._available() == after and self._ended) and not self._marks(after):
                break
            windows.append((first, after, cpu))
            end = after
        return windows

    def _take(self, windows: list[tuple[int, int, int]]) -> Block:
        """The block of these windows, which begins at the current position; move behind it."""
        begin, size = self._at, windows[-1][1]
        table = np.array(windows, np.int64)
        table[:, :2] //= 4
        # After an odd number of bytes was lost the words are no longer aligned: a copy is.
        data, at = (self._buffer, begin) if begin % 4 == 0 else (self._buffer[begin : begin + size], 0)
        block = Block(self._offset(), np.frombuffer(data, "<u4", size // 4, at), table, self.source.path)
        self._advance(size)
        return block

    def _broken_window(self) -> Iterator[Block]:
        """A header whose window does not end at another header: read what makes sense of it."""
        _, cpu, size = _HEADER.unpack_from(self._buffer, self._at)
        claim = f"the window of CPU {cpu} at byte {self._offset()} says {size} bytes"
        if size > MAX_WINDOW_BYTES and self._has(MAX_WINDOW_BYTES):
            yield from self._giant_window(cpu, size)
            return
        good = self._sound_bytes(size)
        yield self._take([(HEADER_BYTES, HEADER_BYTES + good, cpu)])
        left = self._available()
        if self._ended and good + left < size and left < MAX_RECORD_BYTES and not self._is_header(0):
            reason = "the file ends inside a record" if left else "the file ends inside a window"
            self._skip(left, f"{reason}; {claim}")
        elif left and not self._is_plausible():
            self._skip_to_header(f"records do not fit; {claim}")
        elif good != size:
            self._skip(0, f"wrong window size; {claim}, {good} follow")

    def _giant_window(self, cpu: int, size: int) -> Iterator[Block]:
        """A window beyond MAX_WINDOW_BYTES, in pieces that end between records."""
        header = HEADER_BYTES
        while size > 0 and self._has(header + 4):
            self._has(header + min(size, MAX_WINDOW_BYTES))
            length = min(size, (self._available() - header) & ~3, MAX_WINDOW_BYTES)
            begin = self._at + header
            words = np.frombuffer(self._buffer[begin : begin + length], "<u4")
            starts = record_starts(words)
            inner = starts[words[starts] == CPU_CHANGE_HEADER]
            if len(inner):
                length = size = int(inner[0]) * 4
            elif length < size:
                length = int(starts[-1]) * 4
            if not length and not len(inner):
                self._skip(self._available(), "the file ends inside a record")
                return
            if header or length:
                yield self._take([(header, header + length, cpu)])
            size -= length
            header = 0

    def _sound_bytes(self, size: int) -> int:
        """Bytes behind the header that are records for certain, read one by one."""
        good, last_tsc = 0, 0
        while self._has(HEADER_BYTES + good + 4):
            relative = HEADER_BYTES + good
            (header,) = _WORD.unpack_from(self._buffer, self._at + relative)
            length = 4 * _WORDS[header >> 28]
            if not header & CLASS_MASK or header == CPU_CHANGE_HEADER or not self._has(relative + length):
                break
            if good == size and self._is_damaged_header(relative):
                break
            if header >> 31:
                (tsc,) = _TSC.unpack_from(self._buffer, self._at + relative + 4)
                if tsc < last_tsc or (last_tsc and tsc - last_tsc > MAX_LEAP_CYCLES):
                    break
                last_tsc = tsc
            good += length
        return good

    def _is_damaged_header(self, relative: int) -> bool:
        """Whether something unlike a header stands where one should, whose CPU and size still lead on."""
        if not self._has(relative + HEADER_BYTES):
            return False
        _, cpu, size = _HEADER.unpack_from(self._buffer, self._at + relative)
        if cpu > MAX_CPU or size & 3 or not 0 < size <= MAX_WINDOW_BYTES:
            return False
        self._has(relative + HEADER_BYTES + size + 4)
        return self._marks(relative + HEADER_BYTES + size)

    def _skip_to_header(self, reason: str) -> None:
        """Give up the bytes up to the next plausible header, or all that is left."""
        begin = self._offset()
        if self._is_header(0):
            self._advance(4)
        while True:
            found = self._buffer.find(_PATTERN, self._at)
            if found >= 0:
                self._advance(found - self._at)
                if self._is_plausible():
                    break
                self._advance(4)
            elif self._ended:
                self._advance(self._available())
                break
            else:
                self._advance(max(0, self._available() - 3))
                self._has(self._available() + 1)
        if self._offset() > begin:
            self.skips.append(Skip(begin, self._offset() - begin, reason))

    def _is_plausible(self) -> bool:
        """Whether a header stands here that leads to another, to the end of the input, or at least to a record."""
        self._has(HEADER_BYTES + 4)
        if not self._is_header(0):
            return False
        _, _, size = _HEADER.unpack_from(self._buffer, self._at)
        after = HEADER_BYTES + size
        if size <= MAX_WINDOW_BYTES and self._has(after) and (not self._has(after + 4) or self._marks(after)):
            return True
        if self._available() < HEADER_BYTES + 4:
            return False
        (first,) = _WORD.unpack_from(self._buffer, self._at + HEADER_BYTES)
        return bool(first & CLASS_MASK)

    def _is_header(self, relative: int) -> bool:
        if self._available() < relative + HEADER_BYTES:
            return False
        mark, cpu, size = _HEADER.unpack_from(self._buffer, self._at + relative)
        return mark == CPU_CHANGE_HEADER and cpu <= MAX_CPU and not size & 3

    def _marks(self, relative: int) -> bool:
        return self._buffer.startswith(_PATTERN, self._at + relative)

    def _skip(self, length: int, reason: str) -> None:
        self.skips.append(Skip(self._offset(), length, reason))
        self._advance(length)

    def _has(self, size: int) -> bool:
        """Whether `size` bytes from the current position on exist; reads them into memory."""
        while self._available() < size and not self._ended:
            data = self.source.read()
            self._ended = not data
            self._buffer = self._buffer[self._at :] + data
            self._base += self._at
            self._at = 0
        return self._available() >= size

    def _available(self) -> int:
        return len(self._buffer) - self._at

    def _offset(self) -> int:
        return self._base + self._at

    def _advance(self, size: int) -> None:
        self._at += size

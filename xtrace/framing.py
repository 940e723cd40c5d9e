"""Bytes → windows: follow the chain of CPU_CHANGE headers, and find it again where it breaks.

xentrace writes windows one behind the other, each a CPU_CHANGE record that names a CPU and a size, then that
many bytes of records (tools/xentrace/xentrace.c). While each window ends where the next begins, this is a hop
from header to header. Where it does not, records are read one by one and strictly, as far as they make sense;
then the next plausible header is looked for, and what lies between is skipped and listed.
"""

from __future__ import annotations

import re
import struct
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from xtrace.block import HEADER_BYTES, Block, Skip, joined, leading_tsc
from xtrace.chain import MAX_WINDOW_BYTES, follow, is_mark
from xtrace.parsers.container import CPU_CHANGE_HEADER, MAX_CPU
from xtrace.parsers.event import CLASSES
from xtrace.scan import record_starts
from xtrace.source import CHUNK_BYTES
from xtrace.words import MAX_RECORD_WORDS, WORDS_OF, ends_at

BLOCK_BYTES: Final = CHUNK_BYTES
ROOM_SLACK_BYTES: Final = 1 << 20

MAX_LEAP_CYCLES: Final = 1 << 44
MAX_STEP_BACK_CYCLES: Final = 1 << 24
"""In doubtful places a step in time beyond these (hours on, milliseconds back) is a misread record. Small steps back
are Xen's own corrections of an unsteady TSC (xen/arch/x86/time.c)."""
NEAR_CYCLES: Final = 1 << 34
"""Cycle counts in a damaged window are believed this near (seconds) to each other's and to a neighbouring window's."""
NEAR_BYTES: Final = 1 << 20
"""How far ahead a neighbour is looked for."""

MAX_RECORD_BYTES: Final = 4 * MAX_RECORD_WORDS
EVENT_MASK: Final = 0x0FFF_FFFF
SANE: Final = np.zeros(1 << 16, np.bool_)
"""By bits 12–27 of a header word: one known class, and one subclass or all of them."""
for _class in CLASSES:
    SANE[[_class << 4 | subclass for subclass in (1, 2, 4, 8, 15)]] = True

_SANE: Final = SANE.tobytes()
_WORD: Final = struct.Struct("<I")
_TSC: Final = struct.Struct("<Q")
_HEADER: Final = struct.Struct("<III")
_PATTERN: Final = CPU_CHANGE_HEADER.to_bytes(4, "little")
_FIND: Final = re.compile(re.escape(_PATTERN))


class ByteSource(Protocol):
    """What a Framer reads: `Source`, or bytes in memory."""

    path: Path | None
    compression: str | None
    ended_early: bool

    def read_into(self, room: memoryview) -> int:
        """Fill `room`; returns the number of bytes, fewer than its length only at the end."""
        ...


@dataclass(slots=True)
class _Room:
    """Memory that is lent out: free again once nothing refers to what was lent."""

    memory: NDArray[np.uint8]
    _lent: weakref.ref[NDArray[np.uint8]] | None = None

    def is_free(self) -> bool:
        """Whether nobody has it."""
        return self._lent is None or self._lent() is None

    def lend(self) -> NDArray[np.uint8]:
        """The memory, for as long as the array or a view of it lives."""
        lent = self.memory[:]
        self._lent = weakref.ref(lent)
        return lent


@dataclass(slots=True)
class Framer:
    """Cuts a source into blocks. `skips` and `total_bytes` are complete once `blocks()` has ended.

    distrust  read the records of every window one by one, even where its size fits
    near      cycle counts of neighbouring windows that the source does not hold
    base      byte position in the whole input of the source's next
    last_tsc  the first cycle count of the last window before that, 0 for none
    """

    source: ByteSource
    distrust: bool = False
    near: tuple[int, ...] = ()
    base: int = 0
    last_tsc: int = 0
    skips: list[Skip] = field(default_factory=list)
    total_bytes: int = 0
    _buffer: memoryview = field(default_factory=lambda: memoryview(b""))
    _rooms: list[_Room] = field(default_factory=list)
    _at: int = 0
    _ended: bool = False

    def blocks(self) -> Iterator[Block]:
        """Blocks of about BLOCK_BYTES, in input order."""
        broken: list[Block] = []
        size = 0
        for block, whole in self._pieces():
            # Broken windows are gathered: a file full of them must not cost a block for each.
            if broken and (whole or size > BLOCK_BYTES):
                yield joined(broken)
                broken, size = [], 0
            if whole:
                yield block
            else:
                broken.append(block)
                size += block.words.nbytes
        if broken:
            yield joined(broken)

    def _pieces(self) -> Iterator[tuple[Block, bool]]:
        """Blocks as they come, and whether they are more than one broken window."""
        while self._has(1):
            windows = None if self.distrust else self._follow_chain()
            if windows is not None and len(windows):
                yield self._take(windows), True
            elif self._has(HEADER_BYTES) and self._is_header(0):
                yield from self._broken_window()
            elif self._available() < HEADER_BYTES and self._marks(0):
                self._skip(self._available(), "the file ends inside a window header")
            else:
                self._skip_to_header("no window header" if self._offset() else "the file does not begin with a window")
        self.total_bytes = self._offset()
        if self.source.ended_early:
            self.skips.append(Skip(self.total_bytes, 0, f"the {self.source.compression} stream ends early"))

    def _follow_chain(self) -> NDArray[np.int64]:
        """As `chain.follow` from the current position, until a block is full."""
        self._has(HEADER_BYTES)
        windows = follow(self._buffer[self._at :], BLOCK_BYTES, ended=self._ended)
        if not len(windows) and self._is_header(0):
            # The first window is not in memory whole.
            _, _, size = _HEADER.unpack_from(self._buffer, self._at)
            if size <= MAX_WINDOW_BYTES:
                self._has(2 * HEADER_BYTES + size)
                windows = follow(self._buffer[self._at :], BLOCK_BYTES, ended=self._ended)
        return windows

    def _take(self, windows: NDArray[np.int64] | tuple[int, int, int]) -> Block:
        """The block of these windows, which begins at the current position; move behind it."""
        table = np.array(windows, np.int64).reshape(-1, 3)
        begin, size = self._at, int(table[-1, 1])
        table[:, :2] //= 4
        # After an odd number of bytes was lost the words are no longer aligned: a copy is.
        data = self._buffer[begin : begin + size]
        words = np.frombuffer(data if begin % 4 == 0 else data.tobytes(), "<u4")
        block = Block(self._offset(), words, table, self.source.path)
        self.last_tsc = leading_tsc(words[table[-1, 0] :]) or self.last_tsc
        self._advance(size)
        return block

    def _broken_window(self) -> Iterator[tuple[Block, bool]]:
        """A header whose window does not end at another header: read what makes sense of it."""
        _, cpu, size = _HEADER.unpack_from(self._buffer, self._at)
        claim = f"the window of CPU {cpu} at byte {self._offset()} says {size} bytes"
        if size > MAX_WINDOW_BYTES and self._has(MAX_WINDOW_BYTES):
            for block in self._giant_window(cpu, size, claim):
                yield block, True
            return
        good = self._sound_bytes(size)
        yield self._take((HEADER_BYTES, HEADER_BYTES + good, cpu)).copy(), False
        left = self._available()
        if self._ended and good + left < size and left < MAX_RECORD_BYTES and not self._marks(0):
            self._skip(left, f"the file ends inside a {'record' if left else 'window'}; {claim}")
        elif left and not self._marks(0):
            self._skip_to_header(f"records do not fit; {claim}")
        elif good != size:
            self._skip(0, f"wrong window size; {claim}, {good} follow")

    def _giant_window(self, cpu: int, size: int, claim: str) -> Iterator[Block]:
        """A window beyond MAX_WINDOW_BYTES, in pieces that end between records."""
        header = HEADER_BYTES
        while size >= 4 and self._has(header + 4):
            self._has(header + min(size, MAX_WINDOW_BYTES))
            length = min(size, self._available() - header, MAX_WINDOW_BYTES) & ~3
            begin = self._at + header
            words = np.frombuffer(self._buffer[begin : begin + length], "<u4")
            starts = record_starts(words)
            inner = starts[words[starts] == CPU_CHANGE_HEADER]
            if len(inner):
                length = int(inner[0]) * 4
            elif ends_at(words, starts) > len(words):
                length = int(starts[-1]) * 4
            if header or length:
                yield self._take((header, header + length, cpu))
            size -= length
            header = 0
            if len(inner) or not length:
                break
        left = self._available()
        if not size:
            return
        if self._marks(0):
            self._skip(0, f"wrong window size; {claim}")
        elif self._ended and left < MAX_RECORD_BYTES:
            self._skip(left, f"the file ends inside a {'record' if left else 'window'}; {claim}")
        else:
            self._skip_to_header(f"records do not fit; {claim}")

    def _sound_bytes(self, size: int) -> int:
        """Bytes behind the header that are records for certain, read one by one.

        Certain is a record that another follows, or a header, or the end: one that runs into damage may be misread.
        """
        good, sure, own = 0, 0, False
        near = [tsc for tsc in (*self.near, self.last_tsc, self._next_tsc()) if tsc]
        while good < MAX_WINDOW_BYTES:
            relative = HEADER_BYTES + good
            if not self._has(relative + 4) or self._is_plausible(relative):
                return good
            (header,) = _WORD.unpack_from(self._buffer, self._at + relative)
            sane = _SANE[header >> 12 & 0xFFFF] and header & EVENT_MASK != CPU_CHANGE_HEADER & EVENT_MASK
            if good == size and (not sane or self._is_damaged_header(relative)):
                return good
            if not sane:
                break
            sure = good
            length = 4 * WORDS_OF[header >> 28]
            if not self._has(relative + length) or self._holds_header(relative + 1, relative + length):
                break
            if header >> 31:
                (tsc,) = _TSC.unpack_from(self._buffer, self._at + relative + 4)
                # Past the end that the header states, records with older times are another CPU's, whose header is lost.
                back = NEAR_CYCLES if not own else MAX_STEP_BACK_CYCLES if good < size else 0
                if near and not any(-back <= tsc - one <= NEAR_CYCLES for one in near):
                    break
                near, own = [tsc], True
            good += length
        return sure

    def _next_tsc(self) -> int:
        """The first cycle count in the next window, 0 where none is near."""
        relative = HEADER_BYTES
        self._has(relative + NEAR_BYTES)
        while found := _FIND.search(self._buffer, self._at + relative, self._at + HEADER_BYTES + NEAR_BYTES):
            relative = found.start() - self._at
            if self._is_plausible(relative):
                rest = bytes(self._buffer[self._at + relative :][:800])
                return leading_tsc(np.frombuffer(rest[: len(rest) & ~3], "<u4"))
            relative += 1
        return 0

    def _holds_header(self, begin: int, end: int) -> bool:
        """Whether a plausible window header starts in this range."""
        self._has(end + HEADER_BYTES)
        while found := _FIND.search(self._buffer, self._at + begin, self._at + end + 3):
            relative = found.start() - self._at
            if self._is_plausible(relative):
                return True
            begin = relative + 1
        return False

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
            if found := _FIND.search(self._buffer, self._at):
                self._advance(found.start() - self._at)
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

    def _is_plausible(self, relative: int = 0) -> bool:
        """Whether a header stands here that leads to another, to the end of the input, or at least to a record."""
        if not self._marks(relative):
            return False
        first = relative + HEADER_BYTES
        self._has(first + 4)
        if not self._is_header(relative):
            return False
        _, _, size = _HEADER.unpack_from(self._buffer, self._at + relative)
        after = first + size
        if size <= MAX_WINDOW_BYTES and self._has(after) and (not self._has(after + 4) or self._marks(after)):
            return True
        if self._available() < first + 4:
            return False
        (header,) = _WORD.unpack_from(self._buffer, self._at + first)
        return bool(_SANE[header >> 12 & 0xFFFF])

    def _is_header(self, relative: int) -> bool:
        if self._available() < relative + HEADER_BYTES:
            return False
        mark, cpu, _ = _HEADER.unpack_from(self._buffer, self._at + relative)
        return bool(mark == CPU_CHANGE_HEADER and cpu <= MAX_CPU)

    def _marks(self, relative: int) -> bool:
        """Whether a header begins here, as far as the input goes."""
        return is_mark(self._buffer, self._at + relative)

    def _skip(self, length: int, reason: str) -> None:
        self.skips.append(Skip(self._offset(), length, reason))
        self._advance(length)

    def _has(self, size: int) -> bool:
        """Whether `size` bytes from the current position on exist; reads them into memory."""
        while self._available() < size and not self._ended:
            left = self._available()
            room = memoryview(self._room(left + CHUNK_BYTES))  # type: ignore[arg-type]
            room[:left] = self._buffer[self._at :]
            count = self.source.read_into(room[left : left + CHUNK_BYTES])
            self._ended = count < CHUNK_BYTES
            self._buffer = room[: left + count]
            self.base += self._at
            self._at = 0
        return self._available() >= size

    def _room(self, size: int) -> NDArray[np.uint8]:
        """Memory that no block is using any more; fresh memory would cost as much as reading into it."""
        for room in self._rooms:
            if room.is_free() and len(room.memory) >= size:
                return room.lend()
        self._rooms = [room for room in self._rooms if not room.is_free()]
        self._rooms.append(_Room(np.empty(size + ROOM_SLACK_BYTES, np.uint8)))
        return self._rooms[-1].lend()

    def _available(self) -> int:
        return len(self._buffer) - self._at

    def _offset(self) -> int:
        return self.base + self._at

    def _advance(self, size: int) -> None:
        self._at += size

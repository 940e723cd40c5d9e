"""Some windows of a trace that are decoded together."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.parsers.container import WINDOW_HEADER_BYTES
from xtrace.words import WORDS_OF, Words

HEADER_BYTES: Final = WINDOW_HEADER_BYTES

_own = threading.local()


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
        return _load, (self.path, self.offset, self.words.nbytes, self.windows)

    def copy(self) -> Block:
        """The same in memory of its own, to be kept while reading goes on."""
        return Block(self.offset, self.words.copy(), self.windows)

    def headers(self) -> NDArray[np.int64]:
        """Word positions of the CPU_CHANGE records."""
        first = self.windows[:, 0] - HEADER_BYTES // 4
        return first[1:] if len(first) and first[0] < 0 else first


def read_at(path: Path, offset: int, size: int) -> memoryview:
    """Up to `size` bytes of a file, valid until the thread asks again; OSError where it cannot be read.

    Fresh memory for each block would cost as much as reading.
    """
    room: bytearray = getattr(_own, "room", bytearray())
    if len(room) < size:
        room = _own.room = bytearray(size)
    filled = 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while count := os.preadv(descriptor, [memoryview(room)[filled:size]], offset + filled):
            filled += count
    finally:
        os.close(descriptor)
    return memoryview(room)[:filled]


def _load(path: Path, offset: int, size: int, windows: NDArray[np.int64]) -> Block:
    return Block(offset, np.frombuffer(read_at(path, offset, size), "<u4"), windows, path)


def joined(blocks: list[Block]) -> Block:
    """Blocks without gaps of their own as one; what lies between them in the input is not in it."""
    if len(blocks) == 1:
        return blocks[0]
    begin = np.cumsum([0, *(len(block.words) for block in blocks[:-1])])
    windows = [block.windows + np.array([at, at, 0]) for at, block in zip(begin.tolist(), blocks, strict=True)]
    return Block(blocks[0].offset, np.concatenate([block.words for block in blocks]), np.concatenate(windows))


def leading_tsc(words: Words) -> int:
    """The first cycle count in records that begin with `words`, 0 where there is none soon."""
    values = words[:200].tolist()
    at = 0
    while at + 2 < len(values):
        if values[at] >> 31:
            return int(values[at + 1] | values[at + 2] << 32)
        at += WORDS_OF[values[at] >> 28]
    return 0

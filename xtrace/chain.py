"""The chain of window headers in an intact file: each window ends where the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.block import HEADER_BYTES, Block, read_at
from xtrace.parsers.container import CPU_CHANGE_HEADER, MAX_CPU

MAX_WINDOW_BYTES: Final = 64 << 20
"""A window larger than this is read in pieces, so that memory stays bounded whatever a header says."""

SLACK_BYTES: Final = 64 << 10
"""How far beyond a stretch its last window may reach without a second read."""

_PATTERN: Final = CPU_CHANGE_HEADER.to_bytes(4, "little")


class _Marks(NamedTuple):
    """What looks like a header, by position: where it and its window lie in bytes, its CPU, whether all is possible."""

    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    cpu: NDArray[np.int64]
    good: NDArray[np.bool_]


def follow(buffer: memoryview, limit: int, *, ended: bool) -> NDArray[np.int64]:
    """The windows of a chain that starts at the first byte and goes on until one begins at `limit` or later.

    ended: no bytes come behind these. Returns first byte behind the header, end and CPU of each, int64 (n, 3): up to
    the first that is not whole, not possible, or not followed by another or by the end.
    """
    return _follow(buffer, _marks(buffer, limit), 0, ended=ended)


def load_stretch(path: Path, offset: int, size: int) -> Block | None:
    """The windows of a file that begin in `size` bytes from `offset`, as far as they chain, without those before.

    Unless it is at 0, a chain starts at the first header whose window another follows. That may be a word of some
    payload: the caller checks that the stretch before ends where this begins. The block's memory is the thread's, as
    that of `read_at`. None where no chain starts. Raises OSError where the file cannot be read.
    """
    wanted = size + SLACK_BYTES
    while True:
        buffer = read_at(path, offset, wanted)
        ended = len(buffer) < wanted
        marks = _marks(buffer, size)
        start = _start(buffer, marks, ended=ended) if offset else 0
        windows = _follow(buffer, marks, start, ended=ended)
        stop = int(windows[-1, 1]) if len(windows) else start
        unread = marks.end[(marks.begin == stop) & (marks.end + HEADER_BYTES > len(buffer))]
        if ended or not len(unread) or unread[0] > size + MAX_WINDOW_BYTES:
            break
        wanted = int(unread[0]) + HEADER_BYTES
    if not len(windows):
        return None
    windows[:, :2] = (windows[:, :2] - start) // 4
    return Block(offset + start, np.frombuffer(buffer[start:stop], "<u4"), windows, path)


def _start(buffer: memoryview, marks: _Marks, *, ended: bool) -> int:
    """Where the first window begins that another, or the end, follows; the end where there is none."""
    for row in np.flatnonzero(marks.good).tolist():
        end = int(marks.end[row])
        if is_mark(buffer, end) or (ended and end == len(buffer)):
            return int(marks.begin[row])
    return len(buffer)


def is_mark(buffer: memoryview, at: int) -> bool:
    """Whether a header begins here, as far as the buffer goes."""
    rest = bytes(buffer[at : at + 4])
    return len(rest) > 0 and _PATTERN.startswith(rest)


def _marks(buffer: memoryview, limit: int) -> _Marks:
    words = np.frombuffer(buffer, "<u4", len(buffer) // 4)
    mark = np.flatnonzero(words[: limit // 4] == CPU_CHANGE_HEADER)
    mark = mark[mark + HEADER_BYTES // 4 <= len(words)]
    cpu, size = words.take(mark + 1), words.take(mark + 2)
    end = 4 * mark + HEADER_BYTES + size
    return _Marks(4 * mark, end, cpu.astype(np.int64), (cpu <= MAX_CPU) & (size & 3 == 0) & (end <= len(buffer)))


def _follow(buffer: memoryview, marks: _Marks, start: int, *, ended: bool) -> NDArray[np.int64]:
    rest = slice(int(np.searchsorted(marks.begin, start)), None)
    begin, end, cpu, good = marks.begin[rest], marks.end[rest], marks.cpu[rest], marks.good[rest]
    expected = np.append(start, end)[:-1]
    count = int(np.argmin(np.append(good & (begin == expected), False)))
    rows: Sequence[int] | slice = slice(count)
    if 0 < count < len(begin) and begin[count] < expected[count]:
        # A word of a payload looks like a mark.
        rows = _hops(begin, end, good)
    windows = np.stack((begin + HEADER_BYTES, end, cpu), axis=1)[rows]
    if len(windows):
        last = int(windows[-1, 1])
        if not is_mark(buffer, last) and not (ended and last == len(buffer)):
            return windows[:-1]
    return windows


def _hops(begin: NDArray[np.int64], end: NDArray[np.int64], good: NDArray[np.bool_]) -> list[int]:
    """The rows that are good and follow each other, from the first one on."""
    following = np.searchsorted(begin, end)
    follows = np.append(begin, -1)[following] == end
    rows, row = [], 0
    while good[row]:
        rows.append(row)
        if not follows[row]:
            break
        row = int(following[row])
    return rows

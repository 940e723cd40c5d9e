"""The record walk in NumPy: lanes in lock-step, one from the begin of every window, in long windows more from guesses.

A walk started inside a record falls onto the true chain within a few records; the few guesses that were wrong are
mended singly.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.parsers.event import CLASSES
from xtrace.words import HEADER_SHIFT, MAX_RECORD_WORDS, RECORD_WORDS, WORDS_OF, Offsets, Words

LANE_WORDS = 1024
SLAB_STEPS = 16


KNOWN_CLASS = np.zeros(1 << 16, np.bool_)
"""By the upper half of a header word: timestamped, and of a known class."""
for _class in CLASSES:
    KNOWN_CLASS[[0x8000 | words << 12 | _class for words in range(8)]] = True

_own = threading.local()


class Slab(NamedTuple):
    """SLAB_STEPS steps of the lanes that were under way; −1 and 0 where a lane had left its stretch.

    lane int64 (n), at int64 (steps, n), headers uint32 (steps, n)
    """

    lane: Offsets
    at: Offsets
    headers: Words


class _Room:
    """Memory that slabs are cut from one behind the other: all records together are one array without copying."""

    def __init__(self, size: int) -> None:
        self.at = np.empty(size, np.int64)
        self.headers = np.empty(size, np.uint32)
        self.used = 0

    def slab(self, lane: Offsets, steps: int) -> Slab:
        """A slab yet to be filled."""
        part = slice(self.used, self.used + steps * len(lane))
        self.used = part.stop
        return Slab(lane, self.at[part].reshape(steps, -1), self.headers[part].reshape(steps, -1))


class Lanes(NamedTuple):
    """A walk in lanes: base (where each begins), leave (where the chain goes on behind its stretch), slabs.

    Their memory is the thread's: valid until it walks again.
    """

    base: Offsets
    leave: Offsets
    slabs: list[Slab]
    room: _Room

    def fit(self, ends: Offsets) -> bool:
        """Whether the records of each window end where it does."""
        ends = ends[ends > 0]
        return bool(np.array_equal(self.leave[np.searchsorted(self.base, ends) - 1], ends))

    def records(self) -> tuple[Offsets, Words]:
        """Word offset and header of all records in no order; −1 and 0 where there is none."""
        return self.room.at[: self.room.used], self.room.headers[: self.room.used]

    def stamped(self, ends: Offsets) -> tuple[Offsets, Offsets]:
        """Offsets of the first and the last timestamped record of each window, −1 where it has none."""
        window = np.searchsorted(ends, self.base, side="right")
        never = np.iinfo(np.int64).max
        first, last = np.full(len(ends), never), np.full(len(ends), -1)
        found = self._outermost(self.slabs, 0)
        known = found >= 0
        np.minimum.at(first, window[known], found[known])
        np.maximum.at(last, window, self._outermost(self.slabs[::-1], -1))
        return np.where(first == never, -1, first), last

    def _outermost(self, slabs: list[Slab], place: int) -> Offsets:
        """Where the first timestamped record of each lane is (place 0, slabs in order) or the last (−1, reversed)."""
        found = np.full(len(self.base), -1)
        for slab in slabs:
            missing = found < 0
            if not missing.any():
                break
            column = np.flatnonzero(missing[slab.lane])
            if not len(column):
                continue
            if not place:
                # The slab of mended lanes names one several times: the last to be set stays.
                column = column[::-1]
            stamped = slab.headers[:, column] >> np.uint32(31) != 0
            row = np.argmax(stamped[::-1] if place else stamped, axis=0)
            row = len(stamped) - 1 - row if place else row
            has = stamped[row, np.arange(len(column))]
            found[slab.lane[column[has]]] = slab.at[row[has], column[has]]
        return found


def walk(words: Words, ends: Offsets) -> Lanes:
    """All records of `words`; ends: word offset behind each window, ascending."""
    base, guessed = _lane_bases(words, ends)
    stop = np.append(base, len(words))[1:]
    room = _room(2 * len(words) + SLAB_STEPS * len(base))
    leave = base.copy()
    slabs: list[Slab] = []
    lane, position, end = np.arange(len(base)), base, stop
    while len(lane):
        slab = room.slab(lane, SLAB_STEPS)
        slabs.append(slab)
        for at, header in zip(slab.at, slab.headers, strict=True):
            at[:] = position
            words.take(at, out=header, mode="clip")
            position = at + RECORD_WORDS.take(header >> HEADER_SHIFT)
        inside = position < end
        out = np.flatnonzero(~inside)
        if len(out):
            steps = np.vstack((slab.at[:, out], position[out]))
            over = steps >= end[out]
            leave[lane[out]] = steps[np.argmax(over, axis=0), np.arange(len(out))]
            slab.at[:, out] = np.where(over, -1, steps)[:-1]
            slab.headers[:, out] = np.where(over[:-1], 0, slab.headers[:, out])
            lane, position, end = lane[inside], position[inside], end[inside]
    lanes = Lanes(base, leave, slabs, room)
    _mend(words, lanes, stop, guessed)
    return lanes


def _room(size: int) -> _Room:
    """Room for so many records, the thread's own: new memory has its price."""
    room: _Room | None = getattr(_own, "room", None)
    if room is None or len(room.at) < size:
        room = _own.room = _Room(size)
    room.used = 0
    return room


def _lane_bases(words: Words, ends: Offsets) -> tuple[Offsets, NDArray[np.bool_]]:
    """Where the lanes begin, and which are guesses: in windows longer than a lane, on what looks like a record.

    That is a timestamped header of a known class whose record ends at another header of a known class.
    """
    begins = np.unique(np.append(0, ends))[:-1]
    stops = np.append(begins, len(words))[1:]
    grid = np.arange(LANE_WORDS, len(words) - MAX_RECORD_WORDS, LANE_WORDS)
    window = np.searchsorted(stops, grid, side="right")
    grid = grid[np.minimum(grid - begins[window], stops[window] - grid) >= max(LANE_WORDS // 2, MAX_RECORD_WORDS)]
    near = grid[:, None] + np.arange(MAX_RECORD_WORDS)
    header = words.take(near)
    following = words.take(near + RECORD_WORDS.take(header >> HEADER_SHIFT), mode="clip")
    likely = KNOWN_CLASS.take(header >> np.uint32(16)) & KNOWN_CLASS.take(following >> np.uint32(16))
    guesses = grid + np.argmax(likely, axis=1) if len(grid) else grid
    base = np.concatenate((begins, guesses))
    order = np.argsort(base)
    return base[order], order >= len(begins)


def _mend(words: Words, lanes: Lanes, stop: Offsets, guessed: NDArray[np.bool_]) -> None:
    """Make the lanes one chain: where a guess missed the chain from the lane before, follow that until they meet.

    Few guesses miss, and by few records: a plain loop over a memory view is faster here than arrays.
    """
    base, leave, slabs, room = lanes
    values = memoryview(words)  # type: ignore[arg-type]
    mended: dict[int, int] = {}
    owners: list[int] = []
    found: list[int] = []
    entries = np.append(-1, leave[:-1])
    for missed in np.flatnonzero(guessed & (entries != base)).tolist():
        lane = missed
        while lane < len(base) and guessed[lane] and lane not in mended and leave[lane - 1] != base[lane]:
            true, guess, end = int(leave[lane - 1]), int(base[lane]), int(stop[lane])
            while true != guess and true < end:
                if true < guess:
                    owners.append(lane)
                    found.append(true)
                    true += WORDS_OF[values[true] >> 28]
                else:
                    guess += WORDS_OF[values[guess] >> 28]
            mended[lane] = min(true, end)
            if true >= end:
                leave[lane] = true
            lane += 1
    if not mended:
        return
    since = np.zeros(len(base), np.int64)
    since[list(mended)] = list(mended.values())
    for slab in slabs:
        column = np.flatnonzero(slab.at[0] < since[slab.lane])
        if not len(column):
            break
        wrong = slab.at[:, column] < since[slab.lane[column]]
        step, place = np.nonzero(wrong)
        slab.at[step, column[place]] = -1
        slab.headers[step, column[place]] = 0
    # The first records of their lanes, so the first slab.
    slabs.insert(0, room.slab(np.array(owners, np.int64), 1))
    slabs[0].at[:] = found
    slabs[0].headers[:] = words.take(found)

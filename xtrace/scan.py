"""Words → records: where each begins, how many of each kind there are, and those that are wanted.

A record's length is in its header word, so finding the next one needs the one before: a serial walk. Two
engines do it behind the same functions. NumPy walks lanes in lock-step, one from the begin of every window and,
in long windows, more from guesses: a walk started inside a record falls onto the true chain within a few
records, and the few guesses that were wrong are mended singly. Numba, where the extra `fast` is installed,
compiles the plain loop. Both return the same arrays; `engine()` tells which one is in use.
"""

from __future__ import annotations

import importlib.util
import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from types import ModuleType

Words = NDArray[np.uint32]
Offsets = NDArray[np.int64]

MAX_RECORD_WORDS = 10
"""Header, two cycle words, seven payload words (xen/include/public/trace.h)."""

STATE_WORDS = 5
"""What is kept of the record that set a state: its header, two payload words, the two cycle words."""

SAMPLED = 16
LANE_WORDS = 1024
SLAB_STEPS = 16
HEADER_SHIFT = np.uint32(28)
RECORD_WORDS = np.array([1 + (top & 7) + 2 * (top >> 3) for top in range(16)], np.int64)
"""Length of a record in words by the four highest bits of its header."""

_RECORD_WORDS: list[int] = RECORD_WORDS.tolist()

KNOWN_CLASS = np.zeros(1 << 16, np.bool_)
"""By the upper half of a header word: timestamped, and of one of the classes of xen/include/public/trace.h."""
for _class in (0x001, 0x002, 0x004, 0x008, 0x010, 0x020, 0x040, 0x080, 0x800):
    KNOWN_CLASS[[0x8000 | words << 12 | _class for words in range(8)]] = True

HASH_BITS = 16
HASH_FACTOR = np.uint32(2654435761)
HASH_SHIFT = np.uint32(32 - HASH_BITS)

_own = threading.local()


class Interest(NamedTuple):
    """The records that `pick_records` looks for: arrays by kind of record, ascending by header word.

    header   uint32 (n)
    limit    int64 (n)   at most so many of a block are picked, its first; 0 where one only sets states
    subject  bool (n)    the states before each that is picked are wanted
    sets     uint8 (n)   the channels of states that it sets, a bit each
    place    int64 (n, channels, 2)  the two payload words that are kept of it in each channel that it sets
    """

    header: NDArray[np.uint32]
    limit: NDArray[np.int64]
    subject: NDArray[np.bool_]
    sets: NDArray[np.uint8]
    place: NDArray[np.int64]

    @property
    def channels(self) -> int:
        """How many channels of states there are."""
        return int(self.place.shape[1])


class Picks(NamedTuple):
    """What one pass over a block finds.

    headers, counts  uint32, int64   each distinct header word, ascending, and how many records bear it
    kept             uint32          the records that are picked, word for word, one behind the other
    at               int64           word offset in `kept` of each
    window           int64           the window of each
    state            uint32 (subjects, channels, STATE_WORDS)  by picked subject: for each channel header, the two
                                     payload words and the cycle count of the record that last set it before in the
                                     same window; zeros for none
    last_state       uint32 (windows, channels, STATE_WORDS)   the same at the end of each window
    first_tsc, last_tsc  uint64      by window: cycle counts of its first and last timestamped record, 0 for none
    """

    headers: NDArray[np.uint32]
    counts: NDArray[np.int64]
    kept: Words
    at: Offsets
    window: Offsets
    state: Words
    last_state: Words
    first_tsc: NDArray[np.uint64]
    last_tsc: NDArray[np.uint64]


def pick_records(words: Words, ends: Offsets, interest: Interest) -> Picks | None:
    """Count the records of `words` by header word and pick those of interest.

    ends: word offset behind each window of `words`, ascending, the last being `len(words)`; each window begins with a
    record. Returns None where the records of a window do not end where it does.
    """
    if _fast_module is not None:
        fits, found = _fast_module.pick_records(words, ends, interest)
        if not fits:
            return None
        if found is not None:
            return Picks(*found)
    lanes = _walk(words, ends)
    if not lanes.fit(ends):
        return None
    at, headers = lanes.records()
    distinct, counts, relevant, rows = _count_headers(headers, at, interest.header)
    # Few records matter: sort out those first, then by place.
    ordered = at[relevant] << HASH_BITS | rows
    ordered.sort()
    # Places without a record bear header 0, which may be wanted too.
    ordered = ordered[np.searchsorted(ordered, 0) :]
    at, row = ordered >> HASH_BITS, ordered & ((1 << HASH_BITS) - 1)
    chosen = np.flatnonzero((interest.limit > 0).take(row))
    for one in np.flatnonzero((interest.limit > 0) & (interest.limit < len(row))).tolist():
        surplus = np.flatnonzero(row[chosen] == one)[interest.limit[one] :]
        chosen = np.delete(chosen, surplus)
    picked = at[chosen]
    subject = picked[interest.subject.take(row[chosen])]
    sets = interest.sets.take(row)
    begins = np.concatenate(([0], ends[:-1]))
    begin = begins[np.searchsorted(ends, subject, side="right")]
    state = np.zeros((len(subject), interest.channels, STATE_WORDS), np.uint32)
    last_state = np.zeros((len(ends), interest.channels, STATE_WORDS), np.uint32)
    for channel in range(interest.channels):
        setters = at[np.flatnonzero(sets & np.uint8(1 << channel) != 0)]
        state[:, channel] = state_at(words, last_before(setters, subject, begin), interest, channel)
        last_state[:, channel] = state_at(words, last_before(setters, ends, begins), interest, channel)
    first, last = lanes.stamped(ends)
    return Picks(
        distinct,
        counts,
        *_copies(words, picked),
        np.searchsorted(ends, picked, side="right"),
        state,
        last_state,
        tsc_at(words, first),
        tsc_at(words, last),
    )


def record_starts(words: Words) -> Offsets:
    """Word offsets of every record of `words`, whose first word is a header; int64, ascending.

    The last record may reach past the end of `words`; the caller checks (`ends_at`).
    """
    if not len(words):
        return np.zeros(0, np.int64)
    at, _ = _walk(words, np.array([len(words)])).records()
    at.sort()
    return at[np.searchsorted(at, 0) :].copy()


def ends_at(words: Words, starts: Offsets) -> int:
    """Word offset behind the last record of `starts`: `len(words)` where the walk fits exactly."""
    if not len(starts):
        return 0
    last = int(starts[-1])
    return last + int(RECORD_WORDS[int(words[last]) >> 28])


def tsc_at(words: Words, at: Offsets) -> NDArray[np.uint64]:
    """Cycle counts of the timestamped records at these word offsets; 0 where the offset is negative."""
    if not len(words):
        return np.zeros(len(at), np.uint64)
    tsc = words.take(at + 2, mode="clip").astype(np.uint64)
    tsc <<= np.uint64(32)
    tsc |= words.take(at + 1, mode="clip")
    tsc[at < 0] = 0
    return tsc


def state_at(words: Words, at: Offsets, interest: Interest, channel: int) -> Words:
    """uint32 (n, STATE_WORDS): the states that the records at these word offsets set; zeros where it is negative."""
    state = np.zeros((len(at), STATE_WORDS), np.uint32)
    known = np.flatnonzero(at >= 0)
    if len(known):
        at = at[known]
        place = interest.place[np.searchsorted(interest.header, words[at]), channel]
        source = np.stack((at, at + 3 + place[:, 0], at + 3 + place[:, 1], at + 1, at + 2), axis=1)
        state[known] = words.take(source, mode="clip")
    return state


def last_before(noted: Offsets, at: Offsets, begin: Offsets) -> Offsets:
    """The last of `noted` in each range `begin`…`at`, −1 where there is none."""
    if not len(noted):
        return np.full(len(at), -1)
    index = np.searchsorted(noted, at) - 1
    found = noted[np.maximum(index, 0)]
    return np.where((index < 0) | (found < begin), -1, found)


def _copies(words: Words, at: Offsets) -> tuple[Words, Offsets]:
    """The records at these word offsets one behind the other, and where each begins there."""
    length = RECORD_WORDS.take(words.take(at) >> HEADER_SHIFT)
    stop = np.cumsum(length)
    start = stop - length
    source = np.repeat(at - start, length)
    source += np.arange(len(source))
    return words.take(source), start


def _count_headers(
    headers: Words, at: Offsets, interest: NDArray[np.uint32]
) -> tuple[NDArray[np.uint32], NDArray[np.int64], Offsets, Offsets]:
    """Distinct header words, ascending, how often each occurs, which records are of interest, and their places in it.

    Where `at` is negative there is no record and the header is 0.
    """
    slots = (headers * HASH_FACTOR >> HASH_SHIFT).astype(np.intp)
    if (owner := _owners(headers, slots)) is not None:
        counts = np.bincount(slots, minlength=1 << HASH_BITS)
        used = np.flatnonzero(counts)
        distinct, counts = owner[used], counts[used]
        order = np.argsort(distinct)
        distinct, counts = distinct[order], counts[order]
        place = np.zeros(1 << HASH_BITS, np.int64)
        known = np.isin(interest, distinct)
        mine = (interest[known] * HASH_FACTOR >> HASH_SHIFT).astype(np.intp)
        place[mine] = np.flatnonzero(known)
        wanted = np.zeros(1 << HASH_BITS, np.bool_)
        wanted[mine] = True
        relevant = np.flatnonzero(wanted.take(slots))
        rows = place.take(slots[relevant])
    else:
        # Two headers share a slot. Only hostile input has thousands of them, and sorting serves it as well.
        distinct, counts = np.unique(headers, return_counts=True)
        relevant = np.flatnonzero(np.isin(headers, interest))
        rows = np.searchsorted(interest, headers[relevant])
    if len(distinct) and distinct[0] == 0:
        counts[0] -= np.count_nonzero(at < 0)
        if not counts[0]:
            distinct, counts = distinct[1:], counts[1:]
    return distinct, counts, relevant, rows


def _owners(headers: Words, slots: Offsets) -> Words | None:
    """The header word in each slot, None where two share one."""
    owner = np.zeros(1 << HASH_BITS, np.uint32)
    # A sample meets nearly all kinds.
    owner[slots[::SAMPLED]] = headers[::SAMPLED]
    missed = np.flatnonzero(owner.take(slots) != headers)
    late, theirs = headers[missed], slots[missed]
    # An empty slot reads as header 0, whose own is slot 0.
    free = (owner[theirs] == 0) & (theirs > 0)
    owner[theirs] = late
    return owner if free.all() and np.array_equal(owner[theirs], late) else None


class _Slab(NamedTuple):
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

    def slab(self, lane: Offsets, steps: int) -> _Slab:
        """A slab yet to be filled."""
        part = slice(self.used, self.used + steps * len(lane))
        self.used = part.stop
        return _Slab(lane, self.at[part].reshape(steps, -1), self.headers[part].reshape(steps, -1))


class _Lanes(NamedTuple):
    """A walk in lanes: base (where each begins), leave (where the chain goes on behind its stretch), slabs.

    Their memory is the thread's: valid until it walks again.
    """

    base: Offsets
    leave: Offsets
    slabs: list[_Slab]
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

    def _outermost(self, slabs: list[_Slab], place: int) -> Offsets:
        """Where the first timestamped record of each lane is (place 0, slabs in order) or the last (−1, reversed)."""
        found = np.full(len(self.base), -1)
        open_lanes = len(found)
        for slab in slabs:
            column = np.flatnonzero(found[slab.lane] < 0)
            if not len(column):
                if not open_lanes:
                    break
                continue
            if not place:
                # The slab of mended lanes names one several times: the last to be set stays.
                column = column[::-1]
            stamped = slab.headers[:, column] >> np.uint32(31) != 0
            row = np.argmax(stamped[::-1] if place else stamped, axis=0)
            row = len(stamped) - 1 - row if place else row
            has = stamped[row, np.arange(len(column))]
            found[slab.lane[column[has]]] = slab.at[row[has], column[has]]
            open_lanes = int(np.count_nonzero(found < 0))
        return found


def _walk(words: Words, ends: Offsets) -> _Lanes:
    base, guessed = _lane_bases(words, ends)
    stop = np.append(base, len(words))[1:]
    room = _room(2 * len(words) + SLAB_STEPS * len(base))
    leave = base.copy()
    slabs: list[_Slab] = []
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
    lanes = _Lanes(base, leave, slabs, room)
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


def _mend(words: Words, lanes: _Lanes, stop: Offsets, guessed: NDArray[np.bool_]) -> None:
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
                    true += _RECORD_WORDS[values[true] >> 28]
                else:
                    guess += _RECORD_WORDS[values[guess] >> 28]
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


_fast_module: ModuleType | None = None


def use_fast(wanted: bool) -> bool:
    """Switch to the Numba engine where it is installed (or back); returns whether it is now in use.

    Loading Numba takes a fifth of a second, so only work large enough to repay that asks for it.
    """
    global _fast_module
    _fast_module = None
    if wanted and importlib.util.find_spec("numba") is not None:
        from xtrace import scan_numba

        _fast_module = scan_numba
    return _fast_module is not None


def engine() -> str:
    """`numba` or `numpy`."""
    return "numpy" if _fast_module is None else "numba"

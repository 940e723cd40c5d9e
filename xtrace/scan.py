"""The record walk: where each record of a run of 32-bit words begins.

A record's length is in its header word, so finding the next one needs the one before: a serial walk. Two
engines do it behind the same functions. NumPy walks speculative lanes in lock-step: a walker started inside a
record falls onto the true chain within a few records, so many walkers cover a block together and the few
joints that do not meet are walked singly. Numba, where the extra `fast` is installed, compiles the plain
loop. Both return the same arrays; `engine()` tells which one is in use.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from types import ModuleType

Words = NDArray[np.uint32]
Offsets = NDArray[np.int64]

MAX_RECORD_WORDS = 10
"""Header, two cycle words, seven payload words (xen/include/public/trace.h)."""

LANE_WORDS = 512
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


def record_starts(words: Words) -> Offsets:
    """Word offsets of every record of `words`, whose first word is a header; int64, ascending.

    The last record may reach past the end of `words`; the caller checks (`ends_at`).
    """
    total = len(words)
    if not total:
        return np.zeros(0, np.int64)
    base = _lane_bases(words)
    stop = np.append(base[1:], total)
    mark = np.zeros(total, np.bool_)
    leave = _walk_lanes(words, base, stop, mark)
    _join_lanes(words, base, stop, mark, leave)
    return np.flatnonzero(mark)


def _lane_bases(words: Words) -> Offsets:
    """Where the lanes begin: near every LANE_WORDS-th word, on what looks like a record where one is in sight.

    A likely start is a timestamped header of a known class whose record ends at another header of a known
    class. Guesses may be wrong; good ones spare the joining of lanes.
    """
    grid = np.arange(0, len(words), LANE_WORDS)
    if len(grid) < 3:
        return grid
    inner = grid[1:-1]
    near = inner[:, None] + np.arange(MAX_RECORD_WORDS)
    header = words.take(near)
    following = words.take(near + RECORD_WORDS.take(header >> HEADER_SHIFT), mode="clip")
    likely = KNOWN_CLASS.take(header >> np.uint32(16)) & KNOWN_CLASS.take(following >> np.uint32(16))
    grid[1:-1] += np.argmax(likely, axis=1)
    return grid


def ends_at(words: Words, starts: Offsets) -> int:
    """Word offset behind the last record of `starts`: `len(words)` where the walk fits exactly."""
    if not len(starts):
        return 0
    last = int(starts[-1])
    return last + int(RECORD_WORDS[int(words[last]) >> 28])


def _walk_lanes(words: Words, base: Offsets, stop: Offsets, mark: NDArray[np.bool_]) -> Offsets:
    """Walk every lane from a guess, marking what it visits; returns where each lane left its stretch."""
    leave = base.copy()
    position = base.copy()
    # No record is longer than ten words, so no lane can leave its stretch within this many steps.
    shortest = int((stop - base)[:-1].min()) if len(base) > 1 else 0
    ahead = position[:-1]
    for _ in range(max(0, (shortest - 1) // MAX_RECORD_WORDS)):
        mark[ahead] = True
        ahead += RECORD_WORDS.take(words.take(ahead) >> HEADER_SHIFT)
    lane = np.arange(len(base))
    end = stop
    while position.size:
        mark[position] = True
        position = position + RECORD_WORDS.take(words.take(position) >> HEADER_SHIFT)
        inside = position < end
        if not inside.all():
            outside = ~inside
            leave[lane[outside]] = position[outside]
            lane, position, end = lane[inside], position[inside], end[inside]
    return leave


def _join_lanes(words: Words, base: Offsets, stop: Offsets, mark: NDArray[np.bool_], leave: Offsets) -> None:
    """Make `mark` the one true chain: where a lane's trail misses the entry from the lane before, walk it.

    The marks of a lane are one chain at any time, so a walk that meets one of them need go no further. A walk
    that leaves its lane without meeting gives the next lane another entry. Few lanes miss, and by few records:
    a plain loop over memory views is faster here than arrays.
    """
    total = len(words)
    enter = np.concatenate(([0], leave[:-1]))
    value, marked = memoryview(words), memoryview(mark)  # type: ignore[arg-type]
    done = -1
    for missed in np.flatnonzero((enter < total) & ~mark[np.minimum(enter, total - 1)]).tolist():
        lane, position = missed, int(enter[missed])
        while lane > done and position < total and not marked[position]:
            first, end, visited = position, int(stop[lane]), []
            while position < end and not marked[position]:
                visited.append(position)
                position += _RECORD_WORDS[value[position] >> 28]
            mark[base[lane] : min(position, end)] = False
            mark[visited] = True
            enter[lane] = first
            done = lane
            if position >= end and lane + 1 < len(base):
                lane += 1
                enter[lane] = position
    early = base[:, None] + np.arange(MAX_RECORD_WORDS - 1)
    mark[early[early < np.minimum(enter, total)[:, None]]] = False


class Picks(NamedTuple):
    """What one pass over a block finds.

    headers, counts  uint32, int64   each distinct header word and how many records bear it
    picked           int64           word offsets of the records whose header is of interest, ascending
    state            int64           (channels, picked): word offset of the last record of each channel of states
                                     before it in its window, or −1
    first, last      int64           for each window, word offset of its first and last timestamped record, or −1
    last_state       int64           (channels, windows): word offset of the last such record of each window, or −1
    end              int             word offset behind the last record
    """

    headers: NDArray[np.uint32]
    counts: NDArray[np.int64]
    picked: Offsets
    state: Offsets
    first: Offsets
    last: Offsets
    last_state: Offsets
    end: int


def pick_records(
    words: Words, ends: Offsets, interest: NDArray[np.uint32], states: Sequence[NDArray[np.uint32]]
) -> Picks:
    """Count the records of `words` by header word and find those whose header is in `interest`.

    ends: word offset behind each window of `words`, ascending, the last being `len(words)`. states: channels of
    headers of records that are noted with those picked after them.
    """
    if _fast_module is not None:
        found = _fast_module.pick_records(words, ends, interest, states)
        if found is not None:
            return Picks(*found)
    starts = record_starts(words)
    headers = words.take(starts)
    distinct, counts, owner, slots = count_headers(headers)
    if slots is None:
        picked = starts[np.isin(headers, interest)]
        noted = [starts[np.isin(headers, channel)] for channel in states]
    else:
        kind = np.isin(owner, interest).astype(np.uint8)
        for place, channel in enumerate(states):
            kind |= np.isin(owner, channel).astype(np.uint8) << np.uint8(1 + place)
        kinds = kind.take(slots)
        # Few records matter: sort out those first.
        relevant = np.flatnonzero(kinds)
        kinds, at = kinds[relevant], starts[relevant]
        picked = at[kinds & 1 != 0]
        noted = [at[kinds & (2 << place) != 0] for place in range(len(states))]
    first, last = _stamped_ends(headers, starts, ends)
    begins = np.concatenate(([0], ends[:-1]))
    begin = begins[np.searchsorted(ends, picked, side="right") % len(ends)]
    state = np.empty((len(states), len(picked)), np.int64)
    last_state = np.empty((len(states), len(ends)), np.int64)
    for place, channel_starts in enumerate(noted):
        state[place] = last_before(channel_starts, picked, begin)
        last_state[place] = last_before(channel_starts, ends, begins)
    return Picks(distinct, counts, picked, state, first, last, last_state, ends_at(words, starts))


def last_before(noted: Offsets, at: Offsets, begin: Offsets) -> Offsets:
    """The last of `noted` in each range `begin`…`at`, −1 where there is none."""
    if not len(noted):
        return np.full(len(at), -1)
    index = np.searchsorted(noted, at) - 1
    found = noted[np.maximum(index, 0)]
    return np.where((index < 0) | (found < begin), -1, found)


def count_headers(
    headers: Words,
) -> tuple[NDArray[np.uint32], NDArray[np.int64], Words, NDArray[np.uint32] | None]:
    """Distinct header words, ascending, and how often each occurs; and the hash table that counted them.

    The table is the header in each slot, and the slot of each record (None where two headers share one).
    """
    slots = headers * HASH_FACTOR >> HASH_SHIFT
    counts = np.bincount(slots, minlength=1 << HASH_BITS)
    owner = np.zeros(1 << HASH_BITS, np.uint32)
    owner[slots] = headers
    if not np.array_equal(owner.take(slots), headers):
        # Only hostile input has thousands of distinct headers, and sorting serves it as well.
        distinct, exact = np.unique(headers, return_counts=True)
        return distinct, exact.astype(np.int64), owner, None
    used = np.flatnonzero(counts)
    order = np.argsort(owner[used])
    return owner[used][order], counts[used][order], owner, slots


def _stamped_ends(headers: Words, starts: Offsets, ends: Offsets) -> tuple[Offsets, Offsets]:
    """Offsets of the first and the last timestamped record of each window, −1 where it has none."""
    if not len(starts):
        return np.full(len(ends), -1), np.full(len(ends), -1)
    stop = np.searchsorted(starts, ends)
    start = np.concatenate(([0], stop[:-1]))
    first, last = start.copy(), stop - 1
    stamped = headers >> np.uint32(31) != 0
    for step, index in ((1, first), (-1, last)):
        while True:
            live = (index >= start) & (index < stop)
            off = live.copy()
            off[live] = ~stamped[index[live]]
            if not off.any():
                break
            index[off] += step
    none = first >= stop
    return (
        np.where(none, -1, starts[np.minimum(first, len(starts) - 1)]),
        np.where(none, -1, starts[np.maximum(last, 0)]),
    )


_fast_module: ModuleType | None = None


def use_fast(wanted: bool) -> bool:
    """Switch to the Numba engine where it is installed (or back); returns whether it is now in use.

    Loading Numba takes a third of a second, so only work large enough to repay that asks for it.
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

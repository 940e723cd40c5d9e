"""Words → records: where each begins, how many of each kind there are, and those that are wanted.

A record's length is in its header word, so finding the next one needs the one before: a serial walk. Two
engines do it behind the same functions: NumPy (`lanes`), and Numba, which compiles the plain loop (`scan_numba`),
where the extra `fast` is installed. Both return the same arrays; `engine()` tells which one is in use.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.lanes import walk
from xtrace.words import HEADER_SHIFT, RECORD_WORDS, Offsets, Words, tsc_at

if TYPE_CHECKING:
    from types import ModuleType

STATE_WORDS = 5
"""What is kept of the record that set a state: its header, two payload words, the two cycle words."""

HASH_BITS = 16
HASH_FACTOR = np.uint32(2654435761)
HASH_SHIFT = np.uint32(32 - HASH_BITS)
SAMPLED = 16
"""One header in so many is looked at first, to learn which there are."""


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
    lanes = walk(words, ends)
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
    at, _ = walk(words, np.array([len(words)])).records()
    at.sort()
    return at[np.searchsorted(at, 0) :].copy()


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
    slots = _slots(headers)
    if (owner := _owners(headers, slots)) is not None:
        counts = np.bincount(slots, minlength=1 << HASH_BITS)
        used = np.flatnonzero(counts)
        distinct, counts = owner[used], counts[used]
        order = np.argsort(distinct)
        distinct, counts = distinct[order], counts[order]
        # What is not there must not claim another's slot.
        present = np.flatnonzero(np.isin(interest, distinct))
        place = np.full(1 << HASH_BITS, -1)
        place[_slots(interest[present])] = present
        relevant = np.flatnonzero((place >= 0).take(slots))
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


def _slots(headers: Words) -> Offsets:
    return (headers * HASH_FACTOR >> HASH_SHIFT).astype(np.intp)


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

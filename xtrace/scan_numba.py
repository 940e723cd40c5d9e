"""The record walk compiled by Numba: what `scan.py` does, as one plain loop that holds no lock."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from xtrace.scan import STATE_WORDS

if TYPE_CHECKING:
    from xtrace.scan import Interest

TABLE_BITS: Final = 12
TABLE_SLOTS: Final = 1 << TABLE_BITS
LINE_WORDS: Final = 16
AHEAD_WORDS: Final = 256
SLOT_MASK = np.uint32(TABLE_SLOTS - 1)
FACTOR = np.uint32(2654435761)
SHIFT = np.uint32(32 - TABLE_BITS)

FITS, MISFIT, FULL = range(3)

_own = threading.local()


@numba.njit(nogil=True, cache=True)
def _slot(header, keys, counts):  # type: ignore[no-untyped-def]
    """Where a header stands in the open-addressed table, or may be put."""
    slot = np.uint32(header * FACTOR) >> SHIFT
    while keys[slot] != header and counts[slot] != 0:
        slot = (slot + np.uint32(1)) & SLOT_MASK
    return slot


@numba.njit(nogil=True, cache=True)
def _pick(  # type: ignore[no-untyped-def]
    words, ends, header, limit, subject, sets, place, keys, counts, kept, at, window, state, last_state, tsc
):
    """Fill the table of headers and the arrays of `scan.Picks`.

    Returns FITS, MISFIT or FULL, how many words were kept, records picked and subjects among them, and a number that
    means nothing.
    """
    channels = place.shape[1]
    # By slot: row of `header` if the record needs more than counting, and the one channel that it sets.
    row_of = np.full(TABLE_SLOTS, -1, np.int64)
    special = np.zeros(TABLE_SLOTS, np.bool_)
    channel_of = np.full(TABLE_SLOTS, channels, np.int64)
    left = limit.copy()
    # The last one takes what every other record "sets": cheaper than asking.
    current = np.full(channels + 1, -1, np.int64)
    used = 0
    size = np.int64(0)
    picked = 0
    subjects = 0
    position = np.int64(0)
    warm = 0
    touched = np.uint32(0)
    for number in range(len(ends)):
        end = ends[number]
        current[:] = -1
        first = np.int64(-1)
        last = np.int64(-1)
        while position < end:
            if position >= warm:
                # The next header's place waits for this one to come from memory: ask for some lines at once.
                for line in range(warm, min(warm + AHEAD_WORDS, len(words)), LINE_WORDS):
                    touched ^= words[line]
                warm += AHEAD_WORDS
            head = words[position]
            slot = _slot(head, keys, counts)
            if counts[slot] == 0:
                used += 1
                if used == TABLE_SLOTS:
                    return FULL, size, picked, subjects, touched
                keys[slot] = head
                for match in range(len(header)):
                    if header[match] == head:
                        row_of[slot] = match
                        several = 0
                        for channel in range(channels):
                            if sets[match] >> channel & 1:
                                channel_of[slot] = channel
                                several += 1
                        if several > 1:
                            channel_of[slot] = channels
                        special[slot] = limit[match] > 0 or several > 1
            counts[slot] += 1
            length = np.int64(1) + np.int64((head >> np.uint32(28)) & np.uint32(7))
            if head >> np.uint32(31):
                length += 2
                last = position
                if first < 0:
                    first = position
            if position + length > end:
                return MISFIT, size, picked, subjects, touched
            if special[slot]:
                row = row_of[slot]
                if left[row] > 0:
                    left[row] -= 1
                    if subject[row]:
                        _note(words, current, channels, keys, counts, row_of, place, state[subjects])
                        subjects += 1
                    at[picked] = size
                    window[picked] = number
                    picked += 1
                    for step in range(length):
                        kept[size + step] = words[position + step]
                    size += length
                    if left[row] == 0 and channel_of[slot] < channels:
                        special[slot] = False
                for channel in range(channels):
                    if sets[row] >> channel & 1:
                        current[channel] = position
            current[channel_of[slot]] = position
            position += length
        _note(words, current, channels, keys, counts, row_of, place, last_state[number])
        if first >= 0:
            tsc[0, number] = np.uint64(words[first + 2]) << np.uint64(32) | np.uint64(words[first + 1])
            tsc[1, number] = np.uint64(words[last + 2]) << np.uint64(32) | np.uint64(words[last + 1])
    return FITS, size, picked, subjects, touched


@numba.njit(nogil=True, cache=True)
def _note(words, current, channels, keys, counts, row_of, place, state):  # type: ignore[no-untyped-def]
    """Fill `state` with the records that set each channel last."""
    for channel in range(channels):
        position = current[channel]
        if position < 0:
            state[channel, :] = 0
            continue
        row = row_of[_slot(words[position], keys, counts)]
        state[channel, 0] = words[position]
        state[channel, 1] = words[position + 3 + place[row, channel, 0]]
        state[channel, 2] = words[position + 3 + place[row, channel, 1]]
        state[channel, 3] = words[position + 1]
        state[channel, 4] = words[position + 2]


def pick_records(
    words: NDArray[np.uint32], ends: NDArray[np.int64], interest: Interest
) -> tuple[bool, tuple[Any, ...] | None]:
    """As `scan.pick_records`: whether the records fit, and the picks.

    These are None where there are more distinct headers than the table holds.
    """
    keys = np.zeros(TABLE_SLOTS, np.uint32)
    counts = np.zeros(TABLE_SLOTS, np.int64)
    tsc = np.zeros((2, len(ends)), np.uint64)
    last_state = np.empty((len(ends), interest.channels, STATE_WORDS), np.uint32)
    kept, at, window, state = _room(len(words), interest.channels)
    result, size, picked, subjects, _ = _pick(
        words, ends, *interest, keys, counts, kept, at, window, state, last_state, tsc
    )
    if result != FITS:
        return result == FULL, None
    used = np.flatnonzero(counts)
    order = np.argsort(keys[used])
    return True, (
        keys[used][order],
        counts[used][order],
        kept[:size].copy(),
        at[:picked].copy(),
        window[:picked].copy(),
        state[:subjects].copy(),
        last_state,
        *tsc,
    )


def _room(words: int, channels: int) -> tuple[NDArray[Any], ...]:
    """Arrays for the most that a block of so many words can give, the thread's own: new memory has its price."""
    room: tuple[NDArray[Any], ...] = getattr(_own, "room", ())
    if not room or len(room[0]) < words or room[3].shape[1] != channels:
        room = _own.room = (
            np.empty(words, np.uint32),
            np.empty(words, np.int64),
            np.empty(words, np.int64),
            np.empty((words, channels, STATE_WORDS), np.uint32),
        )
    return room

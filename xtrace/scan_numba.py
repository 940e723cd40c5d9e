"""The record walk compiled by Numba: what `scan.py` does, as one plain loop that holds no lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

TABLE_BITS = 12
TABLE_SLOTS = 1 << TABLE_BITS
SLOT_MASK = np.uint32(TABLE_SLOTS - 1)
FACTOR = np.uint32(2654435761)
SHIFT = np.uint32(32 - TABLE_BITS)


@numba.njit(nogil=True, cache=True)
def _pick(words, ends, interest, noted, channel, keys, counts, kinds, picked, state, first, last, last_state):  # type: ignore[no-untyped-def]
    """Fill the open-addressed table of headers and the arrays of `scan.Picks`.

    Returns the number of records picked and the end of the last record, −1 where the table is full.
    """
    position = np.int64(0)
    found = 0
    used = 0
    window = 0
    while position < len(words):
        header = words[position]
        slot = np.uint32(header * FACTOR) >> SHIFT
        while counts[slot] != 0 and keys[slot] != header:
            slot = (slot + np.uint32(1)) & SLOT_MASK
        if counts[slot] == 0:
            used += 1
            if used == TABLE_SLOTS:
                return found, np.int64(-1)
            keys[slot] = header
            kinds[slot] = 0
            for place in range(len(noted)):
                if noted[place] == header:
                    kinds[slot] |= 2 << channel[place]
            for one in interest:
                if one == header:
                    kinds[slot] |= 1
        counts[slot] += 1
        while position >= ends[window]:
            window += 1
        if kinds[slot] & 1:
            picked[found] = position
            for place in range(len(last_state)):
                state[place, found] = last_state[place, window]
            found += 1
        if kinds[slot] > 1:
            for place in range(len(last_state)):
                if kinds[slot] & 2 << place:
                    last_state[place, window] = position
        if header >> np.uint32(31):
            if first[window] < 0:
                first[window] = position
            last[window] = position
            position += 2
        position += np.int64(1) + np.int64((header >> np.uint32(28)) & np.uint32(7))
    return found, position


def pick_records(
    words: NDArray[np.uint32],
    ends: NDArray[np.int64],
    interest: NDArray[np.uint32],
    states: Sequence[NDArray[np.uint32]],
) -> tuple[Any, ...] | None:
    """As `scan.pick_records`; None where there are more distinct headers than the table holds."""
    keys = np.empty(TABLE_SLOTS, np.uint32)
    counts = np.zeros(TABLE_SLOTS, np.int64)
    kinds = np.zeros(TABLE_SLOTS, np.uint8)
    picked = np.empty(len(words), np.int64)
    state = np.empty((len(states), len(words)), np.int64)
    first, last = np.full((2, len(ends)), -1, np.int64)
    last_state = np.full((len(states), len(ends)), -1, np.int64)
    noted = np.concatenate([np.zeros(0, np.uint32), *states])
    channel = np.repeat(np.arange(len(states), dtype=np.uint8), [len(one) for one in states])
    found, end = _pick(
        words, ends, interest, noted, channel, keys, counts, kinds, picked, state, first, last, last_state
    )
    if end < 0:
        return None
    used = np.flatnonzero(counts)
    order = np.argsort(keys[used])
    return (
        keys[used][order],
        counts[used][order],
        picked[:found].copy(),
        state[:, :found].copy(),
        first,
        last,
        last_state,
        end,
    )

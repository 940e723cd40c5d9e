"""States that records set and that last: who occupies a CPU, whether it is inside a guest.

A channel is a set of records of which the last one on a CPU tells the state there. The walk notes, for each subject
that it picks, the last record of each channel before it in its window (`scan.pick_records`); here is how that crosses
windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from xtrace.words import Offsets, Words

TRACK_BITS: Final = 14
"""A track is a CPU in a capture, one stream of records: capture << TRACK_BITS | CPU."""

Channel = Mapping[int, tuple[int, int]]
"""Header words of timestamped records, and which two payload words of each matter."""


def cpu_of(track: NDArray[Any]) -> NDArray[Any]:
    """The CPU of each track, of the dtype given."""
    cpu: NDArray[Any] = track & ((1 << TRACK_BITS) - 1)
    return cpu


STATE: Final = np.dtype([("header", "<u4"), ("first", "<u4"), ("second", "<u4"), ("tsc", "<u8")])
"""The STATE_WORDS that `scan.pick_records` keeps of the record that set a state; header 0: none yet."""

States = NDArray[Any]
"""An array of STATE, one column a channel where there are two dimensions."""


def states(words: Words) -> States:
    """The same memory, uint32 (…, STATE_WORDS), as STATE (…)."""
    return np.ascontiguousarray(words).view(STATE)[..., 0]


class Tracks:
    """The windows of a block, in input order, and which of them come before which on the same track."""

    def __init__(self, track: NDArray[Any]) -> None:
        self.track = track
        self.cpu = cpu_of(track)
        self._order = np.argsort(track, kind="stable")
        owner = track[self._order]
        first = np.append(True, owner[1:] != owner[:-1])[: len(owner)]
        self._begins = np.flatnonzero(first)
        self._group = np.cumsum(first) - 1
        self._place = np.empty(len(track), np.int64)
        self._place[self._order] = np.arange(len(track))

    def latest(self, known: NDArray[np.bool_], rows: Offsets) -> tuple[Offsets, Offsets]:
        """The last `known` window before each of `rows` on its track, −1 for none; and the last one of each track."""
        held = np.maximum.accumulate(np.where(known[self._order], np.arange(len(known)), -1))
        place = self._place[rows]
        begin = self._begins[self._group[place]]
        found = np.append(-1, held)[place]
        last = np.append(held, -1)[np.append(self._begins[1:], len(known)) - 1]
        last = last[last >= self._begins]
        return np.where(found >= begin, self._order[found], -1), self._order[last]


class Carry:
    """The last value of each CPU in earlier windows of the same capture: arrays of a kind and shape."""

    def __init__(self, kind: Any, *shape: int) -> None:
        self._last = np.zeros((1 << TRACK_BITS, *shape), kind)
        self._track = np.full(1 << TRACK_BITS, -1, np.int64)

    def clear(self) -> None:
        """Forget everything."""
        self._track[:] = -1

    def before(self, tracks: Tracks, value: NDArray[Any], known: NDArray[np.bool_], rows: Offsets) -> NDArray[Any]:
        """Of each of these windows, the last known value of an earlier window of its track; zero for none.

        value, known: by window of the block, which are then remembered.
        """
        source, last = tracks.latest(known, rows)
        found = np.zeros((len(rows), *value.shape[1:]), value.dtype)
        inside = source >= 0
        found[inside] = value[source[inside]]
        cpu = tracks.cpu[rows]
        older = ~inside & (self._track[cpu] == tracks.track[rows])
        found[older] = self._last[cpu[older]]
        cpu = tracks.cpu[last]
        self._last[cpu], self._track[cpu] = value[last], tracks.track[last]
        return found

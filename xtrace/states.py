"""States that records set and that last: who occupies a CPU, whether it is inside a guest.

A channel is a set of records of which the last one on a CPU tells the state there. The walk notes, for each record
of interest, the last record of each channel before it (`scan.pick_records`); here is what is kept of those, and how
it crosses windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from xtrace.scan import Offsets, Words

TRACK_BITS: Final = 14
"""A track is a CPU in a capture, one stream of records: capture << TRACK_BITS | CPU."""

Channel = Mapping[int, tuple[int, int]]
"""Header words of timestamped records, and which two payload words of each matter."""


def cpu_of(track: NDArray[Any]) -> NDArray[Any]:
    """The CPU of each track, of the dtype given."""
    cpu: NDArray[Any] = track & ((1 << TRACK_BITS) - 1)
    return cpu


STATE: Final = np.dtype([("header", "<u4"), ("first", "<u4"), ("second", "<u4"), ("tsc", "<u8")])
"""The record that set a state: its header (0: none yet), its two words that matter, its timestamp."""

States = NDArray[Any]
"""An array of STATE, one column a channel where there are two dimensions."""


def tsc_at(words: Words, at: Offsets) -> NDArray[np.uint64]:
    """Cycle counts of the timestamped records at these word offsets; 0 where the offset is negative."""
    low = words.take(at + 1, mode="clip").astype(np.uint64)
    high = words.take(at + 2, mode="clip").astype(np.uint64)
    return np.where(at < 0, np.uint64(0), high << np.uint64(32) | low)


def state_at(words: Words, at: Offsets, channel: Channel) -> States:
    """The states that the records at these word offsets set; zeros where the offset is negative."""
    state = np.zeros(len(at), STATE)
    known = np.flatnonzero(at >= 0)
    if not len(known):
        return state
    at = at[known]
    headers = np.array(sorted(channel), np.uint32)
    position = np.array([channel[header] for header in headers.tolist()])[np.searchsorted(headers, words[at])]
    state["header"][known] = words[at]
    state["first"][known] = words.take(at + 3 + position[:, 0], mode="clip")
    state["second"][known] = words.take(at + 3 + position[:, 1], mode="clip")
    state["tsc"][known] = tsc_at(words, at)
    return state


class Carry:
    """The last value of each CPU in earlier windows of the same capture."""

    def __init__(self, kind: Any) -> None:
        self._last = np.zeros(1 << TRACK_BITS, kind)
        self._track = np.full(1 << TRACK_BITS, -1, np.int64)

    def clear(self) -> None:
        """Forget everything."""
        self._track[:] = -1

    def before(self, track: NDArray[Any], value: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
        """For each window, in input order, the last known value of an earlier window of its track; zero for none."""
        order = np.argsort(track, kind="stable")
        owner, held = track[order], known[order]
        cpu = cpu_of(owner)
        latest = np.maximum.accumulate(np.where(held, np.arange(len(order)), -1))
        previous = np.concatenate(([-1], latest[:-1]))
        inside = previous >= np.searchsorted(owner, owner)
        result = self._last[cpu]
        result[self._track[cpu] != owner] = np.zeros((), result.dtype)
        result[inside] = value[order][previous[inside]]
        self._last[cpu[held]], self._track[cpu[held]] = value[order][held], owner[held]
        found: NDArray[Any] = np.empty_like(result)
        found[order] = result
        return found

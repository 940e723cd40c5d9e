"""Who held a place when: a lock, or a CPU that runs functions for others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.grouping import rows_by

Index = NDArray[np.int64]

CHUNK: Final = 1 << 20
"""Overlaps that are in memory at a time; those of one wait stay together."""


class Overlaps(NamedTuple):
    """Times of waits in which others held the place, ordered by wait and time.

    wait   int64   row of the wait
    owner  int64   who held the place
    ns     int64   for how long of the wait, more than 0
    """

    wait: Index
    owner: Index
    ns: Index


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Spans by place and begin, all int64; at one place none overlaps another.

    place       not negative
    begin, end  ns
    owner       what the span belongs to
    """

    place: Index
    begin: Index
    end: Index
    owner: Index

    @classmethod
    def of(cls, place: Index, begin: Index, end: Index, owner: Index) -> Occupancy:
        """Of spans in any order; one that reaches into the next of its place ends there."""
        order = np.lexsort((end, begin, place))
        place, begin, end, owner = (values[order] for values in (place, begin, end, owner))
        end = np.maximum(begin, end)
        same = place[1:] == place[:-1]
        end[:-1] = np.where(same, np.minimum(end[:-1], begin[1:]), end[:-1])
        return cls(place, begin, end, owner)

    def during(self, place: Index, begin: Index, end: Index) -> Iterator[Overlaps]:
        """Who held these places in these times, as many waits at a time as fit in CHUNK."""
        first, count = np.zeros((2, len(place)), np.int64)
        for one, rows in rows_by(place):
            low, high = np.searchsorted(self.place, [one, one + 1])
            first[rows] = low + np.searchsorted(self.end[low:high], begin[rows], side="right")
            beyond = low + np.searchsorted(self.begin[low:high], end[rows], side="left")
            count[rows] = np.where(end[rows] > begin[rows], beyond - first[rows], 0)
        count = np.maximum(count, 0)
        total = np.cumsum(count)
        at = 0
        while at < len(place):
            until = max(at + 1, int(np.searchsorted(total, (total[at - 1] if at else 0) + CHUNK, side="right")))
            wait = np.repeat(np.arange(at, until), count[at:until])
            span = first[wait] + np.arange(len(wait)) - (total[wait] - count[wait] - (total[at - 1] if at else 0))
            ns = np.minimum(self.end[span], end[wait]) - np.maximum(self.begin[span], begin[wait])
            held = ns > 0
            if held.any():
                yield Overlaps(wait[held], self.owner[span[held]], ns[held])
            at = until

"""Bounds of clock offsets that room between records leaves, and offsets within them.

Where a record of CPU i cannot come after one of CPU j, and j's clock shows it `room` later, j's clock is ahead of i's
by at most `room`. So offsets solve a system of difference constraints: the bounds of each are shortest paths in the
graph whose edges are those rooms, and there is no solution where a cycle is negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Index = NDArray[np.int64]
Ns = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Solution(NamedTuple):
    """cpus: int64, ascending; reference: a CPU; by CPU, in ns: bounds, NaN where none, and an offset within."""

    cpus: Index
    reference: int
    low: Ns
    high: Ns
    offset: Ns


class _Rooms(NamedTuple):
    """The least room of each pair: at most that is `later` ahead of `earlier`. Both are numbers from 0 to size − 1."""

    size: int
    earlier: Index
    later: Index
    room: Ns

    @classmethod
    def of(cls, size: int, earlier: Index, later: Index, room: Index | Ns) -> _Rooms:
        """Of pairs, of which some may stand several times."""
        pair = earlier * size + later
        order = np.lexsort((room, pair))
        order = order[np.diff(pair[order], prepend=-1) != 0]
        return cls(size, earlier[order], later[order], room[order].astype(np.float64))

    @property
    def graph(self) -> csr_array:
        """An edge a pair."""
        from scipy.sparse import csr_array

        return csr_array((self.room, (self.earlier, self.later)), (self.size, self.size))


def solve(earlier: Index, later: Index, room: Index) -> Solution | None:
    """Offsets by this evidence, ns; 0 for all where that fits. None where there is no solution.

    The reference is the lowest CPU of those that agree with most others.
    """
    cpus, numbers = np.unique(np.concatenate((earlier, later)), return_inverse=True)
    rooms = _Rooms.of(len(cpus), numbers[: len(earlier)], numbers[len(earlier) :], room)
    reference = _first_of_most(rooms)
    bounds = _bounds(rooms, reference)
    if bounds is None:
        return None
    if (rooms.room < 0).any():
        reference = _agreeing(*bounds, reference)
        bounds = _bounds(rooms, reference)
        if bounds is None:
            return None
    low, high = bounds
    offset = _offsets(rooms, reference, low, high)
    return None if offset is None else Solution(cpus, int(cpus[reference]), _known(low), _known(high), offset)


def _known(values: Ns) -> Ns:
    return np.where(np.isinf(values), np.nan, values)


def _first_of_most(rooms: _Rooms) -> int:
    """The lowest CPU of the most CPUs that bound each other from both sides."""
    from scipy.sparse.csgraph import connected_components

    _, group = connected_components(rooms.graph, connection="strong")
    return int(np.argmax(group == np.argmax(np.bincount(group))))


def _bounds(rooms: _Rooms, reference: int) -> tuple[Ns, Ns] | None:
    """By how much each is ahead of the reference, at least and at most, infinite where nothing says.

    None where there is no solution.
    """
    from scipy.sparse.csgraph import dijkstra

    every = np.ones(rooms.size, np.bool_)
    # Any solution makes all rooms positive, as Johnson's algorithm does; there, shortest paths are found quickly.
    level = _lowered(rooms.earlier, rooms.later, rooms.room, np.zeros(rooms.size), every, every)
    if level is None:
        return None
    graph = rooms._replace(room=rooms.room + level[rooms.earlier] - level[rooms.later]).graph
    apart = level - level[reference]
    return apart - dijkstra(graph.T.tocsr(), indices=reference), dijkstra(graph, indices=reference) + apart


def _agreeing(low: Ns, high: Ns, reference: int) -> int:
    """The first CPU of the most whose offset may be the same; of equally many the one nearest to the reference's."""
    begins, ends = np.sort(low), np.sort(high)
    at = np.append(0.0, low[np.isfinite(low)])
    count = np.searchsorted(begins, at, side="right") - np.searchsorted(ends, at)
    most = at[count == count.max()]
    common = most[np.argmin(np.abs(most))]
    both = np.isfinite(low) & np.isfinite(high)
    within = np.flatnonzero(both & (low <= common) & (common <= high))
    return int(within[0]) if len(within) else reference


def _offsets(rooms: _Rooms, reference: int, low: Ns, high: Ns) -> Ns | None:
    """Offsets that fit together: 0 for as many as may be 0, the middle of what is left for the others.

    A clock that is not bounded from both sides goes no further than it must. None where there is no solution.
    """
    if (rooms.room >= 0).all():
        return np.zeros(rooms.size)
    both = np.isfinite(low) & np.isfinite(high)
    still = both & (low <= 0) & (high >= 0)
    # Those that cannot be 0 together with others are not.
    within = still[rooms.earlier] & still[rooms.later] & (rooms.room < 0)
    still[rooms.earlier[within]] = still[rooms.later[within]] = False
    still[reference] = True
    merged = np.where(still, reference, np.arange(rooms.size))
    earlier, later = merged[rooms.earlier], merged[rooms.later]
    apart = earlier != later
    left = _bounds(_Rooms.of(rooms.size, earlier[apart], later[apart], rooms.room[apart]), reference)
    if left is None:
        still[:] = False
        left = low, high
    offset = np.zeros(rooms.size)
    free = both & ~still
    offset[free] = np.floor((left[0][free] + left[1][free]) / 2)
    below = np.isfinite(low) & ~both
    raised = _lowered(rooms.later, rooms.earlier, rooms.room, -offset, below, both | below)
    if raised is None:
        return None
    return _lowered(rooms.earlier, rooms.later, rooms.room, -raised, ~both & ~below, np.ones(rooms.size, np.bool_))


def _lowered(earlier: Index, later: Index, room: Ns, offset: Ns, free: Flags, known: Flags) -> Ns | None:
    """Offsets of which the free ones are no higher than rooms to the known ones allow; None where that has no end."""
    rows = np.flatnonzero(free[later] & known[earlier])
    for _ in range(len(offset) + 1):
        lower = offset.copy()
        np.minimum.at(lower, later[rows], offset[earlier[rows]] + room[rows])
        if (lower == offset).all():
            return offset
        offset = lower
    return None

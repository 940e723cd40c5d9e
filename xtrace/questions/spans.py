"""Moments and stretches of time, by the spans between edges: ascending times, two or more."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


def place_of(ns: Index, edges: Index) -> Index:
    """In which span each moment is, −1 for none; the last edge is in the last span."""
    place = np.searchsorted(edges[1:-1], ns, side="right")
    return np.where((ns >= edges[0]) & (ns <= edges[-1]), place, -1)


def sums(place: Index, values: NDArray[Any], count: int) -> Index:
    """Sums of integers by place, of which −1 is none; int64."""
    found = np.zeros(count, np.int64)
    inside = place >= 0
    np.add.at(found, place[inside], values[inside])
    return found


def spread(begin: Index, end: Index, edges: Index) -> Index:
    """How much of these stretches is in each span, ns, summed."""
    begin, end = (np.clip(values, edges[:1], edges[-1:]) for values in (begin, end))
    some = end > begin
    begin, end = begin[some], end[some]
    first = np.searchsorted(edges, begin, side="right") - 1
    last = np.searchsorted(edges, end, side="left") - 1
    found = sums(first, np.minimum(end, edges[first + 1]) - begin, len(edges) - 1)
    apart = last > first
    np.add.at(found, last[apart], (end - edges[last])[apart])
    # How many reach through each span from one edge to the next.
    through = sums(first[apart] + 1, np.ones(int(apart.sum()), np.int64), len(edges))
    np.subtract.at(through, last[apart], 1)
    return found + np.cumsum(through)[:-1] * np.diff(edges)

"""Times by what they are of and when: count, sum, quantiles, in bounded memory.

Quantiles are those of xenalyze, so that they can be held against it: the value at place n·p/100, rounded down, of all
in ascending order. Weighted by time, it is the stay in which that share of all time has passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from xtrace.host.windows import Windows

Ints = NDArray[np.int64]

MAX_EXACT: Final = 1 << 21
"""Values kept one by one; of more, values are rounded to MANTISSA_BITS, and equal ones are counted."""
MANTISSA_BITS: Final = 9
QUANTILES: Final = (5, 50, 95)


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something took. Times in ns, None where nothing was counted.

    count     how often
    total_ns  all of it together
    mean_ns   total / count
    p5_ns, p50_ns, p95_ns  quantiles
    max_ns
    weighted  quantiles are by time: half of the time was spent in what took p50_ns or less; else half of the times
    exact     False: there were so many values that quantiles and the largest are rounded, by at most 0.2 %
    """

    count: int
    total_ns: int
    mean_ns: float | None
    p5_ns: int | None
    p50_ns: int | None
    p95_ns: int | None
    max_ns: int | None
    weighted: bool
    exact: bool


def no_spread(*, weighted: bool = False) -> Spread:
    """Of nothing."""
    return Spread(0, 0, None, None, None, None, None, weighted, exact=True)


class Tally:
    """Adds up times by key, in each window for itself.

    weighted: quantiles are weighted by time.
    """

    def __init__(self, windows: Windows, *, weighted: bool = False) -> None:
        self._windows, self._weighted = windows, weighted
        self._parts: list[Ints] = []
        self._held = self._kept = 0
        self._exact = True
        self._sums: dict[tuple[int, int], list[int]] = {}
        self._spreads: dict[tuple[int, int], Spread] | None = None

    def at(self, key: Ints, ns: Ints, value: Ints) -> None:
        """Things that took `value` ns, each counted in the windows in which it begins, at `ns`."""
        row, window = self._windows.at(ns)
        self._add(window, key[row], value[row])

    def over(self, key: Ints, begin: Ints, end: Ints) -> None:
        """Stays, each counted in every window in which a part of it is, with that part; of no length: not at all."""
        row, window, begin, end = self._windows.parts(begin, end)
        self._add(window, key[row], end - begin)

    def spreads(self, window: int) -> dict[int, Spread]:
        """By key, ascending."""
        if self._spreads is None:
            self._spreads = dict(self._spread())
        return {key: found for (one, key), found in self._spreads.items() if one == window}

    def _add(self, window: Ints, key: Ints, value: Ints) -> None:
        if not len(window):
            return
        self._spreads = None
        part = np.stack((window, key, np.maximum(value, 0), np.ones(len(window), np.int64)))
        self._sum(part)
        self._parts.append(part)
        self._held += len(window)
        if self._held > max(MAX_EXACT, 2 * self._kept):
            self._exact = False
            part = self._together()
            rounded = _rounded(part[2])
            self._parts = [_counted(np.stack((part[0], part[1], rounded, part[3])))]
            self._held = self._kept = self._parts[0].shape[1]

    def _together(self) -> Ints:
        return np.concatenate(self._parts, axis=1) if self._parts else np.zeros((4, 0), np.int64)

    def _sum(self, part: Ints) -> None:
        order = np.lexsort((part[1], part[0]))
        window, key, value, _ = part[:, order]
        begins = _begins(window, key)
        totals, counts = np.add.reduceat(value, begins), np.diff(np.append(begins, len(window)))
        columns = (window[begins], key[begins], counts, totals)
        for one, name, count, total in zip(*(column.tolist() for column in columns), strict=True):
            held = self._sums.setdefault((one, name), [0, 0])
            held[0] += count
            held[1] += total

    def _spread(self) -> Iterator[tuple[tuple[int, int], Spread]]:
        """The spreads, by window and key ascending."""
        part = self._together()
        if not part.shape[1]:
            return
        window, key, value, times = part[:, np.lexsort((part[2], part[1], part[0]))]
        begins = _begins(window, key)
        ends = np.append(begins[1:], len(window))
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            place = int(window[begin]), int(key[begin])
            count, total = self._sums[place]
            values = value[begin:end]
            weight = times[begin:end] * values if self._weighted else times[begin:end]
            passed = np.cumsum(weight)
            marks = [int(passed[-1]) * one // 100 for one in QUANTILES]
            at = np.minimum(np.searchsorted(passed, marks, side="right"), end - begin - 1)
            p5, p50, p95 = values[at].tolist()
            most = int(values[-1])
            yield place, Spread(count, total, total / count, p5, p50, p95, most, self._weighted, self._exact)


def _begins(window: Ints, key: Ints) -> Ints:
    """Where a new window or key begins in sorted columns."""
    return np.flatnonzero(np.append(True, (window[1:] != window[:-1]) | (key[1:] != key[:-1])))


def _rounded(value: Ints) -> Ints:
    """The values with their MANTISSA_BITS highest bits, and half of what is below."""
    shift = np.maximum(np.frexp(value.astype(np.float64))[1] - MANTISSA_BITS, 0).astype(np.int64)
    rounded: Ints = (value >> shift << shift) + ((np.int64(1) << shift) >> 1)
    return rounded


def _counted(part: Ints) -> Ints:
    """The columns with equal ones counted together."""
    window, key, value, times = part[:, np.lexsort((part[2], part[1], part[0]))]
    same = (window[1:] == window[:-1]) & (key[1:] == key[:-1]) & (value[1:] == value[:-1])
    begins = np.flatnonzero(np.append(True, ~same))
    return np.stack((window[begins], key[begins], value[begins], np.add.reduceat(times, begins)))

"""How often, by what it is of and when: counts in bounded memory, where no time is measured."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from xtrace.clock import NS_PER_S
from xtrace.host.windows import Windows

Ints = NDArray[np.int64]


class Counts:
    """Counts by key, in each window for itself."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._counts: dict[int, dict[int, int]] = defaultdict(dict)

    def at(self, key: Ints, ns: Ints) -> None:
        """One of each key, in the windows in which its time is."""
        row, window = self._windows.at(ns)
        key = key[row]
        order = np.lexsort((key, window))
        key, window = key[order], window[order]
        begins = np.flatnonzero(np.append(True, (key[1:] != key[:-1]) | (window[1:] != window[:-1]))[: len(key)])
        columns = (window[begins], key[begins], np.diff(np.append(begins, len(key))))
        for one, name, count in zip(*(column.tolist() for column in columns), strict=True):
            held = self._counts[one]
            held[name] = held.get(name, 0) + count

    def of(self, window: int) -> dict[int, int]:
        """By key, ascending."""
        return dict(sorted(self._counts.get(window, {}).items()))


def rate(count: int, span_ns: int) -> float | None:
    """How many a second; None in no time."""
    return count * NS_PER_S / span_ns if span_ns > 0 else None

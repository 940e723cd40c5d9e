"""What took most time among any number of things, in bounded memory: small ones are forgotten, and counted as such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from xtrace.host.windows import WHOLE, Windows

Ints = NDArray[np.int64]
Addresses = NDArray[np.uint64]

KEPT: Final = 10_000
LEAST_KEPT: Final = 10
"""Things kept of all the time, and at least of each interval, which share KEPT."""
ROOM: Final = 4
"""So many times as much is held before small ones are forgotten."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was forgotten, since there was no room for so many different ones.

    count, total_ns  of all that was forgotten
    most_ns          the most that any figure that is shown may be too low by
    """

    count: int
    total_ns: int
    most_ns: int


@dataclass(frozen=True, slots=True)
class Heavy:
    """One thing: its key and address, how often it was, and how long in all."""

    key: int
    address: int
    count: int
    total_ns: int


class Heaviest:
    """Adds up times by key and address, in each window for itself."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._share = max(KEPT // max(windows.intervals, 1), LEAST_KEPT)
        self._most = ROOM * (KEPT + self._share * windows.intervals)
        # Addresses; windows, keys, counts and times.
        self._parts = [(np.zeros(0, np.uint64), np.zeros((4, 0), np.int64))]
        self._size = 0
        self._left: dict[int, list[int]] = {}

    def at(self, key: Ints, address: Addresses, ns: Ints, value: Ints) -> None:
        """Things that took `value` ns, each counted in the windows in which it begins, at `ns`."""
        row, window = self._windows.at(ns)
        new = np.stack((window, key[row], np.ones(len(row), np.int64), value[row]))
        self._parts.append((address[row], new))
        self._size += len(row)
        if self._size > self._most:
            self._add_up()
            if self._size > self._most // 2:
                self._forget()

    def found(self, window: int) -> tuple[list[Heavy], LeftOut | None]:
        """Those of a window, most time first, and what was forgotten, None: nothing."""
        self._add_up()
        self._forget()
        address, held = self._parts[0]
        mine = np.flatnonzero(held[0] == window)
        mine = mine[np.lexsort((-held[2, mine], -held[3, mine]))]
        columns = (held[1, mine], address[mine], held[2, mine], held[3, mine])
        rows = [Heavy(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
        left = self._left.get(window)
        return rows, LeftOut(*left) if left else None

    def _add_up(self) -> None:
        """What is held becomes one part in which each thing of each window stands once."""
        address = np.concatenate([part for part, _ in self._parts])
        held = np.concatenate([part for _, part in self._parts], axis=1)
        order = np.lexsort((address, held[1], held[0]))
        address, held = address[order], held[:, order]
        new = (address[1:] != address[:-1]) | (held[:2, 1:] != held[:2, :-1]).any(axis=0)
        begins = np.flatnonzero(np.append(True, new)[: len(address)])
        sums = np.add.reduceat(held[2:], begins, axis=1) if len(begins) else held[2:]
        self._parts = [(address[begins], np.concatenate((held[:2, begins], sums)))]
        self._size = len(begins)

    def _forget(self) -> None:
        """Keep the largest of each window of what was added up."""
        (address, held), *_ = self._parts
        window, _, count, time = held
        order = np.lexsort((-count, -time, window))
        sorted_windows = window[order]
        place = np.arange(len(order)) - np.searchsorted(sorted_windows, sorted_windows)
        gone = order[place >= np.where(sorted_windows == WHOLE, KEPT, self._share)]
        for one in np.unique(window[gone]).tolist():
            rows = gone[window[gone] == one]
            left = self._left.setdefault(one, [0, 0, 0])
            left[0] += int(count[rows].sum())
            left[1] += int(time[rows].sum())
            # What is forgotten again may have been forgotten each time.
            left[2] += int(time[rows].max())
        kept = np.ones(len(order), np.bool_)
        kept[gone] = False
        self._parts = [(address[kept], held[:, kept])]
        self._size = int(np.count_nonzero(kept))

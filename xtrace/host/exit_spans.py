"""Which records belong to which VM exit, and which exits were open where records were lost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

NO_OP, EXIT, ENTER, RUNNABLE, LEAVE, FIRST, LAST, INTERRUPT, SHADOW, LOST = range(10)
"""What a record does. Of what handled an exit an INTERRUPT comes before what is FIRST, that before what is LAST."""


class Spans:
    """Which records belong to which exit, of records sorted by vCPU and, within it, by time.

    exit    int64  place of each exit's own record
    end     int64  place of the record that ends it, the number of records where none does
    closed  bool   that record is an entry, or its vCPU becoming runnable
    open    bool   no record ends it
    owner   int64  by record that is part of an exit's handling: number of the exit; −1 for all others
    of      int64  the same, and the exits' own records, too
    """

    def __init__(self, op: NDArray[np.int8], key: Ints) -> None:
        count = len(op)
        first = np.append(True, key[1:] != key[:-1])[:count]
        begin = np.maximum.accumulate(np.where(first, np.arange(count), 0)) if count else np.zeros(0, np.int64)
        marks = np.flatnonzero((op == EXIT) | (op == ENTER) | (op == RUNNABLE))
        latest = np.zeros(count, np.int64)
        latest[marks] = 1
        number = np.cumsum(latest) - 1
        mark = np.append(marks, count)[number] if count else number
        inside = (number >= 0) & (mark >= begin)
        follower = np.append(marks[1:], count)
        same = np.zeros(len(marks), np.bool_)
        same[:-1] = key[marks[1:]] == key[marks[:-1]]
        exits = np.flatnonzero(op[marks] == EXIT)
        self.exit = marks[exits]
        self.end = np.where(same[exits], follower[exits], count)
        self.open = ~same[exits]
        ends = np.append(op, NO_OP)[self.end]
        self.closed = (ends == ENTER) | (ends == RUNNABLE)
        exit_number = np.full(len(marks) + 1, -1, np.int64)
        exit_number[exits] = np.arange(len(exits))
        self.of = np.where(inside, exit_number[number], -1)
        self.owner = self.of.copy()
        self.owner[marks] = -1


class Losses:
    """Where records were lost: exits of vCPUs that may have gone on there are not known."""

    def __init__(self, at: Ints, cpu: NDArray[np.int32]) -> None:
        self.count = len(at)
        self._at, self._stride = at, len(cpu) + 1
        self._mine = np.sort(cpu[at].astype(np.int64) * self._stride + at)

    def before(self, end: Ints) -> Ints:
        """How often before."""
        return np.searchsorted(self._at, end)

    def during(self, begin: Ints, left: Ints, end: Ints, cpu: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether records were lost on their CPU before they left it, or after that on any."""
        if not len(self._at):
            return np.zeros(len(begin), np.bool_)
        own = cpu.astype(np.int64) * self._stride
        here = np.searchsorted(self._mine, own + left) > np.searchsorted(self._mine, own + begin)
        elsewhere = np.searchsorted(self._at, end) > np.searchsorted(self._at, left)
        found: NDArray[np.bool_] = here | elsewhere
        return found

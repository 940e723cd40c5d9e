"""Records of all CPUs in one order of time, streamed: the order in which xenalyze shows them.

The rule (xenalyze.c, choose_next_record): always the CPU whose next record is earliest; records without a time
do not move their CPU's place; on equal times the CPU that was served last comes first. Because a CPU's order
key never goes back, this is a sort by key with a rule for ties.

A streaming merge need not wait for the end: xentrace polls all CPUs in turn, so once a round of windows has
been read, nothing still to come can be older than the end of the round before it. One round more is waited for
the sake of records without a time that a poll cut off from the record before them. (A CPU that writes such a record
after rounds of silence is beyond that: it comes as early as it still can.)
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.decode import Batch
from xtrace.parsers.container import CPU_CHANGE_HEADER
from xtrace.states import TRACK_BITS, cpu_of
from xtrace.words import Offsets

ROUNDS: Final = 4
"""Rounds held: the one being read, and those whose end is no bound yet for what it may bring."""

NEVER_SERVED: Final = 1 << 62
"""A CPU that was met, but gave no record yet, comes before all that did; the one met last first."""


class Row(NamedTuple):
    """Things to be put in order, each with the CPU stream and the order key of its record."""

    track: NDArray[np.int32]
    order: NDArray[np.uint64]
    items: NDArray[Any]


def _rows(some: Row, chosen: NDArray[np.bool_]) -> Row:
    return Row(some.track[chosen], some.order[chosen], some.items[chosen])


class Merger:
    """Takes the records of batches in input order, gives them back in order of time."""

    def __init__(self) -> None:
        self._held: list[Row] = []
        self._rounds = [0] * ROUNDS
        self._last_cpu = -1
        self._last_window = -1
        self._capture = 0
        self._served: dict[int, int] = {}
        self._appeared: dict[int, int] = {}
        self._given = 0

    def feed(self, batch: Batch, items: NDArray[Any]) -> NDArray[Any]:
        """Add one item for each record of a batch; returns those whose turn is certain.

        Records that are not wanted matter, too, for ties and for how far the polling of CPUs has come: an item of
        None, or where items are integers below 0, takes its turn and is left out.
        """
        ready = []
        capture = batch.track >> TRACK_BITS
        # A window header goes with the record before it, which may be long past: only the first ones of all matter.
        matters = (batch.header != CPU_CHANGE_HEADER) | (batch.order == 0) | wanted(items)
        for one in np.unique(capture).tolist():
            if one != self._capture:
                ready.append(self._release(None))
                self._capture, self._rounds = one, [0] * ROUNDS
            mine = np.flatnonzero((capture == one) & matters)
            self._held.append(Row(batch.track[mine], batch.order[mine], items[mine]))
            self._follow_rounds(batch, one)
            ready.append(self._release(self._rounds[0]))
        return np.concatenate(ready) if ready else items[:0]

    def finish(self) -> NDArray[Any]:
        """All that is left."""
        return self._release(None)

    def _follow_rounds(self, batch: Batch, capture: int) -> None:
        """A window whose CPU number does not rise begins a new round of polling."""
        mine = np.flatnonzero(batch.track >> TRACK_BITS == capture)
        window = batch.window[mine]
        begin = np.flatnonzero(np.diff(window, prepend=-1))
        cpus = cpu_of(batch.track[mine][begin])
        tops = np.maximum.reduceat(batch.order[mine], begin)
        for cpu, top, number in zip(cpus.tolist(), tops.tolist(), window[begin].tolist(), strict=True):
            self._appeared.setdefault(capture << TRACK_BITS | cpu, len(self._appeared))
            if cpu <= self._last_cpu and number != self._last_window:
                self._rounds = [*self._rounds[1:], self._rounds[-1]]
            self._rounds[-1] = max(self._rounds[-1], top)
            self._last_cpu, self._last_window = cpu, number

    def _release(self, before: int | None) -> NDArray[Any]:
        """Give what is older than `before` (everything for None), in order; keep the rest."""
        if not self._held:
            return np.zeros(0, object)
        held = Row(*map(np.concatenate, zip(*self._held, strict=True)))
        if before is None:
            ready, self._held = held, []
        else:
            certain = held.order < np.uint64(before)
            ready, rest = _rows(held, certain), _rows(held, ~certain)
            self._held = [rest]
        merged = ready.items[self._merged(ready)]
        return merged[wanted(merged)]

    def _merged(self, ready: Row) -> Offsets:
        count = len(ready.order)
        order = np.lexsort((np.arange(count), ready.track, ready.order))
        key, track = ready.order[order], ready.track[order]
        by_track = np.argsort(track, kind="stable")
        previous = np.full(count, -1)
        same = track[by_track[1:]] == track[by_track[:-1]]
        previous[by_track[1:][same]] = by_track[:-1][same]
        place = np.arange(count)
        tied = np.flatnonzero((key[1:] == key[:-1]) & (track[1:] != track[:-1]))
        done = 0
        for first in tied.tolist():
            if first < done:
                continue
            begin = int(np.searchsorted(key, key[first]))
            done = int(np.searchsorted(key, key[first], side="right"))
            members = np.arange(begin, done)
            leaders = members[previous[members] < begin]
            turn = {
                int(track[one]): int(place[previous[one]]) + self._given
                if previous[one] >= 0
                else self._served.get(int(track[one]), NEVER_SERVED + self._appeared[int(track[one])])
                for one in leaders
            }
            ranked = members[np.argsort([-turn[int(track[one])] for one in members], kind="stable")]
            place[ranked] = members
        final = np.empty(count, np.int64)
        final[place] = order
        for one in np.unique(track).tolist():
            last = np.flatnonzero(track == one)
            self._served[one] = int(place[last].max()) + self._given
        self._given += count
        return final


def wanted(items: NDArray[Any]) -> NDArray[np.bool_]:
    """Which items are of records that are wanted: not None; not below 0, where they are integers."""
    found: NDArray[np.bool_] = items != None if items.dtype == object else items >= 0  # noqa: E711
    return found

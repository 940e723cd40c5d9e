"""A rule: what a design promises, and how to find where a trace breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from xtrace.episodes.relations import Model
from xtrace.grouping import rows_by
from xtrace.protocol.asked import CALL, Requests, Services
from xtrace.protocol.steps import BACK, NONE, START, Flags, Index, Steps


class Finding(NamedTuple):
    """What was found, in words; a row each: the request, and the steps that show it (NONE: one less)."""

    what: str
    request: Index
    rows: tuple[Index, ...]

    def take(self, chosen: Flags | Index) -> Finding:
        """Some of them."""
        return Finding(self.what, self.request[chosen], tuple(rows[chosen] for rows in self.rows))


@dataclass(frozen=True)
class Case:
    """What rules look at: all of a trace, as `Asked` tells it, and the design whose promises count."""

    model: Model
    steps: Steps
    of: Index
    again: Index
    requests: Requests
    services: Services

    @cached_property
    def known_wait(self) -> Flags:
        """Requests of which it is known whether the initiator waits for functions to end."""
        known: Flags = (self.requests.kind != CALL) | (self.requests.start >= 0)
        return known

    @cached_property
    def whole(self) -> Flags:
        """Requests of which no step of the initiator is missing, but one that it did not take."""
        return self.steps.unbroken(self.requests.start, self.requests.done)

    @cached_property
    def ran(self) -> Ran:
        """When CPUs ran functions for others."""
        return Ran(self.steps, self.requests, self.services)

    def starts(self, kind: int) -> Flags:
        """Rows that are a START of this kind."""
        mine: Flags = (self.steps.step == START) & (self.steps.kind == kind)
        return mine

    @cached_property
    def back(self) -> Flags:
        """Rows that show their CPU outside of everything."""
        mine: Flags = self.steps.step == BACK
        return mine


class Ran:
    """When CPUs ran functions for others."""

    def __init__(self, steps: Steps, requests: Requests, services: Services) -> None:
        whole = steps.unbroken(services.enter, services.left)
        whole &= (requests.kind[services.request] == CALL) | (requests.carrier[services.request] < 0)
        enter, left = services.enter[whole], services.left[whole]
        order = np.lexsort((steps.time[enter], services.track[whole]))
        self._track = services.track[whole][order]
        self._begin = steps.time[enter][order]
        self._end = np.maximum(steps.time[left][order], self._begin)
        self._total = np.append(0, np.cumsum(self._end - self._begin))

    def within(self, track: Index, begin: Index, end: Index) -> Index:
        """How much of these times each CPU did."""
        spent = np.zeros(len(track), np.int64)
        for one, rows in rows_by(track):
            low, high = np.searchsorted(self._track, [one, one + 1])
            for sign, time in ((1, end[rows]), (-1, np.minimum(begin[rows], end[rows]))):
                place = low + np.searchsorted(self._begin[low:high], time, side="right")
                last = np.maximum(place - 1, 0)
                over = np.maximum(self._end[last] - time, 0) if len(self._end) else 0
                spent[rows] += sign * (self._total[place] - np.where(place > low, over, 0))
        return spent


def last_before(chosen: Flags) -> Index:
    """By row the last chosen one before it, of any CPU; NONE for none."""
    return np.append(NONE, np.maximum.accumulate(np.where(chosen, np.arange(len(chosen)), NONE)))[: len(chosen)]


def next_after(chosen: Flags) -> Index:
    """By row the next chosen one after it, of any CPU; NONE for none."""
    count = len(chosen)
    ahead = np.minimum.accumulate(np.where(chosen, np.arange(count), count)[::-1])[::-1]
    found = np.append(ahead, count)[1:]
    return np.where(found < count, found, NONE)


class Rule(NamedTuple):
    """promise: one sentence. models: the designs that promise it; "unknown" where every design does."""

    name: str
    models: tuple[Model, ...]
    promise: str
    find: Callable[[Case], Iterator[Finding]]

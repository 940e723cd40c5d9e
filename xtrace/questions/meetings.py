"""Requests that waited at one place together: which came first, and which was served first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.questions.paths import lock_of
from xtrace.questions.requests import Index, Requests

CHUNK: Final = 1 << 20
"""Meetings that are in memory at a time; those of one wait stay together."""


class Meetings(NamedTuple):
    """Two waits at one place each, the second of which came while the first waited.

    first, second  rows of `Queue`
    passed         the second was served before the first
    """

    first: Index
    second: Index
    passed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Queue:
    """Waits of requests for places, by place and arrival, int64.

    request          row of `Requests`
    place            a lock or a CPU
    arrived, served  ns
    after, beyond    rows of the waits that met this one while it waited, the first and one behind the last
    """

    request: Index
    place: Index
    arrived: Index
    served: Index
    after: Index
    beyond: Index

    @classmethod
    def of(cls, request: Index, place: Index, arrived: Index, served: Index) -> Queue:
        """Waits in any order."""
        order = np.lexsort((request, arrived, place))
        request, place, arrived, served = (values[order] for values in (request, place, arrived, served))
        after, beyond = np.empty((2, len(order)), np.int64)
        for one, rows in rows_by(place):
            low, high = np.searchsorted(place, [one, one + 1])
            # Of two that came in the same ns nobody knows which was first.
            after[rows] = low + np.searchsorted(arrived[low:high], arrived[rows], side="right")
            beyond[rows] = low + np.searchsorted(arrived[low:high], served[rows], side="left")
        return cls(request, place, arrived, served, after, np.maximum(beyond, after))

    @property
    def met(self) -> Index:
        """How many each met that came after it."""
        return self.beyond - self.after

    def meetings(self) -> Iterator[Meetings]:
        """All of them, as many at a time as fit in CHUNK."""
        count = self.met
        total = np.append(0, np.cumsum(count))
        at = 0
        while at < len(count):
            until = max(at + 1, int(np.searchsorted(total, total[at] + CHUNK, side="right")) - 1)
            first = np.repeat(np.arange(at, until), count[at:until])
            second = self.after[first] + np.arange(len(first)) - (total[first] - total[at])
            yield Meetings(first, second, self.served[second] < self.served[first])
            at = until


def at_locks(requests: Requests) -> Queue:
    """Waits for the locks of the legacy design, START to SEND."""
    rows = np.flatnonzero(requests.whole)
    return Queue.of(rows, lock_of(requests)[rows], requests.start[rows], requests.send[rows])


def at_targets(requests: Requests) -> Queue:
    """Waits for targets, SEND to ENTER; a CPU in its own mask does not wait for itself.

    A request that a target began before SEND had been published by then: it came when that target began it.
    """
    services = requests.services
    # An ENTER that was not seen is NULL, which is less than any time.
    early = np.where(services.enter == NULL, np.iinfo(np.int64).max, services.enter)
    came = requests.send.copy()
    np.minimum.at(came, services.request, early)
    mine = requests.whole[services.request] & (services.cpu != requests.initiator[services.request]) & services.seen
    rows = np.flatnonzero(mine)
    request = services.request[rows]
    return Queue.of(request, services.place[rows], came[request], services.enter[rows])

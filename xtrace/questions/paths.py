"""What each caller waited for, from START to DONE without a rest, and which other requests were in its way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.questions.occupancy import Occupancy
from xtrace.questions.requests import Index, Requests

CAUSES: Final = ("lock", "queue", "serving")
"""How a request is in the way of another.

lock     it holds the lock; under the lockless design, the caller's own earlier call that its targets have not answered
queue    its function runs on the target that answers last, before this one's does
serving  its function runs on the caller's CPU, which is why the caller goes on later
"""

LOCK: Final = CAUSES.index("lock")
QUEUE: Final = CAUSES.index("queue")
SERVING: Final = CAUSES.index("serving")


class Blame(NamedTuple):
    """Who was in whose way; a row each, int64.

    waiting  row of `Paths`
    blocker  row of `Requests`
    ns       for how long
    """

    waiting: Index
    blocker: Index
    ns: Index


@dataclass(frozen=True)
class Paths:
    """The way of each chosen request through its phases; ns, int64, by row.

    A caller goes on when the last target has answered: its function ended, or only began where nobody waits for its
    end. So what that target did is what the caller waited for.

    rows    row of `Requests`
    last    row of its services that answered last
    owned   until then others held the lock, or the caller's own earlier call was not answered
    sent    when the first IPI went out
    began   when the last target began the function
    answered  when the last target had answered
    start ≤ owned ≤ sent ≤ began ≤ answered ≤ done: what comes before is cut off, as an early ENTER is.
    """

    requests: Requests
    rows: Index
    last: Index
    start: Index
    owned: Index
    sent: Index
    began: Index
    answered: Index
    done: Index

    @classmethod
    def of(cls, requests: Requests) -> Paths:
        """Of those that are chosen."""
        rows = np.flatnonzero(requests.chosen)
        start, sent, done = (values[rows] for values in (requests.start, requests.send, requests.done))
        done = np.maximum(done, start)
        sent = np.clip(sent, start, done)
        services = requests.services
        last = _last(requests)[rows]
        began = np.clip(services.enter[last], sent, done)
        answered = np.where(requests.wait[rows], np.clip(services.left[last], began, done), began)
        turn = requests.model == "legacy"
        owned = np.clip(_turns(requests)[rows] if turn else _freed(requests)[rows], start, sent)
        return cls(requests, rows, last, start, owned, sent, began, answered, done)

    @cached_property
    def cpus(self) -> Occupancy:
        """When CPUs ran functions for others."""
        services = self.requests.services
        ran = services.take(services.seen)
        return Occupancy.of(ran.place, ran.enter, ran.left, ran.request)

    @cached_property
    def locks(self) -> Occupancy:
        """When a lock had which owner, of the legacy design; from being next in turn to DONE."""
        requests = self.requests
        if requests.model != "legacy":
            none = np.zeros(0, np.int64)
            return Occupancy(none, none, none, none)
        held = np.flatnonzero((requests.send != NULL) & (requests.done != NULL))
        begin = np.minimum(_turns(requests)[held], requests.send[held])
        return Occupancy.of(lock_of(requests)[held], begin, requests.done[held], held)

    def blame(self) -> Iterator[tuple[int, Blame]]:
        """Causes (places in CAUSES) and who was in the way, part by part."""
        requests = self.requests
        if requests.model == "legacy":
            yield from self._during(LOCK, self.locks, lock_of(requests)[self.rows], self.start, self.owned)
        else:
            waiting = np.flatnonzero(self.owned > self.start)
            earlier = _before(requests)[self.rows[waiting]]
            yield LOCK, Blame(waiting, earlier, (self.owned - self.start)[waiting])
        place = requests.services.place
        own = requests.own_place
        yield from self._during(SERVING, self.cpus, own[self.rows], self.owned, self.sent)
        yield from self._during(QUEUE, self.cpus, place[self.last], self.sent, self.began)
        yield from self._during(SERVING, self.cpus, own[self.rows], self.answered, self.done)

    def _during(
        self, cause: int, held: Occupancy, place: Index, begin: Index, end: Index
    ) -> Iterator[tuple[int, Blame]]:
        for wait, owner, ns in held.during(place, begin, end):
            other = owner != self.rows[wait]
            yield cause, Blame(wait[other], owner[other], ns[other])


def lock_of(requests: Requests) -> Index:
    """The lock that each request takes under the legacy design, one a kind and capture."""
    return requests.capture << 1 | requests.kind


def _last(requests: Requests) -> Index:
    """By request the service that answered last, −1 for none."""
    services = requests.services
    answered = np.where(requests.wait[services.request], services.left, services.enter)
    found = np.full(len(requests.episode), -1)
    rows = np.flatnonzero(answered != NULL)
    rows = rows[np.argsort(answered[rows], kind="stable")]
    found[services.request[rows]] = rows
    return found


def _turns(requests: Requests) -> Index:
    """When each request was next for its lock: at START, or when the one before it was DONE.

    Who sends next after a lock was let go is who had it next.
    """
    turn = requests.start.copy()
    for _, rows in rows_by(lock_of(requests)):
        sent = rows[requests.send[rows] != NULL]
        sent = sent[np.argsort(requests.send[sent], kind="stable")]
        free = np.maximum.accumulate(requests.done[sent])
        turn[sent[1:]] = np.maximum(turn[sent[1:]], free[:-1])
    return turn


def _before(requests: Requests) -> Index:
    """The request of the same CPU before each, −1 for none."""
    found = np.full(len(requests.episode), -1)
    for _, rows in rows_by(requests.own_place):
        started = rows[requests.start[rows] != NULL]
        started = started[np.argsort(requests.start[started], kind="stable")]
        found[started[1:]] = started[:-1]
    return found


def _freed(requests: Requests) -> Index:
    """When the targets of the caller's own earlier request had answered, START where they had by then."""
    services, earlier = requests.services, _before(requests)
    answered = np.where(requests.wait[services.request], services.left, services.enter)
    ended = np.full(len(requests.episode), NULL)
    np.maximum.at(ended, services.request, answered)
    free = np.where(earlier < 0, NULL, ended[earlier])
    return np.maximum(requests.start, free)

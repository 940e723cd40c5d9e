"""What targets were at when they were asked, as far as it shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from xtrace.context import IDLE_DOMAIN, NOBODY
from xtrace.episodes.assemble import KIND_NAMES
from xtrace.episodes.relations import STATES
from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.questions.occupancy import Occupancy
from xtrace.questions.paths import Paths
from xtrace.questions.requests import Flags, Index, Requests, Services
from xtrace.states import TRACK_BITS

DOINGS: Final = {
    "function": "the function itself, which took as long as it took to begin, or longer",
    "queue": "functions of other requests: more than half of the time until this one began",
    "sender": "not asked yet: more than half of that time, with such functions, the caller's CPU ran some after SEND",
    "calling": "inside a call or flush of its own",
    "arriving": "in Xen with a vCPU that the scheduler had put there and that had not entered its guest yet",
    "guest": "in a guest, which the interrupt had to take it out of",
    "idle": "idle: it had to wake up",
    "hypervisor": "in Xen for its vCPU; a late one had interrupts off or was in a handler, as far as it shows",
    "vcpu": "in a PV guest or in Xen for it: no record tells which",
    "unknown": "not known: no record says who was there",
}
"""What a last target was doing: the first of these that applies."""

_CODES: Final = tuple(DOINGS)
_VCPU_BITS: Final = 17


def own_requests(requests: Requests, rows: Flags) -> Occupancy:
    """When CPUs were inside calls and flushes of their own, START to DONE, of those in `rows`."""
    seen = np.flatnonzero(rows & (requests.start != NULL) & (requests.done != NULL))
    return Occupancy.of(requests.own_place[seen], requests.start[seen], requests.done[seen], seen)


def arriving(services: Services) -> Flags:
    """Which met a vCPU that had come to its CPU and not entered its guest yet: Xen was switching to it.

    Only of domains that were met in guest mode in this capture: their entries are traced, those of PV guests are not.
    After lost records a vCPU may seem to arrive that was in its guest.
    """
    of = services.place >> TRACK_BITS << _VCPU_BITS | services.domain
    entered = np.unique(of[services.state == STATES.index("guest")])
    known = (services.domain != NOBODY) & (services.domain != IDLE_DOMAIN)
    found: Flags = known & (services.state == STATES.index("unknown")) & np.isin(of, entered)
    return found


def vcpu_codes(domain: Index, vcpu: Index) -> Index:
    """A number for each vCPU, not negative; all of the idle domain are one."""
    number: Index = np.where(domain == IDLE_DOMAIN, NOBODY, vcpu) + 1
    return domain + 1 << _VCPU_BITS | number


def vcpu_of(code: int) -> tuple[int | None, int | None]:
    """Domain and vCPU of such a number, None where not known, as the vCPU of the idle domain is."""
    domain, vcpu = (code >> _VCPU_BITS) - 1, (code & (1 << _VCPU_BITS) - 1) - 1
    return (None if domain == NOBODY else domain), (None if vcpu == NOBODY else vcpu)


@dataclass(frozen=True)
class Lasts:
    """The last target to answer of each chosen request, by row of `Paths`; ns, int64.

    services   its function
    all, row   all functions of these requests: rows of `Services`, and of which row of `Paths` each is
    delivery   SEND until it began
    execution  and then until it had answered: 0 where nobody waits for the end
    """

    paths: Paths
    services: Services
    all: Index
    row: Index
    delivery: Index
    execution: Index

    @classmethod
    def of(cls, paths: Paths) -> Lasts:
        """Of those that are chosen."""
        requests = paths.requests
        place = np.full(len(requests.episode), -1)
        place[paths.rows] = np.arange(len(paths.rows))
        row = place[requests.services.request]
        chosen = np.flatnonzero(row >= 0)
        services = requests.services.take(paths.last)
        execution = np.where(requests.wait[paths.rows], services.left - services.enter, 0)
        return cls(
            paths=paths,
            services=services,
            all=chosen,
            row=row[chosen],
            delivery=np.maximum(services.enter - requests.send[paths.rows], 0),
            execution=np.maximum(execution, 0),
        )

    @cached_property
    def took(self) -> Index:
        """SEND until it had answered."""
        return self.delivery + self.execution

    @cached_property
    def several(self) -> Flags:
        """Which had two targets or more."""
        found: Flags = np.bincount(self.row, minlength=len(self.paths.rows)) > 1
        return found

    @cached_property
    def lateness(self) -> Index:
        """By how much it answered after the last but one, NULL of one target."""
        requests, last = self.paths.requests, self.paths.last
        services = requests.services
        answered = np.where(requests.wait[services.request], services.left, services.enter)
        before = np.full(len(last), NULL)
        others = self.all != last[self.row]
        np.maximum.at(before, self.row[others], answered[self.all[others]])
        return np.where(self.several, answered[last] - before, NULL)

    @cached_property
    def typical(self) -> tuple[int | None, ...]:
        """By kind, the median delivery of targets that ran no function of another request meanwhile, None of none."""
        requests = self.paths.requests
        alone = self._queues == 0
        row = self.row[alone]
        delivery = np.maximum(requests.services.enter[self.all[alone]] - requests.send[self.paths.rows][row], 0)
        kind = requests.kind[self.paths.rows][row]
        of_kinds = [delivery[kind == number] for number in range(len(KIND_NAMES))]
        return tuple(int(np.median(times)) if len(times) else None for times in of_kinds)

    @cached_property
    def doing(self) -> Index:
        """Places in DOINGS."""
        services, requests = self.services, self.paths.requests
        queue, unsent = self._queues[np.searchsorted(self.all, self.paths.last)], self._unsent()
        inside = np.zeros(len(self.delivery), np.bool_)
        own = own_requests(requests, np.ones(len(requests.episode), np.bool_))
        for one in own.during(services.place, services.enter, services.enter + 1):
            inside[one.wait] = True
        state = {name: services.state == STATES.index(name) for name in ("guest", "idle", "hypervisor")}
        found: dict[str, Flags] = {
            "function": requests.wait[self.paths.rows] & (self.execution >= self.delivery),
            "queue": 2 * queue > self.delivery,
            "sender": 2 * (queue + unsent) > self.delivery,
            "calling": inside,
            "arriving": arriving(requests.services)[self.paths.last],
            **state,
            "vcpu": services.domain != NOBODY,
        }
        return np.select(list(found.values()), [_CODES.index(name) for name in found], _CODES.index("unknown"))

    @cached_property
    def _queues(self) -> Index:
        """By place in `all`: for how long the CPU ran functions of other requests from SEND to ENTER."""
        services = self.paths.requests.services
        return self._others(self.row, services.place[self.all], services.enter[self.all])

    def _unsent(self) -> Index:
        """For how long, before it began, the caller's CPU ran others' functions from SEND on.

        The first of them began before a typical delivery had passed: else the interrupt had gone out.
        """
        paths, held = self.paths, self.paths.cpus
        place, sent = paths.requests.own_place[paths.rows], paths.requests.send[paths.rows]
        follows = np.full(len(place), np.iinfo(np.int64).max)
        for one, rows in rows_by(place):
            low, high = np.searchsorted(held.place, [one, one + 1])
            at = low + np.searchsorted(held.begin[low:high], sent[rows])
            follows[rows[at < high]] = held.begin[at[at < high]]
        typical = np.array([ns or 0 for ns in self.typical])
        at_once = follows - sent <= typical[paths.requests.kind[paths.rows]]
        return np.where(at_once, self._others(np.arange(len(place)), place, self.services.enter), 0)

    def _others(self, row: Index, place: Index, until: Index) -> Index:
        """For how long from SEND on these CPUs ran functions of other requests than that of the row."""
        total = np.zeros(len(place), np.int64)
        sent = self.paths.requests.send[self.paths.rows][row]
        for one in self.paths.cpus.during(place, sent, until):
            other = one.owner != self.paths.rows[row[one.wait]]
            np.add.at(total, one.wait[other], one.ns[other])
        return total

"""Locks and target CPUs as places that requests queue at: how busy each was, how many waited, in which convoys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from xtrace.context import IDLE_DOMAIN, NOBODY
from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.questions.occupancy import Occupancy
from xtrace.questions.paths import Paths, lock_of
from xtrace.questions.requests import Flags, Index, Requests, Services
from xtrace.states import TRACK_BITS, cpu_of

LOCKS: Final = ("call_lock", "flush_lock")
"""The locks of the legacy design, by kind of request."""

WORST: Final = 10


@dataclass(frozen=True, slots=True)
class Place:
    """A lock, or a CPU that ran functions for others, and the chosen requests there; ns.

    cpu          None of a lock
    served       requests that held the lock; functions that the CPU ran for others
    busy_ns      time in which the lock was held, SEND to DONE; in which the CPU ran such a function
    wanted_ns    time in which any request had asked for it and was not through: from START to DONE for a lock, from
                 SEND to EXIT for a CPU
    waited_ns    sum of the waits behind others: for a lock from START until the lock was free, for a CPU the part of
                 SEND to ENTER in which it ran functions of other requests
    waiting      how many waited on average while it was wanted (Little: waited_ns / wanted_ns); None where it never was
    most         how many waited at once
    handed_over  how often somebody was waiting when it became free
    share        busy_ns of the trace; wanted_share: of wanted_ns; None of nothing
    """

    name: str
    cpu: int | None
    served: int
    busy_ns: int
    wanted_ns: int
    waited_ns: int
    waiting: float | None
    most: int
    handed_over: int
    share: float | None
    wanted_share: float | None


@dataclass(frozen=True, slots=True)
class Convoy:
    """Requests that had a place one behind the other, each asked for before the one before was through.

    begin_ns    when the first had it; span_ns: until the last was through
    requests    how many
    initiators  their CPUs, ascending
    waited_ns   sum of what they waited behind each other
    """

    place: str
    begin_ns: int
    span_ns: int
    requests: int
    initiators: tuple[int, ...]
    waited_ns: int


@dataclass(frozen=True, slots=True)
class Convoys:
    """All convoys of two or more at locks, or at CPUs; those with a chosen request in them.

    requests     in them
    mean_length  requests of a convoy; None where there is none
    worst        WORST at most, those with most waited_ns first
    """

    count: int
    requests: int
    mean_length: float | None
    longest_length: int
    longest_span_ns: int
    waited_ns: int
    worst: tuple[Convoy, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Flushes in flight, SEND to DONE, and whether those of different domains meet; idle and unknown ones left out.

    flushes, domains  that count here
    met               flushes that were in flight together with one of another domain
    in_flight_ns      time in which any was; together_ns: in which those of two domains or more were
    """

    flushes: int
    domains: int
    met: int
    in_flight_ns: int
    together_ns: int


class Behind(NamedTuple):
    """By wait: for how long others had the place, and since when (its end where nobody had it); int64 ns."""

    ns: Index
    since: Index


def behind(held: Occupancy, place: Index, begin: Index, end: Index) -> Behind:
    """How much of each of these times the place was occupied."""
    until = np.append(0, np.cumsum(held.end - held.begin))
    ns, since = np.zeros(len(place), np.int64), end.copy()
    for one, rows in rows_by(place):
        low, high = np.searchsorted(held.place, [one, one + 1])
        if low == high:
            continue
        begins, ends = held.begin[low:high], held.end[low:high]

        def passed(time: Index, low: int = low, begins: Index = begins, ends: Index = ends) -> Index:
            at = np.searchsorted(begins, time, side="right") - 1
            inside = np.minimum(time, ends[at]) - begins[at]
            return np.where(at < 0, until[low], until[low + at] + inside)

        first, last = begin[rows], np.maximum(begin[rows], end[rows])
        ns[rows] = passed(last) - passed(first)
        following = np.searchsorted(ends, first, side="right")
        busy = np.maximum(first, begins[np.minimum(following, len(begins) - 1)])
        since[rows] = np.where(ns[rows] > 0, busy, last)
    return Behind(ns, since)


class Levels(NamedTuple):
    """How many spans are open at a place from one moment to the next; int64, by place and time.

    depth  from `time` on; 0 behind the last one of a place
    """

    place: Index
    time: Index
    depth: Index

    @property
    def lasting(self) -> Index:
        """ns, for how long it stays so."""
        return np.diff(self.time, append=self.time[-1:])


def levels(place: Index, begin: Index, end: Index) -> Levels:
    """Of spans in any order; those without length count nowhere."""
    longer = end > begin
    place = np.tile(place[longer], 2)
    time = np.concatenate((begin[longer], end[longer]))
    step = np.repeat([1, -1], int(longer.sum()))
    order = np.lexsort((step, time, place))
    return Levels(place[order], time[order], np.cumsum(step[order]))


class Cover(NamedTuple):
    """By place: ns in which any span was open, and the most at once."""

    ns: dict[int, int]
    most: dict[int, int]


def cover(place: Index, begin: Index, end: Index) -> Cover:
    """Of spans in any order."""
    found = levels(place, begin, end)
    if not len(found.place):
        return Cover({}, {})
    first = np.flatnonzero(np.diff(found.place, prepend=found.place[0] - 1))
    names = found.place[first].tolist()
    ns = np.add.reduceat(np.where(found.depth > 0, found.lasting, 0), first).tolist()
    most = np.maximum.reduceat(found.depth, first).tolist()
    return Cover(dict(zip(names, ns, strict=True)), dict(zip(names, most, strict=True)))


class Waiters(NamedTuple):
    """Functions of chosen requests on their targets: `asked` for at SEND, and what they waited behind others there."""

    services: Services
    asked: Index
    behind: Behind


def waiters(paths: Paths) -> Waiters:
    """All functions of chosen requests, not only those that answered last."""
    requests = paths.requests
    mine = requests.services.take(requests.chosen[requests.services.request] & requests.services.seen)
    asked = np.minimum(requests.send[mine.request], mine.enter)
    return Waiters(mine, asked, behind(paths.cpus, mine.place, asked, mine.enter))


def places(paths: Paths, of: Waiters, trace_ns: int) -> tuple[Place, ...]:
    """Locks, then CPUs, the busiest first."""
    rows = (*_locks(paths, trace_ns), *_cpus(paths, of, trace_ns))
    return tuple(sorted(rows, key=lambda one: (one.cpu is not None, -one.busy_ns, one.name)))


class _Use(NamedTuple):
    """What is known by place, a number of `Occupancy`."""

    served: dict[int, int]
    busy: Cover
    wanted: Cover
    waiting: Cover
    waited: dict[int, int]
    handed_over: dict[int, int]

    def place(self, name: str, cpu: int | None, mine: Sequence[int], trace_ns: int) -> Place:
        """One place in all captures; mine: its number in each."""

        def total(values: dict[int, int]) -> int:
            return sum(values.get(one, 0) for one in mine)

        busy, wanted, waited = total(self.busy.ns), total(self.wanted.ns), total(self.waited)
        return Place(
            name=name,
            cpu=cpu,
            served=total(self.served),
            busy_ns=busy,
            wanted_ns=wanted,
            waited_ns=waited,
            waiting=waited / wanted if wanted else None,
            most=max(self.waiting.most.get(one, 0) for one in mine),
            handed_over=total(self.handed_over),
            share=busy / trace_ns if trace_ns else None,
            wanted_share=busy / wanted if wanted else None,
        )


def _locks(paths: Paths, trace_ns: int) -> Iterator[Place]:
    if paths.requests.model != "legacy":
        return
    lock = lock_of(paths.requests)[paths.rows]
    use = _Use(
        served=_sums(lock, np.ones(len(lock), np.int64)),
        busy=cover(lock, paths.sent, paths.done),
        wanted=cover(lock, paths.start, paths.done),
        waiting=cover(lock, paths.start, paths.owned),
        waited=_sums(lock, behind(paths.locks, lock, paths.start, paths.owned).ns),
        handed_over=_handed_over(lock, paths.start, paths.sent, paths.done),
    )
    for kind, name in enumerate(LOCKS):
        mine = [one for one in use.served if one & 1 == kind]
        if mine:
            yield use.place(name, None, mine, trace_ns)


def _cpus(paths: Paths, of: Waiters, trace_ns: int) -> Iterator[Place]:
    services = of.services
    for_others = paths.requests.initiator[services.request] != services.cpu
    ran = services.take(for_others)
    use = _Use(
        served=_sums(ran.place, np.ones(len(ran.place), np.int64)),
        busy=cover(ran.place, ran.enter, ran.left),
        wanted=cover(ran.place, of.asked[for_others], ran.left),
        waiting=cover(services.place, of.behind.since, services.enter),
        waited=_sums(services.place, of.behind.ns),
        handed_over=_handed_over(services.place, of.asked, services.enter, services.left),
    )
    captures: dict[int, list[int]] = {}
    for one in use.served:
        captures.setdefault(one & (1 << TRACK_BITS) - 1, []).append(one)
    for cpu, mine in captures.items():
        yield use.place(f"CPU {cpu}", cpu, mine, trace_ns)


def _sums(place: Index, values: Index) -> dict[int, int]:
    return {one: int(values[rows].sum()) for one, rows in rows_by(place)}


def _handed_over(place: Index, asked: Index, begin: Index, end: Index) -> dict[int, int]:
    """By place, how often at an end more had asked than had begun."""
    found = {}
    for one, rows in rows_by(place):
        order = rows[np.argsort(begin[rows], kind="stable")]
        came = np.searchsorted(np.sort(asked[order]), end[order], side="left")
        found[one] = int((came > np.arange(1, len(order) + 1)).sum())
    return found


def convoys(paths: Paths) -> dict[str, Convoys]:
    """At locks (`lock`) and at target CPUs (`cpu`)."""
    requests, locks, services = paths.requests, paths.locks, paths.requests.services
    ran = services.take(services.seen)
    ran = ran.take(np.lexsort((ran.left, ran.enter, ran.place)))
    at_locks = _convoys(
        paths,
        locks.place,
        locks.owner,
        requests.start[locks.owner],
        np.where(locks.begin == NULL, requests.send[locks.owner], locks.begin),
        requests.done[locks.owner],
        [LOCKS[one & 1] for one in range(2)],
    )
    at_cpus = _convoys(paths, ran.place, ran.request, requests.send[ran.request], ran.enter, ran.left, None)
    return {"lock": at_locks, "cpu": at_cpus}


def _convoys(
    paths: Paths, place: Index, request: Index, asked: Index, begin: Index, end: Index, names: list[str] | None
) -> Convoys:
    """Of spans by place and begin; names: of locks."""
    requests = paths.requests
    joined: Flags = (place[1:] == place[:-1]) & (asked[1:] != NULL) & (asked[1:] < end[:-1])
    first = np.flatnonzero(np.append(True, ~joined)[: len(place)])
    if not len(first):
        return Convoys(0, 0, None, 0, 0, 0, ())
    length = np.diff(first, append=len(place))
    run = np.repeat(np.arange(len(first)), length)
    since = np.maximum(asked, begin[first][run])
    held = Occupancy.of(place, begin, end, request)
    waited = np.add.reduceat(behind(held, place, since, begin).ns, first)
    span = np.maximum.reduceat(end, first) - begin[first]
    mine = np.flatnonzero((length > 1) & np.logical_or.reduceat(requests.chosen[request], first))
    worst = mine[np.argsort(-waited[mine], kind="stable")[:WORST]]
    return Convoys(
        count=len(mine),
        requests=int(length[mine].sum()),
        mean_length=float(length[mine].mean()) if len(mine) else None,
        longest_length=int(length[mine].max(initial=0)),
        longest_span_ns=int(span[mine].max(initial=0)),
        waited_ns=int(waited[mine].sum()),
        worst=tuple(
            Convoy(
                place=names[int(place[first[one]]) & 1] if names else f"CPU {int(cpu_of(place)[first[one]])}",
                begin_ns=int(begin[first[one]]),
                span_ns=int(span[one]),
                requests=int(length[one]),
                initiators=tuple(np.unique(requests.initiator[request[run == one]]).tolist()),
                waited_ns=int(waited[one]),
            )
            for one in worst.tolist()
        ),
    )


def overlap(requests: Requests) -> Overlap:
    """Of the chosen flushes."""
    rows = requests.rows("flush")
    domain = requests.domain[rows]
    rows = rows[(domain != NOBODY) & (domain != IDLE_DOMAIN)]
    domain, capture, begin = requests.domain[rows], requests.capture[rows], requests.send[rows]
    end = np.maximum(requests.done[rows], begin)
    domains, code = np.unique(domain, return_inverse=True)
    one = capture * max(1, len(domains)) + code
    # Each domain counts once, however many of its flushes are in flight.
    found = levels(one, begin, end)
    before = np.append(0, found.depth)[: len(found.depth)]
    opens, closes = (before == 0) & (found.depth > 0), (before > 0) & (found.depth == 0)
    both = levels(found.place[opens] // max(1, len(domains)), found.time[opens], found.time[closes])
    met = _open(capture, begin, end) > _open(one, begin, end)
    return Overlap(
        flushes=len(rows),
        domains=len(domains),
        met=int(met.sum()),
        in_flight_ns=int(both.lasting[both.depth > 0].sum()),
        together_ns=int(both.lasting[both.depth > 1].sum()),
    )


def _open(group: Index, begin: Index, end: Index) -> Index:
    """Of each span, how many of its group have a time in common with it, itself included; 0 of those without length."""
    count = np.zeros(len(group), np.int64)
    longer = np.flatnonzero(end > begin)
    for _, rows in rows_by(group[longer]):
        mine = longer[rows]
        begun = np.searchsorted(np.sort(begin[mine]), end[mine], side="left")
        count[mine] = begun - np.searchsorted(np.sort(end[mine]), begin[mine], side="right")
    return count

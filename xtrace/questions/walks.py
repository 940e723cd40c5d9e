"""How targets went through the requests in flight, told by ENTER and EXIT and the rule of the lockless design.

A handler walks the mask of active requests once, from the lowest initiator up, and runs the functions that are for
its CPU. No record says when it begins or ends. But functions of one walk have ascending initiators, and a request that
was sent before the function ahead of it ended must be met by the walk that ran that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.episodes.relations import STATES
from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.questions.flight import Flight
from xtrace.questions.requests import Flags, Index, Requests
from xtrace.states import TRACK_BITS

APART: Final = (4, 2, 1, 0.5, 0.25, 0)
ENOUGH: Final = 8
"""An interrupt's way is measured on those that are furthest apart from others, if there are so many of them."""

STRETCH: Final = 0.99
"""Steps within a walk take at most what this part of them does, and longer ones are the exception."""

FAR: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Ran:
    """Functions of which both times were seen, by place and begin.

    request, place, cpu, enter, left  as in `Services`
    initiator, send                   of the request; send NULL where not seen
    own                               of the CPU itself
    kernel                            it hit hypervisor code, as a caller that spins is
    same                              the one ahead ran at the same place
    gap                               ns since that one ended, 0 where there is none
    """

    request: Index
    place: Index
    cpu: Index
    enter: Index
    left: Index
    initiator: Index
    send: Index
    own: Flags
    kernel: Flags
    same: Flags
    gap: Index

    @classmethod
    def of(cls, requests: Requests) -> Ran:
        """All that ran, of whole requests and others."""
        services = requests.services.take(requests.services.seen)
        services = services.take(np.lexsort((services.enter, services.place)))
        initiator = requests.initiator[services.request]
        same = services.place == _ahead(services.place, -1)
        return cls(
            services.request,
            services.place,
            services.cpu,
            services.enter,
            services.left,
            initiator,
            requests.send[services.request],
            services.cpu == initiator,
            services.state == STATES.index("hypervisor"),
            same,
            np.where(same, services.enter - _ahead(services.left, 0), 0),
        )

    @property
    def capture(self) -> Index:
        """Which it belongs to."""
        return self.place >> TRACK_BITS

    @property
    def up(self) -> Flags:
        """Whether it has a higher initiator than the one ahead at the same place."""
        higher: Flags = self.same & (self.initiator > _ahead(self.initiator, -1))
        return higher

    @property
    def met(self) -> Flags:
        """Whether the walk that ran the one ahead must have met it: higher, and sent before that one ended."""
        sent: Flags = self.up & (self.send != NULL) & (self.send <= _ahead(self.left, int(NULL)))
        return sent

    def direct(self) -> Index:
        """Where walks begin that a caller makes itself, as it is in its own mask: the first after its SEND."""
        mine = np.flatnonzero(self.own & (self.send != NULL) & (self.enter >= self.send))
        found = np.zeros(len(mine), np.int64)
        for place, rows in rows_by(self.place[mine]):
            low, high = np.searchsorted(self.place, [place, place + 1])
            found[rows] = low + np.searchsorted(self.enter[low:high], self.send[mine[rows]])
        return found


def _ahead(values: NDArray[Any], fill: int) -> NDArray[Any]:
    """Of each row the value of the one ahead."""
    return np.concatenate((np.full(min(1, len(values)), fill, values.dtype), values[:-1]))


@dataclass(frozen=True, slots=True)
class Walks:
    """Handlers that ran a function: a row each, by place and begin.

    walk        of each row of `ran`
    first, last rows of `ran`
    follows     there is one before at the same place
    direct      called by the CPU itself, not by an interrupt
    begin, end  ns, of its functions; once `measured`, from the first request that it came by to the last
    """

    ran: Ran
    walk: Index
    first: Index
    last: Index
    follows: Flags
    direct: Flags
    begin: Index
    end: Index

    @classmethod
    def split(cls, ran: Ran, together: Flags) -> Walks:
        """Cut where a row is not together with the one ahead, or a caller begins to walk by itself."""
        starts, direct = ~together, ran.direct()
        starts[direct] = True
        first = np.flatnonzero(starts)
        last = np.append(first[1:], len(starts))[: len(first)] - 1
        walk = np.cumsum(starts) - 1
        by_itself = np.zeros(len(first), np.bool_)
        by_itself[walk[direct]] = True
        return cls(ran, walk, first, last, ran.same[first], by_itself, ran.enter[first], ran.left[last])

    def measured(self, flight: Flight, passed: Index, look: int) -> tuple[Walks, Index]:
        """With the times from the first look to the last; and at how many requests each looked, its own included.

        passed: requests that a walk comes by from the row ahead to each row of `ran`; look: ns for each.
        """
        ran, capture = self.ran, self.ran.capture[self.first]
        ahead = flight.below(capture, self.begin, ran.initiator[self.first])
        behind = flight.count(capture, self.end) - flight.below(capture, self.end, ran.initiator[self.last] + 1)
        inside = 1 + passed
        inside[self.first] = 1
        looked: Index = ahead + behind
        if len(self.first):
            looked += np.add.reduceat(inside, self.first)
        return replace(self, begin=self.begin - look * ahead, end=self.end + look * behind), looked

    @property
    def after(self) -> Index:
        """When the one before at the same place ended, NULL where there is none."""
        return np.where(self.follows, _ahead(self.end, int(NULL)), NULL)

    def turns(self) -> Index:
        """Time from the last function of a walk to the first of the next that an interrupt began.

        Only where the initiators tell the two apart.
        """
        clear = self.follows & ~self.ran.up[self.first] & ~self.direct & ~_ahead(self.direct, 0)
        found: Index = self.ran.gap[self.first[clear]]
        return found


class Pace(NamedTuple):
    """What this host takes; ns.

    arrival  SEND to ENTER on a CPU that was in hypervisor code, with nobody in between
    turn     the end of a walk's last function to the first function of a handler directly behind
    empty    of that, what a handler takes that finds nothing
    look     coming by a request
    """

    arrival: int
    turn: int
    empty: int
    look: int


def walked(requests: Requests, flight: Flight) -> tuple[Walks, Index, Pace]:
    """The walks of a trace, at how many requests each looked, and what they were told apart by."""
    ran = Ran.of(requests)
    met, up = ran.met, ran.up
    rows = np.flatnonzero(up)
    passed = np.zeros(len(up), np.int64)
    passed[rows] = flight.between(ran.capture[rows], ran.left[rows - 1], ran.initiator[rows - 1], ran.initiator[rows])
    look = _look(ran.gap[met], passed[met])
    step = ran.gap - look * passed
    # A handler's way out and the next one's way in take longer than a step within a walk.
    quick = max(_least(ran.gap[ran.same & ~up], 0), 0)
    walks = Walks.split(ran, met | up & (step < quick))
    turn = max(_least(walks.turns(), quick), 0)
    # A walk of the caller's own has no way out.
    together = met | up & (step < np.where(_ahead(walks.direct[walks.walk], 0), quick, turn))
    walks, looked = Walks.split(ran, together).measured(flight, passed, look)
    arrival = _arrival(walks, turn)
    # Many targets that answer at once wait for each other's cache line: then steps take longer, too. What its own
    # interrupt cannot have begun yet belongs to the walk ahead.
    longest = int(np.quantile(ran.gap[met], STRETCH)) if met.any() else 0
    early = (ran.send != NULL) & (ran.enter < ran.send + arrival) & (ran.gap <= longest)
    if (up & early & ~together).any():
        walks, looked = Walks.split(ran, together | up & early).measured(flight, passed, look)
    return walks, looked, Pace(arrival, turn, max(turn - max(_least(ran.gap[met], 0), 0), 0), look)


def _look(steps: Index, passed: Index) -> int:
    """What coming by a request adds to a step."""
    longer = passed > 0
    if longer.all() or not longer.any():
        return 0
    each = (steps[longer] - _usual_least(steps[~longer])) // passed[longer]
    return max(_usual_least(each), 0)


def _least(values: Index, default: int) -> int:
    return int(values.min()) if len(values) else default


def _arrival(walks: Walks, turn: int) -> int:
    """SEND to ENTER where it was this interrupt that began the walk, on a CPU that was free to take it."""
    ran, first = walks.ran, walks.first
    order = np.lexsort((ran.send, ran.place))
    sent, place = ran.send[order], ran.place[order]
    alone = np.full(len(order), FAR)
    alone[order[1:]] = np.where(place[1:] == place[:-1], sent[1:] - sent[:-1], FAR)
    took = walks.begin - ran.send[first]
    fresh = ~walks.direct & ~ran.own[first] & (ran.send[first] != NULL) & (took >= 0)
    if not fresh.any():
        return turn
    spell = max(int(np.median(took[fresh])), turn)
    free = np.where(walks.follows, ran.send[first] - walks.after, FAR)
    apart = np.minimum(free, alone[first])
    for hit in (ran.kernel[first], np.ones(len(first), np.bool_)):
        for times in APART:
            found = took[fresh & hit & (apart >= times * spell)]
            if len(found) >= (ENOUGH if times else 1):
                return _usual_least(found)
    return spell


def _usual_least(values: Index) -> int:
    """The least that is not far off: of the shortest stretch that holds half of them, or twice its length below."""
    ordered = np.sort(values)
    half = len(ordered) // 2
    lengths = ordered[half:] - ordered[: len(ordered) - half]
    place = int(np.argmin(lengths))
    least, most = int(ordered[0]), int(ordered[-1])
    low = int(ordered[place]) - 2 * int(lengths[place])
    return int(ordered[np.searchsorted(ordered, min(max(low, least), most))])


def late(walks: Walks, pace: Pace) -> Flags:
    """Which functions ran before their own interrupt had come: in a walk that was under way by then.

    A walk that the caller itself makes takes no interrupt, so those of all that it runs are still to come.
    """
    ran, walk = walks.ran, walks.walk
    asked = ~ran.own & (ran.send != NULL)
    found: Flags = asked & ((ran.send + pace.arrival > walks.begin[walk]) | walks.direct[walk])
    in_time, too_late = (np.bincount(walk[some], minlength=len(walks.first)) > 0 for some in (asked & ~found, found))
    # What nothing else can have begun was begun by the interrupt that was sent first, however long that took.
    recent = walks.begin - walks.after <= pace.arrival + pace.turn
    behind = walks.follows & _ahead(too_late, 0) & recent
    alone = ~walks.direct & ~in_time & ~behind
    order = np.flatnonzero(asked)[np.lexsort((ran.send[asked], walk[asked]))]
    earliest = order[np.flatnonzero(np.diff(walk[order], prepend=-1))]
    found[earliest[alone[walk[earliest]]]] = False
    return found


def in_vain(walks: Walks, pace: Pace, too_late: Flags) -> tuple[Index, Index]:
    """Handlers that found nothing to do: the row of `Ran` whose interrupt began each, and when it was, ns.

    An interrupt that comes too late has a handler run as soon as the CPU is free. Others that come meanwhile are one
    with it. It found something where the next walk begins then.
    """
    rows, times = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for row, time in _in_vain(walks, pace, too_late):
        rows.append(row)
        times.append(time)
    return np.concatenate(rows), np.concatenate(times)


def _in_vain(walks: Walks, pace: Pace, too_late: Flags) -> Iterator[tuple[Index, Index]]:
    """Rank by rank: the first interrupt that came too late for each walk, then the second."""
    rows = np.flatnonzero(too_late)
    rows = rows[np.lexsort((walks.ran.send[rows], walks.walk[rows]))]
    start = np.flatnonzero(np.diff(walks.walk[rows], prepend=-1))
    count = np.diff(np.append(start, len(rows)))
    at = walks.walk[rows[start]]
    free = walks.end[at] + pace.turn
    before = np.full(len(at), NULL)
    follows = np.append(walks.follows, False)
    direct = np.append(walks.direct, False)
    begins = np.append(walks.begin, FAR)
    open_ = np.arange(len(at))
    rank = 0
    while len(open_ := open_[count[open_] > rank]):
        row = rows[start[open_] + rank]
        due = walks.ran.send[row] + pace.arrival
        begin = np.maximum(due, free[open_])
        # A caller that walks by itself has interrupts off until it is through.
        while (held := follows[at[open_] + 1] & direct[at[open_] + 1] & (begin >= begins[at[open_] + 1])).any():
            at[open_[held]] += 1
            free[open_[held]] = walks.end[at[open_[held]]] + pace.turn
            begin = np.maximum(due, free[open_])
        following = at[open_] + 1
        taken = follows[following] & ~direct[following] & (begins[following] < begin + pace.empty)
        new = ~taken & (due > before[open_])
        yield row[new], begin[new]
        before[open_[new]] = begin[new]
        free[open_[new]] = begin[new] + pace.empty
        rank += 1

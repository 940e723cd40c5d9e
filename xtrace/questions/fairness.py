"""In which order requests are served, against the order in which they came, and whom that makes wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from xtrace.contract import frame
from xtrace.episodes.assemble import KIND_NAMES
from xtrace.grouping import rows_by
from xtrace.questions import contests
from xtrace.questions.bias import Difference, difference_of_rates
from xtrace.questions.contests import Contest, Waiter
from xtrace.questions.meetings import Queue, at_locks, at_targets
from xtrace.questions.requests import Index, Requests
from xtrace.statistics import BLOCKS, LEVEL

if TYPE_CHECKING:
    import pandas as pd

Bias = Literal["low first", "high first", "none", "too few"]
Where = Literal["lock", "targets"]

NOTABLE: Final = 0.05
"""A smaller difference of rates is none that anybody would act on."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Meetings of an earlier and a later request, and how often the later one was served first."""

    meetings: int
    passed: int


@dataclass(frozen=True, slots=True)
class Order:
    """Order of service against order of arrival at the lock, or at the targets.

    Two requests meet where the later comes while the earlier waits. At a lock they come with START and are served with
    SEND, at a target they come with SEND and are served with ENTER.

    lower, higher  meetings in which the later one's CPU has the lower number, and the higher
    difference     of the two rates, with its 95 % interval; None of too few
    bias           whom the order favours, where that is certain and notable
    """

    where: Where
    meetings: int
    passed: int
    lower: Rate
    higher: Rate
    difference: Difference | None
    bias: Bias


@dataclass(frozen=True, slots=True)
class Place:
    """A target CPU, or None for the lock; waits there, meetings, later ones served first, the longest wait in ns."""

    cpu: int | None
    waits: int
    meetings: int
    passed: int
    longest_ns: int


@dataclass(frozen=True, slots=True)
class Overtaken:
    """How often requests were passed by later ones, at all places together.

    requests, mean, most  how many were; how often one was on average over all requests, and the most of one
    episode, initiator, at_ns  the one passed most often, None of none
    starved_ns, starved_episode, starved_initiator  the longest wait at one place of a request that was passed there
    """

    requests: int
    mean: float
    most: int
    episode: int | None
    initiator: int | None
    at_ns: int | None
    starved_ns: int | None
    starved_episode: int | None
    starved_initiator: int | None


@dataclass(frozen=True, slots=True)
class Fairness:
    """Fairness of complete calls, or of flushes; a flush and the call that carries it are one request.

    orders    at the lock (legacy) and at the targets
    places    lock and target CPUs, most meetings first
    waiters   what requests cost, by initiating CPU
    contest   those that compete; None where nobody does
    """

    kind: str
    requests: int
    orders: tuple[Order, ...]
    places: tuple[Place, ...]
    overtaken: Overtaken
    waiters: tuple[Waiter, ...]
    contest: Contest | None

    def df_waiters(self) -> pd.DataFrame:
        """One row an initiating CPU, by number: what its requests cost it.

        Columns: cpu (uint16), count (int64), mean_ns, low_ns, high_ns (Float64, the mean and its 95 % interval, <NA>
        where it cannot be said), p50_ns, p90_ns, p99_ns (Float64), max_ns (int64).
        """
        from dataclasses import asdict

        times = dict.fromkeys(("mean_ns", "low_ns", "high_ns", "p50_ns", "p90_ns", "p99_ns"), "Float64")
        return frame(map(asdict, self.waiters), {"cpu": "uint16", "count": "int64"} | times | {"max_ns": "int64"})

    def df_places(self) -> pd.DataFrame:
        """One row a place, most meetings first: order of service there.

        Columns: cpu (UInt16, <NA> for the lock), waits, meetings, passed (int64), longest_ns (int64).
        """
        from dataclasses import asdict

        counts = dict.fromkeys(("waits", "meetings", "passed", "longest_ns"), "int64")
        return frame(map(asdict, self.places), {"cpu": "UInt16"} | counts)


def fairness(requests: Requests, kind: str) -> Fairness:
    """Of the chosen requests of a kind; those of other kinds, and those not chosen, may pass them at targets."""
    return _of_kind(requests, kind, _queues(requests), contests.paid(requests))


def every_kind(requests: Requests) -> dict[str, Fairness]:
    """Of calls and of flushes."""
    queues, cost = _queues(requests), contests.paid(requests)
    return {kind: _of_kind(requests, kind, queues, cost) for kind in KIND_NAMES}


def _queues(requests: Requests) -> dict[Where, Queue]:
    queues: dict[Where, Queue] = {}
    if requests.model == "legacy":
        queues["lock"] = at_locks(requests)
    queues["targets"] = at_targets(requests)
    return queues


def _of_kind(requests: Requests, kind: str, queues: Mapping[Where, Queue], paid: Index) -> Fairness:
    rows = requests.rows(kind)
    chosen = np.zeros(len(requests.episode), np.bool_)
    chosen[rows] = True
    orders, places = [], []
    passed = np.zeros(len(requests.episode), np.int64)
    starved: list[tuple[int, int]] = []
    for where, queue in queues.items():
        found = _Passing(requests, queue, chosen)
        orders.append(found.order(where))
        places += found.places(where)
        passed += np.bincount(queue.request, found.passed, len(passed)).astype(np.int64)
        starved += found.starved()
    cost = paid[rows]
    return Fairness(
        kind,
        len(rows),
        tuple(orders),
        tuple(sorted(places, key=lambda one: (-one.meetings, -one.waits, -1 if one.cpu is None else one.cpu))),
        _overtaken(requests, passed[rows], rows, starved),
        contests.waiters(requests.initiator[rows], cost),
        contests.contest(requests, rows, cost) if len(rows) else None,
    )


class _Passing:
    """What the chosen waits of a queue met; passed: by wait, how many later ones were served before it."""

    def __init__(self, requests: Requests, queue: Queue, chosen: NDArray[np.bool_]) -> None:
        self._requests, self._queue = requests, queue
        self._mine = chosen[queue.request]
        cpu = requests.initiator[queue.request]
        met = np.where(self._mine, queue.met, 0)
        # Blocks of equally many meetings, in order of time.
        order = np.argsort(queue.arrived, kind="stable")
        before = np.cumsum(met[order]) - met[order]
        block = np.empty(len(order), np.int64)
        block[order] = before * BLOCKS // max(int(met.sum()), 1)
        self.passed = np.zeros(len(met), np.int64)
        self.met = np.zeros(len(met), np.int64)
        self._by_block = np.zeros((2, 2, BLOCKS))
        for meetings in queue.meetings():
            other = self._mine[meetings.first] & (cpu[meetings.first] != cpu[meetings.second])
            first, second, passed = (values[other] for values in meetings)
            self.met += np.bincount(first, minlength=len(met))
            self.passed += np.bincount(first[passed], minlength=len(met))
            higher = (cpu[second] > cpu[first]).astype(np.int64)
            for place, some in enumerate((passed, slice(None))):
                cell = (higher * BLOCKS + block[first])[some]
                self._by_block[place] += np.bincount(cell, minlength=2 * BLOCKS).reshape(2, BLOCKS)

    def order(self, where: Where) -> Order:
        passed, met = self._by_block
        difference = difference_of_rates(passed, met)
        bias: Bias = "too few"
        if difference is not None:
            certain = difference.p < LEVEL and abs(difference.difference) >= NOTABLE
            bias = "none" if not certain else "low first" if difference.difference > 0 else "high first"
        rates = [Rate(int(some.sum()), int(which.sum())) for which, some in zip(passed, met, strict=True)]
        return Order(where, int(met.sum()), int(passed.sum()), rates[0], rates[1], difference, bias)

    def places(self, where: Where) -> list[Place]:
        queue = self._queue
        mine = np.flatnonzero(self._mine)
        # Those of several captures are one.
        cpus = queue.place[mine] & 0x3FFF if where == "targets" else np.zeros(len(mine), np.int64)
        return [
            Place(
                cpu if where == "targets" else None,
                len(rows),
                int(self.met[mine[rows]].sum()),
                int(self.passed[mine[rows]].sum()),
                int((queue.served - queue.arrived)[mine[rows]].max()),
            )
            for cpu, rows in rows_by(cpus)
        ]

    def starved(self) -> list[tuple[int, int]]:
        """The longest wait of one that was passed, and its request, as a list of at most one."""
        rows = np.flatnonzero(self.passed)
        if not len(rows):
            return []
        took = (self._queue.served - self._queue.arrived)[rows]
        most = int(np.argmax(took))
        return [(int(took[most]), int(self._queue.request[rows[most]]))]


def _overtaken(requests: Requests, passed: Index, rows: Index, starved: list[tuple[int, int]]) -> Overtaken:
    most = int(passed.max(initial=0))
    one = int(rows[np.argmax(passed)]) if most else None
    took, victim = max(starved, default=(None, None), key=lambda found: found[0])
    return Overtaken(
        requests=int((passed > 0).sum()),
        mean=float(passed.mean()) if len(passed) else 0.0,
        most=most,
        episode=None if one is None else int(requests.episode[one]),
        initiator=None if one is None else int(requests.initiator[one]),
        at_ns=None if one is None else int(requests.start[one]),
        starved_ns=took,
        starved_episode=None if victim is None else int(requests.episode[victim]),
        starved_initiator=None if victim is None else int(requests.initiator[victim]),
    )

"""What requests that compete cost by CPU: the busiest mix of callers and masks, while all its callers call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from xtrace.aftermath import served_after
from xtrace.callers import bucket, callers_at_work, while_all_call
from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.questions.bias import jain, rank_correlation
from xtrace.questions.requests import Index, Requests
from xtrace.statistics import MIN_BLOCKS, Sample, change_of_mean, mean_with_interval

ENOUGH: Final = 2 * MIN_BLOCKS
"""Requests of each caller that a contest needs at least, on average."""

NOTABLE: Final = 0.1
"""A smaller difference between CPUs is none that anybody would act on."""

CERTAIN: Final = 0.01
"""At 0.05 one in fourteen fair emulated hosts seemed to be unfair, at this one in forty (tests/test_fairness.py)."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """What requests of one CPU cost it, ns: START to DONE, and what its CPU served for others directly after.

    low_ns, high_ns  95 % interval of the mean, None of too few
    """

    cpu: int
    count: int
    mean_ns: float
    low_ns: float | None
    high_ns: float | None
    p50_ns: float
    p90_ns: float
    p99_ns: float
    max_ns: int


@dataclass(frozen=True, slots=True)
class Halves:
    """The callers with the lower numbers against those with the higher ones; ns.

    percent, low, high  change of the mean from the lower to the higher, with its 95 % interval
    differ              the test and the interval say that there is a difference, and it is a notable one
    """

    lower: tuple[int, ...]
    higher: tuple[int, ...]
    lower_mean_ns: float
    higher_mean_ns: float
    lower_p90_ns: float
    higher_p90_ns: float
    percent: float | None
    low: float | None
    high: float | None
    p: float | None
    differ: bool


@dataclass(frozen=True, slots=True)
class Contest:
    """Requests that compete, by CPU.

    mask, callers  CPUs in the mask and callers at work, lowest and highest
    waiters        by CPU number
    rho, p         Spearman's rank correlation of cost and CPU number, and how likely that much is without any
    jain_cost, jain_count  Jain's index of the mean costs, and of how many requests each had served
    halves         None with one caller
    last           the CPU with the largest mean; None with one caller
    apart          its interval meets nobody else's
    """

    mask: tuple[int, int]
    callers: tuple[int, int]
    waiters: tuple[Waiter, ...]
    rho: float | None
    p: float | None
    jain_cost: float | None
    jain_count: float | None
    halves: Halves | None
    last: int | None
    apart: bool


def paid(requests: Requests) -> Index:
    """What each request cost its caller, ns, NULL where START or DONE was not seen."""
    seen = (requests.start != NULL) & (requests.done != NULL)
    services = requests.services
    ran = services.take(services.seen)
    cost = np.full(len(seen), NULL)
    rows = np.flatnonzero(seen)
    after = np.zeros(len(rows), np.int64)
    for capture, mine in rows_by(requests.capture[rows]):
        one, theirs = rows[mine], requests.capture[ran.request] == capture
        after[mine] = served_after(
            requests.initiator[one],
            requests.start[one],
            requests.done[one],
            ran.cpu[theirs],
            ran.enter[theirs],
            ran.left[theirs],
        )
    cost[rows] = requests.done[rows] - requests.start[rows] + after
    return cost


def waiters(cpu: Index, cost: Index) -> tuple[Waiter, ...]:
    """By CPU, of requests in order of time."""
    return tuple(_waiter(one, cost[rows]) for one, rows in rows_by(cpu))


def _waiter(cpu: int, cost: Index) -> Waiter:
    values = cost.astype(np.float64)
    mean = mean_with_interval(_sample(values))
    p50, p90, p99 = np.quantile(values, [0.5, 0.9, 0.99]).tolist()
    return Waiter(cpu, len(cost), mean.mean, mean.low, mean.high, p50, p90, p99, int(cost.max()))


def contest(requests: Requests, rows: Index, cost: Index) -> Contest | None:
    """The busiest contest of these requests of one kind, in order of start; None where nobody competes.

    cost: of each of them. The busiest has the most callers, then the most CPUs in the mask.
    """
    initiator, mask = requests.initiator[rows], requests.n_targets[rows]
    callers = callers_at_work(requests.start[rows], initiator.astype(np.uint16))
    cell = bucket(callers) << 8 | bucket(mask)
    for _, mine in reversed(list(rows_by(cell))):
        chosen = mine[while_all_call(requests.start[rows[mine]], initiator[mine])]
        most = int(callers[mine].max())
        if most > 1 and len(chosen) >= ENOUGH * most and len(np.unique(initiator[chosen])) > 1:
            return _contest(initiator[chosen], mask[chosen], callers[chosen], cost[chosen])
    return None


def _contest(cpu: Index, mask: Index, callers: Index, cost: Index) -> Contest:
    found = waiters(cpu, cost)
    correlation = rank_correlation(cpu, cost)
    last = max(found, key=lambda one: one.mean_ns)
    others = [one for one in found if one is not last]
    reach = max(one.mean_ns if one.high_ns is None else one.high_ns for one in others)
    return Contest(
        mask=(int(mask.min()), int(mask.max())),
        callers=(int(callers.min()), int(callers.max())),
        waiters=found,
        rho=correlation.rho if correlation else None,
        p=correlation.p if correlation else None,
        jain_cost=jain(np.array([one.mean_ns for one in found])),
        jain_count=jain(np.array([one.count for one in found], np.float64)),
        halves=_halves(cpu, cost, [one.cpu for one in found]),
        last=last.cpu,
        apart=last.low_ns is not None and last.low_ns > reach,
    )


def _halves(cpu: Index, cost: Index, cpus: list[int]) -> Halves:
    # Of an odd number the one in the middle is in neither.
    size = len(cpus) // 2
    lower, higher = cpus[:size], cpus[len(cpus) - size :]
    low, high = (cost[np.isin(cpu, some)].astype(np.float64) for some in (lower, higher))
    change = change_of_mean(_sample(low), _sample(high))
    # Where a damaged trace has clocks that go back, a cost may be below 0.
    ratio = 1.0 if change.percent is None else max(1 + change.percent / 100, 1e-9)
    notable = change.percent is not None and bool(abs(np.log(ratio)) >= np.log1p(NOTABLE))
    certain = change.p is not None and change.p < CERTAIN and change.verdict in ("faster", "slower")
    return Halves(
        tuple(lower),
        tuple(higher),
        float(low.mean()),
        float(high.mean()),
        float(np.quantile(low, 0.9)),
        float(np.quantile(high, 0.9)),
        change.percent,
        change.low,
        change.high,
        change.p,
        bool(notable and certain),
    )


def _sample(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Sample:
    return Sample(values, np.zeros(len(values), np.int64))

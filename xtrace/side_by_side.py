"""Who waits for whom, whether it is fair and who pays, on both sides of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from xtrace.questions.answers import Answers
    from xtrace.questions.contests import Contest
    from xtrace.questions.fairness import Fairness, Order, Rate
    from xtrace.sides import Kind

Topic = Literal["waiting", "fairness", "cost"]
Unit = Literal["ns", "share", "number"]

LOST_SHARE: Final = "lost to others, part of the time paid"

MAX_DOMAINS: Final = 8


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure on both sides, of all runs of a side together; None where it cannot be said.

    unit  ns; share: 0 to 1; number: any other
    """

    topic: Topic
    name: str
    unit: Unit
    before: float | None
    after: float | None


def figures(before: Sequence[Answers], after: Sequence[Answers], kind: Kind) -> tuple[Figure, ...]:
    """Of calls or flushes, by topic."""
    sides = (before, after)
    return (*_waiting(sides, kind), *_fairness(sides, kind), *_cost(sides, kind))


_Sides = tuple["Sequence[Answers]", "Sequence[Answers]"]


def _both(topic: Topic, name: str, unit: Unit, values: Iterable[float | None]) -> Figure:
    before, after = values
    return Figure(topic, name, unit, before, after)


def _ratio(of: float, among: float) -> float | None:
    return of / among if among else None


def _waiting(sides: _Sides, kind: Kind) -> Iterator[Figure]:
    spent = [[one.contention.spent[kind] for one in side] for side in sides]

    def line(name: str, part: str, whole: str, unit: Unit) -> Figure:
        sums = [[sum(getattr(one, column) for one in side) for column in (part, whole)] for side in spent]
        return _both("waiting", name, unit, (_ratio(*pair) for pair in sums))

    yield line(LOST_SHARE, "lost_ns", "total_ns", "share")
    yield line("lost to others, mean", "lost_ns", "requests", "ns")
    yield line("  waiting for the lock", "lock_ns", "requests", "ns")
    yield line("  queueing at the last target", "queue_ns", "requests", "ns")
    yield line("  serving others meanwhile", "serving_ns", "requests", "ns")
    yield line("requests that lost any time", "losers", "requests", "share")


def _fairness(sides: _Sides, kind: Kind) -> Iterator[Figure]:
    found = [[one.fairness[kind] for one in side] for side in sides]
    orders = [[order for one in side for order in one.orders] for side in found]

    def rate(name: str, rates: Callable[[Order], Rate | Order]) -> Figure:
        sums = [(sum(rates(one).passed for one in side), sum(rates(one).meetings for one in side)) for side in orders]
        return _both("fairness", name, "share", (_ratio(*pair) for pair in sums))

    yield rate("passed by a later one, of those that met one", lambda order: order)
    yield rate("  of a CPU with a lower number", lambda order: order.lower)
    yield rate("  of a CPU with a higher number", lambda order: order.higher)
    passed = [
        (sum(one.overtaken.mean * one.requests for one in side), sum(one.requests for one in side)) for side in found
    ]
    yield _both("fairness", "times passed, mean", "number", (_ratio(*pair) for pair in passed))
    starved = ([one.overtaken.starved_ns or 0 for one in side] for side in found)
    yield _both(
        "fairness", "longest wait of one that was passed", "ns", (max(side, default=0) or None for side in starved)
    )
    yield _of_contests("Jain's index of cost, while all compete", found, lambda one: one.jain_cost)
    yield _of_contests("rank correlation of cost and CPU number", found, lambda one: one.rho)


def _of_contests(name: str, found: Sequence[Sequence[Fairness]], value: Callable[[Contest], float | None]) -> Figure:
    """The mean over runs."""
    some = ([value(one.contest) for one in side if one.contest is not None] for side in found)
    known = ([one for one in side if one is not None] for side in some)
    return _both("fairness", name, "number", (_ratio(sum(side), len(side)) for side in known))


def _cost(sides: _Sides, kind: Kind) -> Iterator[Figure]:
    accounts = [[row for one in side for row in one.cost.accounts if row.kind == kind] for side in sides]
    known = [any(one.cost.known for one in side) for side in sides]
    stolen = [sum(row.lost_ns for row in side) for side in accounts]
    requests = [sum(one.contention.spent[kind].requests for one in side) for side in sides]
    taken = (_ratio(*sums) if told else None for told, *sums in zip(known, stolen, requests, strict=True))
    yield _both("cost", "taken from vCPUs on targets, a request", "ns", taken)
    every = [row for side in accounts for row in side]
    total = {
        domain: sum(row.cost_ns for row in every if row.domain == domain) for domain in {row.domain for row in every}
    }
    for domain in sorted(total, key=lambda one: (-total[one], one))[:MAX_DOMAINS]:
        mine = [[row for row in side if row.domain == domain] for side in accounts]
        name = f"d{domain}"
        yield _both("cost", f"{name} paid as caller", "ns", (sum(row.paid_ns for row in side) for side in mine))
        yield _both("cost", f"{name} lost on targets", "ns", (sum(row.lost_ns for row in side) for side in mine))

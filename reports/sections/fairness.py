"""Fairness: whom the order of service favours, and what that costs whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.reports import parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from xtrace.questions.contests import Contest, Halves, Waiter
    from xtrace.questions.fairness import Fairness, Order, Rate

FEW_CALLERS: Final = 8
"""Of so many callers each is worth a look, of more the halves are."""
IN_ORDER: Final = 0.01
LAST_BY: Final = 1.1
NOTABLE: Final = 0.1
MAX_FACTOR: Final = 100


def answer(found: Mapping[str, Fairness]) -> Iterator[str]:
    """The verdict on calls and on flushes, as far as they carry one."""
    for one in found.values():
        yield from verdict(one)


def verdict(one: Fairness) -> Iterator[str]:
    """Whom the order favours, and who waits longest."""
    nouns = KIND_NOUNS[one.kind]
    biased = [order for order in one.orders if order.bias in ("low first", "high first")]
    for order in biased:
        yield _bias(order, nouns)
    if not biased:
        yield from (_unbiased(order, one.kind) for order in one.orders if order.bias == "none")
    if one.contest is not None:
        yield from _cost(one.contest, nouns, biased=bool(biased))


def place(order: Order, kind: str) -> str:
    """What requests wait for there."""
    return f"{kind}_lock" if order.where == "lock" else "targets"


def _bias(order: Order, nouns: str) -> str:
    first, second = (order.lower, order.higher) if order.bias == "low first" else (order.higher, order.lower)
    which, other = ("lower", "higher") if order.bias == "low first" else ("higher", "lower")
    found = order.difference
    assert found is not None  # noqa: S101 a bias rests on a difference
    low, high = sorted((abs(found.low), abs(found.high)))
    return (
        f"{'Low' if order.bias == 'low first' else 'High'} CPU numbers are served first: where two {nouns} waited at a "
        f"{'lock' if order.where == 'lock' else 'target'} together, the later one was served first in {_share(first)} "
        f"of {units.count(first.meetings)} cases if its CPU had the {which} number, in {_share(second)} of "
        f"{units.count(second.meetings)} if the {other} ({100 * abs(found.difference):.0f} points apart, 95 % interval "
        f"{100 * low:.0f} to {100 * high:.0f})."
    )


def _unbiased(order: Order, kind: str) -> str:
    nouns = KIND_NOUNS[kind]
    where = place(order, kind) if order.where == "lock" else "the targets"
    if order.passed <= IN_ORDER * order.meetings:
        passed = f"{units.count(order.passed)} was" if order.passed == 1 else f"{units.count(order.passed)} were"
        return (
            f"{nouns.capitalize()} are served in order of arrival at {where}: of {units.count(order.meetings)} that "
            f"waited there when another came {passed if order.passed else 'none was'} passed."
        )
    return (
        f"{nouns.capitalize()} are not always served in order of arrival at {where}, but it cannot be shown that "
        f"this favours a CPU number: {_share(order.lower)} were passed from lower numbers, {_share(order.higher)} from "
        "higher ones."
    )


def _share(rate: Rate) -> str:
    if not rate.meetings:
        return "none"
    share = rate.passed / rate.meetings
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _cost(one: Contest, nouns: str, *, biased: bool) -> Iterator[str]:
    where = f"With {_range(one.callers)} callers and {_cpus(one.mask)} in the mask"
    halves = one.halves
    if halves is None:
        return
    if halves.differ and len(one.waiters) > 2:
        first, last = ("lower", "higher") if (halves.percent or 0) > 0 else ("higher", "lower")
        sides = {
            "lower": (halves.lower, halves.lower_mean_ns, halves.lower_p90_ns),
            "higher": (halves.higher, halves.higher_mean_ns, halves.higher_p90_ns),
        }
        (some, mean, p90), (others, theirs, theirs_p90) = sides[first], sides[last]
        yield (
            f"{where}, CPUs {units.numbers(list(some))} wait less than {units.numbers(list(others))}: "
            f"{units.time(mean)} on average against {units.time(theirs)}, 90th percentile {units.time(p90)} against "
            f"{units.time(theirs_p90)} (means, higher numbers against lower: {units.percent(halves.percent)} %, 95 % "
            f"interval {units.percent(halves.low)} to {units.percent(halves.high)})."
        )
    elif not biased:
        yield _alike(one, where)
    elif len(one.waiters) <= FEW_CALLERS:
        yield from _last(one, nouns, where)
    else:
        yield (
            f"{where}, what that costs is not certain: CPUs {units.numbers(list(halves.higher))} wait "
            f"{units.percent(halves.percent)} % longer than {units.numbers(list(halves.lower))} on average, 95 % "
            f"interval {units.percent(halves.low)} to {units.percent(halves.high)}."
        )


def _last(one: Contest, nouns: str, where: str) -> Iterator[str]:
    last = next(waiter for waiter in one.waiters if waiter.cpu == one.last)
    others = [waiter for waiter in one.waiters if waiter is not last]
    means, worst = [waiter.mean_ns for waiter in others], max(waiter.max_ns for waiter in others)
    if last.mean_ns < LAST_BY * max(means):
        yield _alike(one, where)
        return
    known = last.low_ns is not None
    interval = f" (95 % interval {units.time(last.low_ns)} to {units.time(last.high_ns)})" if known else ""
    yield (
        f"{where}, CPU {last.cpu} is served last: {units.time(last.mean_ns)} on average{interval} and "
        f"{units.time(last.max_ns)} at worst, the others {units.time(min(means))} to {units.time(max(means))} and "
        f"{units.time(worst)}."
    )
    if not one.apart:
        factor = _more(last, others)
        yield (
            f"By how much is not certain: after {units.count(last.count)} {nouns} of CPU {last.cpu} its interval still "
            f"meets those of others; {f'about {factor} times' if factor else 'many times'} as many would tell them "
            "apart."
        )


def _alike(one: Contest, where: str) -> str:
    spread = f"the means are within {_spread(one.waiters):.0f} %"
    if _spread(one.waiters) < 100 * NOTABLE:
        return f"{where}, no CPU waits notably longer than the others: {spread}."
    return f"{where}, that a CPU number waits longer cannot be shown: {spread}, and chance makes as much."


def _more(last: Waiter, others: list[Waiter]) -> int | None:
    """How many times as many requests would shrink the intervals until they do not meet; None: not to be foreseen."""
    next_ = max(others, key=lambda one: one.mean_ns)
    if last.low_ns is None or next_.high_ns is None or last.mean_ns <= next_.mean_ns:
        return None
    reach = (last.mean_ns - last.low_ns) + (next_.high_ns - next_.mean_ns)
    factor = ceil((reach / (last.mean_ns - next_.mean_ns)) ** 2)
    return factor if 1 < factor <= MAX_FACTOR else None


def _spread(waiters: tuple[Waiter, ...]) -> float:
    means = [one.mean_ns for one in waiters]
    return 100 * (max(means) / max(min(means), 1e-9) - 1)


def _range(values: tuple[int, int]) -> str:
    return str(values[0]) if values[0] == values[1] else f"{values[0]}-{values[1]}"


def _cpus(values: tuple[int, int]) -> str:
    return "1 CPU" if values == (1, 1) else f"{_range(values)} CPUs"


def section(found: Mapping[str, Fairness]) -> Section:
    """The verdict, then order of service, overtaking, and what requests cost by CPU."""
    shown = [one for one in found.values() if one.requests]
    text = [*answer(found), *(few for one in shown for few in _too_few(one))]
    tables: list[Table] = []
    for one in shown:
        tables += _tables(one)
    return Section(
        "fairness", "Is it fair", tuple(text or ["No request of this selection is complete."]), (), tuple(tables)
    )


def _too_few(one: Fairness) -> Iterator[str]:
    nouns = KIND_NOUNS[one.kind]
    for order in one.orders:
        if order.bias != "too few":
            continue
        if not order.meetings:
            yield f"No {one.kind} came to the {place(order, one.kind)} while another waited there."
        else:
            yield (
                f"{nouns.capitalize()} met {units.count(order.meetings)} times at the {place(order, one.kind)}: too "
                "few to tell whom the order favours."
            )
    if one.contest is None:
        yield f"Too few {nouns} compete to tell whether a CPU waits longer than others."


def _tables(one: Fairness) -> Iterator[Table]:
    nouns = KIND_NOUNS[one.kind]
    met = [order for order in one.orders if order.meetings]
    if met:
        rows = []
        for order in met:
            found = order.difference
            points = "–" if found is None else f"{100 * found.difference:+.0f}".replace("-", "−")
            reach = "" if found is None else f"{100 * found.low:+.0f} … {100 * found.high:+.0f}".replace("-", "−")
            rows.append(
                (
                    Cell(place(order, one.kind)),
                    parts.count(order.meetings),
                    parts.count(order.passed),
                    _rate(order.lower),
                    _rate(order.higher),
                    Cell(points, None if found is None else found.difference),
                    Cell(reach),
                    Cell("–" if found is None else f"{found.p:.2g}", None if found is None else found.p),
                    Cell(order.bias, tone="bad" if order.bias in ("low first", "high first") else ""),
                )
            )
        heads = (
            Head("at", False),
            Head("met", title="an earlier one waited when a later one came"),
            Head("passed", title="the later one was served first"),
            Head("from lower", title="passed, of those that met a later one of a CPU with a lower number"),
            Head("from higher"),
            Head("points", title="difference of the two rates"),
            Head("95 % interval"),
            Head("p"),
            Head("verdict", False),
        )
        yield Table(f"Order of service of {nouns} against order of arrival", heads, tuple(rows))
        yield _overtaken(one)
    if one.contest is not None:
        callers, mask = _range(one.contest.callers), _cpus(one.contest.mask)
        yield _waiters(f"What {nouns} cost while {callers} callers compete, {mask} in the mask", one.contest.waiters)
        yield _figures(one.contest)
    yield _waiters(f"What all {nouns} cost, by initiating CPU", one.waiters)
    places = [here for here in one.places if here.meetings]
    if len(places) > 1:
        yield parts.table(
            f"Where {nouns} wait together",
            (Head("at", False), *map(Head, ("waits", "met", "passed", "longest"))),
            [
                (
                    Cell(f"{one.kind}_lock" if here.cpu is None else f"CPU {here.cpu}", here.cpu),
                    parts.count(here.waits),
                    parts.count(here.meetings),
                    parts.count(here.passed),
                    parts.time(here.longest_ns),
                )
                for here in places
            ],
            "places",
        )


def _rate(rate: Rate) -> Cell:
    share = rate.passed / rate.meetings if rate.meetings else None
    return Cell(f"{_share(rate)} of {units.count(rate.meetings)}", share)


def _overtaken(one: Fairness) -> Table:
    found = one.overtaken
    rows = [
        (
            "passed by later ones",
            f"{units.count(found.requests)} of {units.count(one.requests)} {KIND_NOUNS[one.kind]}",
        ),
        ("times passed, mean", f"{found.mean:.3f}"),
    ]
    if found.episode is not None and found.at_ns is not None:
        rows.append(
            (
                "times passed, most",
                f"{found.most}: episode {found.episode} of CPU {found.initiator} at {found.at_ns / 1e9:.6f} s",
            )
        )
    if found.starved_ns is not None:
        rows.append(
            (
                "longest wait while passed",
                f"{units.time(found.starved_ns)}: episode {found.starved_episode} of CPU {found.starved_initiator}",
            )
        )
    return Table(
        f"Overtaken {KIND_NOUNS[one.kind]}",
        (Head("", False), Head("", False)),
        tuple((Cell(name), Cell(text)) for name, text in rows),
    )


def _waiters(caption: str, waiters: tuple[Waiter, ...]) -> Table:
    heads = (Head("CPU"), *map(Head, ("mean", "95 % from", "to", "p50", "p90", "p99", "max", "n")))
    rows = [
        (
            Cell(str(one.cpu), one.cpu),
            *(
                parts.time(value)
                for value in (one.mean_ns, one.low_ns, one.high_ns, one.p50_ns, one.p90_ns, one.p99_ns, one.max_ns)
            ),
            parts.count(one.count),
        )
        for one in waiters
    ]
    return parts.table(caption, heads, rows, "CPUs")


def _figures(one: Contest) -> Table:
    halves = one.halves
    rows = [
        ("rank correlation of cost and CPU number", "–" if one.rho is None else f"{one.rho:+.3f}".replace("-", "−")),
        ("its p", "–" if one.p is None else f"{one.p:.2g}"),
        ("Jain's index of the mean cost", "–" if one.jain_cost is None else f"{one.jain_cost:.4f}"),
        ("Jain's index of requests served", "–" if one.jain_count is None else f"{one.jain_count:.4f}"),
    ]
    if halves is not None:
        rows.append(
            (
                f"CPUs {units.numbers(list(halves.higher))} against {units.numbers(list(halves.lower))}, mean",
                _interval(halves),
            )
        )
    return Table(
        "Those that compete, in figures",
        (Head("", False), Head("", False)),
        tuple((Cell(name), Cell(text)) for name, text in rows),
    )


def _interval(halves: Halves) -> str:
    p = "–" if halves.p is None else f"{halves.p:.2g}"
    return f"{units.percent(halves.percent)} % ({units.percent(halves.low)} to {units.percent(halves.high)}), p {p}"


def pictures(found: Mapping[str, Fairness]) -> tuple[Picture, ...]:
    """How often the later one is served first, by kind with enough meetings; and what competitors wait."""
    from xtrace.reports import figures

    return tuple(
        parts.picture(
            figures.contest({KIND_NOUNS[one.kind]: one.contest.waiters}),
            f"{one.kind}-contest",
            f"What competing {KIND_NOUNS[one.kind]} cost, by CPU number",
            "Dot: mean with its 95 % interval; bar: to the 90th percentile; tick: longest.",
        )
        for one in found.values()
        if one.contest is not None
    )

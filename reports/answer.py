"""What a comparison comes to, in sentences: only what the figures carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.side_by_side import LOST_SHARE

if TYPE_CHECKING:
    from xtrace.comparison import CallerOfSide, Cell, Comparison, Contest, KindComparison
    from xtrace.questions.fairness import Fairness

NOTABLE_SHARE: Final = 0.02
LAST_BY: Final = 1.1


def answer(found: Comparison) -> tuple[str, ...]:
    """The sentences, for the kind first that cost most."""
    return tuple(sentence for one in found.kinds.values() for sentence in _of_kind(one))


def _of_kind(one: KindComparison) -> Iterator[str]:
    nouns = KIND_NOUNS[one.kind]
    yield from _lock(one, nouns)
    yield from _overlap(one, nouns)
    yield from _lost(one, nouns)
    if one.work.comparable:
        yield from _times(one, nouns)
    elif one.work.percent is None:
        yield f"Whether {nouns} got faster cannot be said: both sides share no work that shows the hosts to be alike."
    else:
        yield (
            f"Whether {nouns} got faster cannot be said: the same work took {abs(one.work.percent):.0f} % "
            f"{'less' if one.work.percent < 0 else 'more'} time on the targets, so the hosts were not equally loaded."
        )
    yield from fairness_changes(one)
    if one.contest is not None and one.work.comparable:
        yield from unfairness(one.contest, nouns)


def _lock(one: KindComparison, nouns: str) -> Iterator[str]:
    old, new = one.before.lock_share, one.after.lock_share
    if old is None or new is None:
        return
    shares = f"{_percent(old)} of their time before, {_percent(new)} after"
    if old >= NOTABLE_SHARE and new < old / 4:
        yield f"The lock wait of {nouns} is gone: {shares}."
    elif new >= NOTABLE_SHARE and old < new / 4:
        yield f"{nouns.capitalize()} wait for a lock now: {shares}."
    elif max(old, new) >= NOTABLE_SHARE:
        yield f"Lock wait of {nouns}: {shares}."


def _lost(one: KindComparison, nouns: str) -> Iterator[str]:
    """On one scale what others cost callers: a lock that they hold, a target or the caller's CPU that they occupy."""
    share = next((figure for figure in one.figures if figure.name == LOST_SHARE), None)
    if share is None or share.before is None or share.after is None or max(share.before, share.after) < NOTABLE_SHARE:
        return
    yield (
        f"At locks, in queues at targets and serving others meanwhile {nouns} lost {_percent(share.before)} of their "
        f"time to others before, {_percent(share.after)} after."
    )


def fairness_changes(one: KindComparison) -> Iterator[str]:
    """Whom the order of service favours on one side and not on the other, where that is certain."""
    nouns = KIND_NOUNS[one.kind]
    sides = [_biases(runs) for runs in one.fairness]
    names = ("before", "after")
    for bias, which in (("low first", "Low"), ("high first", "High")):
        mine = [side.get(bias, 0) for side in sides]
        judged = [sum(side.values()) for side in sides]
        told = [_runs(count, all_) for count, all_ in zip(mine, judged, strict=True)]
        if mine[1] and not mine[0]:
            earlier = "that was not so before" if judged[0] else "of before there are too few meetings to tell"
            yield f"{which} CPU numbers are served first now{told[1]}: {_passing(one.fairness[1])}; {earlier}."
        elif mine[0] and not mine[1]:
            later = "that is not so after" if judged[1] else "of after there are too few meetings to tell"
            yield f"{which} CPU numbers were served first before{told[0]}: {_passing(one.fairness[0])}; {later}."
        elif mine[0]:
            yield (
                f"{which} CPU numbers are served first on both sides: before, {_passing(one.fairness[0])}; after, "
                f"{_passing(one.fairness[1])}."
            )
    if not any(one_side.keys() & {"low first", "high first"} for one_side in sides):
        fair = [name for name, side in zip(names, sides, strict=True) if side]
        if fair:
            yield f"That the order of service of {nouns} favours a CPU number cannot be shown, {' or '.join(fair)}."


def _biases(runs: Sequence[Fairness]) -> Counter[str]:
    """How many runs have which verdict on the order of service, those of too few left out."""
    verdicts = []
    for run in runs:
        found = {order.bias for order in run.orders} - {"too few"}
        verdicts += sorted(found - {"none"}) or sorted(found)
    return Counter(verdicts)


def _runs(count: int, judged: int) -> str:
    return f" in {count} of {judged} runs" if judged > 1 else ""


def _passing(runs: Sequence[Fairness]) -> str:
    """How often later requests pass earlier ones, at places where the order is biased."""
    orders = [order for run in runs for order in run.orders if order.bias in ("low first", "high first")]
    shares = []
    for side in ("lower", "higher"):
        rates = [getattr(order, side) for order in orders]
        shares.append(_percent(sum(rate.passed for rate in rates) / max(sum(rate.meetings for rate in rates), 1)))
    return (
        f"a later one passed one that waited with it in {shares[0]} of cases if its CPU had the lower number, in "
        f"{shares[1]} if the higher"
    )


def _overlap(one: KindComparison, nouns: str) -> Iterator[str]:
    old, new = one.before, one.after
    counts = f"{units.count(new.overlapping)} of {units.count(new.complete)}"
    earlier = f"{units.count(old.overlapping)} of {units.count(old.complete)}" if old.overlapping else "none"
    if new.overlapping and not old.overlapping:
        yield f"{nouns.capitalize()} overlap in flight now ({counts}; before, none did)."
    elif old.overlapping and not new.overlapping:
        yield f"{nouns.capitalize()} no longer overlap in flight (before, {earlier} did)."
    elif new.overlapping:
        yield f"{nouns.capitalize()} overlap in flight: {counts}, before {earlier}."


def _times(one: KindComparison, nouns: str) -> Iterator[str]:
    judged = [cell for cell in one.grid if cell.change.verdict != "too few"]
    if not judged:
        yield f"There are too few {nouns} to say whether they got faster."
        return
    faster = [cell for cell in judged if cell.change.verdict == "faster"]
    slower = [cell for cell in judged if cell.change.verdict == "slower"]
    of = f"the {len(judged)} cells of the grid that have enough" if len(judged) > 1 else "the only cell that has enough"
    if not faster and not slower:
        yield f"No change of the time of {nouns} can be shown in {of}."
        return
    if faster:
        best = min(faster, key=lambda cell: cell.change.percent or 0)
        yield f"{nouns.capitalize()} got faster in {len(faster)} of {of}, most with {place(best)}: {interval(best)}."
    if slower:
        worst = max(slower, key=lambda cell: cell.change.percent or 0)
        which = f"{len(slower)} of them, most with" if faster else f"{len(slower)} of {of}, most with"
        yield f"They got slower in {which if len(slower) > 1 else 'one,'} {place(worst)}: {interval(worst)}."
    elif len(faster) == len(judged):
        yield "They got slower in none."
    else:
        yield "In the others no change can be shown."


def unfairness(contest: Contest, nouns: str) -> Iterator[str]:
    """Who waits longest in the busiest cell, and how sure that is; nothing where the callers fare alike."""
    where = f"With {contest.callers} callers and {_cpus(str(contest.mask))} in the mask"
    callers = [one for one in contest.after if one.mean.low is not None]
    last = max(callers, key=lambda one: one.mean.mean, default=None)
    others = [one for one in callers if one is not last]
    spread = _spread(contest.before)
    if last is None or not others or _spread(tuple(callers)) <= spread:
        return
    if last.mean.mean < LAST_BY * max(one.mean.mean for one in others):
        return
    rest = _between([one.mean.mean for one in others])
    worst = max(one.max for one in others)
    yield (
        f"{where}, CPU {last.cpu} waits longest now: {units.time(last.mean.mean)} on average and "
        f"{units.time(last.max)} at worst, the others {rest} and {units.time(worst)}; before, "
        f"the means were within {spread:.0f} %."
    )
    lowest = last.mean.low
    if lowest is None or lowest <= max(one.mean.high or one.mean.mean for one in others):
        yield (
            f"That rests on {last.count} {nouns} of that CPU and its 95 % interval "
            f"({units.time(lowest)} to {units.time(last.mean.high)}) meets those of others: trace longer to be sure."
        )


def _spread(callers: tuple[CallerOfSide, ...]) -> float:
    means = [one.mean.mean for one in callers]
    return 100 * (max(means) / min(means) - 1) if means and min(means) > 0 else 0.0


def _between(values: list[float]) -> str:
    low, high = units.time(min(values)), units.time(max(values))
    return low if low == high else f"{low} to {high}"


def place(cell: Cell) -> str:
    """`2 CPUs in the mask and 1 caller`."""
    callers = str(cell.callers)
    return f"{_cpus(str(cell.mask))} in the mask and {callers} caller{'' if callers == '1' else 's'}"


def _cpus(count: str) -> str:
    return "1 CPU" if count == "1" else f"{count} CPUs"


def interval(cell: Cell) -> str:
    """`−43.6 % (95 % interval −45.9 to −40.9)`."""
    change = cell.change
    return (
        f"{units.percent(change.percent)} % (95 % interval {units.percent(change.low)} to {units.percent(change.high)})"
    )


def _percent(share: float) -> str:
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"

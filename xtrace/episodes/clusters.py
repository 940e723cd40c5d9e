"""Hits → episodes: where one ends and the next begins (docs/inference.md).

The legacy locks let one call and one flush be in flight at a time. So the hits of a vector, in order of time, are runs
of one episode each, in which no CPU is twice. Two kinds of pauses are between neighbours: within an episode, the spread
of delivery; between two, at least what the last target needs to answer, and the next initiator to be heard. Both are
estimated from the trace itself, as two log-normal distributions (expectation and maximisation).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.episodes.hits import Cycles, Hits
from xtrace.grouping import rows_by

ROUNDS: Final = 30
MIN_SPREAD: Final = 0.3
"""Standard deviation, in the logarithm of time, below which no estimate is taken for real."""
PRIOR_PAUSES: Final = 4.0
"""As many pauses as a prior of either kind counts for."""
PRIOR_MIDDLE: Final = 2.0
"""Middle of that prior for pauses between episodes, in logarithms of the reach; its negative for those within."""
TOO_SOON: Final = -4.0
"""What it adds to the log-odds that the next interrupt came before the hits until then can have been answered."""
UNSURE: Final = 12.0
"""Log-odds beyond which nothing is believed."""

Odds = NDArray[np.float64]


class Clusters(NamedTuple):
    """Episodes of hits, one row an episode.

    first, last  int64, rows of the hits: an episode is first … last
    scale        float64, cycles from the record of an interrupt to the CPU's next record, median of the stream
    inside       float64, log-odds that the likeliest pause inside parts two episodes; −UNSURE where there is none
    forced       bool, a CPU that was hit twice, not a pause, tells it from a neighbour
    joined       bool, of parts that `merging` put together
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    scale: NDArray[np.float64]
    inside: Odds
    forced: NDArray[np.bool_]
    joined: NDArray[np.bool_]


def clusters(hits: Hits, fallback: float) -> Clusters:
    """The episodes of hits that are sorted by stream and time. fallback: the scale where no hit tells, in cycles."""
    parts = [_of_stream(hits.take(rows), int(rows[0]), fallback) for _, rows in rows_by(_dense(hits.stream))]
    if not parts:
        return Clusters(*(np.zeros(0, kind) for kind in ("i8", "i8", "f8", "f8", "?", "?")))
    return Clusters(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _dense(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(values, return_inverse=True)[1]


def _of_stream(hits: Hits, offset: int, fallback: float) -> Clusters:
    count = len(hits.taken)
    scale = _scale(hits, fallback)
    # Place i is the pause before hit i; there is none before the first.
    odds = np.full(count, UNSURE)
    odds[1:] = _odds(hits, scale)
    begins = odds > 0
    forced = _part_repeated(hits.track, odds, begins)
    first = np.flatnonzero(begins)
    last = np.append(first[1:], count) - 1
    marked = np.append(forced[first], False)
    return Clusters(
        offset + first,
        offset + last,
        np.full(len(first), scale),
        np.maximum.reduceat(np.where(begins, -UNSURE, odds), first),
        marked[:-1] | marked[1:],
        np.zeros(len(first), np.bool_),
    )


def _scale(hits: Hits, fallback: float) -> float:
    taken = (hits.after - hits.taken)[(hits.after >= 0) & ~hits.idle]
    return max(float(np.median(taken)), 1.0) if len(taken) else fallback


def _odds(hits: Hits, scale: float) -> Odds:
    """Log-odds of each pause between neighbours to part two episodes."""
    handled = np.where(hits.after >= 0, hits.after - hits.taken, scale).astype(np.float64)
    # A target that does other work before its next record seems to serve for long.
    until = np.maximum.accumulate(hits.taken + np.minimum(handled, 2 * scale))[:-1]
    reach = np.maximum(until - hits.taken[:-1], scale / 4)
    x = np.log((np.diff(hits.taken) + 1.0) / reach)
    again = hits.track[1:] == hits.track[:-1]
    found = np.zeros(len(x))
    # Waking up takes longer than leaving a guest.
    for _, rows in rows_by(hits.idle[1:].astype(np.int64)):
        found[rows] = _fit(x[rows], again[rows])
    found[again] = UNSURE
    return np.clip(found, -UNSURE, UNSURE)


def _fit(x: Odds, certain: NDArray[np.bool_]) -> Odds:
    """Log-odds of each pause to part two episodes; x: logarithms of pauses over the reach of the hits before them.

    certain: those that do, whatever their length.
    """
    parted = np.where(certain | (x > 0), 1.0, 0.0)
    odds = np.zeros(len(x))
    for _ in range(ROUNDS):
        short, long = _normal(x, 1.0 - parted, -PRIOR_MIDDLE), _normal(x, parted, PRIOR_MIDDLE)
        # Neither kind gives way to the other beyond its middle: the odds never fall as a pause grows.
        density = [
            -np.log(one.spread) - 0.5 * ((side - one.middle) / one.spread) ** 2
            for one, side in ((short, np.maximum(x, short.middle)), (long, np.minimum(x, long.middle)))
        ]
        new = density[1] - density[0] + np.log(long.weight / short.weight)
        new = np.clip(np.where(x < 0, new + TOO_SOON, new), -UNSURE, UNSURE)
        done = bool(np.abs(new - odds).max(initial=0) < 1e-3)
        odds = new
        parted = np.where(certain, 1.0, 1.0 / (1.0 + np.exp(-odds)))
        if done:
            break
    return odds


class _Normal(NamedTuple):
    weight: float
    middle: float
    spread: float


def _normal(x: Odds, share: Odds, prior: float) -> _Normal:
    """The normal distribution of values that belong to it by these shares, and a prior around `prior`."""
    weight = float(share.sum()) + PRIOR_PAUSES
    middle = (float((share * x).sum()) + PRIOR_PAUSES * prior) / weight
    square = float((share * (x - middle) ** 2).sum()) + PRIOR_PAUSES * (1.0 + (prior - middle) ** 2)
    return _Normal(weight, middle, max(float(np.sqrt(square / weight)), MIN_SPREAD))


def _part_repeated(track: NDArray[np.int32], odds: Odds, begins: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Begin another episode wherever a CPU is in one twice, at the likeliest pause between; returns where that was."""
    forced = np.zeros(len(track), np.bool_)
    order = np.argsort(track, kind="stable")
    same = track[order][1:] == track[order][:-1]
    here, there = order[1:][same], order[:-1][same]
    while len(here):
        episode = np.cumsum(begins)
        twice = episode[here] == episode[there]
        here, there = here[twice], there[twice]
        if not len(here):
            break
        # The first to end of each episode, so that those parted have nothing in common.
        ends = np.lexsort((here, episode[here]))
        chosen = ends[np.append(True, np.diff(episode[here[ends]]) > 0)]
        cut = _likeliest(odds, there[chosen] + 1, here[chosen])
        begins[cut] = True
        forced[cut] = True
    return forced


def _likeliest(odds: Odds, begin: Cycles, end: Cycles) -> NDArray[np.int64]:
    """Of each of these stretches, ends included, which do not overlap, the place with the highest odds."""
    length = end - begin + 1
    group = np.repeat(np.arange(len(begin)), length)
    place = begin[group] + np.arange(len(group)) - (np.cumsum(length) - length)[group]
    best = np.lexsort((-odds[place], group))
    first: NDArray[np.int64] = place[best[np.append(True, np.diff(group[best]) > 0)]]
    return first

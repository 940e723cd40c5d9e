"""Parts of one episode that a pause tore apart, joined again by the silence of who began them (docs/inference.md).

A CPU that sleeps deeply wakes up long after the targets that were in a guest have answered. Pauses cannot tell that
from another episode, but the initiator can: it stays silent until the sleeper has answered.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from xtrace.episodes.clusters import Clusters
from xtrace.episodes.hits import Hits
from xtrace.episodes.suspects import CAUSE, HANDLED, INTERRUPT, Suspects

ENOUGH: Final = 5
QUANTILES: Final = (0.1, 0.9)
SLACK: Final = 1.25
"""From how many parts that are joined for certain it is known how late sleepers come, and how that is taken."""


def merged(hits: Hits, found: Clusters, suspects: Suspects) -> tuple[Clusters, Suspects]:
    """The same with parts joined where the later begins with a CPU that slept, and one exit of a guest began both.

    Only an exit of an HVM guest: a PV guest may ask for one after the other without a record between.
    """
    count = len(found.first)
    joins = _joins(hits, found, suspects)
    whole = np.cumsum(~joins) - 1
    twice = _with_a_cpu_twice(hits, found, whole)
    joins &= ~twice[whole]
    head = np.flatnonzero(~joins)
    tail = np.append(head[1:], count) - 1
    several = tail > head
    clusters = Clusters(
        found.first[head],
        found.last[tail],
        found.scale[head],
        np.maximum.reduceat(found.inside, head) if count else found.inside,
        found.forced[head] | found.forced[tail],
        several,
    )
    # The last part tells who resumed; that CPUs were spared, the first, before its targets were back.
    return clusters, Suspects(*(column[tail] for column in suspects))._replace(spared=suspects.spared[head])


def _joins(hits: Hits, found: Clusters, suspects: Suspects) -> NDArray[np.bool_]:
    """Which parts belong to the one before."""
    joins = np.zeros(len(found.first), np.bool_)
    begin = hits.taken[found.first]
    late = np.diff(begin)
    able = (
        (hits.stream[found.first[1:]] == hits.stream[found.first[:-1]])
        & hits.idle[found.first[1:]]
        & (suspects.track[1:] >= 0)
        & (suspects.silent[1:] < begin[:-1])
        & np.isin(suspects.kind[1:], (CAUSE, HANDLED, INTERRUPT))
    )
    both = able & (suspects.track[1:] == suspects.track[:-1]) & (suspects.resumed[1:] == suspects.resumed[:-1])
    joins[1:] = both
    if both.sum() >= ENOUGH:
        # Somebody else may seem the likelier for the first part alone; how late sleepers come is known by now.
        low, high = np.quantile(late[both], QUANTILES)
        joins[1:] |= able & (late >= low / SLACK) & (late <= high * SLACK)
    return joins


def _with_a_cpu_twice(hits: Hits, found: Clusters, whole: NDArray[np.int64]) -> NDArray[np.bool_]:
    """By joined episode whether a CPU would be in it twice."""
    episode = np.repeat(whole, found.last - found.first + 1)
    order = np.lexsort((hits.track, episode))
    same = (episode[order][1:] == episode[order][:-1]) & (hits.track[order][1:] == hits.track[order][:-1])
    twice = np.zeros(len(whole), np.bool_)
    twice[episode[order][1:][same]] = True
    return twice

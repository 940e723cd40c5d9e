"""How sure an inferred episode and its initiator are: logistic models of what the trace shows (docs/inference.md).

The coefficients come from emulated hosts, `python benchmarks/fit_inference.py`, and are judged on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from xtrace.episodes.clusters import Clusters
from xtrace.episodes.hits import Hits
from xtrace.episodes.suspects import HYPERCALL, OTHER, Suspects

EPISODE_FEATURES: Final = (
    "constant",
    "together",
    "several",
    "forced",
    "joined",
    "apart",
    "slept",
    "slept²",
    "woken",
    "restless",
)
EPISODE_WEIGHTS: Final = (6.37, 0.08, -0.64, 3.5, 0.3, -0.25, -1.34, 0.06, 0.84, -0.21)
INITIATOR_FEATURES: Final = ("constant", "share", "share²", "PV")
INITIATOR_WEIGHTS: Final = (0.08, 1.05, -0.02, 0.2)
KNOTS: Final = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
EPISODES_RIGHT: Final = (0.0, 0.192, 0.485, 0.608, 0.608, 0.682, 0.968, 0.968, 0.993, 1.0)
INITIATORS_RIGHT: Final = (0.0, 0.0, 0.421, 0.586, 0.711, 0.818, 0.889, 0.943, 0.991, 1.0)
"""Chances by the logistic models, and what part was right of those that were given such a chance."""
SUREST: Final = 0.99
"""No confidence is higher: what emulated hosts show is not all that real ones do."""
MAX_LOGIT: Final = 30.0
FAR: Final = 8.0
"""Pauses of exp(FAR) times the scale are as good as endless."""


def episode_features(hits: Hits, found: Clusters) -> NDArray[np.float64]:
    """Float64 (episodes, EPISODE_FEATURES).

    together  log-odds against the likeliest pause inside, 0 for an episode of one hit
    several   logarithm of how many hits
    forced    1 where a CPU that was hit twice parts it from a neighbour
    joined    1 where parts were put together because one CPU was silent
    apart     FAR less the logarithm of the shorter of the pauses before and after, over the scale, or 0
    slept     the same of those pauses only that end with a CPU waking up
    slept²    the square of that
    woken     share of its hits that woke a CPU
    restless  mean of slept over all episodes of the stream
    """
    count = (found.last - found.first + 1).astype(np.float64)
    near = [_nearness(hits, found, edge) for edge in (found.first, found.last + 1)]
    woken = np.append(hits.idle, False)
    slept = np.maximum(near[0] * woken[found.first], near[1] * woken[found.last + 1])
    return np.stack(
        [
            np.ones(len(count)),
            np.where(count > 1, -found.inside, 0.0),
            np.log(count),
            found.forced.astype(np.float64),
            found.joined.astype(np.float64),
            np.maximum(*near),
            slept,
            slept**2,
            np.add.reduceat(hits.idle.astype(np.float64), found.first) / count if len(count) else count,
            _mean_of(hits.stream[found.first], slept),
        ],
        axis=1,
    )


def _nearness(hits: Hits, found: Clusters, edge: NDArray[np.int64]) -> NDArray[np.float64]:
    """How short the pause before these hits is, from 0 for one that is long or not known to FAR."""
    inside = np.clip(edge, 1, max(len(hits.taken) - 1, 1))
    if len(hits.taken) < 2:
        return np.zeros(len(edge))
    stream = hits.stream
    known = (edge == inside) & (stream[inside] == stream[inside - 1])
    pause = np.maximum(hits.taken[inside] - hits.taken[inside - 1], 0) / found.scale
    return np.where(known, np.clip(FAR - np.log1p(pause), 0.0, FAR), 0.0)


def _mean_of(stream: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the values of each row's stream."""
    _, place = np.unique(stream, return_inverse=True)
    mean: NDArray[np.float64] = (np.bincount(place, values) / np.maximum(np.bincount(place), 1))[place]
    return mean


def initiator_features(suspects: Suspects) -> NDArray[np.float64]:
    """Float64 (episodes, INITIATOR_FEATURES).

    share    log-odds of the likeliest initiator against all others
    share²   the square of that, with its sign
    PV       1 where it ran a PV guest
    """
    share = np.clip(suspects.chance, 1e-4, 1 - 1e-4)
    pv = (suspects.kind == HYPERCALL) | (suspects.kind == OTHER)
    odds = np.log(share / (1 - share))
    return np.stack([np.ones(len(odds)), odds, odds * np.abs(odds), pv.astype(np.float64)], axis=1)


def chance_of_episodes(hits: Hits, found: Clusters) -> NDArray[np.float64]:
    """Chance of each that it is one episode, and that these are its targets as far as they can be seen."""
    return _calibrated(logistic(episode_features(hits, found), EPISODE_WEIGHTS), EPISODES_RIGHT)


def chance_of_initiators(suspects: Suspects) -> NDArray[np.float64]:
    """Chance of each likeliest initiator to be the initiator."""
    return _calibrated(logistic(initiator_features(suspects), INITIATOR_WEIGHTS), INITIATORS_RIGHT)


def logistic(features: NDArray[np.float64], weights: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Chances by a logistic model."""
    chance: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(features @ np.array(weights), -MAX_LOGIT, MAX_LOGIT)))
    return chance


def _calibrated(chance: NDArray[np.float64], right: Sequence[float]) -> NDArray[np.float64]:
    return np.minimum(np.interp(chance, KNOTS, right), SUREST)

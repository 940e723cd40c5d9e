"""The weights of xtrace/episodes/suspects.py and confidence.py, from emulated hosts.

    python benchmarks/fit_inference.py initiators [--episodes 500]
    python benchmarks/fit_inference.py confidence [--episodes 1000]

Those of initiators come first, as confidence rests on them. Seeds are fixed, and not those of inference.py. A weight of
a kind of record that no emulated host leaves is the prior's: take no figure from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from stock_hosts import FIT_SEED, HARD, Load, Score, emulated, found_in, joined, judged, scored

from xtrace.episodes.clusters import Clusters
from xtrace.episodes.confidence import EPISODE_FEATURES, INITIATOR_FEATURES, KNOTS, logistic
from xtrace.episodes.hits import Cycles, Hits
from xtrace.episodes.suspects import FEATURES, NOT_SEEN, WEIGHTS, SuspectFinder, Suspects


class _Fit(NamedTuple):
    """A logistic model, and what part was right by KNOTS."""

    names: tuple[str, ...]
    weights: NDArray[np.float64]
    right: NDArray[np.float64]


def fitted(scores: Sequence[Score]) -> tuple[_Fit, ...]:
    """The models of episodes and of their initiators."""
    one = joined(scores)
    # Where no CPU may be the initiator there is nothing to be sure of.
    named = one.initiator_features[:, 1] > one.initiator_features[:, 1].min()
    return tuple(
        _Fit(names, weights := _logit(features, outcome).round(2), _isotonic(logistic(features, weights), outcome))
        for names, features, outcome in (
            (EPISODE_FEATURES, one.features, one.right),
            (INITIATOR_FEATURES, one.initiator_features[named], one.found_initiator[named]),
        )
    )


def _isotonic(chance: NDArray[np.float64], outcome: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What part is right of those given each chance in KNOTS, never falling."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(chance, kind="stable")
    right = isotonic_regression(outcome[order].astype(np.float64)).x
    found: NDArray[np.float64] = np.interp(KNOTS, chance[order], right).round(3)
    return found


def _logit(features: NDArray[np.float64], outcome: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logistic regression, with a normal prior of variance 1 on all weights but the constant."""
    from scipy.optimize import minimize

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds, free = features @ weights, np.append(0.0, weights[1:])
        value = float((np.logaddexp(0, odds) - outcome * odds).sum() + (free**2).sum() / 2)
        return value, features.T @ (1 / (1 + np.exp(-odds)) - outcome) + free

    found: NDArray[np.float64] = minimize(loss, np.zeros(features.shape[1]), jac=True, method="BFGS").x
    return found


class _Choice(NamedTuple):
    """Suspects of all episodes: which episode, what shows of the suspect, and whether it was the initiator."""

    episode: NDArray[np.int64]
    shown: NDArray[np.float64]
    chosen: NDArray[np.bool_]


def _choices(load: Load, seed: int) -> _Choice:
    parts: list[tuple[NDArray[np.int64], int, NDArray[np.float64]]] = []

    class Noting(SuspectFinder):
        """Notes everybody that is weighed."""

        def weigh(
            self,
            some: NDArray[np.int64],
            track: int,
            shown: NDArray[np.float64],
            seen: NDArray[Any],
            resumed: Cycles,
        ) -> None:
            parts.append((some.copy(), track, shown))
            super().weigh(some, track, shown, seen, resumed)

    def as_they_are(_: Hits, found: Clusters, suspects: Suspects) -> tuple[Clusters, Suspects]:
        return found, suspects

    emulation = emulated(load, seed)
    # Rows of suspects are those of clusters before any are joined.
    with (
        mock.patch("xtrace.episodes.inferred.SuspectFinder", Noting),
        mock.patch("xtrace.episodes.inferred.merged", as_they_are),
    ):
        found, zero = found_in(emulation)
    score = judged(emulation, found, zero)
    initiator = np.full(len(score.right), -1)
    initiator[score.right] = score.true_initiator
    episode = np.concatenate([some for some, _, _ in parts])
    cpu = np.concatenate([np.full(len(some), track) for some, track, _ in parts])
    known = initiator[episode] >= 0
    shown = np.concatenate([one for _, _, one in parts])
    return _Choice(episode[known], shown[known], cpu[known] == initiator[episode[known]])


def initiators(choices: Sequence[_Choice]) -> NDArray[np.float64]:
    """Weights by conditional logit, the last one that of an initiator that is not seen; normal priors of variance 1."""
    from scipy.optimize import minimize

    before = np.cumsum([0, *(int(one.episode.max(initial=-1)) + 1 for one in choices)])
    episode = np.concatenate([one.episode + first for one, first in zip(choices, before, strict=False)])
    episode = np.unique(episode, return_inverse=True)[1]
    shown = np.concatenate([one.shown for one in choices])
    chosen = np.concatenate([one.chosen for one in choices])
    count = int(episode.max()) + 1
    seen = np.zeros(count, np.bool_)
    seen[episode[chosen]] = True

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        points = shown @ weights[:-1]
        every = np.full(count, weights[-1])
        np.logaddexp.at(every, episode, points)
        chance = np.exp(points - every[episode])
        value = (every[episode[chosen]] - points[chosen]).sum() + (every[~seen] - weights[-1]).sum()
        slope = (chance[:, None] * shown).sum(axis=0) - shown[chosen].sum(axis=0)
        unseen = np.exp(weights[-1] - every).sum() - (~seen).sum()
        return float(value + (weights**2).sum() / 2) / count, (np.append(slope, unseen) + weights) / count

    found: NDArray[np.float64] = minimize(loss, np.array([*WEIGHTS, NOT_SEEN]), jac=True, method="BFGS").x
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=("initiators", "confidence"))
    parser.add_argument("--episodes", type=int, default=1000, help="calls and flushes of each host, about")
    asked = parser.parse_args()
    hosts = [replace(load, episodes=asked.episodes) for load in HARD]
    if asked.what == "initiators":
        weights = initiators([_choices(load, FIT_SEED + number) for number, load in enumerate(hosts)])
        print(dict(zip((*FEATURES, "not seen"), weights.round(1).tolist(), strict=True)))
        return
    for one in fitted([scored(load, FIT_SEED + number) for number, load in enumerate(hosts)]):
        print(dict(zip(one.names, one.weights.tolist(), strict=True)), one.right.tolist())


if __name__ == "__main__":
    main()

"""Whether what happens to a request depends on its CPU's number: two figures with intervals and tests.

Requests close in time are not independent. So what is resampled, or counted as an observation, are blocks of
consecutive ones, as everywhere in xtrace (`statistics`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from xtrace.statistics import BLOCKS, LEVEL, MIN_BLOCKS

Floats = NDArray[np.float64]

MIN_MEETINGS: Final = 16
"""Fewer meetings of a kind than this say nothing about how often one request passes the other."""


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much more often a request passes an earlier one where its CPU has the lower number.

    difference  of the two rates, −1 to 1
    low, high   its 95 % interval
    p           of no difference
    """

    difference: float
    low: float
    high: float
    p: float


def difference_of_rates(passed: Floats, met: Floats) -> Difference | None:
    """The difference of two rates, None where there is too little to say.

    passed, met: float64 (2, blocks), events and chances, of the lower and of the higher number.

    The error is that of a jackknife over blocks, but never less than that of as many independent chances (Agresti and
    Caffo, 2000): where all blocks agree, their spread says nothing.
    """
    from scipy.special import stdtr, stdtrit

    used = met.sum(axis=0) > 0
    passed, met = passed[:, used], met[:, used]
    blocks, count = int(used.sum()), met.sum(axis=1)
    if blocks < MIN_BLOCKS or count.min() < MIN_MEETINGS:
        return None
    found = _difference(passed.sum(axis=1), count)
    without = _difference(passed.sum(axis=1)[:, None] - passed, count[:, None] - met)
    jackknife = np.sqrt((blocks - 1) / blocks * np.square(without - without.mean()).sum())
    rate = (passed.sum(axis=1) + 1) / (count + 2)
    error = max(float(jackknife), float(np.sqrt((rate * (1 - rate) / (count + 2)).sum())))
    reach = float(stdtrit(blocks - 1, 1 - LEVEL / 2)) * error
    p = 2 * float(stdtr(blocks - 1, -abs(float(found)) / error))
    return Difference(float(found), max(-1.0, float(found) - reach), min(1.0, float(found) + reach), p)


def _difference(passed: Floats, met: Floats) -> Floats:
    # A block may hold all there is of one kind.
    rates: Floats = passed / np.maximum(met, 1)
    difference: Floats = rates[0] - rates[1]
    return difference


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of what requests cost with the number of their CPU.

    rho   over all of them, −1 to 1
    p     of none, by the correlations in blocks; None where there are too few
    """

    rho: float
    p: float | None


def rank_correlation(cpu: NDArray[np.int64], cost: NDArray[np.int64]) -> Correlation | None:
    """Of requests in order of time; None where all are of one CPU, or all cost the same."""
    from scipy.stats import rankdata

    whole = _spearman(rankdata(cpu), rankdata(cost))
    if whole is None:
        return None
    count = len(cpu)
    blocks = min(BLOCKS, count // 4)
    block = np.arange(count) * blocks // max(count, 1)
    rhos = []
    for one in range(blocks):
        mine = block == one
        rho = _spearman(rankdata(cpu[mine]), rankdata(cost[mine]))
        if rho is not None:
            rhos.append(rho)
    return Correlation(whole, _p_of_mean(np.array(rhos)) if len(rhos) >= MIN_BLOCKS else None)


def _spearman(first: Floats, second: Floats) -> float | None:
    if len(first) < 2 or first.min() == first.max() or second.min() == second.max():
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _p_of_mean(values: Floats) -> float:
    """Student's test that the mean of independent values is 0."""
    from scipy.special import stdtr

    error = values.std(ddof=1) / np.sqrt(len(values))
    if error == 0:
        return 0.0 if values.mean() else 1.0
    return 2 * float(stdtr(len(values) - 1, -abs(values.mean()) / error))


def jain(values: Floats) -> float | None:
    """Jain's index of fairness: 1 where all have the same, 1/n where one has all; None of nothing.

    R. Jain, D. Chiu, W. Hawe: A Quantitative Measure of Fairness and Discrimination, 1984.
    """
    squares = float(np.square(values).sum())
    return float(values.sum()) ** 2 / (len(values) * squares) if squares > 0 else None

"""What a change between two samples is worth: intervals, a rank test, an effect size.

Episodes close in time are not independent. So what is resampled and ranked are units: the runs where both sides have
enough of them, else blocks of consecutive episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indexes = NDArray[np.int64]
Verdict = Literal["too few", "no change", "faster", "slower"]

LEVEL: Final = 0.05
RESAMPLES: Final = 2000
QUANTILE_RESAMPLES: Final = 1000
MIN_RUNS: Final = 5
BLOCKS: Final = 16
MIN_BLOCKS: Final = 8
QUANTILE_BINS: Final = 1024
LEAST_SPREAD: Final = 0.3
"""The least error of a resample, as part of the sample's: with less, one odd unit makes an interval without end."""
FARTHEST: Final = float(np.log(1e6))
"""No interval of a ratio reaches further than a million times; next to nothing is known where one does."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Values in ns and the run, of several that make a side, in which each was taken; both in order of time."""

    value: Floats
    run: Indexes

    def where(self, rows: NDArray[np.bool_] | Indexes) -> Sample:
        """Some of the values."""
        return Sample(self.value[rows], self.run[rows])

    @property
    def runs(self) -> int:
        """Runs that have a value."""
        return len(np.unique(self.run))


@dataclass(frozen=True, slots=True)
class Change:
    """A figure on both sides and how it changed.

    before, after            ns; None of nothing
    percent, low, high       the change and its 95 % interval; None where it cannot be said
    p                        of the rank test, corrected for the table it stands in
    effect                   Cliff's delta: how much likelier a value is larger after than before, -1 to 1
    n_before, n_after        values
    units_before, units_after, unit  what was resampled: runs or blocks
    """

    before: float | None
    after: float | None
    percent: float | None
    low: float | None
    high: float | None
    p: float | None
    effect: float | None
    n_before: int
    n_after: int
    units_before: int
    units_after: int
    unit: Literal["runs", "blocks"]

    @property
    def verdict(self) -> Verdict:
        """Faster or slower only where the rank test and the interval of the mean agree that there is a change.

        From zero or to zero there is no change in per cent, and the rank test decides alone.
        """
        if self.p is None:
            return "too few"
        if self.p >= LEVEL:
            return "no change"
        if self.low is None or self.high is None:
            return "faster" if (self.effect or 0) < 0 else "slower"
        if self.low <= 0 <= self.high:
            return "no change"
        return "faster" if self.high < 0 else "slower"


def change_of_mean(before: Sample, after: Sample) -> Change:
    """The change of the mean, not yet corrected for other changes looked at.

    The interval is a studentized bootstrap of the logarithm of the ratio: with 5 runs, or 16 blocks, percentiles and
    BCa cover a true change too seldom (docs/compare.md).
    """
    old, new, unit = _units(before, after)
    figures = _mean(before.value), _mean(after.value)
    enough = min(old.count, new.count) >= (MIN_RUNS if unit == "runs" else MIN_BLOCKS)
    percent = _percent(*figures)
    low = high = p = effect = None
    if enough and len(before.value) and len(after.value):
        p, effect = _rank_test(old.means(), new.means()), _effect(before.value, after.value)
        if percent is not None:
            low, high = _interval_of_ratio(old, new)
    return Change(
        *figures, percent, low, high, p, effect, len(before.value), len(after.value), old.count, new.count, unit
    )


def changes_of_quantiles(mean: Change, before: Sample, after: Sample, shares: Sequence[float]) -> list[Change]:
    """The changes of quantiles (linear between neighbours), given that of the mean.

    Their intervals hold percentiles of a bootstrap of the units; test and effect are those of the mean.
    """
    if mean.before is None or mean.after is None:
        return [mean] * len(shares)
    figures = [np.quantile(side.value, shares).tolist() for side in (before, after)]
    ends: list[tuple[float | None, float | None]] = [(None, None)] * len(shares)
    if mean.p is not None:
        random = np.random.default_rng(0)
        old, new, _ = _units(before, after)
        draws = [
            _resampled_quantiles(side.value, units, shares, random) for side, units in ((before, old), (after, new))
        ]
        ratio = np.quantile(draws[1] / np.maximum(draws[0], 1), [LEVEL / 2, 1 - LEVEL / 2], axis=1)
        ends = [(float(low), float(high)) for low, high in 100 * (ratio.T - 1)]
    changes = []
    for old_ns, new_ns, (low, high) in zip(*figures, ends, strict=True):
        percent = _percent(old_ns, new_ns)
        known = {"low": low, "high": high} if percent is not None else {"low": None, "high": None}
        changes.append(replace(mean, before=old_ns, after=new_ns, percent=percent, **known))
    return changes


def corrected(changes: list[Change]) -> list[Change]:
    """The changes of one table, p corrected for looking at all of them (Benjamini and Hochberg)."""
    from scipy.stats import false_discovery_control

    known = [one.p for one in changes if one.p is not None]
    if not known:
        return changes
    adjusted = iter(false_discovery_control(known).tolist())
    return [one if one.p is None else replace(one, p=next(adjusted)) for one in changes]


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % interval, ns; None where there is too little for one."""

    mean: float
    low: float | None
    high: float | None


def mean_with_interval(sample: Sample) -> Mean:
    """The mean of one sample that is not empty; studentized bootstrap of its logarithm over blocks."""
    units = _blocks(sample)
    mean = float(sample.value.mean())
    if units.count < MIN_BLOCKS or mean <= 0:
        return Mean(mean, None, None)
    draws, errors = _resampled_logs(units, np.random.default_rng(0))
    low, high = _studentized(np.log(mean), units.error(), draws - np.log(mean), errors)
    return Mean(mean, float(np.exp(low)), float(np.exp(high)))


@dataclass(frozen=True, slots=True)
class _Units:
    """What is resampled: the sum and the count of the values in each, and the unit of each value."""

    total: Floats
    size: Floats
    of: Indexes

    @property
    def count(self) -> int:
        return len(self.total)

    def means(self) -> Floats:
        return self.total / self.size

    def error(self) -> float:
        """The standard error of the logarithm of the mean of all, by the spread of the units."""
        return float(_log_error(np.ones((1, self.count)), self)[0])


def _units(before: Sample, after: Sample) -> tuple[_Units, _Units, Literal["runs", "blocks"]]:
    if min(before.runs, after.runs) >= MIN_RUNS:
        return _runs(before), _runs(after), "runs"
    return _blocks(before), _blocks(after), "blocks"


def _runs(sample: Sample) -> _Units:
    return _summed(sample, np.unique(sample.run, return_inverse=True)[1])


def _blocks(sample: Sample) -> _Units:
    count = len(sample.value)
    blocks = min(BLOCKS, count // 2)
    return _summed(sample, np.arange(count) * blocks // max(count, 1))


def _summed(sample: Sample, of: Indexes) -> _Units:
    size = np.bincount(of).astype(np.float64)
    return _Units(np.bincount(of, sample.value).astype(np.float64), size, of)


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _percent(before: float | None, after: float | None) -> float | None:
    if before is None or after is None or before <= 0:
        return None
    return 100 * (after / before - 1)


def _rank_test(before: Floats, after: Floats) -> float:
    from scipy.stats import mannwhitneyu

    if len(np.unique(np.concatenate((before, after)))) == 1:
        return 1.0
    return float(mannwhitneyu(after, before).pvalue)


def _effect(before: Floats, after: Floats) -> float:
    ordered = np.sort(before)
    below = np.searchsorted(ordered, after, "left").sum() + np.searchsorted(ordered, after, "right").sum()
    return float(below / (len(before) * len(after)) - 1)


def _interval_of_ratio(old: _Units, new: _Units) -> tuple[float, float] | tuple[None, None]:
    if old.total.sum() <= 0 or new.total.sum() <= 0:
        return None, None
    random = np.random.default_rng(0)
    ratio = np.log(new.total.sum() / new.size.sum()) - np.log(old.total.sum() / old.size.sum())
    error = np.hypot(old.error(), new.error())
    (old_draws, old_errors), (new_draws, new_errors) = (_resampled_logs(one, random) for one in (old, new))
    with np.errstate(invalid="ignore"):
        deviation = new_draws - old_draws - ratio
    low, high = _studentized(ratio, error, deviation, np.hypot(old_errors, new_errors))
    low, high = np.clip((low, high), -FARTHEST, FARTHEST).tolist()
    return 100 * float(np.expm1(low)), 100 * float(np.expm1(high))


def _resampled_logs(units: _Units, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Logarithms of the mean of resampled units, and the standard error that each resample has of itself."""
    weight = random.multinomial(units.count, np.full(units.count, 1 / units.count), RESAMPLES).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(weight @ units.total / (weight @ units.size)), _log_error(weight, units)


def _log_error(weight: Floats, units: _Units) -> Floats:
    """By row of weights: the standard error of the logarithm of a ratio of sums (delta method)."""
    total, size = weight @ units.total, weight @ units.size
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / size
        squares = (
            weight @ units.total**2
            - 2 * mean * (weight @ (units.total * units.size))
            + mean**2 * (weight @ units.size**2)
        )
        spread: Floats = np.sqrt(np.maximum(squares, 0) * units.count / (units.count - 1)) / total
    return spread


def _studentized(value: float, error: float, deviation: Floats, errors: Floats) -> tuple[float, float]:
    if error == 0:
        return value, value
    # A resample of units that happen to be equal has next to no spread to measure itself by.
    ratio = deviation / np.maximum(np.nan_to_num(errors), LEAST_SPREAD * error)
    ratio = ratio[np.isfinite(ratio)]
    if not len(ratio):
        return value, value
    upper, lower = np.quantile(ratio, [1 - LEVEL / 2, LEVEL / 2])
    return value - float(upper) * error, value - float(lower) * error


def _resampled_quantiles(values: Floats, units: _Units, shares: Sequence[float], random: np.random.Generator) -> Floats:
    """Quantiles of each resample of the units, a row a share, to one part in QUANTILE_BINS of rank."""
    order = np.argsort(values)
    count = len(values)
    bins = min(count, QUANTILE_BINS)
    place = np.arange(count) * bins // count
    held = np.bincount(units.of[order] * bins + place, minlength=units.count * bins).reshape(units.count, bins)
    top = values[order][np.append(np.flatnonzero(np.diff(place)), count - 1)]
    weight = random.multinomial(units.count, np.full(units.count, 1 / units.count), QUANTILE_RESAMPLES)
    drawn = np.cumsum(weight.astype(np.float64) @ held, axis=1)
    places = [(drawn < share * drawn[:, -1:]).sum(axis=1).clip(max=bins - 1) for share in shares]
    found: Floats = top[np.stack(places)]
    return found

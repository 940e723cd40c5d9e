"""Intervals, rank test and effect size of a change: their own properties, and their rate of error on emulated runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu

from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.statistics import (
    LEVEL,
    MIN_BLOCKS,
    MIN_RUNS,
    Change,
    Sample,
    change_of_mean,
    changes_of_quantiles,
    corrected,
    mean_with_interval,
)

SEEDS = 200
SAMPLING = 3 * np.sqrt(0.05 * 0.95 / SEEDS)
"""Three standard errors of a rate of one in twenty over so many seeds."""


def one_run(values: object) -> Sample:
    array = np.asarray(values, np.float64)
    return Sample(array, np.zeros(len(array), np.int64))


def quantile(before: Sample, after: Sample, share: float) -> Change:
    return changes_of_quantiles(change_of_mean(before, after), before, after, [share])[0]


def in_runs(runs: list[list[float]]) -> Sample:
    numbers = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    return Sample(np.concatenate([np.asarray(run, np.float64) for run in runs]), numbers)


times = arrays(np.float64, st.integers(2 * MIN_BLOCKS, 200), elements=st.floats(1, 1e9))


@given(times, times, st.integers(-6, 6))
def test_a_change_does_not_depend_on_the_unit(before: np.ndarray, after: np.ndarray, power: int) -> None:
    plain = change_of_mean(one_run(before), one_run(after))
    scaled = change_of_mean(one_run(before * 2.0**power), one_run(after * 2.0**power))
    assert scaled.percent == pytest.approx(plain.percent, abs=1e-6, rel=1e-6)
    assert scaled.effect == plain.effect
    assert scaled.p == pytest.approx(plain.p)


@given(times)
def test_a_sample_has_not_changed_from_itself(values: np.ndarray) -> None:
    change = change_of_mean(one_run(values), one_run(values))
    assert change.percent == 0
    assert change.effect == pytest.approx(0)
    assert change.verdict == "no change"
    assert change.low is not None
    assert change.high is not None
    assert change.low <= 1e-9
    assert change.high >= -1e-9


@given(times, times)
def test_the_effect_is_that_of_the_rank_test(before: np.ndarray, after: np.ndarray) -> None:
    change = change_of_mean(one_run(before), one_run(after))
    larger = mannwhitneyu(after, before).statistic
    assert change.effect == pytest.approx(2 * larger / (len(before) * len(after)) - 1)


@given(times, times, st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_are_those_of_the_samples(before: np.ndarray, after: np.ndarray, share: float) -> None:
    change = quantile(one_run(before), one_run(after), share)
    assert (change.before, change.after) == (np.quantile(before, share), np.quantile(after, share))
    assert change.low is not None
    assert change.high is not None
    assert change.low <= change.high


@pytest.mark.parametrize("count", [0, 1, 2 * MIN_BLOCKS - 1])
def test_too_few_is_said(count: int) -> None:
    enough, few = one_run(np.arange(1.0, 100)), one_run(np.arange(1.0, count + 1))
    for before, after in ((enough, few), (few, enough)):
        change = change_of_mean(before, after)
        assert (change.verdict, change.p, change.low, change.high) == ("too few", None, None, None)
        assert quantile(before, after, 0.99).low is None


def test_what_was_zero_has_no_change_in_per_cent() -> None:
    change = change_of_mean(one_run(np.zeros(50)), one_run(np.ones(50)))
    assert (change.percent, change.low, change.effect) == (None, None, 1.0)
    gone = change_of_mean(one_run(np.ones(50)), one_run(np.zeros(50)))
    assert (gone.percent, gone.low, gone.effect) == (-100.0, None, -1.0)


def test_what_never_varies_has_no_uncertainty() -> None:
    change = change_of_mean(one_run(np.full(40, 200.0)), one_run(np.full(40, 100.0)))
    assert [change.percent, change.low, change.high] == pytest.approx([-50, -50, -50])
    assert change.verdict == "faster"


def test_runs_are_resampled_where_both_sides_have_enough() -> None:
    random = np.random.default_rng(1)
    runs = [list(random.normal(100, 1, 30)) for _ in range(MIN_RUNS)]
    assert change_of_mean(in_runs(runs), in_runs(runs)).unit == "runs"
    assert change_of_mean(in_runs(runs), in_runs(runs)).units_before == MIN_RUNS
    assert change_of_mean(in_runs(runs), in_runs(runs[1:])).unit == "blocks"


def test_runs_that_differ_widen_the_interval() -> None:
    """Within each run there is next to no spread, so that blocks of time would see none either."""
    random = np.random.default_rng(1)
    before = [[level + 0.01 * value for value in random.normal(size=30)] for level in (100, 130, 90, 110, 85)]
    after = [[level + 0.01 * value for value in random.normal(size=30)] for level in (95, 125, 105, 80, 112)]
    change = change_of_mean(in_runs(before), in_runs(after))
    assert change.low is not None
    assert change.high is not None
    assert change.high - change.low > 30
    assert change.verdict == "no change"


def test_correction_is_that_of_benjamini_and_hochberg() -> None:
    def with_p(p: float | None) -> Change:
        return Change(1, 2, 100, 90, 110, p, 1, 50, 50, 16, 16, "blocks")

    found = corrected([with_p(0.01), with_p(None), with_p(0.04), with_p(0.03)])
    assert [one.p for one in found] == [pytest.approx(0.03), None, pytest.approx(0.04), pytest.approx(0.04)]
    assert corrected([with_p(None)])[0].p is None


def test_an_interval_of_a_mean_holds_it() -> None:
    random = np.random.default_rng(2)
    found = mean_with_interval(one_run(random.exponential(1000, 200)))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.mean < found.high
    assert mean_with_interval(one_run([5.0])).low is None


def totals(model: str, seed: int, mask: int, threads: int, calls: int) -> list[float]:
    """What calls took in an emulated run of the benchmark, in cycles and in order of start."""
    emulation = Emulation(Host(8, model=model, seed=seed), traced=False)
    Bench(threads, Masks(mask), calls=calls, targets="idle").install(emulation)
    emulation.run()
    done = sorted((one.start, one.done) for one in emulation.requests if one.done)
    return [float(last - first) for first, last in done]


CELLS = ((1, 2, 30), (2, 4, 20), (4, 4, 20))
"""CPUs in the mask, callers, calls of each."""


@pytest.mark.parametrize(("mask", "threads", "calls"), CELLS)
def test_intervals_over_runs_cover_the_true_change_as_often_as_they_say(mask: int, threads: int, calls: int) -> None:
    runs = {
        model: [totals(model, seed, mask, threads, calls) for seed in range(SEEDS)] for model in ("legacy", "lockless")
    }
    true = 100 * (
        np.mean([np.mean(one) for one in runs["lockless"]]) / np.mean([np.mean(one) for one in runs["legacy"]]) - 1
    )
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(SEEDS):
        sides = [in_runs([some[place] for place in random.integers(0, SEEDS, 6)]) for some in runs.values()]
        change = change_of_mean(*sides)
        assert change.low is not None
        assert change.high is not None
        covered += change.low <= true <= change.high
    assert abs(covered / SEEDS - (1 - LEVEL)) <= SAMPLING


@pytest.mark.parametrize(("mask", "threads", "calls"), CELLS)
def test_intervals_of_single_runs_cover_the_true_change_at_least_as_often(mask: int, threads: int, calls: int) -> None:
    """More often where callers compete for a fixed amount of work: what one loses in a block another gains later."""
    runs = {
        model: [totals(model, seed, mask, threads, calls) for seed in range(SEEDS)] for model in ("legacy", "lockless")
    }
    true = 100 * (
        np.mean([np.mean(one) for one in runs["lockless"]]) / np.mean([np.mean(one) for one in runs["legacy"]]) - 1
    )
    covered = 0
    for before, after in zip(runs["legacy"], runs["lockless"], strict=True):
        change = change_of_mean(one_run(before), one_run(after))
        assert change.low is not None
        assert change.high is not None
        covered += change.low <= true <= change.high
    assert covered / SEEDS >= 1 - LEVEL - SAMPLING


@pytest.mark.parametrize("model", ["legacy", "lockless"])
@pytest.mark.parametrize(("mask", "threads", "calls"), CELLS)
def test_two_runs_of_one_design_rarely_differ(model: str, mask: int, threads: int, calls: int) -> None:
    alarms = 0
    for seed in range(SEEDS):
        sides = [one_run(totals(model, other, mask, threads, calls)) for other in (2 * seed, 2 * seed + 1)]
        alarms += change_of_mean(*sides).verdict in ("faster", "slower")
    assert alarms / SEEDS <= LEVEL + SAMPLING

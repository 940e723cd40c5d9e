"""Cycles to nanoseconds, exact over days; and the frequency a trace tells of itself."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from conftest import Sample
from hypothesis import example, given
from hypothesis import strategies as st

from xtrace.clock import DEFAULT_HZ, MAX_HZ, MIN_HZ, MIN_SAMPLES, NS_PER_S, Clock, estimate_hz
from xtrace.digest import interest
from xtrace.errors import UsageError
from xtrace.parsers.sched import EVENTS, SwitchInfprev
from xtrace.reader import Reader
from xtrace.survey import survey

DAYS = 400 * 24 * 3600
fast_clocks = st.integers(60_000_000, MAX_HZ)
frequencies = st.one_of(st.integers(MIN_HZ, MAX_HZ), st.sampled_from([60_000_000, DEFAULT_HZ, 2_596_100_000]))

INFPREV = next(event for event in EVENTS if event.payload is SwitchInfprev)
INFPREV_HEADER = INFPREV.event_id | (INFPREV.words or 0) << 28 | 1 << 31


def ns(clock: Clock, *tsc: int) -> list[int]:
    return [int(one) for one in clock.to_ns(np.array(tsc, np.uint64))]


@given(st.data(), frequencies)
def test_exact_over_days(data: st.DataObject, hz: int) -> None:
    zero = data.draw(st.integers(0, DAYS * hz))
    tsc = data.draw(st.lists(st.integers(0, 2 * DAYS * hz), min_size=1))
    clock = Clock(hz, "option", zero)
    assert ns(clock, *tsc) == [(one - zero) * NS_PER_S // hz for one in tsc]


@given(st.integers(0, 2 * DAYS * MAX_HZ), st.integers(1, 1 << 40), frequencies)
def test_no_drift(tsc: int, distance: int, hz: int) -> None:
    """Two times differ by what their distance takes, to 1 ns, wherever in the uptime they are."""
    before, after = ns(Clock(hz, "option"), tsc, tsc + distance)
    assert abs(Fraction(distance * NS_PER_S, hz) - (after - before)) < 1


@given(st.integers(-(1 << 62), 1 << 62), frequencies)
def test_spans(cycles: int, hz: int) -> None:
    expected = cycles * NS_PER_S // hz
    if abs(expected) < 1 << 62:
        assert int(Clock(hz, "option").span_ns(np.array([cycles], np.int64))[0]) == expected


@given(st.integers(0, DAYS * NS_PER_S), st.integers(0, 1 << 50), frequencies)
@example(0, 0, MIN_HZ)
@example(NS_PER_S, 5, DEFAULT_HZ)
def test_to_cycles_is_the_first_count_at_a_time(time: int, zero: int, hz: int) -> None:
    clock = Clock(hz, "option", zero)
    first = clock.to_cycles(time)
    assert ns(clock, first)[0] >= time
    if first > 0:
        assert ns(clock, first - 1)[0] < time


@given(st.integers(0, DAYS * DEFAULT_HZ), st.integers(NS_PER_S, MAX_HZ))
def test_round_trip(cycles: int, hz: int) -> None:
    """Above 1 GHz a nanosecond holds at least a cycle, so times lead back to within one of them."""
    clock = Clock(hz, "option", 12345)
    (time,) = ns(clock, 12345 + cycles)
    assert 0 <= 12345 + cycles - clock.to_cycles(time) <= hz // NS_PER_S


@pytest.mark.parametrize("hz", [0, -1, 100, MIN_HZ - 1, MAX_HZ + 1])
def test_impossible_frequencies(hz: int) -> None:
    with pytest.raises(UsageError, match="out of range"):
        Clock(hz, "option")


def switches(trace: str, sample: Sample) -> int | None:
    found = survey(Reader(sample(trace)), interest(kept=[INFPREV_HEADER]))
    records = found.records(INFPREV_HEADER)
    assert len(records.tsc) > MIN_SAMPLES
    return estimate_hz(records.track, records.tsc, records.payload[:, 2])


@pytest.mark.parametrize("trace", ["migrate-legacy", "migrate-stock"])
def test_frequency_of_real_traces(trace: str, sample: Sample) -> None:
    """2596.1 MHz said `xl info` when they were taken."""
    assert switches(trace, sample) == pytest.approx(2_596_100_000, rel=0.001)


def stays(hz: int, ran: list[int], cpus: int = 3) -> tuple[list[int], list[int], list[int]]:
    """CPU, cycles and `ran_ns` of SWITCH_INFPREV records of CPUs that do the same one after another."""
    records = []
    for cpu in range(cpus):
        begin = 1 << 40
        times = np.cumsum([0, *ran]).tolist()
        records.append((cpu, begin, 1000))
        records += [(cpu, begin + after * hz // NS_PER_S, after - before) for before, after in pairwise(times)]
    cpu_of, tsc, ran_ns = zip(*records, strict=True)
    return list(cpu_of), list(tsc), list(ran_ns)


def estimate(cpu: list[int], tsc: list[int], ran_ns: list[int]) -> int | None:
    return estimate_hz(np.array(cpu, np.int32), np.array(tsc, np.uint64), np.array(ran_ns, np.int64).astype(np.uint32))


@given(fast_clocks, st.lists(st.integers(1_000_000, 4_000_000_000), min_size=MIN_SAMPLES, max_size=60))
def test_estimate_on_made_up_records(hz: int, ran: list[int]) -> None:
    assert estimate(*stays(hz, ran)) == pytest.approx(hz, rel=0.0001)


@given(fast_clocks, st.data())
def test_estimate_in_spite_of_odd_stays(hz: int, data: st.DataObject) -> None:
    """A tenth of the stays is cut short by lost records, or longer than 32 bits of nanoseconds."""
    ran = data.draw(st.lists(st.integers(20_000_000, 30_000_000), min_size=60, max_size=60))
    cpu, tsc, ran_ns = stays(hz, ran)
    for place in data.draw(st.sets(st.integers(1, len(tsc) - 1), max_size=len(tsc) // 10)):
        ran_ns[place] //= 3
    assert estimate(cpu, tsc, ran_ns) == pytest.approx(hz, rel=0.0001)


def test_too_few_records_are_no_estimate() -> None:
    assert estimate(*stays(DEFAULT_HZ, [5_000_000] * (MIN_SAMPLES - 1), cpus=1)) is None
    assert estimate(*stays(DEFAULT_HZ, [5_000_000] * MIN_SAMPLES, cpus=1)) is not None
    assert estimate([], [], []) is None


def test_absurd_rates_are_no_estimate() -> None:
    cpu, tsc, _ = stays(DEFAULT_HZ, [5_000_000] * 50)
    assert estimate(cpu, tsc, [1] * len(cpu)) is None
    assert estimate(cpu, tsc, [0] * len(cpu)) is None


def test_counts_of_all_64_bits() -> None:
    clock = Clock(10**9, "option", (1 << 63) + 5)
    assert clock.to_ns(np.array([1 << 63, (1 << 63) + 5, (1 << 64) - 1], np.uint64)).tolist() == [-5, 0, (1 << 63) - 6]

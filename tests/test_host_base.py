"""What all accounts of a host rest on: windows of time, tallies, records of all CPUs in order of time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import Sample
from hypothesis import given
from hypothesis import strategies as st

import xtrace
from xtrace.decode import groups
from xtrace.errors import UsageError
from xtrace.event_table import event_table
from xtrace.host import tally
from xtrace.host.account import packed, unpacked
from xtrace.host.tally import Tally
from xtrace.host.walk import in_time
from xtrace.host.windows import MAX_INTERVALS, WHOLE, Windows
from xtrace.parsers.event import Event
from xtrace.trace import Trace

TIMES = st.integers(-50, 150)
STAYS = st.lists(st.tuples(st.integers(0, 2), TIMES, st.integers(0, 80)), max_size=30)
WINDOWS = st.tuples(st.integers(-10, 60), st.integers(0, 120), st.none() | st.integers(1, 50)).map(
    lambda some: Windows(some[0], some[0] + some[1], some[2])
)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@given(WINDOWS)
def test_intervals_cover_the_whole_without_overlap(windows: Windows) -> None:
    spans = [windows.span(window) for window in range(1, windows.intervals + 1)]
    assert windows.span(WHOLE) == (windows.begin_ns, windows.end_ns)
    if windows.every_ns is None:
        assert spans == []
    elif spans:
        assert (spans[0][0], spans[-1][1]) == (windows.begin_ns, windows.end_ns)
        assert all(one[1] == after[0] for one, after in pairwise(spans))
        assert {end - begin for begin, end in spans[:-1]} <= {windows.every_ns}


@given(WINDOWS, STAYS)
def test_every_ns_of_a_stay_is_in_its_windows(windows: Windows, stays: list[tuple[int, int, int]]) -> None:
    """Held against counting ns one by one."""
    keys, begins, lengths = (ints(*column) for column in zip(*stays, strict=True)) if stays else (ints(),) * 3
    found = Tally(windows, weighted=True)
    found.over(keys, begins, begins + lengths)
    for window in range(windows.intervals + 1):
        low, high = windows.span(window)
        parts: dict[int, list[int]] = defaultdict(list)
        for key, begin, length in stays:
            inside = [ns for ns in range(begin, begin + length) if low <= ns < high]
            if inside:
                parts[key].append(len(inside))
        spreads = found.spreads(window)
        assert list(spreads) == sorted(parts)
        for key, values in parts.items():
            one, units = spreads[key], sorted(ns for value in values for ns in [value] * value)
            assert (one.count, one.total_ns, one.max_ns) == (len(values), sum(values), max(values))
            marks = [units[len(units) * percent // 100] for percent in (5, 50, 95)]
            assert [one.p5_ns, one.p50_ns, one.p95_ns] == marks
            assert one.mean_ns == sum(values) / len(values)
            assert (one.weighted, one.exact) == (True, True)


@given(WINDOWS, STAYS)
def test_what_takes_time_counts_where_it_begins(windows: Windows, stays: list[tuple[int, int, int]]) -> None:
    keys, begins, lengths = (ints(*column) for column in zip(*stays, strict=True)) if stays else (ints(),) * 3
    found = Tally(windows)
    for half in (slice(0, len(stays) // 2), slice(len(stays) // 2, None)):
        found.at(keys[half], begins[half], lengths[half])
    for window in range(windows.intervals + 1):
        low, high = windows.span(window)
        spreads = found.spreads(window)
        for key in range(3):
            values = sorted(length for one, begin, length in stays if one == key and low <= begin < high)
            assert (key in spreads) == bool(values)
            if values:
                one = spreads[key]
                marks = [values[len(values) * percent // 100] for percent in (5, 50, 95)]
                assert [one.p5_ns, one.p50_ns, one.p95_ns] == marks
                assert (one.count, one.total_ns, one.weighted) == (len(values), sum(values), False)


def test_many_values_are_rounded_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts and sums stay exact; quantiles are within the precision that is promised."""
    monkeypatch.setattr(tally, "MAX_EXACT", 1000)
    rng = np.random.default_rng(1)
    value = rng.lognormal(10, 3, 50_000).astype(np.int64)
    found = Tally(Windows(0, 1))
    for part in np.array_split(value, 200):
        found.at(np.full(len(part), 7), np.zeros(len(part), np.int64), part)
    one = found.spreads(WHOLE)[7]
    assert (one.count, one.total_ns, one.exact) == (len(value), int(value.sum()), False)
    ordered = np.sort(value)
    for percent, shown in ((5, one.p5_ns), (50, one.p50_ns), (95, one.p95_ns)):
        assert shown == pytest.approx(ordered[len(value) * percent // 100], rel=0.002)
    assert one.max_ns == pytest.approx(ordered[-1], rel=0.002)
    held = sum(part.shape[1] for part in found._parts)
    assert held < len(value) / 2


def test_too_many_intervals_are_refused() -> None:
    assert Windows(0, MAX_INTERVALS * 10, 10).intervals == MAX_INTERVALS
    with pytest.raises(UsageError, match="--interval: 10001 intervals"):
        Windows(0, MAX_INTERVALS * 10 + 1, 10)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0x7FFF_FFFF))
def test_keys_hold_what_is_packed(domain: int, vcpu: int, thing: int) -> None:
    assert unpacked(int(packed(ints(domain), ints(vcpu), thing)[0])) == (domain, vcpu, thing)


@pytest.mark.parametrize("name", ["dom0-stock", "vmx-legacy"])
def test_records_come_in_order_with_all_their_fields(sample: Sample, name: str, tmp_path: Path) -> None:
    """The walk over chunks gives what the table of events gives, from a file and from a dataset."""

    def wanted(event: Event) -> bool:
        return event.trace_class in {"SCHED", "HVM"}

    with xtrace.open(sample(name), cpu_hz=10**9) as trace, xtrace.store(trace, tmp_path) as stored:
        expected = event_table(trace, wanted)
        walked(trace, wanted, expected)
        walked(stored, wanted, expected)


def walked(trace: Trace, wanted: Callable[[Event], bool], expected: pa.Table) -> None:
    chunks = list(in_time(trace, wanted))
    assert sum(len(chunk.ns) for chunk in chunks) == expected.num_rows
    for name in ("cpu", "ns", "domain", "vcpu"):
        values = np.concatenate([getattr(chunk, name) for chunk in chunks])
        missing = {"ns": 0, "domain": -1, "vcpu": -1}.get(name)
        assert values.tolist() == [missing if value is None else value for value in expected[name].to_pylist()]
    names = [trace.event_name(header) for chunk in chunks for header in chunk.header.tolist()]
    assert names == expected["event"].to_pylist()
    told = sum(
        int(group.columns["domid"].sum())
        for chunk in chunks
        for group in groups(chunk, trace.dialect)
        if "domid" in group.columns
    )
    assert told == sum(value for value in expected["domid"].to_pylist() if value is not None) > 0

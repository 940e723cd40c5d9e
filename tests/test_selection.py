"""What options mean: times, lists of CPUs, events; and that a span or a CPU means the same of every question."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from captures import capture
from conftest import SAMPLES
from hypothesis import given
from hypothesis import strategies as st
from strategies import Record, Window, build_capture

import xtrace
from xtrace.errors import UsageError
from xtrace.reports import records
from xtrace.selection import Selection, parse_cpus, parse_events, parse_numbers, parse_time
from xtrace.trace import Trace


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("1.5", 1_500_000_000),
        ("1.5s", 1_500_000_000),
        (" 200 ms ", 200_000_000),
        ("35us", 35_000),
        ("35µs", 35_000),
        ("120ns", 120),
        ("0.1ns", 0),
        ("123456789.123456789", 123_456_789_123_456_789),
    ],
)
def test_times(text: str, ns: int) -> None:
    assert parse_time(text, "--from") == ns


@pytest.mark.parametrize("text", ["", "s", "-1", "1e3", "1.", ".5", "1 min", "1,5", "0x10", "nan", "9" * 5000])
def test_no_times(text: str) -> None:
    with pytest.raises(UsageError, match=r"--to .*: not a time"):
        parse_time(text, "--to")


@given(st.integers(0, 10**9), st.integers(0, 999_999_999))
def test_no_nanosecond_is_lost(seconds: int, ns: int) -> None:
    assert parse_time(f"{seconds}.{ns:09d}", "--from") == seconds * 10**9 + ns


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", {0}), ("0-3,8", {0, 1, 2, 3, 8}), ("5,5-5, 4", {4, 5}), ("16382", {16_382})]
)
def test_cpus(text: str, cpus: set[int]) -> None:
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["", "a", "1,", "-1", "1-", "3-1", "0-16383", "1-2-3", "1.5", "9" * 5000])
def test_no_cpus(text: str) -> None:
    with pytest.raises(UsageError, match="--cpus "):
        parse_cpus(text)


def test_domains_may_be_the_idle_one() -> None:
    assert parse_numbers("0,32767", "--domain", 0xFFFF) == {0, 32_767}
    with pytest.raises(UsageError, match=r"--domain 65536: 65536 is not a range within 0-65535"):
        parse_numbers("65536", "--domain", 0xFFFF)


STRANGE = [
    Window(
        0,
        (
            Record(0x0028004, (1, 2), 1 << 40),
            Record(0x0028004, (1, 2, 3), 1 << 40),
            Record(0x800F123, (7,), 1 << 40),
            Record(0x0804099, (7,), 1 << 40),
            Record(0x5001234, (), 1 << 40),
        ),
    )
]
"""A wake-up, one of a wrong length, a guest's record, an unknown one of a known class and one of no class."""
WAKE, LONG, GUEST, SMP, NONE = (
    "TRC_SCHED_WAKE",
    "TRC_SCHED_WAKE_3W",
    "TRC_GUEST_0x123",
    "TRC_UNKNOWN_0x0804099",
    "TRC_UNKNOWN_0x5001234",
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("TRC_SCHED_WAKE", {WAKE}),
        ("sched_wake", {WAKE}),
        ("0x28004", {WAKE, LONG}),
        ("163844", {WAKE, LONG}),
        ("SCHED", {WAKE, LONG}),
        ("sched_wake*", {WAKE, LONG}),
        ("sched_wake_3w", {LONG}),
        ("GUEST", {GUEST}),
        ("TRC_GUEST_0x123", {GUEST}),
        ("0x804099", {SMP}),
        ("HW", {SMP}),
        ("UNKNOWN", {NONE}),
        ("TRC_UNKNOWN*", {SMP, NONE}),
        ("unknown_0x5001234, guest", {GUEST, NONE}),
        ("0x123", set()),
        ("*", {WAKE, LONG, GUEST, SMP, NONE, "TRC_TRACE_CPU_CHANGE"}),
    ],
)
def test_events(text: str, names: set[str], tmp_path: Path) -> None:
    """Whatever a trace holds can be chosen by the name under which it is shown, its id or its class."""
    path = tmp_path / "strange.bin"
    path.write_bytes(build_capture(STRANGE))
    with xtrace.open(path) as trace:
        lines = list(dumped(trace, Selection(), text))
    assert {line.split()[3] for line in lines} == names


@pytest.mark.parametrize("text", ["", "NOTHING", "SCHED_WAKE,NOTHING", "TRC_SCHED_WAEK", "HV"])
def test_no_events(text: str) -> None:
    with pytest.raises(UsageError, match="no such event"):
        parse_events(text)


def dumped(trace: Trace, selection: Selection, events: str = "*") -> list[str]:
    return [line for lines in records.lines(trace, "text", selection, parse_events(events)) for line in lines]


def test_a_span_is_half_open(tmp_path: Path) -> None:
    path = tmp_path / "trace.bin"
    path.write_bytes(
        capture("""
              - cpu0 HVM_NMI
              0 cpu0 CALL_START seq=1
             10 cpu0 CALL_START seq=2
              - cpu0 HVM_NMI
             20 cpu0 CALL_START seq=3
             99 cpu0 CALL_DONE seq=9
        """)
    )
    with xtrace.open(path, cpu_hz=10**9) as trace:
        span = Selection(from_ns=10, to_ns=20)
        assert [line.split()[3] for line in dumped(trace, span)] == ["SMP_CALL_START", "TRC_HVM_NMI"]
        assert trace.summary(span)["events"] == {"SMP_CALL_START": 1, "TRC_HVM_NMI": 1}
        assert trace.summary(span)["episodes"]["call"]["count"] == 1
        assert trace.summary(Selection(from_ns=0))["episodes"]["call"]["count"] == 3, "not the one without START"
        assert trace.summary()["episodes"]["call"]["count"] == 4
        assert trace.summary(Selection(from_ns=10**30))["events"] == {}
        assert trace.summary(Selection(cpus=frozenset()))["events"] == {}


@pytest.mark.parametrize("name", ["bench8-legacy", "dom0-stock"])
def test_parts_make_the_whole(name: str) -> None:
    """Disjoint spans and disjoint CPUs: every record and episode once, in the summary and in the dump."""
    cuts = [None, 700_000_000, 1_500_000_000, 1_500_000_001, None]
    spans = [Selection(from_ns=begin, to_ns=end) for begin, end in pairwise(cuts)]
    spans[0] = Selection(from_ns=0, to_ns=cuts[1])
    owners = [Selection(cpus=cpus) for cpus in (parse_cpus("0-2"), parse_cpus("3"), parse_cpus("4-16382"))]
    with xtrace.open(SAMPLES / f"{name}.bin") as trace:
        whole = trace.summary()
        for parts in (spans, owners):
            found = [trace.summary(part) for part in parts]
            shown = [dumped(trace, part) for part in parts]
            assert [sum(one["events"].values()) for one in found] == [len(lines) for lines in shown]
            for kind in ("call", "flush"):
                for figure in ("count", "complete", "targets"):
                    total = sum(one["episodes"][kind][figure] for one in found)
                    assert total == whole["episodes"][kind][figure]
            events = sum((Counter(one["events"]) for one in found), Counter[str]())
            timeless = Counter(whole["events"]) - events
            # A CPU's first window header comes before any time, and so is in no span of it.
            assert timeless == ({} if parts is owners else {"TRC_TRACE_CPU_CHANGE": len(whole["trace"]["cpus"])})

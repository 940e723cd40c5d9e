"""Merging: in batches and rounds it gives the order of xenalyze's list of CPUs, re-implemented here as it is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Record, Window, build_capture

import xtrace
from xtrace import framing
from xtrace.merge import Merger
from xtrace.parsers.container import CPU_CHANGE_HEADER
from xtrace.reports import records as report
from xtrace.selection import Selection

BEGIN = 1 << 40
HEADER = -1

STAMPED, BARE = 0x0022209, 0x0082010
"""Two events without payload, with and without a cycle count."""

Row = tuple[int, int]
"""A record as its CPU and its number among that CPU's, window headers left out."""


class Cpu:
    """xenalyze's pcpu_info, as far as the order of records goes: a cursor over all windows."""

    def __init__(self, number: int, window: int) -> None:
        self.number, self.window, self.record = number, window, HEADER
        self.order_tsc = 0


class List:
    """process_records() of xenalyze.c and what it calls, by the names it has there; `done` is the answer."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self.windows = windows
        self.record_order: list[Cpu] = []
        self.known: set[int] = set()
        self.done: list[Row] = []
        self.shown: Counter[int] = Counter()
        at = 0
        while self.scan_for_new_pcpu(at):
            at += 1
        while self.record_order:
            self.process(self.record_order[0])

    def scan_for_new_pcpu(self, at: int) -> bool:
        if at == len(self.windows) or self.windows[at].cpu in self.known:
            return False
        self.activate(at)
        return True

    def activate(self, at: int) -> None:
        """Put the CPU of a window before the first that is not earlier: it has no time yet, so before all."""
        self.known.add(self.windows[at].cpu)
        self.record_order.insert(0, Cpu(self.windows[at].cpu, at))

    def process(self, cpu: Cpu) -> None:
        window = self.windows[cpu.window]
        if cpu.record == HEADER:
            self.process_cpu_change(cpu, window)
        else:
            self.done.append((cpu.number, self.shown[cpu.number]))
            self.shown[cpu.number] += 1
            cpu.record += 1
        if cpu.record == len(window.records) and window.cpu == cpu.number:
            cpu.window, cpu.record = cpu.window + 1, HEADER
        if cpu.window == len(self.windows):
            self.record_order.remove(cpu)
            return
        if cpu.record != HEADER and (tsc := self.windows[cpu.window].records[cpu.record].tsc) is not None:
            cpu.order_tsc = tsc
        self.record_order_bubble(cpu)

    def process_cpu_change(self, cpu: Cpu, window: Window) -> None:
        """A window header: whose it is decides where the cursor goes on."""
        if window.cpu not in self.known:
            self.activate(cpu.window)
        if window.cpu != cpu.number:
            cpu.window += 1
            return
        cpu.record = 0
        if cpu.number == max(one.number for one in self.record_order):
            self.scan_for_new_pcpu(cpu.window + 1)

    def record_order_bubble(self, cpu: Cpu) -> None:
        order = self.record_order
        place = order.index(cpu)
        while place + 1 < len(order) and order[place + 1].order_tsc < cpu.order_tsc:
            order[place] = order[place + 1]
            place += 1
        order[place] = cpu


def by_merging(path: Path, block_bytes: int) -> list[Row]:
    """The same through batches of about this size."""
    merger, given = Merger(), []
    seen: Counter[int] = Counter()
    with patch.object(framing, "BLOCK_BYTES", block_bytes), xtrace.open(path, cpu_hz=10**9) as trace:
        for batch, _ in trace.batches():
            items = np.full(len(batch.header), None, object)
            shown = np.flatnonzero(batch.header != CPU_CHANGE_HEADER)
            for place, cpu in zip(shown.tolist(), trace.cpu_of(batch)[shown].tolist(), strict=True):
                items[place] = (cpu, seen[cpu])
                seen[cpu] += 1
            given += merger.feed(batch, items).tolist()
        given += merger.finish().tolist()
    return given


@st.composite
def rounds(draw: Any) -> list[Window]:
    """Windows as polling gives them: what a CPU writes after it was polled is younger than the round before.

    Times are few, so that many are equal; clocks may go back a little. A record without a time is one that follows
    another: it may be in the next round, no later. All CPUs are there from the first round on; of one that joins
    later xenalyze's choice on equal times depends on how far the cursors of others have come.
    """
    cpus = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True).map(sorted))
    step = st.one_of(st.none(), st.sampled_from([0, 0, 1, 1, 2, 5, -1]))
    clock = dict.fromkeys(cpus, BEGIN)
    tops = [BEGIN, BEGIN]
    windows: list[Window] = []
    silent = set(cpus)
    for turn in range(draw(st.integers(1, 6))):
        top = tops[-1]
        for cpu in cpus:
            if turn and draw(st.booleans()):
                silent.add(cpu)
                continue
            deltas = draw(st.lists(step, max_size=6))
            if cpu in silent:
                deltas = [0, *deltas] if turn else [*deltas, 0]
            elif all(delta is None for delta in deltas):
                # xentrace writes no empty window, and Xen no record without a time that does not follow one with it.
                deltas = [*deltas, 0]
            silent.discard(cpu)
            records = []
            for delta in deltas:
                now = None if delta is None else max(clock[cpu] + delta, tops[-2])
                records.append(Record(BARE if now is None else STAMPED, (), now))
                clock[cpu] = max(clock[cpu], now or 0)
            windows.append(Window(cpu, tuple(records)))
            top = max(top, clock[cpu])
        tops.append(top)
    return windows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("merge")


@given(windows=rounds(), block_bytes=st.sampled_from([1, 40, 100, 1 << 20]))
def test_any_windows(windows: list[Window], block_bytes: int, folder: Path) -> None:
    path = folder / "trace.bin"
    path.write_bytes(build_capture(windows))
    assert by_merging(path, block_bytes) == List(windows).done


def test_on_equal_times_the_cpu_served_last_comes_first(folder: Path) -> None:
    path = folder / "equal.bin"
    times = {0: [1, 3, 5], 1: [2, 3, 3, 5], 2: [3, 4, 5]}
    windows = [Window(cpu, tuple(Record(STAMPED, (), BEGIN + time) for time in own)) for cpu, own in times.items()]
    path.write_bytes(build_capture(windows))
    merged = by_merging(path, 1)
    assert merged == List(windows).done
    assert [cpu for cpu, _ in merged] == [0, 1, 1, 1, 0, 2, 2, 2, 0, 1]


def test_it_does_not_wait_for_the_end(folder: Path) -> None:
    """Records of a round are given a few rounds later, whoever is silent."""
    path = folder / "long.bin"
    path.write_bytes(
        build_capture(
            [
                Window(cpu, tuple(Record(STAMPED, (), BEGIN + turn * 100 + cpu + i) for i in range(9)))
                for turn in range(20)
                for cpu in (0, 1, 2)
                if cpu < 2 or turn < 3
            ]
        )
    )
    merger, most = Merger(), 0
    with patch.object(framing, "BLOCK_BYTES", 1), xtrace.open(path, cpu_hz=10**9) as trace:
        fed = given = 0
        for batch, rows in trace.batches():
            fed += len(rows)
            given += len(merger.feed(batch, np.zeros(len(rows), object)))
            most = max(most, fed - given)
        given += len(merger.finish())
    assert fed == given
    assert most <= 5 * 3 * 10


@pytest.mark.parametrize("name", ["bench8-lockless", "dom0-stock"])
def test_a_part_is_in_the_order_of_the_whole(name: str, sample: Any) -> None:
    with xtrace.open(sample(name), cpu_hz=60_000_000) as trace:
        whole = [line for lines in report.lines(trace, "raw", Selection()) for line in lines]
        chosen = Selection(cpus=frozenset([0, 3]), from_ns=100_000_000)
        part = [line for lines in report.lines(trace, "raw", chosen) for line in lines]
    # A loop over one iterator: each line of the part is found behind the one before.
    left = iter(whole)
    assert part
    assert all(line in left for line in part)

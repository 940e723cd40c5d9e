"""Interrupts of guests and devices: as `xenalyze -s` has them on real and made-up traces, and small captures."""

from __future__ import annotations

import random
import re
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import xenalyze_summary
from captures import capture, same
from conftest import Opened, Sample
from host_parts import followed, pieces
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_wakes import lossy, stays

import xtrace
from xtrace.host.interrupts import DeviceIrq, Interrupts, InterruptsAccount, IrqCpu, VectorUse
from xtrace.host.tally import Spread
from xtrace.host.wakes import WAKES, Stays, WakeStays, table_wakes, wakes_of
from xtrace.host.walk import in_time
from xtrace.host.windows import WHOLE
from xtrace.selection import Selection
from xtrace.trace import Trace

COUNT = re.compile(r"  \[ *(\d+)\] (\d+)")
CASES = {"wake to halt alone": "alone", "wake to halt any": "wake", "intr to halt": "interrupt"}

QUANTILES = (5, 50, 95)
DIFFERENT = {"migrate-stock": 4, "migrate-legacy": 6}
"""Quantiles that xenalyze has wrong: it subtracts weights of other values than those that it passes."""


@dataclass(frozen=True)
class Line:
    """A vector of a vCPU, and by kind of stay the count, hundredths of seconds and mean; quantiles apart."""

    count: int
    stays: dict[str, tuple[int, int, int]]
    quantiles: dict[str, tuple[int, ...]] = field(compare=False)


Judged = dict[tuple[int, int, int], Line]


def judged(summary: xenalyze_summary.Summary) -> Judged:
    """By domain, vCPU and vector what `xenalyze -s` says; no line is passed over."""
    found: Judged = {}
    for domain, one in summary.domains.items():
        for vcpu, sections in one.vcpus.items():
            line = Line(0, {}, {})
            for text in sections.sections.get("Guest interrupt counts", []):
                if match := COUNT.fullmatch(text):
                    line = found[domain, vcpu, int(match[1])] = Line(int(match[2]), {}, {})
                    continue
                row = xenalyze_summary.figures(text)
                kind = CASES[row.label.removeprefix("* ")]
                assert row.seconds is not None
                line.stays[kind] = row.count, int(row.seconds.replace(".", "")), row.mean
                line.quantiles[kind] = row.p5, row.p50, row.p95
    return found


def ours(found: Interrupts) -> Judged:
    """The same of our figures."""
    lines: Judged = {}
    for one in found.guest:
        line = lines[one.domain, one.vcpu, one.vector or 0] = Line(one.count, {}, {})
        for kind in CASES.values():
            spread: Spread = getattr(one, kind)
            if spread.count:
                assert (spread.weighted, spread.exact) == (True, True)
                seconds = int(f"{spread.total_ns / 1e9:.2f}".replace(".", ""))
                line.stays[kind] = spread.count, seconds, spread.total_ns // spread.count
                line.quantiles[kind] = (spread.p5_ns or 0, spread.p50_ns or 0, spread.p95_ns or 0)
    return lines


def durations(rows: list[dict[str, Any]], key: tuple[int, int, int], kind: str) -> list[int]:
    """How long stays of a kind were, ascending."""
    chosen = {"alone": ("wake alone",), "wake": ("wake alone", "wake"), "interrupt": ("interrupt",)}[kind]
    mine = (row for row in rows if (row["domain"], row["vcpu"], row["vector"]) == key and row["kind"] in chosen)
    return sorted(row["duration_ns"] for row in mine)


def passed(values: list[int]) -> tuple[int, ...]:
    """The stays in which shares of all time have passed."""
    marks = [sum(values) * percent // 100 for percent in QUANTILES]
    sums = list(accumulate(values))
    return tuple(next((one for one, so_far in zip(values, sums, strict=True) if so_far > mark)) for mark in marks)


def compared(path: Path) -> tuple[Judged, int]:
    """What xenalyze says, which is what we say; and how many of its quantiles are others."""
    with xtrace.open(path, cpu_hz=10**9) as one:
        found = ours(followed(one, InterruptsAccount).found(WHOLE))
        rows = wakes(one)
    expected = judged(xenalyze_summary.summary(path))
    assert found == expected
    different = 0
    for key, line in found.items():
        for kind, quantiles in line.quantiles.items():
            values = durations(rows, key, kind)
            assert quantiles == passed(values)
            theirs = expected[key].quantiles[kind]
            assert set(theirs) <= set(values)
            different += sum(one != other for one, other in zip(quantiles, theirs, strict=True))
    return expected, different


def test_guest_interrupts_equal_xenalyze(trace: Path, trace_name: str) -> None:
    expected, different = compared(trace)
    assert bool(expected) == trace_name.startswith("migrate")
    assert different == DIFFERENT.get(trace_name, 0)
    stays = {
        kind: sum(line.stays[kind][0] for line in expected.values() if kind in line.stays) for kind in CASES.values()
    }
    if trace_name == "migrate-legacy":
        assert stays == {"alone": 644, "wake": 644, "interrupt": 3}


def test_wakes_equal_the_scatter_plot(sample: Sample) -> None:
    """xenalyze prints where each stay ends and how long it was, of what woke; its clock is a little off (D41)."""
    path = sample("migrate-legacy")
    command = [xenalyze_summary.judge(), "--svm-mode", "--cpu-hz", "1G", "--scatterplot-wake-to-halt", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    with xtrace.open(path, cpu_hz=10**9) as trace:
        rows = wakes(trace)
    expected = [int(line.split()[-1]) for line in lines]
    assert [row["duration_ns"] for row in rows if row["kind"] != "interrupt"] == expected
    assert len(expected) == 288 + 356
    for row, line in zip((row for row in rows if row["kind"] != "interrupt"), lines, strict=True):
        assert row["end_ns"] / 1e9 == pytest.approx(float(line.split()[-2]), rel=1e-3)


def wakes(trace: Trace, piece: int | None = None) -> list[dict[str, Any]]:
    """Rows of the table, made so many records at a time."""
    if piece is None:
        return list(wakes_of(trace).to_pylist())
    finder = WakeStays(trace.dialect)
    stays: list[Stays] = []
    for chunk in in_time(trace, finder.wants, finish=finder.finish):
        stays += [finder.feed(part) for part in pieces(chunk, piece)]
    return list(table_wakes(stays).to_pylist())


@pytest.mark.parametrize("piece", [1, 7, 400])
def test_pieces_do_not_matter(piece: int, tmp_path: Path) -> None:
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(made_up(3, cpus=3, vcpus=7, steps=800)))
    with xtrace.open(path, cpu_hz=10**9) as trace:
        whole = wakes(trace)
        assert wakes(trace, piece) == whole
        assert {row["kind"] for row in whole} == {"wake alone", "wake", "interrupt"}
        account = followed(trace, InterruptsAccount, piece=piece)
        assert account.found(WHOLE) == followed(trace, InterruptsAccount).found(WHOLE)


@pytest.mark.parametrize(("seed", "cpus", "vcpus"), [(0, 1, 2), (1, 2, 5), (2, 4, 9), (3, 8, 20), (4, 64, 90)])
def test_made_up_guests_equal_xenalyze(seed: int, cpus: int, vcpus: int, tmp_path: Path) -> None:
    """Guests that are woken, preempted, moved and given interrupts at random."""
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(made_up(seed, cpus, vcpus)))
    expected, _ = compared(path)
    seen = Counter(kind for line in expected.values() for kind in line.stays)
    assert min(seen[kind] for kind in CASES.values()) > 0


def test_a_first_wake_counts(tmp_path: Path) -> None:
    """xenalyze takes no wake-up of a vCPU of which it has seen no VM exit or entry yet."""
    text = """
        10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        30 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
        40 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=blocked new_state=runnable
        50 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        51 cpu0 VMEXIT64
        - cpu0 INJ_VIRQ vector=48
        60 cpu0 VMENTRY
        100 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
    """
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(text))
    with xtrace.open(path, cpu_hz=10**9) as trace:
        (line,) = ours(followed(trace, InterruptsAccount).found(WHOLE)).values()
    (theirs,) = judged(xenalyze_summary.summary(path)).values()
    assert line.stays == {"alone": (1, 0, 40), "wake": (1, 0, 40)}
    assert theirs.stays == {"interrupt": (1, 0, 40)}


def made_up(seed: int, cpus: int, vcpus: int, steps: int = 4000) -> str:
    """A capture of so many vCPUs of two guests on so many CPUs."""
    host = MadeUp(random.Random(seed), cpus, vcpus)
    for _ in range(steps):
        host.step()
    return "\n".join(host.lines)


class MadeUp:
    """Guests that do anything that a hypervisor lets them do."""

    def __init__(self, chance: random.Random, cpus: int, vcpus: int) -> None:
        self.chance, self.now = chance, 100
        self.state = dict.fromkeys(range(vcpus), "runnable")
        self.current: list[int | None] = [None] * cpus
        self.entered: set[int] = set()
        self.lines: list[str] = []
        for cpu in range(cpus):
            self.change(cpu, None, "runnable", "running")

    def write(self, cpu: int, text: str) -> None:
        self.now += self.chance.randint(1, 30)
        self.lines.append(f"{'-' if text.startswith('INJ') else self.now} cpu{cpu} {text}")

    def change(self, cpu: int, vcpu: int | None, old: str, new: str) -> None:
        who = f"domid=32767 vcpuid={cpu}" if vcpu is None else f"domid={1 + vcpu % 2} vcpuid={vcpu // 2}"
        self.write(cpu, f"RUNSTATE_CHANGE {who} old_state={old} new_state={new}")
        if vcpu is None:
            return
        self.state[vcpu] = new
        if new == "running" and vcpu not in self.entered:
            # To xenalyze a vCPU is none of an HVM guest before a record says so, and a wake-up of it is none.
            self.entered.add(vcpu)
            self.write(cpu, "VMENTRY")

    def switch(self, cpu: int, new: str) -> None:
        """The vCPU leaves; one that is runnable comes, or the idle one."""
        there = self.current[cpu]
        waiting = [one for one, what in self.state.items() if what == "runnable"]
        self.change(cpu, there, "running", "runnable" if there is None else new)
        self.current[cpu] = self.chance.choice(waiting) if waiting and self.chance.random() < 0.8 else None
        self.change(cpu, self.current[cpu], "runnable", "running")

    def step(self) -> None:
        if self.chance.random() < 0.02:
            self.lines.append("---")
        cpu, act = self.chance.randrange(len(self.current)), self.chance.random()
        vcpu = self.current[cpu]
        blocked = [one for one, what in self.state.items() if what == "blocked"]
        if act < 0.15 and blocked:
            self.change(cpu, self.chance.choice(blocked), "blocked", "runnable")
        elif vcpu is None:
            self.switch(cpu, "runnable")
        elif act < 0.4:
            # xenalyze prints nothing of a vCPU without an exit.
            self.write(cpu, "VMEXIT64 exit_reason=0x60 rip=4096")
            self.write(cpu, f"INJ_VIRQ vector={self.chance.choice((48, 49, 243))}")
        elif act < 0.75:
            self.write(cpu, "VMENTRY")
        elif act < 0.8:
            self.write(cpu, f"CONTINUE_RUNNING domid={1 + vcpu % 2} vcpuid={vcpu // 2}")
        else:
            self.switch(cpu, "blocked" if act < 0.95 else "runnable")


@settings(max_examples=15)
@given(st.integers(0, 1 << 30), st.integers(1, 6), st.integers(0, 40), st.integers(1, 500))
def test_lossy_guests_equal_the_slow_way(scratch: Path, seed: int, cpus: int, losses: int, piece: int) -> None:
    """Records of spans of time are lost on CPUs at random."""
    text = lossy(made_up(seed, cpus, 2 * cpus, steps=300), random.Random(seed), losses)
    scratch.write_bytes(capture(text))
    with xtrace.open(scratch, cpu_hz=10**9) as trace:
        found = [
            (row["end_ns"], (row["domain"], row["vcpu"]), row["vector"], row["kind"], row["duration_ns"])
            for row in wakes(trace, piece)
        ]
    begin = min(int(line.split(maxsplit=1)[0]) for line in text.splitlines() if line[0] != "-")
    assert sorted(found) == [(end - begin, *rest) for end, *rest in stays(text)]


WOKEN = """
    10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    20 cpu0 VMENTRY
    30 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
    40 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=blocked new_state=runnable
    50 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    - cpu0 INJ_VIRQ vector=48
    60 cpu0 VMENTRY
    - cpu0 INJ_VIRQ vector=49
    - cpu0 INJ_VIRQ vector=48
    80 cpu0 VMENTRY
    - cpu0 INJ_VIRQ vector=700
    100 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
"""


def test_wakes_of_a_small_capture(opened: Opened) -> None:
    """Each vector counts from the entry behind its first injection; one that no entry delivers has no time."""
    with opened(WOKEN) as trace:
        table = wakes_of(trace)
        same(
            """
            domain vcpu vector kind begin_ns end_ns duration_ns cpu
            1 0 48 wake 50 90 40 0
            1 0 49 interrupt 70 90 20 0
            """,
            table,
        )
        assert table.schema.equals(WAKES, check_metadata=True)
        found = followed(trace, InterruptsAccount).found(WHOLE)
        assert [(one.vector, one.count) for one in found.guest] == [(48, 2), (49, 1), (None, 1)]
        assert table_wakes([]).num_rows == 0


PAUSED = """
    10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    15 cpu0 VMEXIT64
    - cpu0 INJ_VIRQ vector=48
    20 cpu0 VMENTRY
    30 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=offline
    40 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=offline new_state=blocked
    50 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=blocked new_state=runnable
    60 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    - cpu0 INJ_VIRQ vector=48
    70 cpu0 VMENTRY
    - cpu0 INJ_VIRQ vector=49
    100 cpu0 VMENTRY
    100 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
"""


@pytest.mark.parametrize("piece", [None, 1])
def test_the_waker_may_have_come_before(piece: int | None, tmp_path: Path) -> None:
    """Paused and gone on, a vCPU is woken by a vector that it got before; what takes no time is not counted."""
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(PAUSED))
    with xtrace.open(path, cpu_hz=10**9) as trace:
        found = followed(trace, InterruptsAccount, piece=piece).found(WHOLE)
        assert [(row["kind"], row["duration_ns"]) for row in wakes(trace, piece)] == [("wake", 80)]
        elsewhere = followed(trace, InterruptsAccount, Selection(cpus=frozenset({1}))).found(WHOLE)
    assert ours(found) == judged(xenalyze_summary.summary(path))
    assert elsewhere.guest == ()


def test_captures_are_apart(tmp_path: Path) -> None:
    """What the first leaves open does not go on in the second."""
    second = """
        -100000000000 cpu0 CONTINUE_RUNNING domid=1 vcpuid=0
        - cpu0 INJ_VIRQ vector=48
        -99999999990 cpu0 VMENTRY
        -99999999970 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
    """
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(WOKEN.split("    80 cpu0", maxsplit=1)[0]) + capture(second))
    with xtrace.open(path, cpu_hz=10**9) as trace:
        assert trace.survey.captures == 2
        (row,) = wakes(trace)
        account = followed(trace, InterruptsAccount, Selection(from_ns=-(10**12)))
        assert (row["kind"], row["duration_ns"]) == ("interrupt", 20)
    first = account.found(WHOLE).guest[0]
    assert (first.vector, first.count, first.interrupt.count) == (48, 3, 1)


LOSS = "cpu{cpu} LOST_RECORDS lost=5 domid={domain} vcpuid=0 first_tsc=44"


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("45 " + LOSS.format(cpu=0, domain=32767), [(49, "interrupt", 20), (48, "interrupt", 40)]),
        ("55 " + LOSS.format(cpu=1, domain=32767), [(48, "wake", 40), (49, "interrupt", 20)]),
        ("75 " + LOSS.format(cpu=0, domain=1), [(48, "interrupt", 20), (49, "interrupt", 20)]),
        ("99 " + LOSS.format(cpu=0, domain=1), []),
    ],
    ids=["while it waits", "on another CPU as it runs", "as it runs", "just before it blocks"],
)
def test_nothing_is_told_across_lost_records(line: str, left: list[tuple[int, str, int]], opened: Opened) -> None:
    """The first leaves open whether what was lost woke it once more. The third loses an injection and its entry."""
    when = int(line.split(maxsplit=1)[0])
    lines = WOKEN.strip().splitlines()
    place = next(at for at, one in enumerate(lines) if one.split()[0] != "-" and int(one.split()[0]) > when)
    while lines[place - 1].split()[0] == "-":
        place -= 1
    with opened("\n".join((*lines[:place], line, *lines[place:]))) as trace:
        rows = wakes(trace)
    assert sorted((row["vector"], row["kind"], row["duration_ns"]) for row in rows) == sorted(left)


DELIVERED = """
    10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    - cpu0 INJ_VIRQ vector=48
    20 cpu0 VMENTRY
"""
SKEWED = """
    40 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=blocked new_state=runnable
    50 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
"""
MISSING = """
    30 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=runnable
    40 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=blocked new_state=runnable
    50 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    60 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
"""
ELSEWHERE = """
    40 cpu1 CONTINUE_RUNNING domid=1 vcpuid=0
    50 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
"""


@pytest.mark.parametrize("rest", [SKEWED, MISSING, ELSEWHERE], ids=["skewed", "missing", "elsewhere"])
def test_nothing_is_told_where_changes_do_not_fit(rest: str, opened: Opened) -> None:
    with opened(DELIVERED + rest) as trace:
        assert wakes(trace) == []
    with opened(DELIVERED + rest.splitlines()[-1].replace("cpu1", "cpu0")) as trace:
        assert len(wakes(trace)) == 1


def test_handlers_of_devices_equal_xenalyze(sample: Sample) -> None:
    """The dump has their cycles, as signed numbers of 32 bits (D49)."""
    path = sample("bench8-legacy")
    command = [xenalyze_summary.judge(), "-a", "--svm-mode", "--cpu-hz", "1G", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cycles = [int(number) % (1 << 32) for number in re.findall(r"irq_handled irq 4 (-?\d+) \(", text)]
    assert len(cycles) == 117
    with xtrace.open(path, cpu_hz=10**9) as trace:
        found = followed(trace, InterruptsAccount).found(WHOLE)
        duration = trace.duration_ns + 1
    (device,) = found.devices
    low, middle, high = (sorted(cycles)[len(cycles) * percent // 100] for percent in (5, 50, 95))
    assert (device.irq, device.cpu, device.count, device.untimed) == (4, None, 117, 0)
    assert device.time == Spread(117, sum(cycles), sum(cycles) / 117, low, middle, high, max(cycles), False, True)
    assert device.per_s == 117e9 / duration
    assert device.percent == 100 * sum(cycles) / duration
    assert found.on_cpus == (DeviceIrq(4, 0, 117, 0, device.per_s, device.percent, device.time),)
    assert found.cpus == (IrqCpu(0, 117, device.per_s, sum(cycles), device.percent),)


def test_handlers_of_a_small_capture(opened: Opened) -> None:
    """The low half of the cycle count wraps; a handler that began before the tracing has no time."""
    text = """
        100 cpu0 HW_IRQ_HANDLED irq=9 tsc_in=0xfffffff0 tsc_out=0x10
        200 cpu1 HW_IRQ_HANDLED irq=9 tsc_in=5 tsc_out=15
        300 cpu1 HW_IRQ_HANDLED irq=9 tsc_in=0 tsc_out=15
        400 cpu1 HW_IRQ_HANDLED irq=0xffffffff tsc_in=0 tsc_out=15
    """
    with opened(text) as trace:
        found = followed(trace, InterruptsAccount).found(WHOLE)
        rows = [(one.irq, one.count, one.untimed, one.time.total_ns, one.time.max_ns) for one in found.devices]
        assert rows == [(9, 3, 1, 42, 32), (0xFFFF_FFFF, 1, 1, 0, None)]
        cells = [(one.irq, one.cpu, one.count, one.time.total_ns) for one in found.on_cpus]
        assert cells == [(9, 0, 1, 32), (9, 1, 2, 10), (0xFFFF_FFFF, 1, 1, 0)]
        assert [(one.cpu, one.count, one.total_ns) for one in found.cpus] == [(0, 1, 32), (1, 3, 10)]
        frame = found.df_devices()
        assert frame["total_ns"].tolist() == [32, 10, 0]
        assert frame["p50_ns"].isna().tolist() == [False, False, True]
        on_one = followed(trace, InterruptsAccount, Selection(cpus=frozenset({1}))).found(WHOLE)
        assert [(one.irq, one.count) for one in on_one.devices] == [(9, 2), (0xFFFF_FFFF, 1)]
        windows = followed(trace, InterruptsAccount, every_ns=150)
        counts = [[(one.irq, one.count) for one in windows.found(window).devices] for window in (1, 2, 3)]
        assert counts == [[(9, 2)], [(9, 1)], [(0xFFFF_FFFF, 1)]]


def test_vectors_of_irqs(opened: Opened) -> None:
    text = """
        1 cpu0 HW_IRQ_ASSIGN_VECTOR irq=33 vector=0x38
        2 cpu0 HW_IRQ_BIND_VECTOR irq=33 vector=0x38
        3 cpu0 HW_IRQ_ASSIGN_VECTOR irq=33 vector=0x40
        4 cpu1 HW_IRQ_MOVE_CLEANUP_DELAY irq=33 vector=0x38 cpu=1
        5 cpu1 HW_IRQ_MOVE_CLEANUP irq=33 vector=0x38 cpu=1
        6 cpu1 HW_IRQ_MOVE_FINISH irq=33 vector=0x38 cpu=1
        7 cpu1 HW_IRQ_CLEAR_VECTOR irq=33 vector=0x40
        8 cpu1 HW_IRQ_UNMAPPED_VECTOR vector=0x99
    """
    with opened(text) as trace:
        assert followed(trace, InterruptsAccount).found(WHOLE).vectors == (
            VectorUse(33, 0x38, assigned=1, bound=1, delayed=1, cleaned_up=1, moved=1),
            VectorUse(33, 0x40, assigned=1, cleared=1),
            VectorUse(None, 0x99, unmapped=1),
        )


def test_what_else_guests_are_given(opened: Opened) -> None:
    text = """
        10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=2 old_state=runnable new_state=running
        - cpu0 INJ_EXC vector=14 error_code=4
        - cpu0 INJ_EXC vector=6 error_code=-1
        - cpu0 INJ_EXC vector=6 error_code=-1
        - cpu0 INJ_EXC vector=31 error_code=-1
        - cpu0 PF_INJECT64 error_code=2 cr2=4096
        - cpu1 INJ_VIRQ vector=243
    """
    with opened(text) as trace:
        found = followed(trace, InterruptsAccount).found(WHOLE)
        assert [(one.domain, one.vcpu, one.kind, one.vector, one.name, one.count) for one in found.raised] == [
            (1, 2, "exception", 6, "#UD invalid opcode", 2),
            (1, 2, "exception", 14, "#PF page fault", 1),
            (1, 2, "exception", 31, "exception 31", 1),
            (1, 2, "page fault", None, "page fault", 1),
        ]
        assert (found.guest, found.unattributed) == ((), 1)
        assert found.df_guest().empty

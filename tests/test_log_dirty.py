"""Log-dirty phases: real traces counted from their records, the emulator's own account, and small captures."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from conftest import Opened, Sample
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Record, Window, build_capture, captures

import xtrace
from xtrace.dataset.write import write
from xtrace.emulator import host
from xtrace.emulator.contexts import SvmGuest, layout_named
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.machine import Activity, Cpu
from xtrace.emulator.models import DESIGNS
from xtrace.emulator.output import made
from xtrace.emulator.plan import Plan
from xtrace.emulator.requests import Request
from xtrace.emulator.rings import Tool
from xtrace.emulator.workloads import evacuate
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.emulator.workloads.evacuate import PAGES_DIRTIED, ROUNDS, Evacuate
from xtrace.parsers.registry import EVENTS
from xtrace.parsers.vendor import Vendor
from xtrace.questions.dirty_phases import MAX_PARTS, Pass, Phase
from xtrace.questions.dirtying import BEGINS, Dirtied, Moments, begins, bursts
from xtrace.questions.flush_costs import PAYERS
from xtrace.questions.log_dirty import PASS_COLUMNS, LogDirty, log_dirty
from xtrace.questions.paths import Paths
from xtrace.questions.requests import FLUSH, Requests
from xtrace.questions.spans import spread
from xtrace.reports.sections import log_dirty as paint
from xtrace.selection import Selection
from xtrace.trace import Trace
from xtrace.trace_file import TraceFile

REAL_HZ = 2_596_100_000
EXACT_HZ = 10**9
"""A cycle is a nanosecond: nothing is rounded."""


def found_in(trace: Trace, selection: Selection | None = None) -> LogDirty | None:
    return log_dirty(trace, Paths.of(Requests.of(trace.tables, selection or Selection())))


def facts(trace: Trace) -> LogDirty:
    found = found_in(trace)
    assert found is not None
    json.dumps(asdict(found))
    return found


def only(found: LogDirty) -> Phase:
    (phase,) = found.phases
    return phase


# Real traces.

MIGRATIONS = {"migrate-legacy": 2, "migrate-lockless": 1, "migrate-stock": 1}


@pytest.fixture(scope="module")
def migrations(sample: Sample) -> dict[str, LogDirty]:
    """What is found in the real ones."""
    found = {}
    for name in MIGRATIONS:
        with xtrace.open(sample(name), cpu_hz=REAL_HZ) as trace:
            found[name] = facts(trace)
    return found


@pytest.mark.parametrize("name", MIGRATIONS)
def test_real_migrations_by_their_records(name: str, migrations: dict[str, LogDirty], sample: Sample) -> None:
    """Counted with frames: what the guest's own CPU changed, flushes by domain, the time in which it ran."""
    domain = MIGRATIONS[name]
    with xtrace.open(sample(name), cpu_hz=REAL_HZ) as trace:
        changes, faults = trace.df_events("TRC_MEM_SET_P2M_ENTRY"), trace.df_events("TRC_HVM_NPF")
        exits, stays = trace.df_events("TRC_HVM_VMEXIT64"), trace.df_runstates()
        episodes = None if name == "migrate-stock" else trace.df_episodes()
    phase = only(migrations[name])
    own = changes[(changes["domain"] == domain) & (changes["domid"] == domain)]
    own = own[own["gfn"].isin(faults["gpa"] // 4096)]
    assert 0 <= len(changes[changes["domid"] == domain]) - len(own) <= 1, "one may be cut off by the end"
    begin, end = int(own["ns"].min()), int(faults["ns"].max())
    whole = phase.whole
    assert (phase.domain, phase.told_by, len(phase.passes)) == (domain, "changes", 1)
    assert (whole.begin_ns, whole.end_ns, whole.begun) == (begin, end, "first")
    assert (whole.dirtied, whole.changed, whole.marked, whole.full) == (len(own), len(own), 0, None)
    assert not own["gfn"].duplicated().any(), "one pass: no page was made writable twice"
    assert whole.filled == len(_within(changes[changes["domid"] == 3], "ns", begin, end))
    left = exits[(exits["exit_reason"] == 0x400) & (exits["domain"] == domain)]
    assert whole.faults == len(_within(left, "ns", begin, end))
    running = stays[(stays["domain"] == domain) & (stays["state"] == "running")]
    ran = running["end_ns"].fillna(end).clip(begin, end) - running["begin_ns"].fillna(begin).clip(begin, end)
    assert whole.ran_ns == ran.clip(lower=0).sum()
    assert whole.dirtied_per_s == pytest.approx(len(own) / ((end - begin) / 1e9))
    if episodes is None:
        assert (whole.paid, whole.flushes_per_page, phase.subjects) == (None, None, None)
        assert (phase.course.guest_ns, phase.course.toolstack_ns) == (None, None)
        return
    flushes = episodes[(episodes["kind"] == "flush") & episodes["complete"]]
    inside = _within(flushes, "start_ns", begin, end)
    assert whole.paid is not None
    for payer, who in (("guest", domain), ("toolstack", 0)):
        mine = inside[inside["domain"] == who]
        memory = mine[mine["flush_flags"] & 0x4000 != 0]
        one = whole.paid[payer]
        assert (one.flushes, one.ns) == (len(mine), mine["total_ns"].sum())
        assert (one.memory_flushes, one.memory_ns) == (len(memory), memory["total_ns"].sum())
    assert sum(one.flushes for one in whole.paid.values()) == len(inside)
    assert whole.changed_per_flush == len(own) / whole.paid["guest"].memory_flushes


def _within(rows: pd.DataFrame, name: str, begin: int, end: int) -> pd.DataFrame:
    return rows[(rows[name] >= begin) & (rows[name] <= end)]


def test_who_pays_for_the_real_migrations(migrations: dict[str, LogDirty]) -> None:
    """Golden: the guest does, in both designs; dom0 flushes for no guest's memory."""
    costs = {}
    for name in ("migrate-legacy", "migrate-lockless"):
        found = migrations[name]
        whole, paid = only(found).whole, only(found).whole.paid
        assert paid is not None
        assert found.outside is not None
        guest, dom0 = paid["guest"], paid["toolstack"]
        costs[name] = whole.dirtied, guest.memory_flushes, guest.ns // 10**6, dom0.flushes, dom0.ns // 10**6
        assert dom0.memory_flushes == dom0.memory_ns == 0
        assert guest.lock_ns + guest.queue_ns + guest.serving_ns < guest.ns // 20
        assert (guest.lock_ns > 0) == (dom0.lock_ns > 0) == (name == "migrate-legacy")
        assert whole.ran_ns is not None
        assert 0.17 < guest.ns / whole.ran_ns < 0.2
    assert costs == {
        "migrate-legacy": (11_756, 2_244, 15_851, 342, 3_000),
        "migrate-lockless": (12_445, 1_872, 6_615, 119, 853),
    }


@pytest.mark.parametrize(("name", "known", "unknown"), [("migrate-legacy", 2_233, 11), ("migrate-lockless", 1_843, 29)])
def test_for_whose_memory_flushes_were(name: str, known: int, unknown: int, migrations: dict[str, LogDirty]) -> None:
    """The P2M change before it tells of 98 % and more, and is never wrong: guests can change nobody else's."""
    domain = MIGRATIONS[name]
    subjects = only(migrations[name]).subjects
    assert subjects is not None
    assert [(one.payer, one.domain, one.flushes) for one in subjects] == [
        ("guest", domain, known),
        ("guest", None, unknown),
    ]


@pytest.mark.parametrize("name", MIGRATIONS)
def test_a_phase_over_time_adds_up(name: str, migrations: dict[str, LogDirty]) -> None:
    phase = only(migrations[name])
    over, whole = phase.course, phase.whole
    assert sum(over.dirtied) == whole.dirtied
    assert MAX_PARTS / 3 < len(over.dirtied) <= MAX_PARTS
    assert over.begin_ns == whole.begin_ns
    if whole.paid is not None:
        assert over.guest_ns is not None
        # The last one may be done after the end.
        assert 0 <= whole.paid["guest"].ns - sum(over.guest_ns) < 10**9


@pytest.mark.parametrize("name", ["bench-legacy", "bench8-lockless", "dom0-stock", "vmx-legacy"])
def test_traces_without_a_migration(name: str, sample: Sample) -> None:
    with xtrace.open(sample(name)) as trace:
        found = found_in(trace)
    assert (found is None) == (name != "vmx-legacy")
    assert found is None or not found.phases
    section = paint.section(found)
    assert len(section.text) in (1, 2)
    assert "hvm" in section.text[-1]
    assert list(paint.answer(found)) == []
    assert paint.pictures(found) == ()


def test_what_is_selected_counts_and_phases_stay(migrations: dict[str, LogDirty], sample: Sample) -> None:
    with xtrace.open(sample("migrate-legacy"), cpu_hz=REAL_HZ) as trace:
        some = found_in(trace, Selection(from_ns=20_000_000_000, to_ns=30_000_000_000))
    assert some is not None
    one, other = only(some).whole, only(migrations["migrate-legacy"]).whole
    assert (one.begin_ns, one.end_ns, one.dirtied) == (other.begin_ns, other.end_ns, other.dirtied)
    assert one.paid is not None
    assert other.paid is not None
    assert 0 < one.paid["guest"].flushes < other.paid["guest"].flushes


# What the emulator knows.


@dataclass
class Account:
    """By domain: when each page was dirtied whose fault was noted then, in cycles, by the last record on its CPU."""

    dirtied: dict[int, list[int]]


class RealSvm(SvmGuest):
    """Notes a nested page fault as Xen does on AMD: after it was handled, when the page is ordinary memory again.

    dirtied: by CPU, of the fault that it handles, where that dirtied a page: domain, when and frame
    """

    account: ClassVar[Account]
    dirtied: ClassVar[dict[int, tuple[int, int, int]]] = {}

    def note_fault(self, cpu: Cpu, frame: int) -> None:
        found = frame
        if cpu.number in self.dirtied:
            domain, when, found = self.dirtied.pop(cpu.number)
            self.account.dirtied.setdefault(domain, []).append(when)
        self.log.add(cpu.number, cpu.now, self.npf, (found << 12) + 8, 0x100000 + found, 0, 0)


SET_P2M = layout_named("TRC_MEM_SET_P2M_ENTRY")


class RealGuest(evacuate._Guest):
    """A guest that dirties each page once a round, and the record of it."""

    def __init__(self, load: Evacuate, emulation: Emulation, domain: int, cpus: tuple[int, ...]) -> None:
        self.random = Random(domain)
        self.frames: list[int] = []
        super().__init__(load, emulation, domain, cpus)

    def flush(self, cpu: Cpu) -> Activity:
        if cpu.number not in self.cpus:
            self.frames = self.random.sample(range(self.load.pages), self.load.pages)
        yield from super().flush(cpu)

    def _make_writable(self, cpu: Cpu) -> Activity:
        yield self.fault
        yield from self.lock.acquire()
        if self.clean:
            self.clean -= 1
            self.emulation.counted[PAGES_DIRTIED] += 1
            frame = self.frames.pop() if self.frames else 0
            rows = self.emulation.log.rows
            before = next(
                when for on, when, layout, _ in reversed(rows) if on == cpu.number and layout.event.timestamped
            )
            RealSvm.dirtied[cpu.number] = self.domain, before, frame
            self.emulation.log.add(cpu.number, cpu.now, SET_P2M, frame, 0x100000 + frame, 0, self.domain, 0)
            yield from self.flush(cpu)
        self.lock.release()


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    """Has guests under migration write the records that Xen writes on AMD, and note what they did."""
    kept = Account({})
    RealSvm.dirtied.clear()
    monkeypatch.setattr(RealSvm, "account", kept, raising=False)
    monkeypatch.setattr(evacuate, "_Guest", RealGuest)
    monkeypatch.setattr(host, "SvmGuest", RealSvm)
    return kept


def emulated(plan: Plan, path: Path) -> tuple[Emulation, LogDirty, int]:
    """The emulation, what is found in its trace, and the cycle count at which that begins."""
    emulation = plan.run()
    content, _, _, lost = made(emulation, Tool(), "all")
    assert not lost
    path.write_bytes(content)
    with xtrace.open(path, cpu_hz=plan.host.hz) as trace:
        return emulation, facts(trace), trace.survey.zero_tsc


HOSTS = [
    pytest.param(model, cpus, guests, vcpus, seed, id=f"{model}-{cpus}")
    for model in sorted(DESIGNS)
    for cpus, guests, vcpus, seed in ((2, 1, 1, 1), (9, 2, 2, 2), (24, 2, 4, 3))
]


@pytest.mark.parametrize(("model", "cpus", "guests", "vcpus", "seed"), [*HOSTS, pytest.param("lockless", 256, 4, 8, 4)])
def test_amd_phases_are_what_happened(
    model: str, cpus: int, guests: int, vcpus: int, seed: int, account: Account, tmp_path: Path
) -> None:
    """Pages, rounds, flushes and stolen time exact, by an addition over the emulator's own requests."""
    load = Evacuate(guests, vcpus, pages=200, round_ns=2_000_000)
    on = Host(cpus, EXACT_HZ, model=model, vendor="svm", seed=seed)
    bench = Bench(2, Masks(2), 20, work_ns=3_000) if cpus > 20 else None
    emulation, found, zero = emulated(Plan(on, load, bench, None, seconds=0.009), tmp_path / "trace.bin")
    assert sorted(phase.domain for phase in found.phases) == sorted(account.dirtied)
    noted = sum(map(len, account.dirtied.values()))
    assert sum(phase.whole.dirtied for phase in found.phases) == noted
    assert 0 <= emulation.counted[PAGES_DIRTIED] - noted <= guests * vcpus, "some are not noted yet"
    for phase in found.phases:
        dirtied = account.dirtied[phase.domain]
        marks = rounds(emulation, phase.domain, zero)
        assert phase.told_by == "changes"
        assert [one.begin_ns for one in phase.passes] == [min(dirtied) - zero, *marks[1:]]
        assert {one.begun for one in phase.passes[1:]} == {"flushed"}
        edges = [*[one.begin_ns for one in phase.passes], phase.whole.end_ns]
        times = sorted(when - zero for when in dirtied)
        for number, one in enumerate(phase.passes):
            begin, end = edges[number : number + 2]
            last = number == len(phase.passes) - 1
            assert one.dirtied == sum(begin <= time < end or (last and time == end) for time in times)
            assert as_rows(one) == expected(emulation, phase.domain, begin, end, zero, last=last)
        assert all_told(phase)


def rounds(emulation: Emulation, domain: int, zero: int) -> list[int]:
    """When dom0 had the CPUs of a domain flush, ns; those of a domain go on until the end."""
    return sorted(
        one.start - zero
        for one in emulation.requests
        if one.found is not None
        and one.found.vcpu is not None
        and one.found.vcpu[0] == 0
        and (one.flush_flags == 0x4000 or (one.func == 0 and one.carries is None))
        and any(served.found.vcpu and served.found.vcpu[0] == domain for served in one.served.values())
    )


def as_rows(one: Pass) -> dict[str, tuple[int, ...]]:
    assert one.paid is not None
    return {
        payer: (paid.flushes, paid.ns, paid.memory_flushes, paid.memory_ns, paid.stolen_ns)
        for payer, paid in one.paid.items()
    }


def expected(
    emulation: Emulation, domain: int, begin: int, end: int, zero: int, *, last: bool
) -> dict[str, tuple[int, ...]]:
    """Flushes that started in a pass and were done, by payer."""
    carriers = {id(one.carries): one for one in emulation.requests if one.carries is not None}
    found = {payer: [0, 0, 0, 0, 0] for payer in PAYERS}
    for one in emulation.requests:
        through = carriers.get(id(one), one)
        memory = one.flush_flags & 0x4000 != 0 or (emulation.host.vendor == "vmx" and not one.func)
        at = one.start - zero
        if one.carries is not None or not (one.is_flush or memory) or not (begin <= at < end or (last and at == end)):
            continue
        if not all(_whole(each) for each in (one, through)):
            continue
        row = found[_payer(one.found, domain)]
        total = one.done - one.start
        row[:4] = (row[0] + 1, row[1] + total, row[2] + memory, row[3] + memory * total)
        for cpu, served in through.served.items():
            if cpu != one.initiator:
                found[_payer(served.found, domain)][4] += served.left - served.entered
    return {payer: tuple(row) for payer, row in found.items()}


def _whole(one: Request) -> bool:
    return bool(one.done) and len(one.served) == len(one.targets) and all(each.left for each in one.served.values())


def _payer(situation: Any, domain: int) -> str:
    vcpu = situation.vcpu if situation is not None else None
    if vcpu is None:
        return "unknown"
    return {domain: "guest", 0: "toolstack", 32767: "idle"}.get(vcpu[0], "others")


def all_told(phase: Phase) -> bool:
    """The whole is the sum of the passes."""
    sums: Counter[tuple[str, str]] = Counter()
    for one in phase.passes:
        for payer, paid in (one.paid or {}).items():
            sums.update({(payer, name): value for name, value in asdict(paid).items()})
    whole = {
        (payer, name): value for payer, paid in (phase.whole.paid or {}).items() for name, value in asdict(paid).items()
    }
    counts = all(
        getattr(phase.whole, name) == sum(getattr(one, name) for one in phase.passes)
        for name in ("dirtied", "changed", "marked", "filled", "faults", "ran_ns")
        if getattr(phase.whole, name) is not None
    )
    return counts and whole == {key: sums[key] for key in whole}


@pytest.mark.parametrize(("vendor", "seed"), [("vmx", 1), ("vmx", 2), ("svm", 3)])
@pytest.mark.parametrize("model", sorted(DESIGNS))
def test_rounds_are_passes_without_p2m_changes(model: str, vendor: Vendor, seed: int, tmp_path: Path) -> None:
    """Nested page faults alone tell the rounds; what is in flight at a moment may count on either side of it.

    That is at most a fault a vCPU: Intel's record comes before the fault is handled, AMD's behind.
    """
    load = Evacuate(2, 2, pages=1_000, round_ns=3_000_000)
    on = Host(9, EXACT_HZ, model=model, vendor=vendor, seed=seed)
    emulation, found, zero = emulated(Plan(on, load, idle=None, seconds=0.012), tmp_path / "trace.bin")
    assert len(found.phases) == 2
    assert sum(len(phase.passes) for phase in found.phases) == emulation.counted[ROUNDS]
    total = sum(phase.whole.dirtied for phase in found.phases)
    assert abs(total - emulation.counted[PAGES_DIRTIED]) <= 4
    for phase in found.phases:
        assert phase.told_by == "faults"
        assert [one.begin_ns for one in phase.passes[1:]] == rounds(emulation, phase.domain, zero)[1:]
        assert phase.subjects is None
        assert (phase.whole.changed, phase.whole.marked, phase.whole.filled) == (None, None, None)
        assert (phase.whole.full is None) == (vendor == "svm")
        edges = [*[one.begin_ns for one in phase.passes], phase.whole.end_ns]
        for number, one in enumerate(phase.passes):
            last = number == len(phase.passes) - 1
            begin, end = edges[number : number + 2]
            assert as_rows(one) == expected(emulation, phase.domain, begin, end, zero, last=last)
            assert one.faults is not None
            assert abs(one.faults - one.dirtied) <= 4
        # Both vCPUs run from before the first fault until the end.
        assert phase.whole.ran_ns == 2 * (phase.whole.end_ns - phase.whole.begin_ns)
        assert all_told(phase)


@pytest.mark.parametrize("model", sorted(DESIGNS))
def test_what_was_lost_to_others(model: str, tmp_path: Path) -> None:
    """Lock, queue and serving are those of the paths, one addition after the other."""
    bench = Bench(3, Masks(6), 30, work_ns=20_000)
    plan = Plan(Host(14, EXACT_HZ, model=model, vendor="svm"), Evacuate(2, 3, pages=900), bench, None, seconds=0.01)
    path = tmp_path / "trace.bin"
    path.write_bytes(made(plan.run(), Tool(), "all")[0])
    with xtrace.open(path, cpu_hz=EXACT_HZ) as trace:
        paths = Paths.of(Requests.of(trace.tables, Selection()))
        found = log_dirty(trace, paths)
    assert found is not None
    lost: Counter[tuple[int, int]] = Counter()
    for cause, blame in paths.blame():
        for row, ns in zip(blame.waiting.tolist(), blame.ns.tolist(), strict=True):
            lost[cause, row] += ns
    starts, domains = paths.start.tolist(), paths.requests.domain[paths.rows].tolist()
    flushes = set(np.flatnonzero(paths.requests.kind[paths.rows] == FLUSH).tolist())
    for phase in found.phases:
        assert phase.whole.paid is not None
        for payer, domain in (("guest", phase.domain), ("toolstack", 0)):
            sums = [0, 0, 0]
            for (cause, row), ns in lost.items():
                if (
                    row in flushes
                    and domains[row] == domain
                    and phase.whole.begin_ns <= starts[row] <= phase.whole.end_ns
                ):
                    sums[cause] += ns
            one = phase.whole.paid[payer]
            assert [one.lock_ns, one.queue_ns, one.serving_ns] == sums
    assert any(row in flushes for _, row in lost)


@pytest.mark.usefixtures("account")
def test_stored_datasets_tell_the_same(sample: Sample, tmp_path: Path) -> None:
    emulated(Plan(Host(9, vendor="svm"), Evacuate(2, 2, pages=500), idle=None, seconds=0.02), tmp_path / "two.bin")
    for path, hz in ((sample("migrate-stock"), REAL_HZ), (tmp_path / "two.bin", 2_400_000_000)):
        with TraceFile(path, cpu_hz=hz) as trace:
            of_file = facts(trace)
            write(trace, tmp_path / "data", path.stem)
        assert of_file.phases
        with xtrace.open(tmp_path / "data" / f"trace={path.stem}") as stored:
            assert facts(stored) == of_file


# Small captures.

AMD = """
    0 cpu9 HVM_SVM_EXIT64
    1 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    1 cpu1 RUNSTATE_CHANGE domid=0 vcpuid=0 old_state=runnable new_state=running
"""


def dirties(ns: int, frame: int, *, cpu: int = 0, domain: int = 1, faulted: int | None = None) -> str:
    """A page that a domain dirties; faulted: the frame of the nested page fault, where it is another."""
    return f"""
        {ns} cpu{cpu} HVM_SVM_EXIT64 exit_code=0x400
        - cpu{cpu} MEM_SET_P2M_ENTRY gfn={frame} domid={domain}
        {ns + 5} cpu{cpu} CALL_ENTER
        - cpu{cpu} HVM_NPF gpa={(frame if faulted is None else faulted) << 12 | 0xAB8}
    """


def passes_of(found: LogDirty) -> list[tuple[int, int, str, int]]:
    return [(one.begin_ns, one.end_ns, one.begun, one.dirtied) for one in only(found).passes]


def test_a_page_is_dirtied_where_change_and_fault_are_of_one_frame(opened: Opened) -> None:
    text = f"""
        {AMD} {dirties(100, 7)} {dirties(200, 8, faulted=9)}
        300 cpu0 HVM_SVM_EXIT64 exit_code=0x400
        - cpu0 MEM_SET_P2M_ENTRY gfn=10 domid=1
        - cpu0 MEM_POD_POPULATE gfn=10
        - cpu0 HVM_NPF gpa=0xa000
        400 cpu0 HVM_SVM_EXIT64 exit_code=0x400
        - cpu0 HVM_NPF gpa=0xb000
        500 cpu0 HVM_SVM_EXIT64 exit_code=0x400
        - cpu0 MEM_SET_P2M_ENTRY gfn=12 domid=1 order=9
        - cpu0 HVM_NPF gpa=0xc000
        550 cpu1 CALL_ENTER
        - cpu1 MEM_SET_P2M_ENTRY gfn=13 domid=1
        - cpu1 MEM_SET_P2M_ENTRY gfn=14 domid=2 order=9
        - cpu1 MEM_SET_P2M_ENTRY gfn=14 domid=2 order=9 p2mt=5
        - cpu1 MEM_SET_P2M_ENTRY gfn=14 domid=0
        - cpu1 HVM_NPF gpa=0xe000
        {dirties(600, 16)}
        650 cpu0 HVM_SVM_EXIT64 exit_code=0x400
        - cpu0 MEM_SET_P2M_ENTRY gfn=15 domid=1
        700 cpu1 CALL_ENTER
    """
    with opened(text) as trace:
        found = facts(trace)
    assert passes_of(found) == [(100, 605, "first", 2)], "frames 7 and 16; nobody migrates dom0"
    whole = only(found).whole
    assert (whole.changed, whole.faults, whole.filled) == (6, 6, 512)
    assert found.faults == 7
    changes = [(one.by, one.of, one.entries, one.pages) for one in found.changes or ()]
    assert changes == [(1, 1, 6, 517), (0, 2, 2, 512), (0, 0, 1, 1), (0, 1, 1, 1)]


def test_without_faults_changes_of_its_own_tell(opened: Opened) -> None:
    """Class mem alone: what others change, or is populated on demand, was not dirtied."""
    text = f"""
        {AMD.replace("HVM_SVM_EXIT64", "CALL_ENTER")}
        100 cpu0 CALL_ENTER
        - cpu0 MEM_SET_P2M_ENTRY gfn=1 domid=1
        - cpu0 MEM_SET_P2M_ENTRY gfn=2 domid=1
        - cpu0 MEM_POD_POPULATE gfn=2
        - cpu0 MEM_SET_P2M_ENTRY gfn=3 domid=1
        200 cpu1 CALL_ENTER
        - cpu1 MEM_SET_P2M_ENTRY gfn=4 domid=1
    """
    with opened(text) as trace:
        found = facts(trace)
    assert passes_of(found) == [(100, 100, "first", 2)]
    whole = only(found).whole
    assert (whole.faults, whole.dirtied_per_s, found.faults) == (None, None, None)


def test_a_page_dirtied_again_begins_a_pass(opened: Opened) -> None:
    pages = (1, 2, 3, 2, 1, 4, 4, 5)
    text = AMD + "".join(dirties(100 * number, frame) for number, frame in enumerate(pages, 1))
    with opened(text) as trace:
        found = facts(trace)
    assert passes_of(found) == [(100, 400, "first", 3), (400, 700, "again", 3), (700, 805, "again", 2)]


def test_a_pass_begins_with_the_pause_before(opened: Opened) -> None:
    """Xen pauses a domain to mark its pages anew. Pauses that no page dirtied again explains are something else."""
    pauses = "".join(
        f"""
        {ns} cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=offline
        {ns + 10} cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=offline new_state=runnable
        {ns + 20} cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        """
        for ns in (150, 350, 450)
    )
    text = (
        AMD + pauses + "".join(dirties(ns, frame) for ns, frame in ((100, 1), (200, 2), (300, 3), (401, 4), (500, 3)))
    )
    with opened(_sorted(text)) as trace:
        found = facts(trace)
    assert passes_of(found) == [(100, 450, "first", 4), (450, 505, "paused", 1)]
    assert [one.ran_ns for one in only(found).passes] == [350 - 40, 55 - 20]


def _sorted(text: str) -> str:
    """Records in order of time; one without a time stays behind the one before it on its CPU."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    when: dict[str, int] = {}
    keyed = []
    for place, line in enumerate(lines):
        time, cpu, *_ = line.split()
        when[cpu] = int(time) if time != "-" else when.get(cpu, 0)
        keyed.append((when[cpu], place, line))
    return "\n".join(line for *_, line in sorted(keyed))


def test_marks_that_are_noted_begin_passes(opened: Opened) -> None:
    """As for video memory, page by page; a burst of them is one."""
    mark = "- cpu1 MEM_SET_P2M_ENTRY gfn={} domid=1 p2mt=2 order={}"
    text = _sorted(
        f"""
        {AMD}
        50 cpu1 CALL_ENTER
        {mark.format(1, 0)}
        {mark.format(2, 9)}
        {dirties(100, 1)}
        200 cpu1 CALL_ENTER
        {mark.format(1, 0)}
        210 cpu1 CALL_ENTER
        {mark.format(3, 0)}
        {dirties(300, 3)}
        """
    )
    with opened(text) as trace:
        found = facts(trace)
    assert passes_of(found) == [(50, 200, "first", 1), (200, 305, "marked", 1)]
    assert [one.marked for one in only(found).passes] == [513, 2]
    assert sum(only(found).course.marked) == 515


INTEL = """
    0 cpu9 CALL_ENTER
    - cpu9 HVM_INTR vector=0xfa
    1 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
"""


def test_intel_writes_to_log_dirty_pages_count_before_they_are_handled(opened: Opened) -> None:
    fault = "{} cpu0 HVM_VMEXIT64 exit_reason=48\n- cpu0 HVM_NPF gpa={} qualification={} p2mt={}\n"
    some = ((100, 0x1000, 0x182, 2), (200, 0x2000, 0x181, 2), (300, 0x3000, 0x182, 0))
    text = (
        INTEL
        + "".join(fault.format(*one) for one in some)
        + "380 cpu0 HVM_VMEXIT64 exit_reason=49\n"
        + fault.format(400, 0x1000, 0x182, 2)
    )
    with opened(text) as trace:
        found = facts(trace)
    assert passes_of(found) == [(100, 400, "first", 2)], "two vCPUs may note a fault on one page: no proof of a mark"
    assert (only(found).whole.faults, only(found).whole.full, found.changes) == (5, 0, None)


def test_full_logs_are_pages_dirtied_at_least(opened: Opened) -> None:
    text = INTEL + "".join(f"{ns} cpu0 HVM_VMEXIT64 exit_reason=62\n" for ns in (100, 250, 900))
    with opened(text) as trace:
        found = facts(trace)
    assert passes_of(found) == [(100, 900, "first", 1536)]
    assert only(found).whole.full == 3
    text_ = " ".join(paint.section(found).text)
    assert "dirtied at least 1,536 pages" in text_
    assert "3 exits for a full log were seen" in text_


def test_what_no_record_tells_is_said(opened: Opened) -> None:
    """Without the scheduler's records nobody is on a CPU: faults are nobody's, and no vCPU ran for a known time."""
    with opened("0 cpu9 HVM_SVM_EXIT64\n100 cpu0 CALL_ENTER\n- cpu0 HVM_NPF gpa=0x1000") as trace:
        found = facts(trace)
    assert (found.strays, found.phases) == (1, ())
    assert "class sched" in paint.section(found).text[0]
    with opened("0 cpu9 HVM_SVM_EXIT64" + dirties(100, 1) + dirties(200, 2)) as trace:
        found = facts(trace)
    whole = only(found).whole
    assert (whole.dirtied, whole.ran_ns, whole.dirtied_per_ran_s, whole.faults) == (2, None, None, 0)
    older = (AMD + dirties(100, 1)).replace("SVM_EXIT64 exit_code", "VMEXIT64 exit_reason")
    with opened(older.replace("0 cpu9 HVM_SVM_EXIT64", "")) as trace:
        assert only(facts(trace)).whole.faults is None, "whose exit codes these are is not known"


def test_captures_one_behind_the_other_have_no_common_time(tmp_path: Path, sample: Sample) -> None:
    path = tmp_path / "twice.bin"
    path.write_bytes(2 * sample("migrate-stock").read_bytes())
    with xtrace.open(path) as trace:
        found = facts(trace)
    assert (found.captures, found.phases) == (2, ())
    assert "2 captures" in paint.section(found).text[0]


STEPS = """
    {start} cpu{cpu} TLB_FLUSH_START seq={seq} flush_flags={flags}
    {send} cpu{cpu} TLB_FLUSH_SEND seq={seq} mask={target}
    {send} cpu{target} TLB_FLUSH_ENTER initiator_cpu={cpu} seq={seq}
    {left} cpu{target} TLB_FLUSH_EXIT initiator_cpu={cpu} seq={seq}
    {done} cpu{cpu} TLB_FLUSH_DONE seq={seq}
"""


def flush(start: int, seq: int, *, cpu: int = 0, target: int = 1, flags: int = 0x4000) -> str:
    steps = {"start": start, "send": start + 1, "left": start + 5, "done": start + 7}
    return STEPS.format(cpu=cpu, target=target, seq=seq, flags=flags, **steps)


def test_a_change_tells_of_the_next_flush_only(opened: Opened) -> None:
    """Of the same CPU and domain, since the CPU's request before; and only flushes for a guest's memory have any."""
    text = _sorted(
        f"""
        {AMD}
        2 cpu2 RUNSTATE_CHANGE domid=1 vcpuid=1 old_state=runnable new_state=running
        100 cpu0 HVM_SVM_EXIT64 exit_code=0x400
        - cpu0 MEM_SET_P2M_ENTRY gfn=1 domid=1
        {flush(110, 1)}
        {flush(130, 2)}
        140 cpu0 CALL_ENTER
        - cpu0 MEM_SET_P2M_ENTRY gfn=2 domid=1
        {flush(150, 3, flags=0x100)}
        200 cpu1 CALL_ENTER
        - cpu1 MEM_SET_P2M_ENTRY gfn=3 domid=7
        {flush(210, 1, cpu=1, target=0)}
        {flush(230, 1, cpu=2)}
        250 cpu2 CALL_ENTER
        - cpu2 MEM_SET_P2M_ENTRY gfn=4 domid=1
        260 cpu2 RUNSTATE_CHANGE domid=1 vcpuid=1 old_state=running new_state=blocked
        260 cpu2 RUNSTATE_CHANGE domid=0 vcpuid=1 old_state=runnable new_state=running
        {flush(270, 2, cpu=2)}
        300 cpu0 CALL_ENTER
        - cpu0 MEM_SET_P2M_ENTRY gfn=5 domid=1
        """
    )
    with opened(text) as trace:
        phase = only(facts(trace))
    assert phase.subjects is not None
    assert sorted((one.payer, one.domain or 0, one.flushes, one.ns) for one in phase.subjects) == [
        ("guest", 0, 2, 14),
        ("guest", 1, 1, 7),
        ("toolstack", 0, 1, 7),
        ("toolstack", 7, 1, 7),
    ]
    paid = phase.whole.paid
    assert paid is not None
    assert (paid["guest"].flushes, paid["guest"].memory_flushes, paid["guest"].ns) == (4, 3, 28)
    assert (paid["toolstack"].flushes, paid["toolstack"].memory_flushes) == (2, 2)
    # Four ms of each function; those of dom0's flush on CPU 0 hit the guest.
    assert (paid["guest"].stolen_ns, paid["toolstack"].stolen_ns) == (4, 5 * 4)


def test_a_cpu_takes_no_time_from_itself(opened: Opened) -> None:
    """Of a flush that has its own CPU in the mask only the other's function is stolen time."""
    whole = flush(150, 1, cpu=1, target=0).replace("mask=0", "mask=0,1")
    own = "152 cpu1 TLB_FLUSH_ENTER initiator_cpu=1 seq=1\n153 cpu1 TLB_FLUSH_EXIT initiator_cpu=1 seq=1"
    with opened(_sorted(AMD + dirties(100, 1) + dirties(200, 2) + whole + own)) as trace:
        paid = only(facts(trace)).whole.paid
    assert paid is not None
    assert (paid["toolstack"].flushes, paid["toolstack"].stolen_ns, paid["guest"].stolen_ns) == (1, 0, 4)


def test_vcpus_that_ran_before_the_trace_or_were_lost(opened: Opened) -> None:
    """One that leaves first ran before; what a change contradicts does not count."""
    text = _sorted(
        f"""
        0 cpu9 HVM_SVM_EXIT64
        {dirties(100, 1)}
        150 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
        160 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        170 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        180 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
        185 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=runnable
        195 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        {dirties(200, 2)}
        """
    )
    with opened(text) as trace:
        whole = only(facts(trace)).whole
    assert whole.ran_ns == (150 - 100) + (180 - 170) + (205 - 195)


def test_phases_at_a_time_are_outside_once(opened: Opened) -> None:
    second = "2 cpu2 RUNSTATE_CHANGE domid=5 vcpuid=0 old_state=runnable new_state=running"
    pages = dirties(100, 1) + dirties(300, 2) + dirties(200, 1, cpu=2, domain=5) + dirties(400, 2, cpu=2, domain=5)
    text = _sorted(AMD + second + pages + dirties(250, 3) + flush(500, 1, cpu=1, target=0))
    with opened(text) as trace:
        found = facts(trace)
    assert [(phase.domain, phase.whole.begin_ns, phase.whole.end_ns) for phase in found.phases] == [
        (1, 100, 305),
        (5, 200, 405),
    ], "most pages first"
    assert found.outside is not None
    assert asdict(found.outside) == {"length_ns": 507 - 305, "flushes": 1, "ns": 7}


def test_dom0_outside_of_phases(opened: Opened) -> None:
    text = AMD + flush(10, 1, cpu=1, target=0, flags=0x100) + dirties(100, 1) + dirties(200, 2)
    text += flush(150, 2, cpu=1, target=0, flags=0x100) + flush(400, 3, cpu=1, target=0, flags=0x100)
    with opened(_sorted(text)) as trace:
        found = facts(trace)
    assert found.outside is not None
    assert asdict(found.outside) == {"length_ns": 407 - 105, "flushes": 2, "ns": 14}


OTHERS = [
    event
    for event in EVENTS
    if event.name in ("TRC_MEM_POD_POPULATE", "TRC_SCHED_RUNSTATE_CHANGE")
    or event.name.startswith(("TLB_FLUSH", "SMP_CALL", "TRC_HVM_VMEXIT", "TRC_HVM_SVM_EXIT", "TRC_HVM_INTR"))
]
WORDS = st.sampled_from((0, 0, 1, 1, 2, 62, 0x400, 0x4000, 0x10000, 0x20001, 0xFFFF_FFFF))
TYPES = st.sampled_from((0, 0, 0, 2, 5))


@st.composite
def telling(draw: st.DrawFn) -> Record:
    """A change or fault of a few frames, or another record of those that matter; clocks may leap."""
    kind, frame = draw(st.integers(0, 9)), draw(st.integers(0, 3))
    if kind < 3:
        whose = draw(st.sampled_from((0, 1, 1, 1, 2, 0x90001, 0xFFFF_FFFF)))
        return Record(SET_P2M.event.event_id, (frame, 0, 0, 0, draw(TYPES), whose))
    if kind < 6:
        return Record(SvmGuest.npf.event.event_id, (frame << 12, 0, 0, 0, draw(WORDS), draw(TYPES)))
    event = draw(st.sampled_from(OTHERS))
    words = tuple(draw(st.lists(WORDS, min_size=event.words or 0, max_size=event.words or 0)))
    return Record(event.event_id, words, draw(st.sampled_from((0, 1, 1000, 1 << 55))) if event.timestamped else None)


@given(captures(telling(), max_windows=6, max_records=40))
@settings(max_examples=100)
def test_any_records_are_told_of(scratch: Path, windows: list[Window]) -> None:
    """Whatever they say: no error, passes in order without gaps, and their sums are the whole."""
    scratch.write_bytes(build_capture(windows))
    with xtrace.open(scratch, cpu_hz=EXACT_HZ) as trace:
        found = found_in(trace)
    assert paint.section(found).text
    for phase in () if found is None else found.phases:
        json.dumps(asdict(phase))
        assert phase.whole.begin_ns == phase.passes[0].begin_ns
        assert phase.whole.end_ns == phase.passes[-1].end_ns
        assert all(one.end_ns == other.begin_ns for one, other in pairwise(phase.passes))
        assert all(one.begin_ns <= one.end_ns for one in phase.passes)
        assert all_told(phase)
        assert len(phase.course.dirtied) <= MAX_PARTS
        assert sum(phase.course.dirtied) == phase.whole.dirtied


@pytest.mark.parametrize("cut", [0.3, 0.6])
def test_a_trace_may_be_cut_anywhere(
    cut: float, migrations: dict[str, LogDirty], sample: Sample, tmp_path: Path
) -> None:
    content = sample("migrate-stock").read_bytes()
    path = tmp_path / "cut.bin"
    for begin, end in ((0, int(cut * len(content))), (int(cut * len(content)) + 2, len(content))):
        path.write_bytes(content[begin:end])
        with xtrace.open(path, cpu_hz=REAL_HZ) as trace:
            found = facts(trace)
        assert 0 < only(found).whole.dirtied < only(migrations["migrate-stock"]).whole.dirtied


# Frames and pages.


def test_frames_have_what_their_docstrings_say(opened: Opened, migrations: dict[str, LogDirty]) -> None:
    found = migrations["migrate-legacy"]
    passes, changes = found.df_passes(), found.df_changes()
    assert {name: str(kind) for name, kind in passes.dtypes.items()} == PASS_COLUMNS
    assert passes[["domain", "number", "dirtied", "guest_flushes"]].to_numpy().tolist() == [[2, 1, 11_756, 2_245]]
    assert changes[["by", "of", "pages"]].to_numpy().tolist() == [[0, 3, 20_479], [2, 2, 11_757]]
    with opened(AMD) as trace:
        assert found_in(trace) is None
    with opened(AMD + "2 cpu0 CALL_ENTER\n- cpu0 HVM_NPF gpa=0 p2mt=4") as trace:
        empty = facts(trace)
    assert {name: str(kind) for name, kind in empty.df_passes().dtypes.items()} == PASS_COLUMNS
    assert len(empty.df_passes()) == len(empty.df_changes()) == 0


def test_the_section_says_who_pays(migrations: dict[str, LogDirty]) -> None:
    found = migrations["migrate-legacy"]
    first, second = paint.answer(found)
    assert first == (
        "While d2 was log-dirty (seen for 66.5 s, 1 pass) it dirtied 11,756 pages (177 a second), and its own flushes "
        "cost it 15.9 s in 2,245, 18.0 % of the time that its vCPUs ran; dom0, where the toolstack runs, paid 3.00 s "
        "in 342."
    )
    assert second == (
        "Flushes for changes of a guest's memory, which is what log-dirty tracking asks for, cost d2 15.8 s and dom0 "
        "nothing; all else that dom0 flushed cost it 45.1 ms a second then, and 70.3 ms a second while no domain was "
        "log-dirty."
    )
    section = paint.section(found)
    assert section.text[:2] == (first, second)
    for table in section.tables:
        widths = [max(len(row[place].text) for row in (*table.rows[:10],)) for place in range(len(table.heads))]
        shown = sum(max(width, len(head.text), 4) for width, head in zip(widths, table.heads, strict=True))
        assert shown + 2 * (len(widths) - 1) <= 110
    (picture,) = paint.pictures(found)
    assert "<svg" in picture.svg
    assert picture == paint.pictures(found)[0], "the same bytes each time"


# Parts.


@given(
    st.lists(st.tuples(st.integers(-5, 60), st.integers(-5, 60)), max_size=12),
    st.sets(st.integers(0, 50), min_size=2, max_size=8),
)
def test_spread_is_what_counting_gives(stretches: list[tuple[int, int]], at: set[int]) -> None:
    edges = sorted(at)
    begin, end = np.array(stretches, np.int64).reshape(-1, 2).T
    counted = [
        sum(low <= ns < high for one, other in stretches for ns in range(one, other)) for low, high in pairwise(edges)
    ]
    assert spread(begin, end, np.array(edges)).tolist() == counted


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.sets(st.integers(0, 30)), st.booleans())
def test_passes_are_those_that_repeats_ask_for(frames: list[int], moments: set[int], proof: bool) -> None:
    """With proof no pass has a frame twice, and one less would have; every pass begins where something tells so."""
    ns = np.arange(len(frames), dtype=np.int64)
    none = np.zeros(len(frames), np.int64)
    dirtied = Dirtied(none.astype(np.int32), 2 * ns, 2 * ns, np.array(frames, np.int64), none + 1)
    maybe = Moments.of(paused=2 * np.array(sorted(moments), np.int64) + 1)
    found = begins(dirtied, maybe, proof=proof)
    assert (np.diff(found.ns) > 0).all()
    parts = np.split(np.array(frames), np.searchsorted(dirtied.ns, found.ns))
    assert all(len(part) for part in parts)
    names = [BEGINS[how] for how in found.how]
    for begin, name in zip(found.ns.tolist(), names, strict=True):
        assert (name == "paused") == (begin % 2 == 1)
    if proof:
        assert all(len(set(part)) == len(part) for part in parts)
        if not moments:
            assert len(parts) == _fewest(frames)
    else:
        assert "again" not in names
    for begin in found.ns[found.ns % 2 == 1].tolist():
        after = [place for place in range(len(frames)) if 2 * place > begin]
        again = (
            max((other for other in range(place) if frames[other] == frames[place]), default=-1) for place in after
        )
        assert any(0 <= 2 * before < begin for before in again)


def _fewest(frames: list[int]) -> int:
    """Parts of a list such that none holds the same twice, as few as can be."""
    seen: set[int] = set()
    parts = 1
    for frame in frames:
        if frame in seen:
            parts, seen = parts + 1, set()
        seen.add(frame)
    return parts


def test_moments_with_nothing_between_are_one() -> None:
    """The first of them, as marking comes first; before anything was dirtied, and after all, no pass begins."""
    ns, one = np.array([4, 9, 20], np.int64), np.ones(3, np.int64)
    dirtied = Dirtied(one.astype(np.int32), ns, ns, np.array([1, 1, 2], np.int64), one)
    moments = Moments.of(marked=np.array([2, 5, 30], np.int64), paused=np.array([6], np.int64))
    found = begins(dirtied, moments, proof=True)
    assert [(begin, BEGINS[how]) for begin, how in zip(found.ns.tolist(), found.how.tolist(), strict=True)] == [
        (5, "marked")
    ]


def test_a_burst_is_marks_without_a_page_dirtied_between() -> None:
    marks = np.array([1, 2, 5, 6, 7, 20], np.int64)
    assert bursts(marks, np.array([3, 8, 9], np.int64)).tolist() == [1, 5, 20]
    assert bursts(marks, np.zeros(0, np.int64)).tolist() == [1]
    assert bursts(marks[:0], marks).tolist() == []

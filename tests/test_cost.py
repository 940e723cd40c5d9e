"""Cost by domain: real traces counted from their records, against the emulator's own account, by hand."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from conftest import SAMPLES, Opened, Sample
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import xtrace
from xtrace.context import IDLE_DOMAIN
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.models import DESIGNS
from xtrace.emulator.output import made
from xtrace.emulator.plan import Plan
from xtrace.emulator.rings import Tool
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.emulator.workloads.evacuate import Evacuate
from xtrace.emulator.workloads.idle import Idle
from xtrace.emulator.workloads.occupation import FIRST_DOMAIN
from xtrace.episodes.tables import NULL
from xtrace.questions.cost import Cost, cost
from xtrace.questions.groups import Groups
from xtrace.questions.paths import Paths
from xtrace.questions.requests import Requests, Services
from xtrace.questions.stragglers import stragglers
from xtrace.reports.sections import cost as paint
from xtrace.reports.sections import stragglers as paint_stragglers
from xtrace.selection import Selection
from xtrace.trace import Trace

EXACT_HZ = 10**9
"""A cycle is a nanosecond: nothing is rounded."""
REAL_HZ = 2_596_100_000


def paths_of(trace: Trace, selection: Selection | None = None) -> Paths:
    return Paths.of(Requests.of(trace.tables, selection or Selection()))


def cost_of(emulation: Emulation, path: Path, hz: int) -> Cost:
    path.write_bytes(made(emulation, Tool(), "all")[0])
    with xtrace.open(path, cpu_hz=hz) as trace:
        return cost(paths_of(trace))


class Account:
    """What `cost` should find, told one function after the other by the emulator's own account, in cycles.

    pv: what the workloads left over are PV guests
    """

    def __init__(self, emulation: Emulation, *, pv: bool) -> None:
        self.pv = pv
        carriers = {id(one.carries): one for one in emulation.requests if one.carries is not None}
        self.whole = [
            (one, through)
            for one in emulation.requests
            if one.carries is None
            and one.done
            and (through := carriers.get(id(one), one)).served.keys() == set(one.targets)
            and all(served.left for served in through.served.values())
        ]
        self.paid: Counter[tuple[str, int, int]] = Counter()
        self.made: Counter[tuple[str, int, int]] = Counter()
        self.stolen: Counter[tuple[str, int, int]] = Counter()
        self.functions: Counter[tuple[str, int, int]] = Counter()
        self.longest: dict[tuple[str, int, int], int] = defaultdict(int)
        self.parts: Counter[tuple[str, int, int, str]] = Counter()
        self.taken: Counter[tuple[str, int, int]] = Counter()
        self.elsewhere: Counter[tuple[str, str]] = Counter()
        own = defaultdict(list)
        for one, _ in self.whole:
            own[one.initiator].append((one.start, one.done))
        for one, through in self.whole:
            kind = "flush" if one.is_flush else "call"
            asked = vcpu_of(one.found)
            self.paid[kind, *asked] += one.done - one.start
            self.made[kind, *asked] += 1
            for cpu, served in through.served.items():
                ns = served.left - served.entered
                met = vcpu_of(served.found)
                if cpu == one.initiator:
                    self.elsewhere[kind, "own"] += ns
                elif met[0] == IDLE_DOMAIN:
                    self.elsewhere[kind, "idle"] += ns
                else:
                    key = (kind, *met)
                    self.stolen[key] += ns
                    self.functions[key] += 1
                    self.longest[key] = max(self.longest[key], ns)
                    inside = any(start < served.left and served.entered < done for start, done in own[cpu])
                    self.parts[*key, "waiting" if inside else self.where(met[0], served.found.state)] += ns
                    self.taken[kind, asked[0], met[0]] += ns

    def where(self, domain: int, state: str) -> str:
        is_pv = domain == 0 or (domain >= FIRST_DOMAIN and self.pv)
        return "unknown" if is_pv else state


def vcpu_of(found: object) -> tuple[int, int]:
    vcpu = found.vcpu  # type: ignore[attr-defined]
    assert vcpu is not None
    return (IDLE_DOMAIN, -1) if vcpu[0] == IDLE_DOMAIN else vcpu


def holds(found: Cost, truth: Account) -> None:
    """Every sum is that of the account."""
    assert {
        (one.kind, one.domain, -1 if one.vcpu is None else one.vcpu): one.paid_ns for one in found.callers
    } == truth.paid
    assert {
        (one.kind, one.domain, -1 if one.vcpu is None else one.vcpu): one.requests for one in found.callers
    } == truth.made
    assert {(one.kind, one.domain, one.vcpu): one.stolen_ns for one in found.victims} == truth.stolen
    assert {(one.kind, one.domain, one.vcpu): one.interruptions for one in found.victims} == truth.functions
    assert {(one.kind, one.domain, one.vcpu): one.max_ns for one in found.victims} == truth.longest
    parts = {
        (one.kind, one.domain, one.vcpu, name): ns
        for one in found.victims
        for name in ("guest", "hypervisor", "waiting", "unknown")
        if (ns := getattr(one, f"{name}_ns"))
    }
    assert parts == {key: ns for key, ns in truth.parts.items() if ns}
    assert {(one.kind, one.initiator, one.victim): one.stolen_ns for one in found.interference} == truth.taken
    elsewhere = {
        (one.kind, name): ns
        for one in found.elsewhere
        for name in ("own", "idle")
        if (ns := getattr(one, f"{name}_ns"))
    }
    assert elsewhere == {key: ns for key, ns in truth.elsewhere.items() if ns}
    assert not any(one.unknown for one in found.elsewhere)
    for one in found.callers:
        assert one.paid_ns == one.lock_ns + one.before_ns + one.target_ns + one.after_ns


def plans(model: str, vendor: str, seed: int, hz: int = EXACT_HZ) -> Iterator[Plan]:
    def host(cpus: int) -> Host:
        return Host(cpus, hz=hz, model=model, vendor=vendor, seed=seed)  # type: ignore[arg-type]

    busy = Idle(tick_ns=200_000)
    guests = Bench(3, Masks(4), 25, work_ns=20_000, targets="guest")
    yield Plan(host(16), Evacuate(2, 2, pages=300), guests, busy, seconds=0.006)
    yield Plan(host(5), None, Bench(3, Masks(3, with_self=True), 40, work_ns=3_000, targets="pv"), busy)
    yield Plan(host(2), None, Bench(2, Masks(1), 60, work_ns=700, targets="idle"))
    yield Plan(host(9), Evacuate(1, 3, pages=200), Bench(2, Masks(5), 30, work_ns=0, targets="idle"), busy)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("vendor", ["vmx", "svm"])
@pytest.mark.parametrize("model", sorted(DESIGNS))
def test_every_sum_is_that_of_the_emulator(model: str, vendor: str, seed: int, scratch: Path) -> None:
    for plan in plans(model, vendor, seed):
        emulation = plan.run()
        assert plan.bench is not None
        truth = Account(emulation, pv=plan.bench.targets == "pv")
        assert truth.whole
        holds(cost_of(emulation, scratch, EXACT_HZ), truth)


@pytest.mark.parametrize("cpus", [64, 256])
@pytest.mark.parametrize("model", sorted(DESIGNS))
def test_every_sum_is_that_of_a_large_host(model: str, cpus: int, scratch: Path) -> None:
    bench = Bench(cpus // 8, Masks(cpus // 4, with_self=True), 4, work_ns=2_000, targets="guest")
    evacuate = Evacuate(cpus // 16, 3, pages=100)
    emulation = Plan(
        Host(cpus, hz=EXACT_HZ, model=model, vendor="svm", seed=cpus), evacuate, bench, seconds=0.001
    ).run()
    truth = Account(emulation, pv=False)
    assert len(truth.stolen) > cpus // 2
    holds(cost_of(emulation, scratch, EXACT_HZ), truth)


@pytest.mark.parametrize("model", sorted(DESIGNS))
def test_times_of_a_real_frequency_are_off_by_their_rounding_only(model: str, scratch: Path) -> None:
    """Both ends of a span are rounded down to whole ns."""
    hz = 2_400_000_000
    for plan in plans(model, "svm", 5, hz):
        emulation = plan.run()
        truth, found = Account(emulation, pv=True), cost_of(emulation, scratch, hz)
        assert len(found.victims) == len(truth.stolen)
        for one in found.victims:
            key = one.kind, one.domain, one.vcpu
            assert one.stolen_ns == pytest.approx(truth.stolen[key] / 2.4, rel=0, abs=one.interruptions)
        for caller in found.callers:
            of = caller.kind, caller.domain, -1 if caller.vcpu is None else caller.vcpu
            assert caller.paid_ns == pytest.approx(truth.paid[of] / 2.4, rel=0, abs=caller.requests)  # type: ignore[index]


Counted = dict[str, tuple[int, int]]


def counted(trace: Trace, carried: bool) -> tuple[Counted, Counted]:
    """How many flushes and functions of flushes each vCPU has, and how long they took, by records of one CPU alone.

    carried: functions of flushes are those of the calls around them
    """
    begun: dict[int, tuple[int, str, bool]] = {}
    started: dict[int, tuple[int, str, int]] = {}
    ended: set[tuple[int, int]] = set()
    functions: dict[str, list[int]] = defaultdict(list)
    flushes: list[tuple[str, int, tuple[int, int]]] = []
    rows = trace.df_events("TLB_FLUSH_*,SMP_CALL_E*").to_dict("records")
    for row in rows:
        name, cpu, ns = row["event"].removeprefix("TRC_"), row["cpu"], row["ns"]
        who = f"d{row['domain']}v{row['vcpu']}" if row["domain"] != IDLE_DOMAIN else "idle"
        outer = "SMP_CALL" if carried else "TLB_FLUSH"
        if name == f"{outer}_ENTER":
            begun[cpu] = ns, who, not carried
        elif name == "TLB_FLUSH_ENTER":
            begun[cpu] = *begun[cpu][:2], True
        elif name == f"{outer}_EXIT":
            since, whom, flushed = begun.pop(cpu)
            if flushed:
                functions[whom].append(ns - since)
        if name == "TLB_FLUSH_EXIT":
            ended.add((row["initiator_cpu"], row["seq"]))
        elif name == "TLB_FLUSH_START":
            started[cpu] = ns, who, row["seq"]
        elif name == "TLB_FLUSH_DONE" and cpu in started:
            since, whom, seq = started.pop(cpu)
            flushes.append((whom, ns - since, (cpu, seq)))
    paid: dict[str, list[int]] = defaultdict(list)
    for whom, ns, key in flushes:
        if key in ended:
            paid[whom].append(ns)
    return _sums(paid), _sums(functions)


def _sums(some: dict[str, list[int]]) -> Counted:
    return {who: (len(times), sum(times)) for who, times in some.items()}


@pytest.mark.parametrize("model", ["legacy", "lockless"])
def test_migrations_are_paid_for_as_their_records_say(model: str, sample: Sample) -> None:
    with xtrace.open(sample(f"migrate-{model}"), cpu_hz=REAL_HZ) as trace:
        found = cost(paths_of(trace))
        paid, functions = counted(trace, carried=model == "lockless")
    callers = [one for one in found.callers if one.kind == "flush"]
    victims = [one for one in found.victims if one.kind == "flush"]
    assert {f"d{one.domain}v{one.vcpu}": (one.requests, one.paid_ns) for one in callers} == paid
    idle = functions.pop("idle")
    assert {f"d{one.domain}v{one.vcpu}": (one.interruptions, one.stolen_ns) for one in victims} == functions
    assert [(one.idle, one.idle_ns) for one in found.elsewhere if one.kind == "flush"] == [idle]
    # Guests are HVM ones: Xen or guest is known of each function, also where a vCPU had not entered its guest yet.
    assert all((one.unknown_ns > 0) == (one.domain == 0) for one in victims)
    others = [one for one in found.interference if one.kind == "flush" and one.initiator != one.victim]
    for account in (one for one in found.accounts if one.kind == "flush"):
        assert account.taken_ns == sum(one.stolen_ns for one in others if one.initiator == account.domain)


MIXED: Final = """
      1 cpu0 RUNSTATE_CHANGE domid=0 vcpuid=3 old_state=runnable new_state=running
      1 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
      1 cpu2 RUNSTATE_CHANGE domid=2 vcpuid=0 old_state=runnable new_state=running
      1 cpu3 RUNSTATE_CHANGE domid=32767 vcpuid=3 old_state=runnable new_state=running
      2 cpu1 HVM_VMENTRY
      4 cpu2 CALL_START seq=1 func=0x20 n_cpus=1 wait=1
      5 cpu2 CALL_SEND  seq=1 mask=0
    100 cpu0 CALL_START seq=9 func=0x10 n_cpus=5 wait=1
    110 cpu0 CALL_SEND  seq=9 mask=0,1,2,3,4
    112 cpu0 CALL_ENTER initiator_cpu=0 seq=9
    119 cpu0 CALL_EXIT  initiator_cpu=0 seq=9
    120 cpu1 CALL_ENTER initiator_cpu=0 seq=9
    130 cpu1 CALL_EXIT  initiator_cpu=0 seq=9
    120 cpu2 CALL_ENTER initiator_cpu=0 seq=9
    150 cpu2 CALL_EXIT  initiator_cpu=0 seq=9
    120 cpu3 CALL_ENTER initiator_cpu=0 seq=9
    160 cpu3 CALL_EXIT  initiator_cpu=0 seq=9
    120 cpu4 CALL_ENTER initiator_cpu=0 seq=9
    125 cpu4 CALL_EXIT  initiator_cpu=0 seq=9
    170 cpu0 CALL_ENTER initiator_cpu=2 seq=1
    190 cpu0 CALL_EXIT  initiator_cpu=2 seq=1
    200 cpu0 CALL_DONE  seq=9
    220 cpu2 CALL_DONE  seq=1
"""
"""CPU 2 calls CPU 0, which is busy calling all five CPUs: d0, HVM d1, PV d2, an idle one and one of nobody knows."""


def test_each_function_is_taken_from_whom_it_met(opened: Opened) -> None:
    with opened(MIXED) as trace:
        found = cost(paths_of(trace))
    assert [(one.domain, one.vcpu, one.paid_ns) for one in found.callers] == [(2, 0, 216), (0, 3, 100)]
    parts = "stolen_ns guest_ns hypervisor_ns waiting_ns unknown_ns"
    assert {one.domain: tuple(getattr(one, name) for name in parts.split()) for one in found.victims} == {
        1: (10, 10, 0, 0, 0),
        2: (30, 0, 0, 30, 0),  # CPU 2 was inside its own call
        0: (20, 0, 0, 20, 0),
    }
    assert {(one.initiator, one.victim): one.stolen_ns for one in found.interference} == {
        (0, 1): 10,
        (0, 2): 30,
        (2, 0): 20,
    }
    (elsewhere,) = found.elsewhere
    assert (elsewhere.own, elsewhere.own_ns, elsewhere.idle, elsewhere.idle_ns) == (1, 7, 1, 40)
    assert (elsewhere.unknown, elsewhere.unknown_ns) == (1, 5)
    accounts = {one.domain: one for one in found.accounts}
    assert [(one.domain, one.cost_ns, one.taken_ns) for one in found.accounts] == [
        (2, 216, 20),
        (0, 100, 40),
        (1, 10, 0),
    ]
    assert accounts[2].cost_percent == pytest.approx(100 * 216 / 326)
    assert {(one.name, one.domain): (one.targets, one.stolen_ns) for one in found.works} == {
        ("0x10", 0): (5, 40),
        ("0x20", 2): (1, 20),
    }
    assert found.span_ns == 216


def test_only_what_is_selected_counts_on_both_sides(opened: Opened) -> None:
    with opened(MIXED) as trace:
        found = cost(paths_of(trace, Selection(from_ns=50)))
    assert [one.domain for one in found.callers] == [0]
    # The call of CPU 2 is not paid for here: what CPU 2 lost inside it is lost.
    assert {one.domain for one in found.victims} == {1, 2}
    (victim,) = (one for one in found.victims if one.domain == 2)
    assert (victim.waiting_ns, victim.hypervisor_ns) == (0, 30)


def test_spans_of_captures_add_up(opened: Opened) -> None:
    # A capture begins where a clock has gone back by far.
    with opened(f"{MIXED}\n {1 << 40} cpu0 SCHED_WAKE\n---\n{MIXED}") as trace:
        assert trace.survey.captures == 2
        found = cost(paths_of(trace))
    assert found.span_ns == 2 * 216
    assert sum(one.stolen_ns for one in found.victims) == 2 * 60
    assert {one.domain: one.waiting_ns for one in found.victims} == {0: 40, 1: 0, 2: 60}


def test_a_migration_is_told_in_a_sentence(sample: Sample) -> None:
    symbols = str(SAMPLES / "symbols-legacy.map")
    with xtrace.open(sample("migrate-legacy"), cpu_hz=REAL_HZ, symbols=symbols) as trace:
        found = cost(paths_of(trace))
    flushes, calls = paint.answer(found)
    assert flushes == (
        "Who pays for flushes: d2 15.9 s (82 %), d0 3.58 s (18 %) and 1 other domain 10.0 ms; 19.4 s as callers that "
        "wait, 15.8 s of it for HVM_ASID_CORE by d2, and 121 ms to functions that interrupted them."
    )
    assert calls == (
        "Who pays for calls: d1 1.94 s (43 %), d2 1.41 s (31 %) and d0 1.13 s (25 %); 1.90 s as callers that wait, "
        "1.87 s of it for time_calibration_std_rendezvous, and 2.72 s to functions that interrupted them."
    )
    section = paint.section(found)
    assert [table.caption for table in section.tables][:2] == [
        "What flushes cost each domain, as a caller and as a target",
        "Time that functions of flushes took, by domain that asked and vCPUs’ domain that lost",
    ]
    assert [[cell.text for cell in row] for row in section.tables[1].rows] == [
        ["d0", "48.3 ms", "8.02 ms", "8.04 ms", "64.4 ms", "431"],
        ["d2", "2.63 ms", "2.00 ms", "51.7 ms", "56.3 ms", "2,238"],
    ]


def test_without_scheduler_records_nobody_is_named(sample: Sample) -> None:
    with xtrace.open(sample("bench8-lockless"), cpu_hz=60_000_000) as trace:
        found = cost(paths_of(trace))
    assert not found.known
    assert not found.accounts + found.victims + found.interference
    assert list(paint.answer(found)) == [paint.UNKNOWN]
    (elsewhere,) = found.elsewhere
    assert elsewhere.unknown + elsewhere.own == 3_116
    assert paint.section(found).tables
    assert paint.pictures(found) == ()


def test_nothing_costs_nothing(sample: Sample) -> None:
    with xtrace.open(sample("dom0-stock"), cpu_hz=REAL_HZ) as trace:
        found = cost(paths_of(trace))
    assert found == Cost(0, False, (), (), (), (), (), ())
    assert list(paint.answer(found)) == []
    assert paint.section(found).text == ("No request of this selection is complete.",)
    assert paint.pictures(found) == ()
    for name in ("accounts", "callers", "victims", "interference", "works"):
        assert len(getattr(found, f"df_{name}")()) == 0


def test_frames_hold_the_rows(opened: Opened) -> None:
    with opened(MIXED) as trace:
        found = cost(paths_of(trace))
    assert found.df_accounts()["cost_ns"].tolist() == [216, 100, 10]
    assert found.df_callers()[["domain", "vcpu", "paid_ns"]].to_numpy().tolist() == [[2, 0, 216], [0, 3, 100]]
    assert found.df_victims()["domain"].tolist() == [2, 0, 1]
    assert found.df_interference()["stolen_ns"].tolist() == [30, 20, 10]
    assert found.df_works()["name"].tolist() == ["0x20", "0x10"]
    assert str(found.df_callers().dtypes["domain"]) == "UInt16"
    assert json.loads(json.dumps(asdict(found)))["span_ns"] == 216


def test_pictures_are_drawn(opened: Opened) -> None:
    with opened(MIXED) as trace:
        found = cost(paths_of(trace))
    balance, matrix = paint.pictures(found)
    assert "d2, calls" in balance.svg
    assert "domain that asked" in matrix.svg
    assert matrix.title == "Who took time from whom, calls"


@pytest.mark.parametrize("records", range(650, 10_400, 1_300))
def test_a_trace_cut_anywhere_adds_up(records: int, sample: Sample, scratch: Path) -> None:
    content = sample("vmx-legacy").read_bytes()
    scratch.write_bytes(content[: len(content) * records // 10_400])
    with xtrace.open(scratch, cpu_hz=60_000_000) as trace:
        found = cost(paths_of(trace))
    assert sum(one.requests for one in found.callers) == sum(one.requests for one in found.works)
    assert sum(one.stolen_ns for one in found.victims) == sum(one.stolen_ns for one in found.interference)


TIMES: Final = st.one_of(st.integers(0, 50), st.sampled_from((int(NULL), -(1 << 62), 1 << 62, (1 << 63) - 1)))


@st.composite
def absurd(draw: st.DrawFn) -> Requests:
    """Requests with times as no clock gives them, on few CPUs; the chosen ones have every step, as of whole ones."""
    count, targets = draw(st.integers(1, 4)), draw(st.integers(1, 3))

    def numbers(values: st.SearchStrategy[int], size: int) -> NDArray[np.int64]:
        return np.array(draw(st.lists(values, min_size=size, max_size=size)), np.int64)

    cpu = np.tile(np.arange(targets), count)
    capture = np.zeros(count, np.int64)
    request = np.repeat(np.arange(count), targets)
    domains = st.sampled_from((-1, 0, 1, IDLE_DOMAIN))
    start, send, done = (numbers(TIMES, count) for _ in range(3))
    enter, left = (numbers(TIMES, len(cpu)) for _ in range(2))
    whole = (start != NULL) & (send != NULL) & (done != NULL)
    np.logical_and.at(whole, request, (enter != NULL) & (left != NULL))
    services = Services(
        request,
        cpu,
        cpu.copy(),
        enter,
        left,
        numbers(domains, len(cpu)),
        np.zeros(len(cpu), np.int64),
        numbers(st.integers(0, 3), len(cpu)).astype(np.int8),
    )
    return Requests(
        model=draw(st.sampled_from(("legacy", "lockless", "unknown"))),
        episode=np.arange(count),
        kind=numbers(st.integers(0, 1), count).astype(np.int8),
        capture=capture,
        initiator=numbers(st.integers(0, 3), count),
        start=start,
        send=send,
        done=done,
        wait=numbers(st.integers(0, 1), count) != 0,
        n_targets=np.full(count, targets),
        work=np.zeros(count, np.int64),
        works=("f",),
        domain=numbers(domains, count),
        vcpu=np.zeros(count, np.int64),
        whole=whole,
        chosen=whole,
        services=services,
    )


@given(requests=absurd())
@settings(max_examples=300, deadline=None)
def test_absurd_times_are_no_error(requests: Requests) -> None:
    paths = Paths.of(requests)
    found, lasts = cost(paths), stragglers(paths)
    json.dumps([asdict(found), asdict(lasts)])
    assert sum(one.requests for one in found.callers) == requests.chosen.sum()
    assert sum(one.requests for one in lasts.doings) == requests.chosen.sum()
    for one, painted in ((found, paint), (lasts, paint_stragglers)):
        assert painted.section(one).text
        assert all(painted.answer(one))


@given(
    rows=st.lists(
        st.tuples(st.sampled_from((-1, 0, 7, 1 << 23)), st.integers(-1, 3), st.integers(0, 1 << 62)), max_size=9
    )
)
def test_groups_are_sums_by_key(rows: list[tuple[int, int, int]]) -> None:
    expected: dict[tuple[int, int], list[int]] = defaultdict(list)
    for first, second, value in rows:
        expected[first, second].append(value >> 4)
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    groups = Groups(columns[0], columns[1])
    assert groups.keys == sorted(expected)
    assert dict(groups.sums(columns[2] >> 4)) == {key: (len(of), sum(of)) for key, of in expected.items()}
    assert groups.longest(columns[2] >> 4) == [max(expected[key]) for key in groups.keys]

"""Stragglers: what the last targets were doing, in real traces, against the emulator's own account, by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import ClassVar, Final

import numpy as np
import pytest
from conftest import SAMPLES, Opened, Sample

import xtrace
from xtrace.context import IDLE_DOMAIN
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.machine import Activity, Cpu, Machine
from xtrace.emulator.models import DESIGNS
from xtrace.emulator.models.design import CALL_FUNCTION_VECTOR
from xtrace.emulator.models.lockless import Lockless
from xtrace.emulator.output import made
from xtrace.emulator.plan import Plan
from xtrace.emulator.requests import Request, Served
from xtrace.emulator.rings import Tool
from xtrace.emulator.tracepoints import Tracepoints
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.emulator.workloads.evacuate import Evacuate
from xtrace.emulator.workloads.idle import Idle
from xtrace.emulator.workloads.occupation import FIRST_DOMAIN
from xtrace.parsers.vendor import Vendor
from xtrace.questions.paths import Paths
from xtrace.questions.requests import Requests
from xtrace.questions.situations import DOINGS, Lasts
from xtrace.questions.stragglers import LATE, WORST, Stragglers, stragglers
from xtrace.reports.sections import stragglers as paint
from xtrace.selection import Selection

HZ: Final = 10**9
"""A cycle is a nanosecond: nothing is rounded."""
REAL_HZ: Final = 2_596_100_000


def paths_of(path: Path, hz: int, symbols: str | None = None) -> Paths:
    with xtrace.open(path, cpu_hz=hz, symbols=symbols) as trace:
        return Paths.of(Requests.of(trace.tables, Selection()))


def of_emulation(emulation: Emulation, path: Path) -> Paths:
    path.write_bytes(made(emulation, Tool(), "all")[0])
    return paths_of(path, HZ)


@dataclass
class Asked:
    """A call, or a flush with the call that carries it, in the emulator's own account."""

    kind: str
    start: int
    send: int
    done: int
    initiator: int
    wait: bool
    served: dict[int, Served]


def account(emulation: Emulation) -> list[Asked]:
    """All that were begun, in order of START."""
    carriers = {id(one.carries): one for one in emulation.requests if one.carries is not None}
    found = []
    for one in emulation.requests:
        if one.carries is None:
            through = carriers.get(id(one), one)
            kind = "flush" if one.is_flush else "call"
            found.append(
                Asked(kind, one.start, through.send, one.done, one.initiator, one.is_flush or one.wait, through.served)
            )
    return sorted(found, key=lambda one: (one.start, one.initiator))


def whole(some: list[Asked]) -> list[Asked]:
    return [one for one in some if one.done and one.served and all(served.left for served in one.served.values())]


def last_of(one: Asked) -> tuple[int, int]:
    """When the last target had answered, and which it was: of two at once the higher CPU."""
    return max((served.left if one.wait else served.entered, cpu) for cpu, served in one.served.items())


class Account:
    """What `stragglers` should find, told one request after the other."""

    def __init__(self, emulation: Emulation, *, pv: bool) -> None:
        self.pv = pv
        self.every = account(emulation)
        self.whole = whole(self.every)
        self.ran = defaultdict(list)
        for one in self.every:
            for cpu, served in one.served.items():
                if served.left:
                    self.ran[cpu].append((served.entered, served.left, one))
        self.own = defaultdict(list)
        for one in self.every:
            if one.done:
                self.own[one.initiator].append((one.start, one.done))
        self.typical = {
            kind: median(delivery)
            for kind in ("call", "flush")
            if (
                delivery := [
                    max(served.entered - one.send, 0)
                    for one in self.whole
                    if one.kind == kind
                    for cpu, served in one.served.items()
                    if not self.others(one, cpu, served.entered)
                ]
            )
        }

    def others(self, one: Asked, cpu: int, until: int) -> int:
        """For how long after SEND the CPU ran functions of other requests."""
        return sum(
            max(min(left, until) - max(entered, one.send), 0) for entered, left, of in self.ran[cpu] if of is not one
        )

    def doing(self, one: Asked) -> str:
        _, cpu = last_of(one)
        served = one.served[cpu]
        delivery = max(served.entered - one.send, 0)
        if one.wait and served.left - served.entered >= delivery:
            return "function"
        queue = self.others(one, cpu, served.entered)
        begun = [entered for entered, _, _ in self.ran[one.initiator] if entered >= one.send]
        unsent = 0
        if begun and min(begun) - one.send <= self.typical.get(one.kind, 0):
            unsent = self.others(one, one.initiator, served.entered)
        if 2 * (queue + unsent) > delivery:
            return "queue" if 2 * queue > delivery else "sender"
        if any(start <= served.entered < done for start, done in self.own[cpu]):
            return "calling"
        if served.found.state == "idle":
            return "idle"
        assert served.found.vcpu is not None
        return "vcpu" if self.is_pv(served.found.vcpu[0]) else served.found.state

    def is_pv(self, domain: int) -> bool:
        """Dom0 is, and what the workloads put on CPUs that they leave over where they were told so."""
        return domain == 0 or (domain >= FIRST_DOMAIN and self.pv)


def plans(model: str, vendor: str, seed: int) -> Iterator[Plan]:
    def host(cpus: int) -> Host:
        return Host(cpus, hz=HZ, model=model, vendor=vendor, seed=seed)  # type: ignore[arg-type]

    busy = Idle(tick_ns=200_000)
    guests = Bench(3, Masks(4), 25, work_ns=20_000, targets="guest")
    yield Plan(host(16), Evacuate(2, 2, pages=300), guests, busy, seconds=0.006)
    yield Plan(host(5), None, Bench(3, Masks(3, with_self=True), 40, work_ns=3_000, targets="pv"), busy)
    yield Plan(host(6), None, Bench(2, Masks(3), 30, work_ns=0, targets="pv"), busy)
    yield Plan(host(2), None, Bench(2, Masks(1), 60, work_ns=700, targets="idle"))
    yield Plan(host(9), Evacuate(1, 3, pages=200), Bench(2, Masks(5), 30, work_ns=0, targets="idle"), busy)


def held(plan: Plan, path: Path) -> tuple[Account, Lasts, list[Asked]]:
    """The emulator's account of a plan, and what the analyzer makes of its trace."""
    emulation = plan.run()
    assert plan.bench is not None
    truth = Account(emulation, pv=plan.bench.targets == "pv")
    lasts = Lasts.of(of_emulation(emulation, path))
    assert len(lasts.paths.rows) == len(truth.whole)
    return truth, lasts, truth.whole


@pytest.mark.parametrize("vendor", ["vmx", "svm"])
@pytest.mark.parametrize("model", sorted(DESIGNS))
def test_each_last_target_is_found(model: str, vendor: str, scratch: Path) -> None:
    met = set()
    for seed in (1, 2):
        for plan in plans(model, vendor, seed):
            truth, lasts, some = held(plan, scratch)
            names = [tuple(DOINGS)[doing] for doing in lasts.doing.tolist()]
            expected = [truth.doing(one) for one in some]
            assert ["hypervisor" if name == "arriving" else name for name in names] == expected
            assert lasts.services.cpu.tolist() == [last_of(one)[1] for one in some]
            met |= set(expected)
    wanted = {"function", "calling", "guest", "idle", "hypervisor", "vcpu"}
    assert met >= (wanted if model == "legacy" else wanted | {"queue"})


@pytest.mark.parametrize("cpus", [64, 256])
@pytest.mark.parametrize("model", sorted(DESIGNS))
def test_each_is_found_on_large_hosts(model: str, cpus: int, scratch: Path) -> None:
    bench = Bench(cpus // 8, Masks(cpus // 4), 4, work_ns=2_000, targets="guest")
    truth, lasts, some = held(Plan(Host(cpus, hz=HZ, model=model, seed=cpus), bench=bench), scratch)
    names = [tuple(DOINGS)[doing] for doing in lasts.doing.tolist()]
    expected = [truth.doing(one) for one in some]
    assert ["hypervisor" if name == "arriving" else name for name in names] == expected
    assert len(set(expected)) > 1 or model == "legacy"


class Interrupted(Lockless):
    """As Xen is: between SEND and the first IPI interrupts are on, and those that came are served."""

    window: ClassVar[int] = 300

    def __init__(self, machine: Machine, trace: Tracepoints) -> None:
        super().__init__(machine, trace)
        self.asked: dict[tuple[int, int], int] = {}

    def ask(self, cpu: Cpu, call: Request) -> Activity:
        yield self.window
        self.asked[call.initiator, call.start] = cpu.now
        yield from super().ask(cpu, call)


@pytest.mark.parametrize("seed", range(4))
def test_a_caller_that_serves_others_before_its_interrupts_go_out_is_told(seed: int, scratch: Path) -> None:
    host = Host(8, hz=HZ, model=Interrupted, seed=seed)
    emulation = Plan(host, bench=Bench(4, Masks(2), 100, work_ns=100_000, targets="guest")).run()
    assert isinstance(emulation.design, Interrupted)
    truth, lasts = Account(emulation, pv=False), Lasts.of(of_emulation(emulation, scratch))
    found = 0
    for one, doing, delivery in zip(truth.whole, lasts.doing.tolist(), lasts.delivery.tolist(), strict=True):
        unsent, name = emulation.design.asked[one.initiator, one.start] - one.send, tuple(DOINGS)[doing]
        if name == "sender":
            # The rest of the half was queueing.
            assert 3 * unsent > delivery
            found += 1
        elif name not in ("function", "queue"):
            assert 2 * unsent <= delivery
    assert found >= 4


def spread(times: list[int]) -> dict[str, int]:
    half, most = (round(float(np.percentile(times, share))) for share in (50, 99))
    return {"sum_ns": sum(times), "p50_ns": half, "p99_ns": most, "max_ns": max(times)}


def lateness_of(one: Asked) -> int | None:
    answered = sorted(served.left if one.wait else served.entered for served in one.served.values())
    return answered[-1] - answered[-2] if len(answered) > 1 else None


Times = list[tuple[int, int, int | None]]
"""Delivery, execution and lateness of requests."""


@pytest.mark.parametrize("model", sorted(DESIGNS))
def test_sums_and_quantiles_are_of_the_requests(model: str, scratch: Path) -> None:
    for plan in plans(model, "svm", 3):
        truth, lasts, some = held(plan, scratch)
        found = stragglers(lasts.paths)
        by_doing: dict[tuple[str, str], Times] = defaultdict(list)
        by_target: dict[object, Times] = defaultdict(list)
        chance: dict[object, float] = defaultdict(float)
        names = [tuple(DOINGS)[doing] for doing in lasts.doing.tolist()]
        for one, name in zip(some, names, strict=True):
            _, cpu = last_of(one)
            last = one.served[cpu]
            times = max(last.entered - one.send, 0), (last.left - last.entered) * one.wait, lateness_of(one)
            by_doing[one.kind, name].append(times)
            by_target[cpu].append(times)
            by_target[vcpu_of(last)].append(times)
            for target, served in one.served.items():
                part = 1 / len(one.served) if len(one.served) > 1 else 0
                chance[target] += part
                chance[vcpu_of(served)] += part
        assert {(row.kind, row.doing) for row in found.doings} == by_doing.keys()
        for row in found.doings:
            rows = by_doing[row.kind, row.doing]
            late = [lateness for *_, lateness in rows if lateness is not None]
            assert (row.requests, row.took_ns) == (len(rows), sum(times[0] + times[1] for times in rows))
            assert asdict(row.delivery) == spread([times[0] for times in rows])
            assert (row.lateness and asdict(row.lateness)) == (spread(late) if late else None)
            assert row.late == sum(times[0] > LATE * truth.typical[row.kind] for times in rows)
        for offender in (*found.cpus, *found.vcpus):
            key = (offender.domain, offender.vcpu) if offender.cpu is None else offender.cpu
            rows = by_target.pop(key)
            late = [lateness for *_, lateness in rows if lateness is not None]
            assert (offender.requests, offender.took_ns) == (len(rows), sum(times[0] + times[1] for times in rows))
            assert (offender.of_several, offender.lateness_ns) == (len(late), sum(late))
            assert offender.by_chance == pytest.approx(chance[key])
        assert not by_target
        for kind in found.kinds:
            mine = [one for one in some if one.kind == kind.kind]
            assert (kind.requests, kind.typical_ns) == (len(mine), int(truth.typical[kind.kind]))
            paid = kind.before_ns + kind.delivery_ns + kind.execution_ns + kind.after_ns
            assert sum(one.done - one.start for one in mine) == kind.paid_ns == paid


def vcpu_of(served: Served) -> tuple[int, int | None]:
    assert served.found.vcpu is not None
    domain, vcpu = served.found.vcpu
    return domain, None if domain == IDLE_DOMAIN else vcpu


class Stalls:
    """An HVM vCPU on a CPU that has interrupts off now and then: before it enters its guest, and after it left it."""

    def __init__(self, emulation: Emulation, number: int) -> None:
        self.phase = "hypervisor"
        self.arrived: list[tuple[str, bool]] = []
        cpu = emulation.machine.cpus[number]
        arrive = cpu.interrupt

        def interrupt(vector: int) -> None:
            if vector == CALL_FUNCTION_VECTOR:
                self.arrived.append((self.phase, not cpu.interrupts))
            arrive(vector)

        cpu.interrupt = interrupt  # type: ignore[method-assign]
        emulation.start(number, self._running(emulation, cpu))

    def _running(self, emulation: Emulation, cpu: Cpu) -> Activity:
        scheduler, guest, vcpu = emulation.schedulers[cpu.number], emulation.guest, (7, 0)
        while True:
            scheduler.wake(vcpu)
            self.phase = "arriving"
            yield from self._off(cpu, 60_000)
            yield 10_000
            self.phase = "guest"
            yield from guest.enter(cpu)
            yield 40_000
            yield from guest.exit(cpu, guest.page_fault)
            self.phase = "hypervisor"
            yield from self._off(cpu, 60_000)
            yield 10_000
            self.phase = "guest"
            yield from guest.enter(cpu)
            yield 5_000
            yield from guest.exit(cpu, guest.hlt)
            self.phase = "idle"
            scheduler.block(vcpu)
            yield from emulation.sleeping(cpu, 20_000)

    def _off(self, cpu: Cpu, cycles: int) -> Activity:
        cpu.interrupts = False
        yield cycles
        cpu.interrupts = True


@pytest.mark.parametrize("vendor", ["vmx", "svm"])
def test_interrupts_off_show_as_a_late_target_in_the_hypervisor(vendor: Vendor, scratch: Path) -> None:
    emulation = Emulation(Host(2, hz=HZ, vendor=vendor))
    stalls = Stalls(emulation, 1)
    Bench(1, Masks(1), 1_500, work_ns=0, think_ns=7_919, targets="idle").install(emulation)
    emulation.run()
    lasts = Lasts.of(of_emulation(emulation, scratch))
    names = [tuple(DOINGS)[doing] for doing in lasts.doing.tolist()]
    typical = lasts.typical[0]
    assert typical is not None
    late = (lasts.delivery > LATE * typical).tolist()
    off = {"arriving": 0, "hypervisor": 0}
    for (phase, disabled), name, delivery, is_late in zip(
        stalls.arrived, names, lasts.delivery.tolist(), late, strict=True
    ):
        # What comes while a guest is left or entered finds interrupts off for less than that takes.
        if phase in off:
            assert name == phase or not disabled
            assert is_late <= disabled
            off[phase] += is_late
        else:
            assert not is_late, (phase, name, delivery)
    assert min(off.values()) > 50


def real(name: str, sample: Sample, hz: int) -> Stragglers:
    side = "lockless" if "lockless" in name else "legacy"
    return stragglers(paths_of(sample(name), hz, str(SAMPLES / f"symbols-{side}.map")))


def told(found: Stragglers, kind: str) -> dict[str, tuple[int, int | None]]:
    """By what the last target was doing: requests, and how many of them late."""
    return {one.doing: (one.requests, one.late) for one in found.doings if one.kind == kind}


def test_flushes_of_a_migration_meet_vcpus_on_their_way_in(sample: Sample) -> None:
    found = real("migrate-legacy", sample, REAL_HZ)
    flushes, calls = found.kinds
    assert (flushes.kind, flushes.requests, calls.requests) == ("flush", 2_752, 72)
    assert told(found, "flush") == {
        "arriving": (920, 38),
        "vcpu": (589, 28),
        "hypervisor": (656, 21),
        "guest": (437, 6),
        "idle": (77, 0),
        "calling": (19, 2),
        "function": (50, 0),
        "queue": (3, 0),
        "sender": (1, 0),
    }
    # As the records say: sent at 70.920144, CPU 1 left d2v0 at 70.966765, had d1v0 at 70.966767, ENTER at 70.966782.
    longest = next(one for one in found.worst if one.kind == "flush")
    assert (longest.start_ns, longest.initiator, longest.cpu, longest.domain, longest.vcpu) == (
        70_920_140_061,
        0,
        1,
        1,
        0,
    )
    assert (longest.doing, longest.delivery_ns, longest.lateness_ns) == ("arriving", 46_638_387, None)
    assert {one.doing for one in found.works if one.name.endswith("time_calibration_std_rendezvous")} == {"function"}
    assert next(paint.answer(found)) == (
        "Of the 9.80 s from SEND until the last target of flushes had answered, it was in Xen, entering a guest for "
        "41 %, in a PV guest or Xen for 24 %, in Xen for its vCPU for 22 %, in its guest for 9 %."
    )


def test_callers_of_the_benchmark_wait_for_each_other(sample: Sample) -> None:
    legacy, lockless = (real(f"bench8-{model}", sample, 60_000_000) for model in ("legacy", "lockless"))
    assert told(legacy, "call") == {"function": (1_260, 0), "unknown": (22, 0)}
    assert told(lockless, "call") == {
        "function": (980, 233),
        "queue": (211, 211),
        "sender": (67, 67),
        "calling": (1, 1),
        "unknown": (23, 1),
    }
    first = lockless.cpus[0]
    assert (first.cpu, first.of_several, first.by_chance) == (7, 170, 126.0)
    assert sum(one.of_several for one in lockless.cpus) == sum(one.by_chance for one in lockless.cpus) == 862


CALLED: Final = """
      1 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
      1 cpu2 RUNSTATE_CHANGE domid=32767 vcpuid=2 old_state=runnable new_state=running
      2 cpu1 HVM_VMENTRY
    100 cpu0 CALL_START seq=1 func=0x10 n_cpus=2 wait={wait}
    110 cpu0 CALL_SEND  seq=1 mask=1,2
    150 cpu1 CALL_ENTER initiator_cpu=0 seq=1
    160 cpu1 CALL_EXIT  initiator_cpu=0 seq=1
    155 cpu2 CALL_ENTER initiator_cpu=0 seq=1
    {left} cpu2 CALL_EXIT  initiator_cpu=0 seq=1
    {done} cpu0 CALL_DONE  seq=1
"""
"""CPU 0 calls CPU 1, which is in a guest, and CPU 2, which is idle."""


def found_in(text: str, opened: Opened) -> Stragglers:
    with opened(text) as trace:
        return stragglers(Paths.of(Requests.of(trace.tables, Selection())))


def test_who_answers_last(opened: Opened) -> None:
    (last,) = found_in(CALLED.format(wait=1, left=158, done=170), opened).worst
    assert (last.cpu, last.doing, last.delivery_ns, last.execution_ns, last.lateness_ns) == (1, "guest", 40, 10, 2)
    (last,) = found_in(CALLED.format(wait=1, left=165, done=170), opened).worst
    assert (last.cpu, last.doing, last.delivery_ns, last.execution_ns, last.lateness_ns) == (2, "idle", 45, 10, 5)
    (last,) = found_in(CALLED.format(wait=1, left=200, done=210), opened).worst
    assert (last.cpu, last.doing, last.delivery_ns, last.execution_ns, last.lateness_ns) == (2, "function", 45, 45, 40)


def test_asynchronous_calls_are_answered_when_the_function_begins(opened: Opened) -> None:
    found = found_in(CALLED.format(wait=0, left=900, done=112), opened)
    (last,), (kind,) = found.worst, found.kinds
    assert (last.cpu, last.doing, last.delivery_ns, last.execution_ns, last.lateness_ns) == (2, "idle", 45, 0, 5)
    # Nobody waited for that.
    assert (kind.paid_ns, kind.before_ns, kind.delivery_ns, kind.after_ns) == (12, 10, 2, 0)


def test_a_target_that_began_at_once_met_something_all_the_same(opened: Opened) -> None:
    text = CALLED.format(wait=0, left=158, done=112).replace("150 cpu1", "109 cpu1").replace("155 cpu2", "110 cpu2")
    (last,) = found_in(text, opened).worst
    assert (last.cpu, last.doing, last.delivery_ns, last.lateness_ns) == (2, "idle", 0, 1)


@pytest.mark.parametrize(
    ("records", "doing"),
    [
        ("1 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running\n2 cpu1 HVM_VMENTRY", "guest"),
        ("1 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running", "vcpu"),
        ("1 cpu1 RUNSTATE_CHANGE domid=32767 vcpuid=1 old_state=runnable new_state=running", "idle"),
        ("1 cpu1 SCHED_WAKE", "unknown"),
        ("90 cpu1 CALL_START seq=4 func=0x20 n_cpus=1 wait=1\n900 cpu1 CALL_DONE seq=4", "calling"),
        ("90 cpu1 CALL_START seq=4 func=0x20 n_cpus=1 wait=1\n140 cpu1 CALL_DONE seq=4", "unknown"),
        ("112 cpu1 CALL_ENTER initiator_cpu=3 seq=8\n134 cpu1 CALL_EXIT initiator_cpu=3 seq=8", "queue"),
        ("112 cpu1 CALL_ENTER initiator_cpu=3 seq=8\n132 cpu1 CALL_EXIT initiator_cpu=3 seq=8", "unknown"),
        # The caller of a call that took longer than the typical 2 ns to be interrupted had sent by then.
        ("{asks}\n112 cpu0 CALL_ENTER initiator_cpu=3 seq=8\n134 cpu0 CALL_EXIT initiator_cpu=3 seq=8", "sender"),
        ("{asks}\n113 cpu0 CALL_ENTER initiator_cpu=3 seq=8\n135 cpu0 CALL_EXIT initiator_cpu=3 seq=8", "unknown"),
    ],
)
def test_what_the_last_target_was_doing(records: str, doing: str, opened: Opened) -> None:
    call = """
        100 cpu0 CALL_START seq=1 func=0x10 n_cpus=1 wait=1
        110 cpu0 CALL_SEND  seq=1 mask=1
        150 cpu1 CALL_ENTER initiator_cpu=0 seq=1
        160 cpu1 CALL_EXIT  initiator_cpu=0 seq=1
        170 cpu0 CALL_DONE  seq=1
    """
    asks = "".join(
        f"""
        {at} cpu5 CALL_START seq={at} n_cpus=1 wait=1
        {at} cpu5 CALL_SEND  seq={at} mask=6
        {at + 2} cpu6 CALL_ENTER initiator_cpu=5 seq={at}
        {at + 3} cpu6 CALL_EXIT  initiator_cpu=5 seq={at}
        {at + 4} cpu5 CALL_DONE  seq={at}
        """
        for at in (10, 20, 30)
    )
    text = "\n".join(sorted((call + records.format(asks=asks)).splitlines(), key=when))
    found = found_in(text, opened)
    (last,) = (one for one in found.worst if one.initiator == 0)
    assert last.doing == doing


def when(line: str) -> int:
    return int((line.split() or ["0"])[0])


def test_a_vcpu_arrives_until_it_enters_its_guest(opened: Opened) -> None:
    text = "\n".join(
        f"""
        {at} cpu0 CALL_START seq={at} func=0x10 n_cpus=1 wait=1
        {at} cpu0 CALL_SEND  seq={at} mask=1
        {at + 20} cpu1 CALL_ENTER initiator_cpu=0 seq={at}
        {at + 21} cpu1 CALL_EXIT  initiator_cpu=0 seq={at}
        {at + 22} cpu0 CALL_DONE  seq={at}
        """
        for at in (100, 200, 300)
    )
    comes = "1 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running"
    goes_on = "290 cpu1 SCHED_CONTINUE_RUNNING domid=1 vcpuid=0"
    lines = [*text.splitlines(), comes, "150 cpu1 HVM_VMENTRY", goes_on]
    found = found_in("\n".join(sorted(lines, key=when)), opened)
    doings = {one.start_ns: one.doing for one in found.worst}
    assert list(dict(sorted(doings.items())).values()) == ["arriving", "guest", "arriving"]
    # Without an entry the domain might as well be a PV guest.
    lines.remove("150 cpu1 HVM_VMENTRY")
    assert {one.doing for one in found_in("\n".join(sorted(lines, key=when)), opened).worst} == {"vcpu"}


def test_nothing_has_no_last_target(sample: Sample) -> None:
    found = stragglers(paths_of(sample("dom0-stock"), REAL_HZ))
    assert found == Stragglers((), (), (), (), (), ())
    assert list(paint.answer(found)) == []
    assert paint.section(found).text == ("No request of this selection is complete.",)
    assert paint.pictures(found) == ()
    assert [len(getattr(found, f"df_{name}")()) for name in ("doings", "cpus", "vcpus", "works", "worst")] == [0] * 5


def test_frames_hold_the_rows(sample: Sample) -> None:
    found = real("migrate-lockless", sample, REAL_HZ)
    doings, vcpus, worst = found.df_doings(), found.df_vcpus(), found.df_worst()
    assert doings["took_ns"].tolist() == [one.took_ns for one in found.doings]
    assert doings["delivery_p99_ns"].tolist() == [one.delivery.p99_ns for one in found.doings]
    assert doings["lateness_p50_ns"].isna().tolist() == [one.lateness is None for one in found.doings]
    assert vcpus[vcpus["domain"] == IDLE_DOMAIN]["vcpu"].isna().all()
    assert found.df_cpus()["by_chance"].sum() == pytest.approx(60)
    assert found.df_works()["doing_percent"].between(0, 100).all()
    assert worst.groupby("kind").size().to_dict() == {"call": WORST, "flush": WORST}
    assert worst["lateness_ns"].isna().tolist() == [one.kind == "flush" for one in found.worst]
    assert json.loads(json.dumps(asdict(found)))["kinds"][0]["requests"] == 2_154


def test_pages_and_terminal_show_it(sample: Sample) -> None:
    found = real("migrate-lockless", sample, REAL_HZ)
    section = paint.section(found)
    assert sum("met it in Xen, in no function of others" in sentence for sentence in section.text) == 1
    assert [cell.text for cell in section.tables[0].rows[0]][:3] == ["in Xen, entering a guest", "flushes", "665"]
    assert section.tables[0].rows[0][-1].text == "–"
    doing, cpus = paint.pictures(found)
    assert "in Xen, entering a guest" in doing.svg
    assert "by chance" in cpus.svg
    assert set(paint.DOINGS) == set(DOINGS)

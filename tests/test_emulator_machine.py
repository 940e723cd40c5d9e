"""The emulated machine: its loop, interrupts, spinlocks and IPIs, and what leaving each context costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtrace.emulator.choices import IpiMode
from xtrace.emulator.contexts import (
    IDLE_EXIT,
    SVM_INTERRUPT,
    SVM_INTR,
    VMENTRY,
    VMEXIT,
    VMX_INTERRUPT,
    VMX_INTR,
    Guest,
    Idle,
    PvGuest,
    SvmGuest,
    VmxGuest,
)
from xtrace.emulator.costs import MAX_NS, Costs
from xtrace.emulator.log import Log
from xtrace.emulator.loop import Loop
from xtrace.emulator.machine import CLUSTER_CPUS, Activity, Context, Cpu, Machine, TicketLock
from xtrace.emulator.requests import State
from xtrace.errors import UsageError

GHZ = 1_000_000_000
"""A cycle is a nanosecond."""

ENTRY, EXIT, WRITE, FLIGHT, LOCK, HANDOVER = 20, 5, 10, 100, 2, 3
VM_EXIT, VM_ENTRY, WAKE = 700, 500, 2000

COSTS = Costs(
    irq_entry_ns=ENTRY,
    irq_exit_ns=EXIT,
    icr_write_ns=WRITE,
    flight_ns=FLIGHT,
    flight_jitter_ns=0,
    lock_ns=LOCK,
    handover_ns=HANDOVER,
    vm_exit_ns=VM_EXIT,
    vm_entry_ns=VM_ENTRY,
    wake_ns=WAKE,
)

LOW, MIDDLE, HIGH = 0x30, 0x80, 0xFD


class Served(NamedTuple):
    """A handler began."""

    cpu: int
    vector: int
    when: int


class Rig:
    """A machine that notes each handler's start, in cycles since the beginning."""

    def __init__(self, cpus: int = 1, *, takes: int = 1000, costs: Costs = COSTS, mode: IpiMode = "cluster") -> None:
        self.machine = Machine(cpus, GHZ, costs, Random(1), ipi_mode=mode)
        self.begin = self.machine.loop.now
        self.served: list[Served] = []
        self.takes = takes
        for vector in (LOW, MIDDLE, HIGH):
            self.handle(vector)

    @property
    def now(self) -> int:
        return self.machine.loop.now - self.begin

    def handle(self, vector: int) -> None:
        def handler(cpu: Cpu) -> Activity:
            self.served.append(Served(cpu.number, vector, self.now))
            yield self.takes

        self.machine.handlers[vector] = handler

    def ipi(self, when: int, vector: int, cpu: int = 0) -> None:
        self.machine.loop.at(self.begin + when, self.machine.cpus[cpu].interrupt, vector)

    def busy(self, cpu: int, times: Sequence[int], ends: list[int], context: Context | None = None) -> None:
        """Let a CPU be busy for these times, one after the other, and note when each ends."""
        one = self.machine.cpus[cpu]

        def activity() -> Activity:
            one.context = context
            for time in times:
                yield time
                ends.append(self.now)
            one.context = None

        one.start(activity())

    def masked(self, cpu: int, cycles: int) -> None:
        """Let a CPU have interrupts off for so long."""
        one = self.machine.cpus[cpu]

        def activity() -> Activity:
            one.interrupts = False
            yield cycles
            one.interrupts = True

        one.start(activity())

    def vectors(self) -> list[int]:
        return [one.vector for one in self.served]

    def whens(self) -> list[int]:
        return [one.when for one in self.served]


# The loop


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=3)), max_size=20))
def test_what_is_due_at_one_time_is_done_in_the_order_it_was_asked_for(asked: list[tuple[int, list[int]]]) -> None:
    loop = Loop(100)
    order: list[tuple[int, int]] = []
    serial = 0

    def ask(when: int, more: list[int]) -> None:
        nonlocal serial
        mine, serial = serial, serial + 1

        def act(argument: list[int]) -> None:
            assert loop.now == when
            order.append((when, mine))
            for delay in argument:
                ask(loop.now + delay, [])

        loop.at(when, act, more)

    for delay, more in asked:
        ask(100 + delay, more)
    loop.run()
    assert len(order) == serial == len(asked) + sum(len(more) for _, more in asked)
    assert order == sorted(order)


@given(st.lists(st.integers(0, 100), min_size=1), st.integers(0, 100))
def test_a_run_until_a_time_does_what_is_due_by_then_and_the_next_run_the_rest(times: list[int], until: int) -> None:
    loop = Loop(0)
    done: list[int] = []
    for when in times:
        loop.at(when, done.append, when)
    loop.run(until)
    assert done == sorted(when for when in times if when <= until)
    assert loop.now == until
    loop.run()
    assert done == sorted(times)


def test_a_stopped_loop_does_nothing_more() -> None:
    loop = Loop(0)
    done: list[int] = []
    loop.at(5, done.append, 5)
    loop.at(7, lambda _: loop.stop(), None)
    loop.at(7, done.append, 7)
    loop.run(1000)
    assert done == [5]
    assert loop.now == 7


# Interrupts


@given(
    times=st.lists(st.integers(0, 3000), min_size=1, max_size=4),
    arrivals=st.lists(st.tuples(st.integers(0, 8000), st.sampled_from((LOW, MIDDLE, HIGH))), max_size=8),
)
def test_the_rest_of_a_busy_time_is_kept_exactly(times: list[int], arrivals: list[tuple[int, int]]) -> None:
    rig = Rig(takes=300)
    ends: list[int] = []
    rig.busy(0, times, ends)
    for when, vector in arrivals:
        rig.ipi(when, vector)
    rig.machine.run()
    assert len(ends) == len(times)
    for number, end in enumerate(ends):
        before = sum(when < end for when in rig.whens())
        assert end == sum(times[: number + 1]) + before * (ENTRY + 300 + EXIT)


@given(st.lists(st.tuples(st.integers(0, 3000), st.sampled_from((LOW, MIDDLE, HIGH))), max_size=12))
def test_no_interrupt_is_lost(arrivals: list[tuple[int, int]]) -> None:
    """A handler of its vector begins after it; and handlers do not begin more often than interrupts come."""
    rig = Rig(takes=300)
    for when, vector in arrivals:
        rig.ipi(when, vector)
    rig.machine.run()
    for when, vector in arrivals:
        assert any(one.vector == vector and one.when >= when + ENTRY for one in rig.served)
    for vector in (LOW, MIDDLE, HIGH):
        assert rig.vectors().count(vector) <= sum(other == vector for _, other in arrivals)
    # One at a time: with interrupts off no handler interrupts another.
    assert all(after - before >= 300 + EXIT + ENTRY for before, after in pairwise(rig.whens()))


def test_an_interrupt_that_meets_an_idle_moment_is_served_after_the_entry_alone() -> None:
    rig = Rig()
    rig.ipi(50, LOW)
    rig.machine.run()
    assert rig.served == [(0, LOW, 50 + ENTRY)]


@given(st.lists(st.sampled_from((LOW, MIDDLE, HIGH)), min_size=1, max_size=9))
def test_pending_vectors_coalesce_and_are_served_from_the_highest_down(vectors: list[int]) -> None:
    rig = Rig(takes=100)
    rig.masked(0, 5000)
    for number, vector in enumerate(vectors):
        rig.ipi(1 + 10 * number, vector)
    rig.machine.run()
    assert rig.vectors() == sorted(set(vectors), reverse=True)
    step = ENTRY + 100 + EXIT
    assert rig.whens() == [5000 + ENTRY + step * number for number in range(len(set(vectors)))]


def test_interrupts_off_delay_delivery_on_their_cpu_alone() -> None:
    rig = Rig(2)
    rig.masked(0, 4000)
    rig.ipi(100, LOW, cpu=0)
    rig.ipi(100, LOW, cpu=1)
    rig.machine.run()
    assert rig.served == [(1, LOW, 100 + ENTRY), (0, LOW, 4000 + ENTRY)]


@pytest.mark.parametrize("after", [1, ENTRY, ENTRY + 1, ENTRY + 500, ENTRY + 1000, ENTRY + 1000 + EXIT - 1])
def test_a_vector_is_acknowledged_before_its_handler_so_that_it_can_be_pending_again(after: int) -> None:
    rig = Rig(takes=1000)
    rig.ipi(100, MIDDLE)
    rig.ipi(100 + after, MIDDLE)
    rig.machine.run()
    assert rig.whens() == [100 + ENTRY, 100 + ENTRY + 1000 + EXIT + ENTRY]


def test_several_ipis_during_a_handler_of_their_vector_are_one_more_run() -> None:
    rig = Rig(takes=1000)
    for when in (100, 200, 300, 400):
        rig.ipi(when, MIDDLE)
    rig.machine.run()
    assert rig.vectors() == [MIDDLE, MIDDLE]


def test_a_higher_vector_waits_for_the_handler_that_runs_and_then_goes_first() -> None:
    rig = Rig(takes=1000)
    for when, vector in ((100, MIDDLE), (200, LOW), (300, HIGH)):
        rig.ipi(when, vector)
    rig.machine.run()
    assert rig.vectors() == [MIDDLE, HIGH, LOW]


# Spinlocks


@given(st.lists(st.integers(0, 5000), min_size=2, max_size=8, unique=True), st.integers(1, 3000))
def test_a_ticket_lock_is_held_by_one_at_a_time_in_order_of_arrival(delays: list[int], hold: int) -> None:
    rig = Rig(len(delays))
    lock = TicketLock(rig.machine)
    taken: list[tuple[int, int, int]] = []

    def take(number: int, delay: int) -> Activity:
        yield delay
        yield from lock.acquire()
        begin = rig.now
        yield hold
        taken.append((number, begin, rig.now))
        lock.release()

    for number, delay in enumerate(delays):
        rig.machine.cpus[number].start(take(number, delay))
    rig.machine.run()
    assert [number for number, _, _ in taken] == sorted(range(len(delays)), key=delays.__getitem__)
    free = 0
    for number, begin, end in taken:
        ready = delays[number] + LOCK
        # Released at the very moment it is looked at: either may come first.
        waited = [ready] if ready > free else [free + HANDOVER] if ready < free else [ready, free + HANDOVER]
        assert begin in waited
        free = end


def test_waiters_serve_interrupts_while_they_spin() -> None:
    rig = Rig(3, takes=100)
    lock = TicketLock(rig.machine)
    taken: list[tuple[int, int]] = []

    def take(number: int) -> Activity:
        yield 10 * number
        yield from lock.acquire()
        taken.append((number, rig.now))
        yield 5000
        lock.release()

    for number in range(3):
        rig.machine.cpus[number].start(take(number))
    rig.ipi(1000, LOW, cpu=1)
    rig.ipi(1000, LOW, cpu=2)
    # Released while CPU 1 is in its handler: it does not miss that.
    rig.ipi(4990, LOW, cpu=1)
    rig.machine.run()
    assert rig.served == [(1, LOW, 1000 + ENTRY), (2, LOW, 1000 + ENTRY), (1, LOW, 4990 + ENTRY)]
    first = LOCK + 5000
    second = 4990 + ENTRY + 100 + EXIT
    assert second > first + HANDOVER
    assert taken == [(0, LOCK), (1, second), (2, second + 5000 + HANDOVER)]


# IPIs


def sent(rig: Rig, targets: Sequence[int], sender: int = 0) -> int:
    """Send from one CPU, and give what that took it."""
    took: list[int] = []

    def activity(cpu: Cpu) -> Activity:
        yield from rig.machine.send(cpu, targets, LOW)
        took.append(rig.now)

    cpu = rig.machine.cpus[sender]
    cpu.start(activity(cpu))
    rig.machine.run()
    return took[0]


def writes(targets: list[int], cpus: int, mode: IpiMode) -> int:
    if len(targets) == cpus - 1:
        return 1
    return len(targets) if mode == "physical" else len({one // CLUSTER_CPUS for one in targets})


@pytest.mark.parametrize("mode", ["physical", "cluster"])
@given(targets=st.sets(st.integers(0, 49), min_size=1), sender=st.integers(0, 49))
def test_every_target_but_the_sender_is_interrupted_after_the_writes_that_come_before_it(
    mode: IpiMode, targets: set[int], sender: int
) -> None:
    rig = Rig(50, mode=mode)
    others = sorted(targets - {sender})
    took = sent(rig, sorted(targets), sender)
    assert took == WRITE * (writes(others, 50, mode) if others else 0)
    shorthand = len(others) == 49
    assert {one.cpu: one.when for one in rig.served} == {
        one: WRITE * (1 if shorthand else writes(others[: at + 1], 50, mode)) + FLIGHT + ENTRY
        for at, one in enumerate(others)
    }
    assert len(rig.served) == len(others)


@pytest.mark.parametrize(
    ("mode", "targets", "count"),
    [
        ("physical", [1, 2, 3, 20, 40], 5),
        ("cluster", [1, 2, 3, 20, 40], 3),
        ("cluster", [15, 16], 2),
        ("cluster", [16, 31], 1),
        ("physical", list(range(1, 63)), 62),
        ("cluster", list(range(1, 63)), 4),
        ("physical", list(range(1, 64)), 1),
        ("cluster", list(range(1, 64)), 1),
        ("cluster", list(range(64)), 1),
        ("cluster", [0], 0),
    ],
)
def test_a_write_goes_to_each_target_or_each_cluster_or_by_shorthand_to_all_but_self(
    mode: IpiMode, targets: list[int], count: int
) -> None:
    assert sent(Rig(64, mode=mode), targets) == WRITE * count


def test_interrupts_are_off_while_ipis_are_sent() -> None:
    rig = Rig(8, mode="physical")
    rig.ipi(WRITE, LOW, cpu=0)
    assert sent(rig, [1, 2, 3]) == 3 * WRITE
    assert next(one for one in rig.served if one.cpu == 0).when == 3 * WRITE + ENTRY


def test_jitter_is_added_to_a_flight_up_to_its_most() -> None:
    jitter = 50
    rig = Rig(64, costs=Costs(icr_write_ns=WRITE, flight_ns=FLIGHT, flight_jitter_ns=jitter, irq_entry_ns=ENTRY))
    sent(rig, range(64))
    late = {one.when - WRITE - FLIGHT - ENTRY for one in rig.served}
    assert min(late) >= 0
    assert max(late) <= jitter
    assert len(late) > 10


# Costs


@pytest.mark.parametrize("name", [one.name for one in fields(Costs)])
@pytest.mark.parametrize("value", [-0.001, MAX_NS * 1.001, float("nan"), float("inf"), -float("inf")])
def test_a_cost_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        Costs(**{name: value})


@pytest.mark.parametrize("name", [one.name for one in fields(Costs)])
def test_costs_at_both_ends_of_the_range_are_taken(name: str) -> None:
    for value in (0, MAX_NS):
        assert getattr(Costs(**{name: value}), name) == value


# Contexts


class Left(NamedTuple):
    """What interrupting a context showed."""

    served: list[int]
    ends: list[int]
    found: list[State]
    log: Log


def interrupted(kind: str, arrivals: Sequence[tuple[int, int]], busy: int = 10_000, takes: int = 100) -> Left:
    """Interrupt a CPU that is in this context for so long; idle: until it was interrupted."""
    rig, log = Rig(takes=takes), Log()
    cpu = rig.machine.cpus[0]
    ends: list[int] = []
    found: list[State] = []
    if kind == "idle":
        idle = Idle(rig.machine, log)

        def sleeping() -> Activity:
            yield from idle.sleep(cpu)
            ends.append(rig.now)

        cpu.start(sleeping())
    else:
        contexts: dict[str, Context | None] = {
            "hypervisor": None,
            "pv": PvGuest(),
            "vmx": VmxGuest(rig.machine, log),
            "svm": SvmGuest(rig.machine, log),
        }
        rig.busy(0, [busy], ends, contexts[kind])
    for vector, handler in list(rig.machine.handlers.items()):

        def noting(one: Cpu, handler: object = handler) -> Activity:
            found.append(one.situation().state)
            assert callable(handler)
            yield from handler(one)

        rig.machine.handlers[vector] = noting
    for when, vector in arrivals:
        rig.ipi(when, vector)
    rig.machine.run()
    return Left(rig.whens(), ends, found, log)


@pytest.mark.parametrize(
    ("kind", "leave", "reenter", "state"),
    [
        ("hypervisor", 0, 0, "hypervisor"),
        ("pv", 0, 0, "guest"),
        ("vmx", VM_EXIT, VM_ENTRY, "guest"),
        ("svm", VM_EXIT, VM_ENTRY, "guest"),
    ],
)
def test_leaving_a_guest_and_going_back_costs_an_exit_and_an_entry(
    kind: str, leave: int, reenter: int, state: State
) -> None:
    left = interrupted(kind, [(400, LOW)])
    assert left.served == [400 + leave + ENTRY]
    assert left.ends == [10_000 + leave + ENTRY + 100 + EXIT + reenter]
    assert left.found == [state]


def test_waking_an_idle_cpu_costs_the_wake_up_and_it_does_not_fall_asleep_by_itself() -> None:
    left = interrupted("idle", [(400, LOW)])
    assert left.served == [400 + WAKE + ENTRY]
    assert left.ends == [400 + WAKE + ENTRY + 100 + EXIT]
    assert left.found == ["idle"]


@pytest.mark.parametrize(("kind", "leave"), [("vmx", VM_EXIT), ("svm", VM_EXIT), ("idle", WAKE)])
def test_what_arrives_on_the_way_out_is_served_in_the_same_exit(kind: str, leave: int) -> None:
    left = interrupted(kind, [(400, LOW), (500, HIGH), (600, LOW)])
    first = 400 + leave + ENTRY
    assert left.served == [first, first + 100 + EXIT + ENTRY]
    assert [row[3][2:] for row in left.log.rows if row[2] is IDLE_EXIT] == (
        [(LOW, HIGH, 0, 0)] if kind == "idle" else []
    )


def test_an_interrupt_during_the_entry_takes_the_guest_out_again_at_once() -> None:
    left = interrupted("vmx", [(400, LOW), (400 + VM_EXIT + ENTRY + 100 + EXIT + 1, HIGH)])
    entered = 400 + VM_EXIT + ENTRY + 100 + EXIT + VM_ENTRY
    assert left.served[1] == entered + VM_EXIT + ENTRY
    assert left.ends == [10_000 + 2 * (VM_EXIT + ENTRY + 100 + EXIT + VM_ENTRY)]


def test_an_interrupted_guest_leaves_the_records_of_its_vendor() -> None:
    vmx, svm = (interrupted(kind, [(400, HIGH)]) for kind in ("vmx", "svm"))
    handled, entered = 400 + VM_EXIT + ENTRY, 400 + VM_EXIT + ENTRY + 100 + EXIT + VM_ENTRY
    begin = GHZ * 100
    assert [(row[1] - begin, row[2]) for row in vmx.log.rows] == [
        (400 + VM_EXIT, VMEXIT),
        (400 + VM_EXIT, VMX_INTR),
        (entered, VMENTRY),
    ]
    assert vmx.log.rows[0][3][0] == VMX_INTERRUPT
    assert vmx.log.rows[1][3] == (HIGH,)
    assert [(row[1] - begin, row[2]) for row in svm.log.rows] == [
        (handled + 100 + EXIT, VMEXIT),
        (handled + 100 + EXIT, SVM_INTR),
        (entered, VMENTRY),
    ]
    assert svm.log.rows[0][3][0] == SVM_INTERRUPT


def test_a_guest_is_entered_and_left_with_interrupts_off() -> None:
    rig, log = Rig(takes=100), Log()
    guest: Guest = VmxGuest(rig.machine, log)
    cpu = rig.machine.cpus[0]
    ends: list[int] = []

    def activity() -> Activity:
        yield from guest.enter(cpu)
        ends.append(rig.now)
        yield 5000
        yield from guest.exit(cpu, 12)
        ends.append(rig.now)
        yield 1000

    cpu.start(activity())
    rig.ipi(VM_ENTRY + 5000 + 1, LOW)
    rig.machine.run()
    assert ends == [VM_ENTRY, VM_ENTRY + 5000 + VM_EXIT]
    assert rig.whens() == [ends[1] + ENTRY]


def test_softirqs_wait_for_the_way_back_to_a_guest_and_run_with_interrupts_on() -> None:
    rig, log = Rig(takes=100), Log()
    cpu = rig.machine.cpus[0]
    ran: list[tuple[int, bool]] = []

    def softirq(one: Cpu) -> Activity:
        ran.append((rig.now, one.interrupts))
        yield 1000

    def activity() -> Activity:
        yield 1000
        cpu.context = VmxGuest(rig.machine, log)
        yield 5000
        cpu.context = None

    cpu.start(activity())
    cpu.softirqs.append(softirq)
    rig.ipi(500, LOW)
    rig.ipi(3000, LOW)
    back = 3000 + VM_EXIT + ENTRY + 100 + EXIT
    rig.ipi(back + 200, HIGH)
    rig.machine.run()
    assert ran == [(back, True)]
    assert rig.whens() == [500 + ENTRY, 3000 + VM_EXIT + ENTRY, back + 200 + ENTRY]
    assert not cpu.softirqs

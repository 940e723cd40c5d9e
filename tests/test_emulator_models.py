"""The emulated machine, step by step, and what sets the four designs apart."""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xtrace import columns
from xtrace.emulator.costs import Costs
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.loop import Loop
from xtrace.emulator.machine import Activity, Cpu, Machine, Signal, TicketLock
from xtrace.emulator.models import DESIGNS
from xtrace.emulator.models.design import INVALIDATE_CB
from xtrace.emulator.requests import Request
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.parsers.registry import EVENTS

GHZ = 1_000_000_000  # a cycle is a nanosecond
FREE = Costs(
    icr_write_ns=10, flight_ns=100, flight_jitter_ns=0, irq_entry_ns=20, irq_exit_ns=5, lock_ns=0, handover_ns=3
)


Noted = list[tuple[int, int, int]]
"""CPU, vector and time of each interrupt served."""


def machine(cpus: int = 4, **options: object) -> Machine:
    return Machine(cpus, GHZ, FREE, Random(1), **options)  # type: ignore[arg-type]


def noting(noted: Noted, vector: int, takes: int) -> Callable[[Cpu], Activity]:
    def handle(cpu: Cpu) -> Activity:
        noted.append((cpu.number, vector, cpu.now))
        yield takes

    return handle


@given(st.lists(st.integers(0, 50), min_size=1))
def test_the_loop_keeps_the_order_of_time_and_then_of_asking(times: list[int]) -> None:
    loop = Loop(0)
    done: list[tuple[int, int]] = []
    for number, when in enumerate(times):
        loop.at(when, done.append, (when, number))
    loop.run()
    assert done == sorted((when, number) for number, when in enumerate(times))
    assert loop.now == max(times)


def test_an_interrupt_keeps_the_rest_of_what_it_interrupts() -> None:
    host = machine()
    ended: list[int] = []
    noted: Noted = []
    host.handlers[0x40] = noting(noted, 0x40, 1000)
    begin = host.loop.now

    def busy() -> Activity:
        yield 500
        ended.append(host.loop.now - begin)

    host.cpus[0].start(busy())
    host.loop.at(begin + 200, host.cpus[0].interrupt, 0x40)
    host.run()
    assert noted == [(0, 0x40, begin + 220)]
    assert ended == [500 + 20 + 1000 + 5]


def test_a_second_interrupt_of_a_pending_vector_is_lost_in_the_first() -> None:
    host = machine()
    noted: Noted = []
    for vector in (0x40, 0x50):
        host.handlers[vector] = noting(noted, vector, 1000)
    begin, cpu = host.loop.now, host.cpus[0]
    for when, vector in ((10, 0x40), (100, 0x40), (200, 0x40), (300, 0x50)):
        host.loop.at(begin + when, cpu.interrupt, vector)
    host.run()
    # The first is acknowledged before its handler runs; the two that come meanwhile are one, after the higher 0x50.
    assert [vector for _, vector, _ in noted] == [0x40, 0x50, 0x40]


def test_interrupts_wait_until_they_are_enabled() -> None:
    host = machine()
    noted: Noted = []
    host.handlers[0x40] = noting(noted, 0x40, 1)
    begin, cpu = host.loop.now, host.cpus[0]

    def masked() -> Activity:
        cpu.interrupts = False
        yield 1000
        cpu.interrupts = True
        yield 1000

    cpu.start(masked())
    host.loop.at(begin + 10, cpu.interrupt, 0x40)
    host.run()
    assert noted == [(0, 0x40, begin + 1020)]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 400), min_size=2, max_size=8))
def test_a_ticket_lock_is_taken_in_order_and_its_waiters_serve_interrupts(delays: list[int]) -> None:
    host = machine(len(delays))
    taken: list[int] = []
    noted: Noted = []
    host.handlers[0x40] = noting(noted, 0x40, 7)
    lock, begin = TicketLock(host), host.loop.now
    arrived: list[int] = []

    def take(cpu: Cpu, delay: int) -> Activity:
        yield delay
        arrived.append(cpu.number)
        yield from lock.acquire()
        taken.append(cpu.number)
        yield 1000
        lock.release()

    for cpu, delay in zip(host.cpus, delays, strict=True):
        cpu.start(take(cpu, delay))
        host.loop.at(begin + 600, cpu.interrupt, 0x40)
    host.run()
    assert taken == arrived
    assert {number for number, _, when in noted if when < begin + 700} == set(range(len(delays)))


@pytest.mark.parametrize(
    ("mode", "targets", "writes"),
    [
        ("physical", range(1, 20), 19),
        ("cluster", range(1, 20), 2),
        ("cluster", range(1, 40), 1),
        ("physical", range(1, 40), 1),
    ],
)
def test_ipis_cost_a_write_for_each_target_or_cluster_or_one_for_all_but_self(
    mode: str, targets: range, writes: int
) -> None:
    host = machine(40, ipi_mode=mode)
    noted: Noted = []
    host.handlers[0x40] = noting(noted, 0x40, 1)
    begin, took = host.loop.now, []

    def send(cpu: Cpu) -> Activity:
        yield from host.send(cpu, list(targets), 0x40)
        took.append(host.loop.now - begin)

    host.cpus[0].start(send(host.cpus[0]))
    host.run()
    assert took == [10 * writes]
    assert sorted(number for number, _, _ in noted) == list(targets)


def asked(model: str, what: Callable[[Emulation], dict[int, Activity]], cpus: int = 8) -> list[Request]:
    emulation = Emulation(Host(cpus, model=model))
    for number, activity in what(emulation).items():
        emulation.start(number, activity, foreground=True)
    emulation.run()
    emulation.machine.loop.run(emulation.machine.loop.now)
    return emulation.requests


def calls(emulation: Emulation, number: int, targets: tuple[int, ...], *, count: int = 1, **what: int) -> Activity:
    cpu = emulation.machine.cpus[number]
    for _ in range(count):
        request = emulation.request(cpu, targets, lambda _: 10_000, **what)
        yield from emulation.design.flush(cpu, request) if request.is_flush else emulation.design.call(cpu, request)
    yield 100_000


def overlap(one: Request, other: Request) -> bool:
    return one.send < other.done and other.send < one.done


@pytest.mark.parametrize("model", DESIGNS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 7), threads=st.integers(1, 4), with_self=st.booleans())
def test_every_target_runs_every_function_once(model: str, seed: int, size: int, threads: int, with_self: bool) -> None:
    emulation = Emulation(Host(8, model=model, seed=seed))
    Bench(threads, Masks(size, with_self=with_self), calls=12, work_ns=3000).install(emulation)
    emulation.run()
    assert len(emulation.requests) == 12 * threads
    for one in emulation.requests:
        assert 0 < one.start <= one.send <= one.done
        assert tuple(sorted(one.served)) == one.targets
        for served in one.served.values():
            assert served.left - served.entered >= 7200
            assert served.left <= one.done


def test_legacy_has_one_call_and_one_flush_in_flight() -> None:
    def what(emulation: Emulation) -> dict[int, Activity]:
        return {
            0: calls(emulation, 0, (4, 5), count=5),
            1: calls(emulation, 1, (6, 7), count=5),
            2: calls(emulation, 2, (5, 6), count=5, flush_flags=0x100),
        }

    found = asked("legacy", what)
    for one in found:
        for other in found:
            if one is not other and one.is_flush == other.is_flush:
                assert not overlap(one, other)
    assert any(overlap(one, other) for one in found if one.is_flush for other in found if not other.is_flush)
    assert all(one.carries is None for one in found)


@pytest.mark.parametrize("model", ["lockless", "linux", "fifo"])
def test_without_locks_calls_overlap_and_flushes_ride_on_them(model: str) -> None:
    def what(emulation: Emulation) -> dict[int, Activity]:
        return {
            0: calls(emulation, 0, (4, 5), count=3),
            1: calls(emulation, 1, (6, 7), count=3, flush_flags=0x100),
        }

    found = asked(model, what)
    carried = {one.carries: one for one in found if one.carries is not None}
    flushes = [one for one in found if one.is_flush]
    assert set(carried) == set(flushes)
    for flush in flushes:
        call = carried[flush]
        assert call.func == INVALIDATE_CB
        assert flush.start <= flush.send <= call.start <= call.send <= call.done <= flush.done
        for cpu, served in flush.served.items():
            assert call.served[cpu].entered <= served.entered <= served.left <= call.served[cpu].left
    assert any(overlap(one, other) for one in found if one.initiator == 0 for other in found if other.initiator == 1)


def test_a_call_without_wait_returns_early_and_lockless_pays_in_the_next() -> None:
    def what(emulation: Emulation) -> dict[int, Activity]:
        return {0: calls(emulation, 0, (1, 2), count=2, wait=False)}

    for model in ("legacy", "lockless"):
        first, second = asked(model, what)
        last = max(served.left for served in first.served.values())
        assert first.done < last
        checked_in = max(served.entered for served in first.served.values())
        if model == "legacy":
            assert first.done > checked_in
        else:
            assert first.done < checked_in
            assert second.send > checked_in


def test_a_caller_in_its_own_mask_runs_the_function_after_sending() -> None:
    for model in DESIGNS:
        (one,) = asked(model, lambda emulation: {2: calls(emulation, 2, (1, 2, 3))})
        assert one.send <= one.served[2].entered <= one.served[2].left <= one.done


def queued(model: str) -> list[int]:
    """Whom CPU 7 serves, in order, when it is busy for CPU 5 while 3, then 1, then 2 ask."""

    def what(emulation: Emulation) -> dict[int, Activity]:
        def later(number: int, delay: int) -> Activity:
            yield delay
            yield from calls(emulation, number, (7,))

        return {5: later(5, 1), 3: later(3, 9000), 1: later(1, 11_000), 2: later(2, 13_000)}

    found = asked(model, what)
    return [one.initiator for one in sorted(found, key=lambda one: one.served[7].entered)]


def test_the_order_of_service_is_each_designs_own() -> None:
    assert queued("linux") == [5, 3, 1, 2]
    assert queued("fifo") == [5, 3, 1, 2]
    assert queued("lockless") == [5, 1, 2, 3]
    assert queued("legacy") == [5, 3, 1, 2]


def test_linux_interrupts_only_a_target_whose_queue_was_empty() -> None:
    sent: list[tuple[int, tuple[int, ...]]] = []
    emulation = Emulation(Host(8, model="linux"))
    send = emulation.machine.send

    def spying(cpu: Cpu, targets: list[int], vector: int) -> Generator[int | Signal, None, None]:
        sent.append((cpu.number, tuple(targets)))
        yield from send(cpu, targets, vector)

    emulation.machine.send = spying  # type: ignore[method-assign, assignment]

    def later(number: int, delay: int, targets: tuple[int, ...]) -> Activity:
        yield delay
        yield from calls(emulation, number, targets)

    for number, delay, targets in ((1, 1, (6,)), (2, 9000, (6, 7)), (3, 11_000, (6,))):
        emulation.start(number, later(number, delay, targets), foreground=True)
    emulation.run()
    # CPU 6 takes its queue when it begins to serve; what 2 asks meanwhile is a new queue, what 3 asks joins it.
    assert sent == [(1, (6,)), (2, (6, 7)), (3, ())]


FIXED = [event for event in EVENTS if columns.dtype_of(event.payload) is not None and event.words]


@settings(max_examples=200, deadline=None)
@given(event=st.sampled_from(FIXED), data=st.data())
def test_encode_is_decode_the_other_way_and_what_construct_builds(event: object, data: st.DataObject) -> None:
    from xtrace.parsers.event import Event

    assert isinstance(event, Event)
    words = event.words or 0
    raw = data.draw(st.binary(min_size=8 * words, max_size=8 * words))
    payload = np.frombuffer(raw, "<u4").reshape(2, words)
    found = columns.decode(event, payload)
    assert tuple(found) == columns.names_of(event)
    encoded = columns.encode(event, found, 2)
    again = columns.decode(event, encoded)
    for name, column in found.items():
        assert np.array_equal(again[name], column)
    parsed = event.payload.parse(encoded[0].tobytes())
    assert event.payload.build(parsed) == encoded[0].tobytes()

"""What sets the four designs apart."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xtrace import columns
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.machine import Activity, Cpu, Signal
from xtrace.emulator.models import DESIGNS
from xtrace.emulator.models.design import INVALIDATE_CB
from xtrace.emulator.requests import Request
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.parsers.registry import EVENTS


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

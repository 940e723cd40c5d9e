"""Asynchronous calls: none in the real traces, against the emulator's own account, by hand, and on the screen."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
import pytest
from conftest import Opened, Sample
from hypothesis import given, settings
from hypothesis import strategies as st

import xtrace
from xtrace.emulator.costs import Costs
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.machine import Activity, Cpu, Machine
from xtrace.emulator.models import DESIGNS
from xtrace.emulator.models.lockless import Lockless
from xtrace.emulator.output import made
from xtrace.emulator.plan import Plan, read
from xtrace.emulator.requests import Request
from xtrace.emulator.rings import Tool
from xtrace.emulator.tracepoints import Tracepoints
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.episodes.relations import Model
from xtrace.parsers.vendor import Vendor
from xtrace.questions.asynchronous import After, Asynchronous, OfFunction, asynchronous
from xtrace.questions.paths import Paths
from xtrace.questions.requests import Requests
from xtrace.reports import terminal
from xtrace.reports.sections import asynchronous as paint
from xtrace.selection import Selection

HZ: Final = 10**9
"""A cycle is a nanosecond: nothing is rounded."""

FUNCTIONS: Final = (0x10, 0x20, 0x30)


def requests_of(path: Path, hz: int, selection: Selection | None = None) -> Requests:
    with xtrace.open(path, cpu_hz=hz) as trace:
        return Requests.of(trace.tables, selection or Selection())


def emulated(emulation: Emulation, path: Path) -> Requests:
    path.write_bytes(made(emulation, Tool(ring_pages=4096), "smp")[0])
    return requests_of(path, HZ)


def mixture(emulation: Emulation, number: int, calls: int, *, waits: tuple[bool, ...]) -> Activity:
    """Calls of several functions that wait or not, flushes now and then, of any other CPUs and at times itself."""
    random, cpus = Random(f"{emulation.host.seed}/{number}"), emulation.host.cpus
    cpu = emulation.machine.cpus[number]
    yield 1 + random.randrange(3000)
    for turn in range(calls):
        targets = tuple(sorted(random.sample(range(cpus), random.randint(1, min(cpus, 7)))))
        func, work = random.choice(FUNCTIONS), random.choice((0, 700, 4000, 30_000))
        if turn % 5 == 4 and (others := tuple(one for one in targets if one != number)):
            flush = emulation.request(cpu, others, lambda _: 400, flush_flags=0x100)
            yield from emulation.design.flush(cpu, flush)
        else:
            call = emulation.request(cpu, targets, lambda _, work=work: work, func=func, wait=random.choice(waits))  # type: ignore[misc]
            yield from emulation.design.call(cpu, call)
        yield random.choice((1, 200, 20_000))
    yield 200_000


def at_work(model: Any, vendor: Vendor, cpus: int, seed: int, waits: tuple[bool, ...] = (True, False)) -> Emulation:
    emulation = Emulation(Host(cpus, HZ, model, vendor, seed=seed))
    for number in range(0, cpus, max(1, cpus // 12)):
        emulation.start(number, mixture(emulation, number, 20, waits=waits), foreground=True)
    emulation.run()
    return emulation


def true_functions(emulation: Emulation, model: str) -> dict[str, dict[str, Any]]:
    """By function, told from the emulator's own account."""
    found: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(list))
    for one in emulation.requests:
        if one.wait or one.is_flush or one.carries or not whole(one):
            continue
        times = found[f"0x{one.func:x}"]
        entered = [served.entered for served in one.served.values()]
        left = [served.left for served in one.served.values()]
        times["targets"] += one.targets
        times["check_in"].append(max(entered) - one.done)
        times["complete"].append(max(left) - one.done)
        times["to_begin"] += [time - one.done for time in entered if time > one.done]
        times["unfinished"] += [time - one.done for time in left if time > one.done]
        times["paid"].append(one.done - one.start)
        times["sent"].append(one.send - one.start)
        times["checked_in"].append(max(entered) - one.start)
        times["ended"].append(max(left) - one.start)
        times["held_up"] += []
    if model == "lockless":
        for earlier, later in pairs(emulation):
            if earlier.carries is None and not earlier.wait and whole(earlier) and whole(later):
                start = (later.carries or later).start
                # Under linux only the targets of both count, which shows in SEND.
                until = min(later.send, max(served.entered for served in earlier.served.values()))
                if until > start:
                    found[f"0x{earlier.func:x}"]["held_up"].append(until - start)
    return found


def whole(one: Request) -> bool:
    return bool(one.done) and len(one.served) == len(one.targets) and all(each.left for each in one.served.values())


def pairs(emulation: Emulation) -> Iterator[tuple[Request, Request]]:
    """Requests of one CPU that follow each other; of a flush the call that carries it."""
    by_cpu = defaultdict(list)
    for one in emulation.requests:
        if not one.is_flush or emulation.host.model == "legacy":
            by_cpu[one.initiator].append(one)
    for mine in by_cpu.values():
        yield from pairwise(mine)


def held(found: Asynchronous, true: dict[str, dict[str, Any]]) -> None:
    """The answer is what happened, to the nanosecond."""
    assert {one.name for one in found.functions} == set(true)
    assert found.calls == sum(len(times["paid"]) for times in true.values())
    unfinished = [one.unfinished.sum_ns for one in found.functions]
    assert unfinished == sorted(unfinished, reverse=True)
    for one in found.functions:
        times = true[one.name]
        assert one.calls == len(times["paid"])
        assert one.targets == len(times["targets"])
        for spread, known in ((one.to_check_in, times["check_in"]), (one.to_complete, times["complete"])):
            assert spread["max"] == max(known)
            assert spread["mean"] == pytest.approx(sum(known) / len(known))
            assert spread["p50"] == pytest.approx(float(np.median(known)))
        assert one.all_checked_in == sum(time <= 0 for time in times["check_in"])
        assert one.all_complete == sum(time <= 0 for time in times["complete"])
        assert one.to_begin == after(times["to_begin"])
        assert one.unfinished == after(times["unfinished"])
        assert one.next_held_up == (None if found.model == "unknown" else after(times["held_up"]))
        for mean, name in (
            (one.paid_ns, "paid"),
            (one.sent_ns, "sent"),
            (one.checked_in_ns, "checked_in"),
            (one.complete_ns, "ended"),
        ):
            assert mean == pytest.approx(sum(times[name]) / len(times[name]))


def after(times: list[int]) -> After:
    return After(len(times), sum(times), max(times, default=None))


@pytest.mark.parametrize(
    "name", ["bench8-legacy", "bench8-lockless", "bench-legacy", "bench-lockless", "migrate-lockless", "dom0-stock"]
)
def test_real_traces_hold_none(name: str, sample: Sample) -> None:
    requests = requests_of(sample(name), 60_000_000)
    found = asynchronous(Paths.of(requests))
    assert (found.model, found.calls, found.functions) == (requests.model, 0, ())
    assert list(paint.answer(found)) == []
    shown = paint.section(found)
    assert (shown.text, shown.tables, paint.pictures(found)) == (("No asynchronous call in this trace.",), (), ())
    assert found.df_functions().empty
    assert found.df_spreads().empty


CASES = [
    (model, ("vmx", "svm")[(place + cpus) % 2], cpus, cpus + place)
    for place, model in enumerate(sorted(DESIGNS))
    for cpus in (2, 5, 16, 64, 256)
]


@pytest.mark.parametrize(("model", "vendor", "cpus", "seed"), CASES)
def test_it_is_what_the_emulator_knows(model: str, vendor: Vendor, cpus: int, seed: int, scratch: Path) -> None:
    emulation = at_work(model, vendor, cpus, seed)
    requests = emulated(emulation, scratch)
    assert requests.model == ("legacy" if model == "legacy" else "lockless")
    found = asynchronous(Paths.of(requests))
    held(found, true_functions(emulation, requests.model))
    assert sum(one.unfinished.count for one in found.functions) > 0
    if model == "legacy":
        assert all(one.to_check_in["max"] <= 0 for one in found.functions if one.to_check_in["max"] is not None)
        assert all(one.next_held_up == After(0, 0, None) for one in found.functions)
    elif model != "linux":
        assert sum(one.next_held_up.count for one in found.functions if one.next_held_up) > 0


@settings(max_examples=15)
@given(model=st.sampled_from(sorted(DESIGNS)), cpus=st.integers(2, 12), seed=st.integers(0, 1000))
def test_it_is_so_where_nobody_waits_at_all(model: str, cpus: int, seed: int, scratch: Path) -> None:
    emulation = at_work(model, "svm", cpus, seed, (False,))
    family: Model = "legacy" if model == "legacy" else "lockless"
    found = asynchronous(Paths.of(replace(emulated(emulation, scratch), model=family)))
    held(found, true_functions(emulation, family))
    unknown = asynchronous(Paths.of(replace(emulated(emulation, scratch), model="unknown")))
    held(unknown, true_functions(emulation, "unknown"))


class Watched(Lockless):
    """Notes how long the next request waited for an earlier one."""

    def __init__(self, machine: Machine, trace: Tracepoints) -> None:
        super().__init__(machine, trace)
        self.waited: list[int] = []

    def wait_for(self, request: Request) -> Activity:  # type: ignore[override]
        begin = self.machine.loop.now
        yield from Lockless.wait_for(request)
        # Its own call nobody waits for here.
        if not request.wait and self.machine.loop.now > begin:
            self.waited.append(self.machine.loop.now - begin)


@pytest.mark.parametrize("seed", range(4))
def test_the_next_request_waits_as_long_as_it_is_held_up(seed: int, scratch: Path) -> None:
    """In a host where noticing takes no time, and callers serve nobody meanwhile."""
    emulation = Emulation(Host(12, HZ, Watched, seed=seed, costs=Costs(setup_ns=0, notice_ns=0)))
    random = Random(seed)

    def calling(cpu: Cpu) -> Activity:
        for _ in range(30):
            targets = tuple(sorted(random.sample(range(6, 12), 3)))
            call = emulation.request(cpu, targets, lambda _: 5_000, func=0x10, wait=random.random() < 0.3)
            yield from emulation.design.call(cpu, call)
            yield random.choice((1, 9_000))
        yield 100_000

    for number in range(6):
        emulation.start(number, calling(emulation.machine.cpus[number]), foreground=True)
    emulation.run()
    requests = emulated(emulation, scratch)
    (found,) = asynchronous(Paths.of(requests)).functions
    assert isinstance(emulation.design, Watched)
    waited = emulation.design.waited
    assert found.next_held_up == after(waited)
    assert len(waited) > 20


TEXT: Final = """
      0 cpu0 CALL_START seq=1 func=0x10 wait=0 n_cpus=3
     10 cpu0 CALL_SEND  seq=1 mask=1,2,3
     20 cpu0 CALL_DONE  seq=1
     15 cpu1 CALL_ENTER initiator_cpu=0 seq=1
     18 cpu1 CALL_EXIT  initiator_cpu=0 seq=1
     19 cpu2 CALL_ENTER initiator_cpu=0 seq=1
     70 cpu2 CALL_EXIT  initiator_cpu=0 seq=1
     40 cpu3 CALL_ENTER initiator_cpu=0 seq=1
     45 cpu3 CALL_EXIT  initiator_cpu=0 seq=1
     25 cpu0 CALL_START seq=2 func=0x20 wait=1 n_cpus=1
     42 cpu0 CALL_SEND  seq=2 mask=1
     50 cpu1 CALL_ENTER initiator_cpu=0 seq=2
     60 cpu1 CALL_EXIT  initiator_cpu=0 seq=2
     65 cpu0 CALL_DONE  seq=2
    100 cpu0 CALL_START seq=3 func=0x30 wait=0 n_cpus=1
    101 cpu0 CALL_SEND  seq=3 mask=1
    110 cpu1 CALL_ENTER initiator_cpu=0 seq=3
    112 cpu1 CALL_EXIT  initiator_cpu=0 seq=3
    115 cpu0 CALL_DONE  seq=3
"""


def of_text(opened: Opened, text: str, model: Model, selection: Selection | None = None) -> Asynchronous:
    with opened(text) as trace:
        requests = replace(Requests.of(trace.tables, selection or Selection()), model=model)
    return asynchronous(Paths.of(requests))


def test_one_call_by_hand(opened: Opened) -> None:
    found = of_text(opened, TEXT, "lockless")
    assert (found.model, found.calls) == ("lockless", 2)
    first, second = found.functions
    assert first == OfFunction(
        name="0x10",
        calls=1,
        targets=3,
        to_check_in={"mean": 20.0, "p50": 20.0, "p90": 20.0, "p99": 20.0, "max": 20},
        to_complete={"mean": 50.0, "p50": 50.0, "p90": 50.0, "p99": 50.0, "max": 50},
        all_checked_in=0,
        all_complete=0,
        to_begin=After(1, 20, 20),
        unfinished=After(2, 50 + 25, 50),
        next_held_up=After(1, 15, 15),
        paid_ns=20.0,
        sent_ns=10.0,
        checked_in_ns=40.0,
        complete_ns=70.0,
    )
    assert (second.name, second.all_complete, second.unfinished) == ("0x30", 1, After(0, 0, None))
    assert (second.to_complete["max"], second.next_held_up) == (-3, After(0, 0, None))
    (sentence,) = paint.answer(found)
    assert sentence == (
        "wait = 0: 2 calls of 2 functions; of 0x10 2 of 3 targets were not through when the caller had returned, by "
        "up to 50 ns; 1 next call had to wait for that, 15 ns in all."
    )


def test_the_same_under_a_lock_and_where_nobody_knows(opened: Opened) -> None:
    legacy, unknown = of_text(opened, TEXT, "legacy"), of_text(opened, TEXT, "unknown")
    assert [one.next_held_up for one in legacy.functions] == [After(0, 0, None)] * 2
    assert [one.next_held_up for one in unknown.functions] == [None, None]
    assert next(paint.answer(legacy)).endswith("by up to 50 ns; no next call was delayed.")
    assert next(paint.answer(unknown)).endswith("by up to 50 ns.")
    assert paint.section(unknown).tables[-1].rows[0][-3].text == "–"
    assert unknown.df_functions()["next_held_up"].isna().all()
    for one, other in zip(legacy.functions, unknown.functions, strict=True):
        assert replace(one, next_held_up=None) == other


def test_only_what_is_selected_counts(opened: Opened) -> None:
    found = of_text(opened, TEXT, "lockless", Selection(from_ns=90))
    assert [(one.name, one.calls) for one in found.functions] == [("0x30", 1)]
    assert next(paint.answer(found)) == (
        "wait = 0: 1 call of 1 function; all targets were through when their callers returned; no next call was "
        "delayed."
    )
    assert of_text(opened, TEXT, "lockless", Selection(cpus=frozenset({1}))).calls == 0


def test_what_others_are_held_up_by_does_not_count(opened: Opened) -> None:
    """The second call waits for the first, which is not selected."""
    text = TEXT.replace("func=0x30", "func=0x10")
    assert [one.next_held_up for one in of_text(opened, text, "lockless").functions] == [After(1, 15, 15)]
    (found,) = of_text(opened, text, "lockless", Selection(from_ns=25)).functions
    assert (found.calls, found.next_held_up) == (1, After(0, 0, None))


@settings(max_examples=25)
@given(cut=st.floats(0, 1), model=st.sampled_from(["legacy", "lockless"]))
def test_a_trace_cut_anywhere_still_answers(cut: float, model: str, scratch: Path) -> None:
    content = made(at_work(model, "vmx", 6, 3), Tool(ring_pages=1), "smp")[0]
    scratch.write_bytes(content[int(cut * len(content)) // 4 * 4 :])
    try:
        requests = requests_of(scratch, HZ)
    except xtrace.errors.XtraceError:
        return
    found = asynchronous(Paths.of(requests))
    mine = requests.chosen & ~requests.wait
    assert found.calls == mine.sum()
    for one in found.functions:
        assert one.unfinished.count >= one.to_begin.count
        assert one.sent_ns <= one.paid_ns
        assert one.checked_in_ns <= one.complete_ns
    json.dumps(asdict(found), allow_nan=False)
    terminal.chapter(terminal.console(110), paint.section(found))


def test_absurd_times_are_no_traceback(opened: Opened) -> None:
    requests = of_requests(opened)
    services = replace(requests.services, enter=requests.services.enter + (1 << 62))
    asynchronous(Paths.of(replace(requests, services=services, done=requests.done - (1 << 62))))


def of_requests(opened: Opened) -> Requests:
    with opened(TEXT) as trace:
        return replace(Requests.of(trace.tables, Selection()), model="lockless")


@pytest.mark.parametrize("model", ["legacy", "lockless"])
def test_the_screen(model: str, scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = asynchronous(Paths.of(emulated(at_work(model, "svm", 16, 7), scratch)))
    terminal.chapter(terminal.console(110), paint.section(found))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 110
    assert "…" not in printed
    sentence = next(paint.answer(found))
    assert sentence in " ".join(printed.split())
    assert f"wait = 0: {found.calls} calls of 3 functions; of {found.functions[0].name} " in sentence
    (picture,) = paint.pictures(found)
    assert picture.svg.startswith("<svg")
    assert all(one.name in picture.svg for one in found.functions)
    assert json.loads(json.dumps(asdict(found))) == json.loads(json.dumps(asdict(found), allow_nan=False))


def test_frames(opened: Opened) -> None:
    found = of_text(opened, TEXT, "lockless")
    functions, spreads = found.df_functions(), found.df_spreads()
    assert functions.dtypes.astype(str).to_dict() == {
        "name": "str",
        "calls": "int64",
        "targets": "int64",
        "all_checked_in": "int64",
        "all_complete": "int64",
        "to_begin": "Int64",
        "to_begin_ns": "Int64",
        "to_begin_max_ns": "Int64",
        "unfinished": "Int64",
        "unfinished_ns": "Int64",
        "unfinished_max_ns": "Int64",
        "next_held_up": "Int64",
        "next_held_up_ns": "Int64",
        "next_held_up_max_ns": "Int64",
        "paid_ns": "float64",
        "sent_ns": "float64",
        "checked_in_ns": "float64",
        "complete_ns": "float64",
    }
    first = functions[["to_begin", "unfinished_ns", "unfinished_max_ns", "next_held_up_ns"]].to_numpy()[0]
    assert first.tolist() == [1, 75, 50, 15]
    assert functions["unfinished_max_ns"].isna().tolist() == [False, True]
    assert spreads[["name", "until", "max"]].to_numpy().tolist() == [
        ["0x10", "check-in", 20.0],
        ["0x10", "end", 50.0],
        ["0x30", "check-in", -5.0],
        ["0x30", "end", -3.0],
    ]


def test_a_workload_file_can_ask_for_such_calls(tmp_path: Path) -> None:
    path = tmp_path / "load.toml"
    path.write_text("[host]\ncpus = 6\n[bench]\nthreads = 2\ncalls = 5\nwork_ns = 9_000\nwait = false\n")
    plan = read(str(path))
    assert plan.bench == Bench(2, Masks(1), 5, work_ns=9000, wait=False)
    assert all(not one.wait for one in plan.run().requests)
    assert all(one.wait for one in Plan(Host(4), bench=Bench(calls=3)).run().requests)

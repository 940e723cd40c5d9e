"""`xtrace check`: nothing on real traces and on sound designs, and each broken promise with the records that show it."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import broken
import pyarrow.parquet as pq
import pytest
from captures import record
from conftest import RECORDS, SAMPLES, Opened, Sample
from damage import pieces_of
from hypothesis import given, settings
from hypothesis import strategies as st
from planting import Noted, Planted
from strategies import Window, build_capture

import xtrace
from xtrace.cli_check import check as command
from xtrace.cli_common import TableFormat
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.models import DESIGNS
from xtrace.emulator.models.design import Design
from xtrace.emulator.models.legacy import Legacy
from xtrace.emulator.output import made
from xtrace.emulator.plan import Plan
from xtrace.emulator.requests import Request
from xtrace.emulator.rings import Tool
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.emulator.workloads.evacuate import Evacuate
from xtrace.emulator.workloads.idle import Idle
from xtrace.errors import UsageError, ViolationError
from xtrace.parsers.fields import u32, u64
from xtrace.parsers.registry import EVENTS
from xtrace.protocol import Checked, check
from xtrace.protocol.rules import RULES
from xtrace.protocol.verdict import Record, Violation
from xtrace.selection import Selection
from xtrace.trace_file import TraceFile

HZ: Final = dict.fromkeys(RECORDS, 2_596_100_000) | dict.fromkeys(
    ("bench8-legacy", "bench8-lockless", "vmx-legacy"), 60_000_000
)
CHECKED: Final = {
    "dom0-stock": ("unknown", 0, 0, {}),
    "migrate-stock": ("unknown", 0, 0, {}),
    "migrate-legacy": ("legacy", 72, 2_754, {"unfinished where their CPU's records end": 1}),
    "migrate-lockless": ("lockless", 2_214, 2_155, {}),
    "bench-legacy": ("legacy", 600, 988, {}),
    "bench-lockless": ("lockless", 1_555, 955, {"unfinished where their CPU's records end": 2}),
    "bench8-legacy": ("legacy", 1_282, 0, {}),
    "bench8-lockless": ("lockless", 1_282, 0, {}),
    "vmx-legacy": ("unknown", 3, 0, {}),
}
"""Of the real traces: the design, calls and flushes checked, and those that are not judged."""


def counts(found: Checked) -> dict[str, int]:
    """Violations by rule, without the rules that hold."""
    return {one.rule: one.count for one in found.rules if one.count}


def violations(found: Checked, rule: str) -> tuple[Violation, ...]:
    """Those of a rule."""
    return next(one.violations for one in found.rules if one.rule == rule)


def held_by(data: bytes, one: Record) -> bool:
    """Whether these are the bytes of the record, at its offset."""
    assert one.offset is not None
    header = u32.parse(data[one.offset : one.offset + 4])
    event = next(event for event in EVENTS if event.name == one.event and event.event_id == header & 0x0FFFFFFF)
    payload = data[one.offset + 12 :]
    words = {name: value for name, value in one.fields.items() if name != "func_name"}
    parsed = event.payload.parse(payload) if words else {}
    shown = dict(parsed.items()) | dict(parsed.get("flags", {}))  # type: ignore[union-attr]
    return u64.parse(data[one.offset + 4 :]) == one.tsc and all(shown[name] == value for name, value in words.items())


class TestRealTraces:
    """Nothing is found in them."""

    def test_no_violation(self, trace_name: str, trace: Path) -> None:
        with xtrace.open(trace, cpu_hz=HZ[trace_name]) as source:
            found = check(source)
            assert counts(found) == {}
            assert (found.model, found.calls, found.flushes, found.not_judged) == CHECKED[trace_name]
            assert found.model == source.tables.model
            assert found.clocks == ()
            assert found.sentence().startswith("no violation: " if found.calls else "nothing to check: ")

    @pytest.mark.parametrize(("name", "early"), [("bench-lockless", 1), ("bench8-lockless", 4)])
    def test_early_enters_are_allowed_under_lockless_only(self, sample: Sample, name: str, early: int) -> None:
        with xtrace.open(sample(name), cpu_hz=HZ[name]) as source:
            assert counts(check(source, "unknown")) == {}
            found = check(source, "legacy")
            assert counts(found)["sent-first"] == early
            # Under a lock none of this could be; the order in which calls go out is no matter then.
            assert counts(found)["lock-holders"] > 300

    @pytest.mark.parametrize("name", ["bench-legacy", "bench8-legacy"])
    def test_a_start_before_another_is_no_turn_yet(self, sample: Sample, name: str) -> None:
        with xtrace.open(sample(name), cpu_hz=HZ[name]) as source:
            calls = source.df_episodes().query("kind == 'call'").sort_values("send_ns")
            starts, latest = calls.start_ns.tolist(), calls.start_ns.cummax().tolist()
            passed = [place for place in range(1, len(starts)) if latest[place - 1] > starts[place]]
            assert len(passed) == 1
            assert counts(check(source)) == {}

    def test_in_a_dataset(self, sample: Sample, tmp_path: Path) -> None:
        name = "bench-lockless"
        with xtrace.open(sample(name), cpu_hz=HZ[name]) as source:
            stored = xtrace.store(source, tmp_path / "data")
            of_file = check(source, "legacy")
        with stored:
            found = check(stored)
            assert (found.calls, found.flushes, found.not_judged) == CHECKED[name][1:]
            assert counts(found) == {}
            of_stored = check(stored, "legacy")
        assert counts(of_stored) == counts(of_file)
        numbers = {}
        for path in (tmp_path / "data").glob("*/events/*/*.parquet"):
            rows = pq.read_table(path, columns=["record", "tsc", "cpu"]).to_pylist()
            numbers |= {row["record"]: (row["tsc"], row["cpu"]) for row in rows}
        for one, other in zip(of_file.rules, of_stored.rules, strict=True):
            for mine, theirs in zip(one.violations, other.violations, strict=True):
                for record, same in zip(mine.records, theirs.records, strict=True):
                    assert (same.tsc, same.cpu, same.fields) == (record.tsc, record.cpu, record.fields)
                    assert same.offset is None
                    assert same.number is not None
                    assert numbers[same.number] == (record.tsc, record.cpu)


Parts = dict[str, list[Noted]]


class Planter:
    """Ways to break a promise in a trace; each returns the records that must be shown, None where it finds no place."""

    def __init__(self, planted: Planted, random: Random) -> None:
        self.planted = planted
        self.random = random
        self.requests = planted.requests()
        last = {key[:2]: key for key in self.requests}
        self.whole = [
            key
            for key, parts in self.requests.items()
            if {"START", "SEND", "DONE"} <= parts.keys()
            and len(parts.get("ENTER", ())) == len(parts.get("EXIT", ())) > 0
            and last[key[:2]] != key
        ]
        self.calls = [key for key in self.whole if key[0] == "call"]

    def any(self) -> Parts:
        return self.requests[self.random.choice(self.whole)]

    def served(self) -> tuple[Parts, Noted, Noted]:
        parts = self.any()
        enter = self.random.choice(parts["ENTER"])
        return parts, enter, next(one for one in parts["EXIT"] if one.cpu == enter.cpu)

    def done_early(self) -> list[Noted]:
        parts = self.any()
        left = max(parts["EXIT"], key=lambda one: one.tsc)
        self.planted.move(parts["DONE"][0], left.tsc - 1)
        return [parts["DONE"][0], left]

    def exit_late(self) -> list[Noted] | None:
        parts, _, left = self.served()
        done = parts["DONE"][0]
        if any(one.cpu == left.cpu and left.tsc < one.tsc <= done.tsc + 1 for one in self.planted.noted):
            return None
        self.planted.move(left, done.tsc + 1)
        return [done, left]

    def forgotten(self) -> list[Noted]:
        parts, enter, left = self.served()
        self.planted.hide(enter)
        self.planted.hide(left)
        return [parts["DONE"][0]]

    def no_exit(self) -> list[Noted]:
        _, enter, left = self.served()
        self.planted.hide(left)
        return [enter]

    def no_enter(self) -> list[Noted]:
        _, enter, left = self.served()
        self.planted.hide(enter)
        return [left]

    def swapped(self) -> list[Noted]:
        _, enter, left = self.served()
        self.planted.swap(enter, left)
        return [enter, left]

    def no_done(self) -> list[Noted]:
        parts = self.any()
        self.planted.hide(parts["DONE"][0])
        return [parts["SEND"][-1]]

    def other_done(self) -> list[Noted]:
        parts = self.any()
        self.planted.word(parts["DONE"][0], 0, parts["DONE"][0].fields["seq"] + 1000)
        return [parts["SEND"][-1]]

    def no_start(self) -> list[Noted]:
        parts = self.any()
        self.planted.hide(parts["START"][0])
        return [parts["SEND"][0]]

    def other_start(self) -> list[Noted]:
        start = self.any()["START"][0]
        self.planted.word(start, 0, start.fields["seq"] + 77)
        return [start]

    def no_send(self) -> list[Noted]:
        parts = self.any()
        self.planted.hide(parts["SEND"][0])
        return [parts["START"][0], parts["DONE"][0]]

    def send_first(self) -> list[Noted]:
        parts = self.any()
        self.planted.swap(parts["START"][0], parts["SEND"][0])
        return [parts["START"][0], parts["SEND"][0]]

    def done_first(self) -> list[Noted]:
        parts = self.any()
        self.planted.move(parts["DONE"][0], parts["SEND"][0].tsc - 1)
        return [parts["DONE"][0], parts["SEND"][0]]

    def enter_before_start(self) -> list[Noted]:
        parts, enter, _ = self.served()
        self.planted.move(enter, parts["START"][0].tsc - 1)
        return [enter, parts["START"][0]]

    def enter_before_send(self) -> list[Noted]:
        parts, enter, _ = self.served()
        self.planted.move(enter, parts["SEND"][0].tsc - 1)
        return [enter, parts["SEND"][0]]

    def unasked(self) -> list[Noted]:
        _, enter, _ = self.served()
        self.planted.word(enter, 1, enter.fields["seq"] + 5000)
        return [enter]

    def no_such_cpu(self) -> list[Noted]:
        _, enter, _ = self.served()
        self.planted.word(enter, 0, 0x10_000)
        return [enter]

    def left_out(self) -> list[Noted]:
        parts, enter, _ = self.served()
        send = parts["SEND"][0]
        self.planted.word(send, 2, send.fields["mask"] & ~(1 << enter.cpu))
        return [enter, send]

    def one_more(self) -> list[Noted] | None:
        parts = self.requests[self.random.choice(self.calls)]
        send = parts["SEND"][0]
        free = [cpu for cpu in range(8) if not send.fields["mask"] >> cpu & 1]
        if not free:
            return None
        self.planted.word(send, 2, send.fields["mask"] | 1 << free[0])
        return [send, parts["START"][0]]

    def twice(self) -> list[Noted]:
        _, enter, left = self.served()
        self.planted.become(left, enter.event, enter.fields["initiator_cpu"], enter.fields["seq"])
        return [enter, left]

    def entangled(self) -> list[Noted] | None:
        cpu = self.random.choice([one.cpu for one in self.planted.noted if one.step == "ENTER"])
        mine = [one for one in self.planted.noted if one.cpu == cpu and one.step in ("ENTER", "EXIT")]
        places = [
            place
            for place in range(len(mine) - 2)
            if [one.event for one in mine[place : place + 3]] == ["SMP_CALL_ENTER", "SMP_CALL_EXIT", "SMP_CALL_ENTER"]
        ]
        if not places:
            return None
        place = self.random.choice(places)
        self.planted.swap(mine[place + 1], mine[place + 2])
        return mine[place + 1 : place + 3]

    def two_holders(self) -> list[Noted] | None:
        order = sorted(self.calls, key=lambda key: self.requests[key]["SEND"][0].tsc)
        place = self.random.randrange(1, len(order))
        held, other = (self.requests[key] for key in order[place - 1 : place + 1])
        if other["START"][0].tsc >= held["DONE"][0].tsc - 1:
            return None
        self.planted.move(other["SEND"][0], held["DONE"][0].tsc - 1)
        return [other["SEND"][0], held["DONE"][0]]

    def passed(self) -> list[Noted] | None:
        """A call starts so early that those which went out before it should have come after it."""
        order = sorted(self.calls, key=lambda key: self.requests[key]["SEND"][0].tsc)
        for place in self.random.sample(range(4, len(order)), len(order) - 4):
            parts, before, first = (self.requests[order[one]] for one in (place, place - 1, place - 4))
            start = parts["START"][0]
            own = max(
                (one.tsc for one in self.planted.noted if one.cpu == start.cpu and one.tsc < start.tsc), default=0
            )
            begin = max(own + 1, first["SEND"][0].tsc)
            if before["START"][0].tsc - begin > self.planted.hz // 10_000:
                self.planted.move(start, begin)
                return [start, parts["SEND"][0]]
        return None

    def reused(self) -> list[Noted] | None:
        key = self.random.choice(self.calls)
        parts, after = self.requests[key], self.requests.get((key[0], key[1], key[2] + 1), {})
        left = max(parts["EXIT"], key=lambda one: one.tsc)
        if "SEND" not in after or left.cpu == key[1]:
            return None
        self.planted.move(left, after["SEND"][0].tsc + 1)
        return [left, after["SEND"][0]]

    def carrier(self) -> tuple[Parts, Parts] | None:
        """A flush, and the call that carries it."""
        flushes = [key for key in self.whole if key[0] == "flush"]
        if not flushes:
            return None
        flush = self.requests[self.random.choice(flushes)]
        start = flush["START"][0]
        inside = (one for one in self.planted.noted if one.cpu == start.cpu and one.tsc > start.tsc)
        return flush, self.requests[next(one.key for one in inside if one.event == "SMP_CALL_START")]

    def flush_done_first(self) -> list[Noted] | None:
        """DONE of the flush before that of the call."""
        if (found := self.carrier()) is None:
            return None
        flush, call = found
        self.planted.move(flush["DONE"][0], call["DONE"][0].tsc - 1)
        return [flush["DONE"][0], call["DONE"][0]]

    def flush_outside(self) -> list[Noted] | None:
        """EXIT of the flush after that of the call."""
        if (found := self.carrier()) is None:
            return None
        left, outer = (parts["EXIT"][0] for parts in found)
        self.planted.swap(left, outer)
        return [left, outer]


PLANTED: Final = (
    ("answers", "done_early"),
    ("answers", "exit_late"),
    ("answers", "forgotten"),
    ("enter-exit", "no_exit"),
    ("enter-exit", "no_enter"),
    ("enter-exit", "swapped"),
    ("ends", "no_done"),
    ("ends", "other_done"),
    ("order", "no_start"),
    ("order", "other_start"),
    ("order", "no_send"),
    ("order", "send_first"),
    ("order", "done_first"),
    ("asked-first", "enter_before_start"),
    ("asked-first", "unasked"),
    ("asked-first", "no_such_cpu"),
    ("in-mask", "left_out"),
    ("mask", "one_more"),
    ("once", "twice"),
    ("nesting", "entangled"),
)
"""The rule that a change breaks, whatever the design, and the change."""
PLANTED_BY_DESIGN: Final = {
    "legacy": (("sent-first", "enter_before_send"), ("lock-holders", "two_holders"), ("lock-order", "passed")),
    "lockless": (("descriptor", "reused"), ("carried", "flush_done_first"), ("carried", "flush_outside")),
}
SKIPPED: Final = {("bench-legacy", "lock-order"), ("bench8-lockless", "carried")}
"""Nothing proves on a slow host that a CPU was passed; and these calls carry nothing."""
CHANGES: Final = [
    (name, rule, change)
    for name in ("bench8-legacy", "bench8-lockless", "bench-legacy", "bench-lockless")
    for rule, change in (*PLANTED, *PLANTED_BY_DESIGN[name.rpartition("-")[2]])
    if (name, rule) not in SKIPPED
]
TRIES: Final = 20


@pytest.fixture(scope="module")
def bases(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Planted]:
    """Real traces by name, to be changed."""
    folder, kept = tmp_path_factory.mktemp("planted"), dict[str, Planted]()

    def base(name: str) -> Planted:
        if name not in kept:
            kept[name] = Planted(sample(name).read_bytes(), folder / f"{name}.bin", HZ[name])
        return kept[name].fresh()

    return base


class TestPlanted:
    """Bytes of real traces are changed so that a promise is broken, a few times each."""

    @pytest.mark.parametrize(("name", "rule", "change"), CHANGES)
    def test_each_is_found(self, bases: Callable[[str], Planted], name: str, rule: str, change: str) -> None:
        done = 0
        for seed in range(TRIES):
            planted = bases(name)
            shown = getattr(Planter(planted, Random(seed)), change)()
            if shown is None:
                continue
            with planted.open() as source:
                found = check(source)
            assert found.model == name.rpartition("-")[2]
            data = planted.data
            for one in found.rules:
                assert all(held_by(data, record) for violation in one.violations for record in violation.records)
            offsets = [{record.offset for record in violation.records} for violation in violations(found, rule)]
            assert any({record.at for record in shown} <= places for places in offsets), (seed, counts(found), shown)
            done += 1
            if done == 2:
                return
        pytest.fail(f"{done} places in {TRIES} tries")


Key = tuple[str, int, int]
Truth = Callable[[Emulation], set[Key]]


def key_of(one: Request) -> Key:
    return "flush" if one.is_flush else "call", one.initiator, one.seq


def flagged(found: Checked, rule: str) -> set[Key]:
    """Requests that a rule found."""
    return {(one.kind, one.initiator, one.seq) for one in violations(found, rule)}


def answered_late(emulation: Emulation) -> set[Key]:
    """Done before a target had left."""
    return {
        key_of(one)
        for one in emulation.requests
        if one.done and any(0 < one.done < served.left or not served.left for served in one.served.values())
    }


def overlapped(emulation: Emulation) -> set[Key]:
    """Sent before one sent earlier was done."""
    sent = sorted((one for one in emulation.requests if one.send), key=lambda one: one.send)
    return {key_of(one) for place, one in enumerate(sent) if any(other.done > one.send for other in sent[:place])}


def entered_early(emulation: Emulation) -> set[Key]:
    """Entered before it was sent."""
    return {key_of(one) for one in emulation.requests for served in one.served.values() if served.entered < one.send}


def served_by_others(emulation: Emulation) -> set[Key]:
    """Served by a CPU that was not asked."""
    return {key_of(one) for one in emulation.requests if one.served.keys() - set(one.targets)}


def all_served(emulation: Emulation) -> set[Key]:
    """Served at all."""
    return {key_of(one) for one in emulation.requests if one.served}


def nested(emulation: Emulation) -> set[Key]:
    """A target entered it while it was inside of another, as far as it left both."""
    spans: dict[int, list[tuple[int, int, Key]]] = {}
    for one in emulation.requests:
        for cpu, served in one.served.items():
            if served.left:
                spans.setdefault(cpu, []).append((served.entered, served.left, key_of(one)))
    return {
        key for mine in spans.values() for begin, _, key in mine if any(first < begin < last for first, last, _ in mine)
    }


def passed_over(emulation: Emulation) -> set[Key]:
    """Another of its kind started later, and went out before it or before the trace ended without it."""
    started = [one for one in emulation.requests if one.start]
    return {
        key_of(one)
        for one in started
        if any(
            other.start > one.start and other.send and not 0 < one.send < other.send and other.is_flush == one.is_flush
            for other in started
        )
    }


def forgotten(emulation: Emulation) -> set[Key]:
    """Done, and a target never served it."""
    return {key_of(one) for one in emulation.requests if one.done and set(one.targets) - one.served.keys()}


def never_done(emulation: Emulation) -> set[Key]:
    """Sent and not done."""
    return {key_of(one) for one in emulation.requests if one.send and not one.done}


def unanswered(emulation: Emulation) -> set[Key]:
    """The same CPU sent its next one to a target that had not answered this one."""
    by_cpu: dict[int, list[Request]] = {}
    for one in emulation.requests:
        by_cpu.setdefault(one.initiator, []).append(one)
    return {
        key_of(one)
        for mine in by_cpu.values()
        for one, other in pairwise(mine)
        for cpu in set(one.targets) & set(other.targets)
        if other.send and (cpu not in one.served or one.served[cpu].entered > other.send)
    }


BENCH: Final = Bench(4, Masks(3), 40, work_ns=20_000)
LATER: Final = Bench(4, Masks(3), 40, work_ns=20_000, wait=False)

BROKEN: Final[list[tuple[type[Design], str, Truth, Bench | Evacuate, bool]]] = [
    (broken.NoLock, "lock-holders", overlapped, BENCH, True),
    (broken.AskFirst, "sent-first", entered_early, BENCH, True),
    (broken.EarlyLegacy, "answers", answered_late, BENCH, True),
    (broken.EarlyLegacy, "answers", answered_late, Evacuate(2, 2, pages=500), True),
    (broken.EarlyLockless, "answers", answered_late, BENCH, True),
    (broken.EarlyLockless, "answers", answered_late, Evacuate(2, 2, pages=500), True),
    (broken.Eager, "in-mask", served_by_others, BENCH, True),
    (broken.Stutter, "once", all_served, BENCH, True),
    (broken.Interruptible, "nesting", nested, BENCH, True),
    (broken.Silent, "ends", never_done, BENCH, True),
    (broken.Forgetful, "answers", forgotten, BENCH, False),
    (broken.Hasty, "descriptor", unanswered, LATER, False),
    (broken.LifoLegacy, "lock-order", passed_over, BENCH, False),
    (broken.RandomLegacy, "lock-order", passed_over, BENCH, False),
]
"""A design, the rule that it breaks, which requests do, the load, and whether all of them can be proved."""


def ran(host: Host, load: Bench | Evacuate, path: Path, tool: Tool | None = None) -> Emulation:
    """Emulate and write it."""
    evacuate, bench = (load, None) if isinstance(load, Evacuate) else (None, load)
    plan = Plan(host, evacuate, bench, Idle(tick_ns=300_000), tool or Tool(), 0.01)
    emulation = plan.run()
    path.write_bytes(made(emulation, plan.tool, "all")[0])
    return emulation


class TestBrokenDesigns:
    """What a design does wrong is found, and held against what the emulator knows of it."""

    @pytest.mark.parametrize("seed", [1, 2])
    @pytest.mark.parametrize(("design", "rule", "truth", "load", "all_of_it"), BROKEN)
    def test_is_found(
        self,
        tmp_path: Path,
        design: type[Design],
        rule: str,
        truth: Truth,
        load: Bench | Evacuate,
        all_of_it: bool,
        seed: int,
    ) -> None:
        path = tmp_path / "trace.bin"
        host = Host(8, model=design, vendor="svm", seed=seed)
        expected = truth(ran(host, load, path))
        with TraceFile(path, cpu_hz=host.hz) as source:
            found = check(source, "legacy" if issubclass(design, Legacy) else "lockless")
            # What rides on a call shows on both.
            mine = flagged(found, rule)
            carriers = {key for key in mine if key not in expected and key[0] == "call"}
            assert carriers == set() or isinstance(load, Evacuate)
            assert mine - carriers <= expected
            assert mine - carriers == expected if all_of_it else mine
            assert found.clocks == ()
            first = check(source, found.model, at_most=3)
        assert [(one.rule, one.count) for one in first.rules] == [(one.rule, one.count) for one in found.rules]
        assert [one.violations for one in first.rules] == [one.violations[:3] for one in found.rules]
        data = path.read_bytes()
        for one in found.rules:
            assert all(held_by(data, record) for violation in one.violations for record in violation.records)

    def test_of_what_is_forgotten_all_is_found_or_not_judged(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.bin"
        host = Host(8, model=broken.Forgetful, vendor="svm")
        expected = forgotten(ran(host, BENCH, path))
        with TraceFile(path, cpu_hz=host.hz) as source:
            found = check(source, "lockless")
        assert (
            len(expected - flagged(found, "answers")) == found.not_judged["with a target whose records do not show it"]
        )
        assert len(flagged(found, "answers")) > 0.9 * len(expected)

    def test_done_without_waiting_for_a_check_in(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.bin"
        host = Host(8, model=broken.NoCheckIn, vendor="svm")
        emulation = ran(host, LATER, path)
        expected = {
            key_of(one)
            for one in emulation.requests
            if any(served.entered > one.done > 0 for served in one.served.values())
        }
        with TraceFile(path, cpu_hz=host.hz) as source:
            assert flagged(check(source, "legacy"), "answers") == expected != set()

    def test_flushes_that_no_call_carries(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.bin"
        host = Host(8, model=broken.OwnWay, vendor="svm")
        emulation = ran(host, Evacuate(2, 2, pages=500), path)
        done = {key_of(one) for one in emulation.requests if one.done}
        with TraceFile(path, cpu_hz=host.hz) as source:
            found = check(source, "lockless")
        assert flagged(found, "carried") == done
        assert {one.rule for one in found.rules if one.count} == {"carried"}


class TestSoundDesigns:
    """Nothing is found in what sound designs do, however little of it the trace shows."""

    @pytest.mark.parametrize("vendor", ["vmx", "svm"])
    @pytest.mark.parametrize("cpus", [2, 8, 33, 64])
    @pytest.mark.parametrize("model", sorted(DESIGNS))
    def test_no_violation(self, tmp_path: Path, model: str, cpus: int, vendor: str) -> None:
        own = "legacy" if model == "legacy" else "lockless"
        for seed in range(3):
            size = Random(seed).randint(1, cpus - 1)
            bench = Bench(min(cpus, 5), Masks(size, with_self=seed == 1), 12, work_ns=(700, 20_000, 0)[seed])
            host = Host(cpus, model=model, vendor=vendor, seed=seed)  # type: ignore[arg-type]
            ran(host, bench, tmp_path / "trace.bin")
            with TraceFile(tmp_path / "trace.bin", cpu_hz=host.hz) as source:
                found = check(source)
                assert (found.model, counts(found)) in ((own, {}), ("unknown", {}))
                assert counts(check(source, own)) == {}  # type: ignore[arg-type]
                assert found.calls > 0

    @given(data=st.data())
    @settings(max_examples=60)
    def test_whatever_the_load_and_the_rings(self, scratch: Path, data: st.DataObject) -> None:
        cpus = data.draw(st.integers(2, 24))
        model = data.draw(st.sampled_from(sorted(DESIGNS)))
        host = Host(
            cpus,
            model=model,
            vendor=data.draw(st.sampled_from(("vmx", "svm"))),
            seed=data.draw(st.integers(0, 1 << 32)),
            first_seq=data.draw(st.sampled_from((1, 77, (1 << 32) - 3))),
        )
        bench = Bench(
            data.draw(st.integers(1, min(6, cpus))),
            Masks(data.draw(st.integers(1, cpus - 1)), with_self=data.draw(st.booleans())),
            data.draw(st.integers(1, 30)),
            work_ns=data.draw(st.sampled_from((0, 700, 20_000, 500_000))),
            think_ns=data.draw(st.sampled_from((0, 200, 3_000))),
            wait=data.draw(st.booleans()),
            targets=data.draw(st.sampled_from(("guest", "pv", "idle", "mixed"))),
        )
        evacuated = cpus > 4 and data.draw(st.booleans())
        tool = Tool(
            data.draw(st.sampled_from((1, 2, 32))), data.draw(st.sampled_from((1_500_000, 100_000_000))), 700_000
        )
        ran(host, Evacuate(1, 2, pages=500) if evacuated else bench, scratch, tool)
        with TraceFile(scratch, cpu_hz=host.hz) as source:
            own = "legacy" if model == "legacy" else "lockless"
            assert counts(check(source)) == counts(check(source, own)) == {}  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["bench8-legacy", "bench-lockless"])
    def test_whatever_is_cut_off(self, sample: Sample, tmp_path: Path, name: str) -> None:
        data, random = sample(name).read_bytes(), Random(name)
        for _ in range(25):
            begin, end = sorted(random.randrange(0, len(data), 4) for _ in range(2))
            self.check(tmp_path / "trace.bin", data[begin:end], name)

    @pytest.mark.parametrize("name", ["bench8-lockless", "bench-legacy"])
    def test_whatever_is_damaged(self, sample: Sample, tmp_path: Path, name: str) -> None:
        data, random = sample(name).read_bytes(), Random(name)
        for size in (1, 100, 4096) * 8:
            begin = random.randrange(len(data))
            self.check(tmp_path / "trace.bin", data[:begin] + data[begin + size :], name)
            self.check(tmp_path / "trace.bin", data[:begin] + bytes(4096) + data[begin + 4096 :], name)

    @pytest.mark.parametrize("name", ["bench8-legacy", "bench-lockless"])
    def test_whatever_cpu_was_not_traced(self, sample: Sample, tmp_path: Path, name: str) -> None:
        data = sample(name).read_bytes()
        pieces = pieces_of(data)
        for cpu in range(8):
            rest = b"".join(data[one.begin : one.end] for one in pieces if one.cpu != cpu)
            self.check(tmp_path / "trace.bin", rest, name)

    @pytest.mark.parametrize("name", ["bench8-legacy", "bench-lockless"])
    def test_captures_of_one_host_one_behind_the_other(self, sample: Sample, tmp_path: Path, name: str) -> None:
        data, random = sample(name).read_bytes(), Random(name)
        windows = pieces_of(data)
        for _ in range(15):
            # From one round of polling to a later one.
            rounds = [one.begin for before, one in pairwise(windows) if one.cpu <= before.cpu]
            first, then = sorted(random.sample(rounds, 2))
            self.check(tmp_path / "trace.bin", data[:first] + data[then:], name)

    def check(self, path: Path, data: bytes, name: str) -> None:
        """Nothing is found in these bytes, whichever design is said to have written them."""
        path.write_bytes(data)
        try:
            with TraceFile(path, cpu_hz=HZ[name]) as source:
                for model in (None, name.rpartition("-")[2]):
                    found = check(source, model)  # type: ignore[arg-type]
                    assert counts(found) == {}
        except xtrace.XtraceError as error:
            assert error.exit_code == 3  # noqa: PT017 nothing was left that could be read

    def test_two_captures_in_a_file_and_in_a_dataset(self, sample: Sample, tmp_path: Path) -> None:
        name, path = "bench8-lockless", tmp_path / "trace.bin"
        path.write_bytes(sample(name).read_bytes() * 2)
        with TraceFile(path, cpu_hz=HZ[name]) as source:
            assert source.survey.captures == 2
            found = check(source)
            stored = xtrace.store(source, tmp_path / "data")
        assert (found.calls, counts(found)) == (2 * 1_282, {})
        with stored:
            again = check(stored)
        assert (again.calls, counts(again), again.not_judged) == (found.calls, {}, found.not_judged)

    def test_damage_that_a_dataset_cannot_place(self, sample: Sample, tmp_path: Path) -> None:
        name, path = "bench8-lockless", tmp_path / "trace.bin"
        data = sample(name).read_bytes()
        path.write_bytes(data[:100_000] + bytes(4096) + data[104_096:])
        with TraceFile(path, cpu_hz=HZ[name]) as source:
            found = check(source)
            assert 900 < found.calls < 1_282
            assert counts(found) == {}
            stored = xtrace.store(source, tmp_path / "data")
        with stored:
            again = check(stored)
        assert counts(again) == {}
        assert again.calls == 0
        assert sum(again.not_judged.values()) > 1_200


FAR: Final = 100_000
"""So far from what is asked about, in ns, that differences of clocks are no matter."""


class TestSmallTraces:
    """One thing at a time."""

    def found(self, opened: Opened, text: str, model: Any = None) -> dict[str, int]:
        with opened(text) as source:
            return counts(check(source, model))

    CARRIED = """
        0 cpu0 FLUSH_START seq=1
       10 cpu0 FLUSH_SEND seq=1 mask=1
       20 cpu0 CALL_START seq=7 n_cpus=1 wait=1
       30 cpu0 CALL_SEND seq=7 mask=1
      100 cpu1 CALL_ENTER initiator_cpu=0 seq=7
      110 cpu1 FLUSH_ENTER initiator_cpu=0 seq=1
      120 cpu1 FLUSH_EXIT initiator_cpu=0 seq=1
      130 cpu1 CALL_EXIT initiator_cpu=0 seq=7
      200 cpu0 CALL_DONE seq=7
      210 cpu0 FLUSH_DONE seq=1
      """

    def test_a_flush_rides_on_a_call_under_lockless_only(self, opened: Opened) -> None:
        assert self.found(opened, self.CARRIED) == {}
        assert self.found(opened, self.CARRIED, "unknown") == {}
        assert self.found(opened, self.CARRIED, "legacy") == {"by-itself": 1, "nesting": 1}

    def test_another_mask_than_that_of_the_flush(self, opened: Opened) -> None:
        other = self.CARRIED.replace("CALL_SEND seq=7 mask=1", "CALL_SEND seq=7 mask=1,2").replace(
            "n_cpus=1", "n_cpus=2"
        )
        assert self.found(opened, other) == {"mask": 1}

    @pytest.mark.parametrize("at", [125, 105])
    def test_a_target_flushes_outside_of_the_call(self, opened: Opened, at: int) -> None:
        moved = {125: ("130 cpu1 CALL_EXIT", "115 cpu1 CALL_EXIT"), 105: ("100 cpu1 CALL_ENTER", "115 cpu1 CALL_ENTER")}
        assert self.found(opened, self.CARRIED.replace(*moved[at]))["carried"] == 1

    LATER = """
        0 cpu0 CALL_START seq=1 n_cpus=1 wait=0
       10 cpu0 CALL_SEND seq=1 mask=1
       20 cpu0 CALL_DONE seq=1
      100 cpu0 CALL_START seq=2 n_cpus=1 wait=0
      200 cpu0 CALL_SEND seq=2 mask=1
      210 cpu0 CALL_DONE seq=2
      {at} cpu1 VMENTRY
      400 cpu1 CALL_ENTER initiator_cpu=0 seq=1
      500 cpu1 CALL_EXIT initiator_cpu=0 seq=1
      """

    def test_a_descriptor_used_again_before_a_check_in(self, opened: Opened) -> None:
        assert self.found(opened, self.LATER.format(at=300), "lockless") == {"descriptor": 1}

    def test_enter_is_noted_some_time_after_the_check_in(self, opened: Opened) -> None:
        assert self.found(opened, self.LATER.format(at=150), "lockless") == {}

    def test_a_design_with_a_descriptor_for_each_target(self, opened: Opened) -> None:
        text = self.LATER.format(at=300).replace("CALL_SEND seq=2 mask=1", "CALL_SEND seq=2 mask=2")
        assert self.found(opened, text, "lockless") == {}

    @pytest.mark.parametrize(("at", "expected"), [(300, {"answers": 1}), (150, {})])
    def test_done_before_a_check_in(self, opened: Opened, at: int, expected: dict[str, int]) -> None:
        text = self.LATER.format(at=at).replace("      100 cpu0 CALL_START seq=2", "     1000 cpu0 CALL_START seq=2")
        text = text.replace("200 cpu0 CALL_SEND", "1010 cpu0 CALL_SEND").replace(
            "210 cpu0 CALL_DONE", "1020 cpu0 CALL_DONE"
        )
        text = text.replace("20 cpu0 CALL_DONE seq=1", "250 cpu0 CALL_DONE seq=1")
        assert self.found(opened, text, "legacy") == expected
        assert self.found(opened, text, "lockless") == {}

    def test_what_xen_does_without_a_start_or_a_send(self, opened: Opened) -> None:
        """Number 0 has no START where the mask was empty at first, and none is sent where it is empty then."""
        text = """
            0 cpu0 FLUSH_START seq=1
           10 cpu0 FLUSH_DONE seq=1
           20 cpu0 FLUSH_START seq=2
           30 cpu0 FLUSH_DONE seq=2
           35 cpu0 CALL_START seq=4
           36 cpu0 CALL_DONE seq=4
           40 cpu0 CALL_SEND seq=0 mask=1
           50 cpu1 CALL_ENTER initiator_cpu=0 seq=0
           60 cpu1 CALL_EXIT initiator_cpu=0 seq=0
           70 cpu0 CALL_DONE seq=0
           80 cpu0 CALL_SEND seq=0 mask=1
           90 cpu1 CALL_ENTER initiator_cpu=0 seq=0
          100 cpu1 CALL_EXIT initiator_cpu=0 seq=0
          110 cpu0 CALL_DONE seq=0
          """
        for model in ("legacy", "unknown"):
            assert self.found(opened, text, model) == {}
        assert self.found(opened, text.replace("10 cpu0 FLUSH_DONE", "10 cpu0 FLUSH_START")) != {}

    def test_a_cpu_that_was_offline_counts_anew(self, opened: Opened) -> None:
        call = """
          {0}00 cpu0 CALL_START seq={1} n_cpus=1 wait=1
          {0}10 cpu0 CALL_SEND seq={1} mask=1
          {0}20 cpu1 CALL_ENTER initiator_cpu=0 seq={1}
          {0}30 cpu1 CALL_EXIT initiator_cpu=0 seq={1}
          {0}40 cpu0 CALL_DONE seq={1}"""
        numbers = ((1, 1), (2, 2), (3, 3), (4, 1), (5, 2), (6, 3), (7, 4))
        with opened("".join(call.format(*one) for one in numbers)) as source:
            found = check(source)
        assert (found.calls, counts(found), found.not_judged) == (6, {}, {"with records of their CPU missing": 1})

    LOST = """
        0 cpu0 CALL_START seq=1 n_cpus=1 wait=1
       10 cpu0 CALL_SEND seq=1 mask=1
       20 cpu1 CALL_ENTER initiator_cpu=0 seq=1
       {what}
       40 cpu0 CALL_DONE seq=1
       50 cpu0 CALL_START seq=2 n_cpus=1 wait=1
       60 cpu0 CALL_SEND seq=2 mask=1
       70 cpu1 CALL_ENTER initiator_cpu=0 seq=2
       80 cpu1 CALL_EXIT initiator_cpu=0 seq=2
       90 cpu0 CALL_DONE seq=2
       """

    def test_what_was_lost_is_not_missing(self, opened: Opened) -> None:
        assert self.found(opened, self.LOST.format(what="")) == {"enter-exit": 1}
        with opened(self.LOST.format(what="65 cpu1 LOST_RECORDS lost=1 first_tsc=30")) as source:
            found = check(source)
        assert counts(found) == {}
        assert (found.calls, found.not_judged) == (1, {"with a target whose records do not show it": 1})
        with opened(self.LOST.format(what="30 cpu1 CALL_EXIT initiator_cpu=0 seq=1")) as source:
            assert check(source).calls == 2

    def test_a_cpu_that_runs_a_guest_has_left_what_it_entered(self, opened: Opened) -> None:
        text = """
            0 cpu0 CALL_START seq=1 n_cpus=1 wait=1
           10 cpu0 CALL_SEND seq=1 mask=1
           20 cpu1 CALL_ENTER initiator_cpu=0 seq=1
           30 cpu{cpu} VMENTRY
           """
        assert self.found(opened, text.format(cpu=1)) == {"enter-exit": 1}
        assert self.found(opened, text.format(cpu=0)) == {"ends": 1}
        assert self.found(opened, text.format(cpu=2)) == {}

    @pytest.mark.parametrize(("after", "expected"), [(900, {}), (2_000, {"ends": 1})])
    def test_a_caller_that_all_have_answered_and_that_waits_on(
        self, opened: Opened, after: int, expected: dict[str, int]
    ) -> None:
        call = """
          {0}000 cpu0 CALL_START seq={0} n_cpus=1 wait=1
          {0}010 cpu0 CALL_SEND seq={0} mask=1
          {0}100 cpu1 CALL_ENTER initiator_cpu=0 seq={0}
          {0}200 cpu1 CALL_EXIT initiator_cpu=0 seq={0}"""
        done = """
          {0}300 cpu0 CALL_DONE seq={0}"""
        calls = "".join((call + done).format(number) for number in range(100, 220))
        text = f"{calls}{call.format(220)}\n{220_200 + after + 2 * 10_000} cpu0 CPU_IDLE_EXIT\n"
        assert self.found(opened, text.replace("CPU_IDLE_EXIT", "TRC_SCHED_WAKE")) == expected

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    (
                        "CALL_START",
                        "CALL_SEND",
                        "CALL_DONE",
                        "CALL_ENTER",
                        "CALL_EXIT",
                        "LOST_RECORDS",
                        "FLUSH_START",
                        "FLUSH_SEND",
                        "FLUSH_DONE",
                        "FLUSH_ENTER",
                        "FLUSH_EXIT",
                        "VMENTRY",
                    )
                ),
                st.integers(0, 3),
                st.sampled_from((0, 1, 1, 2, 2**32 - 1)),
                st.sampled_from((0, 1, 2, 16_382, 16_383, 2**32 - 1)),
                st.sampled_from((0, 1, 5, 2_000, 2**62, 2**64 - 2**41)),
            ),
            max_size=30,
        )
    )
    @settings(max_examples=150)
    def test_whatever_records_say(self, scratch: Path, rows: list[tuple[str, int, int, int, int]]) -> None:
        clock = 1 << 40
        windows = [Window(0, (record("VMENTRY", {}, clock),))]
        for event, cpu, seq, other, step in rows:
            clock = min(clock + step, 2**64 - 1)
            fields = {
                "START": {"seq": seq, "n_cpus": other & 0xFFFF, "wait": seq & 1} if "CALL" in event else {"seq": seq},
                "SEND": {"seq": seq, "first_cpu": other, "mask": 3},
                "DONE": {"seq": seq},
                "ENTER": {"seq": seq, "initiator_cpu": other},
                "EXIT": {"seq": seq, "initiator_cpu": other},
                "RECORDS": {"lost": seq},
                "VMENTRY": {},
            }[event.rpartition("_")[2]]
            # Numbers as texts, a mask as its bits.
            texts = {name: hex(value) for name, value in fields.items()}
            windows.append(Window(cpu, (record(event, texts, clock),)))
        scratch.write_bytes(build_capture(windows))
        with TraceFile(scratch, cpu_hz=10**9) as source:
            for model in (None, "legacy", "lockless", "unknown"):
                found = check(source, model)  # type: ignore[arg-type]
                if model is None:
                    total = found.calls + found.flushes + sum(found.not_judged.values())
                assert found.calls + found.flushes + sum(found.not_judged.values()) == total
                json.dumps([one.violations[0].records[0].fields for one in found.rules if one.count])
                found.df_violations()


class TestClocks:
    """Clocks of CPUs that differ are no violations."""

    def test_are_allowed_for(self, tmp_path: Path) -> None:
        ahead = {1: 500, 4: -400, 6: 900}
        host = Host(8, model="lockless", tsc_offsets=ahead, seed=4)
        ran(host, Bench(6, Masks(4), 60, work_ns=3_000), tmp_path / "trace.bin")
        with TraceFile(tmp_path / "trace.bin", cpu_hz=host.hz) as source:
            found = check(source)
            assert "answers" in counts(check_without_clocks(source))
        assert counts(found) == {}
        shown = {one.cpu: one.ahead_ns for one in found.clocks}
        # What is seen is a bound: how far apart they must be at least.
        assert shown[6] > 100 > -100 > shown[4]
        assert all(-170 <= by <= 375 for by in shown.values())

    def test_do_not_hide_what_a_design_does(self, tmp_path: Path) -> None:
        host = Host(8, model=broken.EarlyLockless, tsc_offsets={1: 500, 4: -400, 6: 900}, seed=4)
        expected = answered_late(ran(host, BENCH, tmp_path / "trace.bin"))
        with TraceFile(tmp_path / "trace.bin", cpu_hz=host.hz) as source:
            assert len(flagged(check(source), "answers") ^ expected) <= 0.02 * len(expected)


def check_without_clocks(source: TraceFile) -> Checked:
    """The verdict as if all clocks agreed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xtrace.protocol.clocks.ahead", lambda *_, **__: {})
        return check(source)


class TestPart:
    """Only some of the requests."""

    def test_by_initiator_and_start(self, sample: Sample) -> None:
        name = "bench8-lockless"
        with TraceFile(sample(name), cpu_hz=HZ[name]) as source:
            episodes = source.df_episodes()
            whole, cpus = check(source, "legacy"), frozenset((4, 6))
            begin, end = (int(value) for value in episodes.start_ns.quantile([0.3, 0.7]))
            part = check(source, "legacy", selection=Selection(cpus, begin, end))
        meant = episodes[episodes.initiator.isin(cpus) & episodes.start_ns.ge(begin) & episodes.start_ns.lt(end)]
        assert part.calls == len(meant) < whole.calls
        keys = {("call", cpu, seq) for cpu, seq in zip(meant.initiator, meant.seq, strict=True)}
        assert flagged(part, "lock-holders") == flagged(whole, "lock-holders") & keys != set()


class TestCommand:
    """What is printed, and the exit code."""

    def run(self, path: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
        try:
            command(str(path), **options)
        finally:
            self.out, self.err = capsys.readouterr()
        return self.out

    def test_no_violation(self, sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
        out = self.run(sample("bench8-legacy"), capsys, cpu_hz="60M")
        assert out == "no violation: 1,282 calls and 0 flushes checked against what the legacy design promises\n"
        out = self.run(sample("vmx-legacy"), capsys)
        assert "what every design promises (which one this is does not show; --model tells)" in out
        out = self.run(sample("dom0-stock"), capsys)
        assert out == "nothing to check: there is no call and no flush with TRC_HW_SMP records\n"

    def test_violations(self, sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ViolationError, match=r"bench8-lockless.bin: 964 violations of 2 rules$") as error:
            self.run(
                sample("bench8-lockless"),
                capsys,
                model="legacy",
                cpu_hz="60M",
                symbols=str(SAMPLES / "symbols-lockless.map"),
            )
        assert error.value.exit_code == 7
        lines = self.out.splitlines()
        assert lines[0].startswith("964 violations of 2 rules: 1,282 calls and 0 flushes checked against")
        assert lines[2].startswith("lock-holders: 960 From SEND to DONE a call holds the lock")
        assert lines[3] == "  call 1 of CPU 4: another held the lock"
        assert " ".join(lines[4].split()) == "byte 8924 3.046406350 0 SMP_CALL_SEND seq=140 first_cpu=0 mask=0x8"
        assert "  … 955 more" in lines
        assert max(map(len, lines[3:])) <= 110

    def test_names_of_functions(self, opened: Opened, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "map").write_text("0000000000001000 T on_each_cpu\n")
        opened(
            """
            0 cpu0 CALL_START seq=1 func=0x1010 n_cpus=1 wait=1
            5 cpu0 CALL_DONE seq=1
           10 cpu0 CALL_SEND seq=1 mask=1
           """
        ).close()
        with pytest.raises(ViolationError):
            self.run(
                tmp_path / "trace.bin", capsys, symbols=str(tmp_path / "map"), cpu_hz="1G", format_=TableFormat.json
            )
        document = json.loads(self.out)
        records = [one for rule in document["rules"] for found in rule["violations"] for one in found["records"]]
        assert {one["event"] for one in records} == {"SMP_CALL_DONE", "SMP_CALL_SEND"}

    def test_json(self, sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ViolationError):
            self.run(sample("bench-lockless"), capsys, model="legacy", cpu_hz="2596.1M", format_=TableFormat.json)
        document = json.loads(self.out)
        assert list(document) == [
            "schema", "trace", "model", "model_source", "calls", "flushes", "not_judged", "rules", "clocks",
        ]  # fmt: skip
        assert (document["schema"], document["model"], document["model_source"]) == (
            "xtrace.check/1",
            "legacy",
            "option",
        )
        names = [one.name for one in RULES if "legacy" in one.models]
        assert [one["rule"] for one in document["rules"]] == names
        for one in document["rules"]:
            assert one["count"] == len(one["violations"])
            for violation in one["violations"]:
                assert list(violation) == ["what", "kind", "initiator", "seq", "records"]
                assert list(violation["records"][0]) == ["ns", "tsc", "cpu", "event", "fields", "offset", "number"]

    def test_a_model_that_is_none(self, sample: Sample) -> None:
        with xtrace.open(sample("vmx-legacy")) as source, pytest.raises(UsageError, match="no model fifo"):
            check(source, "fifo")  # type: ignore[arg-type]

    def test_frame(self, sample: Sample) -> None:
        with xtrace.open(sample("bench8-lockless"), cpu_hz=60_000_000) as source:
            found = check(source, "legacy")
            frame, none = found.df_violations(), check(source).df_violations()
        assert len(frame.groupby(["rule", "violation"])) == found.count == 964
        assert list(none.dtypes.astype(str)) == list(frame.dtypes.astype(str))
        assert none.empty
        doc = Checked.df_violations.__doc__ or ""
        for name, kind in frame.dtypes.astype(str).items():
            assert f"{name} " in doc
            assert kind in doc


def test_rules_are_in_the_documentation() -> None:
    text = (SAMPLES.parent / "docs" / "check.md").read_text()
    for one in RULES:
        assert f"| `{one.name}` | {', '.join(one.models) if len(one.models) < 3 else 'all'} | {one.promise} |" in text
    assert len({one.name for one in RULES}) == len(RULES)

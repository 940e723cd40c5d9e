"""`xtrace check` against the emulator: broken designs are found out, and sound ones are not blamed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

import broken
import numpy as np
import pytest
from checked import HZ, Key, counts, flagged, held_by
from conftest import Sample
from damage import pieces_of
from hypothesis import given, settings
from hypothesis import strategies as st

import xtrace
from xtrace.emulator.costs import Costs
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
from xtrace.parsers.fields import u32
from xtrace.protocol import Checked, check
from xtrace.trace_file import TraceFile

Truth = Callable[[Emulation], set[Key]]


def key_of(one: Request) -> Key:
    return "flush" if one.is_flush else "call", one.initiator, one.seq


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

    @pytest.mark.parametrize(("design", "found"), [(broken.RandomLegacy, True), (Legacy, False)])
    def test_a_lock_out_of_order_where_interrupts_take_long(
        self, tmp_path: Path, design: type[Design], found: bool
    ) -> None:
        """A single one that was passed might have been interrupted; so many were not."""
        path = tmp_path / "trace.bin"
        host = Host(16, model=design, costs=Costs(timer_ns=300_000))
        plan = Plan(host, None, Bench(6, Masks(2), 40, work_ns=20_000), Idle(tick_ns=2_000_000), seconds=0.05)
        path.write_bytes(made(plan.run(), plan.tool, "smp")[0])
        with TraceFile(path, cpu_hz=host.hz) as source:
            assert ("lock-order" in counts(check(source, "legacy"))) is found

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

    def test_where_records_are_in_a_damaged_file(self, sample: Sample, tmp_path: Path) -> None:
        path, whole, random = tmp_path / "trace.bin", sample("bench8-lockless").read_bytes(), Random(3)
        for size in (1, 6, 4096) * 4:
            data = bytearray(whole)
            for begin in random.sample(range(len(data)), 5):
                data[begin : begin + size] = bytes(size) if random.random() < 0.5 else b""
            path.write_bytes(data)
            with TraceFile(path, cpu_hz=60_000_000) as source:
                for batch, _ in source.batches():
                    assert batch.offset is not None
                    assert (np.diff(batch.offset) > 0).all()
                    for at, header in zip(batch.offset.tolist(), batch.header.tolist(), strict=True):
                        assert u32.parse(data[at : at + 4]) == header

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
        for begin in range(20_000, 200_000, 40_000):
            path.write_bytes(data[:begin] + bytes(4096) + data[begin + 4096 :])
            with TraceFile(path, cpu_hz=HZ[name]) as source:
                found = check(source)
                assert 800 < found.calls < 1_282
                assert counts(found) == {}
                stored = xtrace.store(source, tmp_path / "data", force=True)
            with stored:
                again = check(stored)
            assert counts(again) == {}
            assert again.calls == 0
            assert sum(again.not_judged.values()) > 1_200


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

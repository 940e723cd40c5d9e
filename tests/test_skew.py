"""Clock skew: none in real traces, what is planted is found within its bounds, and taken off."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
import pytest
from checked import HZ
from conftest import Opened, Sample
from hypothesis import given
from hypothesis import strategies as st
from skewed import ahead, moved, roam
from test_xenalyze_defects import skewed

import xtrace
from xtrace.cli import run
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.output import made
from xtrace.emulator.plan import Plan
from xtrace.emulator.rings import Tool
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.emulator.workloads.evacuate import Evacuate
from xtrace.errors import UsageError
from xtrace.reports import terminal
from xtrace.reports.sections import clocks as paint
from xtrace.skew import Skew, alert, at_hand, judged
from xtrace.skew_bounds import solve
from xtrace.skew_evidence import DONE, START, WAKE, Evidence, Holds
from xtrace.skew_fix import Correction

Offsets = dict[int, int]

GHZ: Final = 2_400_000_000
CYCLES_OF_5_NS: Final = 12
MODELS: Final = ["legacy", "lockless", "fifo", "linux"]


def of(path: Path, hz: int = GHZ, *, fix: bool = False) -> Skew:
    with xtrace.open(path, cpu_hz=hz, fix_skew=fix) as trace:
        return trace.skew


def drawn(cpus: int, most_ns: int, seed: int) -> Offsets:
    """Offsets in cycles, of some CPUs, that are whole ns."""
    random = Random(seed)
    return {
        cpu: CYCLES_OF_5_NS * random.randint(-most_ns // 5, most_ns // 5)
        for cpu in range(cpus)
        if random.random() < 0.6
    }


def bounded(found: Skew, planted_ns: dict[int, float]) -> int:
    """How many CPUs have both bounds; all bounds hold what was planted."""
    assert found.reference is not None
    for one in found.cpus:
        true = planted_ns.get(one.cpu, 0) - planted_ns.get(found.reference, 0)
        assert one.low_ns is None or one.low_ns <= true, (one, true)
        assert one.high_ns is None or true <= one.high_ns, (one, true)
        for bound, sign in ((one.low_ns, 1), (one.high_ns, -1)):
            assert bound is None or one.offset_ns is None or sign * bound <= sign * one.offset_ns
    return sum(one.low_ns is not None and one.high_ns is not None for one in found.cpus)


def in_ns(offsets: Offsets, hz: int = GHZ) -> dict[int, float]:
    return {cpu: cycles * 1e9 / hz for cpu, cycles in offsets.items()}


class TestRealTraces:
    def test_show_none(self, trace_name: str, trace: Path) -> None:
        found = of(trace, HZ[trace_name])
        assert found.status == "agree"
        assert found.offsets_ns == {}
        assert (found.min_stay_ns, found.exceptions) == (0, 0)
        assert all(one.used for one in found.kinds)
        assert bounded(found, {}) == len(found.cpus)

    @pytest.mark.parametrize("name", ["bench-lockless", "bench8-lockless"])
    def test_early_enter_is_no_evidence(self, name: str, sample: Sample) -> None:
        with xtrace.open(sample(name), cpu_hz=HZ[name]) as trace:
            assert (trace.df_deliveries()["delivery_ns"] < 0).any()
            assert {one.kind for one in trace.skew.kinds} == {"start", "done"}
            assert at_hand(trace) is trace.skew

    @pytest.mark.parametrize("size_ns", [2_000, 20_000, 200_000, 5_000_000])
    @pytest.mark.parametrize("name", ["bench-legacy", "bench-lockless", "bench8-legacy", "bench8-lockless"])
    def test_planted(self, name: str, size_ns: int, sample: Sample, tmp_path: Path) -> None:
        random, hz = Random(f"{name} {size_ns}"), HZ[name]
        offsets = {cpu: random.randint(-size_ns, size_ns) * hz // 10**9 for cpu in range(1, 8, 2)}
        path = tmp_path / "trace.bin"
        path.write_bytes(ahead(sample(name), offsets))
        found = of(path, hz)
        assert bounded(found, in_ns(offsets, hz)) == 8
        assert (found.status == "differ") == (size_ns > 2_000) or name == "bench-legacy"
        before = of(sample(name), hz)
        if size_ns > 20_000:
            # As well known as without: the order of what is seen does not change.
            assert found.within_ns is not None
            assert before.within_ns is not None
            assert found.within_ns <= before.within_ns + 5
        assert_recovered(path, sample(name), hz, found)

    def test_planted_where_the_scheduler_alone_tells(self, sample: Sample, tmp_path: Path) -> None:
        offsets = {1: 500_000_000, 3: -260_000_000}
        path, hz = tmp_path / "trace.bin", HZ["dom0-stock"]
        path.write_bytes(ahead(sample("migrate-stock"), {cpu: by // 1_000 for cpu, by in offsets.items()}))
        found = of(path, hz)
        assert found.status == "differ"
        assert {one.kind for one in found.kinds if one.used} == {"wake", "hand-over"}
        assert bounded(found, {cpu: by / 1_000 * 1e9 / hz for cpu, by in offsets.items()}) == 4

    def test_planted_in_calls_and_runstates(self, sample: Sample, tmp_path: Path) -> None:
        offsets = {0: 70_000, 2: -45_000}
        path, hz = tmp_path / "trace.bin", HZ["migrate-lockless"]
        path.write_bytes(ahead(sample("migrate-lockless"), offsets))
        found = of(path, hz)
        assert bounded(found, in_ns(offsets, hz)) == 4
        assert (found.within_ns or 0) < 2_000
        assert {one.kind for one in found.kinds if one.used} == {"start", "done", "wake", "hand-over"}

    def test_drift_is_not_explained(self, sample: Sample, tmp_path: Path) -> None:
        path, hz = tmp_path / "trace.bin", HZ["bench8-lockless"]
        path.write_bytes(moved(sample("bench8-lockless"), lambda cpu, tsc: (tsc - tsc.min()) // 10_000 * (cpu == 2)))
        with xtrace.open(path, cpu_hz=hz, fix_skew=True) as trace:
            assert trace.skew.status == "contradictory"
            assert all(one.offset_ns is None for one in trace.skew.cpus)
            assert "contradicts itself" in str(alert(trace.skew))
            fixed = trace.table_episodes()
        with xtrace.open(path, cpu_hz=hz) as trace:
            assert trace.table_episodes().equals(fixed)

    def test_one_wrong_time_is_an_exception(self, sample: Sample, tmp_path: Path) -> None:
        """A DONE that is too early by far, so that its target and it contradict what else is known."""
        path, hz = tmp_path / "trace.bin", HZ["bench8-lockless"]
        with xtrace.open(sample("bench8-lockless"), cpu_hz=hz) as trace:
            tsc = trace.df_events("SMP_CALL_DONE").query("cpu == 4")["tsc"].astype("int64").iloc[30]
        path.write_bytes(
            moved(sample("bench8-lockless"), lambda cpu, at: np.where((at == tsc) & (cpu == 4), -20_000, 0))
        )
        found = of(path, hz)
        assert (found.status, found.exceptions) == ("agree", 2)
        assert bounded(found, {}) == 8


def assert_recovered(path: Path, clean: Path, hz: int, found: Skew) -> None:
    """Steps are where they were before clocks were moved, but for what the bounds leave open."""
    with xtrace.open(path, cpu_hz=hz, fix_skew=True) as fixed, xtrace.open(clean, cpu_hz=hz) as true:
        assert asdict(fixed.skew) == asdict(found) | {"fixed": True}
        assert fixed.tables.model == true.tables.model
        rows, truth = fixed.df_deliveries(), true.df_deliveries()
        keys = [one.df_episodes().set_index("episode")[["kind", "initiator", "seq"]] for one in (fixed, true)]
    rows, truth = (
        side.join(key, on="episode").set_index(["kind", "initiator", "seq", "cpu"]).sort_index()
        for side, key in zip((rows, truth), keys, strict=True)
    )
    assert rows.index.equals(truth.index)
    off = (rows["delivery_ns"] - truth["delivery_ns"]).dropna().abs()
    assert off.max() <= 2 * (found.within_ns or 0) + 2


@pytest.mark.parametrize("most_ns", [0, 300, 50_000])
@pytest.mark.parametrize("cpus", [2, 8, 32])
@pytest.mark.parametrize("model", MODELS)
def test_planted_by_the_emulator(tmp_path: Path, model: str, cpus: int, most_ns: int) -> None:
    offsets = drawn(cpus, most_ns, cpus + most_ns)
    host = Host(cpus, model=model, vendor="svm" if cpus == 8 else "vmx", tsc_offsets=offsets)
    found = emulated(tmp_path / "trace.bin", host, Bench(min(cpus - 1, 8), Masks(min(4, cpus - 1)), 40, work_ns=5_000))
    assert bounded(found, in_ns(offsets)) == cpus
    assert (found.within_ns or 0) < 8_000
    if most_ns > 3_000 or not most_ns:
        assert found.status == ("differ" if any(offsets.values()) else "agree")


@pytest.mark.parametrize("model", MODELS)
def test_done_tells_nothing_of_calls_that_do_not_wait(tmp_path: Path, model: str) -> None:
    found = emulated(tmp_path / "trace.bin", Host(8, model=model), Bench(4, Masks(3), 40, work_ns=5_000, wait=False))
    assert found.status == "agree"
    assert "done" not in {one.kind for one in found.kinds}


def test_stays_that_are_too_short_are_left_aside(opened: Opened) -> None:
    """A wake-up that fits may be another one's if clocks differ by 3 µs and the stay was no longer."""
    trace = opened("0 cpu0 CONTINUE_RUNNING domid=1 vcpuid=0\n1 cpu1 CONTINUE_RUNNING domid=1 vcpuid=1")
    none = np.zeros(0, np.int64)
    evidence = Evidence(Holds(none, none, none, none), locked=False)
    one = np.array([1])
    evidence.add(DONE, one - 1, one, -3_000 * one)
    evidence.add(START, one, one - 1, 9_000 * one)
    evidence.add(WAKE, one, one - 1, 4_000 * one, 3_000 * one)
    found = judged(trace, evidence)
    assert [(row.low_ns, row.high_ns, row.offset_ns) for row in found.cpus] == [(0, 0, 0), (-9_001, -2_999, -6_000)]
    assert {row.kind for row in found.kinds if row.used} == {"done", "start"}
    evidence.add(WAKE, one, one - 1, 4_000 * one, 9_000 * one)
    found = judged(trace, evidence)
    assert found.cpus[1].low_ns == -4_001
    assert found.min_stay_ns == 8_192


@pytest.mark.parametrize("model", ["legacy", "lockless"])
def test_planted_on_256_cpus(tmp_path: Path, model: str) -> None:
    offsets = drawn(256, 3_000, 7)
    host = Host(256, model=model, tsc_offsets=offsets)
    found = emulated(tmp_path / "trace.bin", host, Bench(64, Masks(4), 10, work_ns=5_000))
    assert bounded(found, in_ns(offsets)) == 256
    assert found.status == "differ"
    assert (found.within_ns or 0) < 8_000


def emulated(path: Path, host: Host, bench: Bench) -> Skew:
    content, *_ = made(Plan(host, bench=bench).run(), Tool(256), "all")
    path.write_bytes(content)
    return of(path)


@pytest.mark.parametrize("run_ns", [1_000_000, 100_000])
@pytest.mark.parametrize("most_ns", [0, 1_000, 5_000, 50_000])
@pytest.mark.parametrize("cpus", [2, 8, 64])
def test_planted_where_vcpus_roam(tmp_path: Path, cpus: int, most_ns: int, run_ns: int) -> None:
    """No calls at all: the scheduler's records tell."""
    offsets = drawn(cpus, most_ns, cpus + most_ns)
    found = roaming(tmp_path / "trace.bin", offsets, cpus, run_ns, 300 if cpus < 64 else 120)
    assert bounded(found, in_ns(offsets)) == cpus
    assert (found.within_ns or 0) < 8_000
    if most_ns > 5_000 or not most_ns:
        assert found.status == ("differ" if any(offsets.values()) else "agree")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cpus", [8, 32])
def test_clocks_that_differ_more_than_stays_last(tmp_path: Path, cpus: int, seed: int) -> None:
    """Then nothing is said rather than something wrong."""
    offsets = {cpu: CYCLES_OF_5_NS * (-1) ** cpu * (10_000 + 997 * cpu % 5_000) for cpu in range(1, cpus, 2)}
    found = roaming(tmp_path / "trace.bin", offsets, cpus, 10_000, 200, seed)
    assert found.status == "contradictory"
    assert found.offsets_ns == {}


def roaming(path: Path, offsets: Offsets, cpus: int, run_ns: int, rounds: int, seed: int = 1) -> Skew:
    emulation = Emulation(Host(cpus, tsc_offsets=offsets))
    roam(emulation, vcpus=max(4, cpus), rounds=rounds, run_ns=run_ns, rest_ns=2 * run_ns, seed=seed)
    path.write_bytes(made(emulation, Tool(1024), "all")[0])
    return of(path)


def test_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are held for a while only; that finds nothing false, and hardly less."""
    offsets = drawn(8, 20_000, 3)
    whole = roaming(tmp_path / "trace.bin", offsets, 8, 100_000, 300)
    monkeypatch.setattr("xtrace.skew_evidence.HELD", 500)
    found = of(tmp_path / "trace.bin")
    assert bounded(found, in_ns(offsets)) == 8
    assert (found.within_ns or 0) < 1.2 * (whole.within_ns or 0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Offsets]:
    """The same emulation with and without skew: a file that lost records, with scheduler, guests and flushes."""
    offsets = drawn(8, 4_000, 11)
    paths = []
    for name, ahead_by in (("true", {}), ("skewed", offsets)):
        host = Host(8, model="legacy", vendor="svm", tsc_offsets=ahead_by)
        load = Bench(3, Masks(4), 400, work_ns=5_000)
        plan = Plan(host, Evacuate(1, 2), load, tool=Tool(1, 2_000_000, 1_000_000), seconds=0.01)
        paths.append(tmp_path_factory.mktemp("pair") / f"{name}.bin")
        content, _, _, lost = made(plan.run(), plan.tool, "all")
        assert lost > 100
        paths[-1].write_bytes(content)
    return paths[0], paths[1], offsets


class TestCorrection:
    def test_of_what_was_planted_gives_the_true_trace(self, pair: tuple[Path, Path, Offsets]) -> None:
        true_path, path, offsets = pair
        correction = Correction({cpu: round(ns) for cpu, ns in in_ns(offsets).items()}, GHZ)
        with xtrace.open(path, cpu_hz=GHZ) as trace, xtrace.open(true_path, cpu_hz=GHZ) as true:
            found, survey = correction.survey(trace.survey), true.survey
            assert (found.zero_tsc, found.last_tsc, found.ends) == (survey.zero_tsc, survey.last_tsc, survey.ends)
            for name in ("words", "at", "header", "track", "state"):
                assert np.array_equal(getattr(found.kept, name), getattr(survey.kept, name)), name
            for (batch, _), (other, _) in zip(trace.batches(), true.batches(), strict=True):
                again = correction.batch(batch)
                assert not np.array_equal(batch.tsc, other.tsc)
                for name in ("words", "starts", "header", "track", "tsc", "order", "domain", "vcpu"):
                    assert np.array_equal(getattr(again, name), getattr(other, name)), name

    def test_truth_without_skew_is_what_fixing_finds(self, pair: tuple[Path, Path, Offsets]) -> None:
        true_path, path, offsets = pair
        found = of(path)
        assert bounded(found, in_ns(offsets)) == 8
        within = found.within_ns or 0
        assert 0 < within < 3_000
        with (
            xtrace.open(path, cpu_hz=GHZ, fix_skew=True) as fixed,
            xtrace.open(true_path, cpu_hz=GHZ) as true,
            xtrace.open(path, cpu_hz=GHZ) as raw,
        ):
            one, other, unfixed = (side.df_deliveries().dropna(subset="delivery_ns") for side in (fixed, true, raw))
            assert len(one) == len(other) > 50
            assert (one["delivery_ns"].to_numpy() - other["delivery_ns"].to_numpy()).__abs__().max() <= 2 * within
            assert (unfixed["delivery_ns"].to_numpy() - other["delivery_ns"].to_numpy()).__abs__().max() > 2 * within
            assert fixed.df_runstates()["duration_ns"].notna().sum() == true.df_runstates()["duration_ns"].notna().sum()
            assert fixed.lost_by_cpu == true.lost_by_cpu
            events = fixed.df_events("TRC_SCHED_*")
            assert events["tsc"].is_monotonic_increasing

    def test_does_nothing_where_clocks_agree(self, pair: tuple[Path, Path, Offsets]) -> None:
        with xtrace.open(pair[0], cpu_hz=GHZ, fix_skew=True) as fixed, xtrace.open(pair[0], cpu_hz=GHZ) as true:
            assert fixed.table_episodes().equals(true.table_episodes())
            assert fixed.survey.zero_tsc == true.survey.zero_tsc
            assert fixed.skew.fixed
            assert alert(fixed.skew) is None

    @given(
        st.dictionaries(st.integers(0, 200), st.integers(-(1 << 45), 1 << 45)),
        st.lists(st.integers(0, (1 << 64) - 1), min_size=1),
    )
    def test_no_count_leaves_64_bits(self, offsets_ns: dict[int, int], counts: list[int]) -> None:
        cpu = np.arange(len(counts))
        moved_to = Correction(offsets_ns, GHZ).of(cpu, np.array(counts, np.uint64)).tolist()
        for one, (tsc, got) in enumerate(zip(counts, moved_to, strict=True)):
            wanted = min(max(tsc - round(offsets_ns.get(one, 0) * GHZ / 10**9), 0), (1 << 64) - 1)
            assert got == (wanted if tsc else 0)

    def test_datasets(self, pair: tuple[Path, Path, Offsets], tmp_path: Path) -> None:
        options: tuple[list[str], ...] = (["--fix-skew"], [])
        for more, name in zip(options, ("fixed", "raw"), strict=True):
            assert run(["dataset", str(pair[1]), "--cpu-hz", "2.4G", "-o", str(tmp_path / name), *more]) == 0
        with xtrace.open(pair[1], cpu_hz=GHZ, fix_skew=True) as file, xtrace.open(tmp_path / "fixed") as stored:
            assert stored.table_episodes().equals(file.table_episodes())
            assert stored.skew.offsets_ns == {}
        with xtrace.open(pair[1], cpu_hz=GHZ) as file, xtrace.open(tmp_path / "raw") as stored:
            assert stored.skew == file.skew
        with pytest.raises(UsageError, match="store the trace anew with --fix-skew"):
            xtrace.open(tmp_path / "raw", fix_skew=True)
        xtrace.open(tmp_path / "fixed", fix_skew=True).close()


@pytest.fixture(scope="module")
def skewed_bench(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("skewed") / "skewed.bin"
    options = ["--threads", "4", "--mask", "4", "--work", "5us", "--skew", "2=3us,5=-800ns"]
    assert run(["emulate", "bench", *options, "-o", str(path)]) == 0
    return str(path)


class TestCommands:
    def test_analyze(self, skewed_bench: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["analyze", skewed_bench, "--cpu-hz", "2.4G", "--section", "calls", "--format", "json"]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["clocks"] is None
        assert said.err.splitlines() == [
            "warning: clocks of 2 CPUs differ from the others', that of CPU 2 by 2.99 µs; --fix-skew takes that off"
        ]
        assert run(["analyze", skewed_bench, "--cpu-hz", "2.4G", "--section", "clocks", "--format", "json"]) == 0
        clocks = json.loads(capsys.readouterr().out)["clocks"]
        assert {row["cpu"]: row["offset_ns"] for row in clocks["cpus"] if row["offset_ns"]} == {2: 2992, 5: -805}
        assert (clocks["status"], clocks["reference"], clocks["fixed"]) == ("differ", 0, False)

    def test_fix_skew_everywhere(self, skewed_bench: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        perfetto = ["--perfetto", str(tmp_path / "out"), "--force"]
        for command in (
            ["analyze", skewed_bench, "--section", "calls"],
            ["dump", skewed_bench],
            ["table", "episodes", skewed_bench],
            ["check", skewed_bench],
            ["export", *perfetto, skewed_bench],
            ["compare", skewed_bench, skewed_bench],
            ["dataset", skewed_bench, "-o", str(tmp_path / "data")],
        ):
            assert run([*command, "--cpu-hz", "2.4G", "--fix-skew"]) == 0
            assert "--fix-skew: clocks of 2 CPUs corrected, that of CPU 2 by 2.9" in capsys.readouterr().err

    def test_no_warning_of_real_traces(self, sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["analyze", str(sample("bench-lockless")), "--section", "calls", "--cpu-hz", "2596.1M"]) == 0
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("skew", ["9=1us", "x=1us", "1", "1=fast", "-1=1us"])
    def test_bad_skew(self, skew: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["emulate", "bench", "--skew", skew, "-o", str(tmp_path / "out.bin")]) == 2
        assert "--skew" in capsys.readouterr().err


class TestSection:
    def told(self, found: Skew | None) -> str:
        out = terminal.console(110)
        with out.capture() as captured:
            terminal.chapter(out, paint.section(found))
        return " ".join(captured.get().split())

    def test_of_several_captures(self, sample: Sample, tmp_path: Path) -> None:
        path = tmp_path / "twice.bin"
        path.write_bytes(2 * sample("bench8-legacy").read_bytes())
        found = of(path, HZ["bench8-legacy"])
        assert (found.status, found.captures) == ("unknown", 2)
        assert "2 captures one behind the other" in self.told(found)
        assert of(path, HZ["bench8-legacy"], fix=True).offsets_ns == {}

    def test_of_nothing(self, opened: Opened) -> None:
        found = opened("0 cpu0 CONTINUE_RUNNING domid=1 vcpuid=0\n1 cpu1 CONTINUE_RUNNING domid=1 vcpuid=1").skew
        assert found.status == "unknown"
        assert "Not known: nothing in this trace" in self.told(found)
        assert "Not looked at" in self.told(None)
        assert paint.pictures(found) == paint.pictures(None) == ()

    def test_of_a_wake_up_after_its_run(self, opened: Opened) -> None:
        """The trace that xenalyze corrects by twice too much (D46), and takes for a loop with CPU 64 (D45)."""
        for waker in (1, 64):
            found = opened(skewed(waker)).skew
            cpu_0, other = found.cpus
            assert (cpu_0.cpu, other.cpu, found.reference) == (0, waker, 0)
            assert (other.low_ns, other.high_ns) == (999, 10_001)
            assert found.status == "differ"
            assert "The clock of 1 CPU differs from CPU 0's by up to 5.50 µs" in self.told(found)
            picture = paint.pictures(found)
            assert len(picture) == 1


Rooms = list[tuple[int, int, int]]


@st.composite
def systems(draw: st.DrawFn) -> tuple[list[int], Rooms]:
    """Offsets, and room between CPUs that they leave."""
    offsets = draw(st.lists(st.integers(-1000, 1000), min_size=2, max_size=7))
    cpu = st.integers(0, len(offsets) - 1)
    pairs = draw(st.lists(st.tuples(cpu, cpu, st.integers(0, 500)), min_size=1, max_size=30))
    rooms = [(one, other, offsets[other] - offsets[one] + slack) for one, other, slack in pairs if one != other]
    return offsets, rooms or [(0, 1, offsets[1] - offsets[0])]


def solved(rooms: Rooms) -> Any:
    return solve(*np.array(rooms, np.int64).T)


def paths(rooms: Rooms) -> dict[tuple[int, int], float]:
    """Shortest paths between all CPUs, step by step."""
    cpus = {cpu for one, other, _ in rooms for cpu in (one, other)}
    far = {(one, other): 0.0 if one == other else np.inf for one in cpus for other in cpus}
    for one, other, room in rooms:
        far[one, other] = min(far[one, other], room)
    for by in cpus:
        for one in cpus:
            for other in cpus:
                far[one, other] = min(far[one, other], far[one, by] + far[by, other])
    return far


class TestBounds:
    @given(systems())
    def test_are_shortest_paths(self, system: tuple[list[int], Rooms]) -> None:
        offsets, rooms = system
        found, far = solved(rooms), paths(rooms)
        reference = found.reference
        for cpu, low, high, offset in zip(found.cpus.tolist(), found.low, found.high, found.offset, strict=True):
            assert np.nan_to_num(high, nan=np.inf) == far[reference, cpu]
            assert np.nan_to_num(low, nan=-np.inf) == -far[cpu, reference]
            assert not low > offsets[cpu] - offsets[reference]
            assert not high < offsets[cpu] - offsets[reference]
            assert not low > offset
            assert not high < offset
        at = dict(zip(found.cpus.tolist(), found.offset.tolist(), strict=True))
        assert all(at[other] - at[one] <= room for one, other, room in rooms), "estimates do not fit together"
        if all(room >= 0 for *_, room in rooms):
            assert not found.offset.any()

    def test_no_solution(self) -> None:
        assert solved([(0, 1, 10), (1, 2, 5), (2, 0, -16)]) is None
        assert solved([(0, 1, 10), (1, 2, 5), (2, 0, -15)]) is not None

    def test_the_reference_is_one_of_the_most(self) -> None:
        """CPU 0 is the one that is off."""
        rooms = [(0, cpu, -90) for cpu in (1, 2, 3)] + [(cpu, 0, 110) for cpu in (1, 2, 3)]
        rooms += [(1, 2, 10), (2, 1, 10), (2, 3, 10), (3, 2, 10)]
        found = solved(rooms)
        assert found.reference == 1
        assert found.offset.tolist() == [100, 0, 0, 0]


def test_nothing_loads_scipy_where_clocks_agree_at_first_sight(sample: Sample) -> None:
    """The warning costs little: steps in order need no bounds."""
    with xtrace.open(sample("bench8-legacy"), cpu_hz=HZ["bench8-legacy"]) as trace:
        assert at_hand(trace) is None
        _ = trace.tables
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("xtrace.skew.of_episodes", partial(pytest.fail, "evidence was gathered"))
            assert at_hand(trace) is None

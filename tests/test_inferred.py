"""Episodes inferred from stock traces: hand-made scenes, emulated hosts, real traces whose tracepoints are hidden."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import Opened, Sample
from hiding import without_tracepoints

import xtrace
from xtrace.cli import run
from xtrace.decode import Batch
from xtrace.episodes.inferred import INFERRED_DELIVERIES, INFERRED_EPISODES
from xtrace.errors import MissingEventsError
from xtrace.inference import inference
from xtrace.reports import terminal
from xtrace.reports.sections import inference as chapter
from xtrace.selection import Selection
from xtrace.trace import Trace

VMX_HZ = 60_000_000


@pytest.fixture(scope="module")
def benchmark_module() -> ModuleType:
    """benchmarks/stock_hosts.py, whose hosts and judge serve here, too."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    try:
        import stock_hosts as module
    finally:
        sys.path.pop(0)
    return module


def rows(trace: Trace) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = trace.table_episodes().to_pylist()
    return found


# Hand-made scenes: CPUs 1 to 3 run the vCPUs of domain 1, CPU 0 does what the scene says.

GUESTS = """
      0 cpu0 RUNSTATE_CHANGE old_state=runnable new_state=running domid=1 vcpuid=0
      0 cpu1 RUNSTATE_CHANGE old_state=runnable new_state=running domid=1 vcpuid=1
      0 cpu2 RUNSTATE_CHANGE old_state=runnable new_state=running domid=1 vcpuid=2
      0 cpu3 RUNSTATE_CHANGE old_state=runnable new_state=running domid=2 vcpuid=0
     10 cpu0 VMENTRY
     10 cpu1 VMENTRY
     10 cpu2 VMENTRY
     10 cpu3 VMENTRY
"""


def hit(at: int, cpu: int, vector: int, took: int = 1000) -> str:
    """A CPU in a guest is interrupted, and goes back."""
    return f"""
     {at} cpu{cpu} VMEXIT64 exit_reason=1
       - cpu{cpu} INTR vector={vector:#x} vendor=vmx
     {at + took} cpu{cpu} VMENTRY
    """


def asks(at: int, until: int, cpu: int = 0, reason: int = 48) -> str:
    """A CPU's guest exits for a reason that others are asked for, and is let in again."""
    return f"""
     {at} cpu{cpu} VMEXIT64 exit_reason={reason}
     {until} cpu{cpu} VMENTRY
    """


def test_a_kick(opened: Opened) -> None:
    trace = opened(GUESTS + asks(50_000, 54_000) + hit(52_000, 1, 0xFB) + hit(52_030, 2, 0xFB))
    (episode,) = rows(trace)
    assert trace.tables.evidence == "inferred"
    assert episode["kind"] == "call"
    assert episode["guess"] == "kick"
    assert episode["targets"] == [1, 2]
    assert episode["initiator"] == 0
    assert (episode["domain"], episode["vcpu"]) == (1, 0)
    assert (episode["first_ns"], episode["last_ns"]) == (52_000, 52_030)
    assert (episode["vector"], episode["evidence"], episode["complete"]) == (0xFB, "inferred", False)
    assert 0 < episode["confidence"] < 1
    unknown = "seq start_ns send_ns done_ns lock_wait_ns total_ns func func_name wait flush_flags va parent inflight"
    assert all(episode[name] is None for name in [*unknown.split(), "straggler"])
    first, second = trace.table_deliveries().to_pylist()
    assert (first["cpu"], first["taken_ns"], first["resumed_ns"], first["state"]) == (1, 52_000, 53_000, "guest")
    assert (second["domain"], second["vcpu"]) == (1, 2)
    assert all(first[name] is None for name in ("enter_ns", "exit_ns", "delivery_ns", "execution_ns", "queue_ns"))


def test_a_flush_has_its_own_vector_and_tells_the_model(opened: Opened) -> None:
    trace = opened(GUESTS + asks(50_000, 54_000) + hit(52_000, 1, 0xFD) + hit(52_030, 3, 0xFD))
    (episode,) = rows(trace)
    assert (episode["kind"], episode["guess"], episode["vector"]) == ("flush", "flush", 0xFD)
    # The lockless hypervisor has no such vector.
    assert trace.tables.model == "legacy"


def test_calls_to_several_domains_are_no_kicks(opened: Opened) -> None:
    trace = opened(GUESTS + asks(50_000, 54_000) + hit(52_000, 1, 0xFB) + hit(52_030, 3, 0xFB))
    assert [one["guess"] for one in rows(trace)] == ["call"]
    assert trace.tables.model == "unknown"


def test_both_vectors_at_once_are_two_episodes(opened: Opened) -> None:
    trace = opened(GUESTS + asks(50_000, 54_000) + hit(52_000, 1, 0xFB) + hit(52_030, 2, 0xFD))
    assert [one["targets"] for one in rows(trace)] == [[1], [2]]


def test_a_cpu_that_is_hit_twice_is_in_two_episodes(opened: Opened) -> None:
    again = hit(55_000, 1, 0xFB) + hit(55_040, 2, 0xFB)
    trace = opened(GUESTS + hit(52_000, 1, 0xFB) + hit(52_040, 2, 0xFB) + again)
    assert [one["targets"] for one in rows(trace)] == [[1, 2], [1, 2]]


def test_a_cpu_that_is_hit_twice_at_once_parts_even_what_no_pause_does(opened: Opened) -> None:
    trace = opened(GUESTS + hit(52_000, 1, 0xFB, took=600) + hit(52_400, 2, 0xFB) + hit(52_700, 1, 0xFB))
    assert [one["targets"] for one in rows(trace)] == [[1], [1, 2]]


def test_other_vectors_are_none_of_it(opened: Opened) -> None:
    trace = opened(GUESTS + hit(52_000, 1, 0xFA) + hit(52_030, 2, 0xFC))
    assert trace.tables.evidence == "none"
    with pytest.raises(MissingEventsError, match="no SMP_"):
        trace.table_episodes()


def test_who_is_in_a_guest_or_speaks_is_no_initiator(opened: Opened) -> None:
    speaks = asks(50_000, 52_010) + asks(52_020, 54_000, reason=12)
    stays = asks(90_000, 91_000, cpu=3, reason=12)
    (episode,) = rows(opened(GUESTS + speaks + hit(52_000, 1, 0xFB) + hit(52_030, 2, 0xFB) + stays))
    assert episode["initiator"] is None
    assert episode["initiator_confidence"] is None
    assert episode["preceded_by"] is None


def test_the_first_to_resume_is_the_initiator(opened: Opened) -> None:
    # CPU 3 waits for the lock that CPU 0 holds.
    waits = asks(50_500, 60_000, cpu=3)
    (episode,) = rows(opened(GUESTS + asks(50_000, 54_000) + waits + hit(52_000, 1, 0xFB) + hit(52_030, 2, 0xFB)))
    assert episode["initiator"] == 0
    assert episode["initiator_confidence"] > 0.5


def test_an_idle_cpu_lists_what_woke_it(opened: Opened) -> None:
    sleeps = """
     40000 cpu3 PM_IDLE_ENTRY cx_index=1
     53000 cpu3 PM_IDLE_EXIT cx_index=1 vec0=0x31 vec1=0xfb
     54000 cpu3 PM_IDLE_ENTRY cx_index=1
    """
    trace = opened(GUESTS + sleeps + asks(50_000, 54_500) + hit(52_000, 1, 0xFB))
    assert [one["targets"] for one in rows(trace)] == [[1, 3]]
    assert [one["state"] for one in trace.table_deliveries().to_pylist()] == ["guest", "idle"]


def test_a_deep_sleeper_belongs_to_whoever_waits_for_it(opened: Opened) -> None:
    sleeps = """
     40000 cpu3 PM_IDLE_ENTRY cx_index=3
     102000 cpu3 PM_IDLE_EXIT cx_index=3 vec0=0xfb
     104000 cpu3 PM_IDLE_ENTRY cx_index=3
    """
    scene = GUESTS + sleeps + hit(52_000, 1, 0xFB)
    assert [one["targets"] for one in rows(opened(scene + asks(50_000, 103_000)))] == [[1, 3]]
    assert [one["targets"] for one in rows(opened(scene + asks(50_000, 54_000)))] == [[1], [3]]


def test_calibration_comes_every_second_and_spares_nobody(opened: Opened) -> None:
    def everyone(at: int, *cpus: int) -> str:
        work = asks(at - 2_000, at + 2_000, reason=1)
        return work + "".join(hit(at + 30 * cpu, cpu, 0xFB) for cpu in cpus)

    second = 1_000_000_000
    scene = GUESTS + everyone(500_000, 1, 2, 3) + everyone(500_000 + second, 1, 2, 3)
    assert [one["guess"] for one in rows(opened(scene))] == ["calibration"] * 2
    spared = GUESTS + everyone(500_000, 1, 2) + everyone(500_000 + second, 1, 2)
    assert [one["guess"] for one in rows(opened(spared))] == ["call"] * 2
    leaves = asks(2 * second, 2 * second + 1_000, cpu=3, reason=12)
    assert [one["guess"] for one in rows(opened(spared + leaves))] == ["call"] * 2
    late = GUESTS + everyone(500_000, 1, 2, 3) + everyone(500_000 + second * 3 // 2, 1, 2, 3)
    assert [one["guess"] for one in rows(opened(late))] == ["call"] * 2


def test_windows_do_not_matter(opened: Opened) -> None:
    """The record before an episode, and the one after it, may be in other windows."""
    parts = [GUESTS, asks(50_000, 54_000) + hit(52_000, 1, 0xFB) + hit(52_030, 2, 0xFB), asks(80_000, 84_000)]
    whole, torn = (opened(between.join(parts)) for between in ("", "---"))
    assert whole.table_episodes().equals(torn.table_episodes())
    assert whole.table_deliveries().equals(torn.table_deliveries())


@pytest.mark.parametrize("size", [1, 3, 7])
def test_batches_do_not_matter(size: int, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record before an episode, the one after it, and its parts may be in other batches."""
    scene = GUESTS + asks(50_000, 54_000) + hit(52_000, 1, 0xFB) + hit(52_030, 2, 0xFB) + asks(80_000, 84_000)
    whole, torn = opened(scene), opened(scene)
    batches = torn.batches

    def pieces(_: Selection | None = None) -> Iterator[tuple[Batch, Any]]:
        for batch, _chosen in batches():
            for begin in range(0, len(batch.starts), size):
                yield batch.take(np.arange(begin, min(begin + size, len(batch.starts)))), None

    monkeypatch.setattr(torn, "batches", pieces)
    assert whole.table_episodes().equals(torn.table_episodes())
    assert whole.table_deliveries().equals(torn.table_deliveries())


# Emulated hosts.


@pytest.mark.parametrize("seed", [1, 2])
def test_moderate_load(seed: int, benchmark_module: ModuleType) -> None:
    found = benchmark_module.scored(benchmark_module.Load(episodes=800), seed)
    assert found.precision >= 0.95
    assert found.recall >= 0.95
    assert found.initiators >= 0.9


def test_confidence_is_kept(benchmark_module: ModuleType) -> None:
    """Of the episodes of hosts that deep sleep makes hard, about so many are right as was said."""
    load = benchmark_module.Load
    hosts = [
        load(busy=0.1, wake_ns=50_000, idle=0.3),
        load(busy=0.02, wake_ns=50_000, idle=0.3),
        load(),
        load(busy=0.5),
    ]
    found = benchmark_module.joined([benchmark_module.scored(one, 77) for one in hosts])
    doubted, trusted = found.sure < 0.7, found.sure >= 0.8
    assert doubted.sum() > 100
    assert found.right[doubted].mean() < 0.7
    assert trusted.sum() > 1_000
    assert found.right[trusted].mean() == pytest.approx(found.sure[trusted].mean(), abs=0.03)
    # It tells right from wrong.
    assert found.sure[found.right].mean() > found.sure[~found.right].mean() + 0.2


@pytest.fixture(scope="module")
def evacuation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inferred") / "stock.bin"
    command = ["emulate", "evacuate", "--model", "legacy", "--vendor", "vmx", "--seconds", "0.01", "--records", "stock"]
    assert run([*command, "-o", str(path)]) == 0
    return path


def test_migration_kicks(evacuation: Path) -> None:
    """Guests that are migrated kick their own CPUs, for nothing but writing to memory."""
    import pyarrow.parquet as pq

    true = pq.read_table(evacuation.with_suffix(".episodes.parquet"))
    with xtrace.open(evacuation, cpu_hz=2_400_000_000) as trace:
        frame = trace.df_episodes()
    # The others' only target was in the hypervisor, and left no record.
    assert 0.85 * true.num_rows < len(frame) <= true.num_rows
    assert (frame["guess"] == "kick").mean() > 0.95


def test_stored_and_read_again(evacuation: Path, tmp_path: Path) -> None:
    with xtrace.open(evacuation, cpu_hz=2_400_000_000) as trace, xtrace.store(trace, tmp_path) as stored:
        assert stored.tables.evidence == "inferred"
        assert stored.tables.model == trace.tables.model
        assert stored.table_episodes().equals(trace.table_episodes())
        assert stored.table_deliveries().equals(trace.table_deliveries())
        assert stored.table_episodes().schema.equals(INFERRED_EPISODES)
        assert stored.table_deliveries().schema.equals(INFERRED_DELIVERIES)
        assert stored.df_episodes().equals(trace.df_episodes())
        part = Selection(cpus=frozenset({2}), from_ns=1_000_000)
        assert inference(stored, part, 1) == inference(trace, part, 1)
        every = xtrace.load(tmp_path).df_episodes()
        assert len(every) == len(trace.df_episodes())


@pytest.mark.parametrize("model", ["legacy", "lockless", "linux"])
def test_overlaps_that_no_lock_allows_lower_the_confidence(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where calls overlap, confidence says about how many clusters are right; where a lock parts them, no word."""
    import pyarrow.parquet as pq

    path = tmp_path / "stock.bin"
    load = ["--guests", "3", "--vcpus", "4", "--cpus", "16", "--seconds", "0.02"]
    command = ["emulate", "evacuate", "--model", model, "--vendor", "vmx", *load, "--records", "stock"]
    assert run([*command, "-o", str(path)]) == 0
    capsys.readouterr()
    truth = pq.read_table(path.with_suffix(".deliveries.parquet"), filters=[("state", "==", "guest")]).to_pandas()
    episodes = truth.groupby("episode")
    true = {
        (one, frozenset(cpus))
        for one, cpus in zip(episodes.enter_ns.min() // 1000, episodes.cpu.apply(list), strict=True)
    }
    with xtrace.open(path, cpu_hz=2_400_000_000) as trace:
        found = inference(trace, Selection(), 1)
        assert found is not None
        table = trace.df_episodes()
    right = [
        any((first // 1000 + step, frozenset(cpus)) in true for step in (0, 1))
        for first, cpus in zip(table.first_ns, table.targets, strict=True)
    ]
    assert np.mean(right) == pytest.approx(table.confidence.mean(), abs=0.1)
    assert (found.overlapping > 0.1) == (model != "legacy")
    assert (found.overlapping == 0) == (model == "legacy")
    assert run(["analyze", str(path), "--section", "calls"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert ("overlap as they cannot under one lock" in out) == (model != "legacy")


def test_what_is_printed(evacuation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["analyze", str(evacuation), "--cpu-hz", "2.4G", "--section", "calls"]) == 0
    out = capsys.readouterr().out
    assert "evidence: inferred" in out
    assert "Inferred from interrupts on the targets, not traced" in out
    assert "need the tracepoints" in " ".join(out.split())
    assert "complete" not in out
    assert run(["analyze", str(evacuation), "--cpu-hz", "2.4G", "--section", "fairness"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "need the tracepoints" in out
    assert "by CPU" not in out


def test_json(evacuation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["analyze", str(evacuation), "--cpu-hz", "2.4G", "--section", "calls", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["hypervisor"]["evidence"] == "inferred"
    call = document["episodes"]["call"]
    assert call["count"] == sum(one["count"] for one in document["inferred"]["guesses"]) > 0
    assert call["targets"] == sum(one["count"] for one in document["inferred"]["targets"])
    assert call["complete"] == 0
    assert call["overlapping"] is None
    assert set(call["total_ns"].values()) == {None}
    assert all(document[name] is None for name in ("contention", "cost", "stragglers", "waste", "asynchronous"))


def test_nothing_is_checked_or_compared(evacuation: Path, sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(evacuation), "--cpu-hz", "2.4G"]) == 4
    assert run(["compare", str(evacuation), "vs", str(sample("bench8-legacy"))]) == 4
    assert "inferred ones, whose times are not known" in capsys.readouterr().err


def test_a_side_of_traced_and_inferred_is_warned_of(
    evacuation: Path, sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    traced = str(sample("bench8-legacy"))
    assert run(["compare", traced, str(evacuation), "vs", traced]) == 0
    assert "1 of the 2 traces of BEFORE hold no tracepoints" in " ".join(capsys.readouterr().out.split())


# Real traces.


@pytest.fixture
def hidden(sample: Sample, tmp_path: Path) -> Path:
    """The real VMX trace without its tracepoints."""
    path = tmp_path / "hidden.bin"
    path.write_bytes(without_tracepoints(sample("vmx-legacy").read_bytes()))
    return path


def test_hidden_tracepoints_are_found_again(hidden: Path, sample: Sample) -> None:
    """All three calls, which are time calibration: of their targets CPU 0 runs the function itself, unseen."""
    with (
        xtrace.open(sample("vmx-legacy"), cpu_hz=VMX_HZ) as trace,
        xtrace.open(hidden, cpu_hz=VMX_HZ) as stock,
    ):
        assert not stock.survey.skips
        assert stock.survey.total_records == trace.survey.total_records - 21
        true, found = rows(trace), rows(stock)
        assert [one["kind"] for one in found] == [one["kind"] for one in true] == ["call"] * 3
        assert [one["vector"] for one in found] == [0xFB] * 3
        assert [one["initiator"] for one in found] == [one["initiator"] for one in true] == [0] * 3
        assert [one["targets"] for one in true] == [[0, 1]] * 3
        assert [one["targets"] for one in found] == [[1]] * 3
        assert [one["guess"] for one in found] == ["calibration"] * 3
        # One met a guest, two woke CPU 1: their records come after the handler there (mwait-idle driver).
        assert [one["state"] for one in stock.table_deliveries().to_pylist()] == ["idle", "idle", "guest"]
        for one, other in zip(found, true, strict=True):
            assert other["send_ns"] < one["first_ns"] < other["done_ns"] + 1_000
        assert min(one["confidence"] for one in found) > 0.9


def test_the_section_of_the_real_trace(hidden: Path) -> None:
    with xtrace.open(hidden, cpu_hz=VMX_HZ) as trace:
        found = inference(trace, Selection(), trace.duration_ns)
    assert found is not None
    (only,) = found.guesses
    assert (only.guess, only.count, only.most) == ("calibration", 3, 1)
    assert only.per_s == pytest.approx(3 / 2.9, rel=0.05)
    section = chapter.section(found)
    assert all(table.heads[-1].text == "evidence" for table in section.tables)
    assert all("confidence" in {head.text for head in table.heads} for table in section.tables)


def test_a_selection(hidden: Path) -> None:
    with xtrace.open(hidden, cpu_hz=VMX_HZ) as trace:
        late = inference(trace, Selection(from_ns=1_000_000_000), 1)
        nobody = inference(trace, Selection(cpus=frozenset({1})), 1)
    assert late is not None
    assert sum(one.count for one in late.guesses) == 2
    assert nobody is not None
    assert nobody.guesses == ()
    assert list(chapter.answer(nobody)) == ["No call and no flush of this selection shows."]


@pytest.mark.parametrize("name", ["dom0-stock", "migrate-stock"])
def test_svm_tells_nothing(name: str, sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    with xtrace.open(sample(name)) as trace:
        assert trace.tables.evidence == "none"
        assert trace.tables.inferred is None
    assert run(["analyze", str(sample(name)), "--section", "calls"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "evidence: none" in out
    assert "Trace a hypervisor with the tracepoints" in out


def test_traces_with_tracepoints_are_not_inferred(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xtrace.episodes.inferred.infer", None)
    with xtrace.open(sample("vmx-legacy"), cpu_hz=VMX_HZ) as trace:
        assert trace.tables.evidence == "exact"
        assert trace.tables.inferred is None


def test_absurd_times(opened: Opened) -> None:
    huge = 1 << 62
    trace = opened(GUESTS + hit(52_000, 1, 0xFB) + hit(huge, 2, 0xFB))
    assert len(rows(trace)) == 2
    assert np.isfinite([one["confidence"] for one in rows(trace)]).all()
    terminal.chapter(terminal.console(110), chapter.section(inference(trace, Selection(), 0)))  # type: ignore[arg-type]

"""The emulator against the published table and a real pair of traces; its designs; its commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from math import sqrt
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Sample
from printed import HZ, PRINTED_NS
from scipy.stats import linregress

import xtrace
from xtrace.cli import run
from xtrace.emulator.costs import Costs
from xtrace.emulator.demand import Demand, demand
from xtrace.emulator.estimate import bench_of, costs_of
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.plan import Plan, read
from xtrace.emulator.replay import Replay
from xtrace.emulator.table import FITTED_HOST, mean_total, table
from xtrace.emulator.whatif import predict
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.emulator.workloads.evacuate import PAGES_DIRTIED, Evacuate
from xtrace.errors import UsageError
from xtrace.trace import Trace


@pytest.fixture(scope="module")
def legacy(sample: Sample) -> Iterator[Trace]:
    with xtrace.open(sample("bench8-legacy"), cpu_hz=HZ) as trace:
        yield trace


@pytest.fixture(scope="module")
def lockless(sample: Sample) -> Iterator[Trace]:
    with xtrace.open(sample("bench8-lockless"), cpu_hz=HZ) as trace:
        yield trace


def test_the_published_table_comes_out() -> None:
    found = table("legacy", "lockless", calls=100, runs=2)
    assert len(found.cells) == 21
    assert found.rms_error is not None
    assert found.rms_error <= 4.5
    assert all(abs(cell.change - (cell.published or 0)) <= 0.5 for cell in found.cells if cell.threads == 1)
    assert all(cell.low <= cell.change <= cell.high for cell in found.cells)


def test_nothing_is_published_of_other_designs() -> None:
    found = table("legacy", "fifo", calls=5, runs=1)
    assert found.rms_error is None
    assert all(cell.published is None and np.isnan(cell.low) for cell in found.cells)


def test_the_costs_of_a_real_trace_are_read_off_it(legacy: Trace) -> None:
    costs = costs_of(legacy.df_episodes(), legacy.df_deliveries())
    assert costs.fill_ns == pytest.approx(7583, abs=20)
    assert costs.flight_ns + costs.irq_entry_ns == pytest.approx(12_667, abs=20)
    assert costs.irq_entry_ns == pytest.approx(7833, abs=20)
    assert costs.notice_ns == pytest.approx(6417, abs=20)


def test_the_nine_cells_of_the_real_pair_come_out(legacy: Trace) -> None:
    episodes, deliveries = legacy.df_episodes(), legacy.df_deliveries()
    costs, loop = costs_of(episodes, deliveries), replace(bench_of(episodes, deliveries), calls=60, targets="idle")
    errors = []
    for (mask, callers), (before, after) in PRINTED_NS.items():
        bench = replace(loop, threads=callers, masks=Masks(mask))
        means = np.array(
            [
                [mean_total(Host(8, HZ, model, costs=costs, seed=seed), bench) for model in ("legacy", "lockless")]
                for seed in range(4)
            ]
        ).mean(axis=0)
        assert means[0] * 1e9 / HZ == pytest.approx(before, rel=0.01)
        errors.append(100 * (means[1] / means[0] - after / before))
    assert sqrt(np.mean(np.square(errors))) <= 2.5


def test_the_highest_caller_of_the_real_pair_waits_longest(legacy: Trace) -> None:
    asked = demand(legacy.table_episodes(), legacy.table_deliveries())
    costs = costs_of(legacy.df_episodes(), legacy.df_deliveries())
    busiest = [burst for burst in asked.bursts if len(burst.asked) == 4][-1]
    assert {len(one.targets) for of_cpu in busiest.asked.values() for one in of_cpu} == {4}
    for seed in range(4):
        host = Host(8, HZ, costs=replace(costs, flight_jitter_ns=250), seed=seed)
        replay = Replay(Demand((busiest,), 8, 0), host)
        replay.run()
        waits: dict[int, list[int]] = {}
        for _, call in replay.made:
            waits.setdefault(call.initiator, []).append(call.done - call.start)
        assert sorted(waits) == [0, 2, 4, 6]
        assert max(waits, key=lambda cpu: float(np.mean(waits[cpu]))) == 6
        assert max(waits, key=lambda cpu: max(waits[cpu])) == 6
        assert max(waits[6]) > 1.3 * max(waits[0] + waits[2] + waits[4])


def test_lockless_favours_low_cpus_and_fifo_none() -> None:
    def slope(model: str) -> tuple[float, float]:
        """Relative growth of a caller's mean wait from the lowest to the highest, and its standard error."""
        cpus, took = [], []
        for seed in range(30):
            bench = Bench(16, Masks(8), 60, work_ns=20_000, targets="idle", callers="first")
            measured = bench.measured(Host(64, model=model, seed=seed))
            cpus += [cpu for cpu, _ in measured]
            took += [cycles for _, cycles in measured]
        line = linregress(cpus, np.array(took) / np.mean(took))
        return 15 * line.slope, 15 * line.stderr

    growth, error = slope("lockless")
    assert growth > 3 * error
    assert growth > 0.03
    fair, error = slope("fifo")
    assert abs(fair) < 0.02


def test_whatif_predicts_the_real_lockless_trace(legacy: Trace, lockless: Trace) -> None:
    found = predict(legacy, "lockless", runs=3, against=lockless)
    assert found.traced_model == "legacy"
    assert found.left_out == 0
    assert found.episodes == 1282
    assert len(found.cells) == 11
    for line in found.cells.values():
        assert line.against_ns is not None
        assert line.predicted_ns == pytest.approx(line.against_ns, rel=0.10)
        assert line.low_ns <= line.predicted_ns <= line.high_ns
    assert found.phases["total"].predicted_ns == pytest.approx(lockless.df_episodes().total_ns.mean(), rel=0.02)
    assert found.phases["execution"].predicted_ns == pytest.approx(found.phases["execution"].traced_ns, rel=1e-6)


def test_evacuation_gains_from_lockless_with_ten_guests() -> None:
    dirtied = {}
    for model in ("legacy", "lockless"):
        load = Evacuate(guests=10)
        emulation = Emulation(Host(load.cpus(), model=model, vendor="svm"), traced=False)
        load.install(emulation)
        emulation.run(20e6)
        dirtied[model] = emulation.counted[PAGES_DIRTIED]
    assert 1.05 < dirtied["lockless"] / dirtied["legacy"] < 1.4


def test_linux_falls_behind_as_the_mask_grows() -> None:
    def gap(size: int) -> float:
        bench = Bench(masks=Masks(size), calls=50, work_ns=1_000, targets="idle")
        linux, lockless = (mean_total(Host(128, model=model), bench) for model in ("linux", "lockless"))
        return linux - lockless

    assert gap(1) < gap(16) < gap(64)


def test_aligned_masks_begin_at_multiples() -> None:
    from random import Random

    random = Random(1)
    for _ in range(50):
        mask = Masks(4, "aligned", with_self=True).draw(0, 16, random)
        assert mask[0] % 4 == 0
        assert mask == tuple(range(mask[0], mask[0] + 4))


@pytest.mark.parametrize(
    ("masks", "cpus"),
    [(Masks(0), 8), (Masks(8), 8), (Masks(9, with_self=True), 8), (Masks(2, unit=3), 8), (Masks(2, within=3), 8)],
)
def test_masks_that_do_not_fit_are_refused(masks: Masks, cpus: int) -> None:
    with pytest.raises(UsageError):
        masks.check(cpus)


@pytest.mark.parametrize("ns", [-1, float("nan"), float("inf"), 1e12])
def test_costs_out_of_range_are_refused(ns: float) -> None:
    with pytest.raises(UsageError, match="flush_ns"):
        Costs(flush_ns=ns)


LOAD = """
seconds = 0.002
[host]
cpus = 10
vendor = "svm"
model = "fifo"
tsc_offsets = { 1 = 250 }
[host.costs]
wake_ns = 3000
[tool]
ring_pages = 2
[evacuate]
guests = 1
[bench]
threads = 2
work_ns = 2_000
masks = { size = 3, policy = "contiguous" }
"""


def test_a_workload_file_says_everything(tmp_path: Path) -> None:
    path = tmp_path / "load.toml"
    path.write_text(LOAD)
    plan = read(str(path))
    assert plan.host == Host(10, model="fifo", vendor="svm", costs=Costs(wake_ns=3000), tsc_offsets={1: 250})
    assert plan.evacuate == Evacuate(1)
    assert plan.bench == Bench(2, Masks(3, "contiguous"), work_ns=2000)
    assert plan.idle is None
    assert plan.run().duration_ns == pytest.approx(2e6)


def test_options_come_before_the_workload_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "load.toml"
    path.write_text(LOAD)
    options = ["--model", "legacy", "--cpus", "12", "--vendor", "vmx", "--seed", "9"]
    assert run(["emulate", str(path), *options, "-o", str(tmp_path / "out.bin")]) == 0
    assert "12 CPUs, vmx, legacy, seed 9" in capsys.readouterr().out
    with xtrace.open(tmp_path / "out.bin", cpu_hz=2_400_000_000) as trace:
        assert trace.tables.model == "legacy"
        assert trace.dialect.vendor == "vmx"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[bench", "not a workload file"),
        ("", "no workload"),
        ("[bench]\nthread = 1", "thread is not known; give threads"),
        ("[bench]\nthreads = 'x'", "bench: threads = 'x': give a whole number"),
        ("[bench]\nthreads = true", "give a whole number"),
        ("[bench]\nmasks = 3", "masks: give a table"),
        ("[bench]\nmasks = { size = 2, policy = 'odd' }", "policy = 'odd': give random"),
        ("[idle]\n[host]\ntsc_offsets = { x = 1 }", "give CPUs and cycles"),
        ("[idle]\n[host]\ncpus = 0", "0 CPUs"),
        ("[idle]\n[host]\nhz = 5", "out of range"),
        ("[idle]\n[host]\nmodel = 'x'", "no model x"),
        ("[idle]\n[host.costs]\nwake_ns = nan", "wake_ns = nan"),
        ("seconds = 0\n[idle]", "0.0 seconds"),
        ("seconds = nan\n[idle]", "nan seconds"),
        ("[bench]\nthreads = 99", "99 threads"),
        ("[evacuate]\nguests = 99", "99 guests"),
    ],
)
def test_a_bad_workload_file_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    path = tmp_path / "load.toml"
    path.write_text(text)
    assert run(["emulate", str(path), "-o", str(tmp_path / "out.bin")]) in (2, 3)
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert said.err.count("\n") == 1
    assert [one.name for one in tmp_path.iterdir()] == ["load.toml"]


COMMANDS = {
    "bench": ["bench", "--model", "legacy", "--threads", "2", "--mask", "2", "--calls", "5"],
    "evacuate": ["evacuate", "--seconds", "0.001"],
    "idle": ["idle", "--seconds", "0.6"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_workload_writes_a_trace_with_its_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "out.bin"
    assert run(["emulate", *COMMANDS[name], "-o", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    truth = pq.read_table(tmp_path / "out.episodes.parquet")
    with xtrace.open(out, cpu_hz=2_400_000_000) as trace:
        assert trace.table_episodes()["start_ns"].equals(truth["start_ns"])
        assert len(truth) > 0
    before = out.read_bytes()
    assert run(["emulate", *COMMANDS[name], "-o", str(out)]) == 2
    assert "exists already; give --force" in capsys.readouterr().err
    assert run(["emulate", *COMMANDS[name], "-o", str(out), "--force"]) == 0
    assert out.read_bytes() == before


def test_a_stock_trace_has_no_tracepoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out.bin")
    assert run(["emulate", *COMMANDS["bench"], "--vendor", "svm", "--records", "stock", "-o", out]) == 0
    assert run(["analyze", out]) == 0
    assert "evidence: none" in capsys.readouterr().out
    assert len(pq.read_table(tmp_path / "out.episodes.parquet")) == 10


def test_an_output_that_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["emulate", "idle", "-o", str(tmp_path / "no" / "out.bin")]) == 2
    assert "no such directory" in capsys.readouterr().err
    assert run(["emulate", "idle", "-o", str(tmp_path)]) == 2
    assert "a directory" in capsys.readouterr().err


def test_a_bench_can_be_made_like_a_trace(tmp_path: Path, sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out.bin")
    like = ["--like", str(sample("bench8-legacy")), "--cpu-hz", "60M"]
    assert run(["emulate", "bench", *like, "--model", "legacy", "--calls", "20", "-o", out]) == 0
    capsys.readouterr()
    with xtrace.open(out, cpu_hz=HZ) as trace:
        assert trace.df_episodes().total_ns.median() == pytest.approx(533_500, rel=0.01)
    assert run(["emulate", "bench", "--cpu-hz", "60M", "-o", str(tmp_path / "b.bin")]) == 2
    assert run(["emulate", "bench", "--like", str(sample("vmx-legacy")), "-o", str(tmp_path / "c.bin")]) == 2
    assert "no CPU of this trace calls functions in a loop" in capsys.readouterr().err
    assert run(["emulate", "bench", "--like", str(sample("dom0-stock")), "-o", str(tmp_path / "c.bin")]) == 4
    assert "no SMP_* or TLB_FLUSH_* records; it has TRC_PV_HYPERCALL_V2" in capsys.readouterr().err


def test_the_table_command_prints_and_gives_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["emulate", "table", "--calls", "3", "--runs", "2"]) == 0
    assert "root-mean-square error" in capsys.readouterr().out
    assert run(["emulate", "table", "--after", "linux", "--calls", "3", "--runs", "1", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "xtrace.table/1"
    assert len(document["cells"]) == 21
    assert run(["emulate", "table", "--runs", "0"]) == 2
    assert FITTED_HOST.seed == 1


def test_whatif_prints_gives_json_and_writes(
    tmp_path: Path, sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(sample("bench8-legacy")), str(tmp_path / "out.bin")
    arguments = ["whatif", source, "--cpu-hz", "60M", "--runs", "1"]
    assert run([*arguments, "--against", str(sample("bench8-lockless")), "-o", out]) == 0
    assert "Mean total by CPUs in the mask and callers" in capsys.readouterr().out
    with xtrace.open(out, cpu_hz=HZ) as trace:
        assert len(trace.df_episodes()) == 1282
        assert trace.tables.model == "lockless"
    assert run([*arguments, "--model", "fifo", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "xtrace.whatif/1"
    assert document["phases"]["total"]["traced_ns"] == pytest.approx(1_541_644, abs=1)
    assert run([*arguments, "-o", out]) == 2
    assert run(["whatif", str(sample("dom0-stock"))]) == 4
    assert "no SMP_* or TLB_FLUSH_* records; it has TRC_PV_HYPERCALL_V2" in capsys.readouterr().err


def test_a_plan_without_a_workload_still_runs() -> None:
    emulation = Plan(Host(2), idle=None, seconds=0.001).run()
    assert emulation.requests == []
    assert {row[0] for row in emulation.log.rows} == {0, 1}


def test_the_manual_lists_every_cost_with_its_default() -> None:
    manual = (Path(__file__).parent.parent / "docs/emulator.md").read_text(encoding="utf-8")
    for one in fields(Costs):
        assert f"| `{one.name}` | {one.default:g} | {one.metadata['meaning']} |" in manual

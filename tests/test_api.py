"""The Python interface."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pyarrow as pa
import pytest
from conftest import Sample

import xtrace
from xtrace.comparison import document
from xtrace.dataset.write import write
from xtrace.emulator.host import Host
from xtrace.emulator.machine import Activity, Cpu
from xtrace.emulator.models.lockless import Lockless
from xtrace.emulator.plan import Plan
from xtrace.emulator.requests import Request
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.episodes.tables import DELIVERIES, EPISODES
from xtrace.errors import InputError, MissingEventsError, UsageError
from xtrace.trace_file import TraceFile

SAMPLES = Path(__file__).parent.parent / "sample_traces"


@pytest.fixture(scope="module")
def trace() -> xtrace.Trace:
    return xtrace.open(SAMPLES / "bench-lockless.bin", symbols=SAMPLES / "symbols-lockless.map")


def test_exported_names() -> None:
    assert sorted(xtrace.__all__) == xtrace.__all__
    assert all(hasattr(xtrace, name) for name in xtrace.__all__)
    with pytest.raises(AttributeError):
        _ = xtrace.nothing


def test_tables_have_their_schemas(trace: xtrace.Trace) -> None:
    assert trace.table_episodes().schema.equals(EPISODES)
    assert trace.table_deliveries().schema.equals(DELIVERIES)
    assert all(field.metadata[b"meaning"] for field in [*EPISODES, *DELIVERIES])


def test_frames(trace: xtrace.Trace) -> None:
    episodes, deliveries = trace.df_episodes(), trace.df_deliveries()
    assert list(episodes.columns) == EPISODES.names
    assert episodes["start_ns"].dtype == pd.Int64Dtype()
    assert episodes["initiator"].dtype == "uint16"
    assert episodes["episode"].is_monotonic_increasing
    assert episodes["start_ns"].dropna().is_monotonic_increasing
    flushes = episodes[episodes["kind"] == "flush"]
    assert flushes["func"].isna().all()
    assert episodes.loc[episodes["kind"] == "call", "flush_flags"].isna().all()
    carried = episodes["parent"].dropna()
    assert set(carried) <= set(flushes["episode"])
    assert set(episodes.loc[carried.index, "func_name"]) == {"arch/x86/smp.c#invalidate_cb"}
    both = deliveries.merge(episodes[["episode", "n_targets"]], on="episode")
    assert (both.groupby("episode").size() >= both.groupby("episode")["n_targets"].first().fillna(0)).all()
    assert (episodes["total_ns"] == episodes["done_ns"] - episodes["start_ns"]).dropna().all()


def test_missing_is_null(trace: xtrace.Trace) -> None:
    cut = trace.df_episodes()
    cut = cut[~cut["complete"]]
    assert len(cut) == 2
    assert cut["done_ns"].isna().any()
    assert cut["domain"].isna().all(), "a hardware-only trace tells no vCPU"


def test_events(trace: xtrace.Trace) -> None:
    starts = trace.df_events("smp_call_start")
    assert list(starts.columns) == ["ns", "tsc", "cpu", "event", "domain", "vcpu", "seq", "func", "wait", "n_cpus"]
    assert len(starts) == 1556
    assert starts["ns"].is_monotonic_increasing
    assert isinstance(trace.table_events("0x804001"), pa.Table)
    everything = trace.df_events("HW")
    assert set(everything["event"]) >= {"SMP_CALL_START", "TRC_HW_IRQ_HANDLED"}
    assert everything.loc[everything["event"] == "SMP_CALL_DONE", "func"].isna().all()


def test_events_that_are_not_there(trace: xtrace.Trace) -> None:
    with pytest.raises(MissingEventsError, match="no HVM records; it has SMP_CALL_ENTER"):
        trace.df_events("HVM")
    with pytest.raises(UsageError, match="no such event"):
        trace.df_events("TRC_NONSENSE")


def test_summary_and_info_agree(trace: xtrace.Trace) -> None:
    assert trace.summary()["trace"] == trace.info["trace"]
    some = trace.summary(xtrace.Selection(cpus=frozenset({0})))
    assert [row["cpu"] for row in some["episodes"]["call"]["fairness"]["initiators"]] == [0]


def test_no_such_file() -> None:
    with pytest.raises(InputError, match="No such file"):
        _ = xtrace.open("nowhere.bin").info


def test_the_readme_example_runs() -> None:
    readme = (SAMPLES.parent / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    exec(code.replace("sample_traces/", f"{SAMPLES}/"), {})


def test_store_adds_to_a_dataset(tmp_path: Path) -> None:
    stored = xtrace.store(PAIR[0], tmp_path)
    assert stored.folder.name == "trace=bench8-legacy"
    assert stored.clock.source == "default"
    with xtrace.open(PAIR[0], cpu_hz=60_000_000) as given:
        again = xtrace.store(given, tmp_path, host="lab7")
    assert (again.clock.hz, again.clock.source, again.facts["host"]) == (60_000_000, "option", "lab7")
    assert xtrace.load(tmp_path).names == ["bench8-legacy"]
    with pytest.raises(UsageError, match="is stored already"):
        xtrace.store(again, tmp_path, name="copy")
    with pytest.raises(UsageError, match="holds another trace"):
        xtrace.store(PAIR[1], tmp_path, name="bench8-legacy")


def test_missing_events_are_data() -> None:
    with xtrace.open(SAMPLES / "dom0-stock.bin") as stock, pytest.raises(MissingEventsError) as error:
        stock.df_episodes()
    assert error.value.missing == ("SMP_*", "TLB_FLUSH_*")
    assert error.value.present == stock.event_counts()
    with pytest.raises(MissingEventsError) as error:
        stock.df_events("HVM")
    assert error.value.missing == ("HVM",)


PAIR = [SAMPLES / f"bench8-{model}.bin" for model in ("legacy", "lockless")]


def test_compare_takes_paths_traces_and_datasets(tmp_path: Path) -> None:
    """The same answer, however a side is given."""
    before, after = (xtrace.open(path, cpu_hz=60_000_000) for path in PAIR)
    of_traces = document(xtrace.compare(before, [after]))
    assert of_traces["kinds"]["call"]["before"]["complete"] == 1282
    for path in PAIR:
        with TraceFile(path, cpu_hz=60_000_000) as trace:
            write(trace, tmp_path / path.stem, path.stem)
    of_datasets = xtrace.compare(tmp_path / "bench8-legacy", [tmp_path / "bench8-lockless"])
    assert document(of_datasets) == of_traces
    some = xtrace.compare(before, after, xtrace.Selection(cpus=frozenset({0})))
    assert some.kinds["call"].before.count < 1282
    of_paths = xtrace.compare(str(PAIR[0]), PAIR[1])
    assert of_paths.kinds["call"].before.complete == 1282


class Slow(Lockless):
    """Lockless calls on a machine where a call costs its caller a millisecond more."""

    name: ClassVar[str] = "slow"

    def call(self, cpu: Cpu, call: Request) -> Activity:
        yield self.machine.cycles(1_000_000)
        yield from super().call(cpu, call)


def test_emulate_a_design_of_ones_own(tmp_path: Path) -> None:
    host = Host(4, model=Slow, seed=3)
    plan = Plan(host, bench=Bench(threads=1, masks=Masks(2), calls=10, work_ns=1000.0))
    out = tmp_path / "out.bin"
    with xtrace.emulate(plan, out) as trace:
        assert trace.clock.hz == host.hz
        calls = trace.df_episodes().query("kind == 'call' and complete")
        assert len(calls) >= 10
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "out.bin",
        "out.deliveries.parquet",
        "out.episodes.parquet",
    ]
    with pytest.raises(UsageError, match="exists already"):
        xtrace.emulate(plan, out)
    first = out.read_bytes()
    xtrace.emulate(plan, out, force=True)
    assert out.read_bytes() == first
    with pytest.raises(UsageError, match="no model fast: give legacy"):
        Host(model="fast")


def test_whatif_takes_designs() -> None:
    found = xtrace.whatif(PAIR[0], "lockless", runs=1, against=PAIR[1])
    assert (found.model, found.traced_model, found.runs) == ("lockless", "legacy", 1)
    assert found.phases["total"].against_ns is not None
    slow = xtrace.whatif(xtrace.open(PAIR[0]), Slow, runs=1)
    assert slow.model == "slow"
    with pytest.raises(UsageError, match="no model fast"):
        xtrace.whatif(PAIR[0], "fast")


def test_installed_types() -> None:
    """Whoever imports xtrace gets its annotations."""
    assert files("xtrace").joinpath("py.typed").is_file()


@pytest.mark.parametrize("ask", ["df_episodes", "df_deliveries", "df_runstates"])
def test_frames_keep_what_their_docstrings_promise(ask: str) -> None:
    """Name, dtype and order of each column."""
    with xtrace.open(SAMPLES / "vmx-legacy.bin") as real:
        method = getattr(real, ask)
        _, _, contract = (method.__doc__ or "").rpartition("\n\n")
        promised = [line.split()[:2] for line in contract.splitlines()]
        assert [[name, str(dtype)] for name, dtype in method().dtypes.items()] == promised
    assert all(len(row) == 2 for row in promised)


def test_frames_of_datasets_keep_what_their_docstrings_promise(tmp_path: Path) -> None:
    with TraceFile(SAMPLES / "vmx-legacy.bin") as real:
        write(real, tmp_path, "vmx")
    for ask in ("df_traces", "df_episodes", "df_deliveries", "df_runstates"):
        method = getattr(xtrace.load(tmp_path), ask)
        _, _, contract = (method.__doc__ or "").rpartition("\n\n")
        promised = [line.split()[:2] for line in contract.splitlines()]
        assert [[name, str(dtype)] for name, dtype in method().dtypes.items()] == promised


def test_dependencies_point_one_way() -> None:
    """Only the command line knows reports, and parsers know nothing of the program but its errors."""
    root = SAMPLES.parent
    for path in sorted((root / "xtrace").glob("**/*.py")):
        if path.parts[len(root.parts) + 1] in {"reports", "parsers"} or path.name.startswith("cli"):
            continue
        assert "xtrace.reports" not in path.read_text().replace("xtrace.reports.figures", ""), path
    for path in sorted((root / "parsers").glob("*.py")):
        known = re.findall(r"(?:from|import) xtrace\.(\w+)", path.read_text())
        assert set(known) <= {"parsers", "errors"}, path


def test_waits_one_by_one_are_what_callers_lost(sample: Sample) -> None:
    with xtrace.open(sample("bench8-lockless"), cpu_hz=60_000_000) as trace:
        waits = trace.df_waits()
        lost = trace.answers().contention.spent["all"]
        part = trace.df_waits(xtrace.Selection(frozenset({6})))
    by_cause = waits.groupby("cause", observed=True)["wait_ns"].sum()
    assert by_cause.to_dict() == {"queue": lost.queue_ns, "serving": lost.serving_ns}
    assert set(part["initiator"]) == {6}
    assert 0 < part["wait_ns"].sum() < waits["wait_ns"].sum()

"""The Python interface."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

import xtrace
from xtrace.episodes.tables import DELIVERIES, EPISODES
from xtrace.errors import InputError, MissingEventsError, UsageError

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

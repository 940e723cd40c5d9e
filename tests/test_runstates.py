"""How long vCPUs stayed in which state: real traces beside their records, and small captures with their answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from captures import capture, same
from conftest import Opened, Sample

import xtrace
from xtrace.errors import MissingEventsError
from xtrace.runstates import RUNSTATES

COLUMNS = "domain vcpu state cpu begin_ns end_ns duration_ns complete"


@pytest.mark.parametrize("name", ["dom0-stock", "migrate-stock", "migrate-legacy", "vmx-legacy"])
def test_real_traces(name: str, sample: Sample) -> None:
    """Every change ends one stay and begins one, on its CPU; a vCPU is in one state at a time, a CPU runs one vCPU."""
    with xtrace.open(sample(name)) as trace:
        stays, changes = trace.df_runstates(), trace.df_events("TRC_SCHED_RUNSTATE_CHANGE")
    vcpus = len(changes[["domid", "vcpuid"]].drop_duplicates())
    assert len(stays) == len(changes) + vcpus, "no change was missed"
    assert stays["begin_ns"].isna().sum() == stays["end_ns"].isna().sum() == vcpus
    assert (stays["complete"] == (stays["begin_ns"].notna() & stays["end_ns"].notna())).all()
    ended = stays[stays["end_ns"].notna()].reset_index(drop=True)
    assert ended["end_ns"].equals(changes["ns"].reset_index(drop=True))
    assert ended["state"].astype(str).tolist() == changes["old_state"].tolist()
    assert (ended["duration_ns"] == ended["end_ns"] - ended["begin_ns"]).dropna().all()
    whole = stays[stays["complete"]]
    for keys in (["domain", "vcpu"], ["cpu"]):
        chosen = whole if "vcpu" in keys else whole[whole["state"] == "running"]
        for _, mine in chosen.sort_values(["begin_ns", "end_ns"]).groupby(keys):
            assert (mine["begin_ns"].to_numpy()[1:] >= mine["end_ns"].to_numpy()[:-1]).all()


def test_a_migration_keeps_its_guests_runnable(sample: Sample) -> None:
    """Golden: sums over complete stays, by an addition over the records in order of time."""
    with xtrace.open(sample("migrate-legacy")) as trace:
        stays = trace.df_runstates()
        changes = trace.df_events("TRC_SCHED_RUNSTATE_CHANGE")
    expected: dict[tuple[int, int, str], int] = {}
    last: dict[tuple[int, int], tuple[str, int]] = {}
    columns = [changes[name].tolist() for name in ("domid", "vcpuid", "old_state", "new_state", "ns")]
    for domain, vcpu, old, new, ns in zip(*columns, strict=True):
        if (domain, vcpu) in last:
            state, since = last[domain, vcpu]
            assert state == old
            expected[domain, vcpu, state] = expected.get((domain, vcpu, state), 0) + ns - since
        last[domain, vcpu] = new, ns
    sums = stays[stays["complete"]].groupby(["domain", "vcpu", "state"], observed=True)["duration_ns"].sum()
    assert dict(zip(sums.index.tolist(), sums.tolist(), strict=True)) == expected


def test_stays_of_a_small_capture(opened: Opened) -> None:
    text = """
        10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=2 old_state=runnable new_state=running
        25 cpu1 RUNSTATE_CHANGE domid=3 vcpuid=0 old_state=blocked new_state=runnable
        40 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=2 old_state=running new_state=blocked
        70 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=2 old_state=blocked new_state=runnable
    """
    with opened(text) as trace:
        same(
            f"""
            {COLUMNS}
            1 2 runnable - - 0 - no
            3 0 blocked - - 15 - no
            1 2 running 0 0 30 30 yes
            1 2 blocked 0 30 60 30 yes
            3 0 runnable 1 15 - - no
            1 2 runnable 1 60 - - no
            """,
            trace.table_runstates(),
        )
        assert trace.table_runstates().schema.equals(RUNSTATES, check_metadata=True)


def test_a_change_that_is_missing(opened: Opened) -> None:
    """Blocked was left, but running was known: how long each of them lasted was not seen."""
    text = """
        10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        50 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=blocked new_state=runnable
    """
    with opened(text) as trace:
        same(
            f"""
            {COLUMNS}
            1 0 runnable - - 0 - no
            1 0 running 0 0 - - no
            1 0 blocked - - 40 - no
            1 0 runnable 1 40 - - no
            """,
            trace.table_runstates(),
        )


@pytest.mark.parametrize(
    ("first_ns", "marker_ns", "complete"),
    [(20, 25, "no"), (5, 10, "no"), (30, 35, "no"), (5, 9, "yes"), (31, 35, "yes")],
)
def test_what_was_lost_meanwhile(first_ns: int, marker_ns: int, complete: str, opened: Opened) -> None:
    """A stay is whole only if no CPU lost records while it lasted: another CPU's may have been its changes."""
    text = f"""
        0 cpu0 CSCHED2_TICKLE
        10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        30 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
        {marker_ns} cpu1 LOST_RECORDS lost=3 first_tsc={first_ns}
    """
    with opened(text) as trace:
        stays = trace.table_runstates().filter(_is(trace, "running"))
        same(f"begin_ns end_ns complete\n10 30 {complete}", stays)


def _is(trace: xtrace.Trace, state: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(trace.df_runstates()["state"] == state)


def test_captures_one_behind_the_other(tmp_path: Path) -> None:
    """A second capture begins with another clock; nobody knows what was between them."""
    change = "RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running"
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(f"900000000 cpu0 {change}") + capture(f"5 cpu0 {change}"))
    with xtrace.open(path, cpu_hz=10**9) as trace:
        stays = trace.df_runstates()
    assert len(stays) == 4
    assert stays["duration_ns"].isna().all()


def test_traces_without_changes(opened: Opened) -> None:
    with opened("1 cpu0 CSCHED2_TICKLE") as trace, pytest.raises(MissingEventsError) as error:
        trace.df_runstates()
    assert error.value.missing == ("TRC_SCHED_RUNSTATE_CHANGE",)
    assert error.value.present == {"TRC_TRACE_CPU_CHANGE": 1, "TRC_CSCHED2_TICKLE": 1}


def test_frames_have_integers(sample: Sample) -> None:
    with xtrace.open(sample("dom0-stock")) as trace:
        frame = trace.df_runstates()
    assert list(frame.columns) == COLUMNS.split()
    assert frame["duration_ns"].dtype == pd.Int64Dtype()
    assert frame["domain"].dtype == "uint16"

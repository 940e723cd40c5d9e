"""Whatever the records are, and however they come in chunks, what is told of vCPUs and CPUs is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from captures import capture
from host_parts import followed
from hypothesis import given, settings
from hypothesis import strategies as st

import xtrace
from xtrace.host.account import Account
from xtrace.host.cpus import CpusAccount
from xtrace.host.power import PowerAccount
from xtrace.host.runstates import RunstatesAccount

STATES: Final = ("running", "runnable", "blocked", "offline")


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Records in order of time on three CPUs, of four vCPUs, with no regard to what can be."""
    found, now = [], 0
    begin = {0: 0, 1: 0, 2: 0}
    for _ in range(draw(st.integers(1, 40))):
        now += draw(st.integers(1, 9))
        cpu = draw(st.integers(0, 2))
        domain, vcpu = draw(st.sampled_from(((1, 0), (1, 1), (2, 0), (32767, 1))))
        kind = draw(st.sampled_from(("change", "change", "change", "continue", "lost", "sleep", "wake")))
        if kind == "change":
            old, new = draw(st.sampled_from([(a, b) for a in STATES for b in STATES if a != b]))
            text = f"RUNSTATE_CHANGE domid={domain} vcpuid={vcpu} old_state={old} new_state={new}"
        elif kind == "continue":
            text = f"TRC_SCHED_CONTINUE_RUNNING domid={domain} vcpuid={vcpu}"
        elif kind == "lost":
            first = draw(st.integers(min(begin[cpu] + 1, now), now))
            text = f"LOST_RECORDS lost=1 domid={domain} vcpuid={vcpu} first_tsc={first}"
        elif kind == "sleep":
            text = f"PM_IDLE_ENTRY cx_index=1 tick={now}"
        else:
            text = f"PM_IDLE_EXIT cx_index=1 tick={now}"
        begin[cpu] = now
        found.append(f"{now} cpu{cpu} {text}")
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pieces") / "trace.bin"


@given(text=lines(), piece=st.integers(1, 9))
@settings(max_examples=60)
def test_pieces(path: Path, text: list[str], piece: int) -> None:
    path.write_bytes(capture("\n".join(text)))
    kinds: tuple[type[Account[Any]], ...] = (RunstatesAccount, CpusAccount, PowerAccount)
    with xtrace.open(path, cpu_hz=10**9) as trace:
        for kind in kinds:
            assert followed(trace, kind, piece=piece).found(0) == followed(trace, kind).found(0)

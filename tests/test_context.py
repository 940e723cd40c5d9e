"""Who runs where, as golden tests: the domain and vCPU that each record of a small trace is given."""

from __future__ import annotations

from pathlib import Path

import pytest
from captures import ZERO_CYCLES, capture, same
from conftest import Opened

import xtrace


def test_from_departure_to_arrival_nobody(opened: Opened) -> None:
    """A record belongs to whoever was there before it, so that a departure is the last of who leaves."""
    text = """
          0 cpu0 CSCHED2_UPDATE_LOAD
         10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=2 old_state=runnable new_state=running
         20 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=2 old_state=running new_state=blocked
         20 cpu0 RUNSTATE_CHANGE domid=32767 vcpuid=0 old_state=runnable new_state=running
         30 cpu0 CSCHED2_UPDATE_LOAD
    """
    with opened(text) as trace:
        same(
            "ns domain vcpu\n0 - -\n10 - -\n20 1 2\n20 - -\n30 32767 0",
            trace.table_events("SCHED"),
        )


def test_changes_that_are_none_of_this_cpus(opened: Opened) -> None:
    """A vCPU that is woken on one CPU, or runs on another, says nothing of who is here."""
    text = """
          0 cpu0 CONTINUE_RUNNING domid=1 vcpuid=0
          5 cpu1 RUNSTATE_CHANGE domid=3 vcpuid=0 old_state=runnable new_state=running
         10 cpu0 RUNSTATE_CHANGE domid=2 vcpuid=7 old_state=blocked new_state=runnable
         20 cpu0 CSCHED2_UPDATE_LOAD
    """
    with opened(text) as trace:
        same(
            "cpu domain vcpu\n0 - -\n1 - -\n0 1 0\n0 1 0",
            trace.table_events("SCHED"),
        )


def test_across_windows(opened: Opened) -> None:
    text = """
          0 cpu0 CONTINUE_RUNNING domid=1 vcpuid=4
          1 cpu1 CONTINUE_RUNNING domid=2 vcpuid=5
        ---
         20 cpu1 CSCHED2_UPDATE_LOAD
        ---
         10 cpu0 CSCHED2_UPDATE_LOAD
    """
    with opened(text) as trace:
        same("ns domain vcpu\n10 1 4\n20 2 5", trace.table_events("CSCHED2_UPDATE_LOAD"))


def test_records_without_a_time(opened: Opened) -> None:
    """They have the occupant and the time of what stands before them, if anything does."""
    text = """
          - cpu0 HVM_NMI
          0 cpu0 CONTINUE_RUNNING domid=1 vcpuid=4
          - cpu0 HVM_NMI
        ---
          - cpu0 HVM_NMI
    """
    with opened(text) as trace:
        same("ns cpu domain vcpu\n- 0 - -\n0 0 1 4\n0 0 1 4", trace.table_events("HVM_NMI"))


@pytest.mark.parametrize("evidence", ["CONTINUE_RUNNING domid=1 vcpuid=0", "SWITCH next_domid=1 next_unit=0"])
def test_after_lost_records(evidence: str, opened: Opened) -> None:
    """The marker names the vCPU that was current when there was room again."""
    text = f"""
          0 cpu0 {evidence}
          1 cpu0 CSCHED2_UPDATE_LOAD
         40 cpu0 LOST_RECORDS lost=3 domid=6 vcpuid=7 first_tsc=10
         50 cpu0 CSCHED2_UPDATE_LOAD
    """
    with opened(text) as trace:
        same("ns domain vcpu\n1 1 0\n50 6 7", trace.table_events("CSCHED2_UPDATE_LOAD"))


def test_switches_serve_where_no_runstate_was_traced(opened: Opened) -> None:
    text = """
          0 cpu0 SWITCH prev_domid=32767 prev_unit=0 next_domid=5 next_unit=1
         10 cpu0 SWITCH prev_domid=5 prev_unit=1 next_domid=32767 next_unit=0
         20 cpu0 SCHED_WAKE domid=5 vcpuid=1
    """
    with opened(text) as trace:
        same("ns domain vcpu\n0 - -\n10 5 1\n20 32767 0", trace.table_events("SCHED"))


@pytest.mark.parametrize(
    "fields", ["next_domid=65536 next_unit=0", "next_domid=4294967295", "next_domid=1 next_unit=70000"]
)
def test_numbers_that_no_vcpu_has(fields: str, opened: Opened) -> None:
    """A switch record has 32 bits for what has 16 in Xen; more is damage, and tells nobody."""
    with opened(f"0 cpu0 SWITCH {fields}\n10 cpu0 CSCHED2_UPDATE_LOAD") as trace:
        same("ns domain vcpu\n10 - -", trace.table_events("CSCHED2_UPDATE_LOAD"))


def test_another_capture_begins_with_nobody(tmp_path: Path) -> None:
    first = capture("0 cpu0 CONTINUE_RUNNING domid=1 vcpuid=0\n900000000 cpu0 CSCHED2_UPDATE_LOAD")
    path = tmp_path / "two.bin"
    path.write_bytes(first + capture("5 cpu0 CSCHED2_UPDATE_LOAD"))
    with xtrace.open(path, cpu_hz=10**9) as trace:
        assert trace.survey.captures == 2
        assert trace.survey.zero_tsc == ZERO_CYCLES
        same("ns domain vcpu\n900000000 1 0\n5 - -", trace.table_events("CSCHED2_UPDATE_LOAD"))

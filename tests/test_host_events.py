"""Interrupts, PV events and memory operations together: datasets, anything that a file may hold, and how they look."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Opened, Sample
from host_parts import followed
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from strategies import Window, build_capture, captures, records, undeclared_records

import xtrace
from xtrace.host.account import Account
from xtrace.host.interrupts import InterruptsAccount
from xtrace.host.memory import MemoryAccount
from xtrace.host.pv import PvAccount
from xtrace.host.wakes import WakeStays
from xtrace.host.windows import WHOLE
from xtrace.parsers.registry import EVENTS
from xtrace.reports import terminal
from xtrace.reports.page import Section
from xtrace.reports.sections import interrupts, memory, pv

ACCOUNTS: tuple[type[Account[Any]], ...] = (InterruptsAccount, PvAccount, MemoryAccount)
PAINT: dict[type[Account[Any]], Any] = {InterruptsAccount: interrupts, PvAccount: pv, MemoryAccount: memory}
TAKEN = [event for event in EVENTS if any(one.wants(event) for one in ACCOUNTS)]


def test_every_event_that_is_needed_is_taken() -> None:
    """Layouts of all releases and vendors: of memory, PV and vectors all; of the rest what turns on and off."""
    names = {event.name for event in TAKEN}
    classes = {event.trace_class for event in TAKEN}
    assert classes == {"SCHED", "HVM", "MEM", "PV", "HW", "GEN"}
    for event in EVENTS:
        if event.trace_class in ("MEM", "PV") or event.name.startswith(TURNS):
            assert event.name in names
    assert all(WakeStays.wants(event) == (event.name in WAKE_NAMES) for event in EVENTS)


TURNS = ("TRC_HW_IRQ", "TRC_HVM_VMENTRY", "TRC_HVM_VMEXIT", "TRC_HVM_VMX_EXIT", "TRC_HVM_SVM_EXIT")
WAKE_NAMES = {
    "TRC_SCHED_RUNSTATE_CHANGE",
    "TRC_SCHED_CONTINUE_RUNNING",
    "TRC_HVM_VMENTRY",
    "TRC_HVM_INJ_VIRQ",
    "TRC_LOST_RECORDS",
}


@settings(max_examples=40)
@given(captures(st.one_of(records(TAKEN), undeclared_records())))
def test_nothing_that_a_file_holds_stops_them(scratch: Path, windows: list[Window]) -> None:
    scratch.write_bytes(build_capture(windows))
    with xtrace.open(scratch) as trace:
        for kind in ACCOUNTS:
            whole = followed(trace, kind).found(WHOLE)
            assert followed(trace, kind, piece=3).found(WHOLE) == whole
            shown(PAINT[kind].section(whole))
            assert len(list(PAINT[kind].answer(whole))) <= 2


@pytest.mark.parametrize("kind", ACCOUNTS)
def test_a_dataset_tells_the_same(kind: type[Account[Any]], sample: Sample, tmp_path: Path) -> None:
    with xtrace.open(sample("migrate-stock")) as trace:
        stored = xtrace.store(trace, tmp_path)
        every = trace.duration_ns // 4
        direct = followed(trace, kind, every_ns=every)
        with stored:
            again = followed(stored, kind, every_ns=every)
            for window in range(5):
                assert again.found(window) == direct.found(window)
    assert direct.found(WHOLE) != direct.found(1)


def shown(section: Section) -> str:
    out = Console(file=io.StringIO(), width=110)
    terminal.chapter(out, section)
    return out.file.getvalue()  # type: ignore[attr-defined,no-any-return]


Print = Callable[[str, type[Account[Any]]], str]


@pytest.fixture
def printed(sample: Sample) -> Print:
    """What the terminal shows of a sample."""

    def show(name: str, kind: type[Account[Any]]) -> str:
        with xtrace.open(sample(name), cpu_hz=10**9) as trace:
            return shown(PAINT[kind].section(followed(trace, kind).found(WHOLE)))

    return show


def test_interrupts_on_a_terminal(printed: Print) -> None:
    text = printed("migrate-legacy", InterruptsAccount)
    assert "4 vCPUs got 10,771 interrupts (56.1 a second); 644 woke one that then ran 75.2 ms" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("d")]
    assert [row[:3] for row in rows] == [
        ["d1v1", "0xf3", "3,195"],
        ["d1v0", "0xf3", "2,912"],
        ["d2v1", "0xf3", "2,482"],
        ["d2v0", "0xf3", "2,182"],
    ]
    # Against the lines of xenalyze: 356 22.32s 62693907; 2 6.46s 3230596942.
    assert rows[2][4:7] == ["356", "62.7", "ms"]
    assert rows[2][-3:] == ["2", "3.23", "s"]
    assert "…" not in text
    devices = printed("bench8-legacy", InterruptsAccount)
    assert "Handlers of devices ran 117 times" in devices
    assert "quantiles are over handlers" in devices


def test_pv_events_on_a_terminal(printed: Print) -> None:
    text = printed("migrate-stock", PvAccount)
    assert "PV guests made 25,266 hypercalls and 387 sub-calls of multicalls" in text
    assert "most often iret 36 %, mmu_update 32 %" in " ".join(text.split())
    assert "no record says when it ends" in text
    assert ["d0", "update_va_mapping", "14", "25", "216", "2.3"] in [line.split() for line in text.splitlines()]
    assert text.index("By domain and kind") < text.index("By vCPU and kind")


def test_memory_operations_on_a_terminal(printed: Print) -> None:
    text = printed("migrate-stock", MemoryAccount)
    assert "Operations on the memory of d1, d3 (91.1 a second): 9,657 × set P2M entry." in text
    rows = [line.split() for line in text.splitlines()]
    assert ["d3", "set", "P2M", "entry", "0", "0.0", "–", "3,071", "29.0", "12.0", "MiB"] in rows
    assert ["set", "P2M", "entry", "d1", "d1", "0", "ram_rw", "–", "6,586", "62.2"] in rows


@pytest.mark.parametrize("kind", ACCOUNTS)
def test_nothing_is_one_sentence(kind: type[Account[Any]], opened: Opened) -> None:
    with opened("1 cpu0 SCHED_WAKE domid=1") as trace:
        found = followed(trace, kind).found(WHOLE)
    section = PAINT[kind].section(found)
    assert section.tables == ()
    (sentence,) = section.text
    assert sentence.startswith("None: ")
    assert list(PAINT[kind].answer(found)) == []
    assert PAINT[kind].pictures(found) == ()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (InterruptsAccount, ["figure-interrupts-guest"]),
        (PvAccount, ["figure-pv-events", "figure-pv-hypercalls"]),
        (MemoryAccount, ["figure-memory-operations"]),
    ],
)
def test_pictures(kind: type[Account[Any]], names: list[str], sample: Sample) -> None:
    with xtrace.open(sample("migrate-stock")) as trace:
        found = followed(trace, kind).found(WHOLE)
    pictures = PAINT[kind].pictures(found)
    assert [f'aria-labelledby="{name}-title"' in one.svg for name, one in zip(names, pictures, strict=True)]
    assert [one.svg for one in PAINT[kind].pictures(found)] == [one.svg for one in pictures]


def test_all_tables_of_devices_and_vectors(opened: Opened) -> None:
    text = """
        10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=2 old_state=runnable new_state=running
        - cpu0 INJ_EXC vector=14
        20 cpu0 HW_IRQ_HANDLED irq=9 tsc_in=5 tsc_out=1005
        30 cpu1 HW_IRQ_HANDLED irq=9 tsc_in=0 tsc_out=15
        40 cpu1 HW_IRQ_ASSIGN_VECTOR irq=9 vector=0x38
        41 cpu1 HW_IRQ_UNMAPPED_VECTOR vector=0x99
    """
    with opened(text) as trace:
        found = followed(trace, InterruptsAccount).found(WHOLE)
    text = shown(interrupts.section(found))
    rows = [line.split() for line in text.splitlines()]
    assert "1 began before the tracing and have no time" in text
    assert ["9", "0x38", "2", *rows[0][:0]] == next(row for row in rows if row[:1] == ["9"])[:3]
    assert ["d1v2", "#PF", "page", "fault", "1"] in [row[:5] for row in rows]
    assert ["9", "0x38", "1", "0", "0", "0", "0", "0", "0"] in rows
    assert ["–", "0x99", "0", "0", "0", "0", "0", "0", "1"] in rows
    assert [one.title for one in interrupts.pictures(found)] == ["Time in handlers of device interrupts"]

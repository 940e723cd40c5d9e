"""What PV guests do: as `xenalyze -s` has it where it is right, and small captures for what no trace holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xenalyze_summary
from conftest import Opened
from construct import Array
from host_parts import followed
from strategies import Record, Window, build_capture

import xtrace
from xtrace.host.pv import Pv, PvAccount
from xtrace.host.windows import WHOLE
from xtrace.parsers.fields import Bits, u32
from xtrace.parsers.registry import variants
from xtrace.parsers.vectors import HYPERCALLS
from xtrace.selection import Selection
from xtrace.trace import Trace

KINDS = {
    "trap": "trap",
    "page_fault": "page fault",
    "forced_invalid_op": "forced invalid opcode",
    "emulate privop": "privileged instruction emulated",
    "emulate 4g": "4 GiB segment emulated",
    "math state restore": "math state restored",
    "paging fixup": "paging fixup",
    "gdt/ldt mapping fault": "GDT/LDT mapping fault",
    "ptwr": "page-table write emulated",
    "hypercall": "hypercall",
    "hypercall (subcall)": "sub-call of a multicall",
}
"""What xenalyze calls kinds of events."""
NAMES = {6: "sched_op(compat)", 16: "evtchn_op(compat)", 19: "physdev_op(compat)", 27: "acm_op", 32: "evtchn_op"}
"""Hypercalls of other names there. 27 was another hypercall long ago (D38)."""
KNOWN = 37
"""The last hypercall whose name xenalyze has; the names of others are those of other things (D29)."""

CALL = re.compile(r"    (.{29})\[ *(\d+)\]: +(\d+)")
TRAP = re.compile(r"    \[(\d+)\] (\d+)")
KIND = re.compile(r"  (\S.*\S)  (\d+)")

Counts = dict[tuple[int, int, str, int | None], int]


def judged(summary: xenalyze_summary.Summary) -> Counts:
    """By domain, vCPU, kind and number what `xenalyze -s` says, each kind also as a whole; no line is passed over."""
    found: Counts = {}
    for domain, one in summary.domains.items():
        for vcpu, parts in one.vcpus.items():
            for line in parts.sections.get("PV events", []):
                if match := CALL.fullmatch(line):
                    number = int(match[2])
                    if number <= KNOWN:
                        assert match[1].strip() == NAMES.get(number, HYPERCALLS[number])
                    found[domain, vcpu, "hypercall", number] = int(match[3])
                elif match := TRAP.fullmatch(line):
                    found[domain, vcpu, "trap", int(match[1])] = int(match[2])
                else:
                    match = KIND.fullmatch(line)
                    assert match is not None, line
                    found[domain, vcpu, KINDS[match[1]], None] = int(match[2])
    return found


def ours(found: Pv) -> Counts:
    """The same of our figures; there sub-calls are among the hypercalls."""
    counts: Counts = {}
    for event in found.events:
        if event.vcpu is not None:
            counts[event.domain, event.vcpu, event.kind, None] = event.count
    for domain, vcpu in {(domain, vcpu) for domain, vcpu, *_ in counts}:
        calls = counts.get((domain, vcpu, "hypercall", None), 0)
        both = calls + counts.get((domain, vcpu, "sub-call of a multicall", None), 0)
        if both:
            counts[domain, vcpu, "hypercall", None] = both
    for call in found.hypercalls:
        if call.vcpu is not None:
            counts[call.domain, call.vcpu, "hypercall", call.number] = call.calls + call.subcalls
    for trap in found.traps:
        if trap.vcpu is not None:
            counts[trap.domain, trap.vcpu, "trap", trap.number] = trap.count
    return counts


def test_real_traces_equal_xenalyze(trace: Path, trace_name: str) -> None:
    with xtrace.open(trace) as one:
        found = followed(one, PvAccount).found(WHOLE)
        records = sum(count for header, count in one.survey.counts.items() if header >> 16 & 0xFFF == 0x020)
    expected = judged(xenalyze_summary.summary(trace))
    assert ours(found) == expected
    assert bool(expected) == (not trace_name.startswith("bench"))
    assert sum(one.count for one in found.events if one.vcpu is not None) + found.unattributed == records
    totals = {(one.domain, one.kind): one.count for one in found.events if one.vcpu is None}
    sums: dict[tuple[int, str], int] = {}
    for event in found.events:
        if event.vcpu is not None:
            sums[event.domain, event.kind] = sums.get((event.domain, event.kind), 0) + event.count
    assert totals == sums


def record(tsc: int, event_id: int, **values: int) -> Record:
    """A record by its declaration; fields not named are 0."""
    event = variants(event_id)[0]
    fields: dict[str, Any] = {}
    for named in getattr(event.payload, "subcons", ()):
        if isinstance(named.subcon, Bits):
            fields[named.name] = {part: values.pop(part, 0) for part in named.subcon.ranges}
        else:
            fields[named.name] = values.pop(named.name, 0)
    assert not values
    payload = event.payload.build(fields)
    return Record(event_id, tuple(Array(len(payload) // 4, u32).parse(payload)), tsc)


def call(tsc: int, number: int, event_id: int = 0x020100D) -> Record:
    return Record(event_id, (number,), tsc)


ARRIVES = record(10, 0x0021101, domid=0, vcpuid=1)
ALL_KINDS = (
    ARRIVES,
    record(11, 0x0201003, eip=1, trapnr=6),
    record(12, 0x0201103, rip=1, trapnr=13, use_error_code=1, error_code=77),
    record(13, 0x0201103, rip=1 << 40, trapnr=13),
    record(14, 0x0201004, addr=3),
    record(15, 0x0201104, addr=3),
    record(16, 0x0201105),
    record(17, 0x0201006),
    record(18, 0x0201008),
    record(19, 0x0201109),
    record(20, 0x020110A),
    record(21, 0x020110B),
    record(22, 0x020100C),
    Record(0x020100D, (13 | 1 << 22, 2), 23),
    call(24, 14, 0x020200E),
    call(25, 14, 0x020200E),
    call(26, 41),
    call(27, 27),
)
SOMEBODY = call(28, 27)
CAPTURE = build_capture([Window(0, ALL_KINDS), Window(1, (SOMEBODY,))])


def test_every_kind_equals_xenalyze(tmp_path: Path) -> None:
    path = tmp_path / "trace.bin"
    path.write_bytes(CAPTURE)
    with xtrace.open(path) as trace:
        found = followed(trace, PvAccount).found(WHOLE)
    counts = judged(xenalyze_summary.summary(path))
    assert ours(found) == counts
    assert {kind for _, _, kind, number in counts if number is None} == set(KINDS.values()) - {"4 GiB segment emulated"}
    assert found.unattributed == 1
    names = {one.number: (one.name, one.calls, one.subcalls) for one in found.hypercalls if one.vcpu == 1}
    assert names == {
        13: ("multicall", 1, 0),
        14: ("update_va_mapping", 0, 2),
        27: ("xsm_op", 1, 0),
        41: ("dm_op", 1, 0),
    }
    assert [(one.number, one.name, one.count) for one in found.traps if one.vcpu is None] == [
        (6, "#UD invalid opcode", 1),
        (13, "#GP general protection", 2),
    ]


def test_the_name_of_another_hypercall(tmp_path: Path) -> None:
    """D29: xenalyze calls the device model's hypercall 41 something else."""
    path = tmp_path / "trace.bin"
    path.write_bytes(CAPTURE)
    lines = xenalyze_summary.summary(path).domains[0].vcpus[1].sections["PV events"]
    assert [match[1].strip() for line in lines if (match := CALL.fullmatch(line)) and match[2] == "41"] != ["dm_op"]


def test_events_without_a_name(tmp_path: Path) -> None:
    """D28: xenalyze counts them as calls of a hypercall; and it stops counting calls at 56, which we do not."""
    odd = [Record(0x0201014, (1, 2), 20 + one) for one in range(3)]
    calls = [call(30 + place, number) for place, number in enumerate((5, 60, 60))]
    short = [Record(0x0201003, (), 40), Record(0x0201001, (7, 7), 41)]
    path = tmp_path / "trace.bin"
    path.write_bytes(build_capture([Window(0, (ARRIVES, *odd, *calls))]))
    with xtrace.open(path) as trace:
        found = followed(trace, PvAccount).found(WHOLE)
    assert {(one.kind, one.count) for one in found.events} == {("not known", 3), ("hypercall", 3)}
    assert [(one.number, one.name, one.calls) for one in found.hypercalls if one.vcpu is None] == [
        (5, "fpu_taskswitch", 1),
        (60, "hypercall_60", 2),
    ]
    theirs = judged(xenalyze_summary.summary(path))
    assert theirs == {(0, 1, "hypercall", None): 3, (0, 1, "hypercall", 5): 4}
    path.write_bytes(build_capture([Window(0, (ARRIVES, *short))]))
    with xtrace.open(path) as trace:
        found = followed(trace, PvAccount).found(WHOLE)
    assert {(one.kind, one.count) for one in found.events} == {("trap", 1), ("hypercall, old record", 1)}
    assert [(one.number, one.name) for one in found.traps] == [(None, "not known")] * 2


def test_subcalls_of_an_hvm_guest(opened: Opened, tmp_path: Path) -> None:
    """Multicalls of HVM guests leave PV records, too; xenalyze passes over them."""
    text = """
        10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        20 cpu0 VMENTRY
        30 cpu0 PV_HYPERCALL_SUBCALL op=32
    """
    with opened(text) as trace:
        found = followed(trace, PvAccount).found(WHOLE)
    assert [(one.domain, one.vcpu, one.name, one.subcalls) for one in found.hypercalls] == [
        (1, None, "event_channel_op", 1),
        (1, 0, "event_channel_op", 1),
    ]
    assert judged(xenalyze_summary.summary(tmp_path / "trace.bin")) == {}


@pytest.fixture
def every_kind(tmp_path: Path) -> Iterator[Trace]:
    path = tmp_path / "trace.bin"
    path.write_bytes(CAPTURE)
    with xtrace.open(path, cpu_hz=10**9) as trace:
        yield trace


def test_pieces_do_not_matter(every_kind: Trace) -> None:
    assert followed(every_kind, PvAccount, piece=1).found(WHOLE) == followed(every_kind, PvAccount).found(WHOLE)


def test_selection(every_kind: Trace) -> None:
    nothing = followed(every_kind, PvAccount, Selection(cpus=frozenset({1}))).found(WHOLE)
    assert (nothing.events, nothing.hypercalls, nothing.traps, nothing.unattributed) == ((), (), (), 1)


def test_intervals(every_kind: Trace) -> None:
    account = followed(every_kind, PvAccount, Selection(from_ns=12, to_ns=17), every_ns=2, piece=3)
    counts = [
        [(one.kind, one.count, one.per_s) for one in account.found(window).events if one.vcpu is None]
        for window in range(4)
    ]
    assert counts == [
        [("page-table write emulated", 1, 2e8), ("hypercall", 2, 4e8), ("sub-call of a multicall", 2, 4e8)],
        [("page-table write emulated", 1, 5e8), ("hypercall", 1, 5e8)],
        [("sub-call of a multicall", 2, 1e9)],
        [("hypercall", 1, 1e9)],
    ]


def test_frame(every_kind: Trace) -> None:
    frame = followed(every_kind, PvAccount).found(WHOLE).df_hypercalls()
    assert frame["name"].tolist() == ["multicall", "update_va_mapping", "xsm_op", "dm_op"]
    assert frame["subcalls"].tolist() == [0, 2, 0, 0]
    assert str(frame["number"].dtype) == "Int64"


def test_names_of_hypercalls(tmp_path: Path) -> None:
    path = tmp_path / "trace.bin"
    numbers = sorted(HYPERCALLS)
    path.write_bytes(build_capture([Window(0, (ARRIVES, *(call(20 + number, number) for number in numbers)))]))
    with xtrace.open(path) as trace:
        found = followed(trace, PvAccount).found(WHOLE)
    assert [(one.number, one.name) for one in found.hypercalls if one.vcpu == 1] == list(HYPERCALLS.items())
    assert ours(found) == judged(xenalyze_summary.summary(path))

"""`xtrace dump --format xenalyze` against xenalyze itself, line by line."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from captures import ZERO_CYCLES, capture
from conftest import Sample
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import LAST_REASON, Schedule, Story, merged
from strategies import Record, Window, build_capture, captures
from xenalyzed import EXACT_HZ, differences, printed, shown, shown_of

import xtrace
from xtrace.parsers.event import Event
from xtrace.parsers.registry import EVENTS
from xtrace.parsers.vendor import Vendor
from xtrace.selection import Selection, parse_events

INTENDED: Final[dict[str, dict[str, int]]] = {
    "dom0-stock": {},
    "vmx-legacy": {"D34 subclass": 21, "D37 vectors": 346},
    "bench-legacy": {"D34 subclass": 9620, "D49 unsigned": 7},
    "bench-lockless": {"D34 subclass": 14238, "D49 unsigned": 47},
    "bench8-legacy": {"D34 subclass": 10078, "D49 unsigned": 13},
    "bench8-lockless": {"D34 subclass": 10078, "D49 unsigned": 13},
    "migrate-stock": {"D38 xsm_op": 13, "D39 no vector": 2764},
    "migrate-legacy": {"D34 subclass": 14558, "D38 xsm_op": 21, "D39 no vector": 10683},
    "migrate-lockless": {"D34 subclass": 22202, "D38 xsm_op": 13, "D39 no vector": 11440, "D49 unsigned": 1},
}
"""Lines that differ, by the reason for it (docs/xenalyze.md)."""


def mode(vendor: str) -> list[str]:
    """The options that xenalyze needs for a trace."""
    return ["--svm-mode"] if vendor == "svm" else []


@pytest.mark.parametrize("name", INTENDED)
def test_real_traces(name: str, sample: Sample) -> None:
    path = sample(name)
    vendor = "vmx" if name.startswith("vmx") else "svm"
    assert differences(shown(path), printed(path, *mode(vendor))) == INTENDED[name]


UNCOMPARED: Final = {
    "TRC_GUEST ": "ends xenalyze: a class that it does not know",
    "TRC_SHADOW_EMULATE_UNSHADOW_.*since 4.19": "ends xenalyze: longer than in 4.17",
    "TRC_SHADOW_EMULATE_UNSHADOW_.*3-level": "ends xenalyze: it counts a word of padding",
    "TRC_SHADOW_(NOT_SHADOW|FIXUP|EMULATE), 4-level": "ends xenalyze: it counts a word of padding",
    "TRC_HVM_SVM_EXIT(64)?, since 4.19, guest": "left out by xenalyze, so that entries belong to other exits",
    "TRC_SCHED_RUNSTATE_CHANGE": "of a vCPU at random ends it: see test_schedules",
    "TRC_SCHED_CONTINUE_RUNNING": "of a vCPU at random ends it: see test_schedules",
    "TRC_LOST_RECORDS": "at a time at random ends it: see test_schedules",
    "TRC_TRACE_CPU_CHANGE": "frames the file",
}
"""Events that are not compared one by one, by a pattern of name and layout."""

DIFFERENT: Final[dict[str, tuple[str, ...]]] = {
    ".* nested": ("D23 nested",),
    "TRC_HVM_EMUL_": ("D54 timers",),
    "TRC_HVM_PF_XEN": ("error code first",),
    "TRC_HVM_IOPORT_.* rep": ("no data",),
    "TRC_HVM_VMMCALL": ("D29 names", "D38 xsm_op"),
    "TRC_HW_IRQ_(BIND|ASSIGN)_VECTOR": ("halves of a word",),
    "TRC_HW_IRQ_HANDLED": ("D49 unsigned",),
    "TRC_PV_HYPERCALL_": ("D29 names", "D38 xsm_op", "D50 hexadecimal"),
    "TRC_RTDS_BUDGET_REPLENISH": ("priority",),
    "TRC_RTDS_SCHEDULE": ("nibbles",),
    "TRC_SHADOW_": ("no words",),
    "(SMP|TLB)_": ("D34 subclass",),
}
"""Which differences an event is allowed, by a pattern of name and layout."""


def title(event: Event) -> str:
    """Name and layout."""
    return f"{event.name}, {event.variant}"


def told_of(event: Event, words: tuple[int, ...], vendor: str) -> Story:
    """A story in which the record stands where it makes a difference: in and between exits, on PV guests, idle."""
    story = Story()
    # What 4.17 leaves behind its load record tells the release.
    story.tell(0, "CSCHED2_UPDATE_RUNQ_LOAD", pad=1, shift=18, rq_avgload=1)
    for cpu, vcpu in enumerate(("1v0", "2v0")):
        story.change(cpu, f"32767v{cpu}", "running", "runnable")
        story.change(cpu, vcpu, "runnable", "running")
    story.tell(0, "VMEXIT64", exit_reason=10, rip=0xFFFF_FFFF_8100_0000)
    story.add(0, Record(0x008200F, (0x31,) if vendor == "vmx" else ()))
    story.tell(0, "VMENTRY")
    story.tell(0, "VMEXIT64", exit_reason=1, rip=0x1000)
    story.event(0, event, words, event.event_id)
    story.tell(0, "VMENTRY")
    story.event(0, event, words, event.event_id)
    story.tell(0, "VMENTRY")
    story.tell(1, "PV_MATH_STATE_RESTORE")
    story.event(1, event, words, event.event_id)
    story.change(1, "2v0", "running", "blocked")
    story.event(1, event, words, event.event_id)
    story.change(1, "32767v1", "runnable", "running")
    story.event(1, event, words, event.event_id)
    return story


def words_for(event: Event) -> Iterator[tuple[int, ...]]:
    """Some payloads: all zero, and others at random that fit in signed words."""
    chance = random.Random(event.name + event.variant)
    count = event.words
    if count is None:
        count = 6
    for highest in (0, 3, 0x1FF_FFFF, 0x7FFF_FFFF):
        words = [chance.randint(0, highest) for _ in range(count)]
        if event.first_word and count:
            mask, value = event.first_word
            words[0] = words[0] & ~mask & 0xFFFF_FFFF | value
        if "EXIT" in event.name and event.trace_class == "HVM":
            words[0] = min(words[0], chance.randint(0, LAST_REASON))
        yield tuple(words)


def of(table: dict[str, Any], event: Event) -> Any:
    """What a table says of an event."""
    return next((what for pattern, what in table.items() if re.match(pattern, title(event))), None)


SWEPT: Final = [event for event in EVENTS if event.emitted and not of(UNCOMPARED, event)]


@pytest.mark.parametrize("event", SWEPT, ids=title)
def test_events(event: Event, tmp_path: Path) -> None:
    vendor = event.vendor or "vmx"
    found: Counter[str] = Counter()
    for words in words_for(event):
        path = told_of(event, words, vendor).write(tmp_path / "trace.bin")
        found += differences(shown(path), printed(path, *mode(vendor)))
    assert set(found) <= {*(of(DIFFERENT, event) or ()), *(["D39 no vector"] if vendor == "svm" else [])}


BY_NUMBER: Final = {"D29 names": 14 * 3, "D38 xsm_op": 3}
"""Lines of all hypercalls up to 63, called by a PV guest, within a multicall, and by an HVM guest."""


def numbered(tmp_path: Path, vendor: Vendor, told: Callable[[Story], None]) -> Counter[str]:
    """The differences in a story of a guest on CPU 0 and another on CPU 1."""
    story = Story()
    for cpu, vcpu in enumerate(("1v0", "2v0")):
        story.change(cpu, f"32767v{cpu}", "running", "runnable")
        story.change(cpu, vcpu, "runnable", "running")
    story.tell(0, "VMEXIT64", exit_reason=1, rip=0x1000)
    story.add(0, Record(0x008200F, (0x31,) if vendor == "vmx" else ()))
    told(story)
    path = story.write(tmp_path / "trace.bin")
    return differences(shown(path), printed(path, *mode(vendor)))


def test_names_of_hypercalls(tmp_path: Path) -> None:
    def told(story: Story) -> None:
        for number in range(64):
            story.tell(0, "VMMCALL", eax=number)
            for event_id in (0x020100D, 0x020200E):
                story.add(1, Record(event_id, (number,), story.later()))

    assert numbered(tmp_path, "vmx", told) == BY_NUMBER


def test_names_of_commands(tmp_path: Path) -> None:
    def told(story: Story) -> None:
        for op in (20, 24, 29):
            for number in (*range(17), 1 << 31):
                packing = sum(1 << 20 + 2 * place for place in range(3))
                story.add(1, Record(0x020100D, (op | packing, number, 3, 1 << 31), story.later()))

    assert not numbered(tmp_path, "vmx", told)


def test_names_of_vectors(tmp_path: Path) -> None:
    def told(story: Story) -> None:
        for vector in range(300):
            story.tell(0, "HVM_INTR", vector=vector)

    assert numbered(tmp_path, "vmx", told) == {"D37 vectors": 3}


@pytest.mark.parametrize(("vendor", "last"), [("vmx", 55), ("svm", 1024)])
def test_names_of_exits(vendor: Vendor, last: int, tmp_path: Path) -> None:
    def told(story: Story) -> None:
        for reason in range(last + 1):
            story.tell(0, "VMEXIT64", exit_reason=reason, rip=0x1000)

    assert numbered(tmp_path, vendor, told) == ({"D39 no vector": 1} if vendor == "svm" else {})


@pytest.mark.parametrize("kind", sorted({kind for kinds in DIFFERENT.values() for kind in kinds} - {*BY_NUMBER}))
def test_every_difference_is_there(kind: str, tmp_path: Path) -> None:
    """Else what is declared of it would be an excuse for something else."""
    for event in SWEPT:
        if kind in (of(DIFFERENT, event) or ()):
            for words in words_for(event):
                path = told_of(event, words, event.vendor or "vmx").write(tmp_path / "trace.bin")
                if kind in differences(shown(path), printed(path, *mode(event.vendor or "vmx"))):
                    return
    pytest.fail(f"no event shows {kind}")


@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 300))
def test_schedules(seed: int, steps: int, scratch: Path) -> None:
    path = Schedule(seed, steps).story.write(scratch)
    assert set(differences(shown(path), printed(path))) <= {"D40 latency"}


def lines_of(text: str, tmp_path: Path) -> list[str]:
    """What xtrace shows of a capture behind the records that bring a guest onto CPU 0 and into an exit."""
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(BEGIN + text))
    return [*shown(path)][4:]


BEGIN: Final = """
    0 cpu0 CSCHED2_UPDATE_LOAD
    1 cpu0 RUNSTATE_CHANGE domid=32767 vcpuid=0 old_state=running new_state=runnable
    2 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    3 cpu0 VMEXIT64 exit_reason=1 rip=0x1000
"""

OURS: Final = {
    "5 cpu0 HVM_PF_XEN64 error_code=2 va=0xffffffff81000000": "] pf_xen va ffffffff81000000 ec 2 "
    "e->pt_index[0 0 8 510 511]",
    "5 cpu0 HVM_PF_XEN64 error_code=2 va=0xfffff6fb7dbedf68": "] pf_xen:emulate va fffff6fb7dbedf68 ec 2 level 4 "
    "corr fffff6ffffffffff e->pt_index[493 493 493 493 493]",
    "5 cpu0 IOPORT_READ port=0x60 data=0x1f": "  io read port 60 val 1f",
    "5 cpu0 TRC_HW_IRQ_BIND_VECTOR irq=0x10 vector=0x31": "  irq_bind_vector irq 10 vec 31 mask 0000 0000 0000 0000",
    "5 cpu0 TRC_HW_IRQ_HANDLED irq=4 tsc_in=0xfffffff0 tsc_out=0x10": "  irq_handled irq 4 32 (4294967280,16)",
    "5 cpu0 RTDS_BUDGET_REPLENISH domid=1 unit=2 priority=3 deadline=4 budget=5": "  rtds:repl_budget d1v2, "
    "deadline = 4, budget = 5",
    "5 cpu0 RTDS_SCHEDULE cpu=3 idle=1": "  rtds:schedule cpu 3, , idle, not tickled",
    "5 cpu0 RTDS_SCHEDULE cpu=3 tickled=1": "  rtds:schedule cpu 3, , busy, tickled",
    "5 cpu0 VMEXIT64 exit_reason=62 rip=16": "] vmexit exit_reason PML_FULL eip 10",
    "5 cpu0 VMEXIT64 exit_reason=46 rip=16": "] vmexit exit_reason 2e eip 10",
    "5 cpu0 VMMCALL eax=41": "  vmcall 29 (dm_op)",
    "5 cpu0 VMMCALL eax=27": "  vmcall 1b (xsm_op)",
    "5 cpu0 SHADOW_FIXUP paging_levels=4 gl1e=1 va=2 flags=0x40401": "] fixup:unsync va 2 gl1e 1 corr ffffffffffffffff "
    "flags (40401)d----w---u--",
}
"""What is shown of records that xenalyze misreads, does not name, or ends at."""


@pytest.mark.parametrize("record", OURS)
def test_what_xenalyze_has_wrong(record: str, tmp_path: Path) -> None:
    expected = OURS[record]
    (line,) = lines_of(record, tmp_path)
    assert line[0] + line.split("d1v0", 1)[1] == expected


RAW: Final = {
    # SVM_EXIT64 of 4.19, a guest's own, EMULATE_UNSHADOW_USER of 4.19, DECREASE_RESERVATION of 4.18
    (0x0081103, (0x400, 0x10, 0)): "] vmexit exit_reason VMEXIT_NPF eip 10",
    (0x800F000, (1, 2)): "] 800f000(800:f:0) 2 [ 1 2 ]",
    (0x040F009, (1, 2, 4)): "] shadow unshadow:user-mode gfn 1 va 2",
    (0x010F005, (16, 0, 1, 9)): "  decrease_reservation d1 o9 g 10",
    (0x0082117, (0xFEE00010, 1)): "] mmio_assist r gpa 1fee00010 (no data)",
    (0x0082016, (0x60,)): "  io read port 60 val -",
}


@pytest.mark.parametrize("event_id", [*RAW])
def test_words_that_xenalyze_does_not_read(event_id: tuple[int, tuple[int, ...]], tmp_path: Path) -> None:
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(BEGIN) + Window(0, (Record(*event_id, ZERO_CYCLES + 10),)).build())
    line = [*shown(path)][-1]
    assert line[0] + line.split("d1v0", 1)[1] == RAW[event_id]


def test_two_changes_in_the_wrong_order(tmp_path: Path) -> None:
    """The later one, told first by a CPU whose clock is behind, counts: the vCPU is runnable when an IPI comes."""
    path = tmp_path / "trace.bin"
    path.write_bytes(
        capture(
            BEGIN
            + """
            4 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=1 old_state=runnable new_state=running
            5 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=1 old_state=running new_state=blocked
            6 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=1 old_state=offline new_state=runnable
            7 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=1 old_state=blocked new_state=offline
            8 cpu0 IOMEM_WRITE gpa=0xfee00300 data=0xc0032
            9 cpu0 CSCHED2_UPDATE_LOAD
            """
        )
    )
    assert not differences(shown(path), printed(path))
    assert " [vla] d1v1 vec 50 state runnable (outstanding ipis 1)" in shown(path)


def test_latency_of_interrupts_sent_twice(tmp_path: Path) -> None:
    """xenalyze takes the start of the trace off the cycles before it makes seconds of them (D40)."""
    path = tmp_path / "trace.bin"
    icr = "cpu0 IOMEM_WRITE gpa=0xfee00300 data=0xc0032"
    path.write_bytes(
        capture(
            BEGIN
            + f"""
            4 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=1 old_state=runnable new_state=running
            5 {icr}
            6 cpu1 VMEXIT64 exit_reason=1 rip=0x1000
            7 cpu1 INJ_VIRQ vector=50
            8 {icr}
            1000000009 cpu1 VMENTRY
            1000000010 cpu0 CSCHED2_UPDATE_LOAD
            """
        )
    )
    assert differences(shown(path), printed(path)) == {"D40 latency": 1}
    (line,) = [line for line in shown(path) if "latency" in line]
    assert line == " [vla] d1v1 vec 50 ipis 2, latency 1000000004 (1.000000004 s)"


def test_filters(sample: Sample) -> None:
    """A filtered dump is those lines of the whole one, with the same map and vCPU."""
    path = sample("dom0-stock")
    whole = [*shown(path)]
    times = [float(line[1:15].strip() or 0) for line in whole]
    assert [*shown(path, Selection(cpus=frozenset((1, 2))))] == [
        line for line in whole if line[15 if line[1:15].strip() else 16 :].find("x") in {1, 2}
    ]
    assert [*shown(path, Selection(from_ns=10**9, to_ns=2 * 10**9))] == [
        line for line, at in zip(whole, times, strict=True) if 1 <= at < 2
    ]
    assert [*shown(path, events=parse_events("SCHED_WAKE"))] == [line for line in whole if " vcpu_wake " in line]
    assert [*shown(path, domains=frozenset((32767,)))] == [
        line for line in whole if re.search(r" d32767v\d+ ", line[:36])
    ]


def test_nested_lines_go_with_their_record(sample: Sample) -> None:
    whole = [*shown(sample("migrate-stock"))]
    found = [*shown(sample("migrate-stock"), events=parse_events("HVM_INJ_VIRQ"))]
    kinds = (" inj_virq ", "Setting wake_vector", "Starting vec", " injecting")
    assert found == [line for line in whole if any(kind in line for kind in kinds)]
    assert len(found) > 2 * sum(" inj_virq " in line for line in found)


def test_dataset(sample: Sample, tmp_path: Path) -> None:
    """The same lines, markers of lost records in both their places."""
    schedule = Schedule(seed=5, steps=200)
    schedule.story.rounds = [merged(schedule.story.rounds)]
    lines: list[str] = []
    for path in (sample("vmx-legacy"), schedule.story.write(tmp_path / "made.bin")):
        with xtrace.open(path, cpu_hz=EXACT_HZ) as trace, xtrace.store(trace, tmp_path / "data") as stored:
            lines = [*shown_of(trace)]
            assert [*shown_of(stored)] == lines
    assert sum("lost_records end d" in line for line in lines) > 2


@settings(max_examples=50)
@given(windows=captures())
def test_no_trace_is_too_odd(windows: list[Window], scratch: Path) -> None:
    """A line for each record that has one, whatever the records say."""
    scratch.write_bytes(build_capture(windows))
    lines = [*shown(scratch)]
    counted = [one for window in windows for one in window.records if one.event_id >> 12 not in {0x1F, 0x28, 0x22}]
    assert len(lines) >= len(counted)

"""VM exits: against `xenalyze -s` line by line, then small captures with their answers."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import xenalyze_summary
from captures import ZERO_CYCLES, capture, record
from conftest import Opened, Sample
from host_parts import followed
from shadowed import SHADOWED
from strategies import Record, Window, build_capture
from xenalyze_summary import Figures, Lines, figures

import xtrace
from xtrace.emulator.host import Host
from xtrace.emulator.output import made
from xtrace.emulator.plan import Plan
from xtrace.emulator.workloads.evacuate import Evacuate
from xtrace.emulator.workloads.idle import Idle
from xtrace.episodes.tables import to_pandas
from xtrace.host.exit_table import EXITS
from xtrace.host.exit_table import exits_of as table_of
from xtrace.host.exits import Exits, ExitsAccount
from xtrace.host.numbering import Numbering
from xtrace.host.tally import Spread
from xtrace.host.windows import WHOLE
from xtrace.parsers.vectors import HYPERCALLS
from xtrace.selection import Selection
from xtrace.trace import Trace

Who = tuple[int, int]

HYPERCALL_LINE: Final = re.compile(r" {4}\[ *(\S+)\] ")
VECTOR_LINE: Final = re.compile(r" +(?:\S+\( *(\d+)\)|\[ *(\d+)\]): (\d+)")

OLD_NAMES: Final = {"event_channel_op": "evtchn_op", "xsm_op": "acm_op"}
"""Hypercalls that xenalyze calls otherwise."""

HANDLED_AS: Final = {"(no handler)": "no handler", "npf": "npf"} | {
    f"cr{number}": f"write CR{number}" for number in range(9)
}
"""What xenalyze's lines below exit reasons are called here, where it is not the same."""

FAULTS: Final = {
    "propagate": 1,
    "fast propagate": 2,
    "fast mmio": 3,
    "false fast path": 4,
    "mmio": 5,
    "fixup": 6,
    "dom dying": 7,
    "emulate": 8,
}

PATHS: Final = {
    "*unpin": "unpin",
    "*unsync": "unsync",
    "+[  1]": "unsync, 1 resync",
    "*non-linmap": "no linear map",
    "*linmap l3": "linear map, level 3",
    "*early unshadow": "early unshadow",
    "*set changed": "entry changed",
    "*set unchanged": "entry unchanged",
    "*promote": "promote",
    "*[  0]": "no resync",
    "*[  1]": "1 resync",
}
"""What xenalyze's lines on shadow paging are called here."""


def exits_of(trace: Trace, selection: Selection | None = None) -> Exits:
    return followed(trace, ExitsAccount, selection).found(WHOLE)


def told(time: Spread, span_ns: int, *, label: str = "") -> Figures:
    """A time as xenalyze prints it."""
    seconds, percent = f"{time.total_ns / 1e9:.2f}", f"{100 * time.total_ns / span_ns:.2f}"
    shown = (time.mean_ns, time.p5_ns, time.p50_ns, time.p95_ns)
    return Figures(label, time.count, seconds, percent, *(int(ns or 0) for ns in shown))


def against_xenalyze(path: Path, svm: bool) -> int:
    """Every line of xenalyze's about exits, and every vCPU and reason of ours. Returns how many lines there were."""
    with xtrace.open(path, cpu_hz=10**9) as trace:
        found, span = followed(trace, ExitsAccount).found(WHOLE), trace.duration_ns
    theirs = xenalyze_summary.blocks(xenalyze_summary.xenalyze(path, svm=svm))
    lines = nested = 0
    mine: dict[Who, dict[str, Figures]] = defaultdict(dict)
    for row in found.vcpus:
        mine[row.domain or 0, row.vcpu or 0][row.name] = told(row.time, span, label=row.name)
    for number, domain in theirs.domains.items():
        for vcpu, one in domain.vcpus.items():
            section = one.sections.get("Exit reasons", [])
            lines += len(section)
            reasons = {line.label: line for line in map(figures, filter(is_reason, section))}
            assert reasons == mine.pop((number, vcpu), {}), f"d{number}v{vcpu}"
            nested += below_reasons(found, (number, vcpu), [line for line in section if not is_reason(line)], span)
    assert not mine, "exits of vCPUs that xenalyze tells of none"
    adds_up(found)
    return lines


def is_reason(line: str) -> bool:
    return re.match(r" \S", line) is not None


def below_reasons(found: Exits, who: Who, lines: Lines, span: int) -> int:
    """xenalyze's breakdowns: those that it prints are ours, summed where it lumps several reasons."""
    rows = [row for row in found.handlings if (row.domain, row.vcpu) == who]
    for line in lines:
        figured = line
        if match := VECTOR_LINE.fullmatch(line):
            vector = int(match[1] or match[2])
            hit = [row for row in rows if row.kind == "interrupt" and (row.number or 0) == vector]
            assert sum(row.time.count for row in hit) == int(match[3]), line
            continue
        if match := HYPERCALL_LINE.match(line):
            hit = [row for row in rows if row.kind == "hypercall" and short(row.number) == match[1]]
            figured = line.replace(match[0], "hypercall ")
        else:
            label = figures(line).label
            wanted = HANDLED_AS.get(label, label)
            hit = [row for row in rows if row.what == wanted or row.what.startswith(f"{wanted} ")]
        assert hit, f"{who}: nothing for {line!r}"
        them = figures(figured)
        assert them.count == sum(row.time.count for row in hit), line
        assert them.mean == sum(row.time.total_ns for row in hit) // them.count, line
        if len(hit) == 1:
            assert replace(them, label="") == told(hit[0].time, span), line
    return len(lines)


def short(op: int | None) -> str:
    name = HYPERCALLS.get(op or 0, "")
    return OLD_NAMES.get(name, name)


def add(count: list[int], time: Spread) -> None:
    count[0] += time.count
    count[1] += time.total_ns


def adds_up(found: Exits) -> None:
    """Breakdowns are whole: each reason is the sum of what handled it, each total that of vCPUs, groups of all."""
    by_reason: dict[tuple[object, ...], list[int]] = defaultdict(lambda: [0, 0])
    for handling in found.handlings:
        add(by_reason["handling", handling.domain, handling.vcpu, handling.name], handling.time)
    for level, rows in {"vcpu": found.vcpus, "domain": found.domains, "total": found.totals}.items():
        assert len({(row.domain, row.vcpu, row.name) for row in rows}) == len(rows), level
        for row in rows:
            add(by_reason[level, row.name], row.time)
    for row in found.vcpus:
        assert by_reason["handling", row.domain, row.vcpu, row.name] == [row.time.count, row.time.total_ns]
    for row in found.totals:
        assert by_reason["total", row.name] == by_reason["vcpu", row.name] == by_reason["domain", row.name]
    assert sum(row.time.count for row in found.mixes) == sum(row.time.count for row in found.totals)
    assert sum(row.time.total_ns for row in found.mixes) == sum(row.time.total_ns for row in found.totals)


def test_equals_xenalyze(trace: Path, trace_name: str) -> None:
    lines = against_xenalyze(trace, svm=not trace_name.startswith("vmx"))
    assert (lines > 10) == (trace_name.startswith(("migrate", "vmx"))), "traces with HVM guests have exits"


@pytest.mark.parametrize(("cpus", "vendor", "seed"), [(5, "vmx", 1), (8, "svm", 2), (24, "vmx", 3)])
def test_equals_xenalyze_on_emulated_traces(cpus: int, vendor: str, seed: int, tmp_path: Path) -> None:
    host = Host(cpus, vendor=vendor, seed=seed)  # type: ignore[arg-type]
    plan = Plan(host, Evacuate(2, 2, pages=200), idle=Idle(tick_ns=300_000), seconds=0.01)
    path = tmp_path / f"{vendor}-emulated.bin"
    path.write_bytes(made(plan.run(), plan.tool, "stock")[0])
    assert against_xenalyze(path, svm=vendor == "svm") >= 4


def test_shadow_paging_equals_xenalyze(tmp_path: Path) -> None:
    """Every line of xenalyze's on faults and CR3 writes is ours, and every path of ours is one of its lines."""
    path = tmp_path / "vmx-shadowed.bin"
    path.write_bytes(capture(SHADOWED))
    with xtrace.open(path, cpu_hz=10**9) as trace:
        found, span = exits_of(trace), trace.duration_ns
    lines = xenalyze_summary.summary(path).domains[1].vcpus[0].sections["Exit reasons"]
    assert {one.label: replace(one, label="") for one in map(figures, filter(is_reason, lines))} == {
        row.name: told(row.time, span) for row in found.vcpus
    }
    faults = {row.number: told(row.time, span) for row in found.handlings if row.kind == "page_fault"}
    paths = {row.path: told(row.time, span) for row in found.paths}
    others = {row.what: told(row.time, span) for row in found.handlings if row.kind != "page_fault"}
    part = ""
    for line in lines:
        if is_reason(line) or line.strip() == "page_fault" or VECTOR_LINE.fullmatch(line):
            continue
        label, them = figures(line).label, replace(figures(line), label="")
        if line.startswith("     ") and not label.startswith(("*", "+")):
            part = label
            assert them == faults.pop(FAULTS[label]), line
        elif label in PATHS:
            assert them == paths.pop(f"{part}: {PATHS[label]}"), line
        else:
            part = HANDLED_AS.get(label, label)
            assert them == others.pop("read MMIO" if label == "mmio" else part), line
    assert not faults
    assert not paths
    assert others.keys() == {"CALL_FUNCTION (0xfb)", "write port 0x3f8"}, "xenalyze has no times of these"
    adds_up(found)


def test_any_pieces_give_the_same(sample: Sample, opened: Opened) -> None:
    with xtrace.open(sample("vmx-legacy"), cpu_hz=10**9) as trace:
        assert followed(trace, ExitsAccount, piece=31).found(WHOLE) == exits_of(trace)
    with opened(SHADOWED) as trace:
        assert followed(trace, ExitsAccount, piece=1).found(WHOLE) == exits_of(trace)


def test_intervals_and_cpus_add_up(sample: Sample) -> None:
    with xtrace.open(sample("migrate-stock"), cpu_hz=10**9) as trace:
        account = followed(trace, ExitsAccount, every_ns=trace.duration_ns // 5)
        whole = account.found(WHOLE)
        by_interval = [sums(account.found(window)) for window in range(1, 7)]
        by_cpu = [sums(exits_of(trace, Selection(frozenset([cpu])))) for cpu in sorted(trace.survey.cpus)]
        assert account.found(1).unended is None
    assert sum(map(bool, by_interval)) > 3
    assert added(by_interval) == added(by_cpu) == sums(whole)


def sums(found: Exits) -> dict[str, tuple[int, int]]:
    adds_up(found)
    return {row.name: (row.time.count, row.time.total_ns) for row in found.totals}


def added(some: list[dict[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    names = {name for one in some for name in one}
    return {name: tuple(map(sum, zip(*(one[name] for one in some if name in one), strict=True))) for name in names}  # type: ignore[misc]


def test_a_dataset_says_the_same(sample: Sample, tmp_path: Path) -> None:
    with xtrace.open(sample("vmx-legacy"), cpu_hz=10**9) as trace, xtrace.store(trace, tmp_path / "data") as stored:
        assert exits_of(stored) == exits_of(trace)
        assert table_of(stored).equals(table_of(trace))


BEGIN: Final = """
    0 cpu0 RUNSTATE_CHANGE domid=32767 vcpuid=0 old_state=running new_state=runnable
    10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    0 cpu1 RUNSTATE_CHANGE domid=32767 vcpuid=1 old_state=running new_state=runnable
    10 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=1 old_state=runnable new_state=running
"""


def rows_of(trace: Trace, *names: str) -> list[tuple[object, ...]]:
    """Columns of its exits."""
    table = table_of(trace)
    assert table.schema.equals(EXITS)
    table.validate(full=True)
    return [tuple(row[name] for name in names) for row in table.select(names).to_pylist()]


def test_an_exit_follows_its_vcpu_and_ends_when_it_becomes_runnable(opened: Opened) -> None:
    with opened(f"""{BEGIN}
        100 cpu0 VMEXIT64 exit_reason=12 rip=1
        - cpu0 HLT runnable=0
        150 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
        200 cpu1 VMEXIT64 exit_reason=1 rip=2
        - cpu1 INTR vector=0xfa
        260 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=1 old_state=running new_state=runnable
        400 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=blocked new_state=runnable
        500 cpu1 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        510 cpu1 VMENTRY
        600 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=1 old_state=runnable new_state=running
        610 cpu0 VMENTRY
        700 cpu1 VMEXIT64 exit_reason=18 rip=3
        - cpu1 VMMCALL eax=32
        720 cpu1 VMENTRY
        800 cpu1 VMEXIT64 exit_reason=18 rip=3
    """) as trace:
        columns = ("begin_ns", "end_ns", "vcpu", "cpu", "reason_name", "what", "entered")
        assert rows_of(trace, *columns) == [
            (200, 260, 1, 1, "EXTERNAL_INTERRUPT", "LOCAL_TIMER (0xfa)", False),
            (100, 400, 0, 0, "HLT", "hlt", False),
            (700, 720, 0, 1, "VMCALL", "event_channel_op", True),
        ]
        assert exits_of(trace).unended == 1


SLEEPS: Final = "140 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked"
WAKES: Final = "160 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=blocked new_state=runnable"
LOSS: Final = "LOST_RECORDS lost=5 first_tsc=140"


@pytest.mark.parametrize(
    ("records", "left"),
    [
        (f"150 cpu0 {LOSS} domid=1 vcpuid=0", [(200, 290)]),
        (f"250 cpu1 {LOSS} domid=1 vcpuid=1", [(100, 190)]),
        (f"195 cpu0 {LOSS} domid=1 vcpuid=0", [(100, 190), (200, 290)]),
        # A vCPU that sleeps may have gone on where records were lost.
        (
            f"{SLEEPS}\n150 cpu1 {LOSS} domid=1 vcpuid=1\n{WAKES}",
            [(200, 290)],
        ),
        (
            f"{SLEEPS}\n{WAKES}",
            [(100, 160), (200, 290)],
        ),
    ],
)
@pytest.mark.parametrize("piece", [None, 1])
def test_no_exit_goes_on_where_records_were_lost(
    records: str, left: list[tuple[int, int]], piece: int | None, opened: Opened
) -> None:
    lines = [
        *BEGIN.splitlines(),
        "100 cpu0 VMEXIT64 exit_reason=10 rip=1",
        "190 cpu0 VMENTRY",
        "200 cpu1 VMEXIT64 exit_reason=10 rip=1",
        "290 cpu1 VMENTRY",
        *records.splitlines(),
    ]
    order = sorted(filter(None, map(str.strip, lines)), key=lambda line: int(line.split()[0]))
    with opened("\n".join(order)) as trace:
        found = followed(trace, ExitsAccount, piece=piece).found(WHOLE)
        assert sorted(row.time.total_ns for row in found.vcpus) == sorted(end - begin for begin, end in left)
        assert found.unended == 2 - len(left)


@pytest.mark.parametrize(
    ("record", "exit_reason", "told"),
    [
        ("CR_WRITE64 cr=4 value=7", 28, ("CR_ACCESS", "write CR4", "cr", 4, 7)),
        ("MSR_READ msr=0xc0000080 value=9", 31, ("MSR_READ", "read EFER (0xc0000080)", "msr", 0xC0000080, 9)),
        ("MSR_WRITE msr=0x12345678 value=9", 32, ("MSR_WRITE", "write MSR 0x12345678", "msr", 0x12345678, 9)),
        ("IOPORT_READ port=0x70 data=5", 30, ("IO_INSTRUCTION", "read port 0x70", "port", 0x70, 5)),
        ("IOMEM_WRITE gpa=0xfed00000 data=5", 48, ("EPT_VIOLATION", "write MMIO", "gpa", 0xFED00000, 5)),
        ("NPF gpa=0xfee00000 p2mt=4", 48, ("EPT_VIOLATION", "npf mmio_dm", "gpa", 0xFEE00000, None)),
        ("VMMCALL eax=0x80000008", 18, ("VMCALL", "Viridian 0x8", "hypercall", 0x80000008, None)),
        ("TRAP vector=17", 0, ("EXCEPTION_NMI", "exception 17", "vector", None, None)),
        ("XCR_WRITE64 xcr=0 value=7", 55, ("XSETBV", "xcr_write", "cr", None, None)),
        ("RDTSC guest_tsc=5", 16, ("RDTSC", "rdtsc", "cr", None, None)),
        ("INJ_VIRQ vector=0x40 fake=0", 62, ("PML_FULL", "no handler", "vector", None, None)),
        ("VLAPIC", 1 << 31 | 33, ("INVALID_GUEST_STATE+FAILED_VMENTRY", "vlapic", "vector", None, None)),
        ("VLAPIC", 12345, ("EXIT_0x3039", "vlapic", "vector", None, None)),
    ],
)
def test_what_handled_an_exit(
    record: str, exit_reason: int, told: tuple[str, str, str, int | None, int | None], opened: Opened
) -> None:
    """With an interrupt's vector before, which makes the vendor known."""
    with opened(f"""{BEGIN}
        20 cpu0 VMEXIT64 exit_reason=1 rip=1
        - cpu0 INTR vector=0x31
        30 cpu0 VMENTRY
        100 cpu0 VMEXIT64 exit_reason={exit_reason} rip=0x7fff
        - cpu0 {record}
        200 cpu0 VMENTRY
    """) as trace:
        first, second = rows_of(trace, "reason_name", "what", told[2], "value", "rip", "vector")
        assert first == ("EXTERNAL_INTERRUPT", "DYNAMIC_0x31 (0x31)", None, None, 1, 0x31) or told[2] == "vector"
        assert second[:4] == (*told[:2], *told[3:])
        assert second[4:] == (0x7FFF, None)


@pytest.mark.parametrize(
    ("event_id", "words", "told"),
    [
        (0x82216, (0x70,), ("write port 0x70", 0x70, None, None)),
        (0x82017, (0xFED00000,), ("read MMIO", None, 0xFED00000, None)),
        (0x82317, (0x5678_9000, 0x1234, 5, 0), ("write MMIO", None, 0x1234_5678_9000, 5)),
        (0x82317, (0x5678_9000, 0x1234, 5), ("iomem", None, None, None)),
        (0x8200F, (), ("interrupt (SVM tells no vector)", None, None, None)),
        (0x82109, (3,), ("cr_write", None, None, None)),
        (0x82077, (), ("handler 0x77", None, None, None)),
    ],
)
def test_forms_that_records_of_handlers_have(
    event_id: int, words: tuple[int, ...], told: tuple[object, ...], tmp_path: Path
) -> None:
    """Without data, of 64 bits, of AMD, of a length or an id that Xen does not write."""
    begin = [
        record("RUNSTATE_CHANGE", {"vcpuid": "0", "domid": domain, "old_state": old, "new_state": new}, at)
        for at, domain, old, new in (
            (ZERO_CYCLES, "32767", "running", "runnable"),
            (ZERO_CYCLES + 10, "1", "runnable", "running"),
        )
    ]
    left, entered = Record(0x81102, (48, 1, 0), ZERO_CYCLES + 100), Record(0x81001, (), ZERO_CYCLES + 190)
    path = tmp_path / "trace.bin"
    path.write_bytes(build_capture([Window(0, (*begin, left, Record(event_id, words, None), entered))]))
    with xtrace.open(path, cpu_hz=10**9) as trace:
        assert rows_of(trace, "what", "port", "gpa", "value", "duration_ns") == [(*told, 90)]


def test_reasons_of_amd_that_xenalyze_dies_of(opened: Opened) -> None:
    lines = "".join(
        f"\n{100 * place} cpu0 VMEXIT64 exit_reason={code} rip=1\n{100 * place + 10} cpu0 VMENTRY"
        for place, code in enumerate((0x400, 0x401, 0x402, 0xFFFFFFFF), 1)
    )
    with opened(BEGIN + lines) as trace:
        names = [row.name for row in exits_of(trace).vcpus]
    assert len(set(names)) == 4


def test_more_reasons_than_room_are_others(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Numbering.__init__, "__defaults__", (3,))
    lines = "".join(
        f"\n{100 * code} cpu0 VMEXIT64 exit_reason={code} rip=1\n- cpu0 MSR_READ msr={code}"
        f"\n{100 * code + code} cpu0 VMENTRY"
        for code in range(10, 20)
    )
    with opened(BEGIN + lines) as trace:
        found = exits_of(trace)
    assert found.totals[0].name == "others"
    assert found.totals[0].time.count == 7
    adds_up(found)
    assert sum(row.time.count for row in found.handlings) == 10


def test_frames_have_a_row_a_reason_and_a_handling(sample: Sample) -> None:
    with xtrace.open(sample("vmx-legacy"), cpu_hz=10**9) as trace:
        found, rows = exits_of(trace), to_pandas(table_of(trace))
    rows["reason"] = rows["reason_name"].astype(str)
    by_vcpu = rows.groupby(["domain", "vcpu", "reason"])["duration_ns"].agg(["count", "sum"])
    frame = found.df_reasons().set_index(["domain", "vcpu", "reason"]).sort_index()
    assert frame[["count", "total_ns"]].to_numpy().tolist() == by_vcpu.sort_index().to_numpy().tolist()
    assert len(frame) == 11
    assert found.df_handlings()["count"].sum() == len(rows) == 754


def test_a_trace_without_guests_has_an_empty_frame(sample: Sample) -> None:
    with xtrace.open(sample("dom0-stock")) as trace:
        assert exits_of(trace).df_reasons().empty
        assert table_of(trace).equals(EXITS.empty_table())

"""Figures of xenalyze that are wrong on healthy traces, each beside xtrace's of the same trace: docs/xenalyze.md.

Of the xenalyze in Debian's xen-utils-4.17. Where a later one is right, these tests fail, and the page has to say so.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from captures import ZERO_CYCLES, capture
from conftest import Opened, Sample
from strategies import Record, Window, build_capture

import xtrace
from xtrace.cli import run
from xtrace.reports import records
from xtrace.selection import Selection
from xtrace.trace import Trace

PAGE: Final = Path(__file__).parent.parent / "docs" / "xenalyze.md"
EXACT: Final = "--cpu-hz=1G"
"""With this a cycle is a nanosecond in what xenalyze prints."""

BEGIN: Final = """
    0 cpu0 RUNSTATE_CHANGE domid=32767 vcpuid=0 old_state=running new_state=runnable
    10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
"""
END: Final = """
    900000 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
"""
"""Around these a guest's vCPU runs on CPU 0."""

Ask = Callable[..., str]


def called(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """How xenalyze ends; without it there is nothing to show, so its absence fails."""
    found = shutil.which("xenalyze")
    if found is None:
        pytest.fail("xenalyze is not installed; Debian's xen-utils-4.17 has it: apt-get install xen-utils-4.17")
    return subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def xenalyze(tmp_path: Path) -> Ask:
    """Asks xenalyze: a path or the text of a capture, and options; returns what it prints."""

    def ask(trace: Path | str | bytes, *options: str) -> str:
        path = trace if isinstance(trace, Path) else tmp_path / "asked.bin"
        if not isinstance(trace, Path):
            path.write_bytes(trace if isinstance(trace, bytes) else capture(trace))
        done = called(*options, path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ask


def of_vcpu(summary: str, domain: int, vcpu: int) -> list[str]:
    """The lines that a summary has of a vCPU."""
    _, _, text = summary.partition(f"|-- Domain {domain} --|\n")
    _, _, text = text.partition("|-- Domain ")[0].partition(f"-- v{vcpu} --\n")
    return re.split(r"(?m)^-- v\d+ --$", text)[0].splitlines()


def below(lines: list[str], head: str) -> list[str]:
    """The lines of a breakdown: those behind the one that begins so that are further to the right."""
    start = next(place for place, line in enumerate(lines) if line.startswith(head))
    indent = len(head) - len(head.lstrip())
    found = []
    for line in lines[start + 1 :]:
        if len(line) - len(line.lstrip()) <= indent:
            break
        found.append(line)
    return found


def events(trace: Trace, name: str, **fixed: int) -> list[dict[str, Any]]:
    """xtrace's records of an event; fixed: only those with these values."""
    rows: list[dict[str, Any]] = trace.table_events(name).to_pylist()
    return [row for row in rows if all(row[key] == value for key, value in fixed.items())]


def dumped(trace: Trace) -> list[str]:
    """The lines of `xtrace dump`."""
    return [line for lines in records.lines(trace, "text", Selection()) for line in lines]


def test_d35_breakdown_for_one_vcpu_only(xenalyze: Ask, sample: Sample) -> None:
    path = sample("vmx-legacy")
    summary = xenalyze(path, "-s")
    first, second = (of_vcpu(summary, 1, vcpu) for vcpu in (0, 1))
    interrupts, calls = " EXTERNAL_INTERRUPT ", " VMCALL "
    assert (len(below(first, interrupts)), len(below(first, calls))) == (1, 2)
    assert (below(second, interrupts), below(second, calls)) == ([], [])
    assert any(re.match(rf"{interrupts} *341 ", line) for line in second)
    with xtrace.open(path) as trace:
        vectors = Counter(row["vector"] for row in events(trace, "HVM_INTR", domain=1, vcpu=1))
        assert vectors == {0xFA: 340, 0xFB: 1}
        hypercalls = Counter(row["eax"] for row in events(trace, "HVM_VMMCALL", domain=1, vcpu=1))
        assert sum(hypercalls.values()) == 311
        assert len(hypercalls) > 1


def test_d36_exits_without_a_handler_of_all_reasons_are_counted_under_the_first(xenalyze: Ask, opened: Opened) -> None:
    reasons = [15] * 2 + [49] * 10
    exits = "".join(
        f"{at} cpu0 VMEXIT64 exit_reason={reason} rip=1\n{at + 50} cpu0 VMENTRY\n"
        for at, reason in enumerate(reasons, start=100)
        for at in (at * 100,)
    )
    lines = of_vcpu(xenalyze(BEGIN + exits + END, "-s"), 1, 0)
    assert [line.split()[:3] for line in below(lines, " RDPMC ")] == [["(no", "handler)", "12"]]
    assert below(lines, " EPT_MISCONFIG ") == []
    found = Counter(row["exit_reason"] for row in events(opened(BEGIN + exits + END), "*EXIT64"))
    assert found == {15: 2, 49: 10}


def test_d37_names_of_vectors(xenalyze: Ask, opened: Opened) -> None:
    exits = "".join(
        f"{at} cpu0 VMEXIT64 exit_reason=1 rip=1\n- cpu0 INTR vector={vector}\n{at + 50} cpu0 VMENTRY\n"
        for at, vector in ((100, 0xFA), (200, 0xF9))
    )
    lines = below(of_vcpu(xenalyze(BEGIN + exits + END, "-s"), 1, 0), " EXTERNAL_INTERRUPT ")
    assert [line.split(":")[0].strip() for line in lines] == ["LOCAL_TIMER(249)", "THERMAL_APIC(250)"]
    text = "\n".join(dumped(opened(BEGIN + exits + END)))
    assert "vector=250(LOCAL_TIMER)" in text
    assert "vector=249(PMU_APIC)" in text


def test_d38_name_of_a_hypercall(xenalyze: Ask, sample: Sample) -> None:
    path = sample("migrate-stock")
    assert any(line.split()[:2] == ["acm_op", "[27]:"] for line in of_vcpu(xenalyze(path, "-s", "--svm-mode"), 0, 0))
    with xtrace.open(path) as trace:
        assert any("op=27(xsm_op)" in line for line in dumped(trace))


def test_d39_amd_interrupts_all_have_vector_0(xenalyze: Ask, sample: Sample) -> None:
    path = sample("migrate-stock")
    printed = re.findall(r" intr vec (\d+)", xenalyze(path, "-a", "--svm-mode"))
    assert set(printed) == {"0"}
    assert xenalyze(path, "--svm-mode", "--scatterplot-extint-cycles=0") == ""
    with xtrace.open(path) as trace:
        table = trace.table_events("HVM_INTR")
        assert len(table) == len(printed) == 2764
        assert "vector" not in table.column_names


def test_d40_time_in_a_runstate(xenalyze: Ask, opened: Opened) -> None:
    text = BEGIN + "2410 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked\n"
    (stay,) = re.findall(r"(?m)^1v0 \S+ (\S+)$", xenalyze(text, "--scatterplot-runstate-time", EXACT))
    assert float(stay) > 10**7
    running = [
        row for row in opened(text).table_runstates().to_pylist() if row["state"] == "running" and row["domain"] == 1
    ]
    assert [row["duration_ns"] for row in running] == [2400]


def test_d41_clock_runs_fast(xenalyze: Ask, tmp_path: Path) -> None:
    text = f"""
        0 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        {2_400_000_000 * 1000} cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
    """
    assert " 1000.244200244 x" in xenalyze(text, "-a", "--cpu-hz=2.4G")
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(text))
    with xtrace.open(path, cpu_hz=2_400_000_000) as trace:
        assert dumped(trace)[-1].split()[0] == "1000.000000000"


def test_d41_below_a_megahertz_it_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(BEGIN + END))
    assert called("-a", "--cpu-hz=976000", path).returncode < 0
    assert run(["dump", str(path), "--cpu-hz", "976000"]) == 2
    assert "out of range" in capsys.readouterr().err


def test_d42_the_frequency_is_assumed(xenalyze: Ask, sample: Sample) -> None:
    path = sample("migrate-stock")
    assert xenalyze(path, "-s", "--svm-mode").startswith("Total time: 44.15 seconds (using cpu speed 2.40 GHz)\n")
    with xtrace.open(path) as trace:
        assert trace.clock.source == "trace"
        # What `xl info` said on that host.
        assert trace.clock.hz == pytest.approx(2_596_100_000, rel=3e-4)
        assert trace.info["trace"]["duration_ns"] / 1e9 == pytest.approx(40.81, abs=0.01)


def test_d43_medians_of_two_kinds(xenalyze: Ask, opened: Opened) -> None:
    """Nine short stays and a long one, in each an exit that takes all of it."""
    text, now = BEGIN.splitlines()[1], 10
    for length in (100,) * 9 + (10_000,):
        text += f"""
            {now} cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
            {now} cpu0 VMEXIT64 exit_reason=30 rip=1
            {now + length} cpu0 VMENTRY
            {now + length} cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=runnable
        """
        now += length + 50
    lines = of_vcpu(xenalyze(text, "-s", EXACT), 1, 0)
    medians = [
        int(line.split("{")[1].split("|")[1]) for line in lines if line.startswith(("   running:", " IO_INSTRUCTION "))
    ]
    assert medians == [10_000, 100]
    stays = [row["duration_ns"] for row in opened(text).table_runstates().to_pylist() if row["state"] == "running"]
    assert np.median([stay for stay in stays if stay is not None]) == 100


def test_d44_lost_records_are_not_counted(xenalyze: Ask, opened: Opened) -> None:
    text = BEGIN + "100 cpu0 LOST_RECORDS lost=123457 domid=1 vcpuid=0 first_tsc=50\n" + END
    assert "123457" not in xenalyze(text, "-s", EXACT)
    trace = opened(text)
    assert trace.lost_by_cpu == {0: 123_457}
    assert trace.info["trace"]["lost_records"] == 123_457


def skewed(cpu: int) -> str:
    """A wake-up that CPU `cpu` makes is stamped 1,000 cycles later than the run on CPU 0 that it leads to."""
    return f"""
        0 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        1 cpu{cpu} RUNSTATE_CHANGE domid=2 vcpuid=0 old_state=runnable new_state=running
        1000 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
        10000 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        11000 cpu{cpu} RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=blocked new_state=runnable
        20000 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
        25000 cpu0 RUNSTATE_CHANGE domid=32767 vcpuid=0 old_state=runnable new_state=running
        30000 cpu{cpu} RUNSTATE_CHANGE domid=2 vcpuid=0 old_state=running new_state=blocked
    """


def test_d45_cpu_64_is_taken_for_cpu_0(xenalyze: Ask) -> None:
    loop = "Tsc skew dependency loop detected!"
    assert loop not in xenalyze(skewed(1), "-a", EXACT)
    assert loop in xenalyze(skewed(64), "-a", EXACT)


def test_d46_skew_is_corrected_twice(xenalyze: Ask, opened: Opened) -> None:
    printed = xenalyze(skewed(1), "-a", EXACT)
    assert "TSC skew detected p1->p0, 1000 cycles. Changing p0 offset from 0 to 2000" in printed
    last = "runstate_change d32767v0 runnable->running"
    assert re.findall(rf"(?m)^ +(\S+) .*{last}$", printed) == ["0.000027000"]
    assert [line.split()[0] for line in dumped(opened(skewed(1))) if "domid=32767" in line or "32767" in line] == [
        "0.000025000"
    ]


def test_d48_kernel_addresses_are_negative(xenalyze: Ask, opened: Opened) -> None:
    address = 0xFFFF_FFFF_8100_0000
    text = f"{BEGIN}100 cpu0 VMEXIT64 exit_reason=12 rip={address}\n200 cpu0 VMENTRY\n{END}"
    assert xenalyze(text, "--scatterplot-vmexit-eip", EXACT).split()[1] == str(address - (1 << 64))
    assert events(opened(text), "*EXIT64")[0]["rip"] == address


def test_d49_irq_times_are_negative(xenalyze: Ask, sample: Sample) -> None:
    path = sample("bench-legacy")
    printed = [int(begin) for begin in re.findall(r" irq_handled irq \w+ -?\d+ \((-?\d+),", xenalyze(path, "-a"))]
    assert min(printed) < 0
    with xtrace.open(path) as trace:
        found = [row["tsc_in"] for row in events(trace, "HW_IRQ_HANDLED")]
    assert min(found) > 0
    assert found == [begin % (1 << 32) for begin in printed]


def test_d50_long_arguments_are_decimal(xenalyze: Ask, tmp_path: Path) -> None:
    op_word = 12 | 2 << 20 | 1 << 22
    rows = (
        Record(0x21101, (1 << 16,), ZERO_CYCLES),
        Record(0x20100D, (op_word, 0x10, 0, 0x10), ZERO_CYCLES + 100),
        Record(0x21021, (1 << 16,), ZERO_CYCLES + 900),
    )
    data = build_capture([Window(0, rows)])
    assert "(memory_op) 0000000000000016 00000010" in xenalyze(data, "-a", EXACT)
    path = tmp_path / "trace.bin"
    path.write_bytes(data)
    with xtrace.open(path, cpu_hz=10**9) as trace:
        (line,) = (line for line in dumped(trace) if "memory_op" in line)
    assert "arg0=16 arg1=16" in line


def test_d51_the_head_of_an_interval_table_comes_last(xenalyze: Ask, sample: Sample) -> None:
    options = ("--svm-mode", "--interval=10", "--interval-domain-total-time-all")
    *rows, last = xenalyze(sample("migrate-stock"), *options).splitlines()
    assert last.split()[0] == "time"
    assert all(re.fullmatch(r"[\d. ]+", row) for row in rows)
    assert "," not in "".join(rows)


def test_d53_msrs_are_not_told_apart(xenalyze: Ask, sample: Sample) -> None:
    path = sample("migrate-stock")
    summary = xenalyze(path, "-s", "--svm-mode")
    for domain, vcpu in ((1, 0), (1, 1), (2, 0), (2, 1)):
        assert below(of_vcpu(summary, domain, vcpu), " VMEXIT_MSR ") == []
    with xtrace.open(path) as trace:
        written = Counter(row["msr"] for row in events(trace, "HVM_MSR_WRITE"))
    assert sum(written.values()) == 2646
    assert all(written)


def test_d54_timers_of_emulated_devices_are_unknown(xenalyze: Ask, opened: Opened) -> None:
    text = (
        f"{BEGIN}100 cpu0 EMUL_LAPIC_START_TIMER delta_ns=1000 period_ns=2000 irq=1\n120 cpu0 EMUL_PIT_TIMER_CB\n{END}"
    )
    assert re.findall(r"Unknown hvm event: (\w+)", xenalyze(text, "-a", EXACT)) == ["84004", "84009"]
    assert "emul" not in xenalyze(text, "-s", EXACT).partition("Emulate eip list")[0]
    found = "\n".join(dumped(opened(text)))
    assert "TRC_HVM_EMUL_LAPIC_START_TIMER delta_ns=1000 period_ns=2000" in found
    assert "TRC_HVM_EMUL_PIT_TIMER_CB" in found


SYMBOLS: Final = "ffff82d040200000 T start_xen\nffff82d040200100 T idle_loop\n"


def test_d55_three_columns_are_one_symbol(xenalyze: Ask, tmp_path: Path) -> None:
    symbols = tmp_path / "symbols"
    symbols.write_text(SYMBOLS)
    exits = "".join(
        f"{at} cpu0 VMEXIT64 exit_reason=12 rip={address}\n{at + 50} cpu0 VMENTRY\n"
        for at, address in ((100, 0xFFFF_82D0_4020_0010), (200, 0xFFFF_82D0_4020_0110))
    )
    printed = xenalyze(BEGIN + exits + END, "-a", f"--symbol-file={symbols}")
    assert re.findall(r" eip \w+\((.*?)\)", printed) == ["T +10", "T +110"]
    path = tmp_path / "trace.bin"
    path.write_bytes(capture("100 cpu0 CALL_START seq=1 func=0xffff82d040200100 n_cpus=1"))
    with xtrace.open(path, cpu_hz=10**9, symbols=symbols) as trace:
        assert any("idle_loop" in line for line in dumped(trace))


def test_d55_two_columns_and_a_final_newline_end_it(tmp_path: Path) -> None:
    symbols, path = tmp_path / "symbols", tmp_path / "trace.bin"
    symbols.write_text(SYMBOLS.replace(" T", ""))
    path.write_bytes(capture(BEGIN + END))
    done = called("-a", f"--symbol-file={symbols}", path)
    assert done.returncode == 1
    assert "Symbol file not properly ordered: deadbeef" in done.stderr


def test_records_of_the_tracepoints_leave_no_line(xenalyze: Ask, sample: Sample) -> None:
    path = sample("bench-lockless")
    assert xenalyze(path, "-a").count(" irq_handled ") == 47
    assert not re.search(r"(?i)smp|tlb|8040", xenalyze(path, "-a"))
    with xtrace.open(path) as trace:
        assert len(trace.table_events("SMP_*")) + len(trace.table_events("TLB_FLUSH_*")) == 14_238


ENDS: Final = {
    "256 CPUs": "0 cpu256 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running",
    "page-modification log": BEGIN + "100 cpu0 VMEXIT64 exit_reason=62 rip=1\n" + END,
}


@pytest.mark.parametrize("what", ENDS)
def test_records_that_end_xenalyze(what: str, opened: Opened, tmp_path: Path) -> None:
    lines = dumped(opened(ENDS[what]))
    assert len(lines) == len([line for line in ENDS[what].splitlines() if line.strip()])
    assert called("-s", tmp_path / "trace.bin").returncode != 0


def test_a_guests_own_records_end_xenalyze(tmp_path: Path) -> None:
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(BEGIN) + build_capture([Window(0, (Record(0x80F001, (1,)), Record(0x800F001, (1,))))]))
    assert called("-s", path).returncode == 1
    with xtrace.open(path, cpu_hz=10**9) as trace:
        assert len(dumped(trace)) == 4


def test_amd_and_damage_end_xenalyze(sample: Sample, tmp_path: Path) -> None:
    path = sample("migrate-stock")
    assert called("-s", path).returncode == 1
    damaged = tmp_path / "trace.bin"
    data = path.read_bytes()
    damaged.write_bytes(data[:400_000] + bytes(4096) + data[404_096:])
    assert called("-s", "--svm-mode", damaged).returncode == 1
    with xtrace.open(damaged) as trace:
        assert 190_000 < trace.info["trace"]["records"] < 196_024


def test_the_page_tells_of_each_and_claims_no_other() -> None:
    """Every row of the page that says "reproduced" has a test here, and each test a row."""
    tested = {int(number) for number in re.findall(r"(?m)^def test_d(\d+)_", Path(__file__).read_text())}
    _, _, text = PAGE.read_text().partition("## Wrong figures")
    shown, _, rest = text.partition("### Not reproduced")
    assert {int(number) for number in re.findall(r"(?m)^\| D(\d+) \|", shown)} == tested
    assert tested | {int(number) for number in re.findall(r"(?m)^\* D(\d+)\b", rest)} == set(range(35, 56))

"""The command line as a user meets it: real processes on real traces."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from xtrace.cli import run

SAMPLES = Path(__file__).parent.parent / "sample_traces"
BENCH = str(SAMPLES / "bench-lockless.bin")
DOM0 = str(SAMPLES / "dom0-stock.bin")
COMMANDS = ("analyze", "info", "dump", "compare", "dataset", "export", "whatif", "tracepoints")

DISTRIBUTION = {"mean", "p50", "p90", "p99", "max"}
PHASES = ("total_ns", "lock_wait_ns", "delivery_ns", "execution_ns")


def xtrace(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xtrace", *arguments], capture_output=True, text=True, check=False, **options
    )


def analysis(*arguments: str) -> dict[str, Any]:
    done = xtrace("analyze", *arguments, "--format", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def failure(*arguments: str, code: int, **options: Any) -> str:
    done = xtrace(*arguments, **options)
    assert done.returncode == code, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    done = xtrace(command, "--help")
    assert done.returncode == 0
    assert f"Example: xtrace {command} " in " ".join(done.stdout.split())


def test_version() -> None:
    assert re.fullmatch(r"xtrace \d+\.\d+\.\d+\n", xtrace("--version").stdout)


def test_help_loads_nothing_heavy() -> None:
    probe = (
        "import sys; from xtrace.cli import run; run(['--help']);"
        "sys.exit([name for name in ('numpy','pandas','pyarrow','construct','matplotlib') if name in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_analyze_loads_no_pandas() -> None:
    """Which would take longer than the analysis of a small trace."""
    probe = f"import sys; from xtrace.cli import run; run(['analyze', {BENCH!r}]); sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0


PARTS = [
    *("host", "intervals", "contention", "cost", "stragglers", "log_dirty", "asynchronous", "waste", "clocks"),
    "inferred",
]


def test_json_contract() -> None:
    document = analysis(BENCH, "--cpu-hz", "2596.1M")
    assert list(document) == ["schema", "trace", "hypervisor", "events", "episodes", *PARTS]
    assert document["log_dirty"] is None
    assert document["schema"] == "xtrace.analysis/1"
    assert set(document["trace"]) == {
        *("path", "bytes", "records", "skipped_bytes", "lost_records", "cpus", "duration_ns", "cpu_hz"),
        "cpu_hz_source",
    }
    assert document["trace"]["cpu_hz"] == 2_596_100_000
    assert document["hypervisor"] == {"smp_model": "lockless", "vendor": "unknown", "evidence": "exact"}
    assert document["events"]["SMP_CALL_START"] == 1556
    assert sum(document["events"].values()) == document["trace"]["records"] == 14_808
    for kind, count in (("call", 1556), ("flush", 956)):
        found = document["episodes"][kind]
        assert set(found) == {"count", "complete", "overlapping", "targets", *PHASES, "fairness"}
        assert found["count"] == count
        assert all(set(found[phase]) == DISTRIBUTION for phase in PHASES)
        assert sum(row["count"] for row in found["fairness"]["initiators"]) == found["complete"]
        assert set(found["fairness"]) == {
            "initiators",
            "requests",
            "orders",
            "places",
            "overtaken",
            "waiters",
            "contest",
        }
    # A flush and the call that carries it are one request.
    assert document["contention"]["spent"]["flush"]["requests"] == 955
    assert document["contention"]["spent"]["call"]["requests"] == 600


def test_of_nothing_statistics_are_null() -> None:
    document = analysis(DOM0)
    assert document["hypervisor"]["evidence"] == "none"
    assert document["episodes"]["call"]["total_ns"] == dict.fromkeys(sorted(DISTRIBUTION)) or set(
        document["episodes"]["call"]["total_ns"].values()
    ) == {None}


def test_spans_add_up() -> None:
    whole = analysis(BENCH, "--cpu-hz", "1G")
    parts = [
        analysis(BENCH, "--cpu-hz", "1G", *span)
        for span in (["--to", "20s"], ["--from", "20", "--to", "50000ms"], ["--from", "50s"])
    ]
    for kind in ("call", "flush"):
        counts = [part["episodes"][kind]["complete"] for part in parts]
        assert sum(counts) == whole["episodes"][kind]["complete"]
        assert all(counts)
    bare = whole["events"]["TRC_TRACE_CPU_CHANGE"]
    assert sum(sum(part["events"].values()) for part in parts) >= whole["trace"]["records"] - bare


def test_cpus_add_up_and_mean_the_same() -> None:
    total = 0
    for cpus in ("0-3", "4,5-7"):
        counts = analysis(BENCH, "--cpus", cpus)["events"]
        lines = xtrace("dump", BENCH, "--cpu", cpus, "--format", "raw").stdout.splitlines()
        assert len(lines) == sum(counts.values()) - counts["TRC_TRACE_CPU_CHANGE"]
        total += sum(counts.values())
    assert total == 14_808


def test_table_begins_with_what_it_rests_on() -> None:
    done = xtrace("analyze", BENCH, "--symbols", str(SAMPLES / "symbols-lockless.map"))
    lines = done.stdout.splitlines()
    assert "14,808 records, 8 CPUs (0-7)" in lines[0]
    assert lines[1].startswith("lost records: none  skipped bytes: none  2.4000 GHz (assumed)  evidence: exact")
    for text in ("arch/x86/smp.c#invalidate_cb", "Where the time goes", "p99", "in flight", "Worst", "Busiest", "█"):
        assert text in done.stdout
    assert "give --cpu-hz" in done.stderr
    assert "\x1b" not in done.stdout


def test_a_stock_trace_says_why_there_is_nothing() -> None:
    done = xtrace("analyze", DOM0)
    assert done.returncode == 0
    assert "no TRC_HW_SMP records" in done.stdout
    assert "2.5969 GHz (from the trace)" in done.stdout


def test_dump() -> None:
    lines = xtrace("dump", DOM0, "--event", "SCHED_SWITCH", "--cpu", "0", "--format", "text").stdout.splitlines()
    assert lines[0].split()[3:] == [
        "TRC_SCHED_SWITCH",
        *("prev_domid=32767", "prev_unit=0", "next_domid=0", "next_unit=0"),
    ]
    records = [
        json.loads(line) for line in xtrace("dump", DOM0, "--domain", "0", "--format", "json").stdout.splitlines()
    ]
    assert records
    assert {record["domain"] for record in records} == {0}
    assert {"ns", "tsc", "cpu", "domain", "vcpu", "event", "fields"} == set(records[0])
    assert [record["ns"] for record in records] == sorted(record["ns"] for record in records)
    named = xtrace("dump", DOM0, "--event", "PV_HYPERCALL_V2").stdout
    assert "op=23(iret)" in named


def test_info() -> None:
    document = json.loads(xtrace("info", DOM0, "--format", "json").stdout)
    assert document["windows"] == 50
    assert sum(row["records"] for row in document["events"]) == 4700
    assert sum(row["bytes"] for row in document["classes"]) == document["trace"]["bytes"] == 101_588
    assert "By class" in xtrace("info", DOM0).stdout


def test_a_pipe_gives_the_same() -> None:
    with Path(BENCH).open("rb") as stream:
        piped = xtrace("analyze", "-", "--format", "json", stdin=stream)
    data = Path(BENCH).read_bytes()
    through = subprocess.run(
        [sys.executable, "-m", "xtrace", "dump", "-", "--format", "raw"], input=data, capture_output=True, check=False
    )
    document = json.loads(piped.stdout)
    document["trace"]["path"] = BENCH
    assert document == analysis(BENCH)
    assert through.stdout.decode() == xtrace("dump", BENCH, "--format", "raw").stdout


def test_bad_input(tmp_path: Path) -> None:
    empty, noise, symbols = (tmp_path / name for name in ("empty", "noise", "symbols"))
    empty.touch()
    noise.write_bytes(b"not a trace at all, but text\n" * 99)
    symbols.write_text("ffff82d040200000 T good\nbad line\n")
    assert "No such file" in failure("analyze", str(tmp_path / "none"), code=3)
    assert "a folder without traces" in failure("info", str(tmp_path), code=3)
    assert "is empty" in failure("analyze", str(empty), code=3)
    assert "no xentrace window" in failure("dump", str(noise), code=3)
    assert "line 2" in failure("analyze", BENCH, "--symbols", str(symbols), code=3)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cpu-hz", "fast"],
        ["--cpu-hz", "10"],
        ["--cpus", "3-1"],
        ["--cpus", "all"],
        ["--cpus", "99999"],
        ["--from", "yesterday"],
        ["--to", "-1"],
        ["--format", "xml"],
        ["--nonsense"],
    ],
)
def test_bad_options(arguments: list[str]) -> None:
    failure("analyze", BENCH, *arguments, code=2)


def test_unknown_event() -> None:
    assert "no such event" in failure("dump", BENCH, "--event", "NOTHING", code=2)


def test_a_cut_trace_is_analyzed_with_a_warning(tmp_path: Path) -> None:
    cut = tmp_path / "cut.bin"
    cut.write_bytes(Path(BENCH).read_bytes()[:150_001])
    done = xtrace("analyze", str(cut), "--format", "json")
    assert done.returncode == 0
    assert "the file ends inside a" in done.stderr
    document = json.loads(done.stdout)
    assert 0 < document["trace"]["skipped_bytes"] < 40
    assert document["episodes"]["call"]["complete"] > 100


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m xtrace dump {BENCH} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("width", [30, 60, 200])
def test_any_width(width: int) -> None:
    """On a terminal of this width lines fit, and NO_COLOR is heeded."""
    import pty

    reader, terminal = pty.openpty()
    environment = os.environ | {"COLUMNS": str(width), "NO_COLOR": "1", "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-m", "xtrace", "analyze", BENCH], stdout=terminal, env=environment)
    os.close(terminal)
    shown = b""
    while True:
        try:
            data = os.read(reader, 1 << 16)
        except OSError:
            break
        if not data:
            break
        shown += data
    assert process.wait() == 0
    lines = shown.decode().replace("\r", "").split("\n")
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert max(map(len, plain)) <= width
    assert not re.search(rb"\x1b\[(3|9)\d", shown), "a colour in spite of NO_COLOR"


@pytest.mark.parametrize("command", [[], ["emulate"]])
def test_no_arguments_show_the_help_in_lines(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Usage: ")
    assert "\nCommands:\n" in said.err


def test_what_only_pages_and_notebooks_need_is_not_loaded() -> None:
    code = (
        "import sys; from xtrace.cli import run; run(['analyze', sys.argv[1]]); "
        "assert not {'matplotlib', 'pandas', 'jinja2'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, BENCH], capture_output=True, check=True)

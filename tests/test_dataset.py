"""Datasets: the same answers as from the trace, readable by others, whole or not there."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLES, Sample
from hypothesis import given
from strategies import Record, Window, build_capture, captures

import xtrace
from xtrace.cli import run
from xtrace.dataset import staging
from xtrace.dataset.event_files import file_of
from xtrace.dataset.layout import COMMON, TABLES, files, name_of, partitions
from xtrace.dataset.staging import whole_folder
from xtrace.dataset.write import write
from xtrace.errors import InputError, MissingEventsError, UsageError
from xtrace.parsers.registry import EVENTS
from xtrace.trace_file import TraceFile

NAMES = ("bench-lockless", "migrate-legacy", "dom0-stock", "vmx-legacy")
MAPS = {name: SAMPLES / f"symbols-{name}.map" for name in ("legacy", "lockless")}


LACKING = {("bench-lockless", "df_runstates"), ("dom0-stock", "df_episodes"), ("dom0-stock", "df_deliveries")}


def asked(query: str) -> list[tuple[Any, ...]]:
    """What DuckDB answers."""
    answer = duckdb.sql(query)
    assert answer is not None
    rows: list[tuple[Any, ...]] = answer.fetchall()
    return rows


def map_of(name: str) -> Path | None:
    return MAPS.get(name.rpartition("-")[2])


@pytest.fixture(scope="module")
def data(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of some of the samples."""
    root = tmp_path_factory.mktemp("dataset") / "data"
    for name in NAMES:
        with TraceFile(sample(name), symbols=map_of(name)) as trace:
            write(trace, root, name)
    return root


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "command",
    [
        "analyze",
        "analyze --format json",
        "analyze --cpus 0-1 --from 100ms --to 2s --format json",
        "info",
        "info --format json",
        "dump --to 2s",
        "dump --event * --format raw --from 1s --to 2s",
        "dump --event *SCHED*,HW,PV --cpus 1-3 --domain 0 --format json --to 2s",
    ],
)
def test_round_trip(name: str, command: str, data: Path, sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    """What a command prints of the trace it prints of the dataset, to the letter."""
    word, *options = command.split()
    named = ["--symbols", str(MAPS[name.rpartition("-")[2]])] if word == "analyze" and map_of(name) else []
    of_trace = said(capsys, word, str(sample(name)), *options, *named)
    assert of_trace[0] == 0
    assert len(of_trace[1]) > 100 or (name == "bench-lockless" and "--domain" in options), "no scheduler records there"
    assert said(capsys, word, str(data / f"trace={name}"), *options) == of_trace


def test_round_trip_of_damage_and_loss(sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing is told of a dataset as of the trace: skipped bytes, lost records, a second capture."""
    content = bytearray(sample("bench-lockless").read_bytes())
    content[100_000:104_096] = bytes(4096)
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(content + sample("bench-lockless").read_bytes()[:50_000])
    lossy = tmp_path / "lossy.bin"
    small = ["--threads", "4", "--mask", "4", "--work", "200ns", "--calls", "500", "--ring-pages", "1"]
    assert run(["emulate", "bench", *small, "-o", str(lossy)]) == 0
    for trace in (damaged, lossy):
        assert run(["dataset", str(trace), "-o", str(tmp_path / "data"), "--cpu-hz", "2.4G"]) == 0
        capsys.readouterr()
        for word in ("analyze", "info", "dump"):
            of_trace = said(capsys, word, str(trace), "--cpu-hz", "2.4G")
            assert of_trace[0] == 0
            assert ("skipped: " in of_trace[2]) == (trace == damaged)
            assert said(capsys, word, str(tmp_path / "data" / f"trace={trace.stem}")) == of_trace
    rows: Any = xtrace.load(tmp_path / "data").df_traces().set_index("trace")
    assert rows.loc["damaged", "skipped_bytes"] > 0
    assert rows.loc["damaged", "captures"] == 2
    assert rows.loc["lossy", "lost_records"] == 15_782


def test_round_trip_of_comparisons(sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("legacy", "lockless"):
        with TraceFile(sample(f"bench8-{model}"), cpu_hz=60_000_000, symbols=MAPS[model]) as trace:
            write(trace, tmp_path / model, f"bench8-{model}")
    named = ["--symbols-before", str(MAPS["legacy"]), "--symbols-after", str(MAPS["lockless"])]
    traces = [str(sample(f"bench8-{model}")) for model in ("legacy", "lockless")]
    of_traces = said(capsys, "compare", *traces, *named, "--cpu-hz", "60M")
    assert said(capsys, "compare", str(tmp_path / "legacy"), str(tmp_path / "lockless")) == of_traces


def test_replays_and_pages_of_datasets(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = str(data / "trace=bench-lockless")
    assert said(capsys, "whatif", trace, "--model", "legacy", "--runs", "1")[0] == 0
    page = tmp_path / "page.html"
    assert said(capsys, "analyze", trace, "--html", str(page))[0] == 0
    assert "<svg" in page.read_text()
    assert said(capsys, "emulate", "bench", "--like", trace, "-o", str(tmp_path / "out.bin"), "--calls", "5")[0] == 0


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_those_of_the_trace(name: str, data: Path, sample: Sample) -> None:
    stored = xtrace.load(data)[name]
    with xtrace.open(sample(name), symbols=map_of(name)) as trace:
        for ask in ("df_episodes", "df_deliveries", "df_runstates"):
            if (name, ask) in LACKING:
                with pytest.raises(MissingEventsError) as error:
                    getattr(trace, ask)()
                with pytest.raises(MissingEventsError) as other:
                    getattr(stored, ask)()
                assert (str(other.value), other.value.present) == (str(error.value), error.value.present)
                continue
            pd.testing.assert_frame_equal(getattr(trace, ask)(), getattr(stored, ask)())
            table = ask.replace("df_", "table_")
            assert getattr(trace, table)().schema.equals(getattr(stored, table)().schema, check_metadata=True)
        assert trace.summary() == stored.summary()
        assert trace.info == stored.info
        some = ",".join(list(trace.event_counts())[::7])
        pd.testing.assert_frame_equal(trace.df_events(some), stored.df_events(some))


def test_the_answer_of_duckdb_is_that_of_analyze(data: Path, sample: Sample) -> None:
    """p99 flush time by initiator."""
    found = asked(
        "select initiator, quantile_cont(total_ns, 0.99) from "
        f"'{data}/trace=migrate-legacy/episodes.parquet' where kind = 'flush' and complete group by all"
    )
    with xtrace.open(sample("migrate-legacy")) as trace:
        rows = trace.summary()["episodes"]["flush"]["fairness"]["initiators"]
    assert len(found) == 4
    assert dict(found) == pytest.approx({row["cpu"]: row["p99"] for row in rows}, rel=1e-12)


def test_readers_see_all_traces_by_name(data: Path) -> None:
    counts = {"bench-lockless": 2512, "migrate-legacy": 2827, "vmx-legacy": 3}
    pattern = f"{data}/trace=*/episodes.parquet"
    assert dict(asked(f"select trace, count(*) from '{pattern}' group by all")) == counts
    frame = pl.scan_parquet(pattern, hive_partitioning=True).group_by("trace").len().collect()
    assert dict(frame.iter_rows()) == counts
    paths: Any = sorted(map(str, data.glob("trace=*/episodes.parquet")))
    whole = pd.read_parquet(paths)
    assert whole.groupby("trace", observed=True).size().to_dict() == counts
    lazy = xtrace.load(data).dataset("episodes")
    assert lazy.to_table(columns=["trace"])["trace"].to_pandas().value_counts().to_dict() == counts
    assert xtrace.load(data).df_episodes().groupby("trace", observed=True).size().to_dict() == counts


def test_files_of_an_event_have_one_schema(data: Path) -> None:
    for event in EVENTS:
        paths = sorted(data.glob(f"trace=*/events/event={file_of(event)}/records.parquet"))
        assert len({str(pq.read_schema(path)) for path in paths}) <= 1
    found = asked(
        f"select trace, count(*) from '{data}/trace=*/events/event=TRC_SCHED_SWITCH/records.parquet' group by all"
    )
    assert dict(found) == {"vmx-legacy": 287, "migrate-legacy": 14325, "dom0-stock": 238}


def test_every_field_says_unit_and_meaning(data: Path) -> None:
    for folder in partitions(data):
        for table in (*TABLES, "events"):
            for path in files(folder, table):
                for field in pq.read_schema(path):
                    assert field.metadata[b"meaning"], (path, field)
                    assert field.metadata[b"unit"] == (b"ns" if field.name.endswith("_ns") else field.metadata[b"unit"])
                    assert field.metadata[b"unit"] in {b"ns", b"cycles", b"bytes", b"Hz", b"none"}


def test_records_are_counted_and_in_order(data: Path) -> None:
    loaded = xtrace.load(data)
    events = loaded.dataset("events").to_table(columns=["trace", "record", "ns", "event"]).to_pandas()
    for name, mine in events.groupby("trace"):
        assert np.array_equal(np.sort(mine["record"]), np.arange(loaded[str(name)].survey.total_records))
        timed = mine.sort_values("record").dropna(subset=["ns"])
        stamped = timed[timed["event"] != "TRC_TRACE_CPU_CHANGE"]
        assert stamped["ns"].is_monotonic_increasing
    switches = loaded.dataset("events", "TRC_SCHED_SWITCH")
    assert switches.count_rows() == 14850
    assert {"trace", "event", "prev_domid", *(one.name for one in COMMON)} <= set(switches.schema.names)
    with pytest.raises(MissingEventsError, match="no TRC_NONSENSE records in any trace"):
        loaded.dataset("events", "TRC_NONSENSE")
    with pytest.raises(UsageError, match="no table calls; give episodes"):
        loaded.dataset("calls")


def test_traces_table(data: Path, sample: Sample) -> None:
    traces = xtrace.load(data).df_traces().set_index("trace")
    row = traces.loc["migrate-legacy"]
    assert row["sha256"] == "3966991e8869786d50fbaae4ec7adcbeae6f06802ada707869579861fc10961a"
    assert row["size_bytes"] == sample("migrate-legacy").stat().st_size == 16_349_236
    assert (row["smp_model"], row["vendor"], row["lost_records"], row["records"]) == ("legacy", "svm", 0, 735_058)
    assert traces.loc["dom0-stock", "evidence"] == "none"


def test_a_dataset_of_several_traces_must_be_told_which(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "analyze", str(data))
    assert (code, out) == (2, "")
    assert err == f"xtrace: {data}: a dataset of 4 traces; name one, such as {data}/trace=bench-lockless\n"
    with pytest.raises(UsageError, match="no trace nothing; it has bench-lockless, "):
        xtrace.load(data)["nothing"]


def test_times_are_fixed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "analyze", str(data / "trace=dom0-stock"), "--cpu-hz", "3G")
    assert code == 2
    assert "times in" in err


def test_symbols_may_come_later(sample: Sample, tmp_path: Path) -> None:
    with TraceFile(sample("bench-lockless")) as trace:
        write(trace, tmp_path, "bench")
    folder = tmp_path / "trace=bench"
    assert xtrace.open(folder).df_episodes()["func_name"].isna().all()
    named = xtrace.open(folder, symbols=MAPS["lockless"]).df_episodes()
    with xtrace.open(sample("bench-lockless"), symbols=MAPS["lockless"]) as trace:
        pd.testing.assert_frame_equal(named, trace.df_episodes())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/trace.bin", "trace"),
        ("x.bin.xz", "x"),
        ("day-1.gz", "day-1"),
        ("host a=1.dat", "host_a_1"),
        ("v1.2.bin", "v1.2"),
    ],
)
def test_names(path: str, name: str) -> None:
    assert name_of(path) == name


@pytest.mark.parametrize("path", ["-", ".bin", "..", "=x.bin/.."])
def test_names_that_will_not_do(path: str) -> None:
    with pytest.raises(UsageError, match="give --name"):
        name_of(path)


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xtrace", *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def test_command(tmp_path: Path, sample: Sample) -> None:
    root = tmp_path / "data"
    dom0, bench = sample("dom0-stock"), sample("bench-legacy")
    done = command("dataset", dom0, bench, "-o", root, "--host", "lab7", "--symbols", MAPS["legacy"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(
        f"{root}/trace=dom0-stock: 0 episodes, 0 deliveries, 603 runstates, 4,700 events; "
    )
    again = command("dataset", dom0, "-o", root, "--format", "json")
    document = json.loads(again.stdout)
    assert document["schema"] == "xtrace.stored/1"
    assert document["traces"][0]["rows"]["events"] == 4700
    assert set(xtrace.load(root).df_traces()["host"].fillna("-")) == {"lab7", "-"}, "stored anew without a host"
    other = command("dataset", bench, "-o", root, "--name", "dom0-stock")
    assert other.returncode == 2
    assert other.stderr.strip() == (
        f"xtrace: {root}/trace=dom0-stock: holds another trace, {dom0}; give --name for this one, or --force"
    )
    assert command("dataset", bench, "-o", root, "--name", "dom0-stock", "--force").returncode == 0
    assert xtrace.load(root).names == ["bench-legacy", "dom0-stock"]
    with bench.open("rb") as pipe:
        assert command("dataset", "-", "-o", root, "--name", "piped", stdin=pipe).returncode == 0
    rows = xtrace.load(root).df_traces().set_index("trace")["sha256"]
    assert rows["piped"] == rows["bench-legacy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a/x.bin", "b/x.bin", "-o", "d"], "several traces would be called x"),
        (["x.bin", "y.bin", "-o", "d", "--name", "z"], "--name is for one trace"),
        (["-", "-o", "d"], "standard input: no name for a trace"),
        (["x.bin", "-o", "d", "--name", "../up"], "../up: no name for a trace"),
        (["x.bin", "-o", "README.md"], "README.md: not a folder"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    done = command("dataset", *arguments, cwd=SAMPLES.parent)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_no_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "analyze", str(tmp_path))
    assert (code, err) == (3, f"xtrace: {tmp_path}: a folder without traces; give one that `xtrace dataset` wrote\n")
    with pytest.raises(InputError, match="a folder without traces"):
        xtrace.load(tmp_path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _other_schema(path: Path) -> None:
    pq.write_table(pa.table({"episode": [1]}), path)


def _lacks_a_column(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(table.column_names[:1]), path)


@pytest.mark.parametrize("harm", [_cut, _other_schema, _lacks_a_column, Path.unlink])
@pytest.mark.parametrize("name", ["episodes.parquet", "traces.parquet", "events/event=SMP_CALL_START/records.parquet"])
def test_harmed_files_are_said(
    name: str, harm: Callable[[Path], None], sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with TraceFile(sample("bench8-legacy")) as trace:
        write(trace, tmp_path, "bench")
    folder = tmp_path / "trace=bench"
    harm(folder / name)
    word = "dump" if name.startswith("events") else "analyze"
    code, _, err = said(capsys, word, str(folder))
    assert code == 3
    assert err.startswith("xtrace: ")
    assert err.count("\n") == 1


@given(windows=captures())
def test_any_records_come_back(windows: list[Window], scratch: Path) -> None:
    """Whatever is in a trace: dumps of the dataset are those of the file."""
    scratch.write_bytes(build_capture(windows))
    root = scratch.with_name("any")
    with TraceFile(scratch, cpu_hz=10**9) as trace:
        write(trace, root, "any", force=True)
        stored = xtrace.load(root)["any"]
        assert stored.info == trace.info
        assert _dumped(stored) == _dumped(trace)


def _dumped(trace: xtrace.Trace) -> list[str]:
    from xtrace.reports import records

    found = [records.lines(trace, form, xtrace.Selection(), lambda _: True) for form in ("raw", "json")]
    return [line for lines in found for batch in lines for line in batch]


def test_many_kinds_of_records_make_few_files(tmp_path: Path) -> None:
    """A trace can make up names, and each would be a file."""
    made_up = tuple(Record(0x0ABC000 + at, (at,), 1000 + at) for at in range(2000))
    path = tmp_path / "trace.bin"
    path.write_bytes(build_capture([Window(0, made_up)]))
    with TraceFile(path, cpu_hz=10**9) as trace:
        write(trace, tmp_path / "data", "made-up")
        stored = xtrace.load(tmp_path / "data")["made-up"]
        assert len(files(stored.folder, "events")) <= 2
        assert stored.event_counts() == trace.event_counts()
        assert len(stored.df_events("TRC_UNKNOWN_0x0abc0ff")) == 1


# ---- whole or not there


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "root" / "trace=x"
    with whole_folder(target) as folder:
        (folder / "one").write_text("1")
        assert not target.exists()
        assert list(target.parent.iterdir()) == [], "nothing that a pattern finds"
    assert [one.name for one in target.iterdir()] == ["one"]
    with contextlib.suppress(RuntimeError), whole_folder(target) as folder:
        (folder / "two").write_text("2")
        raise RuntimeError
    assert [one.name for one in target.iterdir()] == ["one"]
    with whole_folder(target) as folder:
        (folder / "two").write_text("2")
        assert (target / "one").exists(), "until the new one is whole the old one is there"
    assert [one.name for one in target.iterdir()] == ["two"]
    assert [one.name for one in tmp_path.iterdir()] == ["root"]


def test_where_folders_cannot_be_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    target = tmp_path / "root" / "trace=x"
    for text in ("one", "two"):
        with whole_folder(target) as folder:
            (folder / text).write_text(text)
    assert [one.name for one in target.iterdir()] == ["two"]
    assert [one.name for one in tmp_path.iterdir()] == ["root"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), whole_folder(tmp_path / "file" / "trace=x"):
        pass


def test_killed_at_any_moment(tmp_path: Path, sample: Sample) -> None:
    """Nothing of the new trace is to be seen, by xtrace or by patterns, or all of it is."""
    root, trace = tmp_path / "data", sample("migrate-stock")
    with TraceFile(sample("bench8-legacy")) as small:
        write(small, root, "x")
    before = xtrace.load(root)["x"].survey.total_records
    begun = time.monotonic()
    assert command("dataset", trace, "-o", root, "--name", "y").returncode == 0
    took = time.monotonic() - begun
    storing = [sys.executable, "-m", "xtrace", "dataset", str(trace), "-o", str(root), "--name", "x", "--force"]
    draw = random.Random(5)
    for _ in range(8):
        process = subprocess.Popen(storing, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(took * draw.uniform(0.2, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        loaded = xtrace.load(root)
        assert loaded.names == ["x", "y"]
        seen = loaded["x"].survey.total_records
        assert seen in (before, 196_024)
        for pattern in ("*/events/*", "**"):
            found = f"select count(*) from read_parquet('{root}/{pattern}/records.parquet', union_by_name=true)"
            assert asked(found) == [(seen + 196_024,)]
    assert command("dataset", sample("dom0-stock"), "-o", root).returncode == 0
    assert [one.name for one in tmp_path.iterdir()] == ["data"], "the next run clears up"

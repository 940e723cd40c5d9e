"""Sections as time series: an interval says what --from and --to say of the same span; the table holds all of it."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Sample

import xtrace
from xtrace.cli import run
from xtrace.host import NAMES, by_default
from xtrace.reports import series as painted
from xtrace.selection import Selection
from xtrace.series import Episodes, figures, intervals

SECOND = 10**9
UNASKED = tuple(name for name in NAMES if name != "addresses")


@pytest.mark.parametrize(
    ("name", "cpu_hz", "every_ns"),
    [
        ("vmx-legacy", 60_000_000, 500_000_000),
        ("migrate-stock", 2_596_100_000, 7 * SECOND),
        ("bench8-lockless", 60_000_000, 2 * SECOND),
    ],
)
def test_an_interval_is_what_a_span_is(name: str, cpu_hz: int, every_ns: int, sample: Sample) -> None:
    """Also the whole is the same with intervals as without."""
    with xtrace.open(sample(name), cpu_hz=cpu_hz) as trace:
        found = trace.host(every_ns=every_ns)
        assert len(found.intervals) == -(-(trace.duration_ns + 1) // every_ns)
        assert found.whole == trace.host().whole
        for one in found.intervals:
            span = trace.host(Selection(None, one.begin_ns, one.end_ns)).whole
            for part in NAMES:
                assert of_interval(getattr(one, part)) == of_interval(getattr(span, part)), (part, one.begin_ns)


def of_interval(part: Any) -> Any:
    """Without what is known of all of a trace only."""
    known = {"unended": None} if "unended" in {one.name for one in fields(part)} else {}
    return replace(part, **known)


def test_counts_of_intervals_add_up(sample: Sample) -> None:
    """And times, of stays and of exits; quantiles do not."""
    with xtrace.open(sample("migrate-stock"), cpu_hz=2_596_100_000) as trace:
        frame = trace.df_series(3 * SECOND)
        whole = trace.host().whole
        adding = frame[frame.measure.str.endswith("_total_ns") | frame.measure.isin(["count", "records", "size_bytes"])]
        sums: dict[Any, float] = defaultdict(float)
        places = adding[["domain", "vcpu", "cpu"]].astype("Int64").fillna(-1)
        columns = ["section", "table", "domain", "vcpu", "cpu", "name", "measure"]
        for *place, value in adding.assign(**places)[[*columns, "value"]].to_numpy().tolist():
            sums[tuple(place)] += value
        compared = set()
        for section, part in whole.parts():
            for of, measure, value in figures(part):
                key = (section, of.table, *(-1 if one is None else one for one in of[1:4]), of.name, measure)
                if key in sums and section not in {"cpus", "addresses"}:
                    assert sums[key] == value, key
                    compared.add(section)
        assert compared == {"runstates", "exits", "interrupts", "pv", "memory", "volume"}


def test_episodes_by_interval(sample: Sample) -> None:
    """Held against the table of episodes."""
    with xtrace.open(sample("bench8-lockless"), cpu_hz=60_000_000) as trace:
        episodes = trace.df_episodes()
        found = intervals(trace, Selection(), ("calls",), SECOND)
        assert sum(one.sections["calls"].count for one in found) == len(episodes[episodes.start_ns.notna()])
        for one in found:
            assert one.sections.keys() == {"calls"}
            there: Episodes = one.sections["calls"]
            mine = episodes[(episodes.start_ns >= one.begin_ns) & (episodes.start_ns < one.end_ns)]
            whole = mine[mine.complete].total_ns
            assert (there.count, there.complete, there.sum_ns) == (len(mine), len(whole), whole.sum())
            assert there.total_ns["max"] == (None if whole.empty else whole.max())


def test_questions_by_interval(sample: Sample) -> None:
    with xtrace.open(sample("bench8-legacy"), cpu_hz=60_000_000) as trace:
        found = intervals(trace, Selection(), ("contention",), 10 * SECOND)
        for one in found:
            part = Selection(None, one.begin_ns, one.end_ns)
            assert one.sections == {"contention": trace.answers(part).contention}


def test_command_line(sample: Sample, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """JSON, table and text of the same intervals; only those of the sections that are wanted."""
    path, table = str(sample("vmx-legacy")), tmp_path / "series.parquet"
    options = ["--section", "exits,calls", "--interval", "1s", "--cpu-hz", "60M"]
    assert run(["analyze", path, *options, "--format", "json", "--series", str(table)]) == 0
    document = json.loads(capfd.readouterr().out)
    with xtrace.open(path, cpu_hz=60_000_000) as trace:
        host = trace.host(parts=["exits"], every_ns=SECOND)
        spans = intervals(trace, Selection(), ("exits", "calls"), SECOND, host)
        assert document["intervals"] == json.loads(
            json.dumps(
                [
                    {"begin_ns": one.begin_ns, "end_ns": one.end_ns}
                    | {name: asdict(part) for name, part in one.sections.items()}
                    for one in spans
                ]
            )
        )
        assert pq.read_table(table).to_pylist() == trace.df_series(SECOND, sections=["exits", "calls"]).astype(
            object
        ).where(lambda frame: frame.notna(), None).to_dict("records")
    assert run(["analyze", path, *options]) == 0
    out = capfd.readouterr().out
    assert "Over time" in out
    exits = [one.sections["exits"] for one in spans]
    halts = [sum(row.time.count for row in one.totals if row.name == "HLT") for one in exits]
    lines = out.partition("VM exits per second, by reason")[2].splitlines()
    column = lines[1].split().index("HLT")
    shown = [float(line.split()[column + 1]) for line in lines[2:5]]
    lengths = [(one.end_ns - one.begin_ns) / SECOND for one in spans]
    assert shown == pytest.approx([count / length for count, length in zip(halts, lengths, strict=True)], rel=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--interval", "0"], "give more than 0"),
        (["--interval", "soon"], "not a time"),
        (["--interval", "1us"], "are more than 10000; give a longer one"),
        (["--series", "x.parquet"], "give --interval, too"),
        (["--interval", "1s", "--series", "x.xls"], "ends in .parquet or .csv"),
    ],
)
def test_says_what_is_wrong(
    options: list[str], message: str, sample: Sample, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["analyze", str(sample("vmx-legacy")), *options]) == 2
    out, err = capfd.readouterr()
    assert (out, message in err) == ("", True), err


def test_every_headline_finds_figures(sample: Sample) -> None:
    """On some trace: a headline that matches nothing would be left out without a word."""
    found = set()
    for name in ("vmx-legacy", "migrate-stock", "bench-lockless"):
        with xtrace.open(sample(name)) as trace:
            host = trace.host(every_ns=10 * SECOND)
            spans = intervals(trace, Selection(), (), 10 * SECOND, host)
            found |= {one.caption for one in painted.HEADLINES if painted.lines(spans, one).names}
    missing = {one.caption for one in painted.HEADLINES} - found
    # No sample has device interrupts of its own time or switches of address spaces that Xen sees.
    assert missing <= {"Device interrupts per second", "Time by address space (CR3), as CPUs"}


def test_small_traces_show_the_host_unasked(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """So do those without the tracepoints, whatever their size."""
    with xtrace.open(sample("dom0-stock")) as stock, xtrace.open(sample("bench-legacy")) as traced:
        assert by_default(stock) == by_default(traced) == UNASKED
        monkeypatch.setattr("xtrace.host.BY_DEFAULT_BYTES", 1000)
        assert by_default(stock) == UNASKED
        assert by_default(traced) == ()
        assert traced.summary()["host"] is None

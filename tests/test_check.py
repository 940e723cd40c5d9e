"""`xtrace check`: nothing in real traces; what is printed, the exit code, parts of a trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import pytest
from checked import HZ, counts, flagged
from conftest import SAMPLES, Opened, Sample

import xtrace
from xtrace.cli_check import check as command
from xtrace.cli_common import TableFormat
from xtrace.errors import MissingEventsError, UsageError, ViolationError
from xtrace.protocol import Checked, check
from xtrace.protocol.rules import RULES
from xtrace.selection import Selection
from xtrace.trace_file import TraceFile

CHECKED: Final = {
    "dom0-stock": ("unknown", 0, 0, {}),
    "migrate-stock": ("unknown", 0, 0, {}),
    "migrate-legacy": ("legacy", 72, 2_754, {"unfinished where their CPU's records end": 1}),
    "migrate-lockless": ("lockless", 2_214, 2_155, {}),
    "bench-legacy": ("legacy", 600, 988, {}),
    "bench-lockless": ("lockless", 1_555, 955, {"unfinished where their CPU's records end": 2}),
    "bench8-legacy": ("legacy", 1_282, 0, {}),
    "bench8-lockless": ("lockless", 1_282, 0, {}),
    "vmx-legacy": ("unknown", 3, 0, {}),
}
"""Of the real traces: the design, calls and flushes checked, and those that are not judged."""


class TestRealTraces:
    """Nothing is found in them."""

    def test_no_violation(self, trace_name: str, trace: Path) -> None:
        with xtrace.open(trace, cpu_hz=HZ[trace_name]) as source:
            found = check(source)
            assert counts(found) == {}
            assert (found.model, found.calls, found.flushes, found.not_judged) == CHECKED[trace_name]
            assert found.model == source.tables.model
            assert found.clocks == ()
            assert found.sentence().startswith("no violation: " if found.calls else "nothing to check: ")

    @pytest.mark.parametrize(("name", "early"), [("bench-lockless", 1), ("bench8-lockless", 4)])
    def test_early_enters_are_allowed_under_lockless_only(self, sample: Sample, name: str, early: int) -> None:
        with xtrace.open(sample(name), cpu_hz=HZ[name]) as source:
            assert counts(check(source, "unknown")) == {}
            found = check(source, "legacy")
            assert counts(found)["sent-first"] == early
            # Under a lock none of this could be; the order in which calls go out is no matter then.
            assert counts(found)["lock-holders"] > 300

    @pytest.mark.parametrize("name", ["bench-legacy", "bench8-legacy"])
    def test_a_start_before_another_is_no_turn_yet(self, sample: Sample, name: str) -> None:
        with xtrace.open(sample(name), cpu_hz=HZ[name]) as source:
            calls = source.df_episodes().query("kind == 'call'").sort_values("send_ns")
            starts, latest = calls.start_ns.tolist(), calls.start_ns.cummax().tolist()
            passed = [place for place in range(1, len(starts)) if latest[place - 1] > starts[place]]
            assert len(passed) == 1
            assert counts(check(source)) == {}

    def test_in_a_dataset(self, sample: Sample, tmp_path: Path) -> None:
        name = "bench-lockless"
        with xtrace.open(sample(name), cpu_hz=HZ[name]) as source:
            stored = xtrace.store(source, tmp_path / "data")
            of_file = check(source, "legacy")
        with stored:
            found = check(stored)
            assert (found.calls, found.flushes, found.not_judged) == CHECKED[name][1:]
            assert counts(found) == {}
            of_stored = check(stored, "legacy")
        assert counts(of_stored) == counts(of_file)
        numbers: dict[int, tuple[int, int]] = {}
        for path in (tmp_path / "data").glob("*/events/*/*.parquet"):
            rows = pq.read_table(path, columns=["record", "tsc", "cpu"]).to_pylist()
            numbers |= {row["record"]: (row["tsc"], row["cpu"]) for row in rows}
        for one, other in zip(of_file.rules, of_stored.rules, strict=True):
            for mine, theirs in zip(one.violations, other.violations, strict=True):
                for record, same in zip(mine.records, theirs.records, strict=True):
                    assert (same.tsc, same.cpu, same.fields) == (record.tsc, record.cpu, record.fields)
                    assert same.offset is None
                    assert same.number is not None
                    assert numbers[same.number] == (record.tsc, record.cpu)


class TestPart:
    """Only some of the requests."""

    def test_by_initiator_and_start(self, sample: Sample) -> None:
        name = "bench8-lockless"
        with TraceFile(sample(name), cpu_hz=HZ[name]) as source:
            episodes = source.df_episodes()
            whole, cpus = check(source, "legacy"), frozenset((4, 6))
            begin, end = (int(value) for value in episodes.start_ns.quantile([0.3, 0.7]))
            part = check(source, "legacy", selection=Selection(cpus, begin, end))
        meant = episodes[episodes.initiator.isin(cpus) & episodes.start_ns.ge(begin) & episodes.start_ns.lt(end)]
        assert part.calls == len(meant) < whole.calls
        keys = {("call", cpu, seq) for cpu, seq in zip(meant.initiator, meant.seq, strict=True)}
        assert flagged(part, "lock-holders") == flagged(whole, "lock-holders") & keys != set()


class TestCommand:
    """What is printed, and the exit code."""

    def run(self, path: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
        try:
            command(str(path), **options)
        finally:
            self.out, self.err = capsys.readouterr()
        return self.out

    def test_no_violation(self, sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
        out = self.run(sample("bench8-legacy"), capsys, cpu_hz="60M")
        assert out == "no violation: 1,282 calls and 0 flushes checked against what the legacy design promises\n"
        out = self.run(sample("vmx-legacy"), capsys)
        assert "what every design promises (which one this is does not show; --model tells)" in out
        with pytest.raises(MissingEventsError):
            self.run(sample("dom0-stock"), capsys)
        assert self.out == "nothing to check: there is no call and no flush with TRC_HW_SMP records\n"

    def test_violations(self, sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ViolationError, match=r"bench8-lockless.bin: 964 violations of 2 rules$") as error:
            self.run(
                sample("bench8-lockless"),
                capsys,
                model="legacy",
                cpu_hz="60M",
                symbols=str(SAMPLES / "symbols-lockless.map"),
            )
        assert error.value.exit_code == 7
        lines = self.out.splitlines()
        assert lines[0].startswith("964 violations of 2 rules: 1,282 calls and 0 flushes checked against")
        assert lines[2].startswith("lock-holders: 960 From SEND to DONE a call holds the lock")
        assert lines[3] == "  call 1 of CPU 4: another held the lock"
        assert " ".join(lines[4].split()) == "byte 8924 3.046406350 0 SMP_CALL_SEND seq=140 first_cpu=0 mask=0x8"
        assert "  … 955 more" in lines
        assert max(map(len, lines[3:])) <= 110

    def test_names_of_functions(self, opened: Opened, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "map").write_text("0000000000001000 T on_each_cpu\n")
        opened(
            """
            0 cpu0 CALL_START seq=1 func=0x1010 n_cpus=1 wait=1
            5 cpu0 CALL_DONE seq=1
           10 cpu0 CALL_SEND seq=1 mask=1
           """
        ).close()
        with pytest.raises(ViolationError):
            self.run(
                tmp_path / "trace.bin", capsys, symbols=str(tmp_path / "map"), cpu_hz="1G", format_=TableFormat.json
            )
        document = json.loads(self.out)
        records = [one for rule in document["rules"] for found in rule["violations"] for one in found["records"]]
        assert {one["event"] for one in records} == {"SMP_CALL_DONE", "SMP_CALL_SEND"}

    def test_json(self, sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ViolationError):
            self.run(sample("bench-lockless"), capsys, model="legacy", cpu_hz="2596.1M", format_=TableFormat.json)
        document = json.loads(self.out)
        assert list(document) == [
            "schema", "trace", "model", "model_source", "calls", "flushes", "not_judged", "rules", "clocks",
        ]  # fmt: skip
        assert (document["schema"], document["model"], document["model_source"]) == (
            "xtrace.check/1",
            "legacy",
            "option",
        )
        names = [one.name for one in RULES if "legacy" in one.models]
        assert [one["rule"] for one in document["rules"]] == names
        for one in document["rules"]:
            assert one["count"] == len(one["violations"])
            for violation in one["violations"]:
                assert list(violation) == ["what", "kind", "initiator", "seq", "records"]
                assert list(violation["records"][0]) == ["ns", "tsc", "cpu", "event", "fields", "offset", "number"]

    def test_a_model_that_is_none(self, sample: Sample) -> None:
        with xtrace.open(sample("vmx-legacy")) as source, pytest.raises(UsageError, match="no model fifo"):
            check(source, "fifo")  # type: ignore[arg-type]

    def test_frame(self, sample: Sample) -> None:
        with xtrace.open(sample("bench8-lockless"), cpu_hz=60_000_000) as source:
            found = check(source, "legacy")
            frame, none = found.df_violations(), check(source).df_violations()
        assert len(frame.groupby(["rule", "violation"])) == found.count == 964
        assert list(none.dtypes.astype(str)) == list(frame.dtypes.astype(str))
        assert none.empty
        doc = Checked.df_violations.__doc__ or ""
        for name, kind in frame.dtypes.astype(str).items():
            assert f"{name} " in doc
            assert kind in doc


def test_rules_are_in_the_documentation() -> None:
    text = (SAMPLES.parent / "docs" / "check.md").read_text()
    for one in RULES:
        assert f"| `{one.name}` | {', '.join(one.models) if len(one.models) < 3 else 'all'} | {one.promise} |" in text
    assert len({one.name for one in RULES}) == len(RULES)

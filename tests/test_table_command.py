"""`xtrace table`: what Python gives as a table, as CSV on standard output or in a file."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Sample
from pyarrow import csv

import xtrace
from xtrace.cli import run
from xtrace.named_tables import PLACES

EVENTS = ("TRC_SCHED_SWITCH", "*TICKLE*", "0x021101")


def printed(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = run(["table", *map(str, arguments)])
    out, err = capfd.readouterr()
    return code, out, err


def flat(table: pa.Table) -> list[dict[str, object]]:
    """Rows as CSV holds them: texts, nothing for null."""
    return [
        {name: " ".join(map(str, value)) if isinstance(value, list) else _text(value) for name, value in row.items()}
        for row in table.to_pylist()
    ]


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def parsed(text: str) -> list[dict[str, object]]:
    """What CSV holds, all as texts."""
    head = text.partition("\n")[0].replace('"', "").split(",")
    options = csv.ConvertOptions(column_types=dict.fromkeys(head, pa.string()), strings_can_be_null=False)
    rows: list[dict[str, object]] = csv.read_csv(io.BytesIO(text.encode()), convert_options=options).to_pylist()
    return rows


@pytest.mark.parametrize("name", [*PLACES, *EVENTS])
def test_prints_what_python_gives(name: str, sample: Sample, capfd: pytest.CaptureFixture[str]) -> None:
    path = sample("migrate-stock" if name == "wakes" else "vmx-legacy")
    code, out, err = printed(capfd, name, path, "--cpu-hz", "60M")
    assert (code, err) == (0, "")
    with xtrace.open(path, cpu_hz=60_000_000) as trace:
        table = getattr(trace, f"table_{name}")() if name in PLACES else trace.table_events(name)
    assert table.num_rows > 0
    assert parsed(out) == flat(table)


@pytest.mark.parametrize(("name", "cpu", "ns"), [("runstates", "cpu", "begin_ns"), ("HVM", "cpu", "ns")])
def test_takes_a_part(name: str, cpu: str, ns: str, sample: Sample, tmp_path: Path) -> None:
    """By CPU and by the time at which a row begins; what has no begin is in no span."""
    whole, part = tmp_path / "whole.parquet", tmp_path / "part.parquet"
    path = str(sample("vmx-legacy"))
    assert run(["table", name, path, "-o", str(whole), "--cpu-hz", "60M"]) == 0
    limits = ["--cpus", "1", "--from", "1s", "--to", "2s"]
    assert run(["table", name, path, "-o", str(part), "--cpu-hz", "60M", *limits]) == 0
    expected = [
        row
        for row in pq.read_table(whole).to_pylist()
        if row[cpu] == 1 and row[ns] is not None and 10**9 <= row[ns] < 2 * 10**9
    ]
    assert pq.read_table(part).to_pylist() == expected
    assert 0 < len(expected) < pq.read_table(whole).num_rows


def test_says_what_is_wrong(sample: Sample, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = sample("dom0-stock")
    there = tmp_path / "there.csv"
    there.write_text("mine")
    for arguments, code, message in (
        (("nonsense", path), 2, "no such event"),
        (("episodes", path), 4, "no SMP_* or TLB_FLUSH_* records"),
        (("runstates", path, "-o", tmp_path / "a.txt"), 2, "give a name that ends in .parquet or .csv"),
        (("runstates", path, "-o", there), 2, "exists already; give --force"),
    ):
        found, out, err = printed(capfd, *arguments)
        assert (found, out) == (code, ""), arguments
        assert message in err
    assert there.read_text() == "mine"
    assert run(["table", "runstates", str(path), "-o", str(there), "--force"]) == 0
    assert len(there.read_text().splitlines()) > 100

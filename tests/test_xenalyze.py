"""The independent judge: what Debian's xenalyze reads in a trace, xtrace reads too, record by record.

Known differences, none of which these traces show: xenalyze processes LOST_RECORDS twice, and it stops at classes
it does not know (docs/format.md).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from conftest import Sample

import xtrace
from xtrace.parsers.container import CPU_CHANGE
from xtrace.reports import records
from xtrace.selection import Selection
from xtrace.trace import Trace
from xtrace.words import RECORD_WORDS

EXACT_HZ: Final = 10**9
"""xenalyze's factor (hz << 10) / 10^9 is a whole number here, and a cycle is a nanosecond: its times are exact."""

ANYONE: Final = -1
"""The owner of a window header, which every CPU's cursor passes."""


@pytest.fixture(scope="module")
def judge() -> str:
    """The path of xenalyze; without it nothing is judged, so its absence fails."""
    found = shutil.which("xenalyze")
    if found is None:
        pytest.fail("xenalyze is not installed; Debian's xen-utils-4.17 has it: apt-get install xen-utils-4.17")
    return found


def lines_of(judge: str, *arguments: str | Path) -> Iterator[str]:
    """What xenalyze prints, line by line."""
    command = [judge, "--svm-mode", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield from process.stdout
    assert process.returncode == 0


def shown(event: int, cycles: str, words: list[int]) -> str:
    """A record in the form of xenalyze's dump_raw(): event, number of words, cycles, words."""
    return f"{event:x} {len(words)} {cycles:>14} [" + "".join(f" {word:8x}" for word in words)


class Read(NamedTuple):
    """One record as read: by which CPU's cursor, its header word, and all of it in the form of `shown`."""

    cpu: int
    header: int
    record: str


def reads_of(judge: str, path: Path) -> dict[int, Read]:
    """Every record of a file, by byte offset.

    A CPU's first window header is printed with offset 0; other CPUs' cursors pass the same with its true one.
    """
    found: dict[int, Read] = {}
    for line in lines_of(judge, "--dump-raw-reads", path):
        if line.startswith("R p"):
            record, _, raw = line[24:].partition("]")
            record = record.strip()
            cpu = ANYONE if record.startswith("1f003 ") else int(line[3:5])
            found.setdefault(int(line[7:23], 16), Read(cpu, int(raw[4:12], 16), record))
    return found


def reads_by_xtrace(trace: Trace) -> Iterator[tuple[int, Read]]:
    """The same of a trace in which nothing is skipped, in file order."""
    offset = 0
    for batch, rows in trace.batches():
        assert len(rows) == len(batch.starts)
        columns = (batch.starts, batch.header, trace.cpu_of(batch), batch.tsc)
        for start, header, cpu, tsc in zip(*(column.tolist() for column in columns), strict=True):
            end = start + int(RECORD_WORDS[header >> 28])
            words = batch.words[start + 1 + 2 * (header >> 31) : end].tolist()
            event = header & 0xFFF_FFFF
            record = shown(event, str(tsc) if header >> 31 else "-", words)
            yield offset, Read(ANYONE if event == CPU_CHANGE.event_id else cpu, header, record)
            offset += 4 * (end - start)


def test_every_record_and_its_count(judge: str, trace: Path, expected_records: int) -> None:
    """CPU, event, number of words, timestamp and payload of each record at each byte; counts by event."""
    expected = reads_of(judge, trace)
    assert len(expected) == expected_records
    with xtrace.open(trace) as opened:
        counts = Counter(read.header for read in expected.values())
        for offset, read in reads_by_xtrace(opened):
            assert read == expected.pop(offset), f"byte {offset}"
        assert not expected
        assert opened.survey.counts == counts
        assert opened.summary()["events"] == opened.event_counts(counts)
        assert sum(opened.summary()["events"].values()) == expected_records


def test_order_of_all_cpus(judge: str, trace: Path) -> None:
    """`xtrace dump` shows the records in the order in which xenalyze processes them."""
    processed = (
        line[1:].partition("]")[0].strip()
        for line in lines_of(judge, "-a", "--dump-raw-process", trace)
        if line.startswith("*")
    )
    count = 0
    with xtrace.open(trace) as opened:
        for expected, line in zip_longest(processed, dumped(opened, "raw")):
            assert line is not None
            _, cycles, header, *words = line.split()
            bits = int(header, 16)
            assert shown(bits & 0xFFF_FFFF, cycles, [int(word, 16) for word in words]) == expected
            assert len(words) == bits >> 28 & 7
            count += 1
        windows = sum(totals.windows for totals in opened.survey.cpus.values())
        assert count == opened.survey.total_records - windows


def dumped(trace: Trace, form: str) -> Iterator[str]:
    for lines in records.lines(trace, form, Selection()):
        yield from lines


LINE: Final = re.compile(
    r"[ \]](?P<time> {14}|[ \d]{3}\.\d{9}) (?P<map>[-x|. l]+?) d(?P<domain>[\d?]+)v(?P<vcpu>[\d?]+) (?P<what>.*)"
)
PLACEHOLDER: Final = "32768"
"""xenalyze's domain for "whoever runs here before the first schedule"."""


def test_text_lines_of_an_idle_host(judge: str, sample: Sample) -> None:
    """Time, CPU and vCPU columns, line by line: of a record that switches vCPUs, who ran before it."""
    path = sample("dom0-stock")
    printed = (
        match for line in lines_of(judge, "-a", "--cpu-hz", "1G", path) if (match := LINE.fullmatch(line.rstrip("\n")))
    )
    names: dict[str, set[str]] = {}
    with xtrace.open(path, cpu_hz=EXACT_HZ) as opened:
        for expected, line in zip_longest(printed, dumped(opened, "text")):
            assert expected is not None
            assert line is not None
            when, cpu, who, event, *_ = line.split()
            # The very first record has no time.
            assert when == (expected["time"].strip() or "0.000000000"), line
            assert int(cpu) == expected["map"].index("x"), line
            domain = expected["domain"]
            if domain in {PLACEHOLDER, "?"}:
                assert who == "d?v?", line
            else:
                assert who == ("idle" if domain == "32767" else f"d{domain}v{expected['vcpu']}"), line
            names.setdefault(expected["what"].split()[0].rstrip(":"), set()).add(event)
    assert names["vcpu_wake"] == {"TRC_SCHED_WAKE"}
    assert names["csched2:runq_tickle_new"] == {"TRC_CSCHED2_TICKLE_NEW"}

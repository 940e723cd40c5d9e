"""What a person sees of VM exits and addresses."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from conftest import Opened, Sample
from host_parts import followed
from rich.console import Console
from shadowed import SHADOWED

import xtrace
from xtrace.host.addresses import AddressesAccount
from xtrace.host.exits import ExitsAccount
from xtrace.host.heaviest import LeftOut
from xtrace.host.windows import WHOLE
from xtrace.reports import terminal
from xtrace.reports.page import Section
from xtrace.reports.sections import addresses, exits
from xtrace.selection import Selection
from xtrace.trace import Trace


def sections(trace: Trace) -> tuple[Section, Section]:
    return (
        exits.section(followed(trace, ExitsAccount).found(WHOLE)),
        addresses.section(followed(trace, AddressesAccount).found(WHOLE)),
    )


def printed(*some: Section) -> str:
    out = Console(file=StringIO(), width=terminal.PIPE_WIDTH, highlight=False)
    for one in some:
        terminal.chapter(out, one)
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


def row_of(section: Section, caption: str, *cells: str) -> tuple[str, ...]:
    """The first row of a table that begins with these cells."""
    (table,) = [table for table in section.tables if table.caption.startswith(caption)]
    return next(
        texts for row in table.rows for texts in [tuple(cell.text for cell in row)] if texts[: len(cells)] == cells
    )


def test_an_intel_guest(sample: Sample) -> None:
    with xtrace.open(sample("vmx-legacy"), cpu_hz=10**9) as trace:
        told, where = sections(trace)
    assert told.text[0] == (
        "723 exits took 4.79 ms of vCPUs’ time, most for VMCALL 2.84 ms (59 %), EXTERNAL_INTERRUPT 1.90 ms (40 %); "
        "beside them vCPUs slept 100 ms in 31 halts."
    )
    assert told.text[-1] == "The end of 1 exit in all the trace was not seen: not in any figure."
    figures = ("352", "2.84 ms", "1.64", "8.08 µs", "7.33 µs", "8.07 µs", "11.2 µs", "16.6 µs")
    assert row_of(told, "Exits by reason", "VMCALL") == ("VMCALL", *figures)
    handled = row_of(told, "What handled", "EXTERNAL_INTERRUPT", "LOCAL_TIMER (0xfa)")
    assert handled[2:] == ("346", "1.90 ms", "1.09", "5.49 µs")
    assert row_of(told, "By vCPU and what", "d1v1", "VMCALL", "event_channel_op")[3] == "29"
    assert not any(table.caption.startswith("By domain") for table in told.tables), "there is one domain"
    assert row_of(where, "I/O ports", "d1v0", "0x2e9", "write")[3] == "3"
    assert row_of(where, "Where host interrupts", "d1", "0xffffffff81240f83")[2:4] == ("LOCAL_TIMER (0xfa)", "17")
    assert where.text[0].startswith("Exits took most time at 0xffffffff81a592ea of d1 (HLT): 31 exits")


def test_an_amd_host(sample: Sample) -> None:
    with xtrace.open(sample("migrate-stock"), cpu_hz=2_596_100_000) as trace:
        told, where = sections(trace)
    assert any("On SVM no record tells which host interrupt" in text for text in told.text)
    assert {row[0].text for table in told.tables if table.caption.startswith("By domain") for row in table.rows} == {
        "d1",
        "d2",
    }
    for table in (*told.tables, *where.tables):
        if "most time first" in table.caption:
            place = [head.text for head in table.heads].index("time")
            times = [row[place].value or 0 for row in table.rows]
            assert times == sorted(times, reverse=True), table.caption
    (hit,) = [table for table in where.tables if table.caption.startswith("Where host interrupts")]
    assert [head.text for head in hit.heads] == ["domain", "address", "exits", "time", "mean"]


@pytest.mark.parametrize("name", ["vmx-legacy", "migrate-stock", "dom0-stock"])
def test_lines_fit_in_a_pipe_and_nothing_is_cut(name: str, sample: Sample) -> None:
    with xtrace.open(sample(name), cpu_hz=2_596_100_000) as opened:
        text = printed(*sections(opened))
    assert max(map(len, text.splitlines())) <= terminal.PIPE_WIDTH
    assert not any(line.rstrip().endswith("…") or "… " in line.lstrip()[2:] for line in text.splitlines())


def test_shadow_paging_has_tables_of_its_own(opened: Opened) -> None:
    with opened(SHADOWED) as trace:
        told, where = sections(trace)
    assert row_of(told, "What shadow paging did", "d1v0", "fixup: unsync, 1 resync")[2:4] == ("1", "300 ns")
    assert row_of(where, "Address spaces", "d1", "0x5000") == (
        *("d1", "0x5000", "2", "0", "7.15 µs", "6.15 µs", "6.47 µs", "2.00 µs", "17.1 µs", "mmio"),
    )
    assert row_of(where, "Instructions that shadow", "d1", "0x401000")[2:] == ("2", "800 ns", "400 ns")
    text = printed(told, where)
    assert max(map(len, text.splitlines())) <= terminal.PIPE_WIDTH


def test_what_was_forgotten_is_said(opened: Opened) -> None:
    with opened(SHADOWED) as trace:
        found = followed(trace, AddressesAccount).found(WHOLE)
    text = addresses.section(replace(found, hottest_left_out=LeftOut(1234, 5_000_000, 70_000))).text
    assert text[-1] == (
        "There were too many addresses of exits to keep all: 1,234 exits of 5.00 ms are in no line, and a line’s time "
        "may be too low by up to 70.0 µs."
    )


def test_without_exits_one_sentence(sample: Sample) -> None:
    with xtrace.open(sample("vmx-legacy")) as trace:
        nothing = Selection(frozenset([5]))
        found = followed(trace, ExitsAccount, nothing).found(WHOLE)
        where = followed(trace, AddressesAccount, nothing).found(WHOLE)
    assert (exits.section(found).text, exits.section(found).tables) == ((exits.NONE,), ())
    assert (addresses.section(where).text, addresses.section(where).tables) == ((addresses.NONE,), ())
    assert not exits.pictures(found) + addresses.pictures(where)
    assert not [*exits.answer(found), *addresses.answer(where)]


@pytest.mark.parametrize("name", ["vmx-legacy", "migrate-stock"])
def test_pictures_name_what_they_show(name: str, sample: Sample) -> None:
    with xtrace.open(sample(name), cpu_hz=10**9) as trace:
        found = followed(trace, ExitsAccount).found(WHOLE)
        drawn = exits.pictures(found)
        labels = [label.get_text() for label in exits.shares(found).axes[0].get_yticklabels()]
        reasons = [label.get_text() for label in exits.ranges(found).axes[0].get_yticklabels()]
    assert [one.svg.startswith("<svg") for one in drawn] == [True, True]
    assert labels == sorted({f"d{row.domain}v{row.vcpu}" for row in found.vcpus})
    assert reasons == [row.name for row in found.totals]


def test_bars_are_as_long_as_the_time(sample: Sample) -> None:
    with xtrace.open(sample("migrate-stock"), cpu_hz=10**9) as trace:
        found = followed(trace, ExitsAccount).found(WHOLE)
    bars = exits.shares(found).axes[0].patches
    assert sum(bar.get_width() for bar in bars) == pytest.approx(sum(row.percent or 0 for row in found.totals))  # type: ignore[attr-defined]

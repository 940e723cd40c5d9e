"""Addresses of VM exits: against xenalyze's lists, then small captures with their answers."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import xenalyze_summary
from captures import capture
from conftest import Opened, Sample
from host_parts import followed
from hypothesis import given
from hypothesis import strategies as st
from shadowed import SHADOWED
from xenalyze_summary import Figures, figures

import xtrace
from xtrace.host import heaviest
from xtrace.host.addresses import Access, Addresses, AddressesAccount
from xtrace.host.cr3 import AddressSpace
from xtrace.host.exit_table import exits_of
from xtrace.host.heaviest import Heaviest
from xtrace.host.tally import Spread
from xtrace.host.windows import WHOLE, Windows
from xtrace.parsers.vectors import vector_name
from xtrace.selection import Selection
from xtrace.trace import Trace

EIP_LINE: Final = re.compile(r" {3} *([0-9a-f]+) +: +(.*)")


def addresses_of(trace: Trace, selection: Selection | None = None) -> Addresses:
    return followed(trace, AddressesAccount, selection).found(WHOLE)


def told(label: str, time: Spread, span_ns: int | None) -> Figures:
    """A time as xenalyze prints it; span_ns None: without its share."""
    percent = None if span_ns is None else f"{100 * time.total_ns / span_ns:.2f}"
    numbers = (int(ns or 0) for ns in (time.mean_ns, time.p5_ns, time.p50_ns, time.p95_ns))
    return Figures(label, time.count, f"{time.total_ns / 1e9:.2f}", percent, *numbers)


def accesses(rows: tuple[Access, ...], span: int) -> dict[tuple[int, int], list[Figures]]:
    """As xenalyze prints them: by vCPU, a line an address and direction."""
    found: dict[tuple[int, int], list[Figures]] = {}
    for row in rows:
        label = f"{row.address:x}:[{row.direction[0]}]"
        found.setdefault((row.domain, row.vcpu), []).append(told(label, row.time, span))
    return found


def test_ports_equal_xenalyze(trace: Path, trace_name: str) -> None:
    with xtrace.open(trace, cpu_hz=10**9) as opened:
        mine = accesses(addresses_of(opened).ports, opened.duration_ns)
    theirs = {
        (number, vcpu): [figures(line) for line in one.sections["IO address summary"]]
        for number, domain in xenalyze_summary.summary(trace).domains.items()
        for vcpu, one in domain.vcpus.items()
        if "IO address summary" in one.sections
    }
    assert mine == theirs
    assert bool(theirs) == (trace_name == "vmx-legacy")


@pytest.mark.parametrize("vector", [0xFA, 0xFB])
def test_interrupted_addresses_equal_xenalyze(vector: int, sample: Sample) -> None:
    """xenalyze lists the addresses, and counts none of them: that is of our table of exits, one by one."""
    path = sample("vmx-legacy")
    with xtrace.open(path, cpu_hz=10**9) as trace:
        found, rows = addresses_of(trace), exits_of(trace).to_pylist()
    name = f"{vector_name(vector)} (0x{vector:02x})"
    mine = {row.address: (row.count, row.total_ns) for row in found.interrupted if row.what == name}
    text = xenalyze_summary.xenalyze(path, f"--with-interrupt-eip-enumeration={vector}", svm=False)
    guest = text.partition("|-- Domain 1 --|")[2]
    part = guest.partition(f"Interrupt eip list (vector {vector})\n")[2].partition("|--")[0]
    theirs = {int(match[1], 16) for match in map(EIP_LINE.fullmatch, part.splitlines()) if match}
    # It cuts addresses to 48 bits.
    assert {address & (1 << 48) - 1 for address in mine} == theirs
    assert theirs
    hit = [row for row in rows if row["vector"] == vector]
    assert mine == {
        rip: (len(times), sum(times))
        for rip in {row["rip"] for row in hit}
        for times in [[row["duration_ns"] for row in hit if row["rip"] == rip]]
    }


def test_hottest_are_all_exits_by_address(sample: Sample) -> None:
    with xtrace.open(sample("migrate-stock"), cpu_hz=10**9) as trace:
        found, rows = addresses_of(trace), exits_of(trace).to_pylist()
    expected: Counter[tuple[int, int, str]] = Counter()
    times: Counter[tuple[int, int, str]] = Counter()
    for row in rows:
        place = row["domain"], row["rip"], row["reason_name"]
        expected[place] += 1
        times[place] += row["duration_ns"]
    assert {(row.domain, row.address, row.what): row.count for row in found.hottest} == expected
    assert {(row.domain, row.address, row.what): row.total_ns for row in found.hottest} == times
    assert [row.total_ns for row in found.hottest] == sorted(times.values(), reverse=True)
    assert found.hottest_left_out is None
    assert len(found.df_hottest()) == len(expected) > 100
    assert {row.what for row in found.interrupted} == {None}, "SVM tells no vector"


SPACE: Final = re.compile(r" +([0-9a-f]+) \(id \d+\)")
SEEN: Final = re.compile(r" +Seen: +(\d+)\.(\d+)- +(\d+)\.(\d+) switch (\d+) flush (\d+)")
NAMES: Final = {"intr": "interrupt", "hlt": "halt"}


def test_shadow_paging_equals_xenalyze(tmp_path: Path) -> None:
    """Emulated instructions, emulated memory and address spaces, every line of xenalyze's."""
    path = tmp_path / "vmx-shadowed.bin"
    path.write_bytes(capture(SHADOWED))
    with xtrace.open(path, cpu_hz=10**9) as trace:
        found, span = addresses_of(trace), trace.duration_ns
    options = ("--with-cr3-enumeration", "--with-mmio-enumeration")
    text = xenalyze_summary.xenalyze(path, *options, svm=False)
    domain = text.partition("|-- Domain 1 --|")[2].partition("|-- Domain")[0]
    emulated = domain.partition("Emulate eip list\n")[2].partition("    cr3 values:")[0].splitlines()
    assert emulated[0].split() == ["Total", "samples:", "2"]
    (row,) = found.emulated
    assert [emulated[1].split()[0], int(emulated[1].split()[2])] == [f"{row.address:x}", row.count]
    assert int(emulated[1].split("%")[1].split()[0]) == row.mean_ns
    mmio = domain.partition("MMIO address summary:\n")[2].partition("Emulate eip list")[0].splitlines()
    # Behind an @ stands the linear address, where shadow paging tells it.
    theirs = [figures(re.sub(r"@[0-9a-f]+", "", line)) for line in mmio]
    assert accesses(found.mmio, span) == {(1, 0): theirs}
    lines = domain.partition("    cr3 values:\n")[2].splitlines()
    assert spaces_equal(found, lines) == len(lines) == 17
    assert [(one.cr3, one.loads, one.flushes) for one in found.spaces] == [(0x5000, 2, 0), (0x6000, 2, 1)]


def spaces_equal(found: Addresses, lines: list[str]) -> int:
    """How many lines were read; the order in both is that of their time."""
    read = 0
    spaces = iter(found.spaces)
    space = found.spaces[0]
    for line in lines:
        read += 1
        if match := SPACE.match(line):
            space = next(spaces)
            assert space.cr3 == int(match[1], 16) << 12
            assert sound(line) == sound(told("", space.stay, None))
        elif match := SEEN.fullmatch(line):
            first, last = (int(match[one]) * 10**9 + int(match[one + 1]) for one in (1, 3))
            seen = (space.first_ns, space.last_ns, space.loads, space.flushes)
            assert (first, last, int(match[5]), int(match[6])) == seen
        else:
            assert time_equals(space, line)
    assert next(spaces, None) is None
    return read


def time_equals(space: AddressSpace, line: str) -> bool:
    """A line of a space's that is of times."""
    label = figures(line).label.removeprefix("+ ")
    times = {"guest": space.guest, "hv": space.hypervisor} | {group.group: group.time for group in space.mix}
    time = times[NAMES.get(label, label)]
    if label not in ("mmio", "other"):
        return sound(line) == sound(told("", time, space.guest.total_ns + space.hypervisor.total_ns))
    # xenalyze counts accesses to emulated memory under nested paging, one of 700 ns, as others.
    more = 1 if label == "mmio" else -1
    total = figures(line).count * figures(line).mean
    return (time.count - figures(line).count, time.total_ns - total) == (more, more * 700)


def sound(line: str | Figures) -> Figures:
    """A line without its name, and without quantiles where xenalyze's are wrong: weighted ones of several values."""
    found = replace(figures(line) if isinstance(line, str) else line, label="")
    return found if found.count == 1 else replace(found, p5=0, p50=0, p95=0)


@pytest.mark.parametrize("piece", [1, 7])
def test_any_pieces_give_the_same(piece: int, sample: Sample, opened: Opened) -> None:
    with opened(SHADOWED) as trace:
        assert followed(trace, AddressesAccount, piece=piece).found(WHOLE) == addresses_of(trace)
    if piece > 1:
        with xtrace.open(sample("vmx-legacy"), cpu_hz=10**9) as trace:
            assert followed(trace, AddressesAccount, piece=piece).found(WHOLE) == addresses_of(trace)


def test_intervals_add_up(opened: Opened) -> None:
    with opened(SHADOWED) as trace:
        account = followed(trace, AddressesAccount, every_ns=4000)
    whole, parts = account.found(WHOLE), [account.found(window) for window in range(1, 6)]
    for name in ("hottest", "interrupted", "emulated"):
        assert sum(row.total_ns for row in getattr(whole, name)) == sum(
            row.total_ns for part in parts for row in getattr(part, name)
        )
    for measure in ("stay", "guest", "hypervisor"):
        assert sum(getattr(one, measure).total_ns for one in whole.spaces) == sum(
            getattr(one, measure).total_ns for part in parts for one in part.spaces
        )
    assert sum(row.time.count for row in whole.ports + whole.mmio) == 3


@pytest.mark.parametrize("piece", [None, 1])
def test_nothing_is_made_up_across_a_loss(piece: int | None, opened: Opened) -> None:
    """An address space is not known to have stayed where records were lost."""
    lost = "    13500 cpu0 LOST_RECORDS lost=3 domid=1 vcpuid=0 first_tsc=13400\n"
    before, marker, after = SHADOWED.partition("    13900 cpu0 VMENTRY")
    with opened(before + lost + marker + after) as trace:
        found = {one.cr3: one for one in followed(trace, AddressesAccount, piece=piece).found(WHOLE).spaces}
    assert (found[0x6000].loads, found[0x6000].flushes, found[0x6000].stay.count) == (2, 0, 0)
    assert (found[0x5000].stay.count, found[0x5000].stay.total_ns) == (2, 12_800 - 2_000 + 17_100 - 14_950)


def test_a_space_is_of_its_vcpu_and_selection_counts_only(opened: Opened) -> None:
    with opened(SHADOWED) as trace:
        assert addresses_of(trace, Selection(frozenset([1]))) == Addresses((), None, (), None, (), None, (), (), ())


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 99), st.integers(0, 1000)), max_size=120),
    st.integers(1, 9),
)
def test_what_is_forgotten_is_told(things: list[tuple[int, int, int, int]], kept: int) -> None:
    """Sums are whole, no figure is too high, and none is lower than is said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heaviest, "KEPT", kept)
        patch.setattr(heaviest, "LEAST_KEPT", 2)
        patch.setattr(heaviest, "ROOM", 1)
        table = Heaviest(Windows(0, 100, 50))
        for begin in range(0, len(things), 5):
            columns = list(zip(*things[begin : begin + 5], strict=True))
            key, address, ns, value = (np.array(column, np.int64) for column in columns)
            table.at(key, address.astype(np.uint64), ns, value)
        for window, (low, high) in enumerate(((0, 100), (0, 50), (50, 100))):
            rows, left = table.found(window)
            true: Counter[tuple[int, int]] = Counter()
            counts: Counter[tuple[int, int]] = Counter()
            for key_, address_, ns_, value_ in things:
                if low <= ns_ < high:
                    true[key_, address_] += value_
                    counts[key_, address_] += 1
            share = kept if window == WHOLE else max(kept // 2, 2)
            assert len(rows) <= share
            assert sum(row.total_ns for row in rows) + (left.total_ns if left else 0) == sum(true.values())
            assert sum(row.count for row in rows) + (left.count if left else 0) == sum(counts.values())
            for row in rows:
                assert 0 <= true[row.key, row.address] - row.total_ns <= (left.most_ns if left else 0)
            if len(true) <= share:
                assert {(row.key, row.address): row.count for row in rows} == counts or left is not None


def test_what_was_forgotten_twice_is_told_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heaviest, "KEPT", 1)
    monkeypatch.setattr(heaviest, "ROOM", 1)
    table = Heaviest(Windows(0, 100))
    for address, value in ((1, 10), (2, 9), (2, 8), (2, 7), (2, 11)):
        one = np.array([address], np.uint64)
        table.at(np.zeros(1, np.int64), one, np.zeros(1, np.int64), np.array([value], np.int64))
    (row,), left = table.found(WHOLE)
    assert left is not None
    # Each time what there was of it was less than the other, and so it was forgotten.
    assert (row.address, row.count, row.total_ns) == (2, 1, 11)
    assert (left.count, left.total_ns, left.most_ns) == (4, 10 + 9 + 8 + 7, 10 + 9 + 8 + 7)


def test_addresses_beyond_room_are_told(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heaviest, "KEPT", 2)
    with opened(SHADOWED) as trace:
        found = addresses_of(trace)
    assert [row.address for row in found.hottest] == [0x81000010, 0x81000020]
    assert found.hottest_left_out is not None
    assert (found.hottest_left_out.count, found.hottest_left_out.total_ns) == (6, 800 + 700 + 600 + 600 + 300)

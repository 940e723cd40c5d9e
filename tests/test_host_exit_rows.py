"""Rows of VM exits beside a reader of one record after the other, on records of any order and any content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from captures import ZERO_CYCLES
from conftest import Opened, Sample
from host_parts import followed, pieces
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Record, Window, build_capture

import xtrace
from xtrace.host.addresses import AddressesAccount
from xtrace.host.exit_kinds import HANDLERS, SHADOW_FAULTS
from xtrace.host.exit_rows import ExitReader, ExitRows, wants
from xtrace.host.exit_table import exits_of
from xtrace.host.exits import ExitsAccount
from xtrace.host.shadow_paths import linear_level
from xtrace.host.walk import Chunk, in_time
from xtrace.parsers import hvm, shadow
from xtrace.trace import Trace

RUNSTATE: Final = 0x21001
RUNNING, RUNNABLE = 0, 1
EXIT, EXIT64, ENTRY, LOST = 0x81002, 0x81102, 0x81001, 0x1F001
TOLD_FIRST: Final = (0x01, 0x09, 0x0C, 0x0D, 0x12, 0x16, 0x17)
NOT_HANDLERS: Final = (0x02, 0x03, 0x04, 0x05, 0x20)

WORD: Final = st.integers(0, 3) | st.integers(0, 2**32 - 1)
VCPUS: Final = st.sampled_from([1 << 16, 1 << 16 | 1, 2 << 16])
STAMPED: Final = st.one_of(
    st.tuples(st.just(EXIT), st.tuples(WORD, WORD)),
    st.tuples(st.just(EXIT64), st.tuples(WORD, WORD, WORD)),
    st.tuples(st.just(ENTRY), st.just(())),
    st.tuples(
        st.sampled_from([RUNSTATE | old << 8 | new << 4 for old in range(4) for new in range(4) if old != new]),
        st.tuples(VCPUS),
    ),
)
LOSSES: Final = st.tuples(st.just(LOST), st.tuples(WORD, VCPUS, st.just(0), st.just(0)))
TELLING: Final = st.tuples(
    st.sampled_from([0x82000 | minor for minor in (*range(0x28), 0x109, 0x117, 0x216, 0x217, 0x317, 0x108, 0x77)])
    | st.sampled_from([0x40F000 | minor for minor in (1, 5, 6, 8, 0x205, 0x206, 0xC, 0xD, 0xE, 0xF)]),
    st.lists(WORD, max_size=7).map(tuple),
)
HANDLERS_UNSTAMPED: Final = st.tuples(TELLING, st.just(False))


@st.composite
def captures(draw: st.DrawFn) -> bytes:
    """Two CPUs, on which vCPUs come and go, or do not."""
    now, streams = ZERO_CYCLES, ([], [])  # type: tuple[int, tuple[list[Record], list[Record]]]
    for cpu, stream in enumerate(streams):
        stream.append(Record(RUNSTATE | RUNNABLE << 8 | RUNNING << 4, (1 << 16 | cpu,), now))
    for _ in range(draw(st.integers(1, 40))):
        now += draw(st.integers(1, 9))
        stream = streams[draw(st.integers(0, 1))]
        (event_id, words), stamped = draw(
            st.one_of(*(st.tuples(one, st.just(True)) for one in (STAMPED, STAMPED, LOSSES))) | HANDLERS_UNSTAMPED
        )
        stream.append(Record(event_id, words, now if stamped else None))
    return build_capture([Window(cpu, tuple(stream)) for cpu, stream in enumerate(streams)])


def slowly(chunks: list[Chunk]) -> Iterator[tuple[Any, ...]]:
    """Begin, end, vCPU, reason, minor of what handled it: of each exit that ended, in order."""
    held: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for header, ns, cpu, domain, vcpu, words in zip(
            *(column.tolist() for column in chunk.columns[1:]), strict=True
        ):
            event_id, size = header & 0xFFF_FFFF, header >> 28 & 7
            who = domain << 16 | vcpu if domain >= 0 else -1
            if event_id == LOST and size == 4:
                for one in [one for one, exit_ in held.items() if exit_["left"] or exit_["cpu"] == cpu]:
                    del held[one]
            elif event_id & 0xFF00F == RUNSTATE and size == 1:
                who, old, new = words[0], event_id >> 8 & 0xF, event_id >> 4 & 0xF
                if new == RUNNABLE and who in held:
                    yield closed(held.pop(who), ns)
                elif old == RUNNING and who in held:
                    held[who]["left"] = True
            elif who == -1:
                continue
            elif (event_id, size) in ((EXIT, 2), (EXIT64, 3)):
                held[who] = {"begin": ns, "cpu": cpu, "who": who, "reason": words[0], "left": False, "told": []}
            elif event_id == ENTRY and who in held:
                yield closed(held.pop(who), ns)
            elif event_id >> 12 in (0x82, 0x40F) and who in held:
                held[who]["told"].append((event_id >> 12, event_id & 0xFF))


def closed(one: dict[str, Any], ns: int) -> tuple[Any, ...]:
    handlers = [minor for kind, minor in one["told"] if kind == 0x82 and minor not in NOT_HANDLERS]
    specific = [
        minor if kind == 0x82 else -1
        for kind, minor in one["told"]
        if (kind == 0x82 and minor in TOLD_FIRST) or (kind == 0x40F and minor <= 0xB)
    ]
    generic = [minor for minor in handlers if minor not in (*TOLD_FIRST, 0x0F)]
    told = 0x0F if 0x0F in handlers else specific[0] if specific else generic[-1] if generic else -1
    return one["begin"], ns, one["who"], one["reason"], told


def as_tuples(rows: ExitRows) -> list[tuple[Any, ...]]:
    who = rows.domain.astype(np.int64) << 16 | rows.vcpu
    columns = (rows.begin_ns, rows.end_ns, who, rows.reason, rows.handler)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def read(trace: Trace, piece: int | None) -> tuple[list[tuple[Any, ...]], int]:
    reader = ExitReader(trace.dialect)
    found = [
        row for chunk in in_time(trace, wants) for part in pieces(chunk, piece) for row in as_tuples(reader.feed(part))
    ]
    reader.finish()
    return found, reader.unended


@settings(max_examples=40)
@given(content=captures(), piece=st.sampled_from([None, 1, 2, 5]))
def test_any_records(content: bytes, piece: int | None, scratch: Path) -> None:
    scratch.write_bytes(content)
    with xtrace.open(scratch, cpu_hz=10**9) as trace:
        expected = list(slowly(list(in_time(trace, wants))))
        found, unended = read(trace, piece)
        assert found == expected
        exits = sum(count for header, count in trace.survey.counts.items() if is_exit(header))
        assert len(found) + unended <= exits


def is_exit(header: int) -> bool:
    return (header & 0xFFF_FFFF, header >> 28 & 7) in ((EXIT, 2), (EXIT64, 3))


@pytest.mark.parametrize("name", ["vmx-legacy", "migrate-stock"])
def test_real_traces(name: str, sample: Sample) -> None:
    with xtrace.open(sample(name), cpu_hz=10**9) as opened:
        expected = list(slowly(list(in_time(opened, wants))))
        found, unended = read(opened, None)
        assert found == expected
        exits = sum(count for header, count in opened.survey.counts.items() if is_exit(header))
    # Those before the first record that tells who is on their CPU are of nobody.
    assert len(found) <= exits
    assert unended <= 4


def test_accounts_of_any_records_do_not_fail(sample: Sample, scratch: Path) -> None:
    """Every word of every exit's records is turned over in turn."""
    content = bytearray(sample("vmx-legacy").read_bytes())
    rng = np.random.default_rng(7)
    for place in rng.integers(40, len(content) // 4 - 1, 400).tolist():
        content[4 * place : 4 * place + 4] = rng.integers(0, 256, 4, np.uint8).tobytes()
    scratch.write_bytes(content)
    with xtrace.open(scratch, cpu_hz=10**9) as trace:
        for kind in (ExitsAccount, AddressesAccount):
            account = followed(trace, kind, every_ns=max(trace.duration_ns // 7, 1))
            for window in range(8):
                account.found(window)


def test_every_record_of_a_handler_has_a_name() -> None:
    """The names are those of the events, but for the forms of 64 bits, of reads and of writes."""
    for event in hvm.HANDLERS:
        minor = event.event_id & 0xFF
        if event.emitted and minor not in NOT_HANDLERS:
            assert HANDLERS[minor] in event.name.lower(), event.name
    for event in shadow.EVENTS:
        minor = event.event_id & 0xFF
        assert (minor in SHADOW_FAULTS) == (minor <= 0x0B)


SLOT: Final = 0x1ED


@pytest.mark.parametrize(
    ("levels", "address", "level"),
    [
        (2, 0xBFFF_FFFF, 0),
        (2, 0xC000_1000, 1),
        (2, 0xC030_0004, 2),
        (3, 0xC000_0000, 1),
        (3, 0xC060_0000, 2),
        (3, 0xC060_4000, 1),
        (3, 0xC060_3018, 3),
        (3, 0xC060_3020, 2),
        (3, 0xC080_0000, 0),
        (4, SLOT << 39, 1),
        (4, SLOT << 39 | SLOT << 30, 2),
        (4, SLOT << 39 | SLOT << 30 | SLOT << 21, 3),
        (4, SLOT << 39 | SLOT << 30 | SLOT << 21 | SLOT << 12, 4),
        (4, SLOT << 30 | SLOT << 21 | SLOT << 12, 0),
        (0, 0xC030_0004, 0),
    ],
)
def test_levels_of_the_linear_map(levels: int, address: int, level: int) -> None:
    """Each address by hand: where Windows maps its page tables."""
    assert linear_level(np.array([address], np.uint64), np.array([levels], np.int8)).tolist() == [level]


def test_faults_without_records_of_shadow_paging(opened: Opened) -> None:
    with opened("""
        0 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        100 cpu0 VMEXIT64 exit_reason=14 rip=0xffffffff81000000
        - cpu0 PF_XEN64 va=0x1000
        150 cpu0 VMENTRY
        200 cpu0 VMEXIT exit_reason=14 eip=0x1000
        - cpu0 PF_XEN va=0x90000000
        270 cpu0 VMENTRY
    """) as trace:
        found = followed(trace, ExitsAccount).found(0)
        paths = {row.path: row.time.total_ns for row in found.paths}
        assert [(row.what, row.time.count) for row in found.handlings] == [("fault: handled", 2)]
        assert exits_of(trace)["va"].to_pylist() == [0x1000, 0x9000_0000]
    assert paths == {
        "handled: address of the kernel": 70,
        "handled: address of user space": 50,
        "handled: instruction of the kernel": 50,
        "handled: instruction of user space": 70,
    }

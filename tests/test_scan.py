"""The three record walks held equal: NumPy lanes, Numba, and a plain loop written here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import Record, Window, build_capture, build_words, captures, word_streams

from xtrace import scan, scan_numba
from xtrace.parsers.container import CPU_CHANGE_HEADER, WINDOW_HEADER_BYTES

LANES = [20, 21, 64, 512, 1000]
"""A lane must be longer than a record, wherever within ten words it begins."""


def words_of(data: bytes) -> scan.Words:
    return np.frombuffer(data, "<u4")


def length(header: int) -> int:
    return 1 + 2 * (header >> 31) + (header >> 28 & 7)


def plain_starts(words: scan.Words) -> list[int]:
    found, position, values = [], 0, words.tolist()
    while position < len(values):
        found.append(position)
        position += length(values[position])
    return found


def plain_picks(words: scan.Words, ends: Sequence[int], interest: set[int], modes: set[int]) -> dict[str, Any]:
    """`scan.pick_records`, one record at a time; the channels of states are `modes` and the interest itself."""
    counts: dict[int, int] = {}
    picked: list[int] = []
    state: list[list[int]] = [[], []]
    first, last = [-1] * len(ends), [-1] * len(ends)
    last_state = [[-1] * len(ends), [-1] * len(ends)]
    window, position, values = 0, 0, words.tolist()
    while position < len(values):
        header = values[position]
        counts[header] = counts.get(header, 0) + 1
        while position >= ends[window]:
            window += 1
        if header in interest:
            picked.append(position)
            for before, known in zip(state, last_state, strict=True):
                before.append(known[window])
        for known, channel in zip(last_state, (modes, interest), strict=True):
            if header in channel:
                known[window] = position
        if header >> 31:
            first[window] = position if first[window] < 0 else first[window]
            last[window] = position
        position += length(header)
    headers = sorted(counts)
    return {
        "headers": headers,
        "counts": [counts[header] for header in headers],
        "picked": picked,
        "state": state,
        "first": first,
        "last": last,
        "last_state": last_state,
        "end": position,
    }


def both_engines(words: scan.Words, ends: Sequence[int], interest: set[int], modes: set[int]) -> list[dict[str, Any]]:
    """The picks of NumPy and of Numba, as plain values."""
    wanted, noted = (np.array(sorted(headers), np.uint32) for headers in (interest, modes))
    answers = []
    for fast in (False, True):
        assert scan.use_fast(fast) is fast, "the tests need the extra `fast`"
        picks = scan.pick_records(words, np.array(ends, np.int64), wanted, (noted, wanted))
        answers.append({name: np.asarray(value).tolist() for name, value in picks._asdict().items()})
        assert [value.dtype for value in picks[:-1]] == [np.uint32, *[np.int64] * 6]
    return answers


def window_ends(words: scan.Words) -> list[int]:
    """Word offsets behind each window of a sound trace."""
    ends = [0]
    while ends[-1] < len(words):
        assert words[ends[-1]] == CPU_CHANGE_HEADER
        ends.append(ends[-1] + WINDOW_HEADER_BYTES // 4 + int(words[ends[-1] + 2]) // 4)
    return ends[1:]


def test_numba_is_here() -> None:
    assert scan.engine() == "numpy"
    assert scan.use_fast(True)
    assert scan.engine() == "numba"


@given(word_streams(), st.sampled_from(LANES))
def test_starts_of_any_stream(data: bytes, lane: int) -> None:
    words = words_of(data)
    with patch.object(scan, "LANE_WORDS", lane):
        starts = scan.record_starts(words)
    assert starts.dtype == np.int64
    assert starts.tolist() == plain_starts(words)
    if len(words):
        assert scan.ends_at(words, starts) == starts[-1] + length(int(words[starts[-1]]))


@given(st.data(), word_streams(), st.sampled_from(LANES))
def test_picks_of_any_stream(data: st.DataObject, stream: bytes, lane: int) -> None:
    words = words_of(stream)
    present = sorted({int(words[at]) for at in plain_starts(words)})
    header = st.sampled_from(present) if present else st.integers(0, 9)
    interest = data.draw(st.sets(header, max_size=4)) | {CPU_CHANGE_HEADER}
    modes = data.draw(st.sets(header, max_size=4)) - interest
    inner = data.draw(st.lists(st.integers(0, len(words)), max_size=6))
    ends = [*sorted(inner), len(words)]
    expected = plain_picks(words, ends, interest, modes)
    with patch.object(scan, "LANE_WORDS", lane):
        for answer in both_engines(words, ends, interest, modes):
            assert answer == expected


@given(captures())
def test_picks_by_window(capture: list[Window]) -> None:
    """Window by window, a capture's own windows hold what was put in."""
    words = words_of(build_capture(capture))
    stamped = {record.header for window in capture for record in window.records if record.tsc is not None}
    for answer in both_engines(words, window_ends(words), {CPU_CHANGE_HEADER}, stamped):
        assert answer["end"] == len(words)
        assert len(answer["picked"]) == len(capture)
        assert sum(answer["counts"]) == sum(1 + len(window.records) for window in capture)
        assert answer["last_state"][0] == answer["last"]


@pytest.mark.parametrize("total", range(12))
def test_tiny(total: int) -> None:
    for top in range(16):
        words = words_of(build_words([top << 28 | 1] * total))
        assert scan.record_starts(words).tolist() == plain_starts(words)
        expected = plain_picks(words, [total], {1}, {CPU_CHANGE_HEADER})
        assert both_engines(words, [total], {1}, {CPU_CHANGE_HEADER}) == [expected] * 2


@pytest.mark.parametrize("distinct", [4095, 4096, 5000, 70_000])
def test_thousands_of_headers(distinct: int) -> None:
    """More than Numba's table holds, and more than the hash of NumPy keeps apart."""
    stream = b"".join(Record(0x800_0000 + event, (1,) * (event % 8)).build() for event in range(distinct))
    words = words_of(stream * 2)
    header = int(words[0])
    ends = [7, len(words) // 2, len(words)]
    other = Record(0x800_0000 + 9, (1,)).header
    expected = plain_picks(words, ends, {header}, {other})
    assert len(expected["headers"]) == distinct
    assert both_engines(words, ends, {header}, {other}) == [expected] * 2


@pytest.mark.parametrize("seed", range(5))
def test_long_hostile_stream(seed: int) -> None:
    """Lanes that guess wrong all the time: random words, and walks that never meet."""
    words = words_of(random.Random(seed).randbytes(400_000))
    assert scan.record_starts(words).tolist() == plain_starts(words)
    ends = [*range(977, len(words), 977), len(words)]
    interest, modes = set(words[:40].tolist()), set(words[40:80].tolist())
    assert both_engines(words, ends, interest, modes) == [plain_picks(words, ends, interest, modes)] * 2
    # Three-word records beside each other: a walk begun off by one never falls onto the true chain.
    apart = words_of(build_words([0x2000_0000 | seed] * 30_001))
    assert scan.record_starts(apart).tolist() == plain_starts(apart)


def test_real_traces(trace: Path, expected_records: int) -> None:
    words: NDArray[np.uint32] = words_of(trace.read_bytes())
    starts = plain_starts(words)
    assert len(starts) == expected_records
    assert scan.record_starts(words).tolist() == starts
    ends = window_ends(words)
    headers, counts = np.unique(words[starts], return_counts=True)
    often = headers[np.argsort(counts)].tolist()
    # The window headers and some frequent and rare kinds; as modes some others.
    interest, modes = {CPU_CHANGE_HEADER, *often[-6::2], *often[:3]}, {*often[-5::2], *often[3:6]}
    modes -= interest
    expected = plain_picks(words, ends, interest, modes)
    assert expected["end"] == len(words)
    assert both_engines(words, ends, interest, modes) == [expected] * 2


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("lead", range(10))
def test_longest_records(lane: int, lead: int) -> None:
    """Records of ten words that end exactly where a lane does."""
    words = words_of(build_words([1] * lead) + Record(0x802003, (0,) * 7, 1 << 40).build() * 1000)
    with patch.object(scan, "LANE_WORDS", lane):
        assert scan.record_starts(words).tolist() == plain_starts(words)


def test_numba_leaves_a_full_table_to_numpy() -> None:
    words = words_of(b"".join(Record(0x800_0000 + event).build() for event in range(5000)))
    none = np.zeros(0, np.uint32)
    assert scan_numba.pick_records(words, np.array([len(words)]), none, (none,)) is None

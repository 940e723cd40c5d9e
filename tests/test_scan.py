"""The three record walks held equal: NumPy lanes, Numba, and a plain loop written here."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import Record, Window, build_capture, build_words, captures, word_streams

from xtrace import lanes, scan, scan_numba
from xtrace.digest import ALL, interest
from xtrace.parsers.container import CPU_CHANGE_HEADER, WINDOW_HEADER_BYTES
from xtrace.scan import Interest
from xtrace.states import Channel
from xtrace.words import Words, ends_at

LANES = [20, 21, 64, 512, 1000]
"""A lane must be longer than a record, wherever within ten words it begins."""


def words_of(data: bytes) -> Words:
    return np.frombuffer(data, "<u4")


def length(header: int) -> int:
    return 1 + 2 * (header >> 31) + (header >> 28 & 7)


def plain_starts(words: Words) -> list[int]:
    found, position, values = [], 0, words.tolist()
    while position < len(values):
        found.append(position)
        position += length(values[position])
    return found


def kinds(limits: Mapping[int, int], subjects: Collection[int] = (), *channels: Channel) -> Interest:
    """An interest in so many records of each of these header words."""
    always = [header for header, limit in limits.items() if limit == ALL]
    return interest(always, {header: limit for header, limit in limits.items() if limit != ALL}, subjects, channels)


def plain_picks(words: Words, ends: Sequence[int], wanted: Interest) -> dict[str, Any] | None:
    """`scan.pick_records`, one record at a time."""
    values = words.tolist()
    rows = {header: row for row, header in enumerate(wanted.header.tolist())}
    left = wanted.limit.tolist()
    counts: dict[int, int] = {}
    found: dict[str, list[Any]] = {
        name: [] for name in ("kept", "at", "window", "state", "last_state", "first_tsc", "last_tsc")
    }
    position = 0
    for window, end in enumerate(ends):
        state = [[0] * scan.STATE_WORDS for _ in range(wanted.channels)]
        times = [0]
        while position < end:
            header = values[position]
            record = values[position : position + length(header)]
            position += length(header)
            if position > end:
                return None
            counts[header] = counts.get(header, 0) + 1
            if header >> 31:
                times.append(record[1] | record[2] << 32)
            if header not in rows:
                continue
            row = rows[header]
            if left[row] > 0:
                left[row] -= 1
                found["at"].append(len(found["kept"]))
                found["kept"] += record
                found["window"].append(window)
                if wanted.subject[row]:
                    found["state"].append(list(state))
            for channel in range(wanted.channels):
                if wanted.sets[row] >> channel & 1:
                    first, second = wanted.place[row, channel].tolist()
                    state[channel] = [header, record[3 + first], record[3 + second], record[1], record[2]]
        found["last_state"].append(state)
        found["first_tsc"].append(times[1] if len(times) > 1 else 0)
        found["last_tsc"].append(times[-1])
    headers = sorted(counts)
    return {"headers": headers, "counts": [counts[header] for header in headers], **found}


def both_engines(words: Words, ends: Sequence[int], wanted: Interest) -> list[dict[str, Any] | None]:
    """The picks of NumPy and of Numba, as plain values."""
    answers: list[dict[str, Any] | None] = []
    for fast in (False, True):
        assert scan.use_fast(fast) is fast, "the tests need the extra `fast`"
        picks = scan.pick_records(words, np.array(ends, np.int64), wanted)
        if picks is None:
            answers.append(None)
            continue
        answer = {name: value.tolist() for name, value in picks._asdict().items()}
        answers.append(answer)
        offsets, times = [np.int64] * 2, [np.uint64] * 2
        assert [value.dtype for value in picks] == [np.uint32, np.int64, np.uint32, *offsets, *[np.uint32] * 2, *times]
        assert picks.state.shape == (len(answer["state"]), wanted.channels, scan.STATE_WORDS)
        assert picks.last_state.shape == (len(ends), wanted.channels, scan.STATE_WORDS)
    return answers


def window_ends(words: Words) -> list[int]:
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
    with patch.object(lanes, "LANE_WORDS", lane):
        starts = scan.record_starts(words)
    assert starts.dtype == np.int64
    assert starts.tolist() == plain_starts(words)
    if len(words):
        assert ends_at(words, starts) == starts[-1] + length(int(words[starts[-1]]))


@st.composite
def interests(draw: st.DrawFn, headers: list[int]) -> Interest:
    """An interest in some of these header words: all of a kind or its first few, with the states before some."""
    header = st.sampled_from(headers) if headers else st.integers(0, 9)
    limits = draw(st.dictionaries(header, st.sampled_from([1, 2, 5, ALL]), max_size=5)) | {CPU_CHANGE_HEADER: ALL}
    lasting = [one for one in headers if one >> 31 and one >> 28 & 7]
    channels = []
    for _ in range(draw(st.integers(0, 3))):
        setters = draw(st.sets(st.sampled_from(lasting), max_size=3)) if lasting else set()
        word = {one: st.integers(0, (one >> 28 & 7) - 1) for one in setters}
        channels.append({one: (draw(word[one]), draw(word[one])) for one in setters})
    return kinds(limits, draw(st.sets(st.sampled_from(sorted(limits)))), *channels)


@given(st.data(), word_streams(), st.sampled_from(LANES))
def test_picks_of_any_stream(data: st.DataObject, stream: bytes, lane: int) -> None:
    """Windows that end between records, of any length."""
    words = words_of(stream)
    starts = plain_starts(words)
    words = words[: starts[-1] if starts else 0]
    inner = data.draw(st.lists(st.sampled_from(starts), max_size=8)) if starts else []
    ends = [*sorted(inner), len(words)]
    wanted = data.draw(interests(sorted({int(words[at]) for at in starts[:-1]})))
    expected = plain_picks(words, ends, wanted)
    assert expected is not None
    with patch.object(lanes, "LANE_WORDS", lane):
        assert both_engines(words, ends, wanted) == [expected] * 2


@given(st.data(), word_streams(), st.sampled_from(LANES))
def test_windows_that_do_not_fit(data: st.DataObject, stream: bytes, lane: int) -> None:
    """Each window is read from its first word on, whatever the one before held; one misfit, and there are no picks."""
    words = words_of(stream)
    ends = [*sorted(data.draw(st.lists(st.integers(0, len(words)), max_size=8))), len(words)]
    wanted = data.draw(interests(sorted(set(words[:20].tolist()))))
    expected = plain_picks(words, ends, wanted)
    with patch.object(lanes, "LANE_WORDS", lane):
        assert both_engines(words, ends, wanted) == [expected] * 2


@given(captures())
def test_picks_by_window(capture: list[Window]) -> None:
    """Window by window, a capture's own windows hold what was put in."""
    words = words_of(build_capture(capture))
    lasting = {one.header: (0, 0) for window in capture for one in window.records if one.payload and one.tsc}
    for answer in both_engines(words, window_ends(words), kinds({CPU_CHANGE_HEADER: ALL}, (), lasting)):
        assert answer is not None
        assert answer["window"] == list(range(len(capture)))
        assert answer["kept"][1::3] == [window.cpu for window in capture]
        assert sum(answer["counts"]) == sum(1 + len(window.records) for window in capture)
        times = [[record.tsc for record in window.records if record.tsc is not None] for window in capture]
        assert answer["first_tsc"] == [window[0] if window else 0 for window in times]
        assert answer["last_tsc"] == [window[-1] if window else 0 for window in times]
        setters = [[one for one in window.records if one.payload and one.tsc] for window in capture]
        assert [state[0][1] for state in answer["last_state"]] == [
            inside[-1].payload[0] if inside else 0 for inside in setters
        ]


@pytest.mark.parametrize("total", range(12))
def test_tiny(total: int) -> None:
    for top in range(16):
        words = words_of(build_words([top << 28 | 1] * total))
        assert scan.record_starts(words).tolist() == plain_starts(words)
        wanted = kinds({1: ALL, CPU_CHANGE_HEADER: 1})
        expected = plain_picks(words, [total], wanted)
        assert both_engines(words, [total], wanted) == [expected] * 2
        assert (expected is None) == (total % length(top << 28) > 0)


@pytest.mark.parametrize("distinct", [4095, 4096, 5000, 70_000])
def test_thousands_of_headers(distinct: int) -> None:
    """More than Numba's table holds, and more than the hash of NumPy keeps apart."""
    kind = [Record(0x800_0000 + event, (1,) * (event % 8), 1 << 40 | event).build() for event in range(distinct)]
    words = words_of(b"".join(kind) * 2)
    header = int(words[0])
    ends = [3, len(words) // 2, len(words)]
    other = Record(0x800_0000 + 9, (1,), 0).header
    wanted = kinds({header: ALL}, [header], {other: (0, 0)})
    expected = plain_picks(words, ends, wanted)
    assert expected is not None
    assert len(expected["headers"]) == distinct
    assert both_engines(words, ends, wanted) == [expected] * 2


@pytest.mark.parametrize("seed", range(5))
def test_long_hostile_stream(seed: int) -> None:
    """Lanes that guess wrong all the time: random words, and walks that never meet."""
    words = words_of(random.Random(seed).randbytes(400_000))
    starts = plain_starts(words)
    assert scan.record_starts(words).tolist() == starts
    words = words[: starts[-1]]
    ends = [*starts[300:-1:300], len(words)]
    lasting = {one: (0, 0) for one in words[starts[40:80]].tolist() if one >> 31 and one >> 28 & 7}
    seen = words[starts[:40]].tolist()
    wanted = kinds(dict.fromkeys(seen, ALL), seen[:20], lasting)
    expected = plain_picks(words, ends, wanted)
    assert expected is not None
    assert both_engines(words, ends, wanted) == [expected] * 2
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
    # The window headers and some frequent and rare kinds; states set by some of these and some others.
    limits = {CPU_CHANGE_HEADER: ALL, **dict.fromkeys(often[-6::2], ALL), **dict.fromkeys(often[:3], 2), often[-5]: 100}
    lasting = [header for header in often if header >> 31 and header >> 28 & 7]
    channels = [{header: (0, (header >> 28 & 7) - 1) for header in lasting[part::3]} for part in range(2)]
    wanted = kinds(limits, often[-6::4], *channels)
    expected = plain_picks(words, ends, wanted)
    assert expected is not None
    assert both_engines(words, ends, wanted) == [expected] * 2


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("lead", range(10))
def test_longest_records(lane: int, lead: int) -> None:
    """Records of ten words that end exactly where a lane does."""
    words = words_of(build_words([1] * lead) + Record(0x802003, (0,) * 7, 1 << 40).build() * 1000)
    with patch.object(lanes, "LANE_WORDS", lane):
        assert scan.record_starts(words).tolist() == plain_starts(words)


def test_numba_leaves_a_full_table_to_numpy() -> None:
    words = words_of(b"".join(Record(0x800_0000 + event).build() for event in range(5000)))
    assert scan_numba.pick_records(words, np.array([len(words)]), interest()) == (True, None)

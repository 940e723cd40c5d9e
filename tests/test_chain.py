"""The chain of window headers, followed at once and from anywhere: what it finds, and what it leaves to others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Sample
from damage import pieces_of
from hypothesis import given
from hypothesis import strategies as st
from strategies import Record, Window, build_capture, build_window, build_words, captures

from xtrace import chain
from xtrace.block import Block
from xtrace.chain import follow, load_stretch
from xtrace.parsers.container import CPU_CHANGE_HEADER, MAX_CPU, WINDOW_HEADER_BYTES

BODY = Record(0x802003, (1, 2, 3), 1 << 40).build()
FALSE_MARK = Record(0x802003, (CPU_CHANGE_HEADER, 1, 8), 1 << 40).build()
"""A record whose payload looks like the header of a window of eight bytes."""

Row = list[int]


def rows_of(data: bytes) -> list[Row]:
    """What `follow` says of intact windows."""
    return [[piece.begin + WINDOW_HEADER_BYTES, piece.end, piece.cpu] for piece in pieces_of(data)]


def followed(data: bytes, limit: int = 1 << 20, *, ended: bool = True) -> list[Row]:
    rows: list[Row] = follow(memoryview(data), limit, ended=ended).tolist()
    return rows


@given(captures())
def test_follows_any_capture(capture: list[Window]) -> None:
    data = build_capture(capture)
    expected = rows_of(data)
    assert [row[2] for row in expected] == [window.cpu for window in capture]
    assert followed(data) == expected
    # Where more may come, or does, the last window might not be followed by another.
    assert followed(data, ended=False) == expected[:-1]
    assert followed(data + b"\x00") == expected[:-1]
    assert followed(data + b"\x03", ended=False) == expected


@given(captures(), st.integers(1, 3000))
def test_stops_at_the_limit(capture: list[Window], limit: int) -> None:
    limit = limit // 4 * 4
    data = build_capture(capture)
    whole = followed(data)
    assert followed(data, limit) == [row for row in whole if row[0] - WINDOW_HEADER_BYTES < limit]


@pytest.mark.parametrize("inside", range(4))
def test_payloads_that_look_like_headers(inside: int) -> None:
    """A chain goes from header to header, whatever stands between them."""
    bodies = [BODY, BODY * 2, b"", BODY]
    bodies[inside] += FALSE_MARK + BODY
    data = b"".join(build_window(3, body) for body in bodies)
    assert len(followed(data)) == len(bodies)
    assert followed(data) == rows_of(data)


@pytest.mark.parametrize(
    "broken",
    [
        build_window(MAX_CPU + 1, BODY),
        build_window(2, BODY, len(BODY) + 2),
        build_window(2, BODY, len(BODY) + 4),
        build_window(2, BODY, 0xFFFF_FFF0),
        BODY,
        b"\x03",
    ],
)
def test_stops_before_what_is_not_possible(broken: bytes) -> None:
    good = build_window(1, BODY)
    found = followed(good * 2 + broken + good)
    # Without a header behind it the window before cannot be trusted either.
    assert found == rows_of(good * 2)[: 2 if broken[:4] == good[:4] else 1]
    assert followed(broken + good) == []


def stretches(path: Path, size: int) -> list[Block | None]:
    """Every stretch of a file, in memory of its own."""
    found = []
    for offset in range(0, path.stat().st_size, size):
        # The thread's memory is used again by the next.
        block = load_stretch(path, offset, size)
        found.append(block and Block(block.offset, block.words.copy(), block.windows))
    return found


def joined(found: list[Block | None]) -> list[tuple[int, bytes]]:
    """CPU and bytes of all windows, checking that the stretches lie one behind the other."""
    windows, end = [], 0
    for block in found:
        if block is None:
            continue
        assert block.offset == end
        end += block.words.nbytes
        windows += [(cpu, block.words[first:last].tobytes()) for first, last, cpu in block.windows.tolist()]
    return windows


@given(captures(), st.integers(3, 400))
def test_stretches_are_the_whole(scratch: Path, capture: list[Window], words: int) -> None:
    """However a file is cut, the windows come out once each and in order."""
    scratch.write_bytes(build_capture(capture))
    expected = [(window.cpu, window.build()[WINDOW_HEADER_BYTES:]) for window in capture]
    assert joined(stretches(scratch, 4 * words)) == expected


@pytest.mark.parametrize("size", [4096, 50_000, 1 << 20])
def test_stretches_of_real_traces(sample: Sample, size: int) -> None:
    for name in ("dom0-stock", "bench-lockless", "bench8-legacy", "vmx-legacy"):
        path = sample(name)
        found = stretches(path, size)
        data = b"".join(block.words.tobytes() for block in found if block)
        assert data == path.read_bytes()


@pytest.mark.parametrize("beyond", [-8, -4, 0, 4, 8, 12, 16, 4096])
def test_last_window_reaches_far(monkeypatch: pytest.MonkeyPatch, scratch: Path, beyond: int) -> None:
    """A window that ends near or beyond what was read at first is read in a second go, with the header behind it."""
    monkeypatch.setattr(chain, "SLACK_BYTES", 256)
    size = 64
    body = build_words([1] * ((size + 256 + beyond) // 4 - 3))
    scratch.write_bytes(build_window(7, body) + build_window(8, BODY) * 20)
    block = load_stretch(scratch, 0, size)
    assert block is not None
    assert block.windows.tolist() == [[3, 3 + len(body) // 4, 7]]
    # What claims more than any window may have is left to whoever reads in order.
    scratch.write_bytes(build_window(7, body, chain.MAX_WINDOW_BYTES * 2) + build_window(8, BODY) * 20)
    assert load_stretch(scratch, 0, size) is None


def test_false_start(scratch: Path) -> None:
    """A stretch that begins in a payload may start on a word of it: its offset tells, and the caller compares."""
    inner = build_window(5, b"") + build_window(6, b"")
    first = build_window(1, BODY * 3 + Record(0x802003, tuple(np.frombuffer(inner, "<u4").tolist()), 9).build() + BODY)
    scratch.write_bytes(first + build_window(2, BODY) * 3)
    block = load_stretch(scratch, 64, 4096)
    assert block is not None
    assert block.offset < len(first)
    found = load_stretch(scratch, len(first) - 8, 4096)
    assert found is not None
    assert found.offset == len(first)


def test_nothing_to_start_on(scratch: Path) -> None:
    scratch.write_bytes(build_window(1, BODY * 100))
    assert load_stretch(scratch, 64, 512) is None
    assert load_stretch(scratch, 1 << 20, 512) is None
    with pytest.raises(OSError, match="No such file"):
        load_stretch(scratch.with_name("absent"), 0, 512)

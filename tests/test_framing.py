"""Windows found in what comes: intact or not, in pieces of any size, and in what is no trace at all."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import Sample
from damage import NOTHING, Damaged, Piece, look, pieces_of, prefix_of
from hypothesis import given
from hypothesis import strategies as st
from strategies import Record, Window, build_capture, build_window, build_words, captures

from xtrace import framing
from xtrace.digest import digest
from xtrace.errors import InputError
from xtrace.parsers.container import CPU_CHANGE_HEADER
from xtrace.parsers.fields import u32
from xtrace.reader import Reader
from xtrace.scan import record_starts


def test_intact_traces(trace: Path, expected_records: int) -> None:
    seen = look(trace)
    assert seen.found.total_records == expected_records
    assert seen.found.skips == []
    assert seen.found.captures == 1
    assert seen.windows == Counter(piece.key for piece in pieces_of(trace.read_bytes()))


@given(captures())
def test_any_capture(scratch: Path, capture: list[Window]) -> None:
    scratch.write_bytes(build_capture(capture))
    seen = look(scratch)
    assert seen.found.skips == []
    assert seen.found.total_records == sum(1 + len(window.records) for window in capture)
    assert sum(seen.windows.values()) == len(capture)
    assert {cpu: totals.windows for cpu, totals in seen.found.cpus.items()} == Counter(window.cpu for window in capture)


NO_TRACE = {
    "1 byte": b"\x03",
    "2 bytes": b"\x03\xf0",
    "3 bytes": b"\x03\xf0\x01",
    "half a header": build_window(0, b"")[:8],
    "most of a header": build_window(0, b"")[:11],
    "random": random.Random(7).randbytes(4096),
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "text": b"This is not a trace. " * 200,
    "much random": random.Random(8).randbytes(9 << 20),
}


def test_empty_file(scratch: Path) -> None:
    scratch.write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        look(scratch)


@pytest.mark.parametrize("kind", NO_TRACE)
def test_no_trace_at_all(kind: str, scratch: Path) -> None:
    scratch.write_bytes(NO_TRACE[kind])
    with pytest.raises(InputError, match="no xentrace window") as caught:
        look(scratch)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes(scratch: Path, data: bytes) -> None:
    scratch.write_bytes(data)
    try:
        look(scratch)
    except InputError:
        assert len(data) < 12 or u32.build(CPU_CHANGE_HEADER) not in data


@given(st.lists(st.binary(max_size=30) | st.just(build_window(3, b"")) | st.just(build_window(5, b"", 40))))
def test_any_mixture_with_headers(scratch: Path, parts: list[bytes]) -> None:
    scratch.write_bytes(b"".join(parts))
    with suppress(InputError):
        look(scratch)


def test_only_a_header(scratch: Path) -> None:
    scratch.write_bytes(build_window(2, b""))
    assert look(scratch).windows == Counter([(2, b"")])


def test_two_captures(damaged: Damaged) -> None:
    """The second starts over in time: the same file twice is two captures."""
    damaged.path.write_bytes(damaged.data * 2)
    seen = look(damaged.path)
    assert seen.found.skips == []
    assert seen.found.captures == 2
    assert seen.found.total_records == 2 * damaged.intact.found.total_records
    assert seen.found.zero_tsc == damaged.intact.found.zero_tsc


def test_older_capture_after_newer(sample: Sample, scratch: Path) -> None:
    names = ["bench-lockless", "bench-legacy"]
    parts = []
    for name in names:
        scratch.write_bytes(sample(name).read_bytes())
        parts.append(look(scratch))
    newer, older = sorted(range(2), key=lambda index: -parts[index].found.zero_tsc)
    scratch.write_bytes(sample(names[newer]).read_bytes() + sample(names[older]).read_bytes())
    seen = look(scratch)
    assert seen.found.captures == 2
    assert seen.found.total_records == sum(part.found.total_records for part in parts)
    assert seen.windows == parts[0].windows + parts[1].windows
    assert seen.found.zero_tsc == parts[newer].found.zero_tsc


def test_truncated_capture_before_another(damaged: Damaged) -> None:
    cut = len(damaged.data) // 2 + 5
    damaged.path.write_bytes(damaged.data[:cut] + damaged.data)
    seen = look(damaged.path)
    assert not damaged.intact.windows - seen.windows
    assert seen.found.captures == 2
    assert seen.found.skipped_bytes < 40


@pytest.mark.parametrize("trace_class", [0x800, 0x003, 0x100, 0x200, 0x400, 0xFFF, 0x000])
@pytest.mark.parametrize("words", [0, 1, 7])
def test_unknown_classes_are_kept(damaged: Damaged, trace_class: int, words: int) -> None:
    """Records nobody knows, within a sound window; 0x800 is what any HVM guest may write."""
    strange = Record(trace_class << 16 | 0xF123, (5,) * words)
    piece = damaged.pieces[2]
    window = build_window(piece.cpu, strange.build() + piece.body + strange.build() * 2)
    damaged.path.write_bytes(damaged.data[: piece.begin] + window + damaged.data[piece.end :])
    seen = look(damaged.path)
    assert seen.found.skips == []
    assert seen.found.counts[strange.header] == 3
    assert seen.found.total_records == damaged.intact.found.total_records + 3


@pytest.mark.parametrize("filling", [b"", Record(0x802003, (1,)).build(), b"\0", b"\xff" * 8, bytes(4)])
def test_hostile_headers_are_read_in_time(scratch: Path, filling: bytes) -> None:
    """Thousands of headers, each promising what is not there, with or without records."""
    scratch.write_bytes((build_window(1, b"", 0xFFFF_FFF0) + filling) * 4_000)
    seen = look(scratch)
    # A header that leads nowhere and is followed by no record is none.
    assert seen.found.cpus[1].windows == 4_000 or filling


def test_giant_window(monkeypatch: pytest.MonkeyPatch, damaged: Damaged) -> None:
    """A window beyond the limit is read in pieces; its records are those of the whole."""
    body = b"".join(piece.body for piece in damaged.pieces if piece.cpu == 0)
    body = body[: len(prefix_of(Piece(0, 0, 0, body), 8000))]
    records = len(record_starts(np.frombuffer(body, "<u4")))
    small = build_window(1, Record(0x802003, (0,) * 7, 1 << 20).build())
    monkeypatch.setattr(framing, "CHUNK_BYTES", 3001)
    monkeypatch.setattr(framing, "BLOCK_BYTES", 4096)
    for limit in (64, 4096, len(body) - 4, len(body)):
        monkeypatch.setattr(framing, "MAX_WINDOW_BYTES", limit)
        for claim in (len(body), len(body) + 4, len(body) + 1, 0xFFFF_FFF0):
            for tail in (b"", small):
                damaged.path.write_bytes(small + build_window(0, body, claim) + tail)
                seen = look(damaged.path)
                assert b"".join(part for cpu, part in seen.windows.elements() if cpu == 0) == body
                assert seen.windows[1, small[12:]] == 1 + bool(tail)
                assert sum(seen.found.counts.values()) >= records + 2 + bool(tail)
                assert seen.found.skipped_bytes == 0
                assert bool(seen.found.skips) == (claim != len(body))


@pytest.mark.parametrize("chunk", [61, 1000, 4096])
def test_windows_across_chunks(monkeypatch: pytest.MonkeyPatch, damaged: Damaged, chunk: int) -> None:
    """How the bytes come in does not matter, neither for a sound file nor for a damaged one."""
    middle = damaged.pieces[len(damaged.pieces) // 2]
    files = [
        damaged.data,
        damaged.replaced(middle.begin, bytes(4096)),
        damaged.data[: middle.begin + 50] + damaged.data[middle.begin + 55 :],
        damaged.data[:-5],
    ]
    for data in files:
        damaged.path.write_bytes(data)
        whole = look(damaged.path)
        with monkeypatch.context() as patched:
            patched.setattr(framing, "BLOCK_BYTES", 4 * chunk)
            patched.setattr(framing, "CHUNK_BYTES", chunk)
            again = look(damaged.path)
        assert again.told() == whole.told()


def test_digest_survives_a_window_of_nothing_readable(scratch: Path) -> None:
    scratch.write_bytes(build_window(0, build_words([0] * 50)) + build_window(1, b""))
    seen = look(scratch)
    assert seen.windows == Counter([(0, b""), (1, b"")])
    assert seen.found.skipped_bytes == 200
    parts = list(Reader(scratch).run(lambda block: digest(block, NOTHING)))
    assert sum(part.record_bytes for part in parts) == 24


@pytest.mark.parametrize("chunk", [1000, 4096])
def test_memory_in_use_is_left_alone(monkeypatch: pytest.MonkeyPatch, damaged: Damaged, chunk: int) -> None:
    """Blocks that someone still holds keep their bytes; memory that nobody holds serves again."""
    monkeypatch.setattr(framing, "BLOCK_BYTES", chunk)
    monkeypatch.setattr(framing, "CHUNK_BYTES", chunk)
    damaged.path.write_bytes(damaged.data)
    held = list(Reader(damaged.path).blocks())
    assert b"".join(block.words.tobytes() for block in held) == damaged.data
    addresses = {block.words.ctypes.data for block in held}
    assert len(addresses) == len(held)
    passing = [block.words.ctypes.data for block in Reader(damaged.path).blocks()]
    assert len(set(passing)) < len(held)

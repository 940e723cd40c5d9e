"""Damage of every kind: nothing raises, every byte is accounted for, and what is whole is decoded."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import Sample
from hypothesis import given
from hypothesis import strategies as st
from strategies import Record, Window, build_capture, build_window, build_words, captures

from xtrace import framing
from xtrace.block import Block
from xtrace.digest import digest, interest, is_sound, mend
from xtrace.errors import InputError
from xtrace.framing import NEAR_CYCLES
from xtrace.parsers.container import CPU_CHANGE_HEADER, MAX_CPU, WINDOW_HEADER_BYTES, CpuChange
from xtrace.parsers.fields import u32
from xtrace.reader import Reader
from xtrace.scan import pick_records, record_starts
from xtrace.survey import Survey, survey

NOTHING = interest()
SMALL = ["dom0-stock", "bench-legacy", "bench8-lockless", "vmx-legacy"]
"""Traces with few large windows and with many small ones."""

Body = tuple[int, bytes]
"""A window as it was decoded: its CPU and the bytes of its records."""


class Piece(NamedTuple):
    """A window of an intact trace; `begin` is where its header is."""

    begin: int
    end: int
    cpu: int
    body: bytes

    @property
    def key(self) -> Body:
        return self.cpu, self.body


def pieces_of(data: bytes) -> list[Piece]:
    """The windows of an intact trace, by its own chain of headers."""
    pieces, at = [], 0
    while at < len(data):
        change = CpuChange.parse(data[at + 4 :])
        first, end = at + WINDOW_HEADER_BYTES, at + WINDOW_HEADER_BYTES + change.window_size
        pieces.append(Piece(at, end, change.cpu, data[first:end]))
        at = end
    return pieces


def prefix_of(piece: Piece, damage: int) -> bytes:
    """The records of a window that end at or before byte `damage` of the file."""
    end, room = 0, damage - piece.begin - WINDOW_HEADER_BYTES
    while end < len(piece.body):
        header = u32.parse(piece.body[end:])
        length = 4 + 8 * (header >> 31) + 4 * (header >> 28 & 7)
        if end + length > room:
            break
        end += length
    return piece.body[:end]


class Seen(NamedTuple):
    """What came of a file."""

    found: Survey
    windows: Counter[Body]

    def told(self) -> dict[str, Any]:
        """All that was found, to compare."""
        return vars(self.found) | {"kept": len(self.found.kept.at), "windows": self.windows}

    def reasons(self) -> str:
        return "; ".join(skip.reason for skip in self.found.skips)


def windows_of(block: Block) -> list[Body]:
    """The windows of a block that are decoded, damage left out."""
    picks = pick_records(block.words, block.windows[:, 1], NOTHING)
    if picks is None or not is_sound(block, picks):
        block, _ = mend(block)
    return [(cpu, block.words[first:end].tobytes()) for first, end, cpu in block.windows.tolist()]


def look(path: Path, workers: int = 1) -> Seen:
    """Survey a file, and check what holds of every file whatsoever."""
    reader = Reader(path, workers=workers)
    found = survey(reader, NOTHING)
    assert found.total_bytes == path.stat().st_size
    assert found.record_bytes + found.skipped_bytes == found.total_bytes
    assert found.skips == sorted(found.skips)
    end = 0
    for skip in found.skips:
        assert skip.offset >= end
        assert skip.length >= 0
        assert skip.reason
        end = skip.offset + skip.length
    assert end <= found.total_bytes
    windows = Counter(body for part in Reader(path).run(windows_of) for body in part)
    return Seen(found, windows)


class Damaged:
    """An intact trace, and files made of it by damage."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data, self.path = data, path
        self.pieces = pieces_of(data)
        path.write_bytes(data)
        self.intact = look(path)

    def check(self, damaged: bytes, begin: int, end: int, *, wild: bool = False) -> Seen:
        """Look at the trace with bytes `begin`…`end` harmed: all windows they do not touch are decoded.

        wild: what stands there now may by chance be a record, in a place or at a time that was none
        """
        self.path.write_bytes(damaged)
        seen = look(self.path)
        untouched = [piece for piece in self.pieces if piece.end <= begin or piece.begin >= end]
        lost = Counter(piece.key for piece in untouched) - seen.windows
        for cpu, body in lost:
            # Where a header went and a record stands in its place, the window before seems to go on.
            assert wild, "a window that was not touched is lost"
            assert any(piece.key == (cpu, body) and 0 <= begin - piece.end < 12 for piece in untouched)
            assert any(owner == cpu and longer.startswith(body) for owner, longer in seen.windows)
        hit = next((piece for piece in self.pieces if piece.begin <= begin < piece.end), None)
        # The record that runs into the damage, by up to its 40 bytes, may be given up with it.
        if hit and (prefix := prefix_of(hit, begin - 40)):
            assert any(cpu == hit.cpu and body.startswith(prefix) for cpu, body in seen.windows), (
                "records before the damage are lost"
            )
        # A record misread for good would show in the times of the whole trace. Where bytes of two CPUs meet between
        # records, one CPU's clock seems to go back, as it does in another capture.
        assert seen.found.captures <= 1 + wild
        assert seen.found.zero_tsc > self.intact.found.zero_tsc - NEAR_CYCLES or not seen.found.zero_tsc
        assert seen.found.last_tsc < self.intact.found.last_tsc + NEAR_CYCLES
        return seen

    def replaced(self, begin: int, patch: bytes) -> bytes:
        return self.data[:begin] + patch + self.data[begin + len(patch) :]


@pytest.fixture(scope="module", params=SMALL)
def damaged(request: pytest.FixtureRequest, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    folder = tmp_path_factory.mktemp("damage")
    return Damaged(sample(request.param).read_bytes(), folder / "trace.bin")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "trace.bin"


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


@pytest.mark.parametrize("lead", [4, 13, 400, 4096])
def test_headerless_start(damaged: Damaged, lead: int) -> None:
    """The file begins inside a window: as if its first bytes had been cut off."""
    seen = damaged.check(damaged.data[lead:], 0, lead)
    assert "does not begin with a window" in seen.reasons()
    seen = damaged.check(b"\x5a" * lead + damaged.data, 0, 0)
    assert (seen.found.skips[0].offset, seen.found.skips[0].length) == (0, lead)
    assert seen.windows == damaged.intact.windows


@given(data=st.data())
def test_truncation(damaged: Damaged, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(damaged.data) - 1))
    hit = next(piece for piece in damaged.pieces if cut < piece.end)
    if cut < WINDOW_HEADER_BYTES:
        return
    seen = damaged.check(damaged.data[:cut], cut, len(damaged.data))
    # All that is lost is the record that was cut; everything before it is decoded.
    lost = cut - hit.begin - WINDOW_HEADER_BYTES - len(prefix_of(hit, cut))
    assert seen.found.skipped_bytes <= max(lost, 0) + WINDOW_HEADER_BYTES
    assert seen.found.skipped_bytes < 40
    if cut not in {piece.end for piece in damaged.pieces}:
        assert seen.found.skips
        assert "ends inside" in seen.reasons()


SIZES: dict[str, Callable[[int], int]] = {
    "-1": lambda size: size - 1,
    "-4": lambda size: size - 4,
    "+1": lambda size: size + 1,
    "+4": lambda size: size + 4,
    "+16": lambda size: size + 16,
    "half": lambda size: size // 8 * 4,
    "4": lambda _: 4,
    "0": lambda _: 0,
    "100 KiB": lambda _: 100 << 10,
    "2 GiB": lambda _: 1 << 31,
    "0xfffffff0": lambda _: 0xFFFF_FFF0,
    "0xffffffff": lambda _: 0xFFFF_FFFF,
}


@pytest.mark.parametrize("kind", SIZES)
def test_wrong_window_size(damaged: Damaged, kind: str) -> None:
    """Whatever the size says, the records are there and the next header tells where they end."""
    for index in {0, 1, len(damaged.pieces) // 2, len(damaged.pieces) - 2, len(damaged.pieces) - 1}:
        piece = damaged.pieces[index]
        size = SIZES[kind](len(piece.body))
        if size == len(piece.body):
            continue
        seen = damaged.check(damaged.replaced(piece.begin + 8, u32.build(size)), piece.begin + 8, piece.begin + 12)
        assert seen.windows == damaged.intact.windows
        assert seen.found.total_records == damaged.intact.found.total_records
        assert seen.found.skipped_bytes == 0
        assert [skip.length for skip in seen.found.skips] == [0]
        assert f"says {size} bytes" in seen.reasons()


@given(data=st.data())
def test_wrong_window_size_of_any_kind(damaged: Damaged, data: st.DataObject) -> None:
    piece = data.draw(st.sampled_from(damaged.pieces))
    size = data.draw(st.one_of(st.integers(0, 20_000), st.integers(0, 0xFFFF_FFFF)))
    damaged.check(damaged.replaced(piece.begin + 8, u32.build(size)), piece.begin + 8, piece.begin + 12)


@pytest.mark.parametrize("cpu", [256, 257, 1000, MAX_CPU])
def test_large_cpu_numbers(damaged: Damaged, cpu: int) -> None:
    piece = damaged.pieces[3]
    damaged.path.write_bytes(damaged.replaced(piece.begin + 4, u32.build(cpu)))
    seen = look(damaged.path)
    assert seen.found.skips == []
    assert seen.windows[cpu, piece.body] == 1
    assert seen.found.cpus[cpu].size_bytes == len(piece.body)
    assert seen.found.total_records == damaged.intact.found.total_records


@pytest.mark.parametrize("cpu", [MAX_CPU + 1, 0x7FFF_FFFF, 0xFFFF_FFF0, 0xFFFF_FFFF])
def test_impossible_cpu_numbers(damaged: Damaged, cpu: int) -> None:
    """A window of CPU −1 is nobody's: it is skipped, the others are not."""
    for piece in (damaged.pieces[0], damaged.pieces[3], damaged.pieces[-1]):
        seen = damaged.check(damaged.replaced(piece.begin + 4, u32.build(cpu)), piece.begin + 4, piece.begin + 8)
        assert [(skip.offset, skip.length) for skip in seen.found.skips] == [(piece.begin, piece.end - piece.begin)]


FILLS = {"zeros": bytes, "ones": lambda size: b"\xff" * size, "noise": random.Random(3).randbytes}


@pytest.mark.parametrize("fill", FILLS)
@given(data=st.data())
def test_overwritten_block(damaged: Damaged, fill: str, data: st.DataObject) -> None:
    """A block of a disk lost: 4 KiB, anywhere; or less at the end, but enough that it shows."""
    begin = data.draw(st.integers(0, len(damaged.data) - 100))
    end = min(begin + 4096, len(damaged.data))
    seen = damaged.check(damaged.replaced(begin, FILLS[fill](end - begin)), begin, end, wild=True)
    assert seen.found.skipped_bytes > 0


@pytest.mark.parametrize("missing", [1, 2, 3, 4, 8, 12, 16, 100, 4096])
@given(data=st.data())
def test_missing_bytes(damaged: Damaged, missing: int, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(damaged.data) - missing))
    damaged.check(damaged.data[:begin] + damaged.data[begin + missing :], begin, begin + missing, wild=True)


@given(data=st.data())
def test_inserted_bytes(damaged: Damaged, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(damaged.data)))
    extra = data.draw(st.binary(min_size=1, max_size=50))
    damaged.check(damaged.data[:at] + extra + damaged.data[at:], at, at, wild=True)


@given(data=st.data())
def test_flipped_bits(damaged: Damaged, data: st.DataObject) -> None:
    """A flipped bit may turn up in a cycle count, so times prove nothing here."""
    bits = data.draw(st.lists(st.integers(0, len(damaged.data) * 8 - 1), min_size=1, max_size=4))
    changed = bytearray(damaged.data)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    damaged.path.write_bytes(changed)
    seen = look(damaged.path)
    whole = Counter(
        piece.key for piece in damaged.pieces if not any(piece.begin <= bit // 8 < piece.end for bit in bits)
    )
    assert not whole - seen.windows


@given(data=st.data())
def test_several_damages(damaged: Damaged, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(damaged.data) - 1), min_size=2, max_size=5))
    changed = damaged.data
    for place in places:
        patch = data.draw(st.sampled_from([bytes(64), bytes(4096), b"\xff" * 7, b"\x03\xf0\x01\x20"]))
        changed = changed[:place] + patch + changed[place + len(patch) :]
    damaged.path.write_bytes(changed)
    seen = look(damaged.path)
    whole = Counter(
        piece.key for piece in damaged.pieces if piece.end <= min(places) or piece.begin >= max(places) + 4096
    )
    assert not whole - seen.windows


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

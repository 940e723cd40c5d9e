"""Damage of every kind: what is whole is decoded, and only what was hit is given up."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from damage import Damaged, look, prefix_of
from hypothesis import given
from hypothesis import strategies as st

from xtrace.parsers.container import MAX_CPU, WINDOW_HEADER_BYTES
from xtrace.parsers.fields import u32


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


BLOCK_BYTES = 4096


@pytest.mark.parametrize("fill", ["zeros", "ones", "noise"])
@given(data=st.data())
def test_overwritten_block(damaged: Damaged, fill: str, data: st.DataObject) -> None:
    """A block of a disk lost: 4 KiB, anywhere; or less at the end, but enough that it shows."""
    begin = data.draw(st.integers(0, len(damaged.data) - 100))
    end = min(begin + BLOCK_BYTES, len(damaged.data))
    noise = random.Random(data.draw(st.integers(0, 1 << 30))) if fill == "noise" else None
    patch = noise.randbytes(end - begin) if noise else (b"\0" if fill == "zeros" else b"\xff") * (end - begin)
    seen = damaged.check(damaged.replaced(begin, patch), begin, end, wild=True)
    # A little noise can be made of strange records without a time, which prove nothing.
    assert seen.found.skipped_bytes > 0 or (noise and end - begin < BLOCK_BYTES)


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

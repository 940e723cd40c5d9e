"""Files that are harmed, and what must hold of each: nothing raises, and every byte is accounted for."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple

from xtrace.block import Block
from xtrace.digest import interest, is_sound, mend
from xtrace.framing import NEAR_CYCLES
from xtrace.parsers.container import CPU_CHANGE_HEADER, WINDOW_HEADER_BYTES, CpuChange
from xtrace.parsers.fields import u32
from xtrace.reader import Reader
from xtrace.scan import pick_records
from xtrace.survey import Survey, survey

NOTHING: Final = interest()
SMALL: Final = ["dom0-stock", "bench-legacy", "bench8-lockless", "vmx-legacy"]
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
        for at in re.findall(r"the window of CPU \d+ at byte (\d+)", seen.reasons()):
            assert damaged[int(at) :].startswith(u32.build(CPU_CHANGE_HEADER)), "a message names a wrong place"
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

"""One block → its digest: what later stages need of it, small enough to keep. Runs in worker processes too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from xtrace.block import HEADER_BYTES, Block, Skip, leading_tsc
from xtrace.framing import MAX_LEAP_CYCLES, MAX_STEP_BACK_CYCLES, SANE, Framer
from xtrace.parsers.container import CPU_CHANGE_HEADER
from xtrace.scan import Interest, Picks, pick_records, record_starts
from xtrace.states import Channel
from xtrace.words import Offsets, Words, ends_at, tsc_at

HEADER_WORDS: Final = HEADER_BYTES // 4
ALL: Final = np.iinfo(np.int64).max
SAMPLED_BYTES: Final = 128 << 20
"""What is sampled is sampled in this much of a trace."""
ERASED: Final = np.uint32(0xFFFFFFFF)
"""What storage that lost its content reads as, where it does not read as zeros."""


def interest(
    kept: Collection[int] = (),
    sampled: Mapping[int, int] | None = None,
    subjects: Collection[int] = (),
    channels: Sequence[Channel] = (),
) -> Interest:
    """What a walk shall look for, by header word.

    kept      every such record
    sampled   the first so many of each block, in the first SAMPLED_BYTES of the trace
    subjects  some of `kept`: note with each the states before it
    channels  the states to follow
    """
    limits = dict.fromkeys(kept, ALL) | dict(sampled or {})
    headers = sorted(limits.keys() | {header for channel in channels for header in channel})
    place = [[channel.get(header, (0, 0)) for channel in channels] for header in headers]
    return Interest(
        header=np.array(headers, np.uint32),
        limit=np.array([limits.get(header, 0) for header in headers], np.int64),
        subject=np.array([header in subjects for header in headers], np.bool_),
        sets=np.array([sum((header in one) << bit for bit, one in enumerate(channels)) for header in headers], "u1"),
        place=np.array(place, np.int64).reshape(len(headers), len(channels), 2),
    )


@dataclass(slots=True)
class Digest:
    """What a block holds: its picks; by window CPU and size without header; the byte ranges left out."""

    offset: int
    record_bytes: int
    picks: Picks
    cpu: NDArray[np.int64]
    size_bytes: NDArray[np.int64]
    skips: list[Skip]


def digest(block: Block, interest: Interest) -> Digest:
    """Walk a block and keep what is of interest; damaged windows give what can be read of them."""
    if block.offset >= SAMPLED_BYTES:
        interest = interest._replace(limit=np.where(interest.limit == ALL, ALL, 0))
    skips: list[Skip] = []
    picks = pick_records(block.words, block.windows[:, 1], interest)
    if picks is None or not is_sound(block, picks):
        block, skips = mend(block)
        picks = pick_records(block.words, block.windows[:, 1], interest)
        if picks is None:
            raise AssertionError("mended windows hold whole records")
    return Digest(
        offset=block.offset,
        record_bytes=len(block.words) * 4,
        picks=picks,
        cpu=block.windows[:, 2],
        size_bytes=(block.windows[:, 1] - block.windows[:, 0]) * 4,
        skips=skips,
    )


def is_sound(block: Block, picks: Picks) -> bool:
    """Whether a block whose records fit has headers only where windows begin, and strange ones do not look misread."""
    if picks.counts[picks.headers == CPU_CHANGE_HEADER].sum() != len(block.headers()):
        return False
    if _are_sane(picks.headers):
        return True
    return _is_credible(block.words, record_starts(block.words), block.windows[:, 1])


def _are_sane(headers: Words) -> bool:
    return bool(SANE.take(headers >> np.uint32(12) & np.uint32(0xFFFF)).all())


def _is_credible(words: Words, starts: Offsets, ends: Offsets) -> bool:
    """Whether no header is a word of zeros or of ones, and no clock jumps in a window where a class is strange.

    Strange classes alone prove nothing. But where they come from damage, so do cycle counts.
    """
    headers = words[starts]
    if _are_sane(headers):
        return True
    stamped = starts[headers >> np.uint32(31) != 0]
    window = np.searchsorted(ends, stamped, side="right")
    step = np.diff(tsc_at(words, stamped).astype(np.int64))
    jumps = (step < -MAX_STEP_BACK_CYCLES) | (step > MAX_LEAP_CYCLES)
    erased = (headers == 0) | (headers == ERASED)
    return not erased.any() and not bool((jumps & (np.diff(window) == 0)).any())


def mend(block: Block) -> tuple[Block, list[Skip]]:
    """The block without what cannot be read in it, and the byte ranges left out.

    Every window that its records do not fill exactly is read again record by record; a window header met
    inside it starts a window of its own.
    """
    kept: list[Words] = []
    rows: list[tuple[int, int, int]] = []
    skips: list[Skip] = []
    total = before = 0
    headed = set((block.headers() + HEADER_WORDS).tolist())
    for first, end, cpu in block.windows.tolist():
        lead = HEADER_WORDS if first in headed else 0
        body = block.words[first:end]
        starts = record_starts(body)
        fits = ends_at(body, starts) == len(body) and CPU_CHANGE_HEADER not in body[starts]
        if fits and _is_credible(body, starts, np.array([len(body)])):
            pieces = [(block.words[first - lead : end], [(lead, lead + len(body), cpu)])]
        else:
            near = (leading_tsc(block.words[before:first]), leading_tsc(block.words[end:]))
            pieces = _reread(body, cpu, block.offset + (first - HEADER_WORDS) * 4, lead, near, skips)
        for words, table in pieces:
            kept.append(words)
            rows += [(total + begin, total + stop, owner) for begin, stop, owner in table]
            total += len(words)
        before = first
    return Block(block.offset, np.concatenate(kept), np.array(rows, np.int64).reshape(-1, 3)), skips


def _reread(
    body: Words, cpu: int, offset: int, lead: int, near: tuple[int, ...], skips: list[Skip]
) -> list[tuple[Words, list[tuple[int, int, int]]]]:
    """Frame one window anew without trusting it; `offset` is where its header is (or would be)."""
    header = np.array([CPU_CHANGE_HEADER, cpu, len(body) * 4], "<u4")
    framer = Framer(_Memory(np.concatenate((header, body)).tobytes()), distrust=True, near=near, base=offset)
    pieces = []
    for index, block in enumerate(framer.blocks()):
        drop = HEADER_WORDS - lead if index == 0 else 0
        table = block.windows - np.array([drop, drop, 0])
        pieces.append((block.words[drop:], [tuple(row) for row in table.tolist()]))
    skips += framer.skips
    return pieces


@dataclass(slots=True)
class _Memory:
    """Bytes as a Framer's source."""

    data: bytes
    path: Path | None = None
    compression: str | None = None
    ended_early: bool = False

    def read_into(self, room: memoryview) -> int:
        count = min(len(room), len(self.data))
        room[:count] = self.data[:count]
        self.data = self.data[count:]
        return count

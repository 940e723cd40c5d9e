"""One block → its digest: what later stages need of it, small enough to keep. Runs in worker processes too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.framing import (
    HEADER_BYTES,
    MAX_LEAP_CYCLES,
    MAX_STEP_BACK_CYCLES,
    SANE,
    Block,
    Framer,
    Skip,
    leading_tsc,
)
from xtrace.parsers.container import CPU_CHANGE_HEADER
from xtrace.scan import Offsets, Picks, Words, ends_at, pick_records, record_starts
from xtrace.states import STATE, Channel, States, state_at, tsc_at

HEADER_WORDS = HEADER_BYTES // 4
ERASED = np.uint32(0xFFFFFFFF)
"""What storage that lost its content reads as, where it does not read as zeros."""


class Interest(NamedTuple):
    """Header words whose records a digest shall carry.

    kept      every such record
    sampled   the first few of each block, enough to recognise who wrote the trace
    limited   some of `kept`: the first LIMIT of the trace
    subjects  some of `kept`: note with each the states before it
    channels  the states to follow
    """

    kept: frozenset[int]
    sampled: frozenset[int] = frozenset()
    limited: frozenset[int] = frozenset()
    subjects: frozenset[int] = frozenset()
    channels: tuple[Channel, ...] = ()


SAMPLES_PER_BLOCK = 16
LIMIT = 1 << 17


class Extract(NamedTuple):
    """Records of one header word.

    window   int64 (n)         row in the digest's windows
    tsc      uint64 (n)        own timestamp, 0 where the record has none
    payload  uint32 (n, words)
    state    STATE (n, channels)  the state before it, zeros where its window does not tell; of length 0 unless
                               it is a subject
    """

    window: Offsets
    tsc: NDArray[np.uint64]
    payload: Words
    state: States


@dataclass(slots=True)
class Digest:
    """What a block holds.

    Arrays by window: cpu, size_bytes (without header), first_tsc and last_tsc (0: none), last_state (STATE
    (n, channels), zeros where the window sets none).
    """

    offset: int
    record_bytes: int
    headers: NDArray[np.uint32]
    counts: NDArray[np.int64]
    cpu: NDArray[np.int64]
    size_bytes: NDArray[np.int64]
    first_tsc: NDArray[np.uint64]
    last_tsc: NDArray[np.uint64]
    last_state: States
    extracts: dict[int, Extract]
    skips: list[Skip]


def digest(block: Block, interest: Interest) -> Digest:
    """Walk a block and keep what is of interest; damaged windows give what can be read of them."""
    wanted = np.array(sorted(interest.kept | interest.sampled | {CPU_CHANGE_HEADER}), np.uint32)
    states = [np.array(sorted(channel), np.uint32) for channel in interest.channels]
    picks = pick_records(block.words, block.windows[:, 1], wanted, states)
    skips: list[Skip] = []
    if not is_sound(block, picks):
        block, skips = mend(block)
        picks = pick_records(block.words, block.windows[:, 1], wanted, states)
    words, windows = block.words, block.windows
    return Digest(
        offset=block.offset,
        record_bytes=len(words) * 4,
        headers=picks.headers,
        counts=picks.counts,
        cpu=windows[:, 2],
        size_bytes=(windows[:, 1] - windows[:, 0]) * 4,
        first_tsc=tsc_at(words, picks.first),
        last_tsc=tsc_at(words, picks.last),
        last_state=_states(words, picks.last_state, interest.channels),
        extracts=_extract(words, windows, picks, interest),
        skips=skips,
    )


def is_sound(block: Block, picks: Picks) -> bool:
    """Whether the records fill every window of the block exactly, and strange ones do not look misread."""
    if picks.end != len(block.words):
        return False
    expected = block.headers()
    counted = picks.counts[picks.headers == CPU_CHANGE_HEADER].sum()
    if counted != len(expected):
        return False
    found = np.searchsorted(picks.picked, expected)
    if not np.array_equal(picks.picked.take(found, mode="clip"), expected):
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
    framer = Framer(_Memory(np.concatenate((header, body)).tobytes()), distrust=True, near=near)
    pieces = []
    for index, block in enumerate(framer.blocks()):
        drop = HEADER_WORDS - lead if index == 0 else 0
        table = block.windows - np.array([drop, drop, 0])
        pieces.append((block.words[drop:], [tuple(row) for row in table.tolist()]))
    skips += [Skip(offset + skip.offset, skip.length, skip.reason) for skip in framer.skips]
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


def _states(words: Words, at: Offsets, channels: tuple[Channel, ...]) -> States:
    """STATE (n, channels) of word offsets (channels, n)."""
    found = np.zeros((at.shape[1], len(channels)), STATE)
    for place, channel in enumerate(channels):
        found[:, place] = state_at(words, at[place], channel)
    return found


def _extract(words: Words, windows: NDArray[np.int64], picks: Picks, interest: Interest) -> dict[int, Extract]:
    headers = words[picks.picked]
    window = np.searchsorted(windows[:, 1], picks.picked, side="right")
    subject = np.isin(headers, np.array(sorted(interest.subjects), np.uint32))
    states = _states(words, picks.state[:, subject], interest.channels)
    place = np.cumsum(subject) - 1
    extracts = {}
    for header in (interest.kept | interest.sampled).intersection(picks.headers.tolist()):
        rows = np.flatnonzero(headers == header)
        if header in interest.sampled:
            rows = rows[:SAMPLES_PER_BLOCK]
        at = picks.picked[rows]
        stamped = header >> 31
        extracts[header] = Extract(
            window[rows],
            tsc_at(words, at) if stamped else np.zeros(len(at), np.uint64),
            words[(at + 1 + 2 * stamped)[:, None] + np.arange(header >> 28 & 7)],
            states[place[rows]] if header in interest.subjects else states[:0],
        )
    return extracts

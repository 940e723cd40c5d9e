"""One block → its digest: what later stages need of it, small enough to keep. Runs in worker processes too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.framing import HEADER_BYTES, Block, Framer, Skip
from xtrace.parsers.container import CPU_CHANGE_HEADER
from xtrace.scan import Offsets, Picks, Words, pick_records, record_starts

HEADER_WORDS = HEADER_BYTES // 4


class Interest(NamedTuple):
    """Header words whose records a digest shall carry.

    kept      every such record
    sampled   the first few of each block, enough to recognise who wrote the trace
    subjects  some of `kept`: note with each which of `modes` came before it in its window
    """

    kept: frozenset[int]
    sampled: frozenset[int] = frozenset()
    subjects: frozenset[int] = frozenset()
    modes: frozenset[int] = frozenset()


SAMPLES_PER_BLOCK = 16


class Extract(NamedTuple):
    """Records of one header word.

    window   int64 (n)         row in the digest's windows
    tsc      uint64 (n)        own timestamp, 0 where the record has none
    payload  uint32 (n, words)
    mode     uint64 (n, 3)     header, first payload word and timestamp of the mode record before it; 0: none
                               in the window
    """

    window: Offsets
    tsc: NDArray[np.uint64]
    payload: Words
    mode: NDArray[np.uint64]


@dataclass(slots=True)
class Digest:
    """What a block holds. Arrays by window: cpu, size_bytes (without header), first_tsc and last_tsc (0: none),
    last_mode (uint64 (n, 3), as in Extract)."""

    offset: int
    record_bytes: int
    headers: NDArray[np.uint32]
    counts: NDArray[np.int64]
    cpu: NDArray[np.int64]
    size_bytes: NDArray[np.int64]
    first_tsc: NDArray[np.uint64]
    last_tsc: NDArray[np.uint64]
    last_mode: NDArray[np.uint64]
    extracts: dict[int, Extract]
    skips: list[Skip]


def digest(block: Block, interest: Interest) -> Digest:
    """Walk a block and keep what is of interest; damaged windows give what can be read of them."""
    wanted = np.array(sorted(interest.kept | interest.sampled | {CPU_CHANGE_HEADER}), np.uint32)
    modes = np.array(sorted(interest.modes), np.uint32)
    picks = pick_records(block.words, block.windows[:, 1], wanted, modes)
    skips: list[Skip] = []
    if not is_sound(block, picks):
        block, skips = mend(block)
        picks = pick_records(block.words, block.windows[:, 1], wanted, modes)
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
        last_mode=_mode_at(words, picks.last_mode),
        extracts=_extract(words, windows, picks, interest),
        skips=skips,
    )


def is_sound(block: Block, picks: Picks) -> bool:
    """Whether the records fill every window of the block exactly and none of them is a zero word."""
    zeroed = len(picks.headers) and picks.headers[0] == 0
    if picks.end != len(block.words) or zeroed:
        return False
    expected = block.headers()
    counted = picks.counts[picks.headers == CPU_CHANGE_HEADER].sum()
    if counted != len(expected):
        return False
    found = np.searchsorted(picks.picked, expected)
    return np.array_equal(picks.picked.take(found, mode="clip"), expected)


def mend(block: Block) -> tuple[Block, list[Skip]]:
    """The block without what cannot be read in it, and the byte ranges left out.

    Every window that its records do not fill exactly is read again record by record; a window header met
    inside it starts a window of its own.
    """
    kept: list[Words] = []
    rows: list[tuple[int, int, int]] = []
    skips: list[Skip] = []
    total = 0
    headed = set((block.headers() + HEADER_WORDS).tolist())
    for first, end, cpu in block.windows.tolist():
        lead = HEADER_WORDS if first in headed else 0
        body = block.words[first:end]
        starts = record_starts(body)
        heads = body[starts]
        fits = not len(body) or (
            int(starts[-1]) + int(_length(heads[-1])) == len(body)
            and bool((heads != 0).all())
            and CPU_CHANGE_HEADER not in heads
        )
        if fits:
            pieces = [(block.words[first - lead : end], [(lead, lead + len(body), cpu)])]
        else:
            pieces = _reread(body, cpu, block.offset + (first - HEADER_WORDS) * 4, lead, skips)
        for words, table in pieces:
            kept.append(words)
            rows += [(total + begin, total + stop, owner) for begin, stop, owner in table]
            total += len(words)
    return Block(block.offset, np.concatenate(kept), np.array(rows, np.int64).reshape(-1, 3)), skips


def _length(header: np.uint32) -> int:
    return 1 + (int(header) >> 28 & 7) + 2 * (int(header) >> 31)


def _reread(
    body: Words, cpu: int, offset: int, lead: int, skips: list[Skip]
) -> list[tuple[Words, list[tuple[int, int, int]]]]:
    """Frame one window anew without trusting it; `offset` is where its header is (or would be)."""
    header = np.array([CPU_CHANGE_HEADER, cpu, len(body) * 4], "<u4")
    framer = Framer(_Memory(np.concatenate((header, body)).tobytes()), distrust_first=True)
    pieces = []
    for index, block in enumerate(framer.blocks()):
        drop = HEADER_WORDS - lead if index == 0 else 0
        table = block.windows - np.array([drop, drop, 0])
        pieces.append((block.words[drop:], [tuple(row) for row in table.tolist()]))
    skips += [Skip(offset + skip.offset, skip.length, skip.reason) for skip in framer.skips]
    return pieces  # type: ignore[return-value]


@dataclass(slots=True)
class _Memory:
    """Bytes as a Framer's source."""

    data: bytes
    path: Path | None = None
    compression: str | None = None
    ended_early: bool = False

    def read(self) -> bytes:
        data, self.data = self.data, b""
        return data


def tsc_at(words: Words, at: Offsets) -> NDArray[np.uint64]:
    """Cycle counts of the timestamped records at these word offsets; 0 where the offset is negative."""
    low = words.take(at + 1, mode="clip").astype(np.uint64)
    high = words.take(at + 2, mode="clip").astype(np.uint64)
    return np.where(at < 0, np.uint64(0), high << np.uint64(32) | low)


def _mode_at(words: Words, at: Offsets) -> NDArray[np.uint64]:
    """Header, first payload word and timestamp of the mode records there; zeros where the offset is negative."""
    header = np.where(at < 0, 0, words.take(at, mode="clip")).astype(np.uint64)
    value = words.take(at + 3, mode="clip").astype(np.uint64)
    has_value = header >> np.uint64(28) & np.uint64(7) != 0
    return np.stack((header, np.where(has_value, value, np.uint64(0)), tsc_at(words, at)), 1)


def _extract(
    words: Words, windows: NDArray[np.int64], picks: Picks, interest: Interest
) -> dict[int, Extract]:
    headers = words[picks.picked]
    extracts = {}
    for header in (interest.kept | interest.sampled).intersection(picks.headers.tolist()):
        rows = np.flatnonzero(headers == header)
        if header not in interest.kept:
            rows = rows[:SAMPLES_PER_BLOCK]
        at = picks.picked[rows]
        stamped = header >> 31
        payload = words[(at + 1 + 2 * stamped)[:, None] + np.arange(header >> 28 & 7)]
        extracts[header] = Extract(
            np.searchsorted(windows[:, 1], at, side="right"),
            tsc_at(words, at) if stamped else np.zeros(len(at), np.uint64),
            payload,
            _mode_at(words, picks.mode[rows])
            if header in interest.subjects
            else np.zeros((len(at), 3), np.uint64),
        )
    return extracts

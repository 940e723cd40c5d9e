"""Whole records as columns: a block → a batch, in which every record has its CPU and its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from xtrace import columns
from xtrace.block import Block, Skip
from xtrace.context import OCCUPANT, SWITCHES, has_runstates, occupant
from xtrace.digest import interest, is_sound, mend
from xtrace.grouping import rows_by
from xtrace.parsers.event import Event
from xtrace.parsers.registry import Dialect, needs_first_word, resolve
from xtrace.reader import Reader
from xtrace.scan import STATE_WORDS, last_before, pick_records, record_starts, state_at
from xtrace.states import Carry, States, states
from xtrace.survey import CaptureTracker, Survey
from xtrace.words import Offsets, Words, tsc_at


@dataclass(slots=True)
class Batch:
    """Records in input order.

    words   uint32, the block they are in
    starts  int64   word offset of each
    header  uint32
    track   int32   capture << 14 | CPU
    tsc     uint64  own timestamp, else that of the record before it on its CPU; 0 where there is none yet
    order   uint64  what merging goes by: tsc, but never less than before on its CPU
    window  int64   row of its window in the input, counted from the trace's first
    domain, vcpu  int32  who was on its CPU when it was written, NOBODY where not known
    offset  int64   byte of the uncompressed input where each begins; None where there is no such input
    """

    words: Words
    starts: Offsets
    header: Words
    track: NDArray[np.int32]
    tsc: NDArray[np.uint64]
    order: NDArray[np.uint64]
    window: Offsets
    domain: NDArray[np.int32]
    vcpu: NDArray[np.int32]
    offset: Offsets | None = None

    def take(self, rows: Offsets | NDArray[np.bool_]) -> Batch:
        """Some of the records."""
        return Batch(
            self.words,
            self.starts[rows],
            self.header[rows],
            self.track[rows],
            self.tsc[rows],
            self.order[rows],
            self.window[rows],
            self.domain[rows],
            self.vcpu[rows],
            None if self.offset is None else self.offset[rows],
        )

    def payload(self, rows: Offsets, header: int) -> Words:
        """uint32 (rows, payload words) of records that bear `header`."""
        first = self.starts[rows] + 1 + 2 * (header >> 31)
        return self.words.take(first[:, None] + np.arange(header >> 28 & 7))


class Coded(Protocol):
    """Records whose payload is not decoded yet: those of a batch, or of what was made of one."""

    header: Words

    def payload(self, rows: Offsets, header: int) -> Words:
        """uint32 (rows, payload words) of records that bear `header`."""


class Group(NamedTuple):
    """Records of a batch that share one event layout; `columns` as `columns.decode` gives them."""

    event: Event
    rows: Offsets
    payload: Words
    columns: columns.Columns


def batches(reader: Reader, survey: Survey) -> Iterator[Batch]:
    """All records of a trace, block by block. Damage is left out as in its survey."""
    by_runstate = has_runstates(survey.counts)
    tracker = CaptureTracker()
    setters = interest(channels=(OCCUPANT, SWITCHES))
    carries = [Carry(np.uint32, STATE_WORDS) for _ in range(setters.channels)]
    highest: dict[int, int] = {}
    places = _Places(survey.skips)
    window = kept_bytes = 0
    for block in map(_sound_block, reader.blocks()):
        words, cpu = block.words, block.windows[:, 2]
        starts = record_starts(words)
        header = words[starts]
        row = np.searchsorted(block.windows[:, 1], starts, side="right")
        stamped = header >> np.uint32(31) != 0
        own = np.where(stamped, tsc_at(words, starts), np.uint64(0))
        begin = np.searchsorted(row, np.arange(len(block.windows)))
        latest = np.maximum.accumulate(np.where(stamped, np.arange(len(starts)), -1))
        inside = latest >= begin[row]
        first, last = _window_times(own, stamped, row, len(block.windows))
        tracks, before = tracker.place(cpu, first, last)
        tsc = np.where(inside, own[np.maximum(latest, 0)], before[row])
        ends = block.windows[:, 1]
        begins = np.concatenate(([0], ends[:-1]))
        found: list[States] = []
        for channel, carry in enumerate(carries):
            noted = starts[np.isin(header, setters.header[setters.sets >> channel & 1 != 0])]
            last_state = state_at(words, last_before(noted, ends, begins), setters, channel)
            carried = carry.before(tracks, last_state, last_state[:, 0] > 0, np.arange(len(ends)))
            state = state_at(words, last_before(noted, starts, begins[row]), setters, channel)
            missing = state[:, 0] == 0
            state[missing] = carried[row[missing]]
            found.append(states(state))
        runstate, switch = found
        there = occupant(runstate, switch, by_runstate)
        track = tracks.track[row]
        order = _never_back(tsc, track, highest)
        offset = places.of(kept_bytes + 4 * starts)
        yield Batch(words, starts, header, track, tsc, order, window + row, there.domain, there.vcpu, offset)
        window += len(block.windows)
        kept_bytes += words.nbytes


class _Places:
    """Where bytes that were kept are in the input: what was skipped lies between them, and nothing else does."""

    def __init__(self, skips: Sequence[Skip]) -> None:
        self._skipped = np.cumsum([0, *(skip.length for skip in skips)])
        self._kept = np.array([skip.offset for skip in skips], np.int64) - self._skipped[:-1]

    def of(self, kept: Offsets) -> Offsets:
        """The place of each byte by its place among the kept ones."""
        before: Offsets = self._skipped[np.searchsorted(self._kept, kept, side="right")]
        return kept + before


def _sound_block(block: Block) -> Block:
    picks = pick_records(block.words, block.windows[:, 1], interest())
    return block if picks is not None and is_sound(block, picks) else mend(block)[0]


def _window_times(
    own: NDArray[np.uint64], stamped: NDArray[np.bool_], row: Offsets, windows: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """First and last timestamp of each window, 0 where it has none."""
    first, last = np.zeros((2, windows), np.uint64)
    at = np.flatnonzero(stamped)
    last[row[at]] = own[at]
    first[row[at[::-1]]] = own[at[::-1]]
    return first, last


def _never_back(tsc: NDArray[np.uint64], track: NDArray[np.int32], highest: dict[int, int]) -> NDArray[np.uint64]:
    order = np.empty_like(tsc)
    for one, rows in rows_by(track):
        order[rows] = np.maximum.accumulate(np.maximum(tsc[rows], np.uint64(highest.get(one, 0))))
        highest[one] = int(order[rows[-1]])
    return order


def groups(some: Coded, dialect: Dialect, wanted: Callable[[Event], bool] | None = None) -> Iterator[Group]:
    """Records by event layout, decoded. wanted: None for all."""
    for header in np.unique(some.header).tolist():
        rows = np.flatnonzero(some.header == header)
        event_id, words = header & 0x0FFFFFFF, header >> 28 & 7
        payload = some.payload(rows, header)
        kinds = [(None, np.arange(len(rows)))]
        if needs_first_word(event_id, words):
            distinct, inverse = np.unique(payload[:, 0], return_inverse=True)
            kinds = [(word, np.flatnonzero(inverse == place)) for place, word in enumerate(distinct.tolist())]
        for word, members in kinds:
            event = resolve(event_id, words, bool(header >> 31), word, dialect)
            if wanted is None or wanted(event):
                part = payload[members]
                yield Group(event, rows[members], part, columns.decode(event, part))

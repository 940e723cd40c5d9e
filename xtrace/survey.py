"""One pass over a trace: totals, damage, time span, and the records that later questions need."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.block import Skip
from xtrace.digest import Digest, digest
from xtrace.errors import InputError
from xtrace.grouping import rows_by
from xtrace.reader import Reader
from xtrace.scan import STATE_WORDS, Interest, Picks
from xtrace.states import TRACK_BITS, Carry, States, Tracks, cpu_of, states
from xtrace.words import Offsets, Words, tsc_at

RESTART_CYCLES: Final = 1 << 24
"""A CPU's clock that goes back by more than this between windows is another capture. Xen's own corrections of
an unsteady TSC are smaller (xen/arch/x86/time.c)."""


class Records(NamedTuple):
    """Records of one kind, in input order.

    track    int32   capture << 14 | CPU: one CPU's stream of one capture
    tsc      uint64
    payload  uint32 (n, words)
    subject  int64  where `Survey.states` tells the states before it; of length 0 where not asked for
    """

    track: NDArray[np.int32]
    tsc: NDArray[np.uint64]
    payload: Words
    subject: Offsets

    @property
    def cpu(self) -> NDArray[np.int32]:
        """The CPU that wrote each record."""
        return cpu_of(self.track)


class Kept(NamedTuple):
    """The records of interest of some blocks, verbatim in `words`; where each begins, its header and its track.

    state (uint32 (subjects, channels, STATE_WORDS)) is that before each subject.
    """

    words: Words
    at: Offsets
    header: Words
    track: NDArray[np.int32]
    state: Words

    @classmethod
    def none(cls) -> Kept:
        """Of no block."""
        words = np.zeros(0, np.uint32)
        return cls(words, np.zeros(0, np.int64), words, np.zeros(0, np.int32), np.zeros((0, 0, STATE_WORDS), np.uint32))

    @classmethod
    def joined(cls, parts: list[Kept]) -> Kept:
        """Of all the blocks together."""
        words, at, header, track, state = zip(*parts, strict=True)
        begin = np.cumsum([0, *map(len, words[:-1])])
        moved = [one + first for one, first in zip(at, begin.tolist(), strict=True)]
        return cls(*map(np.concatenate, (words, moved, header, track, state)))


@dataclass(slots=True)
class CpuTotals:
    """What one CPU contributed."""

    windows: int = 0
    size_bytes: int = 0


@dataclass
class Survey:
    """What a pass over a whole trace found.

    counts    records by header word, CPU_CHANGE included
    captures  1, or more where several captures stand one behind the other
    zero_tsc  the first timestamp: the smallest of the first capture
    last_tsc  the last timestamp of any CPU
    ends      first and last timestamp of each track that has one; none where not known
    skips     byte ranges not decoded, in input order
    subjects  header words of the records kept with the state before them
    kept      the records that the survey was asked to keep
    """

    name: str
    counts: Counter[int] = field(default_factory=Counter)
    cpus: dict[int, CpuTotals] = field(default_factory=dict)
    captures: int = 1
    zero_tsc: int = 0
    last_tsc: int = 0
    total_bytes: int = 0
    record_bytes: int = 0
    skips: list[Skip] = field(default_factory=list)
    subjects: frozenset[int] = frozenset()
    kept: Kept = field(default_factory=Kept.none)
    ends: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def total_records(self) -> int:
        """All records, window headers included."""
        return sum(self.counts.values())

    @property
    def skipped_bytes(self) -> int:
        """Bytes that belong to no decoded record."""
        return sum(skip.length for skip in self.skips)

    def records(self, header: int) -> Records:
        """The kept records with this header word."""
        kept, size = self.kept, header >> 28 & 7
        rows = np.flatnonzero(kept.header == header)
        first = kept.at[rows] + 1 + 2 * (header >> 31)
        payload = np.empty((len(rows), size), np.uint32)
        for word in range(size):
            payload[:, word] = kept.words.take(first + word)
        return Records(
            kept.track[rows],
            tsc_at(kept.words, kept.at[rows]) if header >> 31 else np.zeros(len(rows), np.uint64),
            payload,
            self._subject_rows[rows] if header in self.subjects else rows[:0],
        )

    @property
    def states(self) -> States:
        """STATE (subjects, channels): the states before each record kept as a subject, zeros where not known."""
        return states(self.kept.state)

    @cached_property
    def _subject_rows(self) -> Offsets:
        """For each kept record that is a subject its row in `kept.state`."""
        return np.cumsum(np.isin(self.kept.header, list(self.subjects))) - 1


class CaptureTracker:
    """Follows each CPU's clock from window to window: what time it is before a window, and which capture."""

    def __init__(self) -> None:
        self.captures = 1
        self._stamps = Carry(np.uint64)

    def place(
        self, cpu: NDArray[np.int64], first_tsc: NDArray[np.uint64], last_tsc: NDArray[np.uint64]
    ) -> tuple[Tracks, NDArray[np.uint64]]:
        """The windows by track, and the last timestamp of its CPU before each (0: none).

        A new capture begins where a CPU's clock starts over.
        """
        capture = np.full(len(cpu), self.captures - 1)
        before = np.zeros(len(cpu), np.uint64)
        begin = 0
        while begin < len(cpu):
            rest = slice(begin, None)
            rows = np.arange(len(cpu) - begin)
            before[rest] = self._stamps.before(Tracks(cpu[rest]), last_tsc[rest], last_tsc[rest] > 0, rows)
            back = (first_tsc[rest] > 0) & (first_tsc[rest] + np.uint64(RESTART_CYCLES) < before[rest])
            if not back.any():
                break
            begin += int(np.argmax(back))
            self.captures += 1
            capture[begin:] = self.captures - 1
            self._stamps.clear()
        return Tracks((capture << TRACK_BITS | cpu).astype(np.int32)), before


def survey(reader: Reader, interest: Interest) -> Survey:
    """Read the whole trace once. Raises InputError where it holds no record at all."""
    subjects = interest.header[interest.subject]
    found = Survey(reader.name, subjects=frozenset(subjects.tolist()))
    tracker = CaptureTracker()
    channels = [Carry(np.uint32, STATE_WORDS) for _ in range(interest.channels)]
    kept = []
    zero_tsc = 0
    for part in reader.run(partial(digest, interest=interest)):
        _count(found, part)
        picks = part.picks
        tracks, _ = tracker.place(part.cpu, picks.first_tsc, picks.last_tsc)
        stamped = picks.first_tsc[(picks.first_tsc > 0) & (tracks.track >> TRACK_BITS == 0)]
        if len(stamped):
            earliest = int(stamped.min())
            zero_tsc = min(zero_tsc, earliest) if zero_tsc else earliest
        found.last_tsc = max(found.last_tsc, int(picks.last_tsc.max(initial=0)))
        stamps = picks.last_tsc > 0
        for track, rows in rows_by(tracks.track[stamps]):
            begin, end = found.ends.get(track, (int(picks.first_tsc[stamps][rows[0]]), 0))
            found.ends[track] = begin, max(end, int(picks.last_tsc[stamps][rows].max()))
        header = picks.kept[picks.at]
        _carry_in(picks, np.isin(header, subjects), tracks, channels)
        kept.append(Kept(picks.kept, picks.at, header, tracks.track[picks.window], picks.state))
    if kept:
        found.kept = Kept.joined(kept)
    found.captures = tracker.captures
    found.zero_tsc = zero_tsc
    found.total_bytes = reader.total_bytes
    found.skips = sorted(found.skips + reader.skips)
    if not found.total_bytes:
        why = found.skips[0].reason if found.skips else "the file is empty"
        raise InputError(f"{reader.name}: {why}")
    if not found.counts:
        raise InputError(
            f"{reader.name}: no xentrace window in {found.total_bytes} bytes; give a file that xentrace wrote"
        )
    return found


def _carry_in(picks: Picks, subject: NDArray[np.bool_], tracks: Tracks, channels: list[Carry]) -> None:
    """Give the subjects the states from before their windows where these tell none, and take up those at the end."""
    window = picks.window[subject]
    for place, carry in enumerate(channels):
        last = picks.last_state[:, place]
        missing = np.flatnonzero(picks.state[:, place, 0] == 0)
        rows, inverse = np.unique(window[missing], return_inverse=True)
        carried = carry.before(tracks, last, last[:, 0] > 0, rows)
        picks.state[missing, place] = carried[inverse]


def _count(found: Survey, part: Digest) -> None:
    found.counts.update(dict(zip(part.picks.headers.tolist(), part.picks.counts.tolist(), strict=True)))
    found.record_bytes += part.record_bytes
    found.skips += part.skips
    windows = np.bincount(part.cpu)
    size = np.bincount(part.cpu, part.size_bytes)
    for cpu in np.flatnonzero(windows).tolist():
        totals = found.cpus.setdefault(cpu, CpuTotals())
        totals.windows += int(windows[cpu])
        totals.size_bytes += int(size[cpu])

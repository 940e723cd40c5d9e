"""One pass over a trace: totals, damage, time span, and the records that later questions need."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.digest import LIMIT, Digest, Extract, Interest, digest
from xtrace.errors import InputError
from xtrace.framing import Skip
from xtrace.reader import Reader
from xtrace.scan import Words
from xtrace.states import STATE, TRACK_BITS, Carry, States, cpu_of

RESTART_CYCLES: Final = 1 << 24
"""A CPU's clock that goes back by more than this between windows is another capture. Xen's own corrections of
an unsteady TSC are smaller (xen/arch/x86/time.c)."""


class Records(NamedTuple):
    """Records of one kind, in input order.

    track    int32   capture << 14 | CPU: one CPU's stream of one capture
    tsc      uint64
    payload  uint32 (n, words)
    state    STATE (n, channels)  the state before it, zeros where not known; of length 0 where not asked for
    """

    track: NDArray[np.int32]
    tsc: NDArray[np.uint64]
    payload: Words
    state: States

    @property
    def cpu(self) -> NDArray[np.int32]:
        """The CPU that wrote each record."""
        return cpu_of(self.track)


@dataclass(slots=True)
class CpuTotals:
    """What one CPU contributed."""

    windows: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class Survey:
    """What a pass over a whole trace found.

    counts    records by header word, CPU_CHANGE included
    captures  1, or more where several captures stand one behind the other
    zero_tsc  the first timestamp: the smallest of the first capture
    last_tsc  the last timestamp of any CPU
    skips     byte ranges not decoded, in input order
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
    _records: dict[int, list[Records]] = field(default_factory=lambda: defaultdict(list))

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
        parts = self._records.get(header)
        if not parts:
            words = header >> 28 & 7
            empty = np.zeros((0, words), np.uint32)
            return Records(np.zeros(0, np.int32), np.zeros(0, np.uint64), empty, np.zeros((0, 0), STATE))
        if len(parts) > 1:
            self._records[header] = parts = [Records(*map(np.concatenate, zip(*parts, strict=True)))]
        return parts[0]


class CaptureTracker:
    """Follows each CPU's clock from window to window: what time it is before a window, and which capture."""

    def __init__(self) -> None:
        self.captures = 1
        self._stamps = Carry(np.uint64)

    def place(
        self, cpu: NDArray[np.int64], first_tsc: NDArray[np.uint64], last_tsc: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
        """Track of each window, and the last timestamp of its CPU before it (0: none).

        A new capture begins where a CPU's clock starts over.
        """
        capture = np.full(len(cpu), self.captures - 1)
        before = np.zeros(len(cpu), np.uint64)
        begin = 0
        while begin < len(cpu):
            rest = slice(begin, None)
            before[rest] = self._stamps.before(cpu[rest], last_tsc[rest], last_tsc[rest] > 0)
            back = (first_tsc[rest] > 0) & (first_tsc[rest] + np.uint64(RESTART_CYCLES) < before[rest])
            if not back.any():
                break
            begin += int(np.argmax(back))
            self.captures += 1
            capture[begin:] = self.captures - 1
            self._stamps.clear()
        return (capture << TRACK_BITS | cpu).astype(np.int32), before


def survey(reader: Reader, interest: Interest) -> Survey:
    """Read the whole trace once. Raises InputError where it holds no record at all."""
    found = Survey(reader.name)
    tracker = CaptureTracker()
    states = [Carry(STATE) for _ in interest.channels]
    zero_tsc = 0
    for part in reader.run(partial(digest, interest=interest)):
        _count(found, part)
        track, _ = tracker.place(part.cpu, part.first_tsc, part.last_tsc)
        stamped = part.first_tsc[(part.first_tsc > 0) & (track >> TRACK_BITS == 0)]
        if len(stamped):
            earliest = int(stamped.min())
            zero_tsc = min(zero_tsc, earliest) if zero_tsc else earliest
        found.last_tsc = max(found.last_tsc, int(part.last_tsc.max(initial=0)))
        carried = np.zeros_like(part.last_state)
        for place, state in enumerate(states):
            last = part.last_state[:, place]
            carried[:, place] = state.before(track, last, last["header"] > 0)
        for header, extract in part.extracts.items():
            if header in interest.limited and sum(len(one.tsc) for one in found._records[header]) >= LIMIT:
                continue
            found._records[header].append(_placed(extract, track, carried))
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


def _count(found: Survey, part: Digest) -> None:
    found.counts.update(dict(zip(part.headers.tolist(), part.counts.tolist(), strict=True)))
    found.record_bytes += part.record_bytes
    found.skips += part.skips
    windows = np.bincount(part.cpu)
    size = np.bincount(part.cpu, part.size_bytes)
    for cpu in np.flatnonzero(windows).tolist():
        totals = found.cpus.setdefault(cpu, CpuTotals())
        totals.windows += int(windows[cpu])
        totals.size_bytes += int(size[cpu])


def _placed(extract: Extract, track: NDArray[np.int32], carried: States) -> Records:
    state = extract.state
    if len(state):
        state = np.where(state["header"] > 0, state, carried[extract.window])
    return Records(track[extract.window], extract.tsc, extract.payload, state)

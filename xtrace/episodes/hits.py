"""Interrupts that a stock trace shows on their targets: who took which vector when (docs/inference.md).

Sources: an exit for an external interrupt is followed by the vector (xen/arch/x86/hvm/vmx/vmx.c), the record of an idle
CPU that wakes up lists up to four pending vectors, lowest first (xen/arch/x86/acpi/cpu_idle.c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.context import header_of
from xtrace.decode import Batch
from xtrace.parsers.registry import EVENTS
from xtrace.states import TRACK_BITS

CALL_FUNCTION_VECTOR: Final = 0xFB
INVALIDATE_TLB_VECTOR: Final = 0xFD
VECTORS: Final = (CALL_FUNCTION_VECTOR, INVALIDATE_TLB_VECTOR)

INTERRUPTED: Final = next(header_of(one) for one in EVENTS if one.name == "TRC_HVM_INTR" and one.vendor == "vmx")
WOKEN: Final = next(header_of(one) for one in EVENTS if one.name == "TRC_PM_IDLE_EXIT")
FIRST_PENDING: Final = 2
"""Payload word of the first vector in WOKEN; there are four."""

Cycles = NDArray[np.int64]
MAX_CYCLES: Final = 1 << 61


class Hits(NamedTuple):
    """Interrupts of VECTORS that CPUs took, one row each.

    track         int32, the CPU, in a capture
    vector        uint8
    taken         int64, cycles since the trace began, of the record that tells; the handler of a CPU in a guest ran
                  after it, that of one that slept before or after, by which driver it sleeps
    after         int64, of the CPU's next record: the handler had ended by then; −1 where there is none
    idle          bool, the CPU was asleep, else in an HVM guest
    domain, vcpu  int32, who was there, NOBODY where not known
    """

    track: NDArray[np.int32]
    vector: NDArray[np.uint8]
    taken: Cycles
    after: Cycles
    idle: NDArray[np.bool_]
    domain: NDArray[np.int32]
    vcpu: NDArray[np.int32]

    def take(self, rows: NDArray[Any]) -> Hits:
        """Some of the rows."""
        return Hits(*(column[rows] for column in self))

    @property
    def stream(self) -> NDArray[np.int64]:
        """Capture and vector: what has episodes of its own, one at a time."""
        return (self.track.astype(np.int64) >> TRACK_BITS) << 8 | self.vector


def cycles_since(zero: int) -> Callable[[NDArray[np.uint64]], Cycles]:
    """How cycle counts become signed cycles since `zero`; absurd ones are cut, so that differences fit."""

    def since(tsc: NDArray[np.uint64]) -> Cycles:
        span = (tsc - np.uint64(zero)).astype(np.int64)
        return np.clip(span, -MAX_CYCLES, MAX_CYCLES)

    return since


class HitFinder:
    """Takes the batches of a trace one after the other, and keeps the hits."""

    def __init__(self, zero: int) -> None:
        self._since = cycles_since(zero)
        self._parts: list[Hits] = []
        self._waiting: list[tuple[int, NDArray[np.int64]]] = []

    def add(self, batch: Batch) -> None:
        """Look at a batch; those of a track come in order of time."""
        stamped = np.flatnonzero(batch.header >> np.uint32(31))
        # One key a record: first its track, then its place.
        place = batch.track.astype(np.int64) << 32
        known = np.sort(place[stamped] | stamped)
        self._follow(batch, known)
        rows, vector = _named(batch)
        if not len(rows):
            return
        nearest = np.searchsorted(known, place[rows] | rows, side="right")
        after = np.full(len(rows), -1)
        inside = nearest < len(known)
        inside[inside] &= known[nearest[inside]] >> 32 == batch.track[rows[inside]]
        after[inside] = self._since(batch.tsc[known[nearest[inside]] & 0xFFFFFFFF])
        taken = self._since(batch.tsc[rows])
        idle = batch.header[rows] == WOKEN
        part = Hits(batch.track[rows], vector, taken, after, idle, batch.domain[rows], batch.vcpu[rows])
        if not inside.all():
            self._waiting.append((len(self._parts), np.flatnonzero(~inside)))
        self._parts.append(part)

    def _follow(self, batch: Batch, known: NDArray[np.int64]) -> None:
        """Give hits at the end of earlier batches the record that follows them."""
        if not self._waiting or not len(known):
            return
        tracks, first = np.unique(known >> 32, return_index=True)
        time = self._since(batch.tsc[known[first] & 0xFFFFFFFF])
        left = []
        for part, rows in self._waiting:
            hits = self._parts[part]
            at = np.minimum(np.searchsorted(tracks, hits.track[rows]), len(tracks) - 1)
            there = tracks[at] == hits.track[rows]
            hits.after[rows[there]] = time[at[there]]
            if not there.all():
                left.append((part, rows[~there]))
        self._waiting = left

    def hits(self) -> Hits:
        """All of them, by stream, then by time, then by CPU."""
        if not self._parts:
            return Hits(*(np.zeros(0, kind) for kind in ("i4", "u1", "i8", "i8", "?", "i4", "i4")))
        whole = Hits(*(np.concatenate(columns) for columns in zip(*self._parts, strict=True)))
        return whole.take(np.lexsort((whole.track, whole.taken, whole.stream)))


def _named(batch: Batch) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Rows that name one of VECTORS, and which; a record that names both is there twice."""
    timed = batch.tsc > 0
    interrupted = np.flatnonzero((batch.header == INTERRUPTED) & timed)
    woken = np.flatnonzero((batch.header == WOKEN) & timed)
    vector = batch.payload(interrupted, INTERRUPTED)[:, 0] & np.uint32(0xFF)
    pending = batch.payload(woken, WOKEN)[:, FIRST_PENDING:]
    rows, vectors = [], []
    for one in VECTORS:
        for chosen in (interrupted[vector == one], woken[(pending == one).any(axis=1)]):
            rows.append(chosen)
            vectors.append(np.full(len(chosen), one, np.uint8))
    return np.concatenate(rows), np.concatenate(vectors)

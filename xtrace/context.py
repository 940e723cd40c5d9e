"""Who runs where: the vCPU on each CPU at any time, from the scheduler's records."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.parsers.container import LOST_RECORDS
from xtrace.parsers.event import Event
from xtrace.parsers.sched import EVENTS
from xtrace.survey import Survey

IDLE_DOMAIN: Final = 32767
"""The idle domain; its vCPU number is the CPU's (xen/include/public/xen.h)."""

NOBODY: Final = -1


def header_of(event: Event) -> int:
    """The header word that every record of a fixed-length event bears."""
    return event.event_id | (event.words or 0) << 28 | int(event.timestamped) << 31


_RUNSTATE: Final = [event for event in EVENTS if event.name == "TRC_SCHED_RUNSTATE_CHANGE"]
_ARRIVES: Final = [
    header_of(event)
    for event in EVENTS
    if event.name == "TRC_SCHED_CONTINUE_RUNNING" or event.constants.get("new_state") == "running"
]
_LEAVES: Final = [header_of(event) for event in _RUNSTATE if event.constants.get("old_state") == "running"]
_SWITCH: Final = next(header_of(event) for event in EVENTS if event.name == "TRC_SCHED_SWITCH")
LOST: Final = header_of(LOST_RECORDS)

CONTEXT_HEADERS: Final = frozenset([*_ARRIVES, *_LEAVES, _SWITCH, LOST])
"""The records a context is built from."""


class Occupant(NamedTuple):
    """Who was there. Arrays of the length asked for.

    domain, vcpu  int32, NOBODY where not known
    since         uint64, cycle count of the record that says so
    """

    domain: NDArray[np.int32]
    vcpu: NDArray[np.int32]
    since: NDArray[np.uint64]


class Context:
    """The occupant of each CPU over time.

    Set by a runstate change to running (or a continued run) seen on that CPU, cleared by a change away from it;
    by SCHED_SWITCH where the trace holds no runstate records. Nobody is known before the first such record, nor
    from the first record lost to the one that says so, which names the vCPU then current (xen/common/trace.c).
    """

    def __init__(self, found: Survey) -> None:
        parts = [self._pairs(found, header, arrives=True) for header in _ARRIVES]
        parts += [self._pairs(found, header, arrives=False) for header in _LEAVES]
        if not sum(len(part[0]) for part in parts):
            parts = [self._switches(found)]
        parts += self._lost(found)
        track, tsc, order, domain, vcpu = (np.concatenate(column) for column in zip(*parts, strict=True))
        # On equal times a departure comes before the arrival that follows it.
        rank = np.lexsort((order, tsc, track))
        self._tsc, self._domain, self._vcpu = tsc[rank], domain[rank], vcpu[rank]
        self._tracks, begin = np.unique(track[rank], return_index=True)
        self._begin = np.append(begin, len(rank))

    @staticmethod
    def _pairs(found: Survey, header: int, *, arrives: bool) -> tuple[NDArray[np.generic], ...]:
        records = found.records(header)
        word = records.payload[:, 0]
        domain, vcpu = (word >> np.uint32(16)).astype(np.int32), (word & np.uint32(0xFFFF)).astype(np.int32)
        if not arrives:
            domain, vcpu = np.full_like(domain, NOBODY), np.full_like(vcpu, NOBODY)
        return records.track, records.tsc, np.full(len(word), int(arrives), np.int8), domain, vcpu

    @staticmethod
    def _switches(found: Survey) -> tuple[NDArray[np.generic], ...]:
        records = found.records(_SWITCH)
        domain, vcpu = records.payload[:, 2].astype(np.int32), records.payload[:, 3].astype(np.int32)
        return records.track, records.tsc, np.ones(len(vcpu), np.int8), domain, vcpu

    @staticmethod
    def _lost(found: Survey) -> list[tuple[NDArray[np.generic], ...]]:
        records = found.records(LOST)
        owner = records.payload[:, 1]
        first = records.payload[:, 2].astype(np.uint64) | records.payload[:, 3].astype(np.uint64) << np.uint64(32)
        domain, vcpu = (owner & np.uint32(0xFFFF)).astype(np.int32), (owner >> np.uint32(16)).astype(np.int32)
        nobody = np.full(len(owner), NOBODY, np.int32)
        one = np.ones(len(owner), np.int8)
        return [
            (records.track, np.minimum(first, records.tsc), np.zeros(len(owner), np.int8), nobody, nobody),
            (records.track, records.tsc, one, domain, vcpu),
        ]

    def at(self, track: NDArray[np.int32], tsc: NDArray[np.uint64]) -> Occupant:
        """The occupants of these CPUs at these cycle counts."""
        found = Occupant(
            np.full(len(track), NOBODY, np.int32),
            np.full(len(track), NOBODY, np.int32),
            np.zeros(len(track), np.uint64),
        )
        for one in np.unique(track).tolist():
            rows = np.flatnonzero(track == one)
            place = int(np.searchsorted(self._tracks, one))
            if place == len(self._tracks) or self._tracks[place] != one:
                continue
            begin_at, end_at = int(self._begin[place]), int(self._begin[place + 1])
            index = np.searchsorted(self._tsc[begin_at:end_at], tsc[rows], side="right") - 1
            known = index >= 0
            index = index[known] + begin_at
            found.domain[rows[known]] = self._domain[index]
            found.vcpu[rows[known]] = self._vcpu[index]
            found.since[rows[known]] = self._tsc[index]
        return found

"""Who may have begun an episode: CPUs in the hypervisor, or in a PV guest, and silent while its targets answered.

The initiator spins until the last target has answered, so none of its records lies within the episode, and its next one
comes soon after. Others can be silent, too: those that wait for the same lock are, for longer. What the record before
the silence was, how long before the episode the silence began and how long after it it ended are weighed together, as
a conditional logit model does (docs/inference.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.context import IDLE_DOMAIN, NOBODY
from xtrace.decode import Batch
from xtrace.episodes.hits import Cycles, cycles_since
from xtrace.grouping import rows_by
from xtrace.parsers.event import Event, class_of
from xtrace.states import TRACK_BITS

CAUSE, HANDLED, INTERRUPT, HYPERCALL, OTHER, IDLING, IN_GUEST, ASLEEP = range(8)
"""What the record before a silence says: an HVM guest's exit that calls and flushes are made for; another exit of it;
an interrupt; a hypercall of a PV guest that they are made for; any other record while a vCPU that is not idle, or the
idle one, is there; and that the CPU is in an HVM guest or asleep, and begins nothing."""
ABLE: Final = IDLING
"""The last kind that may begin something."""

_KINDS: Final = {
    "TRC_HVM_VMENTRY": IN_GUEST,
    "TRC_PM_IDLE_ENTRY": ASLEEP,
    "TRC_PM_IDLE_EXIT": INTERRUPT,
    "TRC_HVM_INTR": INTERRUPT,
    "TRC_HVM_NPF": CAUSE,
    "TRC_HVM_VMMCALL": CAUSE,
    "TRC_HVM_CR_WRITE64": CAUSE,
    "TRC_HVM_WBINVD": CAUSE,
    "TRC_HVM_INVLPG64": CAUSE,
}
_EXITS: Final = frozenset(f"TRC_HVM_{exit_}{bits}" for exit_ in ("VMEXIT", "VMX_EXIT") for bits in ("", "64"))
CAUSING_REASONS: Final = (18, 28, 48, 49, 54)
"""VMX exits for VMCALL, control registers, EPT violations and misconfigurations, WBINVD (Intel SDM, appendix C)."""
EXTERNAL_INTERRUPT: Final = 1
_HYPERCALLS: Final = frozenset({"TRC_PV_HYPERCALL_V2", "TRC_PV_HYPERCALL_SUBCALL"})
OP: Final = 0xFFFFF
CAUSING_OPS: Final = (1, 12, 14, 20, 26, 34, 36)
"""Hypercalls mmu_update, memory_op, update_va_mapping, grant_table_op, mmuext_op, hvm_op, domctl."""
_DEVICE_INTERRUPTS: Final = 0x00802000
"""Device interrupts are served while an initiator spins, so their records break no silence."""

FEATURES: Final = (
    "cause",
    "interrupt",
    "hypercall",
    "other",
    "idling",
    "early",
    "early²",
    "late",
    "PV early",
    "PV late",
)
WEIGHTS: Final = (1.2, -4.9, 0.8, -0.5, -2.0, 2.5, -0.4, -2.0, -1.9, 1.9)
NOT_SEEN: Final = -5.4
"""The weight of an initiator that is none of those that can be seen."""
EARLIEST: Final = 0.4
EARLIEST_OF_SLEEPER: Final = -1.0
"""Times the scale from the record of the last target until an initiator can have seen its answer. The record of a
sleeping one may come after its answer (mwait-idle driver, xen/arch/x86/cpu/mwait-idle.c)."""

_SEEN: Final = np.dtype([("time", "i8"), ("kind", "i1"), ("header", "u4"), ("domain", "i4"), ("vcpu", "i4")])


class Suspects(NamedTuple):
    """What is known of initiators, one row an episode.

    track   int32, of the likeliest initiator, −1 where there is none
    chance  float64, its share of the weight of all, and of one that is not seen
    header  uint32, header word of the record before its silence, 0 where there is none
    kind    int8, what that record says
    silent, resumed  int64, cycles since the trace began of that record and of its next one
    domain, vcpu  int32, who was there before, NOBODY where not known
    spared  int64, CPUs in an HVM guest that were not hit
    """

    track: NDArray[np.int32]
    chance: NDArray[np.float64]
    header: NDArray[np.uint32]
    kind: NDArray[np.int8]
    silent: Cycles
    resumed: Cycles
    domain: NDArray[np.int32]
    vcpu: NDArray[np.int32]
    spared: NDArray[np.int64]

    @classmethod
    def none(cls, count: int) -> Suspects:
        """Nobody, for so many episodes."""
        kinds = ("i4", "f8", "u4", "i1", "i8", "i8", "i4", "i4", "i8")
        values = (-1, 0, 0, OTHER, -1, -1, NOBODY, NOBODY, 0)
        return cls(*(np.full(count, value, kind) for value, kind in zip(values, kinds, strict=True)))


class SuspectFinder:
    """Takes the batches of a trace one after the other, and weighs who was silent while each episode went on."""

    def __init__(
        self,
        zero: int,
        capture: NDArray[np.int64],
        begin: Cycles,
        end: Cycles,
        slept: NDArray[np.bool_],
        scale: NDArray[np.float64],
        event_of: Callable[[int], Event],
    ) -> None:
        """An episode: capture, times of its first and its last hit, whether the last woke a CPU up, and scale."""
        self._since = cycles_since(zero)
        self._event_of = event_of
        order = np.lexsort((begin, capture))
        self._of = {one: order[rows] for one, rows in rows_by(capture[order])}
        self._begin, self._end, self._scale = begin, end, scale
        self._soonest = np.where(slept, EARLIEST_OF_SLEEPER, EARLIEST)
        self._best = np.full(len(begin), -np.inf)
        self._all = np.full(len(begin), NOT_SEEN)
        self._found = Suspects.none(len(begin))
        self._last: dict[int, NDArray[Any]] = {}

    def add(self, batch: Batch) -> None:
        """Look at a batch; those of a track come in order of time."""
        kept = np.flatnonzero((batch.order > 0) & (batch.header & np.uint32(0x0FFFF000) != _DEVICE_INTERRUPTS))
        seen = np.empty(len(kept), _SEEN)
        seen["time"], seen["kind"] = self._since(batch.order[kept]), self._kinds(batch, kept)
        for name in ("header", "domain", "vcpu"):
            seen[name] = getattr(batch, name)[kept]
        for track, rows in rows_by(batch.track[kept]):
            # The last record of the batch before begins a silence, too.
            mine = np.concatenate((self._last.get(track, seen[:0]), seen[rows]))
            self._last[track] = mine[-1:]
            if track >> TRACK_BITS in self._of:
                self._look(track, mine)

    def _look(self, track: int, seen: NDArray[Any]) -> None:
        """Weigh one CPU as the initiator of the episodes between the first and the last of these records."""
        time, kind = seen["time"], seen["kind"]
        episodes = self._of[track >> TRACK_BITS]
        low, high = np.searchsorted(self._begin[episodes], time[[0, -1]], side="right")
        some = episodes[low:high]
        # Of records at one time the last counts.
        before = np.searchsorted(time, self._begin[some], side="left") - 1
        late = (time[before + 1] - self._end[some]) / self._scale[some]
        self._found.spared[some[(late > 0) & (kind[before] == IN_GUEST)]] += 1
        able = (kind[before] <= ABLE) & (late >= self._soonest[some])
        some, before, late = some[able], before[able], late[able]
        early = (self._begin[some] - time[before]) / self._scale[some]
        self.weigh(some, track, features(kind[before], early, np.maximum(late, 0.0)), seen[before], time[before + 1])

    def weigh(
        self,
        some: NDArray[np.int64],
        track: int,
        shown: NDArray[np.float64],
        seen: NDArray[Any],
        resumed: Cycles,
    ) -> None:
        """Count in a CPU that may have begun some episodes, none of which it was weighed for before."""
        points = shown @ np.array(WEIGHTS)
        self._all[some] = np.logaddexp(self._all[some], points)
        better = points > self._best[some]
        some, found = some[better], self._found
        self._best[some] = points[better]
        found.track[some] = track
        found.silent[some], found.resumed[some] = seen["time"][better], resumed[better]
        for name in ("header", "kind", "domain", "vcpu"):
            getattr(found, name)[some] = seen[name][better]

    def _kinds(self, batch: Batch, kept: NDArray[np.int64]) -> NDArray[np.int8]:
        """What each of these records says of its CPU, where it is silent after it."""
        headers, place = np.unique(batch.header[kept], return_inverse=True)
        events = [self._event_of(one) for one in headers.tolist()]
        kind = np.array([_kind(one) for one in events], np.int8)[place]
        for number, event in enumerate(events):
            if event.name in _EXITS | _HYPERCALLS:
                rows = np.flatnonzero(place == number)
                word = batch.payload(kept[rows], int(headers[number]))[:, 0]
                if event.name in _HYPERCALLS:
                    kind[rows[np.isin(word & np.uint32(OP), CAUSING_OPS)]] = HYPERCALL
                else:
                    reason = word & np.uint32(0xFFFF)
                    kind[rows[np.isin(reason, CAUSING_REASONS)]] = CAUSE
                    kind[rows[reason == EXTERNAL_INTERRUPT]] = INTERRUPT
        kind[(kind == OTHER) & (batch.domain[kept] == IDLE_DOMAIN)] = IDLING
        return kind

    def suspects(self) -> Suspects:
        """What was found; no more batches come."""
        found = self._found
        for track, last in self._last.items():
            if track >> TRACK_BITS in self._of and last["kind"][0] == IN_GUEST:
                # It stays there until the trace ends.
                episodes = self._of[track >> TRACK_BITS]
                found.spared[episodes[self._begin[episodes] > last["time"][0]]] += 1
        chance = np.where(found.track >= 0, np.exp(np.minimum(self._best - self._all, 0.0)), 0.0)
        return found._replace(chance=chance)


def features(kind: NDArray[np.int8], early: NDArray[np.float64], late: NDArray[np.float64]) -> NDArray[np.float64]:
    """Float64 (silences, FEATURES): what the record before was, and how much before and after the episode it is silent.

    A CPU that ran a PV guest may go back to it, and stay silent.
    """
    pv = (kind == HYPERCALL) | (kind == OTHER)
    before, after = np.log1p(early), np.log1p(late)
    flags = [kind == one for one in (CAUSE, INTERRUPT, HYPERCALL, OTHER, IDLING)]
    return np.stack([*flags, before, before**2, after, pv * before, pv * after], axis=1).astype(np.float64)


def _kind(event: Event) -> int:
    group = class_of(event.event_id)
    return _KINDS.get(event.name, CAUSE if group == "MEM" else HANDLED if group == "HVM" else OTHER)

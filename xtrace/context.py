"""Who runs where: the vCPU on each CPU, from the scheduler's records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.parsers import sched
from xtrace.parsers.container import LOST_RECORDS
from xtrace.parsers.event import Event
from xtrace.states import Channel, States

IDLE_DOMAIN: Final = 32767
"""The idle domain; its vCPU number is the CPU's (xen/include/public/xen.h)."""

NOBODY: Final = -1


def domain_name(domain: int) -> str:
    """`d1`, `idle` for the idle domain."""
    return "idle" if domain == IDLE_DOMAIN else f"d{domain}"


def vcpu_name(domain: int, vcpu: int) -> str:
    """`d1v0`, `idle` for a vCPU of the idle domain, `d?v?` for NOBODY."""
    return "d?v?" if domain == NOBODY else "idle" if domain == IDLE_DOMAIN else f"d{domain}v{vcpu}"


def header_of(event: Event) -> int:
    """The header word that every record of a fixed-length event bears."""
    return event.event_id | (event.words or 0) << 28 | int(event.timestamped) << 31


_CONTINUES: Final = next(header_of(event) for event in sched.EVENTS if event.name == "TRC_SCHED_CONTINUE_RUNNING")
_SWITCH: Final = next(header_of(event) for event in sched.EVENTS if event.name == "TRC_SCHED_SWITCH")
_RUNSTATE: Final = [event for event in sched.EVENTS if event.name == "TRC_SCHED_RUNSTATE_CHANGE"]
_LEAVES: Final = [header_of(event) for event in _RUNSTATE if event.constants["old_state"] == "running"]
_ARRIVES: Final = [header_of(event) for event in _RUNSTATE if event.constants["new_state"] == "running"]
LOST: Final = header_of(LOST_RECORDS)

OCCUPANT: Final[Channel] = {
    **dict.fromkeys([_CONTINUES, *_ARRIVES, *_LEAVES], (0, 0)),
    # The words that name the vCPU, domain in the low half.
    LOST: (1, 1),
}
"""Records that tell the occupant of the CPU that wrote them: a vCPU arrives, goes on or leaves; after records were
lost, the marker names the vCPU then current (xen/common/trace.c)."""

SWITCHES: Final[Channel] = {_SWITCH: (2, 3), LOST: (1, 1)}
"""What serves where the runstate class was not traced."""

_RUNSTATE_HEADERS: Final = frozenset([_CONTINUES, *_ARRIVES, *_LEAVES])


def has_runstates(counts: Mapping[int, int]) -> bool:
    """Whether a trace with these records by header word tells of runstates."""
    return any(counts.get(header) for header in _RUNSTATE_HEADERS)


class Occupant(NamedTuple):
    """Who was there, one row a state asked for.

    domain, vcpu  int32, NOBODY where not known: before the first record that tells, and between a departure and
                  the next arrival
    since         uint64, cycle count of the record that says so
    """

    domain: NDArray[np.int32]
    vcpu: NDArray[np.int32]
    since: NDArray[np.uint64]


def occupant(runstate: States, switch: States, by_runstate: bool) -> Occupant:
    """The occupants that these states (channels OCCUPANT and SWITCHES) tell.

    by_runstate: whether the trace tells of runstates (`has_runstates`); else switches tell. Domain and vCPU share a
    word, the vCPU in the low half in scheduler records, the domain in lost-record markers.
    """
    state = runstate if by_runstate else switch
    header, low = state["header"], (state["first"] & np.uint32(0xFFFF)).astype(np.int32)
    high = (state["first"] >> np.uint32(16)).astype(np.int32)
    known, lost = (header != 0) & ~np.isin(header, _LEAVES), header == LOST
    if by_runstate:
        domain, vcpu = high, low
    else:
        domain, vcpu = state["first"].astype(np.int32), state["second"].astype(np.int32)
    domain, vcpu = np.where(lost, low, domain), np.where(lost, high, vcpu)
    # A domain number has 16 bits (xen/include/public/xen.h, domid_t); a switch record has room for more.
    known &= (domain >> 16 == 0) & (vcpu >> 16 == 0)
    return Occupant(np.where(known, domain, NOBODY), np.where(known, vcpu, NOBODY), state["tsc"])

"""How episodes of exact steps relate: what overlaps, who carries whom, who waited behind whom, what was hit."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.context import IDLE_DOMAIN, NOBODY, OCCUPANT, SWITCHES, header_of, occupant
from xtrace.episodes.exact import CHANNELS, MODE, Cycles, Index, Steps
from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.parsers import hvm
from xtrace.states import TRACK_BITS, States

Model = Literal["legacy", "lockless", "unknown"]

_ENTRIES: Final = [header_of(event) for event in hvm.EVENTS if event.name == "TRC_HVM_VMENTRY"]
VMX_EXTERNAL_INTERRUPT: Final = 1

STATES: Final = ("guest", "hypervisor", "idle", "unknown")
_UNKNOWN: Final = STATES.index("unknown")


def inflight(some: Steps) -> Index:
    """Episodes of its kind in flight when each started, itself included; NULL where its START was not seen.

    In flight is what has started and is not done. Episodes without DONE never count as ended.
    """
    count = np.full(len(some.start), NULL)
    for _, rows in rows_by(some.track >> TRACK_BITS):
        begun = rows[some.start[rows] > 0]
        ended = np.sort(some.done[begun][some.done[begun] > 0])
        order = begun[np.argsort(some.start[begun], kind="stable")]
        over = np.searchsorted(ended, some.start[order], side="right")
        count[order] = np.arange(1, len(order) + 1) - over
    return count


def overlapping(some: Steps) -> NDArray[np.bool_]:
    """Which episodes are complete and have a SEND…DONE that intersects another complete one's of their kind."""
    found = np.zeros(len(some.start), np.bool_)
    for _, rows in rows_by(some.track >> TRACK_BITS):
        mine = rows[some.complete[rows]]
        found[mine] = meets(some.send[mine], some.done[mine])
    return found


def meets(begin: NDArray[Any], end: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of these spans, ends included, intersect another."""
    order = np.argsort(begin, kind="stable")
    first, last = begin[order], end[order]
    found = np.zeros(len(order), np.bool_)
    found[1:] |= first[1:] <= np.maximum.accumulate(last)[:-1]
    found[:-1] |= first[1:] <= last[:-1]
    # In the order given.
    found[order] = found.copy()
    return found


def parents(calls: Steps, flushes: Steps) -> Index:
    """Row of the flush that each call carries, −1 for none.

    Under the lockless hypervisor a flush is made by one call: the first that its CPU starts between the flush's
    START and DONE (docs/tracepoints.md).
    """
    order = np.lexsort((flushes.start, flushes.track))
    order = order[flushes.start[order] > 0]
    found = np.full(len(calls.start), -1)
    started = np.flatnonzero(calls.start > 0)
    if not len(order) or not len(started):
        return found
    started = started[np.lexsort((calls.start[started], calls.track[started]))]
    place = _last_at_or_before(flushes.track[order], flushes.start[order], calls.track[started], calls.start[started])
    flush = np.where(place < 0, -1, order[place])
    first = np.concatenate(([True], flush[1:] != flush[:-1]))
    inside = (calls.start[started] <= flushes.done[flush]) | (flushes.done[flush] == 0)
    found[started] = np.where((flush >= 0) & first & inside, flush, -1)
    return found


def calling(groups: tuple[Steps, ...], track: NDArray[np.int32], time: Cycles) -> NDArray[np.bool_]:
    """Whether a CPU was inside a call or flush of its own then: it spins in the hypervisor, whatever ran there."""
    inside = np.zeros(len(track), np.bool_)
    for some in groups:
        order = np.lexsort((some.start, some.track))
        order = order[some.start[order] > 0]
        if not len(order):
            continue
        place = _last_at_or_before(some.track[order], some.start[order], track, time)
        inside |= (place >= 0) & (some.done[order[place]] >= time) & (time > 0)
    return inside


def _last_at_or_before(tracks: NDArray[np.int32], times: Cycles, track: NDArray[np.int32], time: Cycles) -> Index:
    """For each (track, time) the last row of the sorted (tracks, times) on its track not after it, or −1."""
    found = np.full(len(track), -1)
    for one, rows in rows_by(track):
        begin, end = np.searchsorted(tracks, [one, one + 1])
        index = np.searchsorted(times[begin:end], time[rows], side="right") - 1
        found[rows] = np.where(index < 0, -1, begin + index)
    return found


def recognise(calls: Steps, flushes: Steps, carried: Index) -> Model:
    """Which hypervisor wrote the trace, by what only one of the two can do.

    Lockless: a flush carried by a call, calls in flight together, or calls that do not wait and are done before a
    target has checked in. Legacy: flushes that no call carries, calls that were asked for together and still went out
    one by one, or calls that do not wait for the end but do until every target has checked in.
    """
    early, after = _unwaited(calls)
    if (carried >= 0).any() or overlapping(calls).any() or early > after:
        return "lockless"
    if flushes.complete.any() or overlapping_requests(calls) or after:
        return "legacy"
    return "unknown"


def _unwaited(calls: Steps) -> tuple[int, int]:
    """Complete calls whose callers do not wait: those done before the last ENTER, and those after.

    Callers among their own targets are left out: they run the function before they are done.
    """
    mine = calls.complete & (calls.fields["wait"] == 0)
    mine[calls.episode[calls.target_track == calls.track[calls.episode]]] = False
    last = np.zeros(len(calls.start), np.uint64)
    np.maximum.at(last, calls.episode, calls.enter)
    early = int((mine & (calls.done < last)).sum())
    return early, int(mine.sum()) - early


def overlapping_requests(some: Steps) -> bool:
    """Whether any two complete episodes whose callers waited were asked for, START to DONE, at the same time.

    A lockless caller that does not wait for its call waits before the next one instead: that is no queue for a lock.
    """
    waited = some.complete & (some.fields["wait"] != 0) if "wait" in some.fields else some.complete
    for _, rows in rows_by(some.track >> TRACK_BITS):
        mine = rows[waited[rows]]
        if meets(some.start[mine], some.done[mine]).any():
            return True
    return False


def waiting_behind_others(groups: tuple[Steps, ...], carried: Index) -> tuple[Index, ...]:
    """Cycles of each delivery in which the target ran functions of other initiators, for calls and for flushes.

    NULL where SEND or ENTER was not seen.
    """
    calls, flushes = groups
    # A flush that a call carries runs inside that call: only the call's own interval counts on its CPU.
    outer_flush = np.ones(len(flushes.start), np.bool_)
    outer_flush[carried[carried >= 0]] = False
    carrier = np.full(len(flushes.start), -1)
    carrier[carried[carried >= 0]] = np.flatnonzero(carried >= 0)
    flush_rows = np.flatnonzero(outer_flush[flushes.episode])
    track = np.concatenate((calls.target_track, flushes.target_track[flush_rows]))
    begin = np.concatenate((calls.enter, flushes.enter[flush_rows]))
    end = np.concatenate((calls.exit, flushes.exit[flush_rows]))
    busy = _Busy(track, begin, end)
    call_queue = busy.between(calls.target_track, calls.send[calls.episode], calls.enter)
    # A carried flush queues while its call does.
    own = carrier[flushes.episode]
    call_pairs = calls.episode << TRACK_BITS | calls.cpu
    at = np.searchsorted(call_pairs, own << TRACK_BITS | flushes.cpu)
    at = np.minimum(at, max(0, len(call_pairs) - 1))
    reached = flushes.enter.copy()
    if len(call_pairs):
        carried_row = (own >= 0) & (call_pairs[at] == (own << TRACK_BITS | flushes.cpu))
        reached = np.where(carried_row & (flushes.enter > 0), calls.enter[at], reached)
    return call_queue, busy.between(flushes.target_track, flushes.send[flushes.episode], reached)


class _Busy:
    """When each CPU ran functions for others, as disjoint intervals."""

    def __init__(self, track: NDArray[np.int32], begin: Cycles, end: Cycles) -> None:
        whole = (begin > 0) & (end >= begin)
        order = np.lexsort((begin[whole], track[whole]))
        self.track, self.begin = track[whole][order], begin[whole][order]
        self.end = end[whole][order]
        # Within one track ends ascend with begins: a CPU runs one function at a time.
        self.total = np.concatenate(([0], np.cumsum((self.end - self.begin).astype(np.int64))))

    def between(self, track: NDArray[np.int32], first: Cycles, last: Cycles) -> Index:
        """Busy cycles of each track from `first` to `last` (cycle counts, 0 = unknown gives NULL)."""
        known = (first > 0) & (last > 0)
        spent = self._until(track, last) - self._until(track, np.minimum(first, last))
        return np.where(known, spent, NULL)

    def _until(self, track: NDArray[np.int32], time: Cycles) -> Index:
        row = _last_at_or_before(self.track, self.begin, track, time)
        place = np.maximum(row, 0)
        if not len(self.begin):
            return np.zeros(len(track), np.int64)
        inside = (np.minimum(time, self.end[place]) - self.begin[place]).astype(np.int64)
        return np.where(row < 0, self.total[np.searchsorted(self.track, track)], self.total[place] + inside)


def stragglers(some: Steps) -> Index:
    """The CPU whose EXIT came last in each episode, NULL where none was seen."""
    found = np.full(len(some.start), NULL)
    rows = np.flatnonzero(some.exit > 0)
    rows = rows[np.argsort(some.exit[rows], kind="stable")]
    found[some.episode[rows]] = some.cpu[rows]
    return found


class Situation(NamedTuple):
    """What records found on their CPU, one row a record.

    domain, vcpu  int32, who was there, NOBODY where not known
    state         int8, what an interrupt there hit, as an index into STATES
    """

    domain: NDArray[np.int32]
    vcpu: NDArray[np.int32]
    state: NDArray[np.int8]

    def at(self, rows: Index) -> Situation:
        """Some of the rows; nothing is known where one is −1."""
        # The place −1 is the last.
        return Situation(
            np.append(self.domain, np.int32(NOBODY)).take(rows),
            np.append(self.vcpu, np.int32(NOBODY)).take(rows),
            np.append(self.state, np.int8(_UNKNOWN)).take(rows),
        )


def situation(states: States, *, by_runstate: bool) -> Situation:
    """What the last states (CHANNELS) before each record tell; by_runstate as for `context.occupant`.

    Idle is known from the occupant. Inside an HVM guest or not is known from the last VM entry or exit of the
    same occupant. On SVM the handler runs before the exit is traced, so an entry comes last; on VMX after an
    exit for an external interrupt (xen/arch/x86/hvm). A PV guest leaves no such records: unknown.
    """
    runstate, switch, mode = (states[:, CHANNELS.index(channel)] for channel in (OCCUPANT, SWITCHES, MODE))
    there = occupant(runstate, switch, by_runstate)
    header, value = mode["header"], mode["first"]
    current = (header > 0) & (mode["tsc"] >= there.since) & (there.domain != NOBODY)
    in_guest = np.isin(header, _ENTRIES) | (value & np.uint32(0xFFFF) == VMX_EXTERNAL_INTERRUPT)
    state = np.full(len(header), _UNKNOWN, np.int8)
    state[current & in_guest] = STATES.index("guest")
    state[current & ~in_guest] = STATES.index("hypervisor")
    state[there.domain == IDLE_DOMAIN] = STATES.index("idle")
    return Situation(there.domain, there.vcpu, state)

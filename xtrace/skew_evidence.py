"""What had to come before what on another CPU, and how much room that leaves for clocks that differ.

A piece of evidence is two records of two CPUs of which the earlier cannot come after the later. The *room* is the time
between them by their clocks; where it is negative, these clocks differ. All times are ns, rounded down, so that each
room has one more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace import arrow
from xtrace.context import IDLE_DOMAIN, LOST, header_of
from xtrace.episodes.tables import NULL
from xtrace.parsers import sched
from xtrace.parsers.vectors import RUNSTATES
from xtrace.states import cpu_of

if TYPE_CHECKING:
    from xtrace.decode import Batch
    from xtrace.episodes.assemble import EpisodeTables
    from xtrace.trace import Trace

Index = NDArray[np.int64]

KINDS: Final = ("start", "send", "done", "lock", "wake", "hand-over")
START, SEND, DONE, LOCK, WAKE, HAND_OVER = range(len(KINDS))
"""START before ENTER; SEND before ENTER, where a lock keeps targets from looking earlier; EXIT before DONE where the
initiator waits; DONE before the next SEND under a lock; a vCPU's wake-up before its run; its run's end before what
another CPU does with it."""

KEPT: Final = 3
"""Pieces of evidence kept of each kind and pair of CPUs, those with the least room."""
MAX_ROOM: Final = 1 << 45
"""More ns than tell anything: sums of as many as there are CPUs are exact in floating point."""
UNLIMITED: Final = 63
"""The length of what no stay has to outlast, as a power of two in ns."""
QUEUED: Final = 0.25
"""Requests that wait so much of the time that others take are kept waiting by them."""
HELD: Final = 1 << 20
"""Changes of runstates held at a time."""
CLEARLY: Final = 4
"""A change that a CPU's clock puts into a stay must be so much nearer to that end of it behind which it belongs."""

_RUNNING: Final = RUNSTATES.index("running")
_CHANGES: Final = {
    header_of(event): (
        RUNSTATES.index(str(event.constants["old_state"])),
        RUNSTATES.index(str(event.constants["new_state"])),
    )
    for event in sched.EVENTS
    if event.name == "TRC_SCHED_RUNSTATE_CHANGE"
}


class Kept(NamedTuple):
    """Pieces of evidence, those with the least room.

    kind, earlier, later  place in KINDS, CPUs
    stay                  what must last longer than clocks differ for the order to be certain, as a power of two in ns
    room                  ns
    place                 how many of its kind, stay and CPUs have less room
    """

    kind: Index
    earlier: Index
    later: Index
    stay: Index
    room: Index
    place: Index

    def take(self, rows: NDArray[Any]) -> Kept:
        """Some of them."""
        return Kept(*(values[rows] for values in self))


class Holds(NamedTuple):
    """Requests from SEND to DONE. lock: what they take where the design has locks; cpu: int64; ns."""

    lock: Index
    cpu: Index
    send: Index
    done: Index


class Evidence:
    """Gathers evidence; what is kept does not grow with the trace.

    locked   whether requests take turns under a lock
    holds    of the locks
    counts   int64 (kinds, UNLIMITED + 1), pieces by kind and stay
    by_cpu   pieces by CPU
    """

    def __init__(self, holds: Holds, *, locked: bool) -> None:
        self.holds, self.locked = holds, locked
        self.counts = np.zeros((len(KINDS), UNLIMITED + 1), np.int64)
        self.by_cpu: Counter[int] = Counter()
        whole = np.zeros(0, np.int64)
        self._kept = Kept(whole, whole, whole, whole, whole, whole)

    def add(
        self, kind: int, earlier: NDArray[Any], later: NDArray[Any], room: Index, stay: Index | None = None
    ) -> None:
        """More of a kind; stay: in ns, None where the order does not rest on any. Of one CPU it is no evidence."""
        apart = (earlier != later) & (room > -MAX_ROOM) & (room < MAX_ROOM)
        if not apart.any():
            return
        earlier, later = earlier[apart].astype(np.int64), later[apart].astype(np.int64)
        power = np.full(len(earlier), UNLIMITED) if stay is None else np.frexp(np.maximum(stay[apart], 0))[1]
        self.counts[kind] += np.bincount(power, minlength=UNLIMITED + 1)
        for side in (earlier, later):
            cpus, counts = np.unique(side, return_counts=True)
            self.by_cpu.update(dict(zip(cpus.tolist(), counts.tolist(), strict=True)))
        new = Kept(np.full(len(earlier), kind), earlier, later, power.astype(np.int64), room[apart] + 1, earlier)
        self._kept = _least(Kept(*map(np.concatenate, zip(self._kept, _least(new), strict=True))))

    def kept(self) -> Kept:
        """What is kept of all."""
        return self._kept


def _least(some: Kept) -> Kept:
    """The KEPT with the least room of each kind, pair and stay."""
    key = ((some.kind << 6 | some.stay) << 14 | some.earlier) << 14 | some.later
    order = np.lexsort((some.room, key))
    begin = np.flatnonzero(np.diff(key[order], prepend=-1))
    place = np.arange(len(order)) - np.repeat(begin, np.diff(begin, append=len(order)))
    few = place < KEPT
    return some._replace(place=place[np.argsort(order)]).take(order[few])


def of_trace(trace: Trace) -> Evidence:
    """All evidence: that of the episodes, and that of runstates, for which all records are read."""
    found = of_episodes(trace.tables)
    runs = _Runs(trace, found)
    for batch, _ in trace.batches():
        runs.add(batch)
    runs.finish()
    return found


class Piece(NamedTuple):
    """Pieces of evidence of one kind, as `Evidence.add` takes them."""

    kind: int
    earlier: NDArray[Any]
    later: NDArray[Any]
    room: Index
    stay: Index | None = None


def of_episodes(tables: EpisodeTables) -> Evidence:
    """The evidence of calls and flushes."""
    locked, holds = _locks(tables)
    found = Evidence(holds, locked=locked)
    for piece in _pieces(tables, locked, holds):
        found.add(*piece)
    return found


def changed_places(tables: EpisodeTables) -> bool:
    """Whether any steps of calls and flushes that have an order seem to have another; quicker than all evidence."""
    pieces = _pieces(tables, *_locks(tables))
    return any(bool(((piece.room < -1) & (piece.earlier != piece.later)).any()) for piece in pieces)


def _pieces(tables: EpisodeTables, locked: bool, holds: Holds) -> Iterator[Piece]:
    initiator = arrow.values(tables.episodes["initiator"])
    deliveries = tables.deliveries
    start, send, done = _steps(tables)
    of, cpu = arrow.values(deliveries["episode"]).astype(np.int64), arrow.values(deliveries["cpu"])
    enter, left = (arrow.values(deliveries[name], null=int(NULL)) for name in ("enter_ns", "exit_ns"))
    for kind, asked in ((START, start), (SEND, send)) if locked else ((START, start),):
        both = (asked[of] != NULL) & (enter != NULL)
        yield Piece(kind, initiator[of[both]], cpu[both], enter[both] - asked[of[both]])
    both = _waits(tables)[of] & (done[of] != NULL) & (left != NULL)
    yield Piece(DONE, cpu[both], initiator[of[both]], done[of[both]] - left[both])
    if locked:
        yield Piece(LOCK, *in_turn(holds))


def _steps(tables: EpisodeTables) -> Iterator[Index]:
    """START, SEND and DONE in ns, NULL where not seen."""
    return (arrow.values(tables.episodes[name], null=int(NULL)) for name in ("start_ns", "send_ns", "done_ns"))


def _waits(tables: EpisodeTables) -> NDArray[np.bool_]:
    """Whether the initiator waits for the end; of flushes always."""
    waits: NDArray[np.bool_] = arrow.equals(tables.episodes["kind"], "flush") | arrow.values(tables.episodes["wait"])
    return waits


def _locks(tables: EpisodeTables) -> tuple[bool, Holds]:
    """Whether requests take turns under locks, and from when to when each would have held one."""
    episodes = tables.episodes
    initiator = arrow.values(episodes["initiator"]).astype(np.int64)
    start, send, done = _steps(tables)
    seen = np.flatnonzero((send != NULL) & (done != NULL))
    lock = arrow.equals(episodes["kind"], "flush").astype(np.int64)
    carried = episodes["parent"].null_count < len(episodes)
    locked = tables.model == "legacy" or (not carried and _queued(initiator, start, send, done, _waits(tables)))
    return locked, Holds(lock[seen], initiator[seen], send[seen], done[seen])


def _queued(initiator: NDArray[Any], start: Index, send: Index, done: Index, waits: NDArray[np.bool_]) -> bool:
    """Whether requests wait long before they go out, as they do for a lock only, by the clock of their own CPU.

    One whose CPU did not wait for the end of its request before may wait for that, and one that does not wait holds
    nothing.
    """
    rows = np.flatnonzero((start != NULL) & (send != NULL) & (done != NULL))
    rows = rows[np.lexsort((start[rows], initiator[rows]))]
    free = np.append(True, waits[rows[:-1]] | (initiator[rows[:-1]] != initiator[rows[1:]]))[: len(rows)]
    rows = rows[free & waits[rows]]
    return len(rows) > 0 and bool(np.median(send[rows] - start[rows]) > QUEUED * np.median(done[rows] - send[rows]))


def in_turn(holds: Holds, offsets_ns: Mapping[int, int] | None = None) -> tuple[Index, Index, Index, Index]:
    """The evidence of locks: who let go, who took it next, the room between, and how long both held it at least.

    offsets_ns: what is taken off clocks for the order of turns; the room is by the clocks as they are.
    """
    ahead = np.zeros(int(holds.cpu.max(initial=-1)) + 1, np.int64)
    for one, ns in (offsets_ns or {}).items():
        if one < len(ahead):
            ahead[one] = ns
    order = np.lexsort((holds.send // 2 + holds.done // 2 - ahead[holds.cpu], holds.lock))
    lock, cpu, send, done = (values[order] for values in holds)
    same = np.flatnonzero(lock[1:] == lock[:-1])
    held = done - send
    return cpu[same], cpu[same + 1], send[same + 1] - done[same], np.minimum(held[same], held[same + 1])


class _Changes(NamedTuple):
    """Runstate changes, in the order of reading. vcpu: domain << 16 | vCPU; stretch: counts what the CPU lost."""

    vcpu: Index
    old: Index
    new: Index
    cpu: Index
    stretch: Index
    ns: Index

    def take(self, rows: NDArray[Any]) -> _Changes:
        """Some of them."""
        return _Changes(*(values[rows] for values in self))


class _Runs:
    """Evidence from runstates: a lock orders all changes of one vCPU, on whatever CPU they are made.

    By the clocks, neighbours may have changed places. Where one that cannot be within a stay on a CPU seems to be, the
    states tell before or behind which end of the stay it belongs.
    """

    def __init__(self, trace: Trace, found: Evidence) -> None:
        self._clock, self._found = trace.clock, found
        self._damage = np.array([skip.offset for skip in trace.survey.skips], np.int64)
        self._lost: Counter[int] = Counter()
        whole = np.zeros(0, np.int64)
        self._waiting = [_Changes(whole, whole, whole, whole, whole, whole)]
        self._count = 0

    def add(self, batch: Batch) -> None:
        """The records of a batch."""
        cpu = cpu_of(batch.track).astype(np.int64)
        lost = np.flatnonzero(batch.header == np.uint32(LOST))
        rows = np.flatnonzero(np.isin(batch.header, np.array(list(_CHANGES), np.uint32)))
        word = batch.words.take(batch.starts[rows] + 3).astype(np.int64)
        rows, word = rows[word >> 16 != IDLE_DOMAIN], word[word >> 16 != IDLE_DOMAIN]
        old, new = np.zeros((2, len(rows)), np.int64)
        for header, states in _CHANGES.items():
            old[batch.header[rows] == header], new[batch.header[rows] == header] = states
        stretch = self._stretch(batch, cpu, rows, lost)
        self._lost.update(cpu[lost].tolist())
        tsc = batch.tsc[rows]
        self._waiting.append(_Changes(word, old, new, cpu[rows], stretch, self._clock.to_ns(tsc)))
        self._count += len(rows)
        if self._count > HELD:
            self._release(all_of_it=False)

    def _stretch(self, batch: Batch, cpu: Index, rows: Index, lost: Index) -> Index:
        """Of each row a number that is that of another of its CPU only where nothing between them is missing."""
        before = np.array([self._lost[one] for one in range(int(cpu.max(initial=-1)) + 1)], np.int64)[cpu[rows]]
        if len(lost):
            places = np.sort(cpu[lost] << 40 | lost)
            own = cpu[rows] << 40
            before += np.searchsorted(places, own | rows) - np.searchsorted(places, own)
        if len(self._damage):
            # A dataset does not tell where records are missing: any two may have some between them.
            before += np.arange(len(rows)) if batch.offset is None else self._passed(batch.offset[rows])
        return before

    def _passed(self, offset: Index) -> Index:
        return np.searchsorted(self._damage, offset)

    def finish(self) -> None:
        """What is left."""
        self._release(all_of_it=True)

    def _release(self, *, all_of_it: bool) -> None:
        waiting = _Changes(*map(np.concatenate, zip(*self._waiting, strict=True)))
        ready = np.ones(len(waiting.ns), np.bool_) if all_of_it else waiting.ns <= np.median(waiting.ns)
        self._waiting = [waiting.take(~ready)]
        self._count = len(self._waiting[0].ns)
        some = waiting.take(ready)
        self._look_at(some.take(np.lexsort((some.ns, some.vcpu))))

    def _look_at(self, some: _Changes) -> None:
        """Changes by vCPU and time: neighbours that fit, and those that do once they change places."""
        if len(some.ns) < 2:
            return
        vcpu, old, new, cpu, stretch, ns = some
        same = vcpu[1:] == vcpu[:-1]
        step = np.where(same, ns[1:] - ns[:-1], MAX_ROOM)
        before, after = np.append(MAX_ROOM, step[:-1]), np.append(step[1:], MAX_ROOM)
        fits = np.flatnonzero(same & (new[:-1] == old[1:]) & (new[:-1] != _RUNNING) & (cpu[1:] != cpu[:-1]))
        self._add(some, fits, fits + 1, step[fits], np.minimum(before, after)[fits])
        if len(ns) < 4:
            return

        at = np.arange(len(ns) - 3)
        first, one, other, last = at, at + 1, at + 2, at + 3
        changed = same[:-2] & same[1:-1] & same[2:] & (cpu[one] != cpu[other])
        changed &= (new[one] != old[other]) & (new[first] == old[other]) & (new[other] == old[one])
        changed &= (new[other] != _RUNNING) & (new[one] == old[last])
        by = ns[other] - ns[one]
        shown = np.zeros(len(at), np.bool_)
        for begin, end in ((first, other), (one, last)):
            runs = new[begin] == _RUNNING
            whole = (cpu[begin] == cpu[end]) & (stretch[begin] == stretch[end])
            changed &= ~runs | (whole & (CLEARLY * by <= ns[end] - ns[begin]))
            shown |= runs
        rows = at[changed & shown]
        stay = np.minimum(ns[rows + 2] - ns[rows], ns[rows + 3] - ns[rows + 1])
        for earlier, later in ((rows, rows + 2), (rows + 2, rows + 1), (rows + 1, rows + 3)):
            self._add(some, earlier, later, ns[later] - ns[earlier], stay)

    def _add(self, some: _Changes, earlier: Index, later: Index, room: Index, stay: Index) -> None:
        woken = (some.new[later] == _RUNNING) & (some.old[earlier] != _RUNNING)
        for kind, rows in ((WAKE, woken), (HAND_OVER, ~woken)):
            self._found.add(kind, some.cpu[earlier[rows]], some.cpu[later[rows]], room[rows], stay[rows])

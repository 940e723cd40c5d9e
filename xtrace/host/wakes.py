"""Wake-to-halt: how long a vCPU runs for an interrupt that its guest gets.

A stay begins at the VM entry that delivers an interrupt (TRC_HVM_INJ_VIRQ before TRC_HVM_VMENTRY) and ends when the
vCPU blocks. One stay a vector: the first of it since the vCPU last blocked. The first interrupt that is injected
between a wake-up and the VM entry after it is the one that woke. The definitions are those of xenalyze.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xtrace.context import IDLE_DOMAIN, NOBODY
from xtrace.decode import groups
from xtrace.episodes.tables import NULL, arrow_table, column, dictionary
from xtrace.host.switches import BLOCKED, CONTINUE, OFFLINE, RUNNABLE, RUNNING
from xtrace.host.walk import in_time
from xtrace.parsers.container import LOST_RECORDS
from xtrace.parsers.hvm import ENTRY_EXIT, HANDLERS
from xtrace.parsers.sched import EVENTS as SCHED
from xtrace.parsers.vectors import RUNSTATES
from xtrace.runstates import CHANGE
from xtrace.states import TRACK_BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xtrace.host.walk import Chunk
    from xtrace.parsers.event import Event
    from xtrace.parsers.registry import Dialect
    from xtrace.trace import Trace

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

WAKE_KINDS: Final = ("wake alone", "wake", "interrupt")
"""It woke the vCPU and no other vector came before the halt; it woke it and others came; the vCPU ran already."""
ALONE, WAKE, INTERRUPT = range(len(WAKE_KINDS))

MAX_VECTOR: Final = 255
NO_VECTOR: Final = MAX_VECTOR + 1
"""Stands for all numbers that are no vector."""

WAKES: Final = pa.schema(
    [
        column("domain", pa.uint16(), "domain"),
        column("vcpu", pa.uint16(), "vCPU"),
        column("vector", pa.uint8(), "vector that the guest got; null: the record's number is none", nullable=True),
        column(
            "kind",
            pa.dictionary(pa.int8(), pa.string()),
            "wake alone (it woke the vCPU, and no other vector came), wake (others came), interrupt (it ran already)",
        ),
        column("begin_ns", pa.int64(), "VM entry that delivered it, ns since the trace's first timestamp"),
        column("end_ns", pa.int64(), "the vCPU blocks"),
        column("duration_ns", pa.int64(), "end − begin"),
        column("cpu", pa.uint16(), "pCPU on which it blocks"),
    ]
)

_ENTRY: Final = "TRC_HVM_VMENTRY"
INJECTED: Final = "TRC_HVM_INJ_VIRQ"
WANTED: Final = frozenset(
    event.event_id
    for event in (*SCHED, *ENTRY_EXIT, *HANDLERS, LOST_RECORDS)
    if event.name in (CHANGE, CONTINUE, _ENTRY, INJECTED, LOST_RECORDS.name)
)
_IDS: Final = np.array(sorted(WANTED), np.uint32)

STATE, ENTRY, INJECTION = range(3)


class Stays(NamedTuple):
    """Wake-to-halts, in order of their ends.

    domain, vcpu    int64
    vector          int64  NO_VECTOR: none
    kind            int64  place in WAKE_KINDS
    begin_ns, end_ns  int64
    cpu             int64  on which the vCPU blocks
    """

    domain: Ints
    vcpu: Ints
    vector: Ints
    kind: Ints
    begin_ns: Ints
    end_ns: Ints
    cpu: Ints


class _Rows(NamedTuple):
    """Records of vCPUs, by vCPU and then in order of time.

    vcpu      domain << 16 | vCPU
    kind      STATE, ENTRY or INJECTION
    old, new  runstates; RUNNING of others
    lost      losses on any CPU up to it
    lost_here  losses on its own
    held      kept from before: what it meant is known
    seen      of held ones: the vCPU was seen to run
    woke      of held ones: it is the injection that woke
    """

    vcpu: Ints
    kind: Ints
    ns: Ints
    cpu: Ints
    vector: Ints
    old: Ints
    new: Ints
    lost: Ints
    lost_here: Ints
    held: Ints
    seen: Ints
    woke: Ints

    def take(self, rows: Ints | Flags | slice) -> _Rows:
        """Some of them."""
        return _Rows(*(one[rows] for one in self))


NO_STAYS: Final = Stays(*(np.zeros(0, np.int64) for _ in Stays._fields))
NO_ROWS: Final = _Rows(*(np.zeros(0, np.int64) for _ in _Rows._fields))


class WakeStays:
    """Finds them, chunk by chunk. Idle vCPUs have none. Nothing is told across lost records."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._open = NO_ROWS
        self._lost = np.zeros(1 << TRACK_BITS, np.int64)

    @staticmethod
    def wants(event: Event) -> bool:
        """Whether it takes records of this event; it passes over others."""
        return event.event_id in WANTED

    def finish(self) -> None:
        """The capture ends."""
        self._open, self._lost = NO_ROWS, np.zeros_like(self._lost)

    def feed(self, chunk: Chunk) -> Stays:
        """The next records in order of time, of one capture; the stays that end in them."""
        chunk = chunk.take(np.flatnonzero(np.isin(chunk.header & np.uint32(0x0FFF_FFFF), _IDS)))
        rows = self._rows(chunk)
        rows = _Rows(*map(np.concatenate, zip(self._open, rows, strict=True)))
        # The sort is stable: of each vCPU what was kept comes first, and all in order of time.
        rows = rows.take(np.argsort(rows.vcpu, kind="stable"))
        stays, self._open = _followed(rows)
        return stays

    def _rows(self, chunk: Chunk) -> _Rows:
        count = len(chunk.ns)
        cpu = chunk.cpu.astype(np.int64)
        vcpu = chunk.domain.astype(np.int64) << 16 | chunk.vcpu
        known = (chunk.domain != NOBODY) & (chunk.domain != IDLE_DOMAIN)
        kind, vector, old, new = np.zeros((4, count), np.int64)
        loss = np.zeros(count, np.int64)
        for event, members, _, columns in groups(chunk, self._dialect):
            if event.name in (CHANGE, CONTINUE):
                vcpu[members] = columns["domid"].astype(np.int64) << 16 | columns["vcpuid"]
                known[members] = columns["domid"] != IDLE_DOMAIN
                if event.name == CHANGE:
                    old[members] = RUNSTATES.index(str(event.constants["old_state"]))
                    new[members] = RUNSTATES.index(str(event.constants["new_state"]))
            elif event.name == _ENTRY:
                kind[members] = ENTRY
            elif event.name == INJECTED:
                kind[members] = INJECTION
                vector[members] = np.minimum(columns["vector"], NO_VECTOR)
            else:
                loss[members], known[members] = event.name == LOST_RECORDS.name, False
        lost, lost_here = self._losses(loss, cpu)
        zero = np.zeros(count, np.int64)
        rows = _Rows(vcpu, kind, chunk.ns, cpu, vector, old, new, lost, lost_here, zero, zero, zero)
        return rows.take(np.flatnonzero(known))

    def _losses(self, loss: Ints, cpu: Ints) -> tuple[Ints, Ints]:
        """How many there were up to each record, on all CPUs and on its own."""
        lost, lost_here = np.cumsum(loss) + self._lost.sum(), self._lost[cpu]
        if loss.any():
            order = np.argsort(cpu, kind="stable")
            first = np.flatnonzero(np.diff(cpu[order], prepend=-1))
            sums = np.cumsum(loss[order])
            before = (sums - loss[order])[first]
            lost_here[order] += sums - np.repeat(before, np.diff(np.append(first, len(cpu))))
            np.add.at(self._lost, cpu, loss)
        return lost, lost_here


def _followed(rows: _Rows) -> tuple[Stays, _Rows]:
    """The stays that end, and the rows that those still open need."""
    if not len(rows.vcpu):
        return NO_STAYS, NO_ROWS
    found = _Parts(rows)
    return found.stays(), found.open()


class _Parts:
    """The lives of vCPUs cut where they block, and where records are missing."""

    def __init__(self, rows: _Rows) -> None:
        self.rows, count = rows, len(rows.vcpu)
        self.place = np.arange(count)
        first = np.append(True, rows.vcpu[1:] != rows.vcpu[:-1])
        self.last = np.append(first[1:], True)
        held, state = rows.held > 0, rows.kind == STATE
        begins = first | (_broken(rows) & ~held)
        self.begin = np.maximum.accumulate(np.where(begins, self.place, 0))
        self.seen = self._latest(~state | (rows.new == RUNNING) | (rows.seen > 0)) >= self.begin
        # What a record begins or ends is not known before the vCPU was seen to run.
        seen = (np.append(False, self.seen[:-1]) & ~begins) | (held & self.seen)
        self.halts = state & (rows.old == RUNNING) & (rows.new == BLOCKED) & seen
        self.wakes = state & (rows.old == BLOCKED) & (rows.new == RUNNABLE) & seen
        self.stops = (rows.kind == ENTRY) | (state & (rows.old == RUNNING) & (rows.new != OFFLINE))
        part_begins = begins | np.append(False, self.halts[:-1])
        self.part = np.cumsum(part_begins) - 1
        self.part_end = np.append(np.flatnonzero(part_begins)[1:], count) - 1
        self.firsts, self.woke = self._injections()
        entries = np.where(rows.kind == ENTRY, self.place, count)
        self.entry = np.minimum.accumulate(entries[::-1])[::-1]

    def _latest(self, chosen: Flags) -> Ints:
        """The place of the last row chosen, at or before each; −1: none."""
        latest: Ints = np.maximum.accumulate(np.where(chosen, self.place, -1))
        return latest

    def _injections(self) -> tuple[Ints, Ints]:
        """Of each part, the first of each vector, and the one that woke."""
        rows, part = self.rows, self.part
        injected = rows.kind == INJECTION
        last_wake = self._latest(self.wakes)
        waking = (last_wake > self._latest(self.stops)) & (last_wake >= self.begin)
        every = np.flatnonzero(injected)
        firsts = every[np.unique(part[every] << 9 | rows.vector[every], return_index=True)[1]]
        woke = np.flatnonzero((rows.woke > 0) | (injected & waking & (rows.held == 0)))
        return firsts, woke[np.unique(part[woke], return_index=True)[1]]

    def stays(self) -> Stays:
        """Of each part that ends as the vCPU blocks, one of each vector."""
        rows, parts = self.rows, len(self.part_end)
        end, entry = self.part_end[self.part[self.firsts]], self.entry[self.firsts]
        whole = np.flatnonzero(self.halts[end] & (entry < end))
        whole = whole[rows.ns[end[whole]] > rows.ns[entry[whole]]]
        at, end, entry = self.firsts[whole], end[whole], entry[whole]
        vectors = np.bincount(self.part[self.firsts], minlength=parts)[self.part[at]]
        waker = np.full(parts, -1)
        waker[self.part[self.woke]] = rows.vector[self.woke]
        kind = np.where(vectors == 1, ALONE, WAKE)
        kind[waker[self.part[at]] != rows.vector[at]] = INTERRUPT
        order = np.lexsort((rows.vector[at], rows.vcpu[at], rows.ns[end]))
        columns = (
            rows.vcpu[at] >> 16,
            rows.vcpu[at] & 0xFFFF,
            rows.vector[at],
            kind,
            rows.ns[entry],
            rows.ns[end],
            rows.cpu[end],
        )
        return Stays(*(one[order] for one in columns))

    def open(self) -> _Rows:
        """Each vCPU's last row; of parts that go on also the injections, their entries, the last wake-up or stop."""
        keep = self.last.copy()
        end = self.part_end[self.part]
        going = self.last[end] & ~self.halts[end]
        kept = np.concatenate((self.firsts, self.woke))
        kept = kept[going[kept]]
        keep[kept] = True
        entry = self.entry[kept]
        keep[entry[entry <= end[kept]]] = True
        turn = self._latest(self.wakes | self.stops)[self.last]
        keep[turn[turn >= self.begin[self.last]]] = True
        woke = np.zeros(len(keep), np.int64)
        woke[self.woke] = 1
        return self.rows._replace(held=np.ones_like(woke), seen=self.seen.astype(np.int64), woke=woke).take(keep)


def _broken(rows: _Rows) -> Flags:
    """Where something is missing between a row and the one before it of its vCPU."""
    before, after = rows.take(slice(None, -1)), rows.take(slice(1, None))
    ran = before.new == RUNNING
    gap = np.where(ran, (after.cpu != before.cpu) | (after.lost_here != before.lost_here), after.lost != before.lost)
    return np.append(False, gap | (after.old != before.new))


def table_wakes(stays: Sequence[Stays]) -> pa.Table:
    """The stays as the table WAKES, one behind the other."""
    every = Stays(*map(np.concatenate, zip(NO_STAYS, *stays, strict=True)))
    return arrow_table(
        WAKES,
        {
            "domain": every.domain,
            "vcpu": every.vcpu,
            "vector": np.where(every.vector == NO_VECTOR, NULL, every.vector),
            "kind": dictionary(every.kind.astype(np.int8), WAKE_KINDS),
            "begin_ns": every.begin_ns,
            "end_ns": every.end_ns,
            "duration_ns": every.end_ns - every.begin_ns,
            "cpu": every.cpu,
        },
    )


def wakes_of(trace: Trace) -> pa.Table:
    """All wake-to-halts of a trace as WAKES, in order of their ends; one pass over the trace."""
    found = WakeStays(trace.dialect)
    return table_wakes([found.feed(chunk) for chunk in in_time(trace, WakeStays.wants, finish=found.finish)])

"""The `runstates` table: how long each vCPU stayed in which state, from the scheduler's records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xtrace.context import LOST
from xtrace.episodes.tables import NULL, arrow_table, column, dictionary
from xtrace.grouping import rows_by
from xtrace.parsers.vectors import RUNSTATES as STATES
from xtrace.selection import parse_events
from xtrace.states import TRACK_BITS

if TYPE_CHECKING:
    from xtrace.decode import Batch, Group
    from xtrace.trace import Trace

CHANGE: Final = "TRC_SCHED_RUNSTATE_CHANGE"

RUNSTATES: Final = pa.schema(
    [
        column("domain", pa.uint16(), "domain; 32767 is the idle domain"),
        column("vcpu", pa.uint16(), "vCPU"),
        column("state", pa.dictionary(pa.int8(), pa.string()), "running, runnable, blocked or offline"),
        column("cpu", pa.uint16(), "pCPU that it ran on, or that put it into the state", nullable=True),
        column("begin_ns", pa.int64(), "ns since the trace's first timestamp; null: not seen", nullable=True),
        column("end_ns", pa.int64(), "null: not seen, or still so at the end", nullable=True),
        column("duration_ns", pa.int64(), "end − begin", nullable=True),
        column("complete", pa.bool_(), "begin and end were seen, and no CPU lost records in between"),
    ]
)


class Changes(NamedTuple):
    """Runstate changes in order of time.

    place    int64   of each among all records
    capture  int64   in which it is
    vcpu     int64   domain << 16 | vCPU
    old, new int8    places in STATES
    cpu      int64   that made it
    ns       int64
    """

    place: NDArray[np.int64]
    capture: NDArray[np.int64]
    vcpu: NDArray[np.int64]
    old: NDArray[np.int8]
    new: NDArray[np.int8]
    cpu: NDArray[np.int64]
    ns: NDArray[np.int64]

    def take(self, rows: NDArray[Any]) -> Changes:
        """Some of them."""
        return Changes(*(values[rows] for values in self))

    @classmethod
    def none(cls) -> Changes:
        """No changes."""
        whole, small = np.zeros(0, np.int64), np.zeros(0, np.int8)
        return cls(whole, whole, whole, small, small, whole, whole)

    @classmethod
    def of(cls, trace: Trace, batch: Batch, group: Group, place: NDArray[np.int64]) -> Changes:
        """Those that a group of records tells."""
        part = batch.take(group.rows)
        fields, constants = group.columns, group.event.constants
        count = len(group.rows)
        return cls(
            place,
            part.track.astype(np.int64) >> TRACK_BITS,
            fields["domid"].astype(np.int64) << 16 | fields["vcpuid"],
            np.full(count, STATES.index(str(constants["old_state"])), np.int8),
            np.full(count, STATES.index(str(constants["new_state"])), np.int8),
            trace.cpu_of(part).astype(np.int64),
            trace.clock.to_ns(part.tsc),
        )


class Stays:
    """Changes, as they are read → stays, in the order of what ends them, once that is certain.

    A change that leaves a state other than the one that the vCPU was known to be in says that changes are missing:
    where the known state ended, and where the one that is left began, was not seen.
    """

    def __init__(self, trace: Trace, losses: NDArray[np.int64]) -> None:
        """losses: int64 (n, 2), begin and end in ns of each time in which a CPU lost records, ascending."""
        self._trace, self._losses = trace, losses
        self._waiting = [Changes.none()]
        self._open: dict[int, tuple[int, int, int]] = {}
        self._capture = 0

    def add(self, batch: Batch, group: Group, number: NDArray[np.int64]) -> None:
        """Changes, a group of records of a batch; number: of each, in the order of reading."""
        self._waiting.append(Changes.of(self._trace, batch, group, number))

    def release(self, ready: NDArray[np.int64]) -> pa.Table:
        """These numbers are next in order of time: the stays that end with them (schema RUNSTATES).

        Numbers of other records may be among them.
        """
        waiting = Changes(*map(np.concatenate, zip(*self._waiting, strict=True)))
        waiting = waiting.take(np.argsort(waiting.place, kind="stable"))
        rows = np.searchsorted(waiting.place, ready)
        rows = rows[np.append(waiting.place, -1)[rows] == ready]
        later = np.ones(len(waiting.place), np.bool_)
        later[rows] = False
        self._waiting = [waiting.take(later)]
        return self._fed(waiting.take(rows)._replace(place=np.arange(len(rows))))

    def _fed(self, changes: Changes) -> pa.Table:
        parts = []
        for capture, rows in rows_by(changes.capture):
            if capture != self._capture:
                # Its clock starts over.
                parts.append(self.finish())
                self._capture = capture
            parts.append(self._ended(changes.take(rows)))
        return pa.concat_tables([RUNSTATES.empty_table(), *parts])

    def finish(self) -> pa.Table:
        """The stays that nothing ends, in the order in which they began."""
        rows = sorted((begin, vcpu, state, cpu) for vcpu, (state, begin, cpu) in self._open.items())
        begin, vcpus, state, cpu = np.array(rows, np.int64).reshape(-1, 4).T
        self._open = {}
        return self._table(vcpus, state, cpu, begin, np.full(len(vcpus), NULL))

    def _ended(self, changes: Changes) -> pa.Table:
        order = np.argsort(changes.vcpu, kind="stable")
        vcpu, old, new, cpu, ns = (values[order] for values in changes[2:])
        first = np.append(True, vcpu[1:] != vcpu[:-1])[: len(vcpu)]
        state, begin, source = (np.append(0, values[:-1]).astype(np.int64) for values in (new, ns, cpu))
        known = ~first
        for row in np.flatnonzero(first).tolist():
            if found := self._open.get(int(vcpu[row])):
                state[row], begin[row], source[row] = found
                known[row] = True
        for row in np.flatnonzero(np.append(first[1:], True)[: len(vcpu)]).tolist():
            self._open[int(vcpu[row])] = int(new[row]), int(ns[row]), int(cpu[row])
        fits = known & (state == old)
        broken, unseen = known & ~fits, ~fits
        null = np.full(len(vcpu), NULL)
        kinds = (
            (fits, state, source, begin, ns),
            (broken, state, source, begin, null),
            (unseen, old.astype(np.int64), np.where(old == STATES.index("running"), cpu, NULL), null, ns),
        )
        rows = np.concatenate([np.flatnonzero(kind[0]) for kind in kinds])
        columns = (np.concatenate([kind[place][kind[0]] for kind in kinds]) for place in range(1, 5))
        at = np.argsort(changes.place[order][rows], kind="stable")
        return self._table(vcpu[rows][at], *(values[at] for values in columns))

    def _table(
        self,
        vcpu: NDArray[np.int64],
        state: NDArray[np.int64],
        cpu: NDArray[np.int64],
        begin: NDArray[np.int64],
        end: NDArray[np.int64],
    ) -> pa.Table:
        whole = (begin != NULL) & (end != NULL)
        whole &= ~lost_within(self._losses, begin, end)
        missing = (begin == NULL) | (end == NULL)
        return arrow_table(
            RUNSTATES,
            {
                "domain": vcpu >> 16,
                "vcpu": vcpu & 0xFFFF,
                "state": dictionary(state.astype(np.int8), tuple(STATES)),
                "cpu": cpu,
                "begin_ns": begin,
                "end_ns": end,
                "duration_ns": np.where(missing, NULL, end - begin),
                "complete": whole,
            },
        )


def losses(trace: Trace) -> NDArray[np.int64]:
    """When CPUs lost records: int64 (n, 2), begin and end in ns, ascending (xen/common/trace.c, LOST_RECORDS)."""
    lost = trace.survey.records(LOST)
    first = lost.payload[:, 2].astype(np.uint64) | lost.payload[:, 3].astype(np.uint64) << np.uint64(32)
    spans = np.stack((trace.clock.to_ns(np.minimum(first, lost.tsc)), trace.clock.to_ns(lost.tsc)), axis=1)
    return spans[np.argsort(spans[:, 0], kind="stable")]


def lost_within(losses: NDArray[np.int64], begin_ns: NDArray[np.int64], end_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a CPU lost records within these spans, ends included; losses as `losses` gives them."""
    ends = np.maximum.accumulate(losses[:, 1])
    # The last one is none: it begins after everything.
    begins = np.append(losses[:, 0], np.iinfo(np.int64).max)
    found: NDArray[np.bool_] = begins[np.searchsorted(ends, begin_ns)] <= end_ns
    return found


def runstate_table(trace: Trace) -> pa.Table:
    """All stays of a trace, by a pass over it."""
    wanted = parse_events(CHANGE)
    stays, order = Stays(trace, losses(trace)), trace.order()
    parts, base = [], 0
    for batch, _ in trace.batches():
        items = np.full(len(batch.starts), None, object)
        for group in trace.groups(batch, wanted):
            items[group.rows] = base + group.rows
            stays.add(batch, group, base + group.rows)
        base += len(batch.starts)
        parts.append(stays.release(order.feed(batch, items).astype(np.int64)))
    parts.append(stays.release(order.finish().astype(np.int64)))
    return pa.concat_tables([*parts, stays.finish()]).combine_chunks()

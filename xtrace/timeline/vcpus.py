"""Run states of vCPUs on a timeline: the stays of the `runstates` table, as a trace is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from xtrace import arrow
from xtrace.context import IDLE_DOMAIN, LOST, header_of
from xtrace.episodes.tables import NULL
from xtrace.parsers import sched
from xtrace.runstates import CHANGE, Stays, lost_within
from xtrace.timeline.marks import Args, Piece, Scope
from xtrace.timeline.rows import Host

if TYPE_CHECKING:
    import pyarrow as pa

    from xtrace.decode import Batch
    from xtrace.trace import Trace

MAX_VCPUS: Final = 1 << 16
"""More than a host has; only a damaged trace names more, and those are left out."""

_CHANGES: Final = np.array(sorted(header_of(event) for event in sched.EVENTS if event.name == CHANGE), np.uint32)


class Vcpus:
    """Keeps the state of each vCPU. The idle domain is left out."""

    def __init__(self, trace: Trace, scope: Scope, host: Host) -> None:
        self._trace, self._scope, self._host = trace, scope, host
        self._wanted = any(trace.survey.counts.get(header) for header in _CHANGES.tolist())
        # Losses are not known beforehand: what they touch is found here.
        self._losses = np.zeros((0, 2), np.int64)
        self._stays = Stays(trace, self._losses)
        self._order, self._base = trace.order(), 0
        self._known: set[tuple[int, int]] = set()
        self._end_ns = 0

    def feed(self, batch: Batch) -> None:
        """Add the marks of these records, and of those before whose turn has come."""
        if not self._wanted:
            return
        rows = np.flatnonzero(np.isin(batch.header, _CHANGES))
        items = np.full(len(batch.starts), None, object)
        items[rows] = self._base + rows
        part = batch.take(rows)
        for group in self._trace.groups(part):
            self._stays.add(part, group, self._base + rows[group.rows])
        self._note_losses(batch)
        self._base += len(batch.starts)
        self._end_ns = max(self._end_ns, int(self._trace.clock.to_ns(batch.tsc).max(initial=0)))
        self._show(self._stays.release(self._order.feed(batch, items).astype(np.int64)))

    def finish(self) -> None:
        """Add what is left, and the states that nothing ended before the trace did."""
        if self._wanted:
            self._show(self._stays.release(self._order.finish().astype(np.int64)))
            self._show(self._stays.finish(), goes_on=True)

    def _note_losses(self, batch: Batch) -> None:
        part = batch.take(np.flatnonzero(batch.header == LOST))
        for group in self._trace.groups(part):
            begin = np.minimum(group.columns["first_tsc"], part.tsc[group.rows])
            spans = np.stack([self._trace.clock.to_ns(cycles) for cycles in (begin, part.tsc[group.rows])], axis=1)
            self._losses = np.concatenate((self._losses, spans))
            self._losses = self._losses[np.argsort(self._losses[:, 0], kind="stable")]

    def _show(self, stays: pa.Table, *, goes_on: bool = False) -> None:
        domain, vcpu, cpu = (arrow.values(stays[name]) for name in ("domain", "vcpu", "cpu"))
        begin, end = (arrow.values(stays[name], int(NULL)) for name in ("begin_ns", "end_ns"))
        state = np.array([name for chunk in stays["state"].chunks for name in chunk.to_pylist()], object)
        if goes_on:
            end = np.maximum(begin, self._end_ns)
        seen_end = end != NULL
        end = np.where(seen_end, end, begin)
        whole = seen_end & ~lost_within(self._losses, begin, end)
        shown = (begin != NULL) & (domain != IDLE_DOMAIN) & self._scope.has_domain(domain)
        shown &= self._scope.meets(begin, end)
        columns = (domain, vcpu, cpu, state, begin, end, seen_end, whole)
        for one, number, on, name, first, last, ended, complete in zip(
            *(values[shown].tolist() for values in columns), strict=True
        ):
            if (one, number) not in self._known and len(self._known) == MAX_VCPUS:
                continue
            self._known.add((one, number))
            row = self._host.vcpu(one, number)
            args: Args = {} if complete else {"complete": False}
            what = f"running on CPU {on}" if name == "running" else name
            if not ended:
                # Changes are missing: how long it lasted is not known.
                row.instant(Piece(first, first, what, args))
                continue
            row.slice(self._scope.cut(Piece(first, last, what, args), goes_on=goes_on))

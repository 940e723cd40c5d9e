"""Host interrupts on a timeline, as far as records tell: many interrupts leave no record at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xtrace.context import header_of
from xtrace.decode import Batch, Group
from xtrace.parsers import hvm, hw
from xtrace.parsers.vectors import vector_name
from xtrace.timeline.marks import Piece, Scope
from xtrace.timeline.rows import INTERRUPTS, Host

if TYPE_CHECKING:
    from xtrace.trace import Trace

_NAMELESS: Final = {"TRC_HVM_NMI": "NMI", "TRC_HVM_SMI": "SMI", "TRC_HVM_MCE": "MCE"}
_VECTORS: Final = {
    "TRC_HVM_INTR": ("vector",),
    "TRC_HW_IRQ_UNMAPPED_VECTOR": ("vector",),
    "TRC_PM_IDLE_EXIT": ("vec0", "vec1", "vec2", "vec3"),
}
_HANDLED: Final = "TRC_HW_IRQ_HANDLED"
_EVENTS: Final = {*_NAMELESS, *_VECTORS, _HANDLED}
_HEADERS: Final = np.array(
    sorted({header_of(event) for event in (*hvm.EVENTS, *hw.EVENTS) if event.name in _EVENTS}), np.uint32
)
_LOW: Final = np.int64(0xFFFF_FFFF)

Found = tuple[int, Piece]
"""A CPU and what happened there; an instant ends before it begins."""


class Interrupts:
    """The chosen interrupts of a trace; nothing is kept from one batch to the next."""

    def __init__(self, trace: Trace, scope: Scope, host: Host) -> None:
        self._trace, self._scope, self._host = trace, scope, host
        self._model: Any = "lockless" if trace.tables.model == "lockless" else "legacy"

    def feed(self, batch: Batch) -> None:
        """Add the marks of these records."""
        chosen = np.isin(batch.header, _HEADERS) & (batch.tsc > 0) & self._scope.has_cpu(self._trace.cpu_of(batch))
        part = batch.take(np.flatnonzero(chosen & self._scope.has_domain(batch.domain)))
        found: list[Found] = []
        for group in self._trace.groups(part):
            told = self._handled if group.event.name == _HANDLED else self._seen
            found += told(part.take(group.rows), group)
        # A handler that was interrupted is recorded behind what interrupted it.
        for cpu, piece in sorted(found, key=lambda one: (one[0], one[1].begin_ns, -one[1].end_ns)):
            row = self._host.cpu(cpu, INTERRUPTS)
            if piece.end_ns < piece.begin_ns:
                row.instant(piece)
            else:
                row.slice(self._scope.cut(piece))

    def _handled(self, part: Batch, group: Group) -> Iterator[Found]:
        """With its times, of which the record has the low words."""
        tsc = part.tsc.astype(np.int64)
        first, last = (group.columns[name].astype(np.int64) for name in ("tsc_in", "tsc_out"))
        end = tsc - (tsc - last & _LOW)
        begin = end - (last - first & _LOW)
        begin_ns, end_ns = (self._trace.clock.to_ns(cycles.astype(np.uint64)) for cycles in (begin, end))
        # 0: it began before tracing did.
        begin_ns = np.where(first == 0, end_ns, begin_ns)
        meets = self._scope.meets(begin_ns, end_ns)
        columns = (self._trace.cpu_of(part), begin_ns, end_ns, group.columns["irq"], first)
        for cpu, one, other, irq, known in zip(*(values[meets].tolist() for values in columns), strict=True):
            args = {"irq": irq} if known else {"irq": irq, "complete": False}
            yield cpu, Piece(one, other if known else -1, f"IRQ {irq}", args)

    def _seen(self, part: Batch, group: Group) -> Iterator[Found]:
        """Of which only is known that, and mostly which."""
        ns = self._trace.clock.to_ns(part.tsc)
        meets = self._scope.meets(ns, ns)
        cpu, ns = self._trace.cpu_of(part)[meets].tolist(), ns[meets].tolist()
        record = group.event.name.removeprefix("TRC_")
        if not group.columns:
            # SVM does not say which vector made the guest exit.
            name = _NAMELESS.get(group.event.name, "interrupt")
            yield from ((one, Piece(when, -1, name, {"record": record})) for one, when in zip(cpu, ns, strict=True))
            return
        for field in _VECTORS.get(group.event.name, ()):
            vectors = group.columns[field][meets].tolist()
            names = {vector: vector_name(vector, self._model) for vector in set(vectors)}
            for one, when, vector in zip(cpu, ns, vectors, strict=True):
                # In a list of those that were pending, 0 is none.
                if vector or field == "vector":
                    yield one, Piece(when, -1, names[vector], {"vector": vector, "record": record})

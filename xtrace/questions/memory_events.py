"""Records about the memory of guests, by one pass over a trace: P2M changes, nested page faults, the exits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.parsers import hvm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xtrace.decode import Batch, Group
    from xtrace.parsers.event import Event
    from xtrace.parsers.vendor import Vendor
    from xtrace.trace import Trace

Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

CHANGE, FAULT, POPULATE, EXIT, PML_FULL = range(5)
"""What a record tells: a change of a P2M, a nested page fault, a page populated on demand, a VM exit for a nested page
fault, a VM exit because the buffer of page-modification logging was full."""

RAM_RW, RAM_LOGDIRTY = 0, 2
"""p2m_ram_rw and p2m_ram_logdirty (xen/arch/x86/include/asm/p2m.h)."""

MAX_ORDER: Final = 18
"""Of the largest page that x86 maps, 1 GiB."""

_PAGE_BITS: Final = 12
_WRITE: Final = 2
"""The bit of an EPT exit qualification that says so (Intel SDM volume 3C, exit qualification for EPT violations)."""

_RECORDS: Final = {"TRC_MEM_SET_P2M_ENTRY": CHANGE, "TRC_HVM_NPF": FAULT, "TRC_MEM_POD_POPULATE": POPULATE}
_EXITS: Final = frozenset(event.name for event in hvm.ENTRY_EXIT) - {"TRC_HVM_VMENTRY"}
_NESTED_FAULTS: Final[dict[Vendor | None, tuple[int, ...]]] = {"svm": (0x400,), "vmx": (48, 49), None: ()}
"""VMEXIT_NPF; EPT_VIOLATION, and EPT_MISCONFIG, which is how Xen finds entries that it has to work out anew."""
_PML_FULL: Final = 62
_BASIC_REASON: Final = 0xFFFF


class MemoryEvents(NamedTuple):
    """Such records in the order of reading, which on each CPU is the order of time; 35 bytes each.

    kind     int8   CHANGE, FAULT, POPULATE, EXIT or PML_FULL
    ns       int64  own time, else that of the record before it on its CPU
    cpu      int32
    domain   int32  on the CPU, NOBODY where not known
    subject  int32  of changes: whose P2M; else NOBODY
    frame    int64  the guest's; of exits −1
    type     int32  of changes and faults: p2m type number; else −1
    order    int8   of changes, at most MAX_ORDER; else 0
    written  bool   of faults on Intel: by a write
    """

    kind: NDArray[np.int8]
    ns: Index
    cpu: NDArray[np.int32]
    domain: NDArray[np.int32]
    subject: NDArray[np.int32]
    frame: Index
    type: NDArray[np.int32]
    order: NDArray[np.int8]
    written: Flags

    def take(self, rows: NDArray[Any]) -> MemoryEvents:
        """Some of them."""
        return MemoryEvents(*(values[rows] for values in self))

    @property
    def pages(self) -> Index:
        """How many pages of 4 KiB each is about."""
        return np.int64(1) << self.order.astype(np.int64)

    @classmethod
    def of(cls, trace: Trace) -> MemoryEvents:
        """Those of a trace. A record before its CPU's first timestamp is left out."""
        parts = []
        for batch, _ in trace.batches():
            some = [_of_group(trace, batch, group) for group in trace.groups(batch, _wanted)]
            rows = [rows for rows, _ in some]
            if rows:
                order = np.argsort(np.concatenate(rows), kind="stable")
                parts.append(_joined(events for _, events in some).take(order))
        return _joined(parts)


def may_tell(trace: Trace) -> bool:
    """Whether there are P2M changes or nested page faults; or, on Intel, VM exits, which may be for full buffers."""
    names = _names(trace)
    return bool(names & {"TRC_MEM_SET_P2M_ENTRY", "TRC_HVM_NPF"}) or (
        trace.dialect.vendor == "vmx" and bool(names & _EXITS)
    )


def exits_traced(trace: Trace) -> bool:
    """Whether the trace has VM exits."""
    return bool(_names(trace) & _EXITS)


def _names(trace: Trace) -> set[str]:
    return {trace.event_of(header).name for header in trace.survey.counts}


def _wanted(event: Event) -> bool:
    return event.name in _RECORDS or event.name in _EXITS


def _joined(parts: Iterable[MemoryEvents]) -> MemoryEvents:
    return MemoryEvents(*(np.concatenate(columns) for columns in zip(_NONE, *parts, strict=True)))


def _of_group(trace: Trace, batch: Batch, group: Group) -> tuple[Index, MemoryEvents]:
    """Those in a group of records, and which rows of the batch they are."""
    fields, known = group.columns, batch.tsc[group.rows] > 0
    if group.event.name in _EXITS:
        kind = _exits(fields["exit_code" if "exit_code" in fields else "exit_reason"], trace.dialect.vendor)
        known &= kind >= 0
    else:
        kind = np.full(len(known), _RECORDS[group.event.name], np.int8)
    count = int(known.sum())
    none = np.full(count, -1)

    def column(name: str, default: NDArray[Any]) -> NDArray[Any]:
        return fields[name][known] if name in fields else default

    rows = group.rows[known]
    change = group.event.name == "TRC_MEM_SET_P2M_ENTRY"
    frame = column("gfn", none)
    if "gpa" in fields:
        frame = fields["gpa"][known] >> np.uint64(_PAGE_BITS)
    return rows, MemoryEvents(
        kind=kind[known],
        ns=trace.clock.to_ns(batch.tsc[rows]),
        cpu=trace.cpu_of(batch)[rows].astype(np.int32),
        domain=batch.domain[rows],
        subject=(column("domid", none) if change else none).astype(np.int32),
        frame=frame.astype(np.int64),
        type=column("p2mt", none).astype(np.int32),
        order=np.clip(column("order", none) if change else 0 * none, 0, MAX_ORDER).astype(np.int8),
        written=column("qualification", 0 * none) & _WRITE != 0,
    )


def _exits(reason: NDArray[Any], vendor: Vendor | None) -> NDArray[np.int8]:
    """EXIT, PML_FULL, or −1 for exits that say nothing here."""
    kind = np.full(len(reason), -1, np.int8)
    if vendor == "vmx":
        reason = reason & _BASIC_REASON
        kind[reason == _PML_FULL] = PML_FULL
    kind[np.isin(reason, _NESTED_FAULTS[vendor])] = EXIT
    return kind


_NONE: Final = MemoryEvents(
    *(np.zeros(0, kind) for kind in (np.int8, np.int64, *[np.int32] * 3, np.int64, np.int32, np.int8, np.bool_))
)

"""Operations on the memory of guests: grants, P2M entries, reservations, populate-on-demand; by whom and for whom.

Done by: the domain of the vCPU on the CPU that writes the record. Done for: the domain that the record names, which is
the granting one of maps and unmaps, the receiving one of transfers, else the one whose memory it is.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from xtrace.context import IDLE_DOMAIN, NOBODY
from xtrace.contract import frame
from xtrace.decode import groups
from xtrace.grouping import rows_by
from xtrace.host.account import Account, Ground
from xtrace.host.counts import Counts, rate
from xtrace.parsers.container import LOST_RECORDS
from xtrace.parsers.hvm import ENTRY_EXIT
from xtrace.parsers.sched import EVENTS as SCHED
from xtrace.parsers.vectors import VMX_BASIC_REASON
from xtrace.runstates import CHANGE

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.host.walk import Chunk
    from xtrace.parsers.event import Event
    from xtrace.parsers.vendor import Vendor

Ints = NDArray[np.int64]

OPERATIONS: Final = {
    "TRC_MEM_PAGE_GRANT_MAP": "grant map",
    "TRC_MEM_PAGE_GRANT_UNMAP": "grant unmap",
    "TRC_MEM_PAGE_GRANT_TRANSFER": "grant transfer",
    "TRC_MEM_SET_P2M_ENTRY": "set P2M entry",
    "TRC_MEM_DECREASE_RESERVATION": "decrease reservation",
    "TRC_MEM_POD_POPULATE": "populate on demand",
    "TRC_MEM_POD_ZERO_RECLAIM": "reclaim zeroed page",
    "TRC_MEM_POD_SUPERPAGE_SPLINTER": "splinter superpage",
}
NAMES: Final = tuple(OPERATIONS.values())
RECLAIM: Final = "TRC_MEM_POD_ZERO_RECLAIM"

P2M_TYPES: Final = (
    "ram_rw",
    "invalid",
    "ram_logdirty",
    "ram_ro",
    "mmio_dm",
    "mmio_direct",
    "populate_on_demand",
    "grant_map_rw",
    "grant_map_ro",
    "ram_paging_out",
    "ram_paged",
    "ram_paging_in",
    "ram_shared",
    "ram_broken",
    "map_foreign",
    "ioreq_server",
)
"""p2m_type_t by number, the same from 4.17 to master (xen/arch/x86/include/asm/p2m.h)."""

CONTEXTS: Final = ("fault", "balloon", "other")
"""What a page was reclaimed in: an exit for a page fault, an exit for a hypercall, anything else."""
FAULT, BALLOON, ELSE, NO_CONTEXT = range(4)

_FAULTS: Final[dict[Vendor, tuple[int, ...]]] = {"vmx": (0, 48, 49), "svm": (0x4E, 0x400)}
"""EXCEPTION_NMI, EPT_VIOLATION, EPT_MISCONFIG; EXCEPTION_PF, NPF."""
_HYPERCALL: Final[dict[Vendor, int]] = {"vmx": 18, "svm": 0x81}

MAX_ORDER: Final = 18
"""Of the largest page that x86 maps, 1 GiB."""

_STATES: Final = (CHANGE, LOST_RECORDS.name)
_TURNS: Final = frozenset(
    event.event_id for event in (*ENTRY_EXIT, *SCHED, LOST_RECORDS) if event in ENTRY_EXIT or event.name in _STATES
)
_HEADERS: Final = np.array(sorted(_TURNS), np.uint32)
MEM: Final = 0x010
"""The trace class (xen/include/public/trace.h, TRC_MEM)."""

# Widths of the parts of a key. Nobody is 1 << 16, beyond all domains; an order or type that is not there is all ones.
_DOMAIN, _ORDER, _TYPE, _CONTEXT = 17, 16, 8, 2
_NO_ORDER, _NO_TYPE = (1 << _ORDER) - 1, (1 << _TYPE) - 1
_NOBODY: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a domain.

    done_by, done_for    how often it did it, and how often it was done to its memory
    pages_by, pages_for  4 KiB pages in them; None where records tell no order, or one that no page has
    """

    domain: int
    operation: str
    done_by: int
    done_for: int
    pages_by: int | None
    pages_for: int | None
    by_per_s: float | None
    for_per_s: float | None


@dataclass(frozen=True, slots=True)
class OperationDetail:
    """One operation by all that its records tell.

    by_domain   None: not known who ran
    for_domain  whose memory it is
    order       the size is 2^order pages; None: not in these records
    type        p2m_type_t of the new entry; None: not in these records
    context     of reclaims: fault, balloon or other
    """

    by_domain: int | None
    for_domain: int
    operation: str
    order: int | None
    type: int | None
    type_name: str | None
    context: str | None
    count: int
    per_s: float | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory operations in a span of time.

    operations  by domain and operation
    details     by operation, whom by, whom for, order, type, context
    """

    operations: tuple[Operation, ...]
    details: tuple[OperationDetail, ...]

    def df_details(self) -> pd.DataFrame:
        """One row an operation, what tells it apart, and its count."""
        names = ("by_domain", "for_domain", "operation", "order", "type", "context", "count")
        dtypes = ("Int64", "int64", "str", "Int64", "Int64", "str", "int64")
        rows = [{name: getattr(one, name) for name in names} for one in self.details]
        return frame(rows, dict(zip(names, dtypes, strict=True)))


class MemoryAccount(Account[Memory]):
    """Counts operations; follows VM exits on each CPU to tell what reclaims pages."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._counts = Counts(ground.windows)
        self._inside: dict[int, int] = {}

    @staticmethod
    def wants(event: Event) -> bool:
        """All of the class MEM; exits and what ends them."""
        return event.trace_class == "MEM" or event.event_id in _TURNS

    def feed(self, chunk: Chunk) -> None:
        """The next records."""
        ours = (chunk.header >> np.uint32(16) & np.uint32(0xFFF)) == MEM
        chunk = chunk.take(np.flatnonzero(ours | np.isin(chunk.header & np.uint32(0x0FFF_FFFF), _HEADERS)))
        found = list(groups(chunk, self.ground.dialect))
        turn = np.full(len(chunk.ns), NO_CONTEXT)
        for event, rows, _, columns in found:
            if event.trace_class != "MEM":
                _mark(turn, event, rows, columns, self.ground.dialect.vendor)
        context = self._contexts(chunk, turn)
        by = np.where(chunk.domain == NOBODY, _NOBODY, chunk.domain).astype(np.int64)
        on = self.ground.on(chunk.cpu)
        for event, rows, _, columns in found:
            if event.name not in OPERATIONS:
                continue
            whom = np.clip(columns["domid"].astype(np.int64), 0, _NOBODY - 1)
            order = np.clip(columns.get("order", np.full(len(rows), _NO_ORDER)).astype(np.int64), -1, _NO_ORDER)
            kind = np.minimum(columns.get("p2mt", np.full(len(rows), _NO_TYPE)), _NO_TYPE).astype(np.int64)
            inside = context[rows] if event.name == RECLAIM else np.full(len(rows), NO_CONTEXT)
            key = np.full(len(rows), NAMES.index(OPERATIONS[event.name]))
            for part, width in (
                (by[rows], _DOMAIN),
                (whom, _DOMAIN),
                (order & _NO_ORDER, _ORDER),
                (kind, _TYPE),
                (inside, _CONTEXT),
            ):
                key = key << width | part
            self._counts.at(key[on[rows]], chunk.ns[rows][on[rows]])

    def finish(self) -> None:
        """The capture ends."""
        self._inside.clear()

    def _contexts(self, chunk: Chunk, turn: Ints) -> Ints:
        """What each record was written in: the last turn before it on its CPU."""
        context = np.full(len(turn), ELSE)
        place = np.arange(len(turn))
        for cpu, rows in rows_by(chunk.cpu):
            latest = np.maximum.accumulate(np.where(turn[rows] != NO_CONTEXT, place[: len(rows)], -1))
            context[rows] = np.where(latest >= 0, turn[rows][np.maximum(latest, 0)], self._inside.get(cpu, ELSE))
            self._inside[cpu] = int(context[rows[-1]])
        return context

    def found(self, window: int) -> Memory:
        """What they come to in a window."""
        begin, end = self.ground.windows.span(window)
        details = [_detail(key, count, end - begin) for key, count in self._counts.of(window).items()]
        return Memory(tuple(_operations(details, end - begin)), tuple(details))


def _mark(turn: Ints, event: Event, rows: Ints, columns: dict[str, NDArray[Any]], vendor: Vendor | None) -> None:
    """Note what these records begin: what an exit is for, or something else."""
    if event.name == CHANGE:
        # Other vCPUs are woken while an exit is handled.
        if "running" in event.constants.values():
            turn[rows] = ELSE
        return
    turn[rows] = ELSE
    reason = columns.get("exit_reason", columns.get("exit_code"))
    vendor = event.vendor or vendor
    if reason is None or vendor is None:
        return
    if vendor == "vmx":
        reason = reason & VMX_BASIC_REASON
    turn[rows[np.isin(reason, _FAULTS[vendor])]] = FAULT
    turn[rows[reason == _HYPERCALL[vendor]]] = BALLOON


def _detail(key: int, count: int, span: int) -> OperationDetail:
    parts = []
    for width in (_CONTEXT, _TYPE, _ORDER, _DOMAIN, _DOMAIN):
        parts.append(key & (1 << width) - 1)
        key >>= width
    context, kind, order, whom, by = parts
    return OperationDetail(
        None if by == _NOBODY else by,
        whom,
        NAMES[key],
        None if order == _NO_ORDER else order,
        None if kind == _NO_TYPE else kind,
        None if kind == _NO_TYPE else P2M_TYPES[kind] if kind < len(P2M_TYPES) else f"type {kind}",
        None if context == NO_CONTEXT else CONTEXTS[context],
        count,
        rate(count, span),
    )


def _operations(details: list[OperationDetail], span: int) -> list[Operation]:
    """Summed up by domain, once as the one that does it and once as the one whose memory it is."""
    counts: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
    pages: dict[tuple[int, int], list[int | None]] = defaultdict(lambda: [0, 0])
    for one in details:
        size = None if one.order is None or one.order > MAX_ORDER else one.count << one.order
        for side, domain in enumerate((one.by_domain, one.for_domain)):
            if domain is None or (side == 0 and domain == IDLE_DOMAIN):
                continue
            key = domain, NAMES.index(one.operation)
            counts[key][side] += one.count
            so_far = pages[key][side]
            pages[key][side] = None if size is None or so_far is None else so_far + size
    rows = []
    for (domain, name), (by, whom) in sorted(counts.items()):
        pages_by, pages_for = pages[domain, name]
        rows.append(Operation(domain, NAMES[name], by, whom, pages_by, pages_for, rate(by, span), rate(whom, span)))
    return rows

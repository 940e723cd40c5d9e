"""VM exits as rows: when, of which vCPU, for what reason, what handled it, how long it took.

An exit ends at the entry back into the guest, or when its vCPU becomes runnable: so neither the wait for a CPU nor the
sleep after it is billed to it, but a sleep inside it (HLT) is. It follows its vCPU to other CPUs. Of an exit whose end
was not seen there is no row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.context import NOBODY
from xtrace.decode import Group, groups
from xtrace.host.exit_kinds import Kind
from xtrace.host.exit_spans import (
    ENTER,
    EXIT,
    FIRST,
    INTERRUPT,
    LAST,
    LEAVE,
    LOST,
    NO_OP,
    RUNNABLE,
    SHADOW,
    Losses,
    Spans,
)
from xtrace.host.walk import Chunk, Ints, joined
from xtrace.parsers.container import LOST_RECORDS
from xtrace.runstates import CHANGE

if TYPE_CHECKING:
    from xtrace.parsers.event import Event
    from xtrace.parsers.registry import Dialect

EXIT_EVENTS: Final = frozenset(
    f"TRC_HVM_{name}{wide}" for name in ("VMEXIT", "VMX_EXIT", "SVM_EXIT") for wide in ("", "64")
)
ENTRY: Final = "TRC_HVM_VMENTRY"

HANDLER_SUBCLASS, SHADOW_SUBCLASS = 0x82, 0x40F
"""Bits 12–27 of the ids of records of handlers and of shadow paging."""

INJECTIONS: Final = frozenset((0x02, 0x03, 0x04, 0x05, 0x20))
"""Low 8 bits of ids of records on the way back into the guest: no handler of an exit."""
PF_XEN: Final = 0x01
WRMAP_BF, PREALLOC_UNPIN, RESYNC_FULL, RESYNC_ONLY = 0x0C, 0x0D, 0x0E, 0x0F
LAST_FAULT: Final = 0x0B

UNPIN_FLAG, WRMAP_FLAG = np.uint32(1 << 31), np.uint32(1 << 30)
"""Added to the flags of a shadow fault: its handling freed a pinned shadow, searched all shadows for mappings."""

MAX_OPEN: Final = 1 << 16
"""vCPUs whose exits are followed at a time, and MAX_DETAILS records of each: more are only in a made-up file."""
MAX_DETAILS: Final = 64

NUMBERED: Final[Mapping[int, tuple[Kind, str, str]]] = {
    0x08: (Kind.CR_READ, "cr", "value"),
    0x09: (Kind.CR_WRITE, "cr", "value"),
    0x0C: (Kind.MSR_READ, "msr", "value"),
    0x0D: (Kind.MSR_WRITE, "msr", "value"),
    0x0F: (Kind.INTERRUPT, "vector", ""),
    0x12: (Kind.HYPERCALL, "eax", ""),
    0x16: (Kind.PORT_READ, "port", "data"),
    0x17: (Kind.MMIO_READ, "", "data"),
    0x21: (Kind.NPF, "p2mt", ""),
    0x23: (Kind.EXCEPTION, "vector", ""),
}
"""By the low 8 bits of a handler's id: kind of exit, the field that is its number, and that which is its value."""

WIDE_BIT, WRITE_BIT = 0x100, 0x200
"""In ids of records of handlers: the form of a 64-bit guest; a write."""
FIRSTS: Final = frozenset((0x01, 0x09, 0x0C, 0x0D, 0x12, 0x16, 0x17))
"""Handlers of which the first is what an exit is about, whatever comes after; of others it is the last."""


class ExitRows(NamedTuple):
    """VM exits that ended, in the order in which they did.

    begin_ns, end_ns  int64   ns since the trace's first timestamp; end_ns ≥ begin_ns
    domain, vcpu      int32
    cpu               int32   where it began
    reason            int64   as recorded: VMX exit reason with its flags, SVM exit code, of 32 bits
    rip               uint64  the guest's instruction pointer
    kind              int8    Kind
    number            int64   what the kind counts by, −1 where none is told
    handler           int16   low 8 bits of the id of the HVM handler's record that told the kind, −1 none
    vector            int16   of the host interrupt, −1 none or not told
    address           uint64  linear, of a PAGE_FAULT; else 0
    access            int8    Kind.MMIO_READ or MMIO_WRITE where emulated memory was accessed, whatever the kind; else 0
    gpa               uint64  guest-physical address of that access (of several, the last), or of an NPF; else 0
    value             uint64  data of a port or MMIO access (32 bits), value of a CR or MSR; 0 for others
    has_value         bool
    flags             uint32  of a PAGE_FAULT: the path taken (TRCE_SFLAG_*), UNPIN_FLAG, WRMAP_FLAG
    levels            int8    of a PAGE_FAULT: page-table levels of the guest, as far as the record tells (a 32-bit
                              guest without records of shadow paging counts as 2); else 0
    resyncs           int32   out-of-sync pages of shadow paging that were synchronized
    entered           bool    it ended with an entry into the guest
    era               int64   how often records had been lost by then, on any CPU: two exits of one era have none lost
                              between them
    """

    begin_ns: Ints
    end_ns: Ints
    domain: NDArray[np.int32]
    vcpu: NDArray[np.int32]
    cpu: NDArray[np.int32]
    reason: Ints
    rip: NDArray[np.uint64]
    kind: NDArray[np.int8]
    number: Ints
    handler: NDArray[np.int16]
    vector: NDArray[np.int16]
    address: NDArray[np.uint64]
    access: NDArray[np.int8]
    gpa: NDArray[np.uint64]
    value: NDArray[np.uint64]
    has_value: NDArray[np.bool_]
    flags: NDArray[np.uint32]
    levels: NDArray[np.int8]
    resyncs: NDArray[np.int32]
    entered: NDArray[np.bool_]
    era: Ints

    def take(self, rows: Ints | NDArray[np.bool_]) -> ExitRows:
        """Some of them."""
        columns: tuple[Any, ...] = tuple(column[rows] for column in self)
        return ExitRows(*columns)


def wants(event: Event) -> bool:
    """Whether rows are made from records of this event."""
    return _op_of(event) != NO_OP


def _op_of(event: Event) -> int:
    """What a record of an event does."""
    if event.name in EXIT_EVENTS:
        return EXIT
    if event.name == ENTRY:
        return ENTER
    if event.name == CHANGE:
        return RUNNABLE if event.constants["new_state"] == "runnable" else _leaves(event)
    if event.event_id == LOST_RECORDS.event_id:
        return LOST
    minor = event.event_id & 0xFF
    if event.event_id >> 12 == HANDLER_SUBCLASS and minor not in INJECTIONS:
        if minor == 0x0F:
            return INTERRUPT
        return FIRST if minor in FIRSTS else LAST
    if event.event_id >> 12 == SHADOW_SUBCLASS:
        return FIRST if minor <= LAST_FAULT else SHADOW
    return NO_OP


def _leaves(event: Event) -> int:
    return LEAVE if event.constants["old_state"] == "running" else NO_OP


class _Decoded:
    """The records of a chunk, column by column, as far as rows are made from them."""

    def __init__(self, chunk: Chunk, dialect: Dialect) -> None:
        count = len(chunk.ns)
        self.op = np.zeros(count, np.int8)
        self.key = (chunk.domain.astype(np.int64) << 16) | chunk.vcpu
        self.key[chunk.domain == NOBODY] = NOBODY
        self.reason, self.number = np.zeros(count, np.int64), np.full(count, -1, np.int64)
        self.rip, self.address, self.gpa, self.value = (np.zeros(count, np.uint64) for _ in range(4))
        self.kind, self.minor = np.zeros(count, np.int8), np.full(count, -1, np.int16)
        self.has_value = np.zeros(count, np.bool_)
        self.flags, self.levels = np.zeros(count, np.uint32), np.zeros(count, np.int8)
        for group in groups(chunk, dialect, wants):
            self._add(group)
        self.key[self.op == LOST] = NOBODY

    def _add(self, group: Group) -> None:
        event, rows = group.event, group.rows
        declared = event.variant != "undeclared"
        columns = group.columns if declared else {}
        op = _op_of(event)
        self.op[rows] = op
        if op == EXIT:
            names = ("exit_code", "rip", "eip") if "exit_code" in columns else ("exit_reason", "rip", "eip")
            self.reason[rows] = columns[names[0]]
            self.rip[rows] = columns[names[1] if names[1] in columns else names[2]]
        elif op in (RUNNABLE, LEAVE):
            self.key[rows] = columns["domid"].astype(np.int64) << 16 | columns["vcpuid"]
        elif event.event_id >> 12 == SHADOW_SUBCLASS:
            self._add_shadow(event, rows, columns)
        elif op != LOST and op != ENTER:
            self._add_handler(event, rows, columns, declared)

    def _add_shadow(self, event: Event, rows: Ints, columns: Mapping[str, Any]) -> None:
        self.number[rows] = event.event_id & 0xFF
        self.kind[rows] = Kind.PAGE_FAULT
        self.levels[rows] = event.constants.get("paging_levels", 0)
        if "va" in columns:
            self.address[rows] = columns["va"]
        if "flags" in columns:
            self.flags[rows] = columns["flags"]

    def _add_handler(self, event: Event, rows: Ints, columns: Mapping[str, Any], declared: bool) -> None:
        minor = event.event_id & 0xFF
        self.minor[rows] = minor
        if not declared:
            self.kind[rows], self.number[rows] = Kind.HANDLER, minor
        elif minor == PF_XEN:
            self.kind[rows], self.number[rows] = Kind.PAGE_FAULT, 0
            self.levels[rows] = 4 if event.event_id & WIDE_BIT else 2
        elif minor in NUMBERED:
            kind, number, value = NUMBERED[minor]
            writes = kind in (Kind.PORT_READ, Kind.MMIO_READ) and event.event_id & WRITE_BIT
            self.kind[rows] = kind + 1 if writes else kind
            if number in columns:
                self.number[rows] = columns[number].astype(np.int64) & 0xFFFF_FFFF
            if value in columns:
                self.value[rows], self.has_value[rows] = columns[value], True
        else:
            self.kind[rows], self.number[rows] = Kind.HANDLER, minor
        if "va" in columns:
            self.address[rows] = columns["va"]
        if "gpa" in columns:
            self.gpa[rows] = columns["gpa"]


class ExitReader:
    """Makes rows of chunks in order of time.

    unended: exits of which no row was made, since their ends were not seen: records were lost, the next exit came
    first, the trace ended
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._held: list[Chunk] = []
        self._era = 0
        self.unended = 0

    def feed(self, chunk: Chunk) -> ExitRows:
        """The exits that ended with these records; those of other events are passed over."""
        chunk = joined([*self._held, chunk])
        found = _Decoded(chunk, self._dialect)
        matters = np.flatnonzero((found.op != NO_OP) & (found.key != NOBODY))
        place = matters[np.argsort(found.key[matters], kind="stable")]
        spans = Spans(found.op[place], found.key[place])
        lost = Losses(np.flatnonzero(found.op == LOST), chunk.cpu)
        begins = place[spans.exit]
        last = np.append(place, len(found.op))[spans.end]
        left = last.copy()
        leaves = np.flatnonzero((spans.owner >= 0) & (found.op[place] == LEAVE))[::-1]
        left[spans.owner[leaves]] = place[leaves]
        whole = ~lost.during(begins, left, last, chunk.cpu[begins])
        backward = np.zeros(len(begins), np.bool_)
        ended = np.flatnonzero(spans.closed)
        backward[ended] = chunk.ns[last[ended]] < chunk.ns[begins[ended]]
        self._hold(chunk, place, spans, np.flatnonzero(spans.open & whole))
        self.unended += int(np.count_nonzero(~spans.open & ~(spans.closed & whole & ~backward)))
        self.unended += int(np.count_nonzero(spans.open & ~whole))
        rows = _rows(chunk, found, place, spans, self._era + lost.before(last))
        self._era += lost.count
        chosen = np.flatnonzero(spans.closed & whole & ~backward)
        return rows.take(chosen[np.argsort(last[chosen], kind="stable")])

    def finish(self) -> None:
        """The capture ends, and with it the exits that are open."""
        self.unended += sum(int(np.count_nonzero(_Decoded(one, self._dialect).op == EXIT)) for one in self._held)
        self._held = []

    def _hold(self, chunk: Chunk, place: Ints, spans: Spans, open_ones: Ints) -> None:
        """Keep the records of open exits for the next chunk, before which they then stand."""
        self.unended += max(len(open_ones) - MAX_OPEN, 0)
        kept = np.zeros(len(spans.exit), np.bool_)
        kept[open_ones[-MAX_OPEN:]] = True
        of = spans.of
        mine = np.flatnonzero(of >= 0)
        mine = mine[kept[of[mine]]]
        mine = mine[mine - spans.exit[of[mine]] <= MAX_DETAILS]
        self._held = [chunk.take(np.sort(place[mine]))] if len(mine) else []


def _rows(chunk: Chunk, found: _Decoded, place: Ints, spans: Spans, era: Ints) -> ExitRows:
    """All exits, those not ended with an end of no meaning."""
    count, op = len(spans.exit), found.op[place]

    def one_of(chosen: NDArray[np.bool_], *, first: bool) -> Ints:
        """For each exit the first or last of some records of it, −1 none."""
        rows = np.flatnonzero(chosen & (spans.owner >= 0))[:: -1 if first else 1]
        picked = np.full(count, -1, np.int64)
        picked[spans.owner[rows]] = place[rows]
        return picked

    def also(chosen: NDArray[np.bool_]) -> Ints:
        return np.bincount(spans.owner[chosen & (spans.owner >= 0)], minlength=count)

    interrupt, special = one_of(op == INTERRUPT, first=False), one_of(op == FIRST, first=True)
    general = one_of(op == LAST, first=False)
    told = np.where(interrupt >= 0, interrupt, np.where(special >= 0, special, general))
    number = found.number[place]
    is_access = np.append((found.kind == Kind.MMIO_READ) | (found.kind == Kind.MMIO_WRITE), False)
    access = one_of(is_access[place], first=False)
    told = np.where(is_access[told], access, told)

    def column(values: NDArray[Any], none: int, at: Ints = told) -> NDArray[Any]:
        picked: NDArray[Any] = np.append(values, values.dtype.type(none))[at]
        return picked

    shadow = op == SHADOW
    resyncs = also(shadow & ((number == RESYNC_FULL) | (number == RESYNC_ONLY)))
    flags = column(found.flags, 0)
    flags[also(shadow & (number == PREALLOC_UNPIN)) > 0] |= UNPIN_FLAG
    flags[also(shadow & (number == WRMAP_BF)) > 0] |= WRMAP_FLAG
    kind = column(found.kind, 0)
    own, end = place[spans.exit], np.append(place, 0)[spans.end]
    vector = np.where(kind == Kind.INTERRUPT, column(found.number, -1), -1)
    last = np.append(chunk.ns, 0)[end]
    return ExitRows(
        chunk.ns[own],
        last,
        chunk.domain[own],
        chunk.vcpu[own],
        chunk.cpu[own],
        found.reason[own],
        found.rip[own],
        kind,
        column(found.number, -1),
        column(found.minor, -1),
        np.where(vector < 1 << 15, vector, -1).astype(np.int16),
        column(found.address, 0),
        column(found.kind, 0, access),
        column(found.gpa, 0, np.where(access >= 0, access, told)),
        column(found.value, 0),
        column(found.has_value, 0),
        flags,
        column(found.levels, 0),
        resyncs.astype(np.int32),
        found.op[end] == ENTER,
        era,
    )

"""What PV guests enter the hypervisor for: hypercalls, traps, faults, emulation.

Counts only: Xen records that a hypercall begins, and nothing when it ends, so no record tells how long one took.
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
from xtrace.host.account import Account, Ground, packed, unpacked
from xtrace.host.counts import Counts, rate
from xtrace.host.exceptions import exception_name
from xtrace.parsers.vectors import hypercall_name

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.host.walk import Chunk
    from xtrace.parsers.event import Event

PV: Final = 0x020
"""The trace class (xen/include/public/trace.h, TRC_PV)."""

KINDS: Final = {
    0x1001: "hypercall, old record",
    0x1003: "trap",
    0x1004: "page fault",
    0x1005: "forced invalid opcode",
    0x1006: "privileged instruction emulated",
    0x1007: "4 GiB segment emulated",
    0x1008: "math state restored",
    0x1009: "paging fixup",
    0x100A: "GDT/LDT mapping fault",
    0x100B: "page-table write emulated",
    0x100C: "page-table write emulated",
    0x100D: "hypercall",
    0x200E: "sub-call of a multicall",
}
"""Kinds of events by subclass and number in the id; bit 8, the 64-bit form, does not matter."""
OTHER: Final = "not known"
NAMES: Final = (*dict.fromkeys(KINDS.values()), OTHER)
CALL, SUBCALL, TRAP = (NAMES.index(name) for name in ("hypercall", "sub-call of a multicall", "trap"))

_WIDE: Final = 0x100
_NUMBER_BITS: Final = 20
_NO_NUMBER: Final = 0xFFFFF


@dataclass(frozen=True, slots=True)
class PvEvent:
    """Events of one kind; vcpu None: of the whole domain. Sub-calls are a kind of their own, not in hypercalls."""

    domain: int
    vcpu: int | None
    kind: str
    count: int
    per_s: float | None


@dataclass(frozen=True, slots=True)
class Hypercall:
    """One hypercall; vcpu None: of the whole domain.

    number    None: the records are too short to tell
    calls     by itself
    subcalls  as part of a multicall
    per_s     both
    """

    domain: int
    vcpu: int | None
    number: int | None
    name: str
    calls: int
    subcalls: int
    per_s: float | None


@dataclass(frozen=True, slots=True)
class Trap:
    """Traps of one number that the guest was given; vcpu None: of the whole domain."""

    domain: int
    vcpu: int | None
    number: int | None
    name: str
    count: int
    per_s: float | None


@dataclass(frozen=True, slots=True)
class Pv:
    """PV events in a span of time, each by domain and then vCPU, the whole domain first.

    unattributed  events of which it is not known whose they are, not in the rows
    """

    events: tuple[PvEvent, ...]
    hypercalls: tuple[Hypercall, ...]
    traps: tuple[Trap, ...]
    unattributed: int

    def df_hypercalls(self) -> pd.DataFrame:
        """One row a vCPU and hypercall, in that order: number, name, calls, subcalls."""
        rows = [
            {
                "domain": one.domain,
                "vcpu": one.vcpu,
                "number": one.number,
                "name": one.name,
                "calls": one.calls,
                "subcalls": one.subcalls,
            }
            for one in self.hypercalls
            if one.vcpu is not None
        ]
        dtypes = {"domain": "uint16", "vcpu": "uint16", "number": "Int64", "name": "str"}
        return frame(rows, {**dtypes, "calls": "int64", "subcalls": "int64"})


class PvAccount(Account[Pv]):
    """Counts by vCPU, kind and number."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._counts, self._unattributed = Counts(ground.windows), Counts(ground.windows)

    @staticmethod
    def wants(event: Event) -> bool:
        """All of the class PV."""
        return event.trace_class == "PV"

    def feed(self, chunk: Chunk) -> None:
        """The next records."""
        ours = (chunk.header >> np.uint32(16) & np.uint32(0xFFF)) == PV
        chunk = chunk.take(np.flatnonzero(ours & self.ground.on(chunk.cpu)))
        thing = np.zeros(len(chunk.ns), np.int64)
        for event, rows, _, columns in groups(chunk, self.ground.dialect):
            kind = NAMES.index(KINDS.get(event.event_id & 0xFFFF & ~_WIDE, OTHER))
            number: NDArray[Any] | int = columns.get("op", columns.get("trapnr", _NO_NUMBER))
            thing[rows] = kind << _NUMBER_BITS | number
        nobody = (chunk.domain == NOBODY) | (chunk.domain == IDLE_DOMAIN)
        rows = np.flatnonzero(~nobody)
        self._counts.at(packed(chunk.domain[rows], chunk.vcpu[rows], thing[rows]), chunk.ns[rows])
        self._unattributed.at(np.zeros(np.count_nonzero(nobody), np.int64), chunk.ns[nobody])

    def found(self, window: int) -> Pv:
        """What they come to in a window."""
        begin, end = self.ground.windows.span(window)
        span = end - begin
        counts: dict[tuple[int, int, int, int], int] = defaultdict(int)
        for key, count in self._counts.of(window).items():
            domain, vcpu, thing = unpacked(key)
            for whose in (_WHOLE, vcpu):
                counts[domain, whose, thing >> _NUMBER_BITS, thing & _NO_NUMBER] += count
        ordered = dict(sorted(counts.items()))
        return Pv(
            tuple(_events(ordered, span)),
            tuple(_hypercalls(ordered, span)),
            tuple(_traps(ordered, span)),
            sum(self._unattributed.of(window).values()),
        )


_WHOLE: Final = -1
"""Stands for all vCPUs of a domain; sorts first."""

_Counted = dict[tuple[int, int, int, int], int]


def _events(counts: _Counted, span: int) -> list[PvEvent]:
    found: dict[tuple[int, int, int], int] = defaultdict(int)
    for (domain, vcpu, kind, _), count in counts.items():
        found[domain, vcpu, kind] += count
    return [
        PvEvent(domain, _vcpu(vcpu), NAMES[kind], count, rate(count, span))
        for (domain, vcpu, kind), count in found.items()
    ]


def _hypercalls(counts: _Counted, span: int) -> list[Hypercall]:
    found: dict[tuple[int, int, int], dict[int, int]] = defaultdict(dict)
    for (domain, vcpu, kind, number), count in counts.items():
        if kind in (CALL, SUBCALL):
            found[domain, vcpu, number][kind] = count
    rows = []
    for (domain, vcpu, number), of in sorted(found.items()):
        calls, subcalls = of.get(CALL, 0), of.get(SUBCALL, 0)
        known = None if number == _NO_NUMBER else number
        name = "not known" if known is None else hypercall_name(known)
        rows.append(Hypercall(domain, _vcpu(vcpu), known, name, calls, subcalls, rate(calls + subcalls, span)))
    return rows


def _traps(counts: _Counted, span: int) -> list[Trap]:
    rows = []
    for (domain, vcpu, kind, number), count in counts.items():
        if kind == TRAP:
            known = None if number == _NO_NUMBER else number
            name = "not known" if known is None else exception_name(known)
            rows.append(Trap(domain, _vcpu(vcpu), known, name, count, rate(count, span)))
    return rows


def _vcpu(vcpu: int) -> int | None:
    return None if vcpu == _WHOLE else vcpu

"""Interrupts: what guests get and how long they run for it, what devices cost the host, which irq has which vector."""

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
from xtrace.host.tally import Spread, Tally, no_spread
from xtrace.host.wakes import ALONE, INJECTED, INTERRUPT, NO_VECTOR, WANTED, WakeStays
from xtrace.parsers.hvm import HANDLERS
from xtrace.parsers.hw import EVENTS as HW

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.host.walk import Chunk
    from xtrace.parsers.event import Event

RAISED: Final = {
    "TRC_HVM_INJ_EXC": "exception",
    "TRC_HVM_PF_INJECT": "page fault",
    "TRC_HVM_PF_INJECT64": "page fault",
    "TRC_HVM_REINJ_VIRQ": "interrupt again",
}
"""What else a guest is given, by event."""
_RAISED: Final = ("exception", "page fault", "interrupt again")

HANDLED: Final = "TRC_HW_IRQ_HANDLED"
MANAGED: Final = {
    "TRC_HW_IRQ_ASSIGN_VECTOR": "assigned",
    "TRC_HW_IRQ_BIND_VECTOR": "bound",
    "TRC_HW_IRQ_CLEAR_VECTOR": "cleared",
    "TRC_HW_IRQ_MOVE_CLEANUP_DELAY": "delayed",
    "TRC_HW_IRQ_MOVE_CLEANUP": "cleaned_up",
    "TRC_HW_IRQ_MOVE_FINISH": "moved",
    "TRC_HW_IRQ_UNMAPPED_VECTOR": "unmapped",
}
"""How vectors are managed, by event: fields of VectorUse."""
_MANAGED: Final = tuple(MANAGED.values())

_IDS: Final = (
    frozenset(event.event_id for event in HANDLERS if event.name in RAISED)
    | frozenset(event.event_id for event in HW if event.name == HANDLED or event.name in MANAGED)
    | WANTED
)
_HEADERS: Final = np.array(sorted(_IDS), np.uint32)
_IRQ_BITS: Final = 32
_NO_IRQ: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Injected:
    """Interrupts of one vector that a vCPU of an HVM or PVH guest was given. Quantiles are by time.

    vector     as the guest has it; None: the records hold none
    wake       from the VM entry that delivers the interrupt that woke the vCPU to when it blocks: any of them
    alone      of them those in which no other vector came
    interrupt  from the VM entry that delivers it to a vCPU that ran already to when it blocks
    """

    domain: int
    vcpu: int
    vector: int | None
    count: int
    per_s: float | None
    wake: Spread
    alone: Spread
    interrupt: Spread


@dataclass(frozen=True, slots=True)
class Raised:
    """What else a vCPU was given: exceptions, page faults, interrupts once more.

    kind    exception, page fault or interrupt again
    vector  None for page faults
    """

    domain: int
    vcpu: int
    kind: str
    vector: int | None
    name: str
    count: int
    per_s: float | None


@dataclass(frozen=True, slots=True)
class DeviceIrq:
    """An irq's handler in Xen. Quantiles are plain.

    cpu      None: on all
    count    how often it ran
    untimed  of these, when tracing came on in between: not in `time`
    percent  of the time of one CPU
    """

    irq: int
    cpu: int | None
    count: int
    untimed: int
    per_s: float | None
    percent: float | None
    time: Spread


@dataclass(frozen=True, slots=True)
class IrqCpu:
    """All irq handlers on a CPU; percent: of its time."""

    cpu: int
    count: int
    per_s: float | None
    total_ns: int
    percent: float | None


@dataclass(frozen=True, slots=True)
class VectorUse:
    """How often a vector was given to an irq, moved or taken from it.

    irq       None: interrupts of vectors that no irq had (`unmapped`)
    delayed   cleanups after a move that had to wait, as the old vector was pending
    moved     moves that ended, one a CPU that it was on
    """

    irq: int | None
    vector: int
    assigned: int = 0
    bound: int = 0
    cleared: int = 0
    delayed: int = 0
    cleaned_up: int = 0
    moved: int = 0
    unmapped: int = 0


@dataclass(frozen=True, slots=True)
class Interrupts:
    """Interrupts of a host in a span of time.

    guest     by domain, vCPU and vector
    raised    by domain, vCPU, kind and vector
    devices   by irq
    on_cpus   by irq and CPU
    cpus      by CPU
    vectors   by irq and vector
    unattributed  injections of which it is not known to whom, not in the rows
    """

    guest: tuple[Injected, ...]
    raised: tuple[Raised, ...]
    devices: tuple[DeviceIrq, ...]
    on_cpus: tuple[DeviceIrq, ...]
    cpus: tuple[IrqCpu, ...]
    vectors: tuple[VectorUse, ...]
    unattributed: int

    def df_guest(self) -> pd.DataFrame:
        """One row a vCPU and vector, in that order: count, and of each kind of stay count, total_ns and p50_ns."""
        rows = [
            {"domain": one.domain, "vcpu": one.vcpu, "vector": one.vector, "count": one.count}
            | _figures("wake", one.wake)
            | _figures("alone", one.alone)
            | _figures("interrupt", one.interrupt)
            for one in self.guest
        ]
        figures = {
            f"{kind}_{name}": dtype for kind in ("wake", "alone", "interrupt") for name, dtype in _DTYPES.items()
        }
        return frame(rows, {"domain": "uint16", "vcpu": "uint16", "vector": "Int64", "count": "int64", **figures})

    def df_devices(self) -> pd.DataFrame:
        """One row an irq and CPU: count, untimed, total_ns, p50_ns, max_ns."""
        rows = [
            {
                "irq": one.irq,
                "cpu": one.cpu,
                "count": one.count,
                "untimed": one.untimed,
                "total_ns": one.time.total_ns,
                "p50_ns": one.time.p50_ns,
                "max_ns": one.time.max_ns,
            }
            for one in self.on_cpus
        ]
        whole = dict.fromkeys(("count", "untimed", "total_ns"), "int64")
        return frame(rows, {"irq": "int64", "cpu": "uint16", **whole, "p50_ns": "Int64", "max_ns": "Int64"})


_DTYPES: Final = {"count": "int64", "total_ns": "int64", "p50_ns": "Int64"}


def _figures(kind: str, spread: Spread) -> dict[str, int | None]:
    return {f"{kind}_{name}": getattr(spread, name) for name in _DTYPES}


class InterruptsAccount(Account[Interrupts]):
    """Counts injections, follows them to the halt, adds up handlers."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        windows = ground.windows
        self._wakes = WakeStays(ground.dialect)
        self._injected, self._raised, self._vectors = Counts(windows), Counts(windows), Counts(windows)
        self._unattributed, self._untimed = Counts(windows), Counts(windows)
        self._wake, self._alone, self._interrupt = (Tally(windows, weighted=True) for _ in range(3))
        self._by_irq, self._on_cpu = Tally(windows), Tally(windows)

    @staticmethod
    def wants(event: Event) -> bool:
        """Injections and what ends them; the host's irqs."""
        return event.event_id in _IDS

    def feed(self, chunk: Chunk) -> None:
        """The next records."""
        self._stays(chunk)
        chunk = chunk.take(np.flatnonzero(np.isin(chunk.header & np.uint32(0x0FFF_FFFF), _HEADERS)))
        chunk = chunk.take(np.flatnonzero(self.ground.on(chunk.cpu)))
        for event, rows, _, columns in groups(chunk, self.ground.dialect):
            part = chunk.take(rows)
            if event.name == INJECTED:
                self._given(self._injected, part, np.minimum(columns["vector"], NO_VECTOR))
            elif event.name in RAISED:
                kind = _RAISED.index(RAISED[event.name])
                vector = columns.get("vector", np.full(len(rows), NO_VECTOR))
                self._given(self._raised, part, kind << 9 | np.minimum(vector, NO_VECTOR).astype(np.int64))
            elif event.name == HANDLED:
                self._handled(part, columns)
            elif event.name in MANAGED:
                self._managed(part, MANAGED[event.name], columns)

    def finish(self) -> None:
        """The capture ends."""
        self._wakes.finish()

    def _stays(self, chunk: Chunk) -> None:
        stays = self._wakes.feed(chunk)
        key = packed(stays.domain, stays.vcpu, stays.vector)
        on = self.ground.on(stays.cpu)
        for tally, chosen in (
            (self._wake, stays.kind != INTERRUPT),
            (self._alone, stays.kind == ALONE),
            (self._interrupt, stays.kind == INTERRUPT),
        ):
            rows = np.flatnonzero(on & chosen)
            tally.at(key[rows], stays.begin_ns[rows], stays.end_ns[rows] - stays.begin_ns[rows])

    def _given(self, counts: Counts, part: Chunk, thing: NDArray[Any]) -> None:
        nobody = (part.domain == NOBODY) | (part.domain == IDLE_DOMAIN)
        rows = np.flatnonzero(~nobody)
        counts.at(packed(part.domain[rows], part.vcpu[rows], thing[rows].astype(np.int64)), part.ns[rows])
        self._unattributed.at(np.zeros(np.count_nonzero(nobody), np.int64), part.ns[nobody])

    def _handled(self, part: Chunk, columns: dict[str, NDArray[Any]]) -> None:
        irq = columns["irq"].astype(np.int64)
        both = part.cpu.astype(np.int64) << _IRQ_BITS | irq
        # Both have only the low half of the cycle count; their difference is right for up to 2^32 cycles.
        cycles = columns["tsc_out"] - columns["tsc_in"]
        timed = columns["tsc_in"] != 0
        rows, others = np.flatnonzero(timed), np.flatnonzero(~timed)
        time = self.ground.clock.span_ns(cycles[rows].astype(np.int64))
        self._by_irq.at(irq[rows], part.ns[rows], time)
        self._on_cpu.at(both[rows], part.ns[rows], time)
        self._untimed.at(both[others], part.ns[others])

    def _managed(self, part: Chunk, what: str, columns: dict[str, NDArray[Any]]) -> None:
        irq = columns.get("irq", np.full(len(part.ns), _NO_IRQ)).astype(np.int64)
        vector = np.minimum(columns["vector"], 0xFFFF).astype(np.int64)
        self._vectors.at(irq << 20 | vector << 4 | _MANAGED.index(what), part.ns)

    def found(self, window: int) -> Interrupts:
        """What they come to in a window."""
        begin, end = self.ground.windows.span(window)
        span = end - begin
        devices, on_cpus = self._devices(window, span)
        return Interrupts(
            tuple(self._guest(window, span)),
            tuple(_raised(self._raised.of(window), span)),
            devices,
            on_cpus,
            tuple(_by_cpu(on_cpus, span)),
            tuple(_vectors(self._vectors.of(window))),
            sum(self._unattributed.of(window).values()),
        )

    def _guest(self, window: int, span: int) -> list[Injected]:
        counts = self._injected.of(window)
        spreads = [tally.spreads(window) for tally in (self._wake, self._alone, self._interrupt)]
        none = no_spread(weighted=True)
        rows = []
        for key in sorted(counts.keys() | spreads[0].keys() | spreads[2].keys()):
            domain, vcpu, vector = unpacked(key)
            count = counts.get(key, 0)
            wake, alone, interrupt = (one.get(key, none) for one in spreads)
            known = None if vector == NO_VECTOR else vector
            rows.append(Injected(domain, vcpu, known, count, rate(count, span), wake, alone, interrupt))
        return rows

    def _devices(self, window: int, span: int) -> tuple[tuple[DeviceIrq, ...], tuple[DeviceIrq, ...]]:
        untimed = self._untimed.of(window)
        by_irq: dict[int, int] = defaultdict(int)
        for key, count in untimed.items():
            by_irq[key & _NO_IRQ] += count
        spreads, on_cpu = self._by_irq.spreads(window), self._on_cpu.spreads(window)
        devices = (
            _device(irq, None, by_irq.get(irq, 0), spreads.get(irq, no_spread()), span)
            for irq in sorted(spreads.keys() | by_irq.keys())
        )
        both = (
            _device(key & _NO_IRQ, key >> _IRQ_BITS, untimed.get(key, 0), on_cpu.get(key, no_spread()), span)
            for key in on_cpu.keys() | untimed.keys()
        )
        return tuple(devices), tuple(sorted(both, key=lambda one: (one.irq, one.cpu)))


def _device(irq: int, cpu: int | None, untimed: int, time: Spread, span: int) -> DeviceIrq:
    count = time.count + untimed
    return DeviceIrq(irq, cpu, count, untimed, rate(count, span), _percent(time.total_ns, span), time)


def _percent(ns: int, span: int) -> float | None:
    return 100 * ns / span if span > 0 else None


def _by_cpu(devices: tuple[DeviceIrq, ...], span: int) -> list[IrqCpu]:
    cpus: dict[int, list[DeviceIrq]] = defaultdict(list)
    for one in devices:
        cpus[one.cpu or 0].append(one)
    rows = []
    for cpu, mine in sorted(cpus.items()):
        count, total = sum(one.count for one in mine), sum(one.time.total_ns for one in mine)
        rows.append(IrqCpu(cpu, count, rate(count, span), total, _percent(total, span)))
    return rows


def _raised(counts: dict[int, int], span: int) -> list[Raised]:
    rows = []
    for key, count in counts.items():
        domain, vcpu, thing = unpacked(key)
        kind, number = _RAISED[thing >> 9], thing & 0x1FF
        vector = None if number == NO_VECTOR else number
        name = exception_name(vector) if kind == "exception" and vector is not None else kind
        rows.append(Raised(domain, vcpu, kind, vector, name, count, rate(count, span)))
    return rows


def _vectors(counts: dict[int, int]) -> list[VectorUse]:
    uses: dict[tuple[int, int], dict[str, int]] = defaultdict(dict)
    for key, count in counts.items():
        uses[key >> 20, key >> 4 & 0xFFFF][_MANAGED[key & 0xF]] = count
    return [
        VectorUse(None if irq == _NO_IRQ else irq, vector, **counted) for (irq, vector), counted in sorted(uses.items())
    ]

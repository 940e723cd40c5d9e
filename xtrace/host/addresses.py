"""Addresses: where guests exited, what they accessed that Xen emulates, which address spaces they used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xtrace.contract import frame
from xtrace.host import exit_rows
from xtrace.host.account import Account, packed, unpacked
from xtrace.host.cr3 import AddressSpace, AddressSpaces
from xtrace.host.exit_kinds import Kind
from xtrace.host.exit_rows import ExitReader
from xtrace.host.heaviest import Heaviest, LeftOut
from xtrace.host.numbering import Numbering
from xtrace.host.shadow_paths import EMULATE
from xtrace.host.tally import Spread, Tally
from xtrace.parsers.vectors import exit_name, vector_name

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.host.account import Ground
    from xtrace.host.exit_rows import ExitRows
    from xtrace.host.walk import Chunk, Ints
    from xtrace.parsers.event import Event

DOMAIN_SHIFT: Final = 32
"""A key of `Heaviest`: domain, and a number of 32 bits."""
NO_VECTOR: Final = (1 << DOMAIN_SHIFT) - 1

MAX_PLACES: Final = 20_000
"""Different ports and addresses of emulated memory, reads and writes apart, that are told apart."""
REST: Final = -1
PORT, MMIO = 0, 1


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction's address in a domain; `what`, the reason or the vector, is None where of all.

    count, total_ns  exits there, and the time until the guest went on
    mean_ns          total / count
    """

    domain: int
    address: int
    what: str | None
    count: int
    total_ns: int
    mean_ns: float


@dataclass(frozen=True, slots=True)
class Access:
    """Reads, or writes, of one I/O port or guest-physical address by a vCPU, as exits that Xen handled.

    address    None: of those beyond the first 20,000
    direction  read, write; both where the address is None
    percent    of the span of time
    """

    domain: int
    vcpu: int
    address: int | None
    direction: str
    percent: float | None
    time: Spread


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses of a span of time.

    hottest      where guests exited, by domain, reason and address, most time first
    interrupted  where host interrupts hit guests, by domain, vector and address; without a vector on SVM
    emulated     instructions that shadow paging emulated, by domain and address
    …_left_out   what was forgotten of each for want of room; None: nothing
    ports, mmio  accesses by vCPU and address; where several pieces of one access were emulated, its last counts
    spaces       address spaces, where writes to CR3 are seen
    """

    hottest: tuple[Instruction, ...]
    hottest_left_out: LeftOut | None
    interrupted: tuple[Instruction, ...]
    interrupted_left_out: LeftOut | None
    emulated: tuple[Instruction, ...]
    emulated_left_out: LeftOut | None
    ports: tuple[Access, ...]
    mmio: tuple[Access, ...]
    spaces: tuple[AddressSpace, ...]

    def df_hottest(self) -> pd.DataFrame:
        """One row a domain, reason and address at which it exited: domain, address, what, count, total_ns, mean_ns."""
        return _frame(self.hottest)

    def df_interrupted(self) -> pd.DataFrame:
        """One row a domain, vector and address that it interrupted: domain, address, what, count, total_ns, mean_ns."""
        return _frame(self.interrupted)


def _frame(rows: tuple[Instruction, ...]) -> pd.DataFrame:
    names = ("domain", "address", "what", "count", "total_ns", "mean_ns")
    kinds = ("int64", "uint64", "str", "int64", "int64", "float64")
    return frame(({name: getattr(one, name) for name in names} for one in rows), dict(zip(names, kinds, strict=True)))


class AddressesAccount(Account[Addresses]):
    """Counts VM exits by address; state is followed on all CPUs, exits count that begin on those selected."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._reader = ExitReader(ground.dialect)
        self._hottest, self._interrupted, self._emulated = (Heaviest(ground.windows) for _ in range(3))
        self._places = Numbering(MAX_PLACES)
        self._access = Tally(ground.windows)
        self._spaces = AddressSpaces(ground.windows)

    @staticmethod
    def wants(event: Event) -> bool:
        """What rows of VM exits are made from."""
        return exit_rows.wants(event)

    def feed(self, chunk: Chunk) -> None:
        """The next records."""
        rows = self._reader.feed(chunk)
        selected = self.ground.on(rows.cpu)
        self._spaces.feed(rows, selected)
        rows = rows.take(np.flatnonzero(selected))
        if not len(rows.begin_ns):
            return
        time = rows.end_ns - rows.begin_ns
        domain = rows.domain.astype(np.int64) << DOMAIN_SHIFT
        self._hottest.at(domain | rows.reason, rows.rip, rows.begin_ns, time)
        hit = np.flatnonzero(rows.kind == Kind.INTERRUPT)
        vector = np.where(rows.vector >= 0, rows.vector.astype(np.int64), NO_VECTOR)
        self._interrupted.at((domain | vector)[hit], rows.rip[hit], rows.begin_ns[hit], time[hit])
        emulated = np.flatnonzero((rows.kind == Kind.PAGE_FAULT) & (rows.number == EMULATE))
        self._emulated.at(domain[emulated], rows.rip[emulated], rows.begin_ns[emulated], time[emulated])
        port = np.flatnonzero((rows.kind == Kind.PORT_READ) | (rows.kind == Kind.PORT_WRITE))
        self._touch(rows, PORT, port, rows.number.astype(np.uint64), rows.kind == Kind.PORT_WRITE)
        self._touch(rows, MMIO, np.flatnonzero(rows.access), rows.gpa, rows.access == Kind.MMIO_WRITE)

    def _touch(self, rows: ExitRows, kind: int, chosen: Ints, address: Any, write: Any) -> None:
        if not len(chosen):
            return
        # Guest-physical addresses have 52 bits at most.
        place = (address[chosen] & np.uint64((1 << 60) - 1)).astype(np.int64)
        code = place << 2 | kind << 1 | write[chosen]
        number = self._places.of(code, np.full(len(code), REST - kind))
        key = packed(rows.domain[chosen], rows.vcpu[chosen], number)
        self._access.at(key, rows.begin_ns[chosen], (rows.end_ns - rows.begin_ns)[chosen])

    def finish(self) -> None:
        """The capture ends."""
        self._reader.finish()
        self._spaces.finish()

    def found(self, window: int) -> Addresses:
        """What they come to in a window."""
        vendor = self.ground.dialect.vendor
        hottest = _instructions(self._hottest, window, lambda reason: exit_name(reason, vendor))
        interrupted = _instructions(self._interrupted, window, _vector)
        emulated = _instructions(self._emulated, window, lambda _: None)
        ports, mmio = (self._accesses(window, kind) for kind in (PORT, MMIO))
        return Addresses(*hottest, *interrupted, *emulated, ports, mmio, self._spaces.found(window))

    def _accesses(self, window: int, kind: int) -> tuple[Access, ...]:
        begin, end = self.ground.windows.span(window)
        found = []
        for key, time in self._access.spreads(window).items():
            domain, vcpu, number = unpacked(key)
            code = self._places.codes[number]
            if (REST - code if code < 0 else code >> 1 & 1) != kind:
                continue
            address, direction = (None, "both") if code < 0 else (code >> 2, "write" if code & 1 else "read")
            percent = 100 * time.total_ns / (end - begin) if end > begin else None
            found.append(Access(domain, vcpu, address, direction, percent, time))
        return tuple(
            sorted(found, key=lambda one: (one.domain, one.vcpu, one.address is None, one.address, one.direction))
        )


def _instructions(heaviest: Heaviest, window: int, named: Any) -> tuple[tuple[Instruction, ...], LeftOut | None]:
    rows, left = heaviest.found(window)
    mask = (1 << DOMAIN_SHIFT) - 1
    return (
        tuple(
            Instruction(
                one.key >> DOMAIN_SHIFT,
                one.address,
                named(one.key & mask),
                one.count,
                one.total_ns,
                one.total_ns / one.count,
            )
            for one in rows
        ),
        left,
    )


def _vector(number: int) -> str | None:
    return None if number == NO_VECTOR else f"{vector_name(number)} (0x{number:02x})"

"""Guest address spaces, where writes to CR3 are seen: shadow paging, and guests without paging of their own.

A vCPU is in the address space of the last CR3 value whose write ended. Times before the first write, and after records
were lost until the next one, are not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from xtrace.host.exit_kinds import Kind
from xtrace.host.exit_rows import ExitRows
from xtrace.host.exits import MIX, mix_of
from xtrace.host.numbering import Numbering
from xtrace.host.tally import Spread, Tally, no_spread

if TYPE_CHECKING:
    from xtrace.host.walk import Ints
    from xtrace.host.windows import Windows

NOFLUSH: Final = np.uint64((1 << 63) - 1)
"""Bit 63 of a value written says that nothing need be flushed; it is not part of the register."""
FRAME_SHIFT: Final = np.uint64(12)
REST: Final = -1
DOMAIN_SHIFT: Final = 44
"""An address space's code: domain, page frame of 40 bits."""
FRAME_MASK: Final = np.uint64((1 << 40) - 1)
GROUP_SHIFT: Final = 16
MAX_HELD: Final = 3 << 16
"""Exits remembered, three a vCPU; more vCPUs are only in a made-up file."""


@dataclass(frozen=True, slots=True)
class Group:
    """Exits of one of the ten groups (exits.MIX) in an address space."""

    group: str
    time: Spread


@dataclass(frozen=True, slots=True)
class AddressSpace:
    """One value of CR3 in a domain.

    cr3         address of its top page table; None: of those beyond the first 4096
    first_ns    when it was first loaded, in all of the trace
    last_ns     when it was last left; None: never
    loads       how often it was loaded in place of another; flushes: how often again
    stay        time from a load until another was loaded by that vCPU, stay by stay
    guest, hypervisor  time of these stays in the guest, and in exits
    mix         exits by group

    Quantiles are weighted by time.
    """

    domain: int | None
    cr3: int | None
    first_ns: int | None
    last_ns: int | None
    loads: int
    flushes: int
    stay: Spread
    guest: Spread
    hypervisor: Spread
    mix: tuple[Group, ...]


class AddressSpaces:
    """Follows the CR3 of each vCPU through its exits."""

    def __init__(self, windows: Windows) -> None:
        self._spaces = Numbering()
        self._load, self._flush = Tally(windows), Tally(windows)
        self._stay, self._guest, self._hypervisor, self._mix = (Tally(windows, weighted=True) for _ in range(4))
        self._seen: dict[int, list[int | None]] = {}
        self._held: ExitRows | None = None

    def feed(self, rows: ExitRows, selected: NDArray[np.bool_]) -> None:
        """The next exits in the order in which they ended; those not selected only tell CR3."""
        writes = _is_write(rows)
        if self._held is None and not writes.any():
            return
        old = 0
        if self._held is not None:
            old = len(self._held.begin_ns)
            pairs: Any = zip(self._held, rows, strict=True)
            rows = ExitRows(*map(np.concatenate, pairs))
        counts = np.append(np.zeros(old, np.bool_), selected)
        key = rows.domain.astype(np.int64) << 16 | rows.vcpu
        order = np.argsort(key, kind="stable")
        self._follow(rows.take(order), key[order], counts[order], order >= old)

    def finish(self) -> None:
        """The capture ends."""
        self._held = None

    def _follow(self, rows: ExitRows, key: Ints, counts: NDArray[np.bool_], new: NDArray[np.bool_]) -> None:
        """Exits by vCPU, in order of time."""
        count = len(key)
        write = _is_write(rows)
        value = rows.value & NOFLUSH
        latest = np.maximum.accumulate(np.where(write, np.arange(count), -1))
        before = np.append(-1, latest[:-1])

        def known(place: Ints) -> NDArray[np.bool_]:
            """Whether the write at that place still holds at each row."""
            found: NDArray[np.bool_] = (place >= 0) & (key[place] == key) & (rows.era[place] == rows.era)
            return found

        is_before, is_after = known(before), known(latest)
        same = write & is_before & (value == value[before])
        load = write & ~same
        space = self._space_of(rows, value)
        begins = np.maximum.accumulate(np.where(load, np.arange(count), -1))
        loaded = np.append(-1, begins[:-1])
        left = np.flatnonzero(load & new & counts & known(loaded))
        self._stay.over(space[loaded[left]], rows.end_ns[loaded[left]], rows.end_ns[left])
        group = mix_of(rows)
        hypervisor, time = np.flatnonzero(is_after & new & counts), rows.end_ns - rows.begin_ns
        self._hypervisor.at(space[latest[hypervisor]], rows.begin_ns[hypervisor], time[hypervisor])
        mixed = np.flatnonzero(is_before & new & counts)
        self._mix.at(space[before[mixed]] + group[mixed] * (1 << GROUP_SHIFT), rows.begin_ns[mixed], time[mixed])
        follower = np.flatnonzero(
            np.append(False, (key[1:] == key[:-1]) & rows.entered[:-1]) & is_before & new & counts
        )
        self._guest.over(space[before[follower]], rows.end_ns[follower - 1], rows.begin_ns[follower])
        nothing = np.zeros(count, np.int64)
        for tally, chosen in ((self._load, load & new & counts), (self._flush, same & new & counts)):
            tally.at(space[chosen], rows.end_ns[chosen], nothing[chosen])
        self._note(space, rows.end_ns, np.flatnonzero(load & new), loaded, known(loaded))
        last = np.append(key[1:] != key[:-1], True)
        kept = last & (latest >= 0) & (key[latest] == key)
        held = np.unique(np.concatenate((np.flatnonzero(kept), latest[kept], begins[kept])))
        held = held[-MAX_HELD:]
        self._held = rows.take(held) if len(held) else None

    def _space_of(self, rows: ExitRows, value: NDArray[np.uint64]) -> Ints:
        """The key of the address space that each exit loads, if it does."""
        write = np.flatnonzero(_is_write(rows))
        found = np.zeros(len(value), np.int64)
        frame = (value[write] >> FRAME_SHIFT & FRAME_MASK).astype(np.int64)
        codes = rows.domain[write].astype(np.int64) << DOMAIN_SHIFT | frame
        found[write] = self._spaces.of(codes, np.full(len(write), REST))
        return found

    def _note(self, space: Ints, ns: Ints, loads: Ints, loaded: Ints, known: NDArray[np.bool_]) -> None:
        """When each was first loaded and last left."""
        left = loads[known[loads]]
        for place, of, extreme in ((0, space[loads], np.minimum), (1, space[loaded[left]], np.maximum)):
            when = ns[loads if place == 0 else left]
            distinct, first, inverse = np.unique(of, return_index=True, return_inverse=True)
            most = when[first]
            extreme.at(most, inverse, when)
            for one, value in zip(distinct.tolist(), most.tolist(), strict=True):
                seen = self._seen.setdefault(one, [None, None])
                known_value = seen[place]
                seen[place] = value if known_value is None else int(extreme(known_value, value))

    def found(self, window: int) -> tuple[AddressSpace, ...]:
        """Those of which anything was counted in a window, most time first."""
        tallies = (self._load, self._flush, self._stay, self._guest, self._hypervisor)
        load, flush, stay, guest, hypervisor = (tally.spreads(window) for tally in tallies)
        mixes: dict[int, list[Group]] = {}
        for key, time in self._mix.spreads(window).items():
            mixes.setdefault(key & (1 << GROUP_SHIFT) - 1, []).append(Group(MIX[key >> GROUP_SHIFT], time))
        rows = []
        for space in sorted({*load, *flush, *stay, *guest, *hypervisor, *mixes}):
            code = self._spaces.codes[space]
            frame = code & int(FRAME_MASK)
            domain, cr3 = (None, None) if code == REST else (code >> DOMAIN_SHIFT, frame << int(FRAME_SHIFT))
            first, last = self._seen.get(space, [None, None])
            loads, flushes = (one[space].count if space in one else 0 for one in (load, flush))
            stays, inside, exits = (one.get(space, no_spread(weighted=True)) for one in (stay, guest, hypervisor))
            mix = tuple(mixes.get(space, ()))
            rows.append(AddressSpace(domain, cr3, first, last, loads, flushes, stays, inside, exits, mix))
        return tuple(sorted(rows, key=lambda one: -(one.guest.total_ns + one.hypervisor.total_ns)))


def _is_write(rows: ExitRows) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (rows.kind == Kind.CR_WRITE) & (rows.number == 3) & rows.has_value
    return found

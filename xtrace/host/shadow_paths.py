"""What shadow paging did while it handled VM exits, beyond the kind of fault: a fault may be in several of these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from xtrace.host.exit_kinds import Kind
from xtrace.host.exit_rows import UNPIN_FLAG, WRMAP_FLAG

if TYPE_CHECKING:
    from xtrace.host.exit_rows import ExitRows

Mask = NDArray[np.bool_]

HANDLED, FIXUP, EMULATE = 0, 6, 8
"""Kinds of faults that say more (SHADOW_FAULTS)."""
MAX_RESYNCS: Final = 17
"""CR3 writes that synchronized so many pages or more are counted together."""

SET_CHANGED, SET_FLUSH, SET_ERROR, DEMOTE, PROMOTE, WRMAP = (1 << bit for bit in (5, 6, 7, 8, 9, 10))
BRUTE_FORCE, EARLY_UNSHADOW, UNHOOK, UNSYNC, OOS_ADD, OOS_EVICT = (1 << bit for bit in (12, 13, 17, 18, 19, 20))
"""Bits of the path that was taken (xen/arch/x86/mm/shadow/private.h, TRCE_SFLAG_*)."""

EMULATE_FLAGS: Final = {
    "early unshadow": EARLY_UNSHADOW,
    "entry changed": SET_CHANGED,
    "TLB flush needed": SET_FLUSH,
    "entry in error": SET_ERROR,
    "promote": PROMOTE,
    "demote": DEMOTE,
    "unpin": int(UNPIN_FLAG),
    "unhook": UNHOOK,
}
FIXUP_FLAGS: Final = {
    "unpin": int(UNPIN_FLAG),
    "unsync": UNSYNC,
    "out-of-sync fixup added": OOS_ADD,
    "out-of-sync fixup evicted": OOS_EVICT,
    "promote": PROMOTE,
    "write-protect": WRMAP,
    "write-protect, all shadows searched": BRUTE_FORCE | int(WRMAP_FLAG),
}


def paths(rows: ExitRows) -> Iterator[tuple[str, Mask]]:
    """Names of paths, and which of these exits took them; such as no exit took are left out."""
    fault = rows.kind == Kind.PAGE_FAULT
    cr3 = (rows.kind == Kind.CR_WRITE) & (rows.number == 3)
    if fault.any() or cr3.any():
        for name, taken in (*_emulate(rows, fault), *_fixup(rows, fault), *_handled(rows, fault), *_cr3(rows, cr3)):
            if taken.any():
                yield name, taken


def _emulate(rows: ExitRows, fault: Mask) -> Iterator[tuple[str, Mask]]:
    emulate = fault & (rows.number == EMULATE)
    level = linear_level(rows.address, rows.levels)
    for one in range(5):
        yield f"emulate: {f'linear map, level {one}' if one else 'no linear map'}", emulate & (level == one)
    for name, flag in EMULATE_FLAGS.items():
        yield f"emulate: {name}", emulate & _has(rows, flag)
    yield "emulate: entry unchanged", emulate & ~_has(rows, SET_CHANGED)


def _fixup(rows: ExitRows, fault: Mask) -> Iterator[tuple[str, Mask]]:
    fixup = fault & (rows.number == FIXUP)
    for name, flag in FIXUP_FLAGS.items():
        yield f"fixup: {name}", fixup & _has(rows, flag)
    unsync = fixup & _has(rows, UNSYNC)
    for count, told in enumerate(("no resync", "1 resync")):
        yield f"fixup: unsync, {told}", unsync & (rows.resyncs == count)
    yield "fixup: unsync, 2 or more resyncs", unsync & (rows.resyncs >= 2)
    yield "fixup: entry updated only", fixup & ~_has(rows, PROMOTE | int(UNPIN_FLAG) | UNSYNC)


def _handled(rows: ExitRows, fault: Mask) -> Iterator[tuple[str, Mask]]:
    handled = fault & (rows.number == HANDLED)
    for what, address in (("address", rows.address), ("instruction", rows.rip)):
        kernel = address >> np.where(rows.levels == 4, 47, 31).astype(np.uint64) & np.uint64(1) != 0
        yield f"handled: {what} of the kernel", handled & kernel
        yield f"handled: {what} of user space", handled & ~kernel


def _cr3(rows: ExitRows, cr3: Mask) -> Iterator[tuple[str, Mask]]:
    for count in np.unique(np.minimum(rows.resyncs[cr3], MAX_RESYNCS)).tolist():
        told = {0: "no resync", 1: "1 resync", MAX_RESYNCS: f"{MAX_RESYNCS} or more resyncs"}.get(
            count, f"{count} resyncs"
        )
        yield f"write CR3: {told}", cr3 & (np.minimum(rows.resyncs, MAX_RESYNCS) == count)


def _has(rows: ExitRows, flag: int) -> Mask:
    found: Mask = rows.flags & np.uint32(flag) != 0
    return found


def linear_level(address: NDArray[np.uint64], levels: NDArray[Any]) -> NDArray[np.int8]:
    """Which level of page tables an address is in by Windows' linear map of them; 0: in none.

    The map is a slot of the top level that points back at it: 768 of 1024 (2 levels), the first four entries of slot 3
    (3 levels), 0x1ed of 512 (4 levels). An address with that slot once at the top is in the map, once more below it
    in the next level's, and so on.
    """
    found = np.zeros(len(address), np.int8)

    def index(bits: int, shift: int) -> NDArray[np.uint64]:
        return address >> np.uint64(shift) & np.uint64((1 << bits) - 1)

    def mark(guest: int, slots: list[Mask]) -> None:
        inside = levels == guest
        for level, slot in enumerate(slots, 1):
            inside = inside & slot
            found[inside] = level

    mark(2, [index(10, 22) == 768, index(10, 12) == 768])
    top, middle, low, entry = index(2, 30), index(9, 21), index(9, 12), index(9, 3)
    four = np.uint64(2)
    mark(3, [(top == 3) & (middle >> four == 0), (middle == 3) & (low >> four == 0), (low == 3) & (entry >> four == 0)])
    mark(4, [index(9, shift) == 0x1ED for shift in (39, 30, 21, 12)])
    return found

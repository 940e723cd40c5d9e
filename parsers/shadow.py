"""TRC_SHADOW: shadow paging (xen/arch/x86/mm/shadow).

Bits 8–9 of most ids are the guest's paging levels minus two: 0x100 is PAE here, never "64-bit". A page-table
entry or frame number is 64 bits wide from PAE on, an address only with four levels.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from construct import Construct

from xtrace.parsers.event import Event
from xtrace.parsers.fields import Bits, Struct, u32, u64

FLAGS: Final = "flags: bits of the path taken (shadow/private.h)"

UNSHADOW: Final = (
    (0x09, "TRC_SHADOW_EMULATE_UNSHADOW_USER"),
    (0x0A, "TRC_SHADOW_EMULATE_UNSHADOW_EVTINJ"),
    (0x0B, "TRC_SHADOW_EMULATE_UNSHADOW_UNHANDLED"),
)

Gfn = Struct("gfn" / u64)

emulation = partial(Event, source="xen/arch/x86/mm/shadow/multi.c", timestamped=False)
frame = partial(Event, payload=Gfn, timestamped=False)


def guest_events(
    levels: int, guest: str, entry: Construct[Any, Any], address: Construct[Any, Any]
) -> tuple[Event, ...]:
    """The events of a guest with this many paging levels, entries and addresses this wide."""
    fault = Struct("gl1e" / entry, "va" / address, "flags" / u32)
    place = Struct("va" / address)
    emulate = Struct(
        "gl1e" / entry,
        "write_val" / entry,
        "va" / address,
        "fe" / Bits(u32, flags=(0, 28), emulation_count=(29, 31)),
    )
    unshadow = Struct("gfn" / entry, "va" / address)
    unshadow_flags = Struct(*unshadow.subcons, "flags" / u32)

    base = 0x040F000 | levels - 2 << 8
    of_guest = partial(emulation, variant=guest, constants={"paging_levels": levels})
    of_418 = partial(of_guest, variant=f"{guest}, 4.17-4.18", until=18)
    of_419 = partial(of_guest, variant=f"{guest}, since 4.19", since=19)
    return (
        of_guest(base | 0x01, "TRC_SHADOW_NOT_SHADOW", fault, units=FLAGS),
        of_guest(base | 0x02, "TRC_SHADOW_FAST_PROPAGATE", place, units="fault passed to the guest"),
        of_guest(base | 0x03, "TRC_SHADOW_FAST_MMIO", place),
        of_guest(base | 0x04, "TRC_SHADOW_FALSE_FAST_PATH", place),
        of_guest(base | 0x05, "TRC_SHADOW_MMIO", place),
        of_guest(base | 0x06, "TRC_SHADOW_FIXUP", fault, units=FLAGS),
        of_guest(base | 0x07, "TRC_SHADOW_DOMF_DYING", place),
        of_guest(base | 0x08, "TRC_SHADOW_EMULATE", emulate, units=f"{FLAGS}; emulation_count: only valid for PAE"),
        *(of_418(base | minor, name, unshadow) for minor, name in UNSHADOW),
        *(of_419(base | minor, name, unshadow_flags, units=FLAGS) for minor, name in UNSHADOW),
    )


EVENTS = (
    *guest_events(2, "2-level guest (no flag)", u32, u32),
    *guest_events(3, "3-level PAE guest (0x100)", u64, u32),
    *guest_events(4, "4-level guest (0x200)", u64, u64),
    frame(0x040F00C, "TRC_SHADOW_WRMAP_BF", source="xen/arch/x86/mm/shadow/common.c"),
    frame(0x040F00D, "TRC_SHADOW_PREALLOC_UNPIN", source="xen/arch/x86/mm/shadow/common.c"),
    frame(0x040F00E, "TRC_SHADOW_RESYNC_FULL", source="xen/arch/x86/mm/shadow/oos.c (common.c in 4.17)"),
    frame(0x040F00F, "TRC_SHADOW_RESYNC_ONLY", source="xen/arch/x86/mm/shadow/oos.c (common.c in 4.17)"),
)

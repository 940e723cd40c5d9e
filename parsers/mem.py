"""TRC_MEM: grants, p2m changes, reservations and populate-on-demand (xen/include/public/trace.h).

Xen 4.17 packed domain and order in one word and sent a word of stack garbage after it; 4.18 gave each a word.
Both forms have one length, so only the release tells them apart.
"""

from __future__ import annotations

from functools import partial

from xtrace.parsers.event import Event
from xtrace.parsers.fields import Struct, i16, u16, u32, u64

Domain = Struct("domid" / u32)
SetP2mEntry = Struct("gfn" / u64, "mfn" / u64, "p2mt" / u32, "domid" / u16, "order" / u16)

Extent417 = Struct("gfn" / u64, "domid" / i16, "order" / i16, "pad" / u32)
Extent = Struct("gfn" / u64, "domid" / u32, "order" / u32)
MappedExtent417 = Struct("gfn" / u64, "mfn" / u64, "domid" / i16, "order" / i16, "pad" / u32)
MappedExtent = Struct("gfn" / u64, "mfn" / u64, "domid" / u32, "order" / u32)
Splinter417 = Struct("gfn" / u64, "domid" / i16, "pad" / u16, "pad2" / u32)

grant = partial(Event, source="xen/common/grant_table.c")
reservation = partial(Event, source="xen/common/memory.c", timestamped=False)
pod = partial(Event, source="xen/arch/x86/mm/p2m-pod.c", timestamped=False)

EVENTS = (
    grant(0x010F001, "TRC_MEM_PAGE_GRANT_MAP", Domain, units="domid: the granting domain"),
    grant(0x010F002, "TRC_MEM_PAGE_GRANT_UNMAP", Domain, units="domid: the granting domain"),
    grant(0x010F003, "TRC_MEM_PAGE_GRANT_TRANSFER", Domain, units="domid: the receiving domain"),
    Event(
        0x010F004,
        "TRC_MEM_SET_P2M_ENTRY",
        SetP2mEntry,
        source="xen/arch/x86/mm/p2m-pt.c",
        timestamped=False,
        units="p2mt: p2m type number; shadow paging and SVM only",
    ),
    reservation(0x010F005, "TRC_MEM_DECREASE_RESERVATION", Extent417, variant="4.17", until=17),
    reservation(0x010F005, "TRC_MEM_DECREASE_RESERVATION", Extent, variant="since 4.18", since=18),
    pod(0x010F010, "TRC_MEM_POD_POPULATE", MappedExtent417, variant="4.17", until=17),
    pod(0x010F010, "TRC_MEM_POD_POPULATE", MappedExtent, variant="since 4.18", since=18),
    pod(0x010F011, "TRC_MEM_POD_ZERO_RECLAIM", MappedExtent417, variant="4.17", until=17),
    pod(0x010F011, "TRC_MEM_POD_ZERO_RECLAIM", MappedExtent, variant="since 4.18", since=18),
    pod(0x010F012, "TRC_MEM_POD_SUPERPAGE_SPLINTER", Splinter417, variant="4.17", until=17),
    pod(0x010F012, "TRC_MEM_POD_SUPERPAGE_SPLINTER", Extent, variant="since 4.18", since=18),
)

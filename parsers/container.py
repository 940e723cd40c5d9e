"""The container: what frames the records of an xentrace file (xen/common/trace.c, tools/xentrace/xentrace.c).

A file is a stream of records and nothing else: header word, no or two cycle words, up to seven payload words.
"""

from __future__ import annotations

from xtrace.parsers.event import Event
from xtrace.parsers.fields import Array, Bits, Struct, i32, u16, u32, u64, words_of

RecordHeader = Bits(u32, event_id=(0, 27), words=(28, 30), timestamped=(31, 31))
"""The header word; `words` counts those after the cycle count."""

CpuChange = Struct("cpu" / i32, "window_size" / u32)
LostRecords = Struct("lost" / u32, "domid" / u16, "vcpuid" / u16, "first_tsc" / u64)

CPU_CHANGE_HEADER = 0x2001F003
"""The header word of every CPU_CHANGE record: id 0x1f003, two words, no cycle count."""

WINDOW_HEADER_BYTES = 12
MAX_CPU = 16382
"""Xen's NR_CPUS may be at most 16,383, numbers start at 0 and may be sparse."""

LOST_RECORDS = Event(
    0x001F001,
    "TRC_LOST_RECORDS",
    LostRecords,
    units="first_tsc: cycle count of the first dropped record; domid/vcpuid current when space came back",
    source="xen/common/trace.c",
)

CPU_CHANGE = Event(
    0x001F003,
    "TRC_TRACE_CPU_CHANGE",
    CpuChange,
    variant="file framing",
    units="window_size: bytes that follow, without these 12",
    source="tools/xentrace/xentrace.c",
    timestamped=False,
)

EVENTS = (
    LOST_RECORDS,
    Event(
        0x001F002,
        "TRC_TRACE_WRAP_BUFFER",
        words_of("stale"),
        variant="filler, no cycles",
        source="xen/common/trace.c",
        timestamped=False,
    ),
    Event(
        0x001F002,
        "TRC_TRACE_WRAP_BUFFER",
        Struct("stale" / Array(6, u32)),
        variant="filler, with cycles",
        source="xen/common/trace.c",
    ),
    CPU_CHANGE,
)

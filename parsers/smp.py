"""TRC_HW_SMP: cross-CPU function calls and TLB flushes, the project's own tracepoints (docs/tracepoints.md).

They live in a subclass of TRC_HW that stock Xen leaves free. `seq` counts per initiating CPU and per kind.
"""

from __future__ import annotations

from typing import Final

from xtrace.parsers.event import Event
from xtrace.parsers.fields import Bits, Struct, u32, u64

SOURCE: Final = "docs/tracepoints.md"

CallStart = Struct("seq" / u32, "func" / u64, "flags" / Bits(u32, wait=(0, 0), n_cpus=(16, 31)))
FlushStart = Struct("seq" / u32, "va" / u64, "flush_flags" / u32)
Send = Struct("seq" / u32, "first_cpu" / u32, "mask" / u64)
Done = Struct("seq" / u32)
Served = Struct("initiator_cpu" / u32, "seq" / u32)
"""What a target notes before and after it serves a request."""

CALL_START: Final = 0x0804001
CALL_SEND: Final = 0x0804002
CALL_DONE: Final = 0x0804003
CALL_ENTER: Final = 0x0804004
CALL_EXIT: Final = 0x0804005
FLUSH_START: Final = 0x0804011
FLUSH_SEND: Final = 0x0804012
FLUSH_DONE: Final = 0x0804013
FLUSH_ENTER: Final = 0x0804014
FLUSH_EXIT: Final = 0x0804015

EVENTS = (
    Event(
        CALL_START,
        "SMP_CALL_START",
        CallStart,
        source=SOURCE,
        units="func: hypervisor text address, 0 = only take the interrupt; n_cpus: CPUs in the mask",
    ),
    Event(CALL_SEND, "SMP_CALL_SEND", Send, source=SOURCE, units="mask: CPUs first_cpu … first_cpu + 63"),
    Event(CALL_DONE, "SMP_CALL_DONE", Done, source=SOURCE),
    Event(CALL_ENTER, "SMP_CALL_ENTER", Served, source=SOURCE),
    Event(CALL_EXIT, "SMP_CALL_EXIT", Served, source=SOURCE),
    Event(FLUSH_START, "TLB_FLUSH_START", FlushStart, source=SOURCE, units="flush_flags: Xen's FLUSH_* bits"),
    Event(FLUSH_SEND, "TLB_FLUSH_SEND", Send, source=SOURCE, units="mask: CPUs first_cpu … first_cpu + 63"),
    Event(FLUSH_DONE, "TLB_FLUSH_DONE", Done, source=SOURCE),
    Event(FLUSH_ENTER, "TLB_FLUSH_ENTER", Served, source=SOURCE),
    Event(FLUSH_EXIT, "TLB_FLUSH_EXIT", Served, source=SOURCE),
)

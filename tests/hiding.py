"""Instrumented traces as a stock hypervisor would have written them: without the tracepoints."""

from __future__ import annotations

import struct

from xtrace.parsers import smp
from xtrace.parsers.container import CPU_CHANGE_HEADER

_SMP = frozenset(event.event_id for event in smp.EVENTS)


def without_tracepoints(content: bytes) -> bytes:
    """The same windows without the records of TRC_HW_SMP; the windows say how long they are now."""
    out = bytearray()
    window = at = 0
    while at < len(content):
        (header,) = struct.unpack_from("<I", content, at)
        size = 4 * (1 + (header >> 28 & 7) + 2 * (header >> 31))
        if header == CPU_CHANGE_HEADER:
            window = len(out)
        if header & 0x0FFFFFFF not in _SMP:
            out += content[at : at + size]
            struct.pack_into("<I", out, window + 8, len(out) - window - 12)
        at += size
    return bytes(out)

"""What is declared of one trace event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from construct import Construct, SizeofError

from xtrace.parsers.fields import words_of
from xtrace.parsers.vendor import Vendor

CLASSES = {
    0x001: "GEN",
    0x002: "SCHED",
    0x004: "DOM0OP",
    0x008: "HVM",
    0x010: "MEM",
    0x020: "PV",
    0x040: "SHADOW",
    0x080: "HW",
    0x800: "GUEST",
}
"""Trace classes by bits 16–27 of an event id, one bit each (xen/include/public/trace.h)."""

OPAQUE = words_of("data")
"""The payload of an event whose words have no declared meaning."""


def class_of(event_id: int) -> str:
    """The trace class of an event id, `UNKNOWN` where its class bits name none or several."""
    return CLASSES.get(event_id >> 16 & 0xFFF, "UNKNOWN")


@dataclass(frozen=True, slots=True)
class Event:
    """One event in one of its layouts; the variants of an event share its id or its name.

    event_id, last_id  bits 0–27 of the header word; `last_id` differs only where a range of ids has one meaning
    payload            the Construct of the words after header and cycle count
    variant            which of several layouts, in the words of the catalog; "all" where there is one
    since, until       first and last Xen release 4.x that emits it; `until` None: still there
    vendor             the CPU vendor whose code emits this layout; None: both
    first_word         (mask, value) that the first payload word must show; None: anything
    constants          fields whose value is given by the event id, not by the payload
    emitted            False: a constant in Xen's headers that no release checked ever writes
    units              units and meanings that names do not tell
    source             the Xen file whose call site writes it
    """

    event_id: int
    name: str
    payload: Construct[Any, Any] = OPAQUE
    variant: str = "all"
    source: str = ""
    units: str = ""
    timestamped: bool = True
    since: int = 17
    until: int | None = None
    vendor: Vendor | None = None
    first_word: tuple[int, int] | None = None
    constants: Mapping[str, str | int] = field(default_factory=lambda: MappingProxyType({}))
    emitted: bool = True
    last_id: int = -1

    def __post_init__(self) -> None:
        if self.last_id < 0:
            object.__setattr__(self, "last_id", self.event_id)

    @property
    def trace_class(self) -> str:
        """The trace class of its id."""
        return class_of(self.event_id)

    @property
    def words(self) -> int | None:
        """Payload words, None where the payload has no fixed length."""
        try:
            return int(self.payload.sizeof()) // 4
        except SizeofError:
            return None

"""TRC_DOM0OP: domains made and unmade by the toolstack."""

from __future__ import annotations

from xtrace.parsers.event import Event
from xtrace.parsers.fields import Struct, u32

Domain = Struct("domid" / u32)

EVENTS = (
    Event(0x0041001, "TRC_DOM0_DOM_ADD", Domain, source="xen/common/domain.c"),
    Event(
        0x0041002,
        "TRC_DOM0_DOM_REM",
        Domain,
        source="xen/common/domain.c",
        units="last reference to the domain dropped",
    ),
)

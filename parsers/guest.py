"""TRC_GUEST: records an HVM guest asks for itself, through HVMOP_xentrace."""

from __future__ import annotations

from xtrace.parsers.event import Event

EVENTS = (
    Event(
        0x800F000,
        "TRC_GUEST + guest id",
        variant="HVM guest supplied",
        last_id=0x800FFFF,
        source="xen/arch/x86/hvm/hvm.c",
        timestamped=False,
        units="id bits 0–11 and data: the guest's own",
    ),
)

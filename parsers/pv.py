"""TRC_PV: what PV guests enter the hypervisor for (xen/arch/x86/pv/trace.c, xen/common/trace.c).

Bit 8 of an id is the 64-bit form, chosen by the width of the vCPU's guest; hypercall records never set it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from construct import Construct, GreedyRange, Optional, Switch

from xtrace.parsers.event import Event
from xtrace.parsers.fields import EMPTY, Bits, Struct, u32, u64
from xtrace.parsers.vectors import HYPERCALLS

Trapped = Bits(u32, trapnr=(0, 14), use_error_code=(15, 15), error_code=(16, 31))
Trap32 = Struct("eip" / u32, "trap" / Trapped)
Trap64 = Struct("rip" / u64, "trap" / Trapped)
PageFault32 = Struct("eip" / u32, "addr" / u32, "error_code" / u32)
PageFault64 = Struct("rip" / u64, "addr" / u64, "error_code" / u32)
Address32 = Struct("eip" / u32)
Address64 = Struct("rip" / u64)
PagingFixup32 = Struct("eip" / u32, "addr" / u32)
PagingFixup64 = Struct("rip" / u64, "addr" / u64)
MappingFault32 = Struct("eip" / u32, "offset" / u32)
MappingFault64 = Struct("rip" / u64, "offset" / u64)
PtwrEmulation32 = Struct("npte" / u64, "addr" / u32, "eip" / u32)
PtwrEmulation64 = Struct("npte" / u64, "addr" / u64, "rip" / u64)

OP: Final = (0, 19)
PACKING: Final = {
    "A0": (20, 21),
    "A1": (22, 23),
    "A2": (24, 25),
    "A3": (26, 27),
    "A4": (28, 29),
    "A5": (30, 31),
}
"""Where the op word says how an argument is recorded: 0 not at all, 1 in one word, 2 in two words."""

RECORDED: Final = {
    1: {"A1": "count"},
    13: {"A1": "nr_calls"},
    20: {"A0": "cmd", "A2": "count"},
    24: {"A0": "cmd", "A1": "vcpuid"},
    26: {"A1": "count"},
    29: {"A0": "cmd"},
}
"""The arguments Xen records, by hypercall number: each in one word, all others not at all."""

UNITS: Final = {
    1: "count: bit 31 = continuation of a preempted call",
    20: "cmd: number in bits 0–11, above them continuation state",
    26: "count: bit 31 = continuation of a preempted call",
}


def op_word(arguments: Iterable[str]) -> Construct[Any, Any]:
    """The first word of a hypercall record, with the packing of these arguments."""
    return Bits(u32, op=OP, **{name: PACKING[name] for name in arguments})


def argument(name: str) -> Construct[Any, Any]:
    """An argument recorded as its bits of the op word say; None where absent, reserved or cut off."""
    return Optional(Switch(lambda this: this.op_word[name], {1: u32, 2: u64}))


NoArguments = Struct("op_word" / op_word(PACKING))
Hypercalls = {
    op: Struct("op_word" / op_word(fields), *(field / u32 for field in fields.values()))
    for op, fields in RECORDED.items()
}
Packed = Struct(
    "op_word" / op_word(PACKING),
    *(f"arg{name[1:]}" / argument(name) for name in PACKING),
    "rest" / Optional(GreedyRange(u32)),
)
"""Any packing at all; `rest` is the words no argument accounts for."""


def hypercall_events(event_id: int, name: str, callers: str) -> tuple[Event, ...]:
    """The layouts of one hypercall record, told apart by the op word; the last one fits all that is left."""
    event = partial(Event, event_id, name, source=f"xen/common/trace.c (called from {callers})")
    return (
        event(NoArguments, variant="other ops", first_word=(0xFFF0_0000, 0)),
        *(
            event(
                Hypercalls[op],
                variant=f"op {op} {HYPERCALLS[op]}",
                first_word=(0xFFFF_FFFF, op | sum(1 << PACKING[name][0] for name in fields)),
                units=UNITS.get(op, ""),
            )
            for op, fields in RECORDED.items()
        ),
        event(Packed, variant="packed", units="A0–A5: 0 absent, 1 = one word, 2 = two words"),
    )


def by_width(
    event_id: int,
    name: str,
    pv32: Construct[Any, Any],
    pv64: Construct[Any, Any],
    caller: str,
    units: str = "",
) -> tuple[Event, Event]:
    """An event in the form of a 32-bit and of a 64-bit vCPU."""
    event = partial(Event, source=traced_from(caller), units=units)
    return (
        event(event_id, name, pv32, variant="32-bit PV vCPU"),
        event(event_id | 0x100, name, pv64, variant="64-bit PV vCPU"),
    )


def traced_from(caller: str) -> str:
    """The source of a record written by pv/trace.c on behalf of `caller`."""
    return f"xen/arch/x86/pv/trace.c (called from xen/arch/x86/{caller})"


unused = partial(Event, emitted=False)

EVENTS = (
    unused(0x0201001, "TRC_PV_HYPERCALL", variant="32-bit"),
    unused(0x0201101, "TRC_PV_HYPERCALL", variant="64-bit"),
    *by_width(0x0201003, "TRC_PV_TRAP", Trap32, Trap64, "pv/traps.c", "error_code: 0xffff where use_error_code is 0"),
    *by_width(
        0x0201004,
        "TRC_PV_PAGE_FAULT",
        PageFault32,
        PageFault64,
        "pv/traps.c",
        "those reflected to the guest; error_code as the guest sees it",
    ),
    *by_width(
        0x0201005,
        "TRC_PV_FORCED_INVALID_OP",
        Address32,
        Address64,
        "pv/emul-inv-op.c",
        "eip, rip: past the instruction",
    ),
    *by_width(
        0x0201006,
        "TRC_PV_EMULATE_PRIVOP",
        Address32,
        Address64,
        "traps.c",
        "eip, rip: normally past the instruction",
    ),
    unused(0x0201007, "TRC_PV_EMULATE_4GB", variant="32-bit"),
    unused(0x0201107, "TRC_PV_EMULATE_4GB", variant="64-bit"),
    Event(
        0x0201008,
        "TRC_PV_MATH_STATE_RESTORE",
        EMPTY,
        variant="all PV vCPUs",
        source="xen/arch/x86/traps.c",
        until=21,
        units="lazy FPU restore",
    ),
    unused(0x0201108, "TRC_PV_MATH_STATE_RESTORE", variant="64-bit flag"),
    *by_width(
        0x0201009,
        "TRC_PV_PAGING_FIXUP",
        PagingFixup32,
        PagingFixup64,
        "traps.c",
        "rip: may be a hypervisor address",
    ),
    *by_width(
        0x020100A,
        "TRC_PV_GDT_LDT_MAPPING_FAULT",
        MappingFault32,
        MappingFault64,
        "traps.c",
        "offset: bytes into the LDT",
    ),
    unused(0x020100B, "TRC_PV_PTWR_EMULATION", variant="no 64 flag"),
    Event(
        0x020110B,
        "TRC_PV_PTWR_EMULATION",
        PtwrEmulation64,
        variant="64-bit PV vCPU",
        source=traced_from("pv/ro-page-fault.c"),
        units="npte: the page-table entry written",
    ),
    Event(
        0x020100C,
        "TRC_PV_PTWR_EMULATION_PAE",
        PtwrEmulation32,
        variant="32-bit PV vCPU",
        source=traced_from("pv/ro-page-fault.c"),
        units="npte: the page-table entry written",
    ),
    unused(0x020110C, "TRC_PV_PTWR_EMULATION_PAE", variant="64-bit flag"),
    *hypercall_events(0x020100D, "TRC_PV_HYPERCALL_V2", "xen/arch/x86/pv/hypercall.c"),
    *hypercall_events(0x020200E, "TRC_PV_HYPERCALL_SUBCALL", "xen/common/multicall.c, xen/common/compat/multicall.c"),
)

"""What handled a VM exit: the kinds that breakdowns tell apart, and their names."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from xtrace.parsers import vectors


class Kind(IntEnum):
    """What a VM exit was about, from the record of what handled it; in brackets what its number is."""

    NONE = 0
    """No record of a handler came."""
    INTERRUPT = 1
    """A host interrupt [vector; none on SVM]."""
    HYPERCALL = 2
    """[hypercall]"""
    CR_READ = 3
    """[control register]"""
    CR_WRITE = 4
    MSR_READ = 5
    """[MSR]"""
    MSR_WRITE = 6
    PORT_READ = 7
    """[I/O port]"""
    PORT_WRITE = 8
    MMIO_READ = 9
    """An access to emulated memory; its address is `address`."""
    MMIO_WRITE = 10
    NPF = 11
    """A fault of nested paging (NPT, EPT) [p2m type of the page]."""
    PAGE_FAULT = 12
    """A fault that shadow paging handled [which way, SHADOW_FAULTS; 0 where its own records are not traced]."""
    EXCEPTION = 13
    """[exception vector]"""
    HANDLER = 14
    """Another record of a handler [the low 8 bits of its event id]."""


NAMES: Final = {kind: kind.name.lower() for kind in Kind}
"""What JSON, tables and frames call them."""

HANDLERS: Final = {
    0x01: "pf_xen",
    0x08: "cr_read",
    0x09: "cr_write",
    0x0A: "dr_read",
    0x0B: "dr_write",
    0x0C: "msr_read",
    0x0D: "msr_write",
    0x0E: "cpuid",
    0x0F: "intr",
    0x10: "nmi",
    0x11: "smi",
    0x12: "vmmcall",
    0x13: "hlt",
    0x14: "invlpg",
    0x15: "mce",
    0x16: "ioport",
    0x17: "iomem",
    0x18: "clts",
    0x19: "lmsw",
    0x1A: "rdtsc",
    0x21: "npf",
    0x22: "realmode_emulate",
    0x23: "trap",
    0x24: "trap_debug",
    0x25: "vlapic",
    0x26: "xcr_read",
    0x27: "xcr_write",
}
"""Records of handlers by the low 8 bits of their ids (TRC_HVM_…, xtrace.parsers.hvm)."""

SHADOW_FAULTS: Final = {
    0: "handled",
    1: "propagate",
    2: "fast propagate",
    3: "fast mmio",
    4: "false fast path",
    5: "mmio",
    6: "fixup",
    7: "domain dying",
    8: "emulate",
    9: "unshadow: user mode",
    10: "unshadow: event injection",
    11: "unshadow: unhandled instruction",
}
"""What shadow paging did with a fault, by the low 8 bits of its record (TRC_SHADOW_…, xtrace.parsers.shadow)."""

P2M_TYPES: Final = {
    0: "ram_rw",
    1: "invalid",
    2: "ram_logdirty",
    3: "ram_ro",
    4: "mmio_dm",
    5: "mmio_direct",
    6: "populate_on_demand",
    7: "grant_map_rw",
    8: "grant_map_ro",
    9: "ram_paging_out",
    10: "ram_paged",
    11: "ram_paging_in",
    12: "ram_shared",
    13: "ram_broken",
    14: "map_foreign",
    15: "ioreq_server",
}
"""Types of guest pages, 4.17 to master (xen/arch/x86/include/asm/p2m.h, p2m_type_t)."""

MSRS: Final = {
    0x10: "TSC",
    0x1B: "APIC_BASE",
    0x3A: "FEATURE_CONTROL",
    0x3B: "TSC_ADJUST",
    0x48: "SPEC_CTRL",
    0x49: "PRED_CMD",
    0x8B: "UCODE_REV",
    0xFE: "MTRRCAP",
    0x10A: "ARCH_CAPABILITIES",
    0x174: "SYSENTER_CS",
    0x175: "SYSENTER_ESP",
    0x176: "SYSENTER_EIP",
    0x179: "MCG_CAP",
    0x17A: "MCG_STATUS",
    0x1A0: "MISC_ENABLE",
    0x1D9: "DEBUGCTL",
    0x277: "PAT",
    0x2FF: "MTRR_DEF_TYPE",
    0x6E0: "TSC_DEADLINE",
    0x802: "X2APIC_ID",
    0x808: "X2APIC_TPR",
    0x80B: "X2APIC_EOI",
    0x80F: "X2APIC_SPIV",
    0x830: "X2APIC_ICR",
    0x832: "X2APIC_LVT_TIMER",
    0x838: "X2APIC_TIMER_INITIAL",
    0x839: "X2APIC_TIMER_CURRENT",
    0x83F: "X2APIC_SELF_IPI",
    0xC0000080: "EFER",
    0xC0000081: "STAR",
    0xC0000082: "LSTAR",
    0xC0000083: "CSTAR",
    0xC0000084: "SYSCALL_MASK",
    0xC0000100: "FS_BASE",
    0xC0000101: "GS_BASE",
    0xC0000102: "SHADOW_GS_BASE",
    0xC0000103: "TSC_AUX",
    0xC0010015: "HWCR",
    0xC0011029: "AMD64_DE_CFG",
}
"""Model-specific registers that guests use most (xen/arch/x86/include/asm/msr-index.h; x2APIC: Intel's manual)."""

VIRIDIAN: Final = 1 << 31
"""The bit of a hypercall number that says it is one of Hyper-V's."""


def name_of(kind: int, number: int) -> str:
    """What handled an exit, in words: `LOCAL_TIMER (0xfa)`, `vcpu_op`, `write CR4`, `no handler`."""
    told = _NUMBERED[Kind(kind)]
    if kind == Kind.INTERRUPT and number < 0:
        return "interrupt (SVM tells no vector)"
    return told(number)


def _vector(number: int) -> str:
    return f"{vectors.vector_name(number)} (0x{number:02x})"


def _hypercall(number: int) -> str:
    return f"Viridian 0x{number & ~VIRIDIAN:x}" if number & VIRIDIAN else vectors.hypercall_name(number)


def _msr(number: int) -> str:
    return f"{MSRS[number]} (0x{number:x})" if number in MSRS else f"MSR 0x{number:x}"


def _p2m(number: int) -> str:
    return P2M_TYPES.get(number, f"p2m type {number}")


_NUMBERED: Final[dict[Kind, Callable[[int], str]]] = {
    Kind.NONE: lambda _: "no handler",
    Kind.INTERRUPT: _vector,
    Kind.HYPERCALL: _hypercall,
    Kind.CR_READ: lambda number: f"read CR{number}",
    Kind.CR_WRITE: lambda number: f"write CR{number}",
    Kind.MSR_READ: lambda number: f"read {_msr(number)}",
    Kind.MSR_WRITE: lambda number: f"write {_msr(number)}",
    Kind.PORT_READ: lambda number: f"read port 0x{number:x}",
    Kind.PORT_WRITE: lambda number: f"write port 0x{number:x}",
    Kind.MMIO_READ: lambda _: "read MMIO",
    Kind.MMIO_WRITE: lambda _: "write MMIO",
    Kind.NPF: lambda number: f"npf {_p2m(number)}",
    Kind.PAGE_FAULT: lambda number: f"fault: {SHADOW_FAULTS.get(number, number)}",
    Kind.EXCEPTION: lambda number: f"exception {number}",
    Kind.HANDLER: lambda number: HANDLERS.get(number, f"handler 0x{number:x}"),
}

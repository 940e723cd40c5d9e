"""Names as xenalyze spells them; those that it has wrong or lacks are Xen's (docs/xenalyze.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from xtrace.parsers import vectors

if TYPE_CHECKING:
    from xtrace.trace import Trace

_SPELLED: Final = {
    6: "sched_op(compat)",
    16: "evtchn_op(compat)",
    19: "physdev_op(compat)",
    32: "evtchn_op",
}

HYPERCALLS: Final = vectors.HYPERCALLS | _SPELLED

_VMX_SPELLED: Final = {7: "PENDING_INTERRUPT", 26: "VMOFF", 27: "VMON", 41: "MACHINE_CHECK"}
_VMX_NUMBERS: Final = frozenset((35, 38, 42, 45, 46, 47))
"""Reasons that xenalyze shows by number; those above 55 end it, and are named as everywhere here."""

_SVM_EXCEPTIONS: Final = range(0x54, 0x60)
_SVM_NUMBERS: Final = range(0x8D, 0x400)
"""Codes that xenalyze shows by number; those above 0x400 end it."""

TRAPS: Final = (
    "Divide",
    "RESERVED",
    "NMI",
    "Breakpoint",
    "Overflow",
    "BOUND",
    "Invalid Op",
    "Coprocessor not present",
    "Double Fault",
    "Coprocessor segment overrun",
    "TSS",
    "Segment not present",
    "Stack-segment fault",
    "GP",
    "Page fault",
    "RESERVED",
    "FPU",
    "Alignment check",
    "Machine check",
    "SIMD",
)

FIRST_NAMED_VECTOR: Final = 0xF9
"""Lower vectors have no name in xenalyze."""

HANDLERS: Final = dict(
    enumerate(
        """
        (no_handler) pf_xen pf_inject inj_exc inj_virq reinj_virq io_read io_write cr_read cr_write dr_read dr_write
        msr_read msr_write cpuid intr nmi smi vmcall hlt invlpg mce io_assist mmio_assist clts lmsw rdtsc
        """.split()  # noqa: SIM905 a list this long reads better as words
    )
) | dict(enumerate("intr_window npf realmode_emulate trap trap_debug vlapic".split(), start=0x20))  # noqa: SIM905
"""HVM handler events by their number."""

PV: Final = {
    1: "hypercall",
    3: "trap",
    4: "page_fault",
    5: "forced_invalid_op",
    6: "emulate privop",
    7: "emulate 4g",
    8: "math state restore",
    9: "paging fixup",
    10: "gdt/ldt mapping fault",
    11: "ptwr",
    12: "ptwr(pae)",
    13: "hypercall",
    14: "hypercall (subcall)",
}

SHADOW: Final = {
    1: "propagate",
    2: "fast propagate",
    3: "fast mmio",
    4: "false fast path",
    5: "mmio",
    6: "fixup",
    7: "dom dying",
    8: "emulate",
    9: "unshadow:user-mode",
    10: "unshadow:evt inj",
    11: "unshadow:unhandled instr",
    12: "fixup|mmio",
    13: "(no handler)",
}
"""Shadow events by number, faults first; where xenalyze takes the last two for faults, these are the names."""

INTERRUPT_SOURCES: Final = ("none", "pic", "lapic", "nmi", "mce", "vector")


def exit_namer(trace: Trace) -> Callable[[int], str]:
    """How to name exit reasons of a trace, those without a name by number."""
    return _svm_exit if trace.dialect.vendor == "svm" else _vmx_exit


def _svm_exit(code: int) -> str:
    if code in _SVM_EXCEPTIONS:
        return f"VMEXIT_EXCEPTION_{code - 0x40}"
    return f"{code:x}" if code in _SVM_NUMBERS else vectors.SVM_EXIT_CODES.get(code, f"{code:x}")


def _vmx_exit(reason: int) -> str:
    if reason in _VMX_NUMBERS:
        return f"{reason:x}"
    return _VMX_SPELLED.get(reason) or vectors.exit_name(reason, "vmx")


def vector_namer(trace: Trace) -> Callable[[int], str]:
    """How to show host interrupt vectors of a trace: ` CALL_FUNCTION(fb)`, ` 31`."""
    known = vectors.VECTORS["lockless" if trace.tables.model == "lockless" else "legacy"]

    def shown(vector: int) -> str:
        name = known.get(vector) if vector >= FIRST_NAMED_VECTOR else None
        return f"{name}({vector:x})" if name else f"{vector:x}"

    return shown

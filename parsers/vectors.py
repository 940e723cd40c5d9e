"""Names of the numbers in payloads: interrupt vectors, exit reasons, hypercalls, runstates, flush flags."""

from __future__ import annotations

from typing import Final, Literal

from xtrace.parsers.vendor import Vendor

Model = Literal["legacy", "lockless"]
"""Which hypervisor: flushes with their own vector and lock, or carried by lockless function calls."""

RUNSTATES: Final = ("running", "runnable", "blocked", "offline")
"""RUNSTATE_* by number (xen/include/public/vcpu.h)."""

LEGACY_VECTORS: Final = {
    0x22: "IRQ_MOVE_CLEANUP",
    0x80: "LEGACY_SYSCALL",
    0x82: "HYPERCALL",
    0xF0: "IRQ0",
    0xF9: "PMU_APIC",
    0xFA: "LOCAL_TIMER",
    0xFB: "CALL_FUNCTION",
    0xFC: "EVENT_CHECK",
    0xFD: "INVALIDATE_TLB",
    0xFE: "ERROR_APIC",
    0xFF: "SPURIOUS_APIC",
}
"""Vectors of one meaning from 4.17 to master (xen/arch/x86/include/asm/irq-vectors.h).

0x30 is left out: HPET_BROADCAST on some stable releases only, else an ordinary dynamic vector.
"""

LOCKLESS_VECTORS: Final = {vector: name for vector, name in LEGACY_VECTORS.items() if vector != 0xFD}
"""With lockless calls a flush is a CALL_FUNCTION, and INVALIDATE_TLB is gone (docs/tracepoints.md)."""

VECTORS: Final[dict[Model, dict[int, str]]] = {"legacy": LEGACY_VECTORS, "lockless": LOCKLESS_VECTORS}

VECTOR_RANGES: Final = (
    (0x00, 0x1F, "EXCEPTION"),
    (0x20, 0x2F, "LEGACY_PIC"),
    (0x30, 0xEF, "DYNAMIC"),
    (0xF1, 0xF8, "HIPRIORITY"),
)
"""First and last vector of ranges handed out at run time: what one means differs by machine and boot."""

VMX_EXIT_REASONS: Final = {
    0x0: "EXCEPTION_NMI",
    0x1: "EXTERNAL_INTERRUPT",
    0x2: "TRIPLE_FAULT",
    0x3: "INIT",
    0x4: "SIPI",
    0x5: "IO_SMI",
    0x6: "OTHER_SMI",
    0x7: "PENDING_VIRT_INTR",
    0x8: "PENDING_VIRT_NMI",
    0x9: "TASK_SWITCH",
    0xA: "CPUID",
    0xB: "GETSEC",
    0xC: "HLT",
    0xD: "INVD",
    0xE: "INVLPG",
    0xF: "RDPMC",
    0x10: "RDTSC",
    0x11: "RSM",
    0x12: "VMCALL",
    0x13: "VMCLEAR",
    0x14: "VMLAUNCH",
    0x15: "VMPTRLD",
    0x16: "VMPTRST",
    0x17: "VMREAD",
    0x18: "VMRESUME",
    0x19: "VMWRITE",
    0x1A: "VMXOFF",
    0x1B: "VMXON",
    0x1C: "CR_ACCESS",
    0x1D: "DR_ACCESS",
    0x1E: "IO_INSTRUCTION",
    0x1F: "MSR_READ",
    0x20: "MSR_WRITE",
    0x21: "INVALID_GUEST_STATE",
    0x22: "MSR_LOADING",
    0x24: "MWAIT_INSTRUCTION",
    0x25: "MONITOR_TRAP_FLAG",
    0x27: "MONITOR_INSTRUCTION",
    0x28: "PAUSE_INSTRUCTION",
    0x29: "MCE_DURING_VMENTRY",
    0x2B: "TPR_BELOW_THRESHOLD",
    0x2C: "APIC_ACCESS",
    0x2D: "EOI_INDUCED",
    0x2E: "ACCESS_GDTR_OR_IDTR",
    0x2F: "ACCESS_LDTR_OR_TR",
    0x30: "EPT_VIOLATION",
    0x31: "EPT_MISCONFIG",
    0x32: "INVEPT",
    0x33: "RDTSCP",
    0x34: "VMX_PREEMPTION_TIMER_EXPIRED",
    0x35: "INVVPID",
    0x36: "WBINVD",
    0x37: "XSETBV",
    0x38: "APIC_WRITE",
    0x39: "RDRAND",
    0x3A: "INVPCID",
    0x3B: "VMFUNC",
    0x3C: "ENCLS",
    0x3D: "RDSEED",
    0x3E: "PML_FULL",
    0x3F: "XSAVES",
    0x40: "XRSTORS",
    0x42: "SPP_EVENT",
    0x43: "UMWAIT",
    0x44: "TPAUSE",
    0x4A: "BUS_LOCK",
    0x4B: "NOTIFY",
}
"""Basic exit reasons (xen/arch/x86/include/asm/hvm/vmx/vmx.h; Intel's manual for those that Xen lacks)."""

VMX_BASIC_REASON: Final = 0xFFFF
"""The bits of a recorded VMX exit reason that hold its number."""

VMX_EXIT_FLAGS: Final = {1 << 26: "BUS_LOCK", 1 << 31: "FAILED_VMENTRY"}
"""Bits ORed into a recorded VMX exit reason."""

SVM_EXIT_CODES: Final = {
    0x0: "VMEXIT_CR0_READ",
    0x1: "VMEXIT_CR1_READ",
    0x2: "VMEXIT_CR2_READ",
    0x3: "VMEXIT_CR3_READ",
    0x4: "VMEXIT_CR4_READ",
    0x5: "VMEXIT_CR5_READ",
    0x6: "VMEXIT_CR6_READ",
    0x7: "VMEXIT_CR7_READ",
    0x8: "VMEXIT_CR8_READ",
    0x9: "VMEXIT_CR9_READ",
    0xA: "VMEXIT_CR10_READ",
    0xB: "VMEXIT_CR11_READ",
    0xC: "VMEXIT_CR12_READ",
    0xD: "VMEXIT_CR13_READ",
    0xE: "VMEXIT_CR14_READ",
    0xF: "VMEXIT_CR15_READ",
    0x10: "VMEXIT_CR0_WRITE",
    0x11: "VMEXIT_CR1_WRITE",
    0x12: "VMEXIT_CR2_WRITE",
    0x13: "VMEXIT_CR3_WRITE",
    0x14: "VMEXIT_CR4_WRITE",
    0x15: "VMEXIT_CR5_WRITE",
    0x16: "VMEXIT_CR6_WRITE",
    0x17: "VMEXIT_CR7_WRITE",
    0x18: "VMEXIT_CR8_WRITE",
    0x19: "VMEXIT_CR9_WRITE",
    0x1A: "VMEXIT_CR10_WRITE",
    0x1B: "VMEXIT_CR11_WRITE",
    0x1C: "VMEXIT_CR12_WRITE",
    0x1D: "VMEXIT_CR13_WRITE",
    0x1E: "VMEXIT_CR14_WRITE",
    0x1F: "VMEXIT_CR15_WRITE",
    0x20: "VMEXIT_DR0_READ",
    0x21: "VMEXIT_DR1_READ",
    0x22: "VMEXIT_DR2_READ",
    0x23: "VMEXIT_DR3_READ",
    0x24: "VMEXIT_DR4_READ",
    0x25: "VMEXIT_DR5_READ",
    0x26: "VMEXIT_DR6_READ",
    0x27: "VMEXIT_DR7_READ",
    0x28: "VMEXIT_DR8_READ",
    0x29: "VMEXIT_DR9_READ",
    0x2A: "VMEXIT_DR10_READ",
    0x2B: "VMEXIT_DR11_READ",
    0x2C: "VMEXIT_DR12_READ",
    0x2D: "VMEXIT_DR13_READ",
    0x2E: "VMEXIT_DR14_READ",
    0x2F: "VMEXIT_DR15_READ",
    0x30: "VMEXIT_DR0_WRITE",
    0x31: "VMEXIT_DR1_WRITE",
    0x32: "VMEXIT_DR2_WRITE",
    0x33: "VMEXIT_DR3_WRITE",
    0x34: "VMEXIT_DR4_WRITE",
    0x35: "VMEXIT_DR5_WRITE",
    0x36: "VMEXIT_DR6_WRITE",
    0x37: "VMEXIT_DR7_WRITE",
    0x38: "VMEXIT_DR8_WRITE",
    0x39: "VMEXIT_DR9_WRITE",
    0x3A: "VMEXIT_DR10_WRITE",
    0x3B: "VMEXIT_DR11_WRITE",
    0x3C: "VMEXIT_DR12_WRITE",
    0x3D: "VMEXIT_DR13_WRITE",
    0x3E: "VMEXIT_DR14_WRITE",
    0x3F: "VMEXIT_DR15_WRITE",
    0x40: "VMEXIT_EXCEPTION_DE",
    0x41: "VMEXIT_EXCEPTION_DB",
    0x42: "VMEXIT_EXCEPTION_NMI",
    0x43: "VMEXIT_EXCEPTION_BP",
    0x44: "VMEXIT_EXCEPTION_OF",
    0x45: "VMEXIT_EXCEPTION_BR",
    0x46: "VMEXIT_EXCEPTION_UD",
    0x47: "VMEXIT_EXCEPTION_NM",
    0x48: "VMEXIT_EXCEPTION_DF",
    0x49: "VMEXIT_EXCEPTION_09",
    0x4A: "VMEXIT_EXCEPTION_TS",
    0x4B: "VMEXIT_EXCEPTION_NP",
    0x4C: "VMEXIT_EXCEPTION_SS",
    0x4D: "VMEXIT_EXCEPTION_GP",
    0x4E: "VMEXIT_EXCEPTION_PF",
    0x4F: "VMEXIT_EXCEPTION_15",
    0x50: "VMEXIT_EXCEPTION_MF",
    0x51: "VMEXIT_EXCEPTION_AC",
    0x52: "VMEXIT_EXCEPTION_MC",
    0x53: "VMEXIT_EXCEPTION_XF",
    0x55: "VMEXIT_EXCEPTION_CP",
    0x60: "VMEXIT_INTR",
    0x61: "VMEXIT_NMI",
    0x62: "VMEXIT_SMI",
    0x63: "VMEXIT_INIT",
    0x64: "VMEXIT_VINTR",
    0x65: "VMEXIT_CR0_SEL_WRITE",
    0x66: "VMEXIT_IDTR_READ",
    0x67: "VMEXIT_GDTR_READ",
    0x68: "VMEXIT_LDTR_READ",
    0x69: "VMEXIT_TR_READ",
    0x6A: "VMEXIT_IDTR_WRITE",
    0x6B: "VMEXIT_GDTR_WRITE",
    0x6C: "VMEXIT_LDTR_WRITE",
    0x6D: "VMEXIT_TR_WRITE",
    0x6E: "VMEXIT_RDTSC",
    0x6F: "VMEXIT_RDPMC",
    0x70: "VMEXIT_PUSHF",
    0x71: "VMEXIT_POPF",
    0x72: "VMEXIT_CPUID",
    0x73: "VMEXIT_RSM",
    0x74: "VMEXIT_IRET",
    0x75: "VMEXIT_SWINT",
    0x76: "VMEXIT_INVD",
    0x77: "VMEXIT_PAUSE",
    0x78: "VMEXIT_HLT",
    0x79: "VMEXIT_INVLPG",
    0x7A: "VMEXIT_INVLPGA",
    0x7B: "VMEXIT_IOIO",
    0x7C: "VMEXIT_MSR",
    0x7D: "VMEXIT_TASK_SWITCH",
    0x7E: "VMEXIT_FERR_FREEZE",
    0x7F: "VMEXIT_SHUTDOWN",
    0x80: "VMEXIT_VMRUN",
    0x81: "VMEXIT_VMMCALL",
    0x82: "VMEXIT_VMLOAD",
    0x83: "VMEXIT_VMSAVE",
    0x84: "VMEXIT_STGI",
    0x85: "VMEXIT_CLGI",
    0x86: "VMEXIT_SKINIT",
    0x87: "VMEXIT_RDTSCP",
    0x88: "VMEXIT_ICEBP",
    0x89: "VMEXIT_WBINVD",
    0x8A: "VMEXIT_MONITOR",
    0x8B: "VMEXIT_MWAIT",
    0x8C: "VMEXIT_MWAIT_CONDITIONAL",
    0x8D: "VMEXIT_XSETBV",
    0x8E: "VMEXIT_RDPRU",
    0x8F: "VMEXIT_EFER_WRITE_TRAP",
    0xA0: "VMEXIT_INVLPGB",
    0xA1: "VMEXIT_INVLPGB_ILLEGAL",
    0xA2: "VMEXIT_INVPCID",
    0xA3: "VMEXIT_MCOMMIT",
    0xA4: "VMEXIT_TLBSYNC",
    0xA5: "VMEXIT_BUS_LOCK",
    0xA6: "VMEXIT_IDLE_HLT",
    0x400: "VMEXIT_NPF",
    0x401: "VMEXIT_AVIC_INCOMPLETE_IPI",
    0x402: "VMEXIT_AVIC_NOACCEL",
    0x403: "VMEXIT_VMGEXIT",
    0xFFFFFFFF: "VMEXIT_INVALID",
}
"""Exit codes (xen/arch/x86/include/asm/hvm/svm/vmcb.h; AMD's manual for those that Xen lacks).

The record holds the low 32 bits of the code, hence VMEXIT_INVALID is 0xffffffff.
"""

HYPERCALLS: Final = {
    0: "set_trap_table",
    1: "mmu_update",
    2: "set_gdt",
    3: "stack_switch",
    4: "set_callbacks",
    5: "fpu_taskswitch",
    6: "sched_op_compat",
    7: "platform_op",
    8: "set_debugreg",
    9: "get_debugreg",
    10: "update_descriptor",
    12: "memory_op",
    13: "multicall",
    14: "update_va_mapping",
    15: "set_timer_op",
    16: "event_channel_op_compat",
    17: "xen_version",
    18: "console_io",
    19: "physdev_op_compat",
    20: "grant_table_op",
    21: "vm_assist",
    22: "update_va_mapping_otherdomain",
    23: "iret",
    24: "vcpu_op",
    25: "set_segment_base",
    26: "mmuext_op",
    27: "xsm_op",
    28: "nmi_op",
    29: "sched_op",
    30: "callback_op",
    31: "xenoprof_op",
    32: "event_channel_op",
    33: "physdev_op",
    34: "hvm_op",
    35: "sysctl",
    36: "domctl",
    37: "kexec_op",
    38: "tmem_op",
    39: "argo_op",
    40: "xenpmu_op",
    41: "dm_op",
    42: "hypfs_op",
    48: "mca",
    49: "paging_domctl_cont",
    50: "arch_2",
    51: "arch_3",
    52: "arch_4",
    53: "arch_5",
    54: "arch_6",
    55: "arch_7",
}
"""__HYPERVISOR_* by number (xen/include/public/xen.h), with what x86 calls its arch numbers 0 and 1."""

GRANT_TABLE_OPS: Final = {
    0: "map_grant_ref",
    1: "unmap_grant_ref",
    2: "setup_table",
    3: "dump_table",
    4: "transfer",
    5: "copy",
    6: "query_size",
    7: "unmap_and_replace",
    8: "set_version",
    9: "get_status_frames",
    10: "get_version",
    11: "swap_grant_ref",
    12: "cache_flush",
}
"""GNTTABOP_* (xen/include/public/grant_table.h); the command is in bits 0–11 of its word."""

VCPU_OPS: Final = {
    0: "initialise",
    1: "up",
    2: "down",
    3: "is_up",
    4: "get_runstate_info",
    5: "register_runstate_memory_area",
    6: "set_periodic_timer",
    7: "stop_periodic_timer",
    8: "set_singleshot_timer",
    9: "stop_singleshot_timer",
    10: "register_vcpu_info",
    11: "send_nmi",
    12: "get_physid",
    13: "register_vcpu_time_memory_area",
    14: "register_runstate_phys_area",
    15: "register_vcpu_time_phys_area",
}
"""VCPUOP_* (xen/include/public/vcpu.h)."""

MMUEXT_OPS: Final = {
    0: "PIN_L1_TABLE",
    1: "PIN_L2_TABLE",
    2: "PIN_L3_TABLE",
    3: "PIN_L4_TABLE",
    4: "UNPIN_TABLE",
    5: "NEW_BASEPTR",
    6: "TLB_FLUSH_LOCAL",
    7: "INVLPG_LOCAL",
    8: "TLB_FLUSH_MULTI",
    9: "INVLPG_MULTI",
    10: "TLB_FLUSH_ALL",
    11: "INVLPG_ALL",
    12: "FLUSH_CACHE",
    13: "SET_LDT",
    15: "NEW_USER_BASEPTR",
    16: "CLEAR_PAGE",
    17: "COPY_PAGE",
    18: "FLUSH_CACHE_GLOBAL",
    19: "MARK_SUPER",
    20: "UNMARK_SUPER",
}
"""MMUEXT_* (xen/include/public/xen.h). They sit in guest memory: no record holds one."""

SCHED_OPS: Final = {
    0: "yield",
    1: "block",
    2: "shutdown",
    3: "poll",
    4: "remote_shutdown",
    5: "shutdown_code",
    6: "watchdog",
    7: "pin_override",
}
"""SCHEDOP_* (xen/include/public/sched.h)."""

COMMANDS: Final = {20: GRANT_TABLE_OPS, 24: VCPU_OPS, 26: MMUEXT_OPS, 29: SCHED_OPS}
"""The sub-commands of those hypercalls that have names for them here, by hypercall number."""

FLUSH_ORDER_MASK: Final = 0xFF
"""Bits of flush flags that hold the order of the flushed range plus one, 0 where none was given."""

FLUSH_FLAGS: Final = {
    0x100: "FLUSH_TLB",
    0x200: "FLUSH_TLB_GLOBAL",
    0x400: "FLUSH_CACHE_EVICT",
    0x800: "FLUSH_VA_VALID",
    0x1000: "FLUSH_VCPU_STATE",
    0x2000: "FLUSH_ROOT_PGTBL",
    0x4000: "FLUSH_HVM_ASID_CORE",
    0x8000: "FLUSH_NO_ASSIST",
    0x10000: "FLUSH_CACHE_WRITEBACK",
}
"""FLUSH_* (xen/arch/x86/include/asm/flushtlb.h, docs/tracepoints.md); 0x400 was FLUSH_CACHE in 4.17."""


def vector_name(vector: int, model: Model = "legacy") -> str:
    """The name of an interrupt vector, or its range and number: `CALL_FUNCTION`, `DYNAMIC_0x45`."""
    kind = next((name for first, last, name in VECTOR_RANGES if first <= vector <= last), "VECTOR")
    return VECTORS[model].get(vector, f"{kind}_0x{vector:02x}")


def exit_name(code: int, vendor: Vendor | None) -> str:
    """The name of a recorded exit reason, VMX flags appended: `HLT`, `VMEXIT_NPF`, `HLT+BUS_LOCK`."""
    if vendor == "svm":
        return SVM_EXIT_CODES.get(code, f"VMEXIT_0x{code:x}")
    if vendor is None:
        return f"EXIT_0x{code:x}"
    reason = code & VMX_BASIC_REASON
    flags = (f"+{name}" for bit, name in VMX_EXIT_FLAGS.items() if code & bit)
    return VMX_EXIT_REASONS.get(reason, f"EXIT_0x{reason:x}") + "".join(flags)


def hypercall_name(op: int) -> str:
    """The name of a hypercall: `mmu_update`, `hypercall_99`."""
    return HYPERCALLS.get(op, f"hypercall_{op}")

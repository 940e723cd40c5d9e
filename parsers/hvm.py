"""TRC_HVM: entries, exits and what handles them (xen/include/public/trace.h, xen/arch/x86/hvm).

Bit 8 of an id is the 64-bit form, bit 9 a write (I/O ports and MMIO only), bit 10 a nested guest (SVM only).
Handler records have no cycle count: they belong to the exit record before them.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from xtrace.parsers.event import Event
from xtrace.parsers.fields import EMPTY, Struct, i32, u32, u64

Exit = Struct("exit_reason" / u32, "eip" / u32)
Exit64 = Struct("exit_reason" / u32, "rip" / u64)
SvmExit = Struct("exit_code" / u32, "eip" / u32)
SvmExit64 = Struct("exit_code" / u32, "rip" / u64)

PageFault = Struct("error_code" / u32, "va" / u32)
PageFault64 = Struct("error_code" / u32, "va" / u64)
PfInject64 = Struct("error_code" / u32, "cr2" / u64)
InjExc = Struct("vector" / u32, "error_code" / i32)
InjVirq = Struct("vector" / u32, "fake" / u32)
ControlRegister = Struct("cr" / u32, "value" / u64)
ExtendedControlRegister = Struct("xcr" / u32, "value" / u64)
Msr = Struct("msr" / u32, "value" / u64)
Cpuid = Struct("leaf" / u32, "subleaf" / u32, "eax" / u32, "ebx" / u32, "ecx" / u32, "edx" / u32)
Vector = Struct("vector" / u32)
Vmmcall = Struct("eax" / u32)
Hlt = Struct("runnable" / u32)
Invlpg64 = Struct("invlpga" / u32, "va" / u64)
Lmsw64 = Struct("new_cr0" / u64)
Rdtsc = Struct("guest_tsc" / u64)
IntrWindow = Struct("vector" / u32, "source" / u32, "pending_vector" / i32)
Npf = Struct("gpa" / u64, "mfn" / u64, "qualification" / u32, "p2mt" / u32)
TrapDebug = Struct("exit_qualification" / u32)

PortData = Struct("port" / u32, "data" / u32)
Port = Struct("port" / u32)
PortData64 = Struct("port" / u64, "data" / u64)
MmioData = Struct("gpa" / u32, "data" / u32)
Mmio = Struct("gpa" / u32)
MmioData64 = Struct("gpa" / u64, "data" / u64)
Mmio64 = Struct("gpa" / u64)

HpetStart = Struct("timer" / u32, "irq" / u32, "delta_ns" / u64, "period_ns" / u64)
HpetStop = Struct("timer" / u32)
TimerStart = Struct("delta_ns" / u32, "period_ns" / u32)
LapicStart = Struct("delta_ns" / u64, "period_ns" / u64, "irq" / u32)
PicOutput = Struct("int_output" / u32, "is_master" / u32, "irq" / i32)
PicIrq = Struct("irq" / u32)
PicIntack = Struct("is_master" / u32, "irq" / u32)
PicPending = Struct("accept" / u32, "int_output" / u32)
LapicPicIntr = Struct("is_target" / u32, "accept" / u32)

SVM: Final = "xen/arch/x86/hvm/svm/svm.c"
VMX: Final = "xen/arch/x86/hvm/vmx/vmx.c"
INTR: Final = "xen/arch/x86/hvm/svm/intr.c; xen/arch/x86/hvm/vmx/intr.c"

REASON: Final = "exit_reason: VMX basic reason in bits 0–15, bit 26 bus lock, bit 31 failed entry"
CODE: Final = "exit_code: low 32 bits; stamped after pending host interrupts were handled"
DATA: Final = "data: low 32 bits"
PERIOD: Final = "period_ns: 0 = one-shot"

entered = partial(Event, source=f"{SVM}; {VMX}")
left = partial(Event, source=f"{VMX}; {SVM}", until=18, units=REASON)
left_nested = partial(Event, source=SVM, until=18, vendor="svm")
left_vmx = partial(Event, source=VMX, since=19, vendor="vmx", units=REASON)
left_svm = partial(Event, source=SVM, since=19, vendor="svm", units=CODE)

handled = partial(Event, source=f"{SVM}; {VMX}", timestamped=False)
by_svm = partial(Event, source=SVM, timestamped=False, vendor="svm")
by_vmx = partial(Event, source=VMX, timestamped=False, vendor="vmx")
interrupted = partial(Event, source=INTR, timestamped=False)
common = partial(Event, source="xen/arch/x86/hvm/hvm.c", timestamped=False)
accessed = partial(Event, source="xen/arch/x86/hvm/hvm.c; xen/arch/x86/hvm/emulate.c", timestamped=False)
emulated = partial(Event, source="xen/arch/x86/hvm/emulate.c", timestamped=False)
unused = partial(Event, timestamped=False, emitted=False)

hpet = partial(Event, source="xen/arch/x86/hvm/hpet.c")
pit = partial(Event, source="xen/arch/x86/emul-i8254.c")
rtc = partial(Event, source="xen/arch/x86/hvm/rtc.c")
lapic = partial(Event, source="xen/arch/x86/hvm/vlapic.c")
pic = partial(Event, source="xen/arch/x86/hvm/vpic.c")

ENTRY_EXIT = (
    entered(0x0081001, "TRC_HVM_VMENTRY", EMPTY),
    Event(0x0081401, "TRC_HVM_VMENTRY", EMPTY, "svm nested guest (|0x400)", SVM, vendor="svm"),
    left(0x0081002, "TRC_HVM_VMEXIT", Exit, "4.17-4.18, VMX and SVM, guest not in long mode"),
    left(0x0081102, "TRC_HVM_VMEXIT64", Exit64, "4.17-4.18, VMX and SVM, guest in long mode"),
    left_nested(0x0081402, "TRC_HVM_VMEXIT", Exit, "4.17-4.18, svm nested (|0x400), not long mode"),
    left_nested(0x0081502, "TRC_HVM_VMEXIT64", Exit64, "4.17-4.18, svm nested (|0x400), long mode"),
    left_vmx(0x0081002, "TRC_HVM_VMX_EXIT", Exit, "since 4.19, VMX only, guest not in long mode"),
    left_vmx(0x0081102, "TRC_HVM_VMX_EXIT64", Exit64, "since 4.19, VMX only, guest in long mode"),
    left_svm(0x0081003, "TRC_HVM_SVM_EXIT", SvmExit, "since 4.19, guest not in long mode"),
    left_svm(0x0081103, "TRC_HVM_SVM_EXIT64", SvmExit64, "since 4.19, guest in long mode"),
    left_svm(0x0081403, "TRC_HVM_SVM_EXIT", SvmExit, "since 4.19, nested (|0x400), not long mode"),
    left_svm(0x0081503, "TRC_HVM_SVM_EXIT64", SvmExit64, "since 4.19, nested (|0x400), long mode"),
)

HANDLERS = (
    handled(0x0082001, "TRC_HVM_PF_XEN", PageFault, "32-bit guest"),
    handled(0x0082101, "TRC_HVM_PF_XEN64", PageFault64, "64-bit guest"),
    unused(0x0082002, "TRC_HVM_PF_INJECT", variant="32-bit"),
    handled(0x0082102, "TRC_HVM_PF_INJECT64", PfInject64, "all guests"),
    handled(0x0082003, "TRC_HVM_INJ_EXC", InjExc, units="error_code: -1 = none"),
    interrupted(0x0082004, "TRC_HVM_INJ_VIRQ", InjVirq, units="fake: always 0"),
    unused(0x0082005, "TRC_HVM_REINJ_VIRQ", variant="n/a"),
    unused(0x0082006, "TRC_HVM_IO_READ", variant="n/a"),
    unused(0x0082007, "TRC_HVM_IO_WRITE", variant="n/a"),
    unused(0x0082008, "TRC_HVM_CR_READ", variant="32-bit"),
    accessed(0x0082108, "TRC_HVM_CR_READ64", ControlRegister, "all guests"),
    unused(0x0082009, "TRC_HVM_CR_WRITE", variant="32-bit"),
    accessed(
        0x0082109,
        "TRC_HVM_CR_WRITE64",
        ControlRegister,
        "all guests",
        units="value: before validation; bit 63 of CR3 may be NOFLUSH",
    ),
    unused(0x008200A, "TRC_HVM_DR_READ", variant="n/a"),
    handled(0x008200B, "TRC_HVM_DR_WRITE", EMPTY, units="first access, read or write"),
    common(0x008200C, "TRC_HVM_MSR_READ", Msr, units="value: all ones where the read faulted"),
    common(0x008200D, "TRC_HVM_MSR_WRITE", Msr, units="logged before the write is tried"),
    common(0x008200E, "TRC_HVM_CPUID", Cpuid, units="as returned to the guest"),
    by_vmx(0x008200F, "TRC_HVM_INTR", Vector, "vmx", units="logged before the handler runs"),
    by_svm(0x008200F, "TRC_HVM_INTR", EMPTY, "svm", units="logged after the handler ran"),
    handled(0x0082010, "TRC_HVM_NMI", EMPTY),
    by_svm(0x0082011, "TRC_HVM_SMI", EMPTY, "svm only"),
    handled(0x0082012, "TRC_HVM_VMMCALL", Vmmcall, units="eax: hypercall number, bit 31 = Viridian's"),
    common(0x0082013, "TRC_HVM_HLT", Hlt, units="runnable: 1 = again, right after blocking"),
    unused(0x0082014, "TRC_HVM_INVLPG", variant="32-bit"),
    handled(0x0082114, "TRC_HVM_INVLPG64", Invlpg64, "all guests", units="invlpga: always 0, INVLPG only"),
    handled(0x0082015, "TRC_HVM_MCE", EMPTY),
    *(
        event
        for flag, name in ((0x000, "TRC_HVM_IOPORT_READ"), (0x200, "TRC_HVM_IOPORT_WRITE"))
        for event in (
            emulated(0x0082016 | flag, name, PortData, "data inline", units=DATA),
            emulated(0x0082016 | flag, name, Port, "rep with guest buffer"),
            # Needs a port above 32 bits; a rep form of 2 words would exist as well.
            emulated(0x0082116 | flag, name, PortData64, "64-bit address (theoretical)", emitted=False),
        )
    ),
    *(
        event
        for flag, name in ((0x000, "TRC_HVM_IOMEM_READ"), (0x200, "TRC_HVM_IOMEM_WRITE"))
        for event in (
            emulated(0x0082017 | flag, name, MmioData, "gpa < 4 GiB, data inline", units=DATA),
            emulated(0x0082017 | flag, name, Mmio, "gpa < 4 GiB, data in guest memory"),
            emulated(
                0x0082117 | flag,
                name,
                MmioData64,
                "gpa >= 4 GiB (TRC_64_FLAG), data inline",
                units=DATA,
            ),
            emulated(0x0082117 | flag, name, Mmio64, "gpa >= 4 GiB (TRC_64_FLAG), data in guest memory"),
        )
    ),
    by_vmx(0x0082018, "TRC_HVM_CLTS", EMPTY, "vmx only"),
    unused(0x0082019, "TRC_HVM_LMSW", variant="32-bit"),
    by_vmx(0x0082119, "TRC_HVM_LMSW64", Lmsw64, "vmx only", units="new_cr0: the resulting CR0"),
    common(0x008201A, "TRC_HVM_RDTSC", Rdtsc, units="guest_tsc: as the guest sees it"),
    interrupted(
        0x0082020,
        "TRC_HVM_INTR_WINDOW",
        IntrWindow,
        units="source: 0 none, 1 PIC, 2 LAPIC, 3 NMI, 4 MCE, 5 vector callback; pending_vector: -1 = none",
    ),
    by_vmx(
        0x0082021,
        "TRC_HVM_NPF",
        Npf,
        "vmx (EPT)",
        units="mfn: all ones = none; p2mt: p2m type number; logged before it is handled",
    ),
    by_svm(
        0x0082021,
        "TRC_HVM_NPF",
        Npf,
        "svm (NPT)",
        units="qualification: always 0; p2mt: p2m type number; logged after it was handled",
    ),
    by_vmx(0x0082022, "TRC_HVM_REALMODE_EMULATE", EMPTY, "vmx only"),
    by_vmx(0x0082023, "TRC_HVM_TRAP", Vector, "vmx"),
    by_svm(0x0082023, "TRC_HVM_TRAP", Vector, "svm", units="vector: only 17 (#AC)"),
    by_vmx(0x0082024, "TRC_HVM_TRAP_DEBUG", TrapDebug, "vmx only", units="exit_qualification: low 32 bits"),
    by_vmx(0x0082025, "TRC_HVM_VLAPIC", EMPTY, "vmx only", units="EOI write on the fast path"),
    emulated(0x0082126, "TRC_HVM_XCR_READ64", ExtendedControlRegister, "all guests"),
    emulated(0x0082127, "TRC_HVM_XCR_WRITE64", ExtendedControlRegister, "all guests"),
)

EMULATION = (
    hpet(0x0084001, "TRC_HVM_EMUL_HPET_START_TIMER", HpetStart, units=PERIOD),
    pit(0x0084002, "TRC_HVM_EMUL_PIT_START_TIMER", TimerStart, units=PERIOD),
    rtc(0x0084003, "TRC_HVM_EMUL_RTC_START_TIMER", TimerStart),
    lapic(0x0084004, "TRC_HVM_EMUL_LAPIC_START_TIMER", LapicStart, units=f"{PERIOD} or TSC deadline"),
    hpet(0x0084005, "TRC_HVM_EMUL_HPET_STOP_TIMER", HpetStop),
    pit(0x0084006, "TRC_HVM_EMUL_PIT_STOP_TIMER", EMPTY),
    rtc(0x0084007, "TRC_HVM_EMUL_RTC_STOP_TIMER", EMPTY),
    lapic(0x0084008, "TRC_HVM_EMUL_LAPIC_STOP_TIMER", EMPTY),
    pit(0x0084009, "TRC_HVM_EMUL_PIT_TIMER_CB", EMPTY),
    lapic(0x008400A, "TRC_HVM_EMUL_LAPIC_TIMER_CB", EMPTY, units="periodic mode only"),
    pic(
        0x008400B,
        "TRC_HVM_EMUL_PIC_INT_OUTPUT",
        PicOutput,
        units="int_output: before this update; irq: -1 = none pending",
    ),
    pic(0x008400C, "TRC_HVM_EMUL_PIC_KICK", PicIrq),
    pic(0x008400D, "TRC_HVM_EMUL_PIC_INTACK", PicIntack, units="irq: 0–7, of that PIC"),
    pic(0x008400E, "TRC_HVM_EMUL_PIC_POSEDGE", PicIrq, units="irq: ISA, 0–15"),
    pic(0x008400F, "TRC_HVM_EMUL_PIC_NEGEDGE", PicIrq, units="irq: ISA, 0–15"),
    pic(0x0084010, "TRC_HVM_EMUL_PIC_PEND_IRQ_CALL", PicPending),
    lapic(0x0084011, "TRC_HVM_EMUL_LAPIC_PIC_INTR", LapicPicIntr),
)

EVENTS = ENTRY_EXIT + HANDLERS + EMULATION

"""TRC_HW_PM and TRC_HW_IRQ: power management and host interrupts (xen/include/public/trace.h).

The vector lists name host interrupt vectors, `irq` Xen's own irq numbers.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from xtrace.parsers.event import Event
from xtrace.parsers.fields import Array, Struct, u16, u32

FreqChange = Struct("old_mhz" / u32, "new_mhz" / u32)

Idle = Struct("tick" / u32, "expected_us" / u32, "predicted_us" / u32)
Wakeup = Struct("tick" / u32, "vec0" / u32, "vec1" / u32, "vec2" / u32, "vec3" / u32)

AcpiIdleEntry = Struct("cx_index" / u32, *Idle.subcons)
AcpiIdleExit = Struct("cx_index" / u32, *Wakeup.subcons)
MwaitIdleEntry = Struct("cx_type" / u32, *Idle.subcons)
MwaitIdleExit = Struct("cx_type" / u32, *Wakeup.subcons)

IrqMove = Struct("irq" / u32, "vector" / u32, "cpu" / u32)
IrqVector = Struct("irq" / u16, "vector" / u16, "cpumask" / Array(6, u32))
UnmappedVector = Struct("vector" / u32)
IrqHandled = Struct("irq" / u32, "tsc_in" / u32, "tsc_out" / u32)

TICK: Final = "tick: low 32 bits of ns where the TSC never stops, else ACPI PM timer (3.579545 MHz)"
CPUMASK: Final = "cpumask: CPUs 0–191, CPU 0 = bit 0 of word 0"

acpi_idle = partial(Event, variant="acpi driver", source="xen/arch/x86/acpi/cpu_idle.c")
mwait_idle = partial(Event, variant="mwait driver", source="xen/arch/x86/cpu/mwait-idle.c")
irq = partial(Event, source="xen/arch/x86/irq.c")

EVENTS = (
    Event(
        0x0801001,
        "TRC_PM_FREQ_CHANGE",
        FreqChange,
        source="xen/drivers/cpufreq/utility.c",
        units="logged on the governor's CPU, not always the one that changes",
    ),
    acpi_idle(0x0801002, "TRC_PM_IDLE_ENTRY", AcpiIdleEntry, units=f"cx_index: in Xen's table; {TICK}"),
    mwait_idle(0x0801002, "TRC_PM_IDLE_ENTRY", MwaitIdleEntry, units=f"cx_type: C-state number; {TICK}"),
    acpi_idle(
        0x0801003,
        "TRC_PM_IDLE_EXIT",
        AcpiIdleExit,
        units=f"vec0–3: lowest pending vectors, 0 = none, logged before their handlers; {TICK}",
    ),
    mwait_idle(
        0x0801003,
        "TRC_PM_IDLE_EXIT",
        MwaitIdleExit,
        units=f"vec0–3: lowest pending vectors, 0 = none, logged after their handlers; {TICK}",
    ),
    irq(0x0802001, "TRC_HW_IRQ_MOVE_CLEANUP_DELAY", IrqMove, units="vector: the old one, still pending"),
    irq(0x0802002, "TRC_HW_IRQ_MOVE_CLEANUP", IrqMove, units="vector: the old one, released"),
    irq(
        0x0802005,
        "TRC_HW_IRQ_MOVE_FINISH",
        IrqMove,
        units="vector: the old one; one record per CPU it was on",
    ),
    irq(0x0802003, "TRC_HW_IRQ_BIND_VECTOR", IrqVector, units=CPUMASK),
    irq(0x0802004, "TRC_HW_IRQ_CLEAR_VECTOR", IrqVector, units=CPUMASK),
    irq(0x0802006, "TRC_HW_IRQ_ASSIGN_VECTOR", IrqVector, units=CPUMASK),
    irq(0x0802007, "TRC_HW_IRQ_UNMAPPED_VECTOR", UnmappedVector),
    irq(
        0x0802008,
        "TRC_HW_IRQ_HANDLED",
        IrqHandled,
        units="tsc_in, tsc_out: low 32 bits of the cycle counter; tsc_in 0: tracing came on in between",
    ),
)

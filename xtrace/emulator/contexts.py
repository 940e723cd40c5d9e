"""What CPUs run below the hypervisor, and the stock records around that (docs/format.md: order and vectors)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final

from xtrace.context import IDLE_DOMAIN
from xtrace.emulator.log import Layout, Log
from xtrace.emulator.machine import Activity, Context, Cpu, Machine
from xtrace.emulator.requests import State
from xtrace.parsers.registry import EVENTS

RIP: Final = 0xFFFF_FFFF_8157_7769
"""Where guests are when they are interrupted; any kernel text address will do."""

VMX_INTERRUPT, VMX_HLT, VMX_EPT_VIOLATION = 1, 12, 48
SVM_INTERRUPT, SVM_HLT, SVM_NPF = 0x60, 0x78, 0x400
"""Exit reasons and codes (Intel SDM volume 3 appendix C, AMD APM volume 2 appendix C)."""

FIRST_FRAME: Final = 0x100000
"""Machine frame of a guest's first frame; any will do."""

LOGDIRTY: Final = 2
"""p2m_ram_logdirty (xen/arch/x86/include/asm/p2m.h)."""

C_STATE: Final = 1
SLICE_NS: Final = 10_000_000
WORD: Final = 1 << 32


def layout_named(name: str, **wanted: str | int) -> Layout:
    """The layout of the declared event of this name whose attributes and constants are these."""
    for event in EVENTS:
        if event.name == name and all(
            event.constants[key] == value if key in event.constants else getattr(event, key, None) == value
            for key, value in wanted.items()
        ):
            return Layout.of(event)
    raise LookupError(name)


VMENTRY: Final = layout_named("TRC_HVM_VMENTRY")
VMEXIT: Final = layout_named("TRC_HVM_VMEXIT64", variant="4.17-4.18, VMX and SVM, guest in long mode")
VMX_INTR: Final = layout_named("TRC_HVM_INTR", vendor="vmx")
SVM_INTR: Final = layout_named("TRC_HVM_INTR", vendor="svm")
VMX_NPF: Final = layout_named("TRC_HVM_NPF", vendor="vmx")
SVM_NPF_RECORD: Final = layout_named("TRC_HVM_NPF", vendor="svm")
HLT: Final = layout_named("TRC_HVM_HLT")
IDLE_ENTRY: Final = layout_named("TRC_PM_IDLE_ENTRY", variant="acpi driver")
IDLE_EXIT: Final = layout_named("TRC_PM_IDLE_EXIT", variant="acpi driver")
SWITCH: Final = layout_named("TRC_SCHED_SWITCH")
INFPREV: Final = layout_named("TRC_SCHED_SWITCH_INFPREV")
INFNEXT: Final = layout_named("TRC_SCHED_SWITCH_INFNEXT")
CONTINUE: Final = layout_named("TRC_SCHED_CONTINUE_RUNNING")
WAKE: Final = layout_named("TRC_SCHED_WAKE")
BLOCK: Final = layout_named("TRC_SCHED_BLOCK")
RUNSTATE: Final[Mapping[tuple[str, str], Layout]] = MappingProxyType(
    {
        (old, new): layout_named("TRC_SCHED_RUNSTATE_CHANGE", old_state=old, new_state=new)
        for old, new in (
            ("runnable", "running"),
            ("running", "runnable"),
            ("running", "blocked"),
            ("blocked", "runnable"),
        )
    }
)


class Guest(Context):
    """An HVM guest; leaving it and entering it take time."""

    state: ClassVar[State] = "guest"
    hlt: ClassVar[int]
    page_fault: ClassVar[int]
    npf: ClassVar[Layout]
    written: ClassVar[int] = 0
    """What the record's qualification says of a write."""

    def __init__(self, machine: Machine, log: Log) -> None:
        self.log = log
        self._exit = machine.cycles(machine.costs.vm_exit_ns)
        self._entry = machine.cycles(machine.costs.vm_entry_ns)

    def enter(self, cpu: Cpu) -> Activity:
        """From hypervisor code into the guest; an interrupt that comes meanwhile takes it out again at once."""
        cpu.interrupts = False
        yield self._entry
        self.log.add(cpu.number, cpu.now, VMENTRY)
        cpu.context = self
        cpu.interrupts = True

    def exit(self, cpu: Cpu, reason: int) -> Activity:
        """Out of the guest, for a reason of the guest's; interrupts are off until that is noted."""
        cpu.context, cpu.interrupts = None, False
        yield self._exit
        self.log.add(cpu.number, cpu.now, VMEXIT, reason, RIP)
        cpu.interrupts = True

    def reenter(self, cpu: Cpu) -> Activity:
        yield self._entry
        self.log.add(cpu.number, cpu.now, VMENTRY)

    def page_faulted(self, cpu: Cpu, frame: int, handling: Activity) -> Activity:
        """A nested page fault is handled, which this vendor notes before or after."""
        raise NotImplementedError

    def note_fault(self, cpu: Cpu, frame: int) -> None:
        """The record of a nested page fault by a write to this guest frame."""
        self.log.add(cpu.number, cpu.now, self.npf, frame << 12, FIRST_FRAME + frame, self.written, LOGDIRTY)


class VmxGuest(Guest):
    """Intel: the exit and its vector, or the fault, are noted before they are handled."""

    hlt: ClassVar[int] = VMX_HLT
    page_fault: ClassVar[int] = VMX_EPT_VIOLATION
    npf: ClassVar[Layout] = VMX_NPF
    written: ClassVar[int] = 0x182

    def page_faulted(self, cpu: Cpu, frame: int, handling: Activity) -> Activity:
        self.note_fault(cpu, frame)
        yield from handling

    def leave(self, cpu: Cpu) -> Activity:
        yield self._exit
        self.log.add(cpu.number, cpu.now, VMEXIT, VMX_INTERRUPT, RIP)
        self.log.add(cpu.number, cpu.now, VMX_INTR, cpu.pending.bit_length() - 1)


class SvmGuest(Guest):
    """AMD: interrupts and faults are handled first, and no record tells the vector."""

    hlt: ClassVar[int] = SVM_HLT
    page_fault: ClassVar[int] = SVM_NPF
    npf: ClassVar[Layout] = SVM_NPF_RECORD

    def page_faulted(self, cpu: Cpu, frame: int, handling: Activity) -> Activity:
        yield from handling
        self.note_fault(cpu, frame)

    def leave(self, cpu: Cpu) -> Activity:  # noqa: ARG002
        yield self._exit

    def reenter(self, cpu: Cpu) -> Activity:
        self.log.add(cpu.number, cpu.now, VMEXIT, SVM_INTERRUPT, RIP)
        self.log.add(cpu.number, cpu.now, SVM_INTR)
        yield from super().reenter(cpu)


class PvGuest(Context):
    """A PV guest: an interrupt leaves no record of its own."""

    state: ClassVar[State] = "guest"

    def leave(self, cpu: Cpu) -> Activity:  # noqa: ARG002
        yield 0

    def reenter(self, cpu: Cpu) -> Activity:  # noqa: ARG002
        yield 0


class Idle(Context):
    """An idle CPU in MWAIT with interrupts off: the wake-up record, which lists pending vectors, precedes handlers."""

    state: ClassVar[State] = "idle"
    resumes: ClassVar[bool] = False

    def __init__(self, machine: Machine, log: Log) -> None:
        self._log = log
        self._wake = machine.cycles(machine.costs.wake_ns)
        self._asleep = machine.signal(0)

    def sleep(self, cpu: Cpu) -> Activity:
        """Until the next interrupt was served."""
        self._log.add(cpu.number, cpu.now, IDLE_ENTRY, C_STATE, cpu.machine.ns(cpu.now) % WORD, 0, 0)
        cpu.context = self
        yield self._asleep

    def leave(self, cpu: Cpu) -> Activity:
        yield self._wake
        vectors = [vector for vector in range(256) if cpu.pending >> vector & 1][:4]
        listed = (*vectors, *[0] * (4 - len(vectors)))
        self._log.add(cpu.number, cpu.now, IDLE_EXIT, C_STATE, cpu.machine.ns(cpu.now) % WORD, *listed)


class Scheduler:
    """Who is current on one CPU, and the records of every change (xen/common/sched/core.c).

    The idle vCPU is there when an emulation begins, and whenever nobody else is.
    """

    def __init__(self, cpu: Cpu, log: Log) -> None:
        self._cpu = cpu
        self._log = log
        self._idle = (IDLE_DOMAIN, cpu.number)
        self._since = self._woken = cpu.now
        cpu.occupant = self._idle

    def begin(self) -> None:
        """The first schedule after tracing began: the idle vCPU goes on."""
        self._note(CONTINUE, self._cpu.number, IDLE_DOMAIN)

    def wake(self, vcpu: tuple[int, int]) -> None:
        """A vCPU of this CPU may run, and as nobody else wants to, it does."""
        self._note(WAKE, *vcpu)
        self._runstate(vcpu, "blocked", "runnable")
        self._woken = self._cpu.now
        self._switch(self._idle, "runnable", vcpu)

    def block(self, vcpu: tuple[int, int]) -> None:
        """It has nothing to do: the CPU goes idle."""
        self._switch(vcpu, "blocked", self._idle)

    def _switch(self, prev: tuple[int, int], becomes: str, next_: tuple[int, int]) -> None:
        now, ns = self._cpu.now, self._cpu.machine.ns
        ran, waited = ns(now - self._since), ns(now - self._woken)
        self._note(INFPREV, *prev, ran % WORD)
        self._note(INFNEXT, *next_, (waited if next_ != self._idle else 0) % WORD, SLICE_NS)
        self._note(SWITCH, *prev, *next_)
        self._runstate(prev, "running", becomes)
        self._runstate(next_, "runnable", "running")
        self._since = now
        self._cpu.occupant = next_

    def _runstate(self, vcpu: tuple[int, int], old: str, new: str) -> None:
        domain, number = vcpu
        self._note(RUNSTATE[old, new], number, domain)

    def _note(self, layout: Layout, *fields: int) -> None:
        self._log.add(self._cpu.number, self._cpu.now, layout, *fields)

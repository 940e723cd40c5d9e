"""What the designs have in common: what workloads ask of them, and how a target runs a function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from typing import ClassVar, Final

from xtrace.emulator.machine import Activity, Cpu, Machine
from xtrace.emulator.requests import Request
from xtrace.emulator.tracepoints import Tracepoints

CALL_FUNCTION_VECTOR: Final = 0xFB
INVALIDATE_TLB_VECTOR: Final = 0xFD

INVALIDATE_CB: Final = 0xFFFF_82D0_4032_0000
"""A hypervisor text address for the function with which flushes ride on calls."""

HANDLERS: Final = "handlers"
IDLE_HANDLERS: Final = "idle handlers"
SCANNED: Final = "scanned"
SERVED: Final = "served"


class Design(ABC):
    """A design of `on_selected_cpus()` and `flush_area_mask()`.

    counted  HANDLERS that ran, by interrupt or called by a CPU in its own mask; IDLE_HANDLERS: those of them that ran
             no function; SCANNED: requests that they looked at, again where they did so again; SERVED: functions run
    """

    name: ClassVar[str]
    flush_vector: ClassVar[int] = CALL_FUNCTION_VECTOR

    def __init__(self, machine: Machine, trace: Tracepoints) -> None:
        self.machine = machine
        self.trace = trace
        self.counted: Counter[str] = Counter()
        self.setup = machine.cycles(machine.costs.setup_ns)
        self.fill = machine.cycles(machine.costs.fill_ns)
        self.check_in = machine.cycles(machine.costs.check_in_ns)
        machine.handlers[CALL_FUNCTION_VECTOR] = self.call_function_interrupt

    @abstractmethod
    def call(self, cpu: Cpu, call: Request) -> Activity:
        """`on_selected_cpus()`, interrupts enabled."""

    @abstractmethod
    def call_function_interrupt(self, cpu: Cpu) -> Activity:
        """What a target does on CALL_FUNCTION, interrupts disabled."""

    def flush(self, cpu: Cpu, flush: Request) -> Activity:
        """The part of `flush_area_mask()` that concerns other CPUs, interrupts enabled: here it rides on a call."""
        yield from self.trace.start(cpu, flush)
        yield from self.trace.send(cpu, flush)
        carrier = Request(flush.initiator, flush.targets, flush.work, flush.answered, func=INVALIDATE_CB, carries=flush)
        yield from self.call(cpu, carrier)
        yield from self.trace.done(cpu, flush)

    def run(self, cpu: Cpu, call: Request) -> Activity:
        """The function on a target, which answers before it where nobody waits for its end."""
        if not call.wait:
            yield from self.answer(cpu, call)
        self.trace.enter(cpu, call)
        if call.carries is not None:
            self.trace.enter(cpu, call.carries)
        yield call.work(cpu.number)
        if call.carries is not None:
            yield from self.trace.exit(cpu, call.carries)
        yield from self.trace.exit(cpu, call)
        if call.wait:
            yield from self.answer(cpu, call)

    def handled(self, scanned: int, served: int) -> None:
        """A handler is through."""
        counted = self.counted
        counted[HANDLERS] += 1
        counted[IDLE_HANDLERS] += not served
        counted[SCANNED] += scanned
        counted[SERVED] += served

    def answer(self, cpu: Cpu, call: Request) -> Activity:
        """The target clears its bit, which one CPU at a time can do."""
        call.line_free = max(call.line_free, cpu.now) + self.check_in
        yield call.line_free - cpu.now
        call.selected.discard(cpu.number)
        if not call.selected:
            call.answered.notify()

    def ask(self, cpu: Cpu, call: Request) -> Activity:
        """Interrupt the targets; a CPU among its own serves requests right after, interrupts off."""
        yield from self.machine.send(cpu, call.targets, CALL_FUNCTION_VECTOR)
        if cpu.number in call.selected:
            cpu.interrupts = False
            yield from self.call_function_interrupt(cpu)
            cpu.interrupts = True

    @staticmethod
    def wait_for(request: Request) -> Activity:
        """Spin until every target has answered."""
        while request.selected:
            yield request.answered

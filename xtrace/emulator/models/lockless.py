"""The series of April 2026: a descriptor for each CPU, and a mask that says which of them are in use."""

from __future__ import annotations

from typing import ClassVar

from xtrace.emulator.machine import Activity, Cpu, Machine
from xtrace.emulator.models.design import Design
from xtrace.emulator.requests import Request
from xtrace.emulator.tracepoints import Tracepoints


class Lockless(Design):
    """Targets walk the mask from the lowest CPU up; flushes ride on calls."""

    name: ClassVar[str] = "lockless"

    def __init__(self, machine: Machine, trace: Tracepoints) -> None:
        super().__init__(machine, trace)
        self.call_data: dict[int, Request] = {}
        self.active = 0
        self.scan = machine.cycles(machine.costs.scan_ns)
        self.publish_time = machine.cycles(machine.costs.publish_ns)

    def call(self, cpu: Cpu, call: Request) -> Activity:
        yield from self.trace.start(cpu, call)
        yield self.setup
        if cpu.number in self.call_data:
            # Only an asynchronous one can be unanswered still.
            yield from self.wait_for(self.call_data[cpu.number])
        yield self.fill
        self.publish(cpu, call)
        yield self.publish_time
        yield from self.trace.send(cpu, call)
        yield from self.ask(cpu, call)
        if call.wait:
            yield from self.wait_for(call)
        yield from self.trace.done(cpu, call)

    def publish(self, cpu: Cpu, call: Request) -> None:
        """From here on a target that is in its handler already can see the request."""
        self.call_data[cpu.number] = call
        self.active |= 1 << cpu.number

    def call_function_interrupt(self, cpu: Cpu) -> Activity:
        passed = scanned = served = 0
        # Requests that come up ahead of the walk are met, those behind it are left to their own interrupt.
        while ahead := self.active >> passed:
            lowest = passed + (ahead & -ahead).bit_length() - 1
            yield self.scan
            call = self.call_data[lowest]
            scanned += 1
            if cpu.number in call.selected:
                yield from self.run(cpu, call)
                served += 1
            passed = lowest + 1
        self.handled(scanned, served)

    def answer(self, cpu: Cpu, call: Request) -> Activity:
        yield from super().answer(cpu, call)
        if not call.selected:
            self.active &= ~(1 << call.initiator)

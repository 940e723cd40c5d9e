"""Linux's scheme, which the author of the series ported first (Linux: kernel/smp.c): a queue for each target."""

from __future__ import annotations

from typing import ClassVar

from xtrace.emulator.machine import Activity, Cpu, Machine
from xtrace.emulator.models.design import CALL_FUNCTION_VECTOR, Design
from xtrace.emulator.requests import Request
from xtrace.emulator.tracepoints import Tracepoints


class Linux(Design):
    """A descriptor for each pair of initiator and target; an IPI only to a target whose queue was empty."""

    name: ClassVar[str] = "linux"

    def __init__(self, machine: Machine, trace: Tracepoints) -> None:
        super().__init__(machine, trace)
        self.queues: list[list[Request]] = [[] for _ in machine.cpus]
        self.descriptors: dict[tuple[int, int], Request] = {}
        self.enqueue = machine.cycles(machine.costs.enqueue_ns)
        self.collect = machine.cycles(machine.costs.collect_ns)

    def call(self, cpu: Cpu, call: Request) -> Activity:
        yield from self.trace.start(cpu, call)
        yield self.setup
        yield self.fill
        others = [one for one in call.targets if one != cpu.number]
        idle = []
        for one in others:
            yield from self.own(cpu, one)
            self.descriptors[cpu.number, one] = call
            if not self.queues[one]:
                idle.append(one)
            self.queues[one].append(call)
            yield self.enqueue
        yield from self.trace.send(cpu, call)
        yield from self.machine.send(cpu, idle, CALL_FUNCTION_VECTOR)
        if cpu.number in call.selected:
            cpu.interrupts = False
            yield from self.run(cpu, call)
            cpu.interrupts = True
        if call.wait:
            for one in others:
                yield from self.own(cpu, one)
                yield self.collect
        yield from self.trace.done(cpu, call)

    def own(self, cpu: Cpu, target: int) -> Activity:
        """Spin until this CPU's descriptor for the target is free."""
        earlier = self.descriptors.get((cpu.number, target))
        while earlier is not None and target in earlier.selected:
            yield earlier.answered

    def call_function_interrupt(self, cpu: Cpu) -> Activity:
        queue, self.queues[cpu.number] = self.queues[cpu.number], []
        for call in queue:
            yield from self.run(cpu, call)
        self.handled(len(queue), len(queue))

    def answer(self, cpu: Cpu, call: Request) -> Activity:
        # Each target has a descriptor of its own: nobody waits for its line, and the caller sees each answer.
        yield self.check_in
        call.selected.discard(cpu.number)
        call.answered.notify()

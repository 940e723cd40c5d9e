"""Xen up to 4.22: one request of each kind on the whole host, under a lock (xen/common/smp.c, xen/arch/x86/smp.c)."""

from __future__ import annotations

from typing import ClassVar

from xtrace.emulator.machine import Activity, Cpu, Machine, TicketLock
from xtrace.emulator.models.design import INVALIDATE_TLB_VECTOR, Design
from xtrace.emulator.requests import Request
from xtrace.emulator.tracepoints import Tracepoints


class Legacy(Design):
    """`call_lock` and `flush_lock`, and a vector for flushes."""

    name: ClassVar[str] = "legacy"
    flush_vector: ClassVar[int] = INVALIDATE_TLB_VECTOR

    def __init__(self, machine: Machine, trace: Tracepoints) -> None:
        super().__init__(machine, trace)
        self.call_lock = TicketLock(machine)
        self.flush_lock = TicketLock(machine)
        self.call_data: Request | None = None
        self.flush_data: Request | None = None
        machine.handlers[INVALIDATE_TLB_VECTOR] = self.invalidate_interrupt

    def call(self, cpu: Cpu, call: Request) -> Activity:
        yield from self.trace.start(cpu, call)
        yield self.setup
        yield from self.call_lock.acquire()
        self.call_data = call
        yield self.fill
        yield from self.trace.send(cpu, call)
        yield from self.ask(cpu, call)
        yield from self.wait_for(call)
        yield from self.trace.done(cpu, call)
        self.call_lock.release()

    def call_function_interrupt(self, cpu: Cpu) -> Activity:
        return self._serve(cpu, self.call_data)

    def flush(self, cpu: Cpu, flush: Request) -> Activity:
        yield from self.trace.start(cpu, flush)
        yield self.setup
        yield from self.flush_lock.acquire()
        self.flush_data = flush
        yield self.fill
        yield from self.trace.send(cpu, flush)
        yield from self.machine.send(cpu, flush.targets, INVALIDATE_TLB_VECTOR)
        yield from self.wait_for(flush)
        yield from self.trace.done(cpu, flush)
        self.flush_lock.release()

    def invalidate_interrupt(self, cpu: Cpu) -> Activity:
        """What a target does on INVALIDATE_TLB."""
        return self._serve(cpu, self.flush_data)

    def _serve(self, cpu: Cpu, request: Request | None) -> Activity:
        served = 0
        if request is not None and cpu.number in request.selected:
            yield from self.run(cpu, request)
            served += 1
        self.handled(1, served)

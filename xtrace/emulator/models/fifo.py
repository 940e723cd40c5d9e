"""Lockless with service in order of arrival, as a reviewer of the series asked for against starvation."""

from __future__ import annotations

from typing import ClassVar

from xtrace.emulator.machine import Activity, Cpu
from xtrace.emulator.models.lockless import Lockless
from xtrace.emulator.requests import Request


class Fifo(Lockless):
    """Requests draw a number from one counter; a target serves the lowest number that selects it."""

    name: ClassVar[str] = "fifo"

    def publish(self, cpu: Cpu, call: Request) -> None:
        # A dict keeps the order of insertion: that of arrival.
        self.call_data.pop(cpu.number, None)
        super().publish(cpu, call)

    def call_function_interrupt(self, cpu: Cpu) -> Activity:
        scanned = served = 0
        while (call := self.first_for(cpu)) is not None:
            looks = self.active.bit_count()
            yield self.scan * looks
            yield from self.run(cpu, call)
            scanned += looks
            served += 1
        self.handled(scanned, served)

    def first_for(self, cpu: Cpu) -> Request | None:
        """Of the requests that select this CPU the one that came first."""
        return next((call for call in self.call_data.values() if cpu.number in call.selected), None)

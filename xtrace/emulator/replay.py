"""The demand of a trace under another design, closed loop: each CPU asks again once it was answered and has thought."""

from __future__ import annotations

from dataclasses import replace

from xtrace.emulator.demand import Asked, Demand
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.machine import Activity, Cpu, Signal
from xtrace.emulator.requests import Request


class Replay:
    """A demand at work on an emulated host; `made` has each request with its row in the trace's episodes."""

    def __init__(self, demand: Demand, host: Host, *, traced: bool = False) -> None:
        self.emulation = Emulation(replace(host, cpus=max(host.cpus, demand.cpus)), traced=traced)
        self.made: list[tuple[int, Request]] = []
        self._bursts = demand.bursts
        self._left = [len(burst.asked) for burst in demand.bursts]
        self._begin = [0] * len(demand.bursts)
        self._next: list[Signal] = [self.emulation.machine.signal(0) for _ in demand.bursts]
        self._begin[0] = self.emulation.begin
        for number in sorted({cpu for burst in demand.bursts for cpu in burst.asked}):
            cpu = self.emulation.machine.cpus[number]
            self.emulation.start(number, self._asking(cpu), foreground=True)

    def run(self) -> None:
        """Run to the end of the demand."""
        self.emulation.run()

    def _asking(self, cpu: Cpu) -> Activity:
        cycles = self.emulation.machine.cycles
        for index, burst in enumerate(self._bursts):
            if cpu.number not in burst.asked:
                continue
            while index and self._left[index - 1]:
                yield self._next[index]
            begin = self._begin[index] + cycles(burst.silence_ns if index else 0)
            yield max(0, begin - cpu.now)
            for asked in burst.asked[cpu.number]:
                yield cycles(asked.think_ns)
                yield from self._ask(cpu, asked)
            self._left[index] -= 1
            if not self._left[index]:
                self._ended(index)

    def _ended(self, index: int) -> None:
        if index + 1 < len(self._bursts):
            self._begin[index + 1] = self.emulation.machine.loop.now
            self._next[index + 1].notify()

    def _ask(self, cpu: Cpu, asked: Asked) -> Activity:
        work = {target: self.emulation.machine.cycles(ns) for target, ns in asked.work_ns.items()}
        request = self.emulation.request(
            cpu,
            asked.targets,
            work.__getitem__,
            func=asked.func,
            wait=asked.wait,
            flush_flags=asked.flush_flags,
            va=asked.va,
        )
        self.made.append((asked.source, request))
        design = self.emulation.design
        yield from design.flush(cpu, request) if request.is_flush else design.call(cpu, request)

"""Designs that break a promise each, to be found out by `xtrace check`."""

from __future__ import annotations

from random import Random
from typing import Any

from xtrace.emulator.machine import Activity, Cpu, Machine, TicketLock
from xtrace.emulator.models.legacy import Legacy
from xtrace.emulator.models.lockless import Lockless
from xtrace.emulator.requests import Request


class UnfairLock(TicketLock):
    """A spinlock that goes to whoever `pick` says."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.waiting: list[object] = []
        self.owner: object = None
        self.random = Random(5)

    def acquire(self) -> Activity:
        me = object()
        yield self._free_ns
        if self.owner is None:
            self.owner = me
        else:
            self.waiting.append(me)
        while self.owner is not me:
            yield self._changed

    def release(self) -> None:
        self.owner = self.pick() if self.waiting else None
        self._changed.notify()

    def pick(self) -> object:
        """Last in, first out."""
        return self.waiting.pop()


class RandomLock(UnfairLock):
    """A spinlock that goes to any of those that wait."""

    def pick(self) -> object:
        return self.waiting.pop(self.random.randrange(len(self.waiting)))


class LifoLegacy(Legacy):
    """Locks that go to the last who came."""

    lock: type[UnfairLock] = UnfairLock

    def __init__(self, machine: Machine, trace: Any) -> None:
        super().__init__(machine, trace)
        self.call_lock, self.flush_lock = self.lock(machine), self.lock(machine)


class RandomLegacy(LifoLegacy):
    """Locks that go to anyone."""

    lock = RandomLock


class NoLock(Legacy):
    """The lock is let go before the targets have answered."""

    def __init__(self, machine: Machine, trace: Any) -> None:
        super().__init__(machine, trace)
        self.open: list[Request] = []

    def call(self, cpu: Cpu, call: Request) -> Activity:
        yield from self.trace.start(cpu, call)
        yield self.setup
        yield from self.call_lock.acquire()
        self.open.append(call)
        yield self.fill
        yield from self.trace.send(cpu, call)
        yield from self.ask(cpu, call)
        self.call_lock.release()
        yield from self.wait_for(call)
        yield from self.trace.done(cpu, call)
        self.open.remove(call)

    def call_function_interrupt(self, cpu: Cpu) -> Activity:
        for call in [one for one in self.open if cpu.number in one.selected]:
            yield from self.run(cpu, call)


class AskFirst(Legacy):
    """IPIs go out a while before SEND is noted."""

    def call(self, cpu: Cpu, call: Request) -> Activity:
        yield from self.trace.start(cpu, call)
        yield self.setup
        yield from self.call_lock.acquire()
        self.call_data = call
        yield from self.ask(cpu, call)
        yield self.machine.cycles(3_000)
        yield from self.trace.send(cpu, call)
        yield from self.wait_for(call)
        yield from self.trace.done(cpu, call)
        self.call_lock.release()


class NoCheckIn(Legacy):
    """An asynchronous call is DONE at once."""

    def call(self, cpu: Cpu, call: Request) -> Activity:
        yield from self.trace.start(cpu, call)
        yield self.setup
        yield from self.call_lock.acquire()
        self.call_data = call
        yield self.fill
        yield from self.trace.send(cpu, call)
        yield from self.ask(cpu, call)
        yield from self.trace.done(cpu, call)
        yield from self.wait_for(call)
        self.call_lock.release()


class EarlyAnswer:
    """Targets answer before the function ends, whoever waits."""

    def run(self: Any, cpu: Cpu, call: Request) -> Activity:
        self.trace.enter(cpu, call)
        if call.carries is not None:
            self.trace.enter(cpu, call.carries)
        yield from self.answer(cpu, call)
        yield call.work(cpu.number)
        if call.carries is not None:
            yield from self.trace.exit(cpu, call.carries)
        yield from self.trace.exit(cpu, call)


class EarlyLegacy(EarlyAnswer, Legacy):
    """As it says."""


class EarlyLockless(EarlyAnswer, Lockless):
    """As it says."""


class Forgetful(Lockless):
    """The last of several targets is forgotten."""

    def publish(self, cpu: Cpu, call: Request) -> None:
        if len(call.selected) > 1:
            call.selected.discard(max(call.selected))
        super().publish(cpu, call)


class Hasty(Lockless):
    """A CPU fills its descriptor though an earlier call is not answered; targets that have not seen that never do."""

    def call(self, cpu: Cpu, call: Request) -> Activity:
        yield from self.trace.start(cpu, call)
        yield self.setup
        yield self.fill
        self.publish(cpu, call)
        yield self.publish_time
        yield from self.trace.send(cpu, call)
        yield from self.ask(cpu, call)
        if call.wait:
            yield from self.wait_for(call)
        yield from self.trace.done(cpu, call)


class Eager(Lockless):
    """A CPU that takes an interrupt runs what it was not asked for, too, once."""

    def call_function_interrupt(self, cpu: Cpu) -> Activity:
        yield from super().call_function_interrupt(cpu)
        for call in list(self.call_data.values()):
            if call.selected and cpu.number not in (*call.targets, *call.served):
                self.trace.enter(cpu, call)
                yield call.work(cpu.number)
                yield from self.trace.exit(cpu, call)


class Stutter(Lockless):
    """Each target runs the function twice."""

    def run(self, cpu: Cpu, call: Request) -> Activity:
        self.trace.enter(cpu, call)
        yield call.work(cpu.number)
        yield from self.trace.exit(cpu, call)
        yield from super().run(cpu, call)


class Interruptible(Lockless):
    """Functions run with interrupts on, so that a CPU can come upon the next before it has left one."""

    def __init__(self, machine: Machine, trace: Any) -> None:
        super().__init__(machine, trace)
        self.inside: set[tuple[int, int]] = set()

    def run(self, cpu: Cpu, call: Request) -> Activity:
        me = (cpu.number, id(call))
        if me in self.inside:
            return
        self.inside.add(me)
        self.trace.enter(cpu, call)
        cpu.interrupts = True
        yield call.work(cpu.number)
        cpu.interrupts = False
        yield from self.trace.exit(cpu, call)
        yield from self.answer(cpu, call)


class Silent(Lockless):
    """A CPU that has waited goes on without DONE."""

    def call(self, cpu: Cpu, call: Request) -> Activity:
        yield from self.trace.start(cpu, call)
        yield self.setup
        yield self.fill
        self.publish(cpu, call)
        yield self.publish_time
        yield from self.trace.send(cpu, call)
        yield from self.ask(cpu, call)
        yield from self.wait_for(call)
        cpu.calling -= 1


class OwnWay(Lockless):
    """Flushes go out by themselves, though there is no vector for them."""

    def flush(self, cpu: Cpu, flush: Request) -> Activity:
        yield from super().call(cpu, flush)

"""The machine: CPUs with their interrupts, spinlocks, and the time that all of it takes.

What a CPU does is a generator that yields what it waits for: a number of cycles to be busy for, or a Signal to spin
on. An interrupt puts another generator on top; below it, the rest of a busy time is kept, and a spinning one looks
again at what it spins on, as `while ( … ) cpu_relax();` does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from random import Random
from typing import ClassVar, Final

from xtrace.context import IDLE_DOMAIN
from xtrace.emulator.choices import IpiMode
from xtrace.emulator.costs import Costs
from xtrace.emulator.loop import Loop
from xtrace.emulator.requests import Situation, State

Activity = Generator["int | Signal", None, None]
Handler = Callable[["Cpu"], Activity]

NS_PER_S: Final = 1_000_000_000
UPTIME_S: Final = 100
"""How long the host has been up when an emulation begins."""

CLUSTER_CPUS: Final = 16
"""CPUs that one x2APIC cluster addresses (Intel SDM volume 3, logical destination mode)."""


class Signal:
    """Memory that CPUs spin on: `notify` is the write that they see."""

    __slots__ = ("_delay", "_loop", "_waiting")

    def __init__(self, loop: Loop, delay: int) -> None:
        self._loop = loop
        self._delay = delay
        self._waiting: list[tuple[Cpu, int]] = []

    def add(self, cpu: Cpu, turn: int) -> None:
        """This CPU spins, in this turn of its."""
        self._waiting.append((cpu, turn))

    def notify(self) -> None:
        """Everyone who spins looks again, once the line has come over."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            self._loop.at(self._loop.now + self._delay, _look_again, one)


def _look_again(one: tuple[Cpu, int]) -> None:
    cpu, turn = one
    cpu.resume(turn)


class Context:
    """What a CPU runs where it is not in hypervisor code: what interrupting that costs, and leaves in the trace.

    state    what an interrupt finds there
    resumes  it goes on after the interrupt by itself; else the activity that had begun it decides
    """

    state: ClassVar[State]
    resumes: ClassVar[bool] = True

    def leave(self, cpu: Cpu) -> Activity:
        """From the interrupt until a handler can run."""
        raise NotImplementedError

    def reenter(self, cpu: Cpu) -> Activity:
        """From the last handler's end until the interrupted goes on."""
        raise NotImplementedError


class Cpu:
    """One CPU.

    number      its number
    context     what it runs below the hypervisor; None: hypervisor code
    occupant    domain and vCPU that are current on it, None where no scheduler is emulated
    interrupts  whether they are enabled
    calling     calls and flushes of its own that it is inside of
    softirqs    what is to be done before the CPU goes back to a guest or to idling
    pending     the local APIC's IRR: one bit a vector, so that a second IPI of a pending vector is lost in the first
    """

    def __init__(self, machine: Machine, number: int) -> None:
        self.machine = machine
        self.number = number
        self.context: Context | None = None
        self.occupant: tuple[int, int] | None = None
        self.interrupts = True
        self.calling = 0
        self.pending = 0
        self.softirqs: list[Handler] = []
        self._loop = machine.loop
        self._frames: list[Activity] = [self._rest()]
        self._left: list[int] = [0]
        self._turn = 0
        self._due = 0
        self._waits = False
        self._found: Context | None = None

    @property
    def now(self) -> int:
        """The time in cycles."""
        return self._loop.now

    def situation(self) -> Situation:
        """What an interrupt finds now, or found when it came that the CPU serves."""
        if self.calling:
            return Situation("hypervisor", self.occupant)
        if self.occupant is not None and self.occupant[0] == IDLE_DOMAIN:
            return Situation("idle", self.occupant)
        return Situation(self._found.state if self._found is not None else "hypervisor", self.occupant)

    def start(self, activity: Activity) -> None:
        """Give the CPU what it does once the machine runs; when that ends it only serves interrupts."""
        self._frames.append(activity)
        self._left.append(0)

    def _rest(self) -> Activity:
        never = self.machine.signal(0)
        while True:
            yield never

    def interrupt(self, vector: int) -> None:
        """An interrupt arrives at the local APIC."""
        self.pending |= 1 << vector
        if self.interrupts and self._waits:
            self._turn += 1
            self._left[-1] = max(0, self._due - self._loop.now)
            self._go_on()

    def acknowledge(self) -> int:
        """Take the pending interrupt of the highest priority, which is the highest vector."""
        vector = self.pending.bit_length() - 1
        self.pending &= ~(1 << vector)
        return vector

    def resume(self, turn: int) -> None:
        """What the CPU waited for in this turn has come; a turn that an interrupt ended does not count."""
        if turn == self._turn:
            self._turn += 1
            self._left[-1] = 0
            self._go_on()

    def _go_on(self) -> None:
        frames, left = self._frames, self._left
        self._waits = False
        while frames:
            if self.pending and self.interrupts:
                self.interrupts = False
                frames.append(self._interruption())
                left.append(0)
            if left[-1]:
                wish: int | Signal = left[-1]
            else:
                try:
                    wish = next(frames[-1])
                except StopIteration:
                    frames.pop()
                    left.pop()
                    continue
            if isinstance(wish, int):
                left[-1] = wish
                if not wish or (self.pending and self.interrupts):
                    continue
                self._due = self._loop.now + wish
                self._loop.at(self._due, self.resume, self._turn)
            else:
                if self.pending and self.interrupts:
                    continue
                self._due = 0
                wish.add(self, self._turn)
            self._waits = True
            return

    def _interruption(self) -> Activity:
        """Serve what is pending, as the interrupt entry does; interrupts stay off until all of it is done."""
        machine, context = self.machine, self.context
        self.context, self._found = None, context
        if context is not None:
            yield from context.leave(self)
        while self.pending:
            handler = machine.handlers[self.acknowledge()]
            yield machine.irq_entry
            yield from handler(self)
            yield machine.irq_exit
        if context is not None:
            yield from self._softirqs()
        if context is not None and context.resumes:
            yield from context.reenter(self)
            self.context = context
        self._found = None
        self.interrupts = True

    def _softirqs(self) -> Activity:
        """On the way back to a guest or to idling what interrupts left to do, with interrupts on (do_softirq())."""
        self._found = None
        while self.softirqs:
            self.interrupts = True
            yield from self.softirqs.pop(0)(self)
            self.interrupts = False


class Machine:
    """CPUs that share memory and a clock.

    loop      time, in cycles of the TSC
    handlers  by vector
    hz        frequency of the TSC
    """

    def __init__(
        self,
        n_cpus: int,
        hz: int,
        costs: Costs,
        random: Random,
        *,
        ipi_mode: IpiMode = "cluster",
    ) -> None:
        self.loop = Loop(hz * UPTIME_S)
        self.hz = hz
        self.costs = costs
        self.random = random
        self.ipi_mode = ipi_mode
        self.handlers: dict[int, Handler] = {}
        self.irq_entry = self.cycles(costs.irq_entry_ns)
        self.irq_exit = self.cycles(costs.irq_exit_ns)
        self._icr_write = self.cycles(costs.icr_write_ns)
        self._flight = self.cycles(costs.flight_ns)
        self._jitter = self.cycles(costs.flight_jitter_ns)
        self.cpus = [Cpu(self, number) for number in range(n_cpus)]

    def run(self, until: int | None = None) -> None:
        """Let all CPUs go, until cycle `until`, until the loop is stopped, or until nothing is left to do."""
        for cpu in self.cpus:
            self.loop.at(self.loop.now, cpu.resume, 0)
        self.loop.run(until)

    def cycles(self, ns: float) -> int:
        """A time in cycles."""
        return round(ns * self.hz / NS_PER_S)

    def ns(self, cycles: int) -> int:
        """Cycles as whole nanoseconds, rounded down."""
        return cycles * NS_PER_S // self.hz

    def signal(self, ns: float) -> Signal:
        """Memory to spin on, which takes so long to be seen."""
        return Signal(self.loop, self.cycles(ns))

    def send(self, sender: Cpu, targets: Sequence[int], vector: int) -> Activity:
        """Send an IPI to these CPUs, the sender never among them, as xen/arch/x86/genapic does.

        One write to all but self where that is who they are; else one a cluster, or one a target. Interrupts are off
        meanwhile.
        """
        others = [one for one in targets if one != sender.number]
        if not others:
            return
        when, write, flight = self.loop.now, self._icr_write, self._flight
        shorthand = len(others) == len(self.cpus) - 1
        cluster = -1
        for index, one in enumerate(others):
            another = self.ipi_mode == "physical" or one // CLUSTER_CPUS != cluster
            if index == 0 or (another and not shorthand):
                when += write
            cluster = one // CLUSTER_CPUS
            jitter = self.random.randrange(self._jitter + 1) if self._jitter else 0
            self.loop.at(when + flight + jitter, self.cpus[one].interrupt, vector)
        enabled, sender.interrupts = sender.interrupts, False
        yield when - self.loop.now
        sender.interrupts = enabled


class TicketLock:
    """A spinlock served in order of arrival, spun on with interrupts on (xen/common/spinlock.c)."""

    def __init__(self, machine: Machine) -> None:
        self._free_ns = machine.cycles(machine.costs.lock_ns)
        self._next = 0
        self._serving = 0
        self._changed = machine.signal(machine.costs.handover_ns)

    def acquire(self) -> Activity:
        """Wait for one's turn."""
        ticket = self._next
        self._next += 1
        yield self._free_ns
        while self._serving != ticket:
            yield self._changed

    def release(self) -> None:
        """Let the next one in."""
        self._serving += 1
        self._changed.notify()

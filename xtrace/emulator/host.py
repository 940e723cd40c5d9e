"""An emulated host: a machine, a design of its calls, what its CPUs run, and what that leaves in the trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Final

from xtrace.clock import MAX_HZ, MIN_HZ
from xtrace.emulator.choices import IpiMode
from xtrace.emulator.contexts import HLT, Guest, Idle, PvGuest, Scheduler, SvmGuest, VmxGuest
from xtrace.emulator.costs import Costs
from xtrace.emulator.log import Log
from xtrace.emulator.machine import NS_PER_S, Activity, Cpu, Machine
from xtrace.emulator.models import design_of
from xtrace.emulator.models.design import Design
from xtrace.emulator.requests import Request, Work
from xtrace.emulator.tracepoints import Tracepoints
from xtrace.errors import UsageError
from xtrace.parsers.container import MAX_CPU
from xtrace.parsers.vendor import Vendor

LOCAL_TIMER_VECTOR: Final = 0xFA
MAX_CPUS: Final = 1024
WATCH_NS: Final = 5_000_000
TIME_CALIBRATION: Final = 0xFFFF_82D0_4032_72A0

DOM0: Final = 0


@dataclass(frozen=True, slots=True)
class Host:
    """What is emulated.

    cpus         how many; hz their TSC's frequency
    model        a key of `models.DESIGNS`, or a Design of your own
    vendor       whose CPUs, which decides what a guest's exits look like
    ipi_mode     how x2APIC addresses several CPUs
    seed         of everything drawn
    tsc_offsets  cycles by which the TSC of a CPU is ahead
    first_seq    where each CPU's counts of calls and flushes begin
    """

    cpus: int = 8
    hz: int = 2_400_000_000
    model: str | type[Design] = "lockless"
    vendor: Vendor = "vmx"
    ipi_mode: IpiMode = "cluster"
    costs: Costs = field(default_factory=Costs)
    seed: int = 1
    tsc_offsets: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    first_seq: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.cpus <= min(MAX_CPUS, MAX_CPU + 1):
            raise UsageError(f"{self.cpus} CPUs: give 1 to {MAX_CPUS}")
        if not MIN_HZ <= self.hz <= MAX_HZ:
            raise UsageError(f"a CPU frequency of {self.hz} Hz is out of range: give 1 MHz to 10 GHz")
        design_of(self.model)


class Emulation:
    """A host at work.

    Once `run` has returned, `log` and `requests` tell what happened, `measured` what workloads clocked by themselves
    (CPU and cycles), and `counted` what they counted.

    traced: whether records are kept; without them an emulation is faster.
    """

    def __init__(self, host: Host, *, traced: bool = True) -> None:
        self.host = host
        self.random = Random(host.seed)  # noqa: S311
        self.machine = Machine(host.cpus, host.hz, host.costs, self.random, ipi_mode=host.ipi_mode)
        self.begin = self.machine.loop.now
        self.log = Log(on=traced)
        self.trace = Tracepoints(self.log, self.machine.cycles(host.costs.trace_ns), host.first_seq)
        self.design = design_of(host.model)(self.machine, self.trace)
        self.machine.handlers[LOCAL_TIMER_VECTOR] = self._timer_interrupt
        self.guest: Guest = {"vmx": VmxGuest, "svm": SvmGuest}[host.vendor](self.machine, self.log)
        self.pv = PvGuest()
        self.idle = Idle(self.machine, self.log)
        self.schedulers = [Scheduler(cpu, self.log) for cpu in self.machine.cpus]
        self._timer = self.machine.cycles(host.costs.timer_ns)
        self.measured: list[tuple[int, int]] = []
        self.counted: Counter[str] = Counter()
        self._unfinished = 0
        self._dom0_vcpus = 0
        self._endless = True
        self._busy: set[int] = set()

    @property
    def requests(self) -> list[Request]:
        """All calls and flushes, in order of start."""
        return self.trace.requests

    def request(self, cpu: Cpu, targets: tuple[int, ...], work: Work, **what: int) -> Request:
        """A call or flush to be made by this CPU."""
        answered = self.machine.signal(self.host.costs.notice_ns)
        return Request(cpu.number, targets, work, answered, **what)  # type: ignore[arg-type]

    def new_dom0_vcpu(self) -> tuple[int, int]:
        """A vCPU of dom0 that nobody has yet."""
        self._dom0_vcpus += 1
        return DOM0, self._dom0_vcpus - 1

    def free_cpus(self) -> list[int]:
        """CPUs that were given nothing to do yet."""
        return [number for number in range(self.host.cpus) if number not in self._busy]

    def start(self, number: int, activity: Activity, *, foreground: bool = False) -> None:
        """Let a CPU do this; an emulation without a set duration ends with the last foreground activity."""
        self._busy.add(number)
        self._unfinished += foreground
        self.machine.cpus[number].start(self._whole(activity, foreground))

    def _whole(self, activity: Activity, foreground: bool) -> Activity:
        yield from activity
        self._unfinished -= foreground
        if foreground and not self._unfinished and self._endless:
            self.machine.loop.stop()

    def run(self, duration_ns: float | None = None) -> None:
        """Run for so long; None: until the last foreground activity ends."""
        self._endless = duration_ns is None
        for cpu in self.machine.cpus:
            self.schedulers[cpu.number].begin()
            if cpu.number not in self._busy:
                cpu.start(self.idling(cpu))
        self.machine.run(None if duration_ns is None else self.begin + self.machine.cycles(duration_ns))

    def idling(self, cpu: Cpu) -> Activity:
        """A CPU with nothing to do."""
        while True:
            yield from self.idle.sleep(cpu)

    def sleeping(self, cpu: Cpu, cycles: int) -> Activity:
        """Idle for so long; a timer wakes the CPU."""
        until = cpu.now + cycles
        self.machine.loop.at(until, cpu.interrupt, LOCAL_TIMER_VECTOR)
        while cpu.now < until:
            yield from self.idle.sleep(cpu)

    def computing(self, cpu: Cpu, vcpu: tuple[int, int], run_ns: float, rest_ns: float) -> Activity:
        """An HVM vCPU that computes and halts in turn, for times around these."""
        scheduler = self.schedulers[cpu.number]
        while True:
            scheduler.wake(vcpu)
            yield from self.guest.enter(cpu)
            yield self.around(run_ns)
            yield from self.guest.exit(cpu, self.guest.hlt)
            self.log.add(cpu.number, cpu.now, HLT, 0)
            scheduler.block(vcpu)
            yield from self.sleeping(cpu, self.around(rest_ns))

    def computing_pv(self, cpu: Cpu, vcpu: tuple[int, int], run_ns: float, rest_ns: float) -> Activity:
        """The same of a PV vCPU."""
        scheduler = self.schedulers[cpu.number]
        while True:
            scheduler.wake(vcpu)
            cpu.context = self.pv
            yield self.around(run_ns)
            cpu.context = None
            scheduler.block(vcpu)
            yield from self.sleeping(cpu, self.around(rest_ns))

    def around(self, ns: float) -> int:
        """Cycles drawn evenly from half to one and a half times `ns`, at least one."""
        return max(1, self.machine.cycles(ns * self.random.uniform(0.5, 1.5)))

    def watched(self, look: Callable[[], None]) -> None:
        """Call `look` every WATCH_NS of emulated time; it must change nothing."""
        period = self.machine.cycles(WATCH_NS)

        def again(_: None) -> None:
            look()
            self.machine.loop.at(self.machine.loop.now + period, again, None)

        self.machine.loop.at(self.begin + period, again, None)

    def ticking(self, period_ns: float) -> None:
        """Timer interrupts on every CPU, each at its own moments, for as long as the emulation runs."""

        def tick(cpu: Cpu) -> None:
            cpu.interrupt(LOCAL_TIMER_VECTOR)
            self.machine.loop.at(cpu.now + self.around(period_ns), tick, cpu)

        for cpu in self.machine.cpus:
            self.machine.loop.at(self.begin + self.around(period_ns), tick, cpu)

    def calibrating(self, work_ns: float) -> None:
        """Time calibration every second: CPU 0 has all CPUs, itself included, meet (xen/arch/x86/time.c)."""
        everyone = tuple(range(self.host.cpus))
        work = self.machine.cycles(work_ns)

        def calibrate(cpu: Cpu) -> Activity:
            yield from self.design.call(cpu, self.request(cpu, everyone, lambda _: work, func=TIME_CALIBRATION))

        def due(cpu: Cpu) -> None:
            cpu.softirqs.append(calibrate)
            cpu.interrupt(LOCAL_TIMER_VECTOR)
            self.machine.loop.at(cpu.now + self.host.hz, due, cpu)

        first = self.random.randrange(1, self.host.hz // 2)
        self.machine.loop.at(self.begin + first, due, self.machine.cpus[0])

    def _timer_interrupt(self, cpu: Cpu) -> Activity:  # noqa: ARG002
        yield self._timer

    @property
    def duration_ns(self) -> float:
        """How long it ran."""
        return (self.machine.loop.now - self.begin) * NS_PER_S / self.host.hz

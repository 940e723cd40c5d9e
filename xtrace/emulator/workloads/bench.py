"""The synthetic benchmark of the series' cover letter: threads that call a function with a delay, back to back."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final, Literal, get_args

from xtrace.emulator.choices import Policy
from xtrace.emulator.costs import MAX_NS
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.machine import Activity, Cpu
from xtrace.emulator.workloads.occupation import Occupation, occupy
from xtrace.errors import UsageError

Placement = Literal["spread", "first"]

BENCH_FUNC: Final = 0xFFFF_82D0_4023_0F80
MAX_CALLS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Masks:
    """Which CPUs a call asks.

    size      how many
    policy    random: any; contiguous: neighbours; aligned: neighbours, the first a multiple of `size`; fixed: a random
              draw that each thread makes once
    unit      CPUs are drawn in units of so many neighbours, such as the threads of a core
    within    no mask leaves a block of so many CPUs, such as a socket; None: the host
    with_self a mask may hold its caller
    """

    size: int
    policy: Policy = "random"
    unit: int = 1
    within: int | None = None
    with_self: bool = False

    def check(self, cpus: int) -> None:
        """Raise UsageError where a host of so many CPUs has no such mask."""
        block = self.within or cpus
        if self.policy not in get_args(Policy):
            raise UsageError(f"no mask policy {self.policy}: give {', '.join(get_args(Policy))}")
        if not 1 <= self.size <= block - (not self.with_self):
            raise UsageError(f"a mask of {self.size} CPUs cannot be drawn from {block}, caller left out: give fewer")
        if not (1 <= self.unit <= block <= cpus) or block % self.unit or cpus % block:
            raise UsageError(f"units of {self.unit} CPUs in blocks of {block} do not divide a host of {cpus}")

    def draw(self, caller: int, cpus: int, random: Random) -> tuple[int, ...]:
        """CPUs, ascending."""
        block = self.within or cpus
        base = random.randrange(cpus // block) * block
        step = self.size if self.policy == "aligned" else self.unit
        if self.policy in ("random", "fixed"):
            order = random.sample(range(base, base + block, step), block // step)
        else:
            first = random.choice(range(0, block - self.size + 1, step))
            order = [base + (first + other) % block for other in range(0, block, step)]
        wanted = (one + other for one in order for other in range(step))
        allowed = [one for one in wanted if self.with_self or one != caller]
        return tuple(sorted(allowed[: self.size]))


@dataclass(frozen=True, slots=True)
class Bench:
    """Threads, each making `calls` calls of a function that takes `work_ns`.

    think_ns    between a call's return and the next
    draw_ns     the same, for each CPU in the mask
    overhead_ns what the benchmark's own clock sees of a call besides START…DONE, half of it before
    stagger_ns  between the starts of two threads
    wait        calls wait for the functions to end; false: asynchronous ones
    callers   where the threads are: spread evenly over the host, or on its first CPUs
    targets   what the other CPUs run: mixed is guests, PV guests and idle CPUs in turn
    """

    threads: int = 1
    masks: Masks = Masks(1)
    calls: int = 100
    work_ns: float = 500_000
    think_ns: float = 200
    draw_ns: float = 0
    overhead_ns: float = 0
    stagger_ns: float = 2_000
    wait: bool = True
    callers: Placement = "spread"
    targets: Occupation = "mixed"

    def install(self, emulation: Emulation) -> None:
        """Put the threads on their CPUs. Raises UsageError where they do not fit."""
        cpus = emulation.host.cpus
        self.masks.check(cpus)
        free = emulation.free_cpus()
        if not 1 <= self.threads <= len(free):
            raise UsageError(f"{self.threads} threads on {len(free)} free CPUs: give 1 to {len(free)}")
        if not 1 <= self.calls <= MAX_CALLS:
            raise UsageError(f"{self.calls} calls a thread: give 1 to {MAX_CALLS}")
        times = (self.work_ns, self.think_ns, self.draw_ns, self.overhead_ns, self.stagger_ns)
        if not all(0 <= one <= MAX_NS for one in times):
            raise UsageError(f"bench: give times of 0 to {MAX_NS:.0f} ns")
        step = len(free) / self.threads if self.callers == "spread" else 1
        callers = [free[int(thread * step)] for thread in range(self.threads)]
        for thread, number in enumerate(callers):
            emulation.start(number, self._calling(emulation, emulation.machine.cpus[number], thread), foreground=True)
        for index, number in enumerate(emulation.free_cpus()):
            occupy(emulation, number, index, self.targets)

    def measured(self, host: Host) -> list[tuple[int, int]]:
        """Run it alone on a host that is not traced: caller and cycles of each call, by the benchmark's own clock."""
        emulation = Emulation(host, traced=False)
        self.install(emulation)
        emulation.run()
        return emulation.measured

    def _calling(self, emulation: Emulation, cpu: Cpu, thread: int) -> Activity:
        machine, scheduler = emulation.machine, emulation.schedulers[cpu.number]
        work, around = machine.cycles(self.work_ns), machine.cycles(self.overhead_ns / 2)
        think = machine.cycles(self.think_ns + self.draw_ns * self.masks.size)
        # What a thread asks for is its own, whatever the design makes of it.
        random = Random(f"{emulation.host.seed}/{thread}")  # noqa: S311
        vcpu = emulation.new_dom0_vcpu()
        yield 1 + thread * machine.cycles(self.stagger_ns)
        scheduler.wake(vcpu)
        targets = self.masks.draw(cpu.number, emulation.host.cpus, random)
        for _ in range(self.calls):
            call = emulation.request(cpu, targets, lambda _: work, func=BENCH_FUNC, wait=self.wait)
            begin = cpu.now
            yield around
            yield from emulation.design.call(cpu, call)
            yield around
            emulation.measured.append((cpu.number, cpu.now - begin))
            yield think
            if self.masks.policy != "fixed":
                targets = self.masks.draw(cpu.number, emulation.host.cpus, random)
        scheduler.block(vcpu)

"""A host being evacuated: guests that are live-migrated while they write, with log-dirty tracking and without PML.

A migration goes round by round: the toolstack, a vCPU of dom0, has Xen clean the bitmap of dirty pages, which makes
every page read-only again, and sends what was dirty. The first write to a page in a round faults: Xen makes it
writable, under the domain's p2m lock, and flushes what the domain's other CPUs remember of it (guest_flush_tlb_mask()
on AMD, a call that makes them take an interrupt on Intel; xen/arch/x86/mm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from xtrace.emulator.costs import MAX_NS
from xtrace.emulator.host import Emulation
from xtrace.emulator.machine import Activity, Cpu, TicketLock
from xtrace.errors import UsageError

PAGES_DIRTIED: Final = "pages dirtied"
ROUNDS: Final = "migration rounds"

FLUSH_HVM_ASID: Final = 0x4000
SLICE_NS: Final = 200_000
"""A vCPU looks at how many pages are clean so often."""

MAX_PAGES: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Evacuate:
    """Guests under migration.

    guests    how many, each with `vcpus` vCPUs, one a CPU; as many CPUs again run the toolstack, or those left over
    pages     pages that a guest writes to
    write_ns  between two writes of a vCPU, to any of them
    clean_ns  cleaning one page's bit
    send_ns   sending one page, at 10 Gbit/s
    round_ns  a round takes no less
    """

    guests: int = 2
    vcpus: int = 2
    pages: int = 65_536
    write_ns: float = 30_000
    clean_ns: float = 10
    send_ns: float = 3_500
    round_ns: float = 10_000_000

    def __post_init__(self) -> None:
        if self.guests < 1 or self.vcpus < 1:
            raise UsageError(f"{self.guests} guests of {self.vcpus} vCPUs: give 1 or more of each")
        if not 1 <= self.pages <= MAX_PAGES:
            raise UsageError(f"{self.pages} pages a guest: give 1 to {MAX_PAGES}")
        if not all(0 < one <= MAX_NS for one in (self.write_ns, self.clean_ns, self.send_ns, self.round_ns)):
            raise UsageError(f"evacuate: give times above 0 and up to {MAX_NS:.0f} ns")

    def cpus(self) -> int:
        """CPUs for every guest to have its own toolstack vCPU."""
        return self.guests * (self.vcpus + 1)

    def install(self, emulation: Emulation) -> None:
        """Put guests and toolstack on free CPUs. Raises UsageError where they do not fit, or a figure is senseless."""
        free = emulation.free_cpus()
        needed = self.guests * self.vcpus + 1
        if needed > len(free):
            raise UsageError(f"{self.guests} guests of {self.vcpus} vCPUs and a toolstack do not fit {len(free)} CPUs")
        tools = min(self.guests, len(free) - self.guests * self.vcpus)
        guests = []
        for number in range(self.guests):
            first = tools + number * self.vcpus
            guests.append(_Guest(self, emulation, number + 1, tuple(free[first : first + self.vcpus])))
        for number in range(tools):
            emulation.start(free[number], _migrating(emulation, free[number], guests[number::tools]))


class _Guest:
    """A guest: its CPUs, how many of its pages are clean, and the lock of its p2m."""

    def __init__(self, load: Evacuate, emulation: Emulation, domain: int, cpus: tuple[int, ...]) -> None:
        self.load = load
        self.emulation = emulation
        self.domain = domain
        self.cpus = cpus
        self.clean = 0
        self.lock = TicketLock(emulation.machine)
        self.fault = emulation.machine.cycles(emulation.host.costs.fault_ns)
        for vcpu, number in enumerate(cpus):
            emulation.start(number, self._writing(emulation.machine.cpus[number], vcpu))

    def _writing(self, cpu: Cpu, vcpu: int) -> Activity:
        emulation, load = self.emulation, self.load
        machine, random = emulation.machine, emulation.random
        guest = emulation.guest
        emulation.schedulers[cpu.number].wake((self.domain, vcpu))
        while True:
            yield from guest.enter(cpu)
            while True:
                # Writes meet a clean page at this rate; the slice ends first where few are left.
                ahead = random.expovariate(self.clean / load.pages / load.write_ns) if self.clean else SLICE_NS
                yield max(1, machine.cycles(min(ahead, SLICE_NS)))
                if ahead < SLICE_NS:
                    break
            yield from guest.exit(cpu, guest.page_fault)
            yield from guest.page_faulted(cpu, random.randrange(load.pages), self._make_writable(cpu))

    def _make_writable(self, cpu: Cpu) -> Activity:
        yield self.fault
        yield from self.lock.acquire()
        if self.clean:
            self.clean -= 1
            self.emulation.counted[PAGES_DIRTIED] += 1
            yield from self.flush(cpu)
        self.lock.release()

    def flush(self, cpu: Cpu) -> Activity:
        """Have this domain's CPUs forget what they know of its pages."""
        emulation = self.emulation
        machine = emulation.machine
        flush = machine.cycles(machine.costs.flush_ns)
        if cpu.number in self.cpus:
            yield machine.cycles(machine.costs.local_flush_ns)
        others = tuple(one for one in self.cpus if one != cpu.number)
        if not others:
            return
        if emulation.host.vendor == "svm":
            request = emulation.request(cpu, others, lambda _: flush, flush_flags=FLUSH_HVM_ASID)
            yield from emulation.design.flush(cpu, request)
        else:
            yield from emulation.design.call(cpu, emulation.request(cpu, others, lambda _: flush, func=0))


def _migrating(emulation: Emulation, number: int, guests: list[_Guest]) -> Activity:
    """The toolstack's rounds over the guests it has."""
    machine = emulation.machine
    cpu, scheduler = machine.cpus[number], emulation.schedulers[number]
    yield emulation.around(SLICE_NS)
    scheduler.wake(emulation.new_dom0_vcpu())
    while True:
        for guest in guests:
            load = guest.load
            yield from guest.lock.acquire()
            yield machine.cycles(load.clean_ns * load.pages)
            dirty, guest.clean = load.pages - guest.clean, load.pages
            yield from guest.flush(cpu)
            guest.lock.release()
            emulation.counted[ROUNDS] += 1
            yield machine.cycles(max(load.send_ns * dirty, load.round_ns / len(guests)))

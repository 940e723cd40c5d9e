"""Who is where, as xenalyze follows it record by record: pCPUs with their map, vCPUs with their runstate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xtrace.context import IDLE_DOMAIN
from xtrace.reports.xenalyze.guest import Guest, Vlapic

if TYPE_CHECKING:
    from xtrace.clock import Clock
    from xtrace.parsers.vendor import Vendor

STAND_IN_DOMAIN: Final = 32768
"""xenalyze's domain for whoever runs on a CPU before the first schedule there; the vCPU number is the CPU's."""

RUNNING, RUNNABLE, BLOCKED, OFFLINE, LOST, QUEUED, INIT = range(7)
STATES: Final = ("running", "runnable", "blocked", "offline", "lost", "queued", "init")
"""Runstates by number: Xen's, then those of xenalyze."""

FIRST_LEVELS: Final = 2
"""Page-table levels of a guest that has not shown its own."""


class Vcpu:
    """A vCPU: runstate, pCPU, and what kind of guest its records showed it to be."""

    __slots__ = ("cpu", "domain", "hvm", "levels", "mismatch", "name", "number", "pv", "scheduled", "state", "vlapic")

    def __init__(self, domain: int, number: int) -> None:
        self.domain, self.number = domain, number
        self.name = f"d{domain}v{number}"
        self.state = INIT
        self.cpu: Pcpu | None = None
        self.mismatch: tuple[int, int] | None = None
        self.scheduled = False
        self.levels = 0
        self.hvm: Guest | None = None
        self.pv = False
        self.vlapic: Vlapic | None = None


class Pcpu:
    """A pCPU.

    current  the vCPU on it; None between a departure and the next arrival
    lost     while its records are lost, domain and number of the vCPU that is there when they come back
    """

    __slots__ = ("current", "lost", "number")

    def __init__(self, number: int, stand_in: Vcpu) -> None:
        self.number = number
        self.current: Vcpu | None = stand_in
        self.lost: tuple[int, int] | None = None


class Host:
    """All of them.

    heads   map and occupant by CPU number, for as long as nothing changes
    losing  CPUs whose records are lost just now
    """

    def __init__(self, vendor: Vendor | None, clock: Clock) -> None:
        self.vendor, self.clock = vendor, clock
        self.cpus: dict[int, Pcpu] = {}
        self.domains: dict[int, dict[int, Vcpu]] = {}
        self.heads: dict[int, str] = {}
        self.map = ""
        self.losing = 0

    def activate(self, number: int) -> Pcpu:
        """The CPU of this number, which has its place in the map from now on."""
        cpu = self.cpus.get(number)
        if cpu is None:
            stand_in = self.vcpu(STAND_IN_DOMAIN, number)
            stand_in.scheduled, stand_in.levels, stand_in.state = True, FIRST_LEVELS, RUNNING
            cpu = stand_in.cpu = self.cpus[number] = Pcpu(number, stand_in)
            self.map = self.map.ljust(number + 1)
            self.draw(cpu)
        return cpu

    def vcpu(self, domain: int, number: int) -> Vcpu:
        """The vCPU of this domain and number."""
        vcpus = self.domains.setdefault(domain, {})
        found = vcpus.get(number)
        if found is None:
            found = vcpus[number] = Vcpu(domain, number)
        return found

    def draw(self, cpu: Pcpu) -> None:
        """Show in the map what became of a CPU: lost, nobody, not known, idle, a guest."""
        if cpu.lost is not None:
            sign = "l"
        elif cpu.current is None:
            sign = " "
        else:
            sign = {STAND_IN_DOMAIN: ".", IDLE_DOMAIN: "-"}.get(cpu.current.domain, "|")
        self.map = f"{self.map[: cpu.number]}{sign}{self.map[cpu.number + 1 :]}"
        self.heads.clear()

    def map_on(self, cpu: Pcpu) -> str:
        """The map with an x where the record comes from."""
        return f"{self.map[: cpu.number]}x{self.map[cpu.number + 1 :]}"

    def head(self, cpu: Pcpu) -> str:
        """Map and occupant, as in every line."""
        found = self.heads.get(cpu.number)
        if found is None:
            name = cpu.current.name if cpu.current else "d?v?"
            found = self.heads[cpu.number] = f"{self.map_on(cpu)} {name}"
        return found

    def leaves(self, cpu: Pcpu, vcpu: Vcpu, state: int) -> None:
        """A vCPU gives up a pCPU for this state."""
        cpu.current = None
        self.draw(cpu)
        vcpu.state = state

    def arrives(self, cpu: Pcpu, vcpu: Vcpu) -> None:
        """A vCPU begins to run on a pCPU; whoever was thought to be there went unseen."""
        if cpu.current is not None:
            cpu.current.state = LOST
        if not vcpu.scheduled:
            vcpu.scheduled, vcpu.levels = True, FIRST_LEVELS
        vcpu.state, vcpu.cpu = RUNNING, cpu
        cpu.current = vcpu
        self.draw(cpu)

    def loses(self, vcpu: Vcpu) -> list[str]:
        """A vCPU may have done anything while records were lost; gives lines on what is forgotten."""
        vcpu.state = LOST
        vcpu.vlapic = None
        return [] if vcpu.hvm is None else vcpu.hvm.forget(vcpu.name)

"""What each CPU did, and on which CPUs each vCPU stayed: sections of a host's summary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xtrace.context import IDLE_DOMAIN, NOBODY
from xtrace.contract import frame
from xtrace.host.account import Ground, unpacked
from xtrace.host.figures import FIGURES, figures
from xtrace.host.occupancy import Occupancy, Stays, Whereabouts
from xtrace.host.switches import Switches, SwitchesAccount
from xtrace.host.tally import Spread, Tally
from xtrace.states import TRACK_BITS

if TYPE_CHECKING:
    import pandas as pd


_RUNNING, _IDLE, _LOST = range(3)


@dataclass(frozen=True, slots=True)
class DomainOnCpu:
    """A domain's stays on a CPU; quantiles are weighted by time."""

    domain: int
    running: Spread


@dataclass(frozen=True, slots=True)
class CpuUse:
    """What a CPU did; None: never that. Quantiles are weighted by time.

    running      a vCPU of a domain ran, from when it came to when it left
    idle         a vCPU of the idle domain did
    lost         not known, for records were lost
    busy_share   running, as a share of the span; None for a span of no length
    known_share  running or idle
    domains      those that ran there, longest first
    """

    cpu: int
    running: Spread | None
    idle: Spread | None
    lost: Spread | None
    busy_share: float | None
    known_share: float | None
    domains: tuple[DomainOnCpu, ...]


@dataclass(frozen=True, slots=True)
class StaysOnCpu:
    """How long a vCPU stayed on a CPU, each time; quantiles are of stays, not of time."""

    cpu: int
    stays: Spread


@dataclass(frozen=True, slots=True)
class Affinity:
    """On which CPUs a vCPU stayed: from when it was seen on one until it was seen on another, asleep or not.

    It counts from when the vCPU comes onto a CPU for the second time, as xenalyze has it.

    stays  of all CPUs together; one fewer of them than the times it moved
    cpus   of each CPU
    """

    domain: int
    vcpu: int
    stays: Spread
    cpus: tuple[StaysOnCpu, ...]


@dataclass(frozen=True, slots=True)
class Cpus:
    """What CPUs did in a span of time.

    cpus      those that are known to have done something, by number
    active    on how many a domain ran
    affinity  by domain and vCPU
    """

    cpus: tuple[CpuUse, ...]
    active: int
    affinity: tuple[Affinity, ...]

    def df_cpus(self) -> pd.DataFrame:
        """One row a CPU and what it did (running, idle, lost): cpu, state, count, total_ns, … as in `tally.Spread`."""
        dtypes = {"cpu": "uint16", "state": "str", **FIGURES}
        states = ("running", "idle", "lost")
        parts = ((one.cpu, state, getattr(one, state)) for one in self.cpus for state in states)
        return frame(({"cpu": cpu, "state": state, **figures(part)} for cpu, state, part in parts if part), dtypes)

    def df_affinity(self) -> pd.DataFrame:
        """One row a vCPU and CPU on which it stayed: domain, vcpu, cpu, count, total_ns, … as in `tally.Spread`."""
        dtypes = {"domain": "uint16", "vcpu": "uint16", "cpu": "uint16", **FIGURES}
        rows = (
            {"domain": one.domain, "vcpu": one.vcpu, "cpu": on.cpu, **figures(on.stays)}
            for one in self.affinity
            for on in one.cpus
        )
        return frame(rows, dtypes)


class CpusAccount(SwitchesAccount[Cpus]):
    """Follows who is on each CPU."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._use, self._domains = (Tally(ground.windows, weighted=True) for _ in range(2))
        self._stays = Tally(ground.windows)

    def _begin(self) -> None:
        self._occupancy = Occupancy(self.ground.known, self._capture)
        self._whereabouts = Whereabouts(self.ground.known, self._capture)

    def _follow(self, switches: Switches) -> None:
        self._add_use(self._occupancy.feed(switches))
        self._add_stays(self._whereabouts.feed(switches))

    def finish(self) -> None:
        """The capture ends."""
        self._add_use(self._occupancy.finish())
        ends = [end for track, (_, end) in self.ground.known.spans.items() if track >> TRACK_BITS == self._capture]
        self._add_stays(self._whereabouts.finish(max(ends, default=self.ground.last_ns)))
        self._begin()

    def _add_use(self, stays: Stays) -> None:
        stays = Stays(*(column[self.ground.on(stays.cpu)] for column in stays))
        domain = stays.who >> 16
        what = np.where(stays.who == NOBODY, _LOST, np.where(domain == IDLE_DOMAIN, _IDLE, _RUNNING))
        self._use.over(stays.cpu << 2 | what, stays.begin, stays.end)
        ran = what == _RUNNING
        self._domains.over((stays.cpu << 16 | domain)[ran], stays.begin[ran], stays.end[ran])

    def _add_stays(self, stays: Stays) -> None:
        stays = Stays(*(column[self.ground.on(stays.cpu)] for column in stays))
        for thing in (np.zeros(len(stays.cpu), np.int64), 1 + stays.cpu):
            self._stays.over(stays.who << 31 | thing, stays.begin, stays.end)

    def found(self, window: int) -> Cpus:
        """CPUs and stays on them, in a window."""
        begin, end = self.ground.windows.span(window)
        cpus = tuple(self._cpus(window, end - begin))
        return Cpus(cpus, sum(one.running is not None for one in cpus), tuple(self._affinity(window)))

    def _cpus(self, window: int, span_ns: int) -> Iterator[CpuUse]:
        use: dict[int, dict[int, Spread]] = {}
        for key, spread in self._use.spreads(window).items():
            use.setdefault(key >> 2, {})[key & 3] = spread
        domains: dict[int, list[DomainOnCpu]] = {}
        for key, spread in self._domains.spreads(window).items():
            domains.setdefault(key >> 16, []).append(DomainOnCpu(key & 0xFFFF, spread))
        for cpu, spreads in sorted(use.items()):
            running, idle, lost = (spreads.get(what) for what in (_RUNNING, _IDLE, _LOST))
            ran, slept = (0 if one is None else one.total_ns for one in (running, idle))
            busy, known = (part / span_ns if span_ns > 0 else None for part in (ran, ran + slept))
            there = sorted(domains.get(cpu, []), key=lambda one: (-one.running.total_ns, one.domain))
            yield CpuUse(cpu, running, idle, lost, busy, known, tuple(there))

    def _affinity(self, window: int) -> Iterator[Affinity]:
        found: dict[tuple[int, int], dict[int, Spread]] = {}
        for key, spread in self._stays.spreads(window).items():
            domain, vcpu, thing = unpacked(key)
            found.setdefault((domain, vcpu), {})[thing] = spread
        for who, spreads in sorted(found.items()):
            cpus = tuple(StaysOnCpu(thing - 1, spread) for thing, spread in sorted(spreads.items()) if thing)
            yield Affinity(*who, spreads[0], cpus)

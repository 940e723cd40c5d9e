"""How long each vCPU was in which run state, and what of each domain could run at a time: sections of a host's summary.

A stay in `running` ends, too, where the scheduler chooses the same vCPU again; a stay of a domain where the state of
any of its vCPUs changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from xtrace.contract import frame
from xtrace.host.account import Ground, unpacked
from xtrace.host.counts import Counts
from xtrace.host.figures import FIGURES, figures
from xtrace.host.following import LOST, PREEMPTED, UNSEEN, WOKEN, Follower, Updates
from xtrace.host.switches import BLOCKED, OFFLINE, RUNNABLE, RUNNING, Switches, SwitchesAccount
from xtrace.host.tally import Spread, Tally

if TYPE_CHECKING:
    import pandas as pd


Ints = NDArray[np.int64]

_CAUSES: Final = {WOKEN: 5, PREEMPTED: 6}
"""Of runnable, numbered behind the states."""
_OF_VCPU: Final = {
    "running": RUNNING,
    "runnable": RUNNABLE,
    "woken": _CAUSES[WOKEN],
    "preempted": _CAUSES[PREEMPTED],
    "blocked": BLOCKED,
    "offline": OFFLINE,
    "lost": LOST,
}
_OF_DOMAIN: Final = (
    "blocked",
    "partial_run",
    "full_run",
    "partial_contention",
    "concurrency_hazard",
    "full_contention",
    "lost",
)


@dataclass(frozen=True, slots=True)
class VcpuStates:
    """A vCPU, from when it was first seen to run; None: never in that state. Quantiles are weighted by time.

    domain, vcpu  the idle domain is 32767
    running       on a CPU
    runnable      waiting for one: woken and preempted
    woken         it was blocked or offline before
    preempted     it ran before
    blocked       nothing to do
    offline       paused, or not online
    lost          not known, for records were lost
    """

    domain: int
    vcpu: int
    running: Spread | None
    runnable: Spread | None
    woken: Spread | None
    preempted: Spread | None
    blocked: Spread | None
    offline: Spread | None
    lost: Spread | None


@dataclass(frozen=True, slots=True)
class DomainStates:
    """What the vCPUs of a domain did at the same time; None: never. Quantiles are weighted by time.

    blocked             none runs, none waits for a CPU
    partial_run         some run, the others have nothing to do
    full_run            all run
    partial_contention  none runs, some wait for a CPU
    concurrency_hazard  some run while others wait: who runs may spin for who waits
    full_contention     none runs, all wait
    lost                of none it is known
    """

    domain: int
    blocked: Spread | None
    partial_run: Spread | None
    full_run: Spread | None
    partial_contention: Spread | None
    concurrency_hazard: Spread | None
    full_contention: Spread | None
    lost: Spread | None


@dataclass(frozen=True, slots=True)
class Runstates:
    """Run states, in a span of time.

    vcpus       by domain and vCPU
    domains     by domain; None where only some CPUs are selected
    unexpected  changes that left another state than the one known: how long that lasted was not seen, and is not told
    """

    vcpus: tuple[VcpuStates, ...]
    domains: tuple[DomainStates, ...] | None
    unexpected: int

    def df_vcpus(self) -> pd.DataFrame:
        """One row a vCPU and state, figures as of `xtrace.host.tally.Spread`: domain, vcpu, state, count, …."""
        dtypes = {"domain": "uint16", "vcpu": "uint16", "state": "str", **FIGURES}
        rows = ({"domain": one.domain, "vcpu": one.vcpu, **state} for one in self.vcpus for state in _states(one))
        return frame(rows, dtypes)

    def df_domains(self) -> pd.DataFrame:
        """One row a domain and state, as `df_vcpus`; none where only some CPUs are selected."""
        dtypes = {"domain": "uint16", "state": "str", **FIGURES}
        rows = ({"domain": one.domain, **state} for one in self.domains or () for state in _states(one))
        return frame(rows, dtypes)


def _states(one: VcpuStates | DomainStates) -> Iterator[dict[str, Any]]:
    for field in fields(one):
        spread = getattr(one, field.name)
        if isinstance(spread, Spread):
            yield {"state": field.name, **figures(spread)}


class RunstatesAccount(SwitchesAccount[Runstates]):
    """Follows all vCPUs.

    Under --cpus a stay counts where its vCPU runs or last ran.
    """

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._vcpus = Tally(ground.windows, weighted=True)
        self._domains = Tally(ground.windows, weighted=True)
        self._unexpected = Counts(ground.windows)

    def _begin(self) -> None:
        self._follower = Follower(self.ground.known, self._capture)
        self._at_once: dict[int, _AtOnce] = {}

    def _follow(self, switches: Switches) -> None:
        for updates in self._follower.feed(switches):
            self._add(updates)

    def finish(self) -> None:
        """The capture ends."""
        for updates in self._follower.finish():
            self._add(updates)
        self._begin()

    def _add(self, updates: Updates) -> None:
        counts = updates.stays & self.ground.on(updates.cpu)
        key, state = (updates.who << 31)[counts], updates.before[counts]
        begin, end, cause = updates.begin[counts], updates.end[counts], updates.cause[counts]
        self._vcpus.over(key | state, begin, end)
        for one, number in _CAUSES.items():
            why = (state == RUNNABLE) & (cause == one)
            self._vcpus.over(key[why] | number, begin[why], end[why])
        unlike = ~updates.fits & self.ground.on(updates.cpu)
        self._unexpected.at(np.zeros(int(unlike.sum()), np.int64), updates.end[unlike])
        if self.ground.selection.cpus is None:
            self._add_domains(updates)

    def _add_domains(self, updates: Updates) -> None:
        domain = updates.who >> 16
        order = np.argsort(domain, kind="stable")
        cuts = np.flatnonzero(np.diff(domain[order])) + 1
        for rows in np.split(order, cuts):
            if len(rows):
                one = int(domain[rows[0]])
                at_once = self._at_once.setdefault(one, _AtOnce())
                state, begin, end = at_once.stays(updates.before[rows], updates.after[rows], updates.ns[rows])
                self._domains.over(one << 47 | state, begin, end)

    def found(self, window: int) -> Runstates:
        """VCPUs and domains, in a window."""
        spreads: dict[tuple[int, int], dict[int, Spread]] = {}
        for key, spread in self._vcpus.spreads(window).items():
            domain, vcpu, state = unpacked(key)
            spreads.setdefault((domain, vcpu), {})[state] = spread
        vcpus = (
            VcpuStates(domain, vcpu, **{name: states.get(number) for name, number in _OF_VCPU.items()})
            for (domain, vcpu), states in sorted(spreads.items())
        )
        domains = None if self.ground.selection.cpus is not None else tuple(self._domains_of(window))
        return Runstates(tuple(vcpus), domains, self._unexpected.of(window).get(0, 0))

    def _domains_of(self, window: int) -> Iterator[DomainStates]:
        spreads: dict[int, dict[int, Spread]] = {}
        for key, spread in self._domains.spreads(window).items():
            domain, _, state = unpacked(key)
            spreads.setdefault(domain, {})[state] = spread
        for domain, states in sorted(spreads.items()):
            yield DomainStates(domain, **{name: states.get(number) for number, name in enumerate(_OF_DOMAIN)})


class _AtOnce:
    """How many vCPUs of a domain are in which state."""

    def __init__(self) -> None:
        self._counts = np.zeros(UNSEEN + 1, np.int64)
        self._since: int | None = None

    def stays(self, before: Ints, after: Ints, ns: Ints) -> tuple[Ints, Ints, Ints]:
        """Changes of its vCPUs, in order of time → place in _OF_DOMAIN, begin and end of the stays that they end."""
        steps = np.zeros((len(ns) + 1, UNSEEN + 1), np.int64)
        steps[0] = self._counts
        rows = np.arange(1, len(ns) + 1)
        np.subtract.at(steps, (rows, before), 1)
        np.add.at(steps, (rows, after), 1)
        counts = np.cumsum(steps, axis=0)
        # What is found to have run for long already cannot change what has been counted.
        ns = np.maximum.accumulate(ns if self._since is None else np.append(self._since, ns))
        state = _of_domain(counts[:-1] if self._since is not None else counts[1:-1])
        self._counts, self._since = counts[-1], int(ns[-1])
        return state, ns[:-1], ns[1:]


def _of_domain(counts: Ints) -> Ints:
    """Places in _OF_DOMAIN by how many vCPUs are in each state."""
    running, runnable = counts[:, RUNNING] > 0, counts[:, RUNNABLE] > 0
    idle = (counts[:, BLOCKED] > 0) | (counts[:, OFFLINE] > 0)
    kinds = (
        (running & runnable, "concurrency_hazard"),
        (running & idle, "partial_run"),
        (running, "full_run"),
        (runnable & idle, "partial_contention"),
        (runnable, "full_contention"),
        (idle, "blocked"),
    )
    return np.select(
        [kind for kind, _ in kinds], [_OF_DOMAIN.index(name) for _, name in kinds], _OF_DOMAIN.index("lost")
    )

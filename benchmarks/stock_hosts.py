"""Emulated Intel hosts of the legacy design, and how well what is inferred of them is what happened.

For inference.py and fit_inference.py. CPUs run HVM guests, PV guests and nothing; traces lack the tracepoints.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from xtrace import columns
from xtrace.emulator.contexts import HLT, IDLE_EXIT, VMEXIT, VMX_INTR
from xtrace.emulator.costs import Costs
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.log import Layout
from xtrace.emulator.machine import Activity, Cpu
from xtrace.emulator.output import made
from xtrace.emulator.requests import Request
from xtrace.emulator.rings import Tool
from xtrace.episodes.confidence import (
    chance_of_episodes,
    chance_of_initiators,
    episode_features,
    initiator_features,
)
from xtrace.episodes.inferred import Gathered, gather
from xtrace.parsers.registry import EVENTS
from xtrace.trace_file import TraceFile

EVENT_CHECK: Final = 0xFC
HYPERCALL: Final = Layout.of(
    next(one for one in EVENTS if one.name == "TRC_PV_HYPERCALL_V2" and one.variant == "other ops"), 1
)
MMUEXT_OP, SCHED_OP = 26, 29
ARGUMENTS: Final = len(columns.names_of(HYPERCALL.event)) - 1

HELD_NS: Final = 2_300
"""About how long a lock is held for one request, as the costs of the emulated machine are."""
KICKS, CALLS, ALL = 0.4, 0.15, 0.1
"""Shares of what is asked for: kicks, calls, the rest flushes; of the latter two, those to all CPUs."""
WORK_NS: Final = 1_500
OTHERWISE: Final = 0.15
"""Share of what is asked for in exits and hypercalls that do not look like it."""
FIT_SEED, JUDGE_SEED = 1000, 2000
"""The first of the seeds by which confidence is fitted, and of those by which it is judged."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a host does.

    cpus        CPUs, of which idle and pv are the shares that sleep, and that run PV guests
    busy        share of time in which one of the locks is held, about
    wake_ns     an idle CPU waking up
    episodes    about how many calls and flushes
    """

    cpus: int = 16
    idle: float = 0.0
    pv: float = 0.0
    busy: float = 0.1
    wake_ns: float = 2_000
    episodes: int = 1500
    vcpus: int = 4


def emulated(load: Load, seed: int) -> Emulation:
    """Run it."""
    host = Host(load.cpus, model="legacy", vendor="vmx", seed=seed, costs=Costs(wake_ns=load.wake_ns))
    emulation = Emulation(host)
    emulation.machine.handlers[EVENT_CHECK] = emulation.machine.handlers[0xFA]
    n_idle, n_pv = round(load.idle * load.cpus), round(load.pv * load.cpus)
    roles = ["idle"] * n_idle + ["pv"] * n_pv + ["hvm"] * (load.cpus - n_idle - n_pv)
    emulation.random.shuffle(roles)
    hvm = [number for number, role in enumerate(roles) if role == "hvm"]
    asking = max(1, len(hvm) + n_pv)
    duration = load.episodes * HELD_NS / load.busy
    pause = asking * HELD_NS / load.busy
    domains = [tuple(hvm[first : first + load.vcpus]) for first in range(0, len(hvm), load.vcpus)]
    for place, members in enumerate(domains):
        for vcpu, number in enumerate(members):
            cpu = emulation.machine.cpus[number]
            emulation.start(number, _hvm(emulation, cpu, (place + 1, vcpu), members, pause))
    for number, role in enumerate(roles):
        if role == "pv":
            mine = emulation.new_dom0_vcpu()
            emulation.start(number, _pv(emulation, emulation.machine.cpus[number], mine, domains, pause))
    emulation.calibrating(5_000)
    emulation.ticking(4_000_000)
    _poking(emulation, 1_000_000)
    emulation.run(duration)
    return emulation


def _poking(emulation: Emulation, period_ns: float) -> None:
    """EVENT_CHECK interrupts, which the scheduler sends and which are no calls."""

    def poke(cpu: Cpu) -> None:
        cpu.interrupt(EVENT_CHECK)
        emulation.machine.loop.at(cpu.now + emulation.around(period_ns), poke, cpu)

    for cpu in emulation.machine.cpus:
        emulation.machine.loop.at(emulation.begin + emulation.around(period_ns), poke, cpu)


def _pause(emulation: Emulation, ns: float) -> int:
    return max(1, emulation.machine.cycles(emulation.random.expovariate(1 / ns)))


def _work(emulation: Emulation) -> int:
    """What an exit or a hypercall takes, but for calls and flushes: half of them less than WORK_NS."""
    return max(1, emulation.machine.cycles(WORK_NS * emulation.random.lognormvariate(0, 0.8)))


def _hvm(emulation: Emulation, cpu: Cpu, vcpu: tuple[int, int], members: tuple[int, ...], pause_ns: float) -> Activity:
    """A vCPU that exits for this and that; one exit in three needs other CPUs, one in fifty ends in a short sleep."""
    guest, random = emulation.guest, emulation.random
    scheduler = emulation.schedulers[cpu.number]
    scheduler.wake(vcpu)
    while True:
        yield from guest.enter(cpu)
        yield _pause(emulation, pause_ns / 3)
        what = random.random()
        if what < 0.02:
            yield from guest.exit(cpu, guest.hlt)
            emulation.log.add(cpu.number, cpu.now, HLT, 0)
            scheduler.block(vcpu)
            yield from emulation.sleeping(cpu, emulation.around(20_000))
            scheduler.wake(vcpu)
        elif what < 0.67:
            # CPUID, I/O, CR access, MSR write, EPT violation: most need nobody else.
            reason = random.choice((10, 30, 28, 32, 48))
            yield from guest.exit(cpu, reason)
            yield _work(emulation)
        else:
            reason = random.choice((guest.page_fault, 18, 28, 54) if random.random() > OTHERWISE else (10, 30, 32))
            yield from guest.exit(cpu, reason)
            if reason == guest.page_fault:
                guest.note_fault(cpu, random.randrange(1 << 16))
            yield _work(emulation)
            yield from _ask(emulation, cpu, members)


def _pv(
    emulation: Emulation,
    cpu: Cpu,
    vcpu: tuple[int, int],
    domains: Sequence[tuple[int, ...]],
    pause_ns: float,
) -> Activity:
    """A vCPU of a PV guest that makes hypercalls, one in three of which needs other CPUs."""
    emulation.schedulers[cpu.number].wake(vcpu)
    while True:
        cpu.context = emulation.pv
        yield _pause(emulation, pause_ns / 3)
        cpu.context = None
        asks = emulation.random.random() < 1 / 3
        telling = emulation.random.random() > (OTHERWISE if asks else 1 / 2)
        operation = MMUEXT_OP if telling else SCHED_OP
        emulation.log.add(cpu.number, cpu.now, HYPERCALL, operation, *[0] * ARGUMENTS)
        yield _work(emulation)
        if asks:
            yield from _ask(emulation, cpu, emulation.random.choice(domains) if domains else ())


def _ask(emulation: Emulation, cpu: Cpu, members: Iterable[int]) -> Activity:
    """A kick of a domain's CPUs, a call or a flush of some or all."""
    random, machine = emulation.random, emulation.machine
    others = [one for one in range(emulation.host.cpus) if one != cpu.number]
    mine = tuple(one for one in members if one != cpu.number)
    kind = random.random()
    if kind < KICKS:
        if mine:
            work = machine.cycles(100)
            yield from emulation.design.call(cpu, emulation.request(cpu, mine, lambda _: work, func=0))
        return
    some = others if random.random() < ALL else sorted(random.sample(others, random.randint(1, min(6, len(others)))))
    if kind < KICKS + CALLS:
        work = machine.cycles(random.choice((500, 2_000, 10_000)))
        yield from emulation.design.call(cpu, emulation.request(cpu, tuple(some), lambda _: work, func=0x1000))
    else:
        work = machine.cycles(machine.costs.flush_ns)
        yield from emulation.design.flush(cpu, emulation.request(cpu, tuple(some), lambda _: work, flush_flags=0x100))


@dataclass(frozen=True, slots=True)
class Score:
    """Outcome of one or more emulations.

    right, sure          by inferred episode: whether it is right, and its confidence
    found_initiator, sure_initiator  by episode that is right: whether its initiator is, and the confidence of that
    true_initiator       the same episodes' initiators
    shown                true episodes with a target that shows
    features, initiator_features     what the confidences are made of
    """

    right: NDArray[np.bool_]
    sure: NDArray[np.float64]
    found_initiator: NDArray[np.bool_]
    sure_initiator: NDArray[np.float64]
    true_initiator: NDArray[np.int64]
    shown: int
    features: NDArray[np.float64]
    initiator_features: NDArray[np.float64]

    @property
    def precision(self) -> float:
        """Share of the inferred episodes that are right."""
        return float(self.right.mean())

    @property
    def recall(self) -> float:
        """Share of the true episodes with a target that shows that were inferred, and right."""
        return float(self.right.sum() / self.shown)

    @property
    def initiators(self) -> float:
        """Share of the right episodes whose likeliest initiator is the true one."""
        return float(self.found_initiator.mean())


def scored(load: Load, seed: int) -> Score:
    """Emulate, infer, compare."""
    emulation = emulated(load, seed)
    return judged(emulation, *found_in(emulation))


def found_in(emulation: Emulation) -> tuple[Gathered, int]:
    """What its trace without the tracepoints shows, and the cycle count of time 0."""
    content, _, _, lost = made(emulation, Tool(ring_pages=4096), "stock")
    assert not lost  # noqa: S101
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stock.bin"
        path.write_bytes(content)
        with TraceFile(path, cpu_hz=emulation.host.hz) as trace:
            found = gather(trace)
            zero = trace.survey.zero_tsc
    assert found is not None  # noqa: S101
    return found, zero


def judged(emulation: Emulation, found: Gathered, zero: int) -> Score:
    """An inferred episode is right where its hits are those of one true episode: all that show of it, and no other."""
    of_hit = _hits_of(emulation, zero)
    shown: dict[int, int] = {}
    for request in of_hit.values():
        shown[id(request)] = shown.get(id(request), 0) + 1
    hits, clusters, suspects = found
    right, initiators, names, asked = [], [], [], []
    cpu = hits.track.tolist()
    taken, vector = hits.taken.tolist(), hits.vector.tolist()
    for first, last, suspect in zip(
        clusters.first.tolist(), clusters.last.tolist(), suspects.track.tolist(), strict=True
    ):
        true = {
            id(one): one for row in range(first, last + 1) if (one := of_hit.get((cpu[row], taken[row], vector[row])))
        }
        good = len(true) == 1 and shown[next(iter(true))] == last - first + 1
        right.append(good)
        if good:
            asked.append(next(iter(true.values())).initiator)
            initiators.append(suspect == asked[-1])
            names.append(suspect >= 0)
    good = np.array(right, np.bool_)
    return Score(
        good,
        chance_of_episodes(hits, clusters),
        np.array(initiators, np.bool_),
        np.where(np.array(names, np.bool_), chance_of_initiators(suspects)[good], 0.0),
        np.array(asked, np.int64),
        len(shown),
        episode_features(hits, clusters),
        initiator_features(suspects)[good],
    )


def _hits_of(emulation: Emulation, zero: int) -> dict[tuple[int, int, int], Request]:
    """The true episode by CPU, time and vector of each record that shows a target of it."""
    records: dict[tuple[int, int], list[int]] = {}
    exits: dict[int, int] = {}
    for cpu, when, layout, fields in emulation.log.rows:
        if layout is VMEXIT:
            exits[cpu] = when
        elif layout is VMX_INTR:
            records.setdefault((cpu, fields[0]), []).append(exits[cpu])
        elif layout is IDLE_EXIT:
            for one in fields[2:]:
                records.setdefault((cpu, one), []).append(when)
    found = {}
    vectors = {False: 0xFB, True: emulation.design.flush_vector}
    for request in emulation.requests:
        vector = vectors[request.is_flush]
        for cpu, served in request.served.items():
            times = records.get((cpu, vector), [])
            # The handler runs right after the record, if there is one.
            at = int(np.searchsorted(times, served.entered, side="right")) - 1
            if at >= 0 and times[at] >= request.send:
                found[cpu, times[at] - zero, vector] = request
    return found


def joined(scores: Sequence[Score]) -> Score:
    """Several as one."""
    return Score(
        np.concatenate([one.right for one in scores]),
        np.concatenate([one.sure for one in scores]),
        np.concatenate([one.found_initiator for one in scores]),
        np.concatenate([one.sure_initiator for one in scores]),
        np.concatenate([one.true_initiator for one in scores]),
        sum(one.shown for one in scores),
        np.concatenate([one.features for one in scores]),
        np.concatenate([one.initiator_features for one in scores]),
    )


HARD: Final = [
    Load(busy=busy, pv=pv, idle=idle, cpus=cpus, wake_ns=wake_ns)
    for busy in (0.02, 0.1, 0.3, 0.5)
    for pv in (0.0, 0.3)
    for idle, wake_ns in ((0.0, 2_000), (0.3, 2_000), (0.5, 10_000), (0.3, 50_000))
    for cpus in (8, 32)
]
"""The hosts whose confidence is fitted and judged: from easy to hopeless."""

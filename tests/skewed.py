"""Traces whose clocks differ: real ones with other cycle counts, and vCPUs that roam an emulated host's CPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import numpy as np

from xtrace.emulator.contexts import RUNSTATE
from xtrace.emulator.host import Emulation
from xtrace.states import cpu_of
from xtrace.trace_file import TraceFile

DOMAIN = 1


def moved(path: Path, by: Callable[[int, np.ndarray], np.ndarray]) -> bytes:
    """A real trace with other cycle counts; by: of a CPU, counts → what is added to them."""
    words = np.fromfile(path, "<u4")
    with TraceFile(path) as trace:
        for batch, _ in trace.batches():
            assert batch.offset is not None
            stamped = np.flatnonzero(batch.header >> np.uint32(31))
            at, cpu = batch.offset[stamped] // 4, cpu_of(batch.track)[stamped]
            tsc = batch.tsc[stamped].astype(np.int64)
            for one in np.unique(cpu).tolist():
                tsc[cpu == one] += by(one, tsc[cpu == one])
            words[at + 1] = tsc & 0xFFFFFFFF
            words[at + 2] = tsc >> 32
    return words.tobytes()


def ahead(path: Path, offsets: Mapping[int, int]) -> bytes:
    """A real trace in which clocks are ahead by so many cycles."""
    return moved(path, lambda cpu, tsc: np.full(len(tsc), offsets.get(cpu, 0)))


def roam(emulation: Emulation, *, vcpus: int, rounds: int, run_ns: float, rest_ns: float, seed: int) -> None:
    """vCPUs run on any CPU, are preempted and go on elsewhere, or rest and are woken by any CPU, each so many times."""
    random, machine, cpus = Random(seed), emulation.machine, emulation.host.cpus
    left = dict.fromkeys(range(vcpus), rounds)

    def note(cpu: int, vcpu: int, old: str, new: str) -> None:
        emulation.log.add(cpu, machine.loop.now, RUNSTATE[old, new], vcpu, DOMAIN)

    def later(ns: float, then: Callable[[int], None], vcpu: int) -> None:
        machine.loop.at(machine.loop.now + max(1, machine.cycles(ns)), then, vcpu)

    def wake(vcpu: int) -> None:
        note(random.randrange(cpus), vcpu, "blocked", "runnable")
        later(random.uniform(800, 8_000), arrive, vcpu)

    def arrive(vcpu: int) -> None:
        cpu = random.randrange(cpus)
        note(cpu, vcpu, "runnable", "running")
        later(500 + random.expovariate(1 / run_ns), lambda vcpu: leave(cpu, vcpu), vcpu)

    def leave(cpu: int, vcpu: int) -> None:
        left[vcpu] -= 1
        preempted = random.random() < 0.3
        note(cpu, vcpu, "running", "runnable" if preempted else "blocked")
        if left[vcpu] and preempted:
            later(random.uniform(800, 8_000), arrive, vcpu)
        elif left[vcpu]:
            later(500 + random.expovariate(1 / rest_ns), wake, vcpu)

    for vcpu in range(vcpus):
        later(random.uniform(1, rest_ns), wake, vcpu)
    machine.loop.run()

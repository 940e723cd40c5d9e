"""How fast the emulator is: the whole table on one core, its event queue against SimPy's, and records written a second.

    python benchmarks/emulator.py [--calls 200] [--runs 3]

docs/emulator.md and benchmarks/README.md quote its result.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import simpy

from xtrace.emulator import machine
from xtrace.emulator.host import Host
from xtrace.emulator.loop import Loop
from xtrace.emulator.output import made
from xtrace.emulator.plan import Plan
from xtrace.emulator.rings import Tool
from xtrace.emulator.table import table
from xtrace.emulator.workloads.evacuate import Evacuate


class SimpyLoop(Loop):
    """The loop's interface on SimPy's environment: a Timeout for each thing to do."""

    def __init__(self, now: int) -> None:
        super().__init__(now)
        self._environment = simpy.Environment(now)

    def at(self, when: int, act: Callable[[Any], None], argument: Any) -> None:
        """See `Loop.at`."""
        due = self._environment.timeout(when - self.now)
        assert due.callbacks is not None  # noqa: S101
        due.callbacks.append(lambda _: act(argument))

    def run(self, until: int | None = None) -> None:
        """See `Loop.run`."""
        environment = self._environment
        while not self._stopped:
            when = environment.peek()
            if when == float("inf") or (until is not None and when > until):
                break
            self.now = int(when)
            environment.step()


def table_seconds(loop: type[Loop], calls: int) -> float:
    """The time of all 21 cells under both designs."""
    vars(machine)["Loop"] = loop
    begin = time.perf_counter()
    table("legacy", "lockless", calls=calls, runs=1)
    vars(machine)["Loop"] = Loop
    return time.perf_counter() - begin


def writing() -> tuple[int, float, float]:
    """Records of an evacuation; seconds to emulate it; seconds to make bytes and truth of it."""
    load = Evacuate(guests=10)
    plan = Plan(Host(load.cpus(), vendor="svm"), load, idle=None, seconds=0.02)
    begin = time.perf_counter()
    emulation = plan.run()
    emulated = time.perf_counter()
    _, _, count, _ = made(emulation, Tool(ring_pages=256), "all")
    return count, emulated - begin, time.perf_counter() - emulated


def bytes_seconds() -> tuple[int, float]:
    """Records of the same, and seconds to put them through rings into bytes, the truth left out."""
    from xtrace.emulator.rings import capture
    from xtrace.emulator.writer import file_bytes

    load = Evacuate(guests=10)
    emulation = Plan(Host(load.cpus(), vendor="svm"), load, idle=None, seconds=0.05).run()
    begin = time.perf_counter()
    rows = list(range(len(emulation.log.rows)))
    taken = capture(emulation.log, rows, emulation.host.cpus, emulation.host.hz, Tool(ring_pages=256))
    file_bytes(taken, {})
    return len(taken.order), time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How fast the emulator is.")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    times: dict[type[Loop], list[float]] = {Loop: [], SimpyLoop: []}
    for _ in range(options.runs):
        for loop, of_loop in times.items():
            of_loop.append(table_seconds(loop, options.calls))
    own, other = (median(of_loop) for of_loop in times.values())
    print(f"whole table, {options.calls} calls a thread and cell, both designs, one run:")
    print(f"  own queue  {own:.1f} s")
    print(f"  SimPy's    {other:.1f} s, ratio {other / own:.2f}")
    count, emulated, rest = writing()
    print(f"evacuation of 10 guests: {count:,} records; emulated in {emulated:.2f} s, bytes and truth in {rest:.2f} s")
    count, took = bytes_seconds()
    print(f"rings and bytes alone: {count:,} records in {took:.2f} s: {count / took:,.0f} a second")


if __name__ == "__main__":
    main()

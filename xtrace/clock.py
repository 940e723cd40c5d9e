"""Cycles to nanoseconds, and the frequency that needs.

A trace holds raw TSC values and no frequency. But the scheduler's switch records carry nanoseconds while every
record carries cycles: what a unit ran, by `ran_ns`, lies between two schedules whose cycle counts are known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xtrace.errors import UsageError

DEFAULT_HZ = 2_400_000_000
MIN_HZ, MAX_HZ = 1_000_000, 10_000_000_000

MIN_SAMPLES = 20
"""Fewer stays than this are no estimate."""

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Clock:
    """A constant-rate counter: `hz` cycles a second, `zero` the cycle count of time 0.

    source: "option", "trace" (estimated from switch records) or "default".
    """

    hz: int
    source: str
    zero: int = 0

    def __post_init__(self) -> None:
        if not MIN_HZ <= self.hz <= MAX_HZ:
            raise UsageError(f"a CPU frequency of {self.hz} Hz is out of range: give 1 MHz to 10 GHz")

    def to_ns(self, tsc: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Nanoseconds since `zero`, int64, rounded down; exact over any uptime. Counts before `zero` are negative."""
        # Differences are right even where a count has 64 bits.
        cycles = (tsc - np.uint64(self.zero)).astype(np.int64)
        return self.span_ns(cycles)

    def span_ns(self, cycles: NDArray[np.int64]) -> NDArray[np.int64]:
        """Nanoseconds that a signed number of cycles takes, rounded down."""
        seconds, rest = np.divmod(cycles, np.int64(self.hz))
        scaled = rest.astype(np.uint64) * np.uint64(NS_PER_S) // np.uint64(self.hz)
        return seconds * np.int64(NS_PER_S) + scaled.astype(np.int64)

    def to_cycles(self, ns: int) -> int:
        """The first cycle count at or after `ns` nanoseconds since `zero`."""
        return self.zero + -(-ns * self.hz // NS_PER_S)


def estimate_hz(cpu: NDArray[np.integer], tsc: NDArray[np.uint64], ran_ns: NDArray[np.uint32]) -> int | None:
    """CPU frequency in Hz from SWITCH_INFPREV records in file order, None where they are too few to tell.

    A unit that is switched out after `ran_ns` was switched in, on the same CPU, by the switch before; both
    records are written at the same point of schedule() (xen/common/sched/core.c), so their distance in cycles
    is that time. Long stays are steadier than short ones: the answer is the median of the cycle rates of the
    longest quarter, which a stay cut by lost records or by a wrap of the 32-bit `ran_ns` cannot move.
    """
    order = np.argsort(cpu, kind="stable")
    cpu, tsc, ran_ns = cpu[order], tsc[order], ran_ns[order]
    same = (cpu[1:] == cpu[:-1]) & (tsc[1:] > tsc[:-1]) & (ran_ns[1:] > 0)
    cycles = (tsc[1:] - tsc[:-1])[same].astype(np.float64)
    elapsed = ran_ns[1:][same].astype(np.float64)
    if len(elapsed) < MIN_SAMPLES:
        return None
    longest = elapsed >= np.quantile(elapsed, 0.75)
    hz = round(float(np.median(cycles[longest] / elapsed[longest])) * NS_PER_S)
    return hz if MIN_HZ <= hz <= MAX_HZ else None

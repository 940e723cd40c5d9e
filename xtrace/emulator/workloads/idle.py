"""A host that does little: time calibration each second, timer interrupts, and CPUs that mostly sleep."""

from __future__ import annotations

from dataclasses import dataclass

from xtrace.emulator.host import Emulation
from xtrace.emulator.workloads.occupation import Occupation, occupy
from xtrace.errors import UsageError


@dataclass(frozen=True, slots=True)
class Idle:
    """What every host does.

    tick_ns         mean time between timer interrupts on each CPU; 0: none
    calibration_ns  how long the function of the time calibration runs; 0: no calibration
    runs            what CPUs run that no other workload uses
    """

    tick_ns: float = 4_000_000
    calibration_ns: float = 5_000
    runs: Occupation = "mixed"

    def install(self, emulation: Emulation) -> None:
        """Set it going. Raises UsageError for times that are negative, or too short to be served."""
        if self.tick_ns < 0 or self.calibration_ns < 0 or 0 < self.tick_ns < MIN_TICK_NS:
            raise UsageError(f"idle: give tick_ns of 0, or from {MIN_TICK_NS} on, and calibration_ns of 0 or more")
        if self.calibration_ns:
            emulation.calibrating(self.calibration_ns)
        if self.tick_ns:
            emulation.ticking(self.tick_ns)
        for index, number in enumerate(emulation.free_cpus()):
            occupy(emulation, number, index, self.runs)


MIN_TICK_NS = 50_000

"""What CPUs run that others' calls interrupt."""

from __future__ import annotations

from typing import Final, Literal

from xtrace.emulator.host import Emulation

Occupation = Literal["guest", "pv", "idle", "mixed"]

RUN_NS: Final = 3_000_000
REST_NS: Final = 500_000
FIRST_DOMAIN: Final = 1000
"""Domains below this are the workloads' own."""


def occupy(emulation: Emulation, number: int, index: int, runs: Occupation) -> None:
    """Give a CPU an HVM guest or a PV guest, which compute and rest, or have it idle; mixed: the three in turn."""
    kind = ("guest", "pv", "idle")[index % 3] if runs == "mixed" else runs
    cpu, domain = emulation.machine.cpus[number], FIRST_DOMAIN + number
    if kind == "guest":
        emulation.start(number, emulation.computing(cpu, (domain, 0), RUN_NS, REST_NS))
    elif kind == "pv":
        emulation.start(number, emulation.computing_pv(cpu, (domain, 0), RUN_NS, REST_NS))
    else:
        emulation.start(number, emulation.idling(cpu))

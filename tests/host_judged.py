"""What the tests of the host summary need to be held against xenalyze."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import xenalyze_summary as judged

from xtrace.emulator.host import Host
from xtrace.emulator.output import made
from xtrace.emulator.plan import Plan
from xtrace.emulator.rings import Tool
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.emulator.workloads.evacuate import Evacuate
from xtrace.emulator.workloads.idle import Idle
from xtrace.host.tally import Spread, Tally

EXACT_HZ: Final = 10**9

SMALL: Final = Tool(1, 1_500_000, 700_000)
"""Loses records."""


def emulated(folder: Path, cpus: int, vendor: str, seed: int, tool: Tool) -> tuple[Path, int]:
    host = Host(cpus, EXACT_HZ, vendor=vendor, seed=seed)  # type: ignore[arg-type]
    load = Evacuate(2, 2) if cpus >= 8 else None
    bench, idle = Bench(2, Masks(1), 20, work_ns=20_000), Idle(tick_ns=300_000)
    plan = Plan(host, load, bench, idle, tool, 0.01 if cpus < 64 else 0.004)
    content, _, _, lost = made(plan.run(), tool, "all")
    path = folder / f"{'vmx' if vendor == 'vmx' else 'svm'}-trace.bin"
    path.write_bytes(content)
    return path, lost


def values(tally: Tally, key: int) -> list[int]:
    """The times added for a key, in order."""
    window, keys, ns, _ = tally._together()
    found: list[int] = ns[(window == 0) & (keys == key)].tolist()
    return found


def printed(label: str, stays: list[int]) -> judged.Figures:
    """What xenalyze prints of these stays, given in order of time."""
    total = sum(stays)
    quantiles = judged.printed_quantiles(stays)
    return judged.Figures(label, len(stays), f"{total / 1e9:.2f}", None, total // len(stays), *quantiles)


def right(spread: Spread, stays: list[int]) -> None:
    """A spread is that of these stays, with the quantiles that time has."""
    held = sorted(stays)
    passed = np.cumsum(held)
    quantiles = [held[int(np.searchsorted(passed, passed[-1] * part // 100, side="right"))] for part in (5, 50, 95)]
    assert [spread.p5_ns, spread.p50_ns, spread.p95_ns] == quantiles
    assert (spread.count, spread.total_ns, spread.max_ns) == (len(held), passed[-1], held[-1])
    assert spread.weighted
    assert spread.exact

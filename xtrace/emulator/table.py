"""The cover letter's table: the change of a call's time under one design against another, by threads and mask size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import sqrt
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from xtrace.emulator.host import Host
from xtrace.emulator.workloads.bench import Bench, Masks

THREADS: Final = (1, 2, 4)
PUBLISHED: Final[Mapping[int, tuple[float, float, float]]] = MappingProxyType(
    {
        1: (0.02, -35.23, -51.18),
        2: (0.01, -47.20, -69.27),
        4: (-0.02, -42.40, -66.55),
        8: (-0.03, -47.82, -68.39),
        16: (0.12, -41.95, -58.26),
        32: (0.02, -25.43, -39.35),
        64: (0.00, -24.70, -37.83),
    }
)
"""CPUs in the mask → change in per cent with 1, 2 and 4 threads.

Source: cover letter of "Lockless SMP function call and TLB flushing", xen-devel, 2026-04-01.
"""

FITTED_HOST: Final = Host(cpus=128)
FITTED_BENCH: Final = Bench(masks=Masks(1, "contiguous", within=64, with_self=True), callers="first", targets="idle")
"""The host and the masks, which the letter does not tell, that fit best: docs/emulator.md has the scan."""

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: the change in per cent with its interval, over `runs` emulations of each design."""

    mask: int
    threads: int
    change: float
    low: float
    high: float
    published: float | None

    @property
    def error(self) -> float | None:
        """By how many points the emulation is above what was published."""
        return None if self.published is None else self.change - self.published


@dataclass(frozen=True, slots=True)
class Table:
    """All cells, by mask size and then by threads.

    rms_error  over the cells with two or more CPUs in the mask, in points; None where nothing was published
    """

    before: str
    after: str
    cells: tuple[Cell, ...]

    @property
    def rms_error(self) -> float | None:
        """How far the table is from the published one."""
        errors = [cell.error for cell in self.cells if cell.mask > 1 and cell.error is not None]
        return sqrt(sum(error * error for error in errors) / len(errors)) if errors else None


def table(
    before: str,
    after: str,
    *,
    host: Host = FITTED_HOST,
    bench: Bench = FITTED_BENCH,
    calls: int = 200,
    runs: int = 5,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Table:
    """Emulate all 21 cells; the runs of a cell have the seeds from `host.seed` on.

    The interval is Student's over the runs. Raises UsageError where a mask does not fit the host.
    """
    for size in PUBLISHED:
        replace(bench.masks, size=size).check(host.cpus)
    cells = []
    published = (before, after) == ("legacy", "lockless")
    for size, row in PUBLISHED.items():
        for threads, expected in zip(THREADS, row, strict=True):
            cell = replace(bench, threads=threads, masks=replace(bench.masks, size=size), calls=calls)
            changes = np.array([_change(host, cell, before, after, run) for run in range(runs)])
            mean, low, high = _interval(changes)
            cells.append(Cell(size, threads, mean, low, high, expected if published else None))
            progress(len(cells), len(PUBLISHED) * len(THREADS))
    return Table(before, after, tuple(cells))


def document(found: Table) -> dict[str, Any]:
    """The JSON document `xtrace.table/1` (docs/emulator.md)."""
    cells = [
        {key: None if value != value else value for key, value in asdict(cell).items()} | {"error": cell.error}
        for cell in found.cells
    ]
    return {
        "schema": "xtrace.table/1",
        "before": found.before,
        "after": found.after,
        "rms_error": found.rms_error,
        "cells": cells,
    }


def mean_total(host: Host, bench: Bench) -> float:
    """The mean time of a call by the benchmark's own clock, in cycles."""
    measured = bench.measured(host)
    return sum(took for _, took in measured) / len(measured)


def _change(host: Host, bench: Bench, before: str, after: str, run: int) -> float:
    old, new = (mean_total(replace(host, model=model, seed=host.seed + run), bench) for model in (before, after))
    return 100 * (new / old - 1)


def _interval(changes: NDArray[np.float64]) -> tuple[float, float, float]:
    from scipy.stats import t

    mean = float(changes.mean())
    if len(changes) < 2:
        return mean, float("nan"), float("nan")
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(changes) - 1) * changes.std(ddof=1) / sqrt(len(changes)))
    return mean, mean - half, mean + half

"""Which host and which masks explain the cover letter's table: scans both and prints the best fits.

    python benchmarks/fit.py [--runs 3] [--calls 100] [--jobs 2]

docs/emulator.md quotes its result.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from multiprocessing import Pool

from xtrace.emulator.host import Host
from xtrace.emulator.table import FITTED_BENCH, table
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.errors import UsageError

Setup = tuple[int, Bench]


def setups() -> Iterator[Setup]:
    """Hosts of 64 to 384 CPUs, each with every policy, alone and in units and blocks."""
    for cpus in (64, 96, 128, 192, 256, 384):
        for policy in ("random", "contiguous", "aligned"):
            for unit in (1, 2, 8) if policy != "aligned" else (1,):
                for within in (None, 32, 64, 128) if policy != "aligned" else (None,):
                    for callers in ("first", "spread"):
                        masks = Masks(1, policy, unit, within, with_self=True)
                        yield cpus, replace(FITTED_BENCH, masks=masks, callers=callers)


def error(setup: Setup, calls: int, runs: int) -> tuple[float, Setup] | None:
    """The root-mean-square error in points, None where the masks do not fit the host."""
    cpus, bench = setup
    try:
        found = table("legacy", "lockless", host=Host(cpus=cpus), bench=bench, calls=calls, runs=runs)
    except UsageError:
        return None
    return (found.rms_error, setup) if found.rms_error is not None else None


def main() -> None:
    """Scan and print."""
    parser = argparse.ArgumentParser(description="Fit host and masks to the published table.")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    with Pool(options.jobs) as pool:
        work = pool.imap_unordered(partial(error, calls=options.calls, runs=options.runs), list(setups()))
        found = sorted((one for one in work if one is not None), key=lambda one: one[0])
    print("error  CPUs  policy      unit  within  callers")
    for points, (cpus, bench) in found:
        masks = bench.masks
        print(f"{points:5.2f}  {cpus:4}  {masks.policy:10}  {masks.unit:4}  {masks.within or '-':>6}  {bench.callers}")


if __name__ == "__main__":
    main()

"""Draws the figures of docs/emulator.md: how the designs scale with the mask, and whom each makes wait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from xtrace.emulator.host import Host
from xtrace.emulator.workloads.bench import Bench, Masks

HERE = Path(__file__).parent
MODELS = ("legacy", "linux", "lockless", "fifo")
SIZES = (1, 2, 4, 8, 16, 32, 64, 120)
CALLERS = 16


def took_ns(model: str, bench: Bench, cpus: int, seed: int) -> list[tuple[int, float]]:
    """Caller and time of each call."""
    host = Host(cpus, model=model, seed=seed)
    return [(cpu, cycles * 1e9 / host.hz) for cpu, cycles in bench.measured(host)]


def scaling(axes: Axes) -> None:
    """Mean time of a call of a function of 1 µs by CPUs in the mask: 4 callers, 128 CPUs."""
    for model in MODELS:
        means = []
        for size in SIZES:
            bench = Bench(4, Masks(size), calls=60, work_ns=1_000, targets="idle")
            means.append(np.mean([took for seed in range(5) for _, took in took_ns(model, bench, 128, seed)]) / 1e3)
        print(model, [round(float(mean), 2) for mean in means])
        axes.plot(SIZES, means, marker="o", label=model)
    axes.set(xscale="log", yscale="log", xlabel="CPUs in the mask", ylabel="mean time of a call, µs")
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.set_yticks((4, 8, 16, 32), ("4", "8", "16", "32"))
    axes.minorticks_off()
    axes.legend(frameon=False)


def bias(axes: Axes) -> None:
    """Mean time of a call by caller, relative to all callers': CPUs 0-15 of 64 call 8 random CPUs, 20 µs."""
    bench = Bench(CALLERS, Masks(8), calls=80, work_ns=20_000, targets="idle", callers="first")
    for model in ("lockless", "fifo"):
        runs = []
        for seed in range(60):
            took = took_ns(model, bench, 64, seed)
            whole = np.mean([ns for _, ns in took])
            runs.append([np.mean([ns for one, ns in took if one == cpu]) / whole for cpu in range(CALLERS)])
        means, errors = np.mean(runs, axis=0), np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))
        print(model, "lowest four", means[:4].mean().round(4), "highest four", means[-4:].mean().round(4))
        axes.errorbar(range(CALLERS), 100 * (means - 1), 100 * errors, marker="o", label=model, capsize=2)
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(xlabel="calling CPU", ylabel="mean time against all callers', %")
    axes.legend(frameon=False)


def draw(name: str, into: Callable[[Axes], None]) -> None:
    """One figure, as SVG that is the same each time."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    into(axes)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / name, metadata={"Date": None})


if __name__ == "__main__":
    mpl.rcParams["svg.hashsalt"] = "xtrace"
    draw("emulator-scaling.svg", scaling)
    draw("emulator-bias.svg", bias)

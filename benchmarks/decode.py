"""How long `xtrace analyze` takes, and how much memory, against `xenalyze -s` on the same file in the same run.

    python benchmarks/decode.py [--bytes 1G] [--runs 5]

Whole processes, one after the other in turn, the file in the page cache. Without Numba means a process in which
`numba` cannot be found, as where the extra is not installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from grow import grow, parse_size

ROOT: Final = Path(__file__).resolve().parent.parent
SAMPLES: Final = ROOT / "sample_traces"
XTRACE: Final = [sys.executable, "-m", "xtrace"]
WITHOUT: Final = [
    sys.executable,
    "-c",
    "import sys; sys.modules['numba'] = None; from xtrace.__main__ import main; main()",
]


class Run(NamedTuple):
    """One finished process: wall seconds, and the largest resident set of it or a child, in MiB."""

    seconds: float
    peak_mib: float


def timed(command: list[str]) -> Run:
    """Run a command with its output thrown away; SystemExit where it fails."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, tree_mib(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return Run(seconds, peak)


def tree_mib(pid: int) -> float:
    """Resident memory of a process and all its descendants, MiB; shared pages count in each."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1])
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return total * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def compare(title: str, trace: Path, reference: list[str], runs: int) -> None:
    """Print a table of the reference, xtrace without and xtrace with Numba on one file."""
    commands = {
        " ".join(["xenalyze", *reference]): ["xenalyze", *reference, str(trace)],
        "xtrace analyze": [*WITHOUT, "analyze", str(trace)],
        "xtrace analyze, with Numba": [*XTRACE, "analyze", str(trace)],
    }
    found: dict[str, list[Run]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            run = timed(command)
            if turn:  # the first of each warms caches
                found[name].append(run)
    base = median(run.seconds for run in next(iter(found.values())))
    print(f"\n{title}: {trace.stat().st_size / (1 << 20):,.0f} MiB, {runs} runs")
    print("| command | wall, median (min-max) | ratio | peak memory, whole tree |\n| --- | --- | --- | --- |")
    for name, results in found.items():
        seconds = [run.seconds for run in results]
        print(
            f"| `{name}` | {median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f}) |"
            f" {median(seconds) / base:.2f} | {max(run.peak_mib for run in results):,.0f} MiB |"
        )


def small(runs: int) -> None:
    """Print how long the small commands take after a first run."""
    for arguments in (["--help"], ["analyze", str(SAMPLES / "bench-legacy.bin")]):
        results = [timed([*XTRACE, *arguments]).seconds for _ in range(runs + 1)][1:]
        print(f"`xtrace {' '.join(Path(one).name for one in arguments)}`: {median(results):.2f} s")


def main() -> None:
    """Grow the traces in a temporary folder and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bytes", type=parse_size, default=1 << 30, help="size of the grown traces; default 1G")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    if shutil.which("xenalyze", path=f"{os.environ['PATH']}:/usr/bin:/usr/sbin") is None:
        raise SystemExit("xenalyze is not installed: it is in Debian's xen-utils-4.17")
    with tempfile.TemporaryDirectory() as folder:
        for name, reference in (
            ("dom0-stock.bin", ["-s", "--svm-mode"]),
            ("migrate-legacy.bin.xz", ["-s", "--svm-mode", "--tolerance=6"]),
        ):
            trace = Path(folder) / "grown.bin"
            grow(SAMPLES / name, trace, options.bytes)
            compare(f"{name} grown", trace, reference, options.runs)
    print()
    small(options.runs)


if __name__ == "__main__":
    main()

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
from typing import Final

from grow import grow, parse_size

ROOT: Final = Path(__file__).resolve().parent.parent
SAMPLES: Final = ROOT / "sample_traces"
XTRACE: Final = [sys.executable, "-m", "xtrace"]
WITHOUT: Final = [
    sys.executable,
    "-c",
    "import sys; sys.modules['numba'] = None; from xtrace.__main__ import main; main()",
]


def started(command: list[str]) -> subprocess.Popen[bytes]:
    """A command under way, its output thrown away."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)


def checked(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end; SystemExit where it is a failure."""
    if process.wait():
        raise SystemExit(f"{' '.join(map(str, process.args))}: exit code {process.returncode}")  # type: ignore[arg-type]


def seconds_of(command: list[str]) -> float:
    """How long a command takes, start to exit, while nobody looks at it."""
    begun = time.perf_counter()
    checked(started(command))
    return time.perf_counter() - begun


def peak_mib_of(command: list[str]) -> float:
    """The largest sum of resident memory of a command and all its descendants, MiB."""
    process, peak = started(command), 0.0
    while process.poll() is None:
        peak = max(peak, tree_mib(process.pid))
        time.sleep(0.01)
    checked(process)
    return peak


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


def compare(title: str, trace: Path, commands: dict[str, list[str]], runs: int) -> None:
    """Print a table of commands on one file, by name; the first is the reference."""
    # Looking at memory takes time: a turn of its own, which warms the caches too.
    peak = {name: peak_mib_of(command) for name, command in commands.items()}
    turns = [[seconds_of(command) for command in commands.values()] for _ in range(runs)]
    found = dict(zip(commands, zip(*turns, strict=True), strict=True))
    base = median(next(iter(found.values())))
    print(f"\n{title}: {trace.stat().st_size / (1 << 20):,.0f} MiB, {runs} runs")
    print("| command | wall, median (min-max) | ratio | peak memory, whole tree |\n| --- | --- | --- | --- |")
    for name, seconds in found.items():
        print(
            f"| `{name}` | {median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f}) |"
            f" {median(seconds) / base:.2f} | {peak[name]:,.0f} MiB |"
        )


def need_xenalyze() -> None:
    """SystemExit where the reference is missing."""
    if shutil.which("xenalyze", path=f"{os.environ['PATH']}:/usr/bin:/usr/sbin") is None:
        raise SystemExit("xenalyze is not installed: it is in Debian's xen-utils-4.17")


def small(runs: int) -> None:
    """Print how long the small commands take after a first run."""
    for arguments in (["--help"], ["analyze", str(SAMPLES / "bench-legacy.bin")]):
        results = [seconds_of([*XTRACE, *arguments]) for _ in range(runs + 1)][1:]
        print(f"`xtrace {' '.join(Path(one).name for one in arguments)}`: {median(results):.2f} s")


def main() -> None:
    """Grow the traces in a temporary folder and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bytes", type=parse_size, default=1 << 30, help="size of the grown traces; default 1G")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    need_xenalyze()
    with tempfile.TemporaryDirectory() as folder:
        for name, reference in (
            ("dom0-stock.bin", ["-s", "--svm-mode"]),
            ("migrate-legacy.bin.xz", ["-s", "--svm-mode", "--tolerance=6"]),
        ):
            trace = Path(folder) / "grown.bin"
            grow(SAMPLES / name, trace, options.bytes)
            commands = {
                " ".join(["xenalyze", *reference]): ["xenalyze", *reference, str(trace)],
                "xtrace analyze": [*WITHOUT, "analyze", str(trace)],
                "xtrace analyze, with Numba": [*XTRACE, "analyze", str(trace)],
            }
            compare(f"{name} grown", trace, commands, options.runs)
    print()
    small(options.runs)


if __name__ == "__main__":
    main()

"""How well episodes are inferred from stock traces: precision, recall, initiators, and whether confidence is honest.

    python benchmarks/inference.py [--seeds 3] [--episodes 1500] [--markdown OUT.md]

Emulates hosts (stock_hosts.py), infers from their traces without the tracepoints, and holds that against what happened.
Seeds are fixed, and others than those that fit_inference.py takes. docs/inference.md quotes the result.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

from stock_hosts import HARD, JUDGE_SEED, Load, Score, joined, scored

CURVES: Final = {
    "lock held, % of the time": ("busy", (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7)),
    "CPUs asleep, %": ("idle", (0.0, 0.25, 0.5, 0.75)),
    "CPUs that run PV guests, %": ("pv", (0.0, 0.25, 0.5, 0.75)),
    "CPUs": ("cpus", (4, 8, 16, 32, 64, 128)),
    "waking up, µs, with 30 % asleep": ("wake_ns", (2_000, 5_000, 20_000, 50_000)),
}
"""What is varied, one thing at a time."""
BINS: Final = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)


def of_curve(name: str, value: float) -> Load:
    """The host of one point."""
    base = Load(idle=0.3, busy=0.02) if name == "wake_ns" else Load()
    return replace(base, **{name: value})  # type: ignore[arg-type]


def markdown(curves: dict[str, dict[float, Score]], hard: Score) -> str:
    """The tables of docs/inference.md."""
    lines = []
    for title, points in curves.items():
        lines += [
            "",
            f"| {title} | episodes that show | precision | recall | initiators |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for value, one in points.items():
            shown = (
                f"{100 * value:.0f}"
                if "%" in title and value <= 1
                else f"{value / 1000:g}"
                if "µs" in title
                else f"{value:g}"
            )
            lines.append(f"| {shown} | {one.shown:,} | {one.precision:.3f} | {one.recall:.3f} | {one.initiators:.3f} |")
    for what, sure, outcome in (
        ("confidence", hard.sure, hard.right),
        ("confidence of the initiator", hard.sure_initiator, hard.found_initiator),
    ):
        lines += ["", f"| {what} | how many | said, on average | right |", "| --- | ---: | ---: | ---: |"]
        for low, high in pairwise(BINS):
            mine = (sure >= low) & (sure < high)
            if mine.any():
                lines.append(
                    f"| {low:g} to {high:g} | {mine.sum():,} | {sure[mine].mean():.3f} | {outcome[mine].mean():.3f} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, default=3, help="emulations of each host")
    parser.add_argument("--episodes", type=int, default=1500, help="calls and flushes of each, about")
    parser.add_argument("--markdown", metavar="OUT.md", help="where the tables go; default: printed")
    asked = parser.parse_args()
    hosts = [replace(load, episodes=asked.episodes) for load in HARD]
    curves = {
        title: {
            value: joined(
                [
                    scored(replace(of_curve(name, value), episodes=asked.episodes), seed)
                    for seed in range(1, asked.seeds + 1)
                ]
            )
            for value in values
        }
        for title, (name, values) in CURVES.items()
    }
    text = markdown(curves, joined([scored(load, JUDGE_SEED + number) for number, load in enumerate(hosts)]))
    if asked.markdown:
        Path(asked.markdown).write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()

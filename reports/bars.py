"""Bars of counts or times: a line each, cut into parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BARS: Final = 24
MAX_PARTS: Final = 6
OTHERS: Final = "others"


def stacked(bars: Mapping[str, Mapping[str, float]], label: str) -> Figure:
    """A Matplotlib Figure: the longest bars, by name, longest first, in parts by name.

    label: what is counted
    Parts beyond the largest few are one.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from xtrace.reports.svg import AFTER, BEFORE, PHASE_1, PHASE_2, PHASE_3, PHASE_4, style

    colours = (AFTER, BEFORE, PHASE_3, PHASE_1, PHASE_4, PHASE_2)
    names = sorted(bars, key=lambda name: -sum(bars[name].values()))[:MAX_BARS]
    parts = _largest([bars[name] for name in names])
    with style():
        figure = Figure(figsize=(5.0, 1.1 + 0.15 * len(parts) + 0.3 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        left = [0.0] * len(names)
        for part, colour in zip(parts, colours, strict=False):
            width = [_width(bars[name], part, parts) for name in names]
            axes.barh(range(len(names)), width, 0.7, left, color=colour, label=part)
            left = [before + more for before, more in zip(left, width, strict=True)]
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter("{x:,g}")
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def _largest(bars: Sequence[Mapping[str, float]]) -> list[str]:
    sums: dict[str, float] = {}
    for bar in bars:
        for part, value in bar.items():
            sums[part] = sums.get(part, 0) + value
    parts = sorted(sums, key=lambda part: -sums[part])
    return parts if len(parts) <= MAX_PARTS else [*parts[: MAX_PARTS - 1], OTHERS]


def _width(bar: Mapping[str, float], part: str, parts: Sequence[str]) -> float:
    if part == OTHERS:
        return sum(value for name, value in bar.items() if name not in parts)
    return bar.get(part, 0)

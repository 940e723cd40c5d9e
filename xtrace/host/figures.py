"""A spread of times as part of a row of a frame."""

from __future__ import annotations

from typing import Any, Final

from xtrace.host.tally import Spread

FIGURES: Final = {
    "count": "int64",
    "total_ns": "int64",
    "mean_ns": "float64",
    "p5_ns": "int64",
    "p50_ns": "int64",
    "p95_ns": "int64",
    "max_ns": "int64",
    "exact": "bool",
}
"""Columns and their dtypes: the fields of `Spread`, but for which kind of quantile it has."""


def figures(spread: Spread) -> dict[str, Any]:
    """They of a spread that is not empty."""
    return {name: getattr(spread, name) for name in FIGURES}

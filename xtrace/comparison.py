"""What a comparison found, as plain data: what reports are made from, and the JSON document `xtrace.comparison/1`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from xtrace.comparable import Work
from xtrace.contract import frame
from xtrace.side_by_side import Figure
from xtrace.sides import Costs, Kind
from xtrace.statistics import Change, Mean

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.questions.fairness import Fairness

METRICS: Final = {
    "lock_wait": "lock_wait_ns",
    "delivery": "delivery_ns",
    "queue": "queue_ns",
    "execution": "execution_ns",
    "completion": "completion_ns",
    "total": "total_ns",
    "aftermath": "aftermath_ns",
    "paid": "paid_ns",
}
"""What is compared, by name, and the columns of `sides.Costs` that hold it, in order of an episode's phases."""

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
STATISTICS: Final = ("mean", *QUANTILES)

CHANGE_COLUMNS: Final = {
    "before_ns": "Float64",
    "after_ns": "Float64",
    "percent": "Float64",
    "low_percent": "Float64",
    "high_percent": "Float64",
    "p": "Float64",
    "effect": "Float64",
    "n_before": "int64",
    "n_after": "int64",
    "units_before": "int64",
    "units_after": "int64",
    "unit": "str",
    "verdict": "str",
}
"""Columns of frames of changes, by name, and their types; meanings as the fields of `statistics.Change`.

_ns is nanoseconds, _percent (and `percent`) per cent of `before_ns`; from low to high is the 95 % interval. What cannot
be said is <NA>.
"""


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from low to high."""

    low: int
    high: int

    def __str__(self) -> str:
        """`3` or `3-4`."""
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the grid: CPUs in the mask, callers at work, and how the mean of what callers paid changed."""

    mask: Range
    callers: Range
    change: Change


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table by function or by domain: the change of the mean of what callers paid."""

    name: str
    change: Change


@dataclass(frozen=True, slots=True)
class Totals:
    """One side's calls or flushes as a whole.

    count, complete, carriers  episodes; complete ones; calls that carry a flush (compared as flushes)
    overlapping                complete ones in flight (SEND to DONE) together with another
    paid_ns, lock_wait_ns      sums
    under_way_ns               time in which at least one was between START and DONE
    in_flight, max_in_flight   mean number between SEND and DONE while there was one, and the most
    """

    count: int
    complete: int
    carriers: int
    overlapping: int
    paid_ns: int
    lock_wait_ns: int
    under_way_ns: int
    in_flight: float | None
    max_in_flight: int

    @property
    def lock_share(self) -> float | None:
        """The part of what callers paid that was lock wait."""
        return self.lock_wait_ns / self.paid_ns if self.paid_ns else None

    @property
    def per_second(self) -> float | None:
        """Episodes completed for each second in which one was under way."""
        return self.complete * 1e9 / self.under_way_ns if self.under_way_ns else None


@dataclass(frozen=True, slots=True)
class CallerOfSide:
    """What one initiating CPU paid, while all the callers of the busiest cell were at work; ns."""

    cpu: int
    count: int
    mean: Mean
    p99: float
    max: int


@dataclass(frozen=True, slots=True)
class Contest:
    """The busiest cell that both sides have, by initiating CPU: who waits for whom to be served first."""

    mask: Range
    callers: Range
    before: tuple[CallerOfSide, ...]
    after: tuple[CallerOfSide, ...]


@dataclass(frozen=True, slots=True)
class KindComparison:
    """Calls or flushes on both sides.

    metrics   a change by name of METRICS and of STATISTICS
    figures   who waits for whom, whether it is fair, who pays
    fairness  of the runs of each side

    Methods `df_…` return the same as pandas frames, with columns in the order and of the types that they name.
    """

    kind: Kind
    before: Totals
    after: Totals
    work: Work
    grid: tuple[Cell, ...]
    metrics: dict[str, dict[str, Change]]
    works: tuple[Row, ...]
    domains: tuple[Row, ...]
    contest: Contest | None
    figures: tuple[Figure, ...]
    fairness: tuple[tuple[Fairness, ...], tuple[Fairness, ...]]

    def df_grid(self) -> pd.DataFrame:
        """One row a cell of the grid, by mask and then callers: the change of the mean of what callers paid.

        Columns: mask, callers (str, `3` or `3-4`: CPUs in the mask, callers at work), then CHANGE_COLUMNS.
        """
        rows = ({"mask": str(one.mask), "callers": str(one.callers)} | _cells(one.change) for one in self.grid)
        return frame(rows, {"mask": "str", "callers": "str"} | CHANGE_COLUMNS)

    def df_metrics(self) -> pd.DataFrame:
        """One row a figure and statistic, in order of METRICS and STATISTICS.

        Columns: figure (str, a key of METRICS), statistic (str, of STATISTICS), then CHANGE_COLUMNS.
        """
        rows = (
            {"figure": figure, "statistic": statistic} | _cells(change)
            for figure, changes in self.metrics.items()
            for statistic, change in changes.items()
        )
        return frame(rows, {"figure": "str", "statistic": "str"} | CHANGE_COLUMNS)

    def df_works(self) -> pd.DataFrame:
        """One row a function or kind of flush, what cost most first: the change of the mean of what callers paid.

        Columns: name (str), then CHANGE_COLUMNS.
        """
        return _frame_of(self.works)

    def df_domains(self) -> pd.DataFrame:
        """One row a domain of callers, what cost most first; columns as `df_works`."""
        return _frame_of(self.domains)

    def df_figures(self) -> pd.DataFrame:
        """One row a figure on waiting, fairness and cost, on both sides.

        Columns: topic, name (str), unit (str: `ns`, `share` from 0 to 1, or `number`), before, after (Float64).
        """
        dtypes = {"topic": "str", "name": "str", "unit": "str", "before": "Float64", "after": "Float64"}
        return frame(({**asdict(one), "name": one.name.strip()} for one in self.figures), dtypes)

    def df_callers(self) -> pd.DataFrame:
        """One row a side and initiating CPU of the busiest cell, `before` first: what it paid.

        Without such a cell there is no row.

        Columns: side (str, `before` or `after`), cpu (uint16), count (int64), mean_ns (Float64), low_ns, high_ns
        (Float64, the 95 % interval of the mean, <NA> where it cannot be said), p99_ns (Float64), max_ns (int64).
        """
        sides = () if self.contest is None else (("before", self.contest.before), ("after", self.contest.after))
        rows = (
            {"side": side, "cpu": one.cpu, "count": one.count, "p99_ns": one.p99, "max_ns": one.max}
            | {"mean_ns": one.mean.mean, "low_ns": one.mean.low, "high_ns": one.mean.high}
            for side, callers in sides
            for one in callers
        )
        times = dict.fromkeys(("mean_ns", "low_ns", "high_ns", "p99_ns"), "Float64")
        return frame(rows, {"side": "str", "cpu": "uint16", "count": "int64"} | times | {"max_ns": "int64"})


def _cells(change: Change) -> dict[str, Any]:
    """The cells of CHANGE_COLUMNS."""
    values = asdict(change)
    renamed = {"before_ns": "before", "after_ns": "after", "low_percent": "low", "high_percent": "high"}
    return {name: values[renamed.get(name, name)] for name in CHANGE_COLUMNS if name != "verdict"} | {
        "verdict": change.verdict
    }


def _frame_of(rows: Iterable[Row]) -> pd.DataFrame:
    return frame(({"name": one.name} | _cells(one.change) for one in rows), {"name": "str"} | CHANGE_COLUMNS)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole answer.

    before, after  the analyses (`xtrace.analysis/1`) of the traces of each side
    alerts         what a reader must know before believing a figure
    kinds          calls and flushes, as far as both sides have complete ones
    costs          by kind, the episodes of both sides that this rests on
    """

    before: tuple[dict[str, Any], ...]
    after: tuple[dict[str, Any], ...]
    alerts: tuple[str, ...]
    kinds: dict[Kind, KindComparison]
    costs: dict[Kind, tuple[Costs, Costs]]


def document(found: Comparison) -> dict[str, Any]:
    """The JSON document `xtrace.comparison/1` (docs/compare.md)."""

    def change(one: Change) -> dict[str, Any]:
        return asdict(one) | {"verdict": one.verdict}

    def totals(one: Totals) -> dict[str, Any]:
        return asdict(one) | {"lock_share": one.lock_share, "per_second": one.per_second}

    def rows(some: Sequence[Row]) -> list[dict[str, Any]]:
        return [{"name": one.name, "paid_ns": change(one.change)} for one in some]

    return {
        "schema": "xtrace.comparison/1",
        "alerts": list(found.alerts),
        "before": list(found.before),
        "after": list(found.after),
        "kinds": {
            kind: {
                "before": totals(one.before),
                "after": totals(one.after),
                "work": asdict(one.work) | {"comparable": one.work.comparable},
                "grid": [
                    {"mask": asdict(cell.mask), "callers": asdict(cell.callers), "paid_ns": change(cell.change)}
                    for cell in one.grid
                ],
                "metrics": {
                    f"{name}_ns": {statistic: change(figure) for statistic, figure in figures.items()}
                    for name, figures in one.metrics.items()
                },
                "functions" if kind == "call" else "flushes": rows(one.works),
                "domains": rows(one.domains),
                "contest": None if one.contest is None else asdict(one.contest),
                "figures": [asdict(figure) | {"name": figure.name.strip()} for figure in one.figures],
            }
            for kind, one in found.kinds.items()
        },
    }

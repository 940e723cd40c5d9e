"""Before and after: what changed in calls and flushes, and how sure that is. Plain data (`xtrace.comparison/1`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xtrace.callers import BLOCK_NS
from xtrace.comparable import Work, alerts, work_done
from xtrace.episodes.relations import meets
from xtrace.errors import MissingEventsError
from xtrace.sides import Costs, Kind, Run, costs, kinds
from xtrace.statistics import (
    MIN_BLOCKS,
    Change,
    Mean,
    change_of_mean,
    changes_of_quantiles,
    corrected,
    mean_with_interval,
)

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

MAX_ROWS: Final = 200


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
    """Calls or flushes on both sides; metrics: a change by name of METRICS and of STATISTICS."""

    kind: Kind
    before: Totals
    after: Totals
    work: Work
    grid: tuple[Cell, ...]
    metrics: dict[str, dict[str, Change]]
    works: tuple[Row, ...]
    domains: tuple[Row, ...]
    contest: Contest | None


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


def compare(before: Sequence[Run], after: Sequence[Run]) -> Comparison:
    """Compare two sides, of one or more runs each. Raises MissingEventsError where they have nothing in common."""
    costed = {kind: (costs(before, kind), costs(after, kind)) for kind in kinds()}
    costed = {kind: sides for kind, sides in costed.items() if all(len(side.episodes) for side in sides)}
    if not costed:
        raise MissingEventsError(
            f"nothing to compare: before has {_held(before)}, after has {_held(after)}; "
            "trace hypervisors with the tracepoints (docs/tracepoints.md)"
        )
    found = {kind: _compared(kind, *sides) for kind, sides in costed.items()}
    # What cost most comes first.
    found = dict(sorted(found.items(), key=lambda item: -item[1].before.paid_ns - item[1].after.paid_ns))
    return Comparison(
        tuple(run.document for run in before),
        tuple(run.document for run in after),
        alerts(before, after, found),
        found,
        costed,
    )


def _held(runs: Sequence[Run]) -> str:
    counts = {kind: sum(run.document["episodes"][kind]["complete"] for run in runs) for kind in kinds()}
    return f"{counts['call']} complete calls and {counts['flush']} complete flushes"


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
            }
            for kind, one in found.kinds.items()
        },
    }


def _compared(kind: Kind, old: Costs, new: Costs) -> KindComparison:
    cells = grid(old, new)
    return KindComparison(
        kind,
        _totals(old),
        _totals(new),
        work_done(old, new),
        cells,
        _metrics(old, new),
        _rows(old, new, "work", str),
        _rows(old, new, "domain", lambda one: f"d{one}"),
        _contest(old, new, cells),
    )


def _metrics(old: Costs, new: Costs) -> dict[str, dict[str, Change]]:
    samples = [(old.sample(column), new.sample(column)) for column in METRICS.values()]
    means = [change_of_mean(*both) for both in samples]
    quantiles = [
        changes_of_quantiles(mean, *both, list(QUANTILES.values())) for mean, both in zip(means, samples, strict=True)
    ]
    return {
        name: {"mean": mean} | dict(zip(QUANTILES, some, strict=True))
        for name, mean, some in zip(METRICS, corrected(means), quantiles, strict=True)
    }


def _bucket(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """1, 2, 3-4, 5-8, …: the power of two that is not smaller."""
    return np.frexp(np.maximum(values - 1, 0).astype(np.float64))[1].astype(np.int64)


def _cell_of(side: Costs) -> NDArray[np.int64]:
    return _bucket(side.episodes["mask"].to_numpy()) << 8 | _bucket(side.episodes["callers"].to_numpy())


def grid(old: Costs, new: Costs) -> tuple[Cell, ...]:
    """All cells that a side has, by mask and then by callers."""
    of_old, of_new = _cell_of(old), _cell_of(new)
    places, changes = [], []
    for code in sorted(set(of_old.tolist()) | set(of_new.tolist())):
        mine, theirs = of_old == code, of_new == code
        within = pd.concat([old.episodes[mine], new.episodes[theirs]])
        places.append((_range(within["mask"]), _range(within["callers"])))
        changes.append(change_of_mean(old.sample("paid_ns", mine), new.sample("paid_ns", theirs)))
    return tuple(
        Cell(mask, callers, change) for (mask, callers), change in zip(places, corrected(changes), strict=True)
    )


def _range(values: pd.Series[int]) -> Range:
    return Range(int(values.min()), int(values.max()))


def _rows(old: Costs, new: Costs, column: str, name: Any) -> tuple[Row, ...]:
    """By value of a column, what cost most first."""
    sums = [side.episodes.groupby(column, observed=True)["paid_ns"].sum() for side in (old, new)]
    weight = sums[0].add(sums[1], fill_value=0).sort_values(ascending=False, kind="stable")
    keys = list(weight.index[:MAX_ROWS])
    changes = [
        change_of_mean(*(side.sample("paid_ns", _equal(side.episodes[column], key)) for side in (old, new)))
        for key in keys
    ]
    return tuple(Row(name(key), change) for key, change in zip(keys, corrected(changes), strict=True))


def _equal(column: pd.Series[Any], key: Any) -> NDArray[np.bool_]:
    return np.asarray((column == key).fillna(False), np.bool_)


def _totals(side: Costs) -> Totals:
    rows = side.episodes
    overlapping = most = 0
    flying = under_way = at_least_one = 0
    for _, run in rows.groupby("run"):
        start, send, done = (run[name].to_numpy() for name in ("start_ns", "send_ns", "done_ns"))
        overlapping += int(meets(send, done).sum())
        under_way += _union(start, done)
        at_least_one += _union(send, done)
        flying += int((done - send).sum())
        times = np.concatenate((send, done))
        steps = np.repeat([1, -1], len(run))
        # What begins as another ends does not overlap it in this count.
        order = np.lexsort((steps, times))
        most = max(most, int(np.cumsum(steps[order]).max()))
    return Totals(
        side.count,
        len(rows),
        side.carriers,
        overlapping,
        int(rows["paid_ns"].sum()),
        int(rows["lock_wait_ns"].sum()),
        under_way,
        flying / at_least_one if at_least_one else None,
        most,
    )


def _union(begin: NDArray[np.int64], end: NDArray[np.int64]) -> int:
    """The time covered by at least one span."""
    order = np.argsort(begin, kind="stable")
    begin, reach = begin[order], np.maximum.accumulate(end[order])
    gaps = np.maximum(begin[1:] - reach[:-1], 0).sum()
    return int(reach[-1] - begin[0] - gaps)


def _contest(old: Costs, new: Costs, cells: Sequence[Cell]) -> Contest | None:
    enough = 2 * MIN_BLOCKS
    busy = [
        cell
        for cell in cells
        if cell.callers.high > 1 and min(cell.change.n_before, cell.change.n_after) >= enough * cell.callers.high
    ]
    if not busy:
        return None
    cell = max(busy, key=lambda one: (one.callers.high, one.mask.high))
    sides = [tuple(_callers_of(side, cell)) for side in (old, new)]
    return Contest(cell.mask, cell.callers, *sides)


def contested(side: Costs, cell: Cell | Contest) -> NDArray[np.int64]:
    """Rows of a side's episodes that are in a cell of the grid and began while all its callers were at work."""
    rows = side.episodes
    inside = rows["mask"].between(cell.mask.low, cell.mask.high) & rows["callers"].between(
        cell.callers.low, cell.callers.high
    )
    chosen = np.flatnonzero(inside)
    return chosen[while_all_call(rows.iloc[chosen])]


def _callers_of(side: Costs, cell: Cell) -> Iterator[CallerOfSide]:
    chosen = contested(side, cell)
    initiator = side.episodes["initiator"].to_numpy()[chosen]
    for cpu in np.unique(initiator).tolist():
        sample = side.sample("paid_ns", chosen[initiator == cpu])
        yield CallerOfSide(
            cpu,
            len(sample.value),
            mean_with_interval(sample),
            float(np.quantile(sample.value, 0.99)),
            int(sample.value.max()),
        )


def while_all_call(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Which episodes began while none of the callers around had made its last call.

    A caller that is held up goes on when the others have finished, and then nobody is in its way: that must not hide
    that it was. Callers are around as long as there is no silence of a tenth of a second.

    rows: with columns run, start_ns and initiator, in order of run and start.
    """
    start, run = rows["start_ns"].to_numpy(), rows["run"].to_numpy()
    fresh = np.append(True, (np.diff(start) > BLOCK_NS) | (np.diff(run) != 0))[: len(rows)]
    burst = pd.Series(np.cumsum(fresh), index=rows.index)
    last = rows["start_ns"].groupby([burst, rows["initiator"]]).max().groupby(level=0).min()
    return np.asarray(start <= last.reindex(burst).to_numpy())

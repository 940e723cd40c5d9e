"""Before and after: what changed in calls and flushes, and how sure that is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xtrace.callers import bucket, while_all_call
from xtrace.comparable import alerts, work_done
from xtrace.comparison import (
    METRICS,
    QUANTILES,
    CallerOfSide,
    Cell,
    Comparison,
    Contest,
    KindComparison,
    Range,
    Row,
    Totals,
)
from xtrace.episodes.assemble import KIND_NAMES
from xtrace.episodes.relations import meets
from xtrace.errors import MissingEventsError
from xtrace.opening import open as open_trace
from xtrace.opening import traces_at
from xtrace.questions.answers import Answers
from xtrace.selection import Selection
from xtrace.side_by_side import figures
from xtrace.sides import Costs, Kind, Run, costs
from xtrace.statistics import (
    MIN_BLOCKS,
    Change,
    change_of_mean,
    changes_of_quantiles,
    corrected,
    mean_with_interval,
)
from xtrace.trace import Trace

MAX_ROWS: Final = 200


def compare(
    before: Side | Sequence[Side], after: Side | Sequence[Side], selection: Selection | None = None
) -> Comparison:
    """What changed between two sides, each one or more traces: opened, or as paths of files or datasets.

    Returns a `Comparison`, as `xtrace compare` prints it. Raises MissingEventsError where the sides have nothing in
    common, and what `xtrace.open` raises.
    """
    return compare_runs(*(list(_runs(side, selection or Selection())) for side in (before, after)))


Side = Trace | str | os.PathLike[str]
"""A trace of a side of a comparison."""


def _runs(side: Side | Sequence[Side], selection: Selection) -> Iterator[Run]:
    for one in [side] if isinstance(side, Trace | str | os.PathLike) else side:
        if isinstance(one, Trace):
            yield Run.of(one, selection)
            continue
        for path in traces_at(one):
            with open_trace(path) as trace:
                yield Run.of(trace, selection)


def compare_runs(before: Sequence[Run], after: Sequence[Run]) -> Comparison:
    """Compare two sides, of one or more runs each. Raises MissingEventsError where they have nothing in common."""
    every: tuple[Kind, ...] = KIND_NAMES
    costed = {kind: (costs(before, kind), costs(after, kind)) for kind in every}
    costed = {kind: sides for kind, sides in costed.items() if all(len(side.episodes) for side in sides)}
    if not costed:
        raise MissingEventsError(
            f"nothing to compare: before has {_held(before)}, after has {_held(after)}; "
            "trace hypervisors with the tracepoints (docs/tracepoints.md)"
        )
    answers = [[run.answers for run in side if run.answers is not None] for side in (before, after)]
    found = {kind: _compared(kind, *sides, *answers) for kind, sides in costed.items()}
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
    counts = {kind: sum(run.document["episodes"][kind]["complete"] for run in runs) for kind in KIND_NAMES}
    inferred = any(run.document["hypervisor"]["evidence"] == "inferred" for run in runs)
    more = ", and inferred ones, whose times are not known" if inferred else ""
    return f"{counts['call']} complete calls and {counts['flush']} complete flushes{more}"


def _compared(
    kind: Kind, old: Costs, new: Costs, before: Sequence[Answers], after: Sequence[Answers]
) -> KindComparison:
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
        figures(before, after, kind),
        (tuple(one.fairness[kind] for one in before), tuple(one.fairness[kind] for one in after)),
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


def _cell_of(side: Costs) -> NDArray[np.int64]:
    return bucket(side.episodes["mask"].to_numpy()) << 8 | bucket(side.episodes["callers"].to_numpy())


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
    start, initiator, run = (rows[name].to_numpy()[chosen] for name in ("start_ns", "initiator", "run"))
    return chosen[while_all_call(start, initiator, run)]


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

"""The two sides of a comparison: the traces of each, and what calls and flushes cost in them, as frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xtrace.aftermath import served_after
from xtrace.callers import callers_at_work
from xtrace.episodes.tables import to_pandas
from xtrace.parsers.event import class_of
from xtrace.selection import Selection
from xtrace.statistics import Sample
from xtrace.summary import analysis, choose
from xtrace.works import flush_name

if TYPE_CHECKING:
    from xtrace.questions.answers import Answers
    from xtrace.trace import Trace

Kind = Literal["call", "flush"]

EPISODE_COLUMNS: Final = (
    "episode",
    "kind",
    "initiator",
    "start_ns",
    "send_ns",
    "done_ns",
    "lock_wait_ns",
    "total_ns",
    "n_targets",
    "func",
    "func_name",
    "flush_flags",
    "parent",
    "domain",
    "complete",
)
DELIVERY_COLUMNS: Final = ("episode", "cpu", "enter_ns", "exit_ns", "delivery_ns", "execution_ns", "queue_ns")


@dataclass(frozen=True, slots=True)
class Run:
    """A trace as far as a comparison needs it.

    document              its analysis (`xtrace.analysis/1`)
    classes               trace classes that it holds records of
    episodes, deliveries  frames with at least EPISODE_COLUMNS and DELIVERY_COLUMNS (docs/tables.md)
    selection             which episodes count
    answers               who waits for whom, whether that is fair, who pays; None of mere frames
    """

    document: dict[str, Any]
    classes: frozenset[str]
    episodes: pd.DataFrame
    deliveries: pd.DataFrame
    selection: Selection = field(default_factory=Selection)
    answers: Answers | None = None

    @classmethod
    def of(cls, trace: Trace, selection: Selection) -> Run:
        """Read a trace."""
        tables, found = trace.tables, trace.answers(selection)
        return cls(
            analysis(trace, selection, choose(trace, selection), found),
            frozenset(class_of(header & 0x0FFFFFFF) for header in trace.survey.counts),
            to_pandas(tables.episodes.select(EPISODE_COLUMNS)),
            to_pandas(tables.deliveries.select(DELIVERY_COLUMNS)),
            selection,
            found,
        )


@dataclass(frozen=True, slots=True)
class Costs:
    """The complete calls or flushes of a side, and their deliveries, by run and in order of start.

    episodes    run, start_ns, send_ns, done_ns, initiator, mask, callers, total_ns, lock_wait_ns, completion_ns,
                aftermath_ns (others served directly after), paid_ns (total and aftermath) (int64), work (category:
                function, or kind of flush), domain (Int64)
    deliveries  row (of `episodes`), delivery_ns, execution_ns (int64), queue_ns (float64, NaN where not known)
    count       complete or not, but for calls that carry a flush
    carriers    calls that carry a flush, and are compared as that flush
    """

    episodes: pd.DataFrame
    deliveries: pd.DataFrame
    count: int
    carriers: int

    def sample(self, column: str, rows: Any = None) -> Sample:
        """What is known in a column of the episodes (by default all of them) or of the deliveries."""
        if column in self.deliveries:
            run = self.episodes["run"].to_numpy()[self.deliveries["row"].to_numpy()]
            whole = Sample(self.deliveries[column].to_numpy(np.float64), run)
        else:
            whole = Sample(self.episodes[column].to_numpy(np.float64), self.episodes["run"].to_numpy())
        chosen = whole if rows is None else whole.where(rows)
        return chosen.where(~np.isnan(chosen.value))


def costs(runs: Sequence[Run], kind: Kind) -> Costs:
    """The calls or the flushes of a side: by identity, so that a call that carries a flush is not counted as a call."""
    parts = [_costs_of_run(run, number, kind) for number, run in enumerate(runs)]
    before = np.append(0, np.cumsum([len(one.episodes) for one in parts]))
    return Costs(
        pd.concat([one.episodes for one in parts], ignore_index=True),
        pd.concat(
            [
                one.deliveries.assign(row=one.deliveries["row"] + first)
                for one, first in zip(parts, before, strict=False)
            ],
            ignore_index=True,
        ),
        sum(one.count for one in parts),
        sum(one.carriers for one in parts),
    )


def _costs_of_run(run: Run, number: int, kind: Kind) -> Costs:
    every = run.episodes
    mine = every[(every["kind"] == kind) & every["parent"].isna() & every["start_ns"].notna()]
    start = mine["start_ns"].to_numpy(np.int64)
    callers = callers_at_work(start, mine["initiator"].to_numpy())
    selected = run.selection.starts(mine["initiator"].to_numpy(), start)
    whole = selected & mine["complete"].to_numpy(bool)
    rows = mine[whole].assign(callers=callers[whole]).sort_values("start_ns", kind="stable")
    place = pd.Series(np.arange(len(rows)), index=rows["episode"].to_numpy())
    targets = run.deliveries[run.deliveries["episode"].isin(place.index)]
    owner = place[targets["episode"]].to_numpy()
    targets = targets.assign(row=owner).sort_values("row", kind="stable")
    last = targets.groupby("row")["exit_ns"].max().to_numpy(np.int64)
    times = ("start_ns", "send_ns", "done_ns", "initiator", "callers", "total_ns", "lock_wait_ns")
    episodes = pd.DataFrame({name: rows[name].to_numpy(np.int64) for name in times})
    episodes["mask"] = rows["n_targets"].to_numpy(np.int64)
    episodes["completion_ns"] = episodes["done_ns"] - last
    after = _aftermath(run)
    episodes["aftermath_ns"] = after[rows["episode"].to_numpy(np.int64)]
    episodes["paid_ns"] = episodes["total_ns"] + episodes["aftermath_ns"]
    episodes["run"] = np.full(len(rows), number, np.int64)
    episodes["work"] = _work(rows, kind)
    episodes["domain"] = rows["domain"].astype("Int64").array
    names = ("row", "delivery_ns", "execution_ns")
    deliveries = pd.DataFrame({name: targets[name].to_numpy(np.int64) for name in names})
    # Of a complete flush the call that carries it may be damaged, and it is the call that queues.
    deliveries["queue_ns"] = targets["queue_ns"].to_numpy(np.float64, na_value=np.nan)
    carriers = every[(every["kind"] == kind) & every["parent"].notna()]
    return Costs(episodes, deliveries, int(selected.sum()), len(carriers))


def _aftermath(run: Run) -> NDArray[np.int64]:
    """By number of episode; 0 for those that are carried or not complete."""
    every = run.episodes
    whole = every[every["parent"].isna() & every["start_ns"].notna() & every["done_ns"].notna()]
    carried = every["parent"].dropna()
    ran = run.deliveries[~run.deliveries["episode"].isin(carried)]
    ran = ran[ran["enter_ns"].notna() & ran["exit_ns"].notna()]
    found = np.zeros(len(every), np.int64)
    found[whole["episode"].to_numpy(np.int64)] = served_after(
        whole["initiator"].to_numpy(),
        whole["start_ns"].to_numpy(np.int64),
        whole["done_ns"].to_numpy(np.int64),
        ran["cpu"].to_numpy(),
        ran["enter_ns"].to_numpy(np.int64),
        ran["exit_ns"].to_numpy(np.int64),
    )
    return found


def _work(rows: pd.DataFrame, kind: Kind) -> pd.Categorical:
    column = "func" if kind == "call" else "flush_flags"
    codes, values = pd.factorize(rows[column])
    if kind == "flush":
        names = [flush_name(int(flags)) for flags in values]
    else:
        first = rows.iloc[np.unique(codes, return_index=True)[1]]["func_name"]
        names = [
            name if isinstance(name, str) else f"0x{int(func):x}" for name, func in zip(first, values, strict=True)
        ]
    return pd.Categorical(np.array(names, object)[codes] if len(codes) else [], categories=sorted(set(names)))

"""Calls that nobody waits for (`wait` = 0): when their functions ran, and who was held up by them later."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from xtrace.contract import frame
from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.questions.paths import LOCK, Paths
from xtrace.questions.requests import Flags, Index
from xtrace.summary import distribution

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.episodes.relations import Model

Spread = dict[str, float | None]
"""`mean`, `p50`, `p90`, `p99` and `max`, ns."""

MEANS: Final = ("paid_ns", "sent_ns", "checked_in_ns", "complete_ns")
AFTER: Final = ("to_begin", "unfinished", "next_held_up")


@dataclass(frozen=True, slots=True)
class After:
    """How often something came after what it is held against, and how long after; max_ns None where it never did."""

    count: int
    sum_ns: int
    max_ns: int | None


@dataclass(frozen=True, slots=True)
class OfFunction:
    """The asynchronous calls of one function.

    A target checks in right before it runs the function, and there is no record but the function's ENTER; so a time
    until a check-in is one until an ENTER. Return is DONE. Times from there on are negative for what came before.

    calls, targets    how many; a CPU in its own mask is a target, too
    to_check_in       return to the last ENTER
    to_complete       return to the last EXIT
    all_checked_in, all_complete  calls of which all targets had done so at return
    to_begin          targets where the function had not begun at return, and how long after it began
    unfinished        targets where it had not ended, those included, and how long after it ended
    next_held_up      next requests of the same CPU that started before the last target had checked in, and so had to
                      wait for that; None where the model is not known
    paid_ns           START to DONE: what callers paid, mean
    sent_ns           START to SEND, mean: what they would pay if they waited for nothing
    checked_in_ns     START to the last ENTER, mean: if they waited for all to check in
    complete_ns       START to the last EXIT, mean: if they waited for all to be through
    """

    name: str
    calls: int
    targets: int
    to_check_in: Spread
    to_complete: Spread
    all_checked_in: int
    all_complete: int
    to_begin: After
    unfinished: After
    next_held_up: After | None
    paid_ns: float
    sent_ns: float
    checked_in_ns: float
    complete_ns: float


@dataclass(frozen=True, slots=True)
class Asynchronous:
    """What became of calls that nobody waited for; functions: those with most unfinished time after return first."""

    model: Model
    calls: int
    functions: tuple[OfFunction, ...]

    def df_functions(self) -> pd.DataFrame:
        """One row a function, most unfinished time after the callers' return first.

        Columns: name (str); calls, targets, all_checked_in, all_complete (int64); to_begin, unfinished and next_held_up
        with their counts, sums (…_ns) and maxima (…_max_ns) (Int64); paid_ns, sent_ns, checked_in_ns, complete_ns
        (float64, means); as the fields of `OfFunction`.
        """
        columns = {"name": "str"} | dict.fromkeys(("calls", "targets", "all_checked_in", "all_complete"), "int64")
        columns |= {f"{name}{part}": "Int64" for name in AFTER for part in ("", "_ns", "_max_ns")}
        return frame(map(_cells, self.functions), columns | dict.fromkeys(MEANS, "float64"))

    def df_spreads(self) -> pd.DataFrame:
        """Two rows a function: how long after the callers' return all targets had checked in, and were through.

        Columns: name, until (str, `check-in` or `end`), mean, p50, p90, p99, max (float64, ns, negative for before).
        """
        rows = (
            {"name": one.name, "until": until} | spread
            for one in self.functions
            for until, spread in (("check-in", one.to_check_in), ("end", one.to_complete))
        )
        texts = {"name": "str", "until": "str"}
        return frame(rows, texts | dict.fromkeys(("mean", "p50", "p90", "p99", "max"), "float64"))


def _cells(one: OfFunction) -> dict[str, object]:
    cells = asdict(one)
    for name in AFTER:
        after: After | None = getattr(one, name)
        values = (None, None, None) if after is None else (after.count, after.sum_ns, after.max_ns)
        cells |= zip((name, f"{name}_ns", f"{name}_max_ns"), values, strict=True)
    return cells


def asynchronous(paths: Paths) -> Asynchronous:
    """Of the chosen requests those that are calls with `wait` = 0.

    Under lockless such a call returns once it is sent, and the next request of its CPU waits until all targets have
    checked in. Under legacy the call itself waits for that, with the lock held, and so the next one never does.
    """
    requests, services = paths.requests, paths.requests.services
    mine = requests.chosen & ~requests.wait
    targets = np.flatnonzero(mine[services.request] & services.seen)
    request = services.request[targets]
    entered, left = np.full((2, len(mine)), NULL)
    np.maximum.at(entered, request, services.enter[targets])
    np.maximum.at(left, request, services.left[targets])
    calls = np.flatnonzero(entered != NULL)
    held_up = _held_up(paths, mine)
    functions = []
    of_calls, of_targets = rows_by(requests.work[calls]), rows_by(requests.work[request])
    for (code, some), (_, at) in zip(of_calls, of_targets, strict=True):
        rows, places = calls[some], targets[at]
        start, done = requests.start[rows], requests.done[rows]
        returned = requests.done[request[at]]
        functions.append(
            OfFunction(
                name=requests.works[code],
                calls=len(rows),
                targets=len(places),
                to_check_in=distribution(entered[rows] - done),
                to_complete=distribution(left[rows] - done),
                all_checked_in=int((entered[rows] <= done).sum()),
                all_complete=int((left[rows] <= done).sum()),
                to_begin=_after(services.enter[places] - returned),
                unfinished=_after(services.left[places] - returned),
                next_held_up=None if held_up is None else _after(held_up.get(code, np.zeros(0, np.int64))),
                paid_ns=float((done - start).mean()),
                sent_ns=float((requests.send[rows] - start).mean()),
                checked_in_ns=float((entered[rows] - start).mean()),
                complete_ns=float((left[rows] - start).mean()),
            )
        )
    functions.sort(key=lambda one: (-one.unfinished.sum_ns, one.name))
    return Asynchronous(requests.model, len(calls), tuple(functions))


def _after(ns: Index) -> After:
    ahead = ns[ns > 0]
    return After(len(ahead), int(ahead.sum()), int(ahead.max()) if len(ahead) else None)


def _held_up(paths: Paths, mine: Flags) -> dict[int, Index] | None:
    """By function: how long requests had to wait for an earlier one of these of their own CPU; None: not known."""
    requests = paths.requests
    if requests.model == "unknown":
        return None
    if requests.model == "legacy":
        return {}
    waits = next(blame for cause, blame in paths.blame() if cause == LOCK)
    blamed = mine[waits.blocker]
    ns = waits.ns[blamed]
    return {code: ns[rows] for code, rows in rows_by(requests.work[waits.blocker[blamed]])}

"""What a trace would have been under another design: its demand replayed, several times, and held against the trace."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from xtrace.contract import frame
from xtrace.emulator.costs import Costs
from xtrace.emulator.demand import Demand, demand
from xtrace.emulator.estimate import costs_of
from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.machine import NS_PER_S
from xtrace.emulator.models import DESIGNS, design_of
from xtrace.emulator.models.design import Design
from xtrace.emulator.replay import Replay
from xtrace.emulator.requests import Request
from xtrace.opening import open as open_trace
from xtrace.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

PHASES: Final = ("lock wait", "delivery", "execution", "completion", "total")

JITTER: Final = 0.05
"""Part of an interrupt's flight that a replay draws: what the trace does not fix must not decide."""

Steps = tuple[int, int, int, dict[int, tuple[int, int]]]
"""An episode's START, SEND, DONE, and ENTER and EXIT by target, in one unit."""


@dataclass(frozen=True, slots=True)
class Line:
    """A mean in ns, in the trace and as predicted, with the least and the greatest of the replays.

    replayed_ns  under the trace's own design, which shows what a replay is worth; None where that is not known
    against_ns   in the other trace, where one is given and has it
    """

    traced_ns: float
    replayed_ns: float | None
    predicted_ns: float
    low_ns: float
    high_ns: float
    against_ns: float | None = None
    episodes: int = 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer of `predict`.

    phases  by name, means over episodes, delivery and execution over their targets
    cells   by CPUs in the mask and callers at work in the same burst: total

    Methods `df_…` return the same as pandas frames. Their last columns, in this order: traced_ns (float64), replayed_ns
    (Float64, <NA> where the trace's design is not known), predicted_ns, low_ns, high_ns (float64), against_ns (Float64,
    <NA> without another trace), episodes (int64); meanings as the fields of `Line`.
    """

    model: str
    traced_model: str
    runs: int
    episodes: int
    left_out: int
    costs: Costs
    phases: dict[str, Line]
    cells: dict[tuple[int, int], Line]

    def df_phases(self) -> pd.DataFrame:
        """One row a phase, in order of PHASES. Columns: phase (str), then as the class says."""
        return _frame(({"phase": name} | asdict(line) for name, line in self.phases.items()), {"phase": "str"})

    def df_cells(self) -> pd.DataFrame:
        """One row a cell, by mask and then callers. Columns: mask, callers (int64), then as the class says."""
        rows = ({"mask": mask, "callers": callers} | asdict(line) for (mask, callers), line in self.cells.items())
        return _frame(rows, {"mask": "int64", "callers": "int64"})


def _frame(rows: Iterable[dict[str, Any]], keys: dict[str, str]) -> pd.DataFrame:
    types = {one.name: "float64" for one in fields(Line)}
    types |= {"replayed_ns": "Float64", "against_ns": "Float64", "episodes": "int64"}
    return frame(rows, keys | types)


def whatif(
    trace: Trace | str | os.PathLike[str],
    model: str | type[Design] = "lockless",
    *,
    runs: int = 5,
    against: Trace | str | os.PathLike[str] | None = None,
) -> Prediction:
    """What a trace's calls and flushes would have cost under another design, as `xtrace whatif` prints it.

    trace, against  opened, or paths; against: a real trace of that design, shown beside
    model           legacy, lockless, linux, fifo, or a Design of your own

    Raises what `xtrace.open` raises, and UsageError for an unknown design or a trace without a complete call or flush.
    """
    with ExitStack() as stack:

        def opened(one: Trace | str | os.PathLike[str]) -> Trace:
            return one if isinstance(one, Trace) else stack.enter_context(open_trace(one))

        other = None if against is None else opened(against)
        return predict(opened(trace), model, runs=runs, against=other)


def predict(
    trace: Trace,
    model: str | type[Design],
    *,
    runs: int = 5,
    against: Trace | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Prediction:
    """Replay the trace's demand under a design, `runs` times with other seeds.

    Raises UsageError for an unknown design, and for a trace without a complete call or flush.
    """
    design = design_of(model)
    asked = _demand(trace)
    host = _host(trace, asked)
    own = trace.tables.model if trace.tables.model in DESIGNS else None
    cells = _cells(asked)
    traced = _of_trace(trace, cells)
    jittery = replace(host, costs=replace(host.costs, flight_jitter_ns=JITTER * host.costs.flight_ns))
    found: dict[type[Design], list[_Means]] = {}
    models = dict.fromkeys(design_of(one) for one in (own, design) if one is not None)
    for one in models:
        for run in range(runs):
            replay = Replay(asked, replace(jittery, model=one, seed=1 + run))
            replay.run()
            found.setdefault(one, []).append(_of_replay(replay, cells))
            progress(sum(map(len, found.values())), runs * len(models))
    other = None
    if against is not None:
        other = _of_trace(against, _cells(_demand(against)))
    predicted, replayed = found[design], found[design_of(own)] if own is not None else None

    def line(key: object) -> Line:
        values = np.array([one.means[key] for one in predicted])
        return Line(
            traced.means[key],
            None if replayed is None else float(np.mean([one.means[key] for one in replayed])),
            float(values.mean()),
            float(values.min()),
            float(values.max()),
            None if other is None else other.means.get(key),
            traced.counts[key],
        )

    return Prediction(
        design.name,
        trace.tables.model,
        runs,
        len(cells),
        asked.left_out,
        host.costs,
        {phase: line(phase) for phase in PHASES},
        {cell: line(cell) for cell in sorted(set(cells.values()))},
    )


def emulated(trace: Trace, model: str | type[Design]) -> Emulation:
    """One replay with all its records, to be written. Raises as `predict` does."""
    asked = _demand(trace)
    replay = Replay(asked, replace(_host(trace, asked), model=model), traced=True)
    replay.run()
    return replay.emulation


def document(found: Prediction, path: str, against: str | None) -> dict[str, Any]:
    """The JSON document `xtrace.whatif/1` (docs/emulator.md)."""
    return {
        "schema": "xtrace.whatif/1",
        "trace": path,
        "traced_model": found.traced_model,
        "model": found.model,
        "against": against,
        "runs": found.runs,
        "episodes": found.episodes,
        "left_out": found.left_out,
        "costs_ns": asdict(found.costs),
        "phases": {name: asdict(line) for name, line in found.phases.items()},
        "cells": [{"mask": mask, "callers": callers} | asdict(line) for (mask, callers), line in found.cells.items()],
    }


def _demand(trace: Trace) -> Demand:
    return demand(trace.table_episodes(), trace.table_deliveries())


def _host(trace: Trace, asked: Demand) -> Host:
    """A host like the traced one."""
    return Host(asked.cpus, trace.clock.hz, costs=costs_of(trace.df_episodes(), trace.df_deliveries()))


@dataclass(frozen=True, slots=True)
class _Means:
    """Means in ns and counts, by phase and by cell."""

    means: dict[object, float]
    counts: dict[object, int]


Cells = dict[int, tuple[int, int]]
"""Row of an episode → CPUs in its mask, callers in its burst."""


def _cells(asked: Demand) -> Cells:
    return {
        one.source: (len(one.targets), len(burst.asked))
        for burst in asked.bursts
        for row in burst.asked.values()
        for one in row
    }


def _of_replay(replay: Replay, cells: Cells) -> _Means:
    hz = replay.emulation.host.hz

    def steps(request: Request) -> Steps:
        served = {cpu: (one.entered, one.left) for cpu, one in request.served.items()}
        return request.start, request.send, request.done, served

    return _means(((source, steps(request)) for source, request in replay.made), cells, NS_PER_S / hz)


def _of_trace(trace: Trace, cells: Cells) -> _Means:
    served: dict[int, dict[int, tuple[int, int]]] = {}
    columns = ("episode", "cpu", "enter_ns", "exit_ns")
    for row in trace.table_deliveries().select(columns).to_pylist():
        if row["episode"] in cells:
            served.setdefault(row["episode"], {})[row["cpu"]] = row["enter_ns"], row["exit_ns"]
    rows = trace.table_episodes().select(("episode", "start_ns", "send_ns", "done_ns")).to_pylist()
    return _means(
        (
            (row["episode"], (row["start_ns"], row["send_ns"], row["done_ns"], served[row["episode"]]))
            for row in rows
            if row["episode"] in cells
        ),
        cells,
        1.0,
    )


def _means(episodes: Iterable[tuple[int, Steps]], cells: Cells, unit_ns: float) -> _Means:
    values: dict[object, list[int]] = {}
    for source, (start, send, done, served) in episodes:
        values.setdefault("lock wait", []).append(send - start)
        values.setdefault("delivery", []).extend(enter - send for enter, _ in served.values())
        values.setdefault("execution", []).extend(left - enter for enter, left in served.values())
        values.setdefault("completion", []).append(done - max(left for _, left in served.values()))
        values.setdefault("total", []).append(done - start)
        values.setdefault(cells[source], []).append(done - start)
    means: dict[object, float] = {}
    for key, of_key in values.items():
        array: NDArray[np.int64] = np.array(of_key, np.int64)
        means[key] = float(array.mean()) * unit_ns
    return _Means(means, {key: len(of_key) for key, of_key in values.items()})

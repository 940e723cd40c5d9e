"""Frames of comparisons and predictions: columns and types are a promise, values are those of the objects."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import xtrace
from xtrace.comparison import CHANGE_COLUMNS, METRICS, STATISTICS, Comparison, KindComparison
from xtrace.emulator.whatif import PHASES, Prediction

SAMPLES = Path(__file__).parent.parent / "sample_traces"
HZ = 60_000_000
LINE = {
    "traced_ns": "float64",
    "replayed_ns": "Float64",
    "predicted_ns": "float64",
    "low_ns": "float64",
    "high_ns": "float64",
    "against_ns": "Float64",
    "episodes": "int64",
}


def types(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(kind) for name, kind in frame.dtypes.items()}


@pytest.fixture(scope="module")
def compared() -> Comparison:
    before, after = (
        xtrace.open(SAMPLES / f"bench8-{one}.bin", cpu_hz=HZ, symbols=SAMPLES / f"symbols-{one}.map")
        for one in ("legacy", "lockless")
    )
    return xtrace.compare(before, after)


@pytest.fixture(scope="module")
def calls(compared: Comparison) -> KindComparison:
    return compared.kinds["call"]


def test_the_grid(calls: KindComparison) -> None:
    frame = calls.df_grid()
    assert types(frame) == {"mask": "str", "callers": "str"} | CHANGE_COLUMNS
    assert len(frame) == len(calls.grid)
    for row, cell in zip(frame.to_dict("records"), calls.grid, strict=True):
        assert (row["mask"], row["callers"]) == (str(cell.mask), str(cell.callers))
        assert (row["before_ns"], row["after_ns"]) == (cell.change.before, cell.change.after)
        assert (row["percent"], row["verdict"], row["unit"]) == (
            cell.change.percent,
            cell.change.verdict,
            cell.change.unit,
        )
        assert (None if pd.isna(row["low_percent"]) else row["low_percent"]) == cell.change.low
        assert (None if pd.isna(row["high_percent"]) else row["high_percent"]) == cell.change.high
    few = frame[frame.verdict == "too few"]
    assert len(few)
    assert few[["low_percent", "high_percent", "p", "effect"]].isna().all(axis=None)


def test_metrics(calls: KindComparison) -> None:
    frame = calls.df_metrics()
    assert types(frame) == {"figure": "str", "statistic": "str"} | CHANGE_COLUMNS
    assert list(zip(frame.figure, frame.statistic, strict=True)) == [
        (one, two) for one in METRICS for two in STATISTICS
    ]
    queue = frame[(frame.figure == "queue") & (frame.statistic == "mean")].iloc[0]
    assert queue.before_ns == 0
    assert pd.isna(queue.percent), "from zero there is no change in per cent"


def test_functions_and_domains(calls: KindComparison) -> None:
    frame = calls.df_works()
    assert types(frame) == {"name": "str"} | CHANGE_COLUMNS
    assert list(frame.name) == [one.name for one in calls.works]
    assert types(calls.df_domains()) == types(frame)
    assert len(calls.df_domains()) == len(calls.domains)


def test_callers(calls: KindComparison) -> None:
    frame = calls.df_callers()
    times = dict.fromkeys(("mean_ns", "low_ns", "high_ns", "p99_ns"), "Float64")
    assert types(frame) == {"side": "str", "cpu": "uint16", "count": "int64"} | times | {"max_ns": "int64"}
    assert list(frame.side) == ["before"] * 4 + ["after"] * 4
    assert list(frame.cpu) == [0, 2, 4, 6] * 2
    assert calls.contest is not None
    assert list(frame.mean_ns) == [one.mean.mean for one in (*calls.contest.before, *calls.contest.after)]
    longest = frame.iloc[int(frame.max_ns.argmax())]
    assert (longest.side, longest.cpu) == ("after", 6)


def test_no_contest() -> None:
    with xtrace.open(SAMPLES / "vmx-legacy.bin", cpu_hz=HZ) as trace:
        calls = xtrace.compare(trace, trace).kinds["call"]
    assert calls.contest is None
    frame = calls.df_callers()
    assert len(frame) == 0
    assert types(frame)["cpu"] == "uint16"


@pytest.fixture(scope="module")
def predicted() -> Prediction:
    with xtrace.open(SAMPLES / "bench8-legacy.bin", cpu_hz=HZ) as trace:
        return xtrace.whatif(trace, "lockless", runs=1)


def test_phases_of_a_prediction(predicted: Prediction) -> None:
    frame = predicted.df_phases()
    assert types(frame) == {"phase": "str"} | LINE
    assert list(frame.phase) == list(PHASES)
    assert list(frame.predicted_ns) == [one.predicted_ns for one in predicted.phases.values()]
    assert frame.replayed_ns.notna().all()
    assert frame.against_ns.isna().all()


def test_cells_of_a_prediction(predicted: Prediction) -> None:
    frame = predicted.df_cells()
    assert types(frame) == {"mask": "int64", "callers": "int64"} | LINE
    assert list(zip(frame["mask"], frame.callers, strict=True)) == sorted(predicted.cells)
    assert frame.episodes.sum() == predicted.episodes

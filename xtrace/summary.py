"""The answers of `xtrace analyze` and `xtrace info`: plain data, the JSON contract of docs/tables.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xtrace.parsers.event import class_of
from xtrace.parsers.vectors import FLUSH_FLAGS
from xtrace.scan import RECORD_WORDS
from xtrace.selection import Selection

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.trace import Trace

PHASES = ("total_ns", "lock_wait_ns", "delivery_ns", "execution_ns")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def distribution(values: NDArray[np.int64]) -> dict[str, float | None]:
    """Mean, quantiles (linear between neighbours) and maximum, ns; all None of nothing."""
    if not len(values):
        return dict.fromkeys(("mean", *QUANTILES, "max"))
    found = {"mean": float(values.mean())}
    found |= dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())).tolist(), strict=True))
    found["max"] = int(values.max())
    return found  # type: ignore[return-value]


def analysis(trace: Trace, selection: Selection, chosen: Chosen | None = None) -> dict[str, Any]:
    """The JSON document `xtrace.analysis/1` (docs/tables.md); chosen: the selected episodes, if at hand."""
    survey, tables = trace.survey, trace.tables
    chosen = chosen or Chosen.of(trace, selection)
    return {
        "schema": "xtrace.analysis/1",
        "trace": container(trace)["trace"],
        "hypervisor": {
            "smp_model": tables.model,
            "vendor": trace.dialect.vendor or "unknown",
            "evidence": tables.evidence,
        },
        "events": trace.event_counts(_counts(trace, selection) if selection else survey.counts),
        "episodes": {kind: _kind(chosen, kind) for kind in ("call", "flush")},
    }


def _counts(trace: Trace, selection: Selection) -> Counter[int]:
    counts: Counter[int] = Counter()
    for batch, rows in trace.batches(selection):
        headers, found = np.unique(batch.header[rows], return_counts=True)
        counts.update(dict(zip(headers.tolist(), found.tolist(), strict=True)))
    return counts


@dataclass(frozen=True, slots=True)
class Chosen:
    """The selected episodes and the deliveries of those of them that are complete, as frames without lists."""

    episodes: pd.DataFrame
    complete: pd.DataFrame
    deliveries: pd.DataFrame

    @classmethod
    def of(cls, trace: Trace, selection: Selection) -> Chosen:
        """An episode is selected by its START; one whose START was not seen is in no span of time."""
        from xtrace.episodes.tables import to_pandas

        episodes = to_pandas(trace.tables.episodes.drop_columns(["targets"]))
        episodes["overlaps"] = trace.tables.overlaps
        deliveries = to_pandas(trace.tables.deliveries)
        if selection:
            start = episodes["start_ns"].fillna(np.iinfo(np.int64).min).to_numpy(np.int64)
            episodes = episodes[selection.starts(episodes["initiator"].to_numpy(), start)]
        complete = episodes[episodes["complete"]]
        of_complete = np.isin(deliveries["episode"].to_numpy(), complete["episode"].to_numpy())
        return cls(episodes, complete, deliveries[of_complete])

    def kind(self, kind: str) -> Chosen:
        """Only calls, or only flushes."""
        rows = self.complete[self.complete["kind"] == kind]
        targets = np.isin(self.deliveries["episode"].to_numpy(), rows["episode"].to_numpy())
        return Chosen(self.episodes[self.episodes["kind"] == kind], rows, self.deliveries[targets])


def _kind(chosen: Chosen, kind: str) -> dict[str, Any]:
    of = chosen.kind(kind)
    phases = {name: _integers(of.complete[name]) for name in ("total_ns", "lock_wait_ns")}
    phases |= {name: _integers(of.deliveries[name]) for name in ("delivery_ns", "execution_ns")}
    return {
        "count": len(of.episodes),
        "complete": len(of.complete),
        "overlapping": int(of.complete["overlaps"].sum()),
        "targets": len(of.deliveries),
        **{name: distribution(phases[name]) for name in PHASES},
        "fairness": {"initiators": by_initiator(of.complete)},
    }


def _integers(column: pd.Series[Any]) -> NDArray[np.int64]:
    return column.to_numpy(np.int64)


def by_initiator(complete: pd.DataFrame) -> list[dict[str, Any]]:
    """What each initiating CPU paid, busiest first."""
    rows = [
        {"cpu": int(str(cpu)), "count": len(part), "sum_ns": int(part["total_ns"].sum())}
        | distribution(_integers(part["total_ns"]))
        for cpu, part in complete.groupby("initiator")
    ]
    return sorted(rows, key=lambda row: (-row["sum_ns"], row["cpu"]))


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What `xtrace analyze` shows of one kind of episode beyond the JSON contract. Frames, ns throughout.

    phases      by phase: mean, p50, p90, p99, max
    histogram   (lower bound of a power of two in ns, episodes) of total time, without gaps
    functions   by function name (calls) or flags (flushes): count, targets, mean_ns, p99_ns, max_ns, sum_ns
    grid        by mask size and concurrency: count, mean_ns
    worst       the episodes with the largest total
    """

    phases: dict[str, dict[str, float | None]]
    histogram: list[tuple[int, int]]
    functions: pd.DataFrame
    grid: pd.DataFrame
    worst: pd.DataFrame


WORST = 8


def breakdown(chosen: Chosen, kind: str) -> Breakdown:
    """The breakdown of the selected complete episodes of one kind."""
    of = chosen.kind(kind)
    complete = of.complete
    total = _integers(complete["total_ns"])
    last_exit = of.deliveries.groupby("episode")["exit_ns"].max().reindex(complete["episode"])
    completion = _integers(complete["done_ns"]) - _integers(last_exit)
    phases = {
        "lock wait": distribution(_integers(complete["lock_wait_ns"])),
        "delivery": distribution(_integers(of.deliveries["delivery_ns"])),
        "of it queueing": distribution(_integers(of.deliveries["queue_ns"])),
        "execution": distribution(_integers(of.deliveries["execution_ns"])),
        "completion": distribution(completion),
        "total": distribution(total),
    }
    grouped = complete.assign(what=_what(complete, kind), total=total, targets=_integers(complete["n_targets"]))
    functions = grouped.groupby("what", observed=True).agg(
        count=("total", "size"),
        targets=("targets", "mean"),
        mean_ns=("total", "mean"),
        max_ns=("total", "max"),
        sum_ns=("total", "sum"),
    )
    functions["p99_ns"] = grouped.groupby("what", observed=True)["total"].quantile(0.99)
    grid = grouped.groupby(["n_targets", "inflight"]).agg(count=("total", "size"), mean_ns=("total", "mean"))
    return Breakdown(
        phases=phases,
        histogram=log2_histogram(total),
        functions=functions.sort_values("sum_ns", ascending=False),
        grid=grid,
        worst=grouped.nlargest(WORST, "total"),
    )


def _what(complete: pd.DataFrame, kind: str) -> pd.Categorical[str]:
    """What each episode did: its function by name or address, or its kind of flush."""
    import pandas as pd

    column = complete["func" if kind == "call" else "flush_flags"]
    values, first, codes = np.unique(column.to_numpy(np.uint64), return_index=True, return_inverse=True)
    if kind == "flush":
        names = [flush_name(flags) for flags in values.tolist()]
    else:
        known = complete["func_name"].iloc[first].tolist()
        names = [
            name if isinstance(name, str) else f"0x{address:x}"
            for name, address in zip(known, values.tolist(), strict=True)
        ]
    # Two addresses may lie in one function, and two sets of bits differ only in bits without a name.
    distinct = sorted(set(names))
    place = np.array([distinct.index(name) for name in names], np.int64)
    return pd.Categorical.from_codes(place[codes], categories=pd.Index(distinct))


def log2_histogram(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(2^k, how many values are in [2^k, 2^(k+1))) from the smallest to the largest; values below 1 count as 1."""
    if not len(values):
        return []
    power = np.frexp(np.maximum(values, 1).astype(np.float64))[1] - 1
    low = int(power.min())
    return [(1 << low + step, count) for step, count in enumerate(np.bincount(power - low).tolist())]


def flush_name(flags: int) -> str:
    """A flush by its FLUSH_* bits, `TLB|VA_VALID`, without the order."""
    names = [name.removeprefix("FLUSH_") for bit, name in FLUSH_FLAGS.items() if flags & bit]
    return "|".join(names) if names else f"0x{flags:x}"


def container(trace: Trace) -> dict[str, Any]:
    """The JSON document `xtrace.info/1`: what `xtrace info` prints (docs/tables.md)."""
    survey, clock = trace.survey, trace.clock
    lost_by_cpu = trace.lost_by_cpu
    span = np.array([max(survey.last_tsc, survey.zero_tsc)], np.uint64)
    return {
        "schema": "xtrace.info/1",
        "trace": {
            "path": survey.name,
            "bytes": survey.total_bytes,
            "records": survey.total_records,
            "skipped_bytes": survey.skipped_bytes,
            "lost_records": sum(lost_by_cpu.values()),
            "cpus": sorted(survey.cpus),
            "duration_ns": int(clock.to_ns(span)[0]),
            "cpu_hz": clock.hz,
            "cpu_hz_source": clock.source,
        },
        "captures": survey.captures,
        "windows": sum(totals.windows for totals in survey.cpus.values()),
        "cpus": [
            {
                "cpu": cpu,
                "windows": totals.windows,
                "bytes": totals.size_bytes,
                "lost": lost_by_cpu.get(cpu, 0),
            }
            for cpu, totals in sorted(survey.cpus.items())
        ],
        "classes": _volume(survey.counts, "class", lambda header: class_of(header & 0x0FFFFFFF)),
        "events": _volume(survey.counts, "event", trace.event_name),
        "skips": [skip._asdict() for skip in survey.skips],
    }


def _volume(counts: Counter[int], key: str, name: Callable[[int], str]) -> list[dict[str, Any]]:
    """Records and bytes by a name of their header word, largest first."""
    records: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for header, count in counts.items():
        records[name(header)] += count
        size[name(header)] += count * 4 * int(RECORD_WORDS[header >> 28])
    return [
        {key: one, "records": records[one], "bytes": taken}
        for one, taken in sorted(size.items(), key=lambda item: (-item[1], item[0]))
    ]

"""The answers of `xtrace analyze` and `xtrace info`: plain data, the JSON contract of docs/tables.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xtrace import arrow
from xtrace.episodes.assemble import KIND_NAMES
from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.parsers.event import class_of
from xtrace.selection import Selection
from xtrace.words import RECORD_WORDS
from xtrace.works import works

if TYPE_CHECKING:
    from xtrace.episodes.assemble import EpisodeTables
    from xtrace.host.summary import Host, HostSeries
    from xtrace.questions.answers import Answers
    from xtrace.series import Interval
    from xtrace.trace import Trace

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def distribution(values: NDArray[np.int64]) -> dict[str, float | None]:
    """Mean, quantiles (linear between neighbours) and maximum, ns; all None of nothing."""
    if not len(values):
        return dict.fromkeys(("mean", *QUANTILES, "max"))
    found = {"mean": float(values.mean())}
    found |= dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())).tolist(), strict=True))
    found["max"] = int(values.max())
    return found  # type: ignore[return-value]


def choose(trace: Trace, selection: Selection) -> dict[str, Chosen]:
    """What is selected, by kind."""
    return {kind: Chosen.of(trace, selection, kind) for kind in KIND_NAMES}


@dataclass(frozen=True, slots=True)
class Analysis:
    """What `xtrace analyze` tells of a selection of a trace.

    document   the JSON document `xtrace.analysis/1` (docs/json.md)
    chosen     the episodes selected, by kind
    answers    who waits for whom, and so on
    host       what vCPUs and CPUs did; None where it was not looked at
    intervals  the same and more by interval, where one was given
    """

    document: dict[str, Any]
    chosen: dict[str, Chosen]
    answers: Answers
    host: Host | None
    intervals: tuple[Interval, ...]

    def breakdowns(self) -> dict[str, Breakdown]:
        """Of each kind of episode that has complete ones."""
        return {kind: breakdown(one, kind) for kind, one in self.chosen.items() if len(one.complete)}


def analyzed(
    trace: Trace,
    selection: Selection,
    *,
    host: Collection[str] | None = None,
    every_ns: int | None = None,
    sections: Collection[str] = (),
    log_dirty: bool = False,
    clocks: bool = False,
) -> Analysis:
    """Analyze a trace. Raises UsageError for far too many intervals.

    host               parts of the host's summary; None: those that are told unasked
    every_ns           length of intervals; sections: what else than the host they tell (`series.intervals`)
    log_dirty, clocks  also these parts, which take one more pass over the trace each
    """
    from xtrace.host import by_default
    from xtrace.series import intervals

    parts = by_default(trace) if host is None else host
    looked = trace.host(selection, parts, every_ns) if parts else None
    spans = intervals(trace, selection, sections, every_ns, looked) if every_ns is not None else ()
    chosen = choose(trace, selection)
    found = trace.answers(selection, log_dirty=log_dirty, clocks=clocks)
    document = analysis(trace, selection, chosen, found, looked, spans)
    return Analysis(document, chosen, found, looked.whole if looked else None, spans)


def analysis(
    trace: Trace,
    selection: Selection,
    chosen: dict[str, Chosen],
    found: Answers,
    host: HostSeries | None = None,
    spans: Collection[Interval] = (),
) -> dict[str, Any]:
    """The JSON document `xtrace.analysis/1` (docs/json.md) of what `choose`, `Trace.answers` and so on gave."""
    from xtrace import series
    from xtrace.questions.answers import document, fairness_document

    survey, tables = trace.survey, trace.tables
    answered = document(found)
    if tables.evidence != "exact":
        answered |= dict.fromkeys(answered.keys() - {"log_dirty", "clocks", "inferred"})
    episodes = {kind: _kind(one, fairness_document(found, kind)) for kind, one in chosen.items()}
    if found.inferred is not None:
        episodes = {kind: found.inferred.of_kind(kind) for kind in chosen}
    return {
        "schema": "xtrace.analysis/1",
        "trace": measured(trace),
        "hypervisor": {
            "smp_model": tables.model,
            "vendor": trace.dialect.vendor or "unknown",
            "evidence": tables.evidence,
        },
        "events": trace.event_counts(_counts(trace, selection) if selection else survey.counts),
        "episodes": episodes,
        "host": None if host is None else asdict(host.whole),
        "intervals": series.document(spans),
    } | answered


def _counts(trace: Trace, selection: Selection) -> Counter[int]:
    counts: Counter[int] = Counter()
    for batch, rows in trace.batches(selection):
        headers, found = np.unique(batch.header[rows], return_counts=True)
        counts.update(dict(zip(headers.tolist(), found.tolist(), strict=True)))
    return counts


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some episodes, and of those that are complete the deliveries.

    count     episodes, complete or not
    complete  int64, rows of the table of episodes, complete ones only
    targets   int64, rows of the table of deliveries: the targets of `complete`, in the same order
    """

    tables: EpisodeTables
    count: int
    complete: NDArray[np.int64]
    targets: NDArray[np.int64]

    @classmethod
    def of(cls, trace: Trace, selection: Selection, kind: str) -> Chosen:
        """The calls or the flushes selected: by their START; one whose START was not seen is in no span of time."""
        tables = trace.tables
        episodes = tables.episodes
        wanted = arrow.equals(episodes["kind"], kind)
        if selection:
            start = arrow.values(episodes["start_ns"], null=int(NULL))
            wanted &= selection.starts(arrow.values(episodes["initiator"]), start)
        complete = wanted & arrow.values(episodes["complete"])
        of_complete = complete[arrow.values(tables.deliveries["episode"]).astype(np.int64)]
        return cls(tables, int(wanted.sum()), np.flatnonzero(complete), np.flatnonzero(of_complete))

    def episode(self, column: str) -> NDArray[Any]:
        """A column of the complete episodes that has no nulls there."""
        return arrow.values(self.tables.episodes[column])[self.complete]

    def delivery(self, column: str) -> NDArray[Any]:
        """A column of their deliveries; NULL where it is null."""
        return arrow.values(self.tables.deliveries[column], null=int(NULL))[self.targets]

    def rows(self, places: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Some of the complete episodes, whole."""
        return [self.tables.episodes.slice(row, 1).to_pylist()[0] for row in self.complete[places].tolist()]


def _kind(chosen: Chosen, fairness: dict[str, Any]) -> dict[str, Any]:
    return {
        "count": chosen.count,
        "complete": len(chosen.complete),
        "overlapping": int(chosen.tables.overlaps[chosen.complete].sum()),
        "targets": len(chosen.targets),
        "total_ns": distribution(chosen.episode("total_ns")),
        "lock_wait_ns": distribution(chosen.episode("lock_wait_ns")),
        "delivery_ns": distribution(chosen.delivery("delivery_ns")),
        "execution_ns": distribution(chosen.delivery("execution_ns")),
        "fairness": {"initiators": by_initiator(chosen)} | fairness,
    }


def by_initiator(chosen: Chosen) -> list[dict[str, Any]]:
    """What each initiating CPU paid, busiest first."""
    total = chosen.episode("total_ns")
    rows = [
        {"cpu": cpu, "count": len(mine), "sum_ns": int(total[mine].sum())} | distribution(total[mine])
        for cpu, mine in rows_by(chosen.episode("initiator"))
    ]
    return sorted(rows, key=lambda row: (-row["sum_ns"], row["cpu"]))


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What `xtrace analyze` shows of one kind of episode beyond the JSON contract. Times in ns.

    phases     by phase: mean, p50, p90, p99, max
    histogram  (lower bound of a power of two in ns, episodes) of total time, without gaps
    functions  by function (calls) or flags (flushes), most expensive first: name, count, targets (mean), sum_ns, and
               the distribution of total time
    grid       (CPUs in the mask, episodes in flight at the start) → (episodes, mean total)
    worst      the episodes with the largest total
    """

    phases: dict[str, dict[str, float | None]]
    histogram: list[tuple[int, int]]
    functions: list[dict[str, Any]]
    grid: dict[tuple[int, int], tuple[int, float]]
    worst: list[dict[str, Any]]


WORST = 8


def breakdown(chosen: Chosen, kind: str) -> Breakdown:
    """The breakdown of complete episodes of one kind, of which there is at least one."""
    total, targets = chosen.episode("total_ns"), chosen.episode("n_targets")
    ends = np.cumsum(targets.astype(np.int64))
    last_exit = np.maximum.reduceat(chosen.delivery("exit_ns"), ends - targets)
    # Of a complete flush the call that carries it may be damaged, and it is the call that queues.
    queue = chosen.delivery("queue_ns")
    phases = {
        "lock wait": distribution(chosen.episode("lock_wait_ns")),
        "delivery": distribution(chosen.delivery("delivery_ns")),
        "of it queueing": distribution(queue[queue != NULL]),
        "execution": distribution(chosen.delivery("execution_ns")),
        "completion": distribution(chosen.episode("done_ns") - last_exit),
        "total": distribution(total),
    }
    names, code = works(chosen.tables.episodes, chosen.complete, kind)
    functions = [
        {"name": names[place], "count": len(mine), "targets": float(targets[mine].mean())}
        | {"sum_ns": int(total[mine].sum())}
        | distribution(total[mine])
        for place, mine in rows_by(code)
    ]
    cell = targets.astype(np.int64) << 32 | chosen.episode("inflight")
    worst = np.argsort(-total, kind="stable")[:WORST]
    return Breakdown(
        phases=phases,
        histogram=log2_histogram(total),
        functions=sorted(functions, key=lambda row: -row["sum_ns"]),
        grid={(one >> 32, one & 0xFFFFFFFF): (len(mine), float(total[mine].mean())) for one, mine in rows_by(cell)},
        worst=[row | {"what": names[code[at]]} for row, at in zip(chosen.rows(worst), worst.tolist(), strict=True)],
    )


def log2_histogram(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(2^k, how many values are in [2^k, 2^(k+1))) from the smallest to the largest; values below 1 count as 1."""
    if not len(values):
        return []
    power = np.frexp(np.maximum(values, 1).astype(np.float64))[1] - 1
    low = int(power.min())
    return [(1 << low + step, count) for step, count in enumerate(np.bincount(power - low).tolist())]


def measured(trace: Trace) -> dict[str, Any]:
    """How much was read, how sure its times are, and what of it is missing."""
    survey, clock = trace.survey, trace.clock
    return {
        "path": survey.name,
        "bytes": survey.total_bytes,
        "records": survey.total_records,
        "skipped_bytes": survey.skipped_bytes,
        "lost_records": sum(trace.lost_by_cpu.values()),
        "cpus": sorted(survey.cpus),
        "duration_ns": trace.duration_ns,
        "cpu_hz": clock.hz,
        "cpu_hz_source": clock.source,
    }


def container(trace: Trace) -> dict[str, Any]:
    """The JSON document `xtrace.info/1`: what `xtrace info` prints (docs/tables.md)."""
    survey, lost_by_cpu = trace.survey, trace.lost_by_cpu
    return {
        "schema": "xtrace.info/1",
        "trace": measured(trace),
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

"""The worst episodes, CPU by CPU: the phases on the initiator and its targets, and what those CPUs did meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from xtrace.context import vcpu_name
from xtrace.episodes.tables import to_pandas
from xtrace.parsers.event import class_of
from xtrace.selection import Selection

if TYPE_CHECKING:
    from xtrace.trace import Trace

MAX_CPUS: Final = 12
MAX_SPANS: Final = 60
MAX_MARKS: Final = 200
MARGIN: Final = 0.04


@dataclass(frozen=True, slots=True)
class Span:
    """What a CPU did from one time to another, ns since the trace began."""

    what: str
    begin_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class CpuLane:
    """One CPU.

    label     its number, what it is here, and what the interrupt hit
    spans     phases of the episode, other functions that it ran, other requests of its own
    marks_ns  records that it wrote besides those of calls and flushes
    """

    cpu: int
    label: str
    spans: tuple[Span, ...]
    marks_ns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Swimlane:
    """One episode from a little before its START to a little after its DONE; left_out: targets without a lane."""

    episode: int
    kind: str
    initiator: int
    total_ns: int
    from_ns: int
    to_ns: int
    cpus: tuple[CpuLane, ...]
    left_out: int


Row = Mapping[Any, Any]
"""A row of a table, by column."""


def swimlanes(episodes: pd.DataFrame, deliveries: pd.DataFrame, numbers: Sequence[int]) -> list[Swimlane]:
    """Lanes of these complete episodes, from the tables of a trace."""
    chosen = episodes[episodes["episode"].isin(numbers)].to_dict("records")
    by_number = {int(row["episode"]): row for row in chosen}
    return [_lanes(episodes, deliveries, by_number[number]) for number in numbers]


def worst(episodes: pd.DataFrame, count: int) -> list[int]:
    """The numbers of the complete calls and flushes that took longest, so many of each, those of most cost first.

    Of a flush and the call that carries it, the flush.
    """
    rows = episodes[episodes["complete"] & episodes["parent"].isna()]
    found = []
    for _, mine in rows.groupby("kind", observed=True):
        total = mine["total_ns"].to_numpy(np.int64)
        order = np.argsort(-total, kind="stable")[:count]
        found.append((int(total.sum()), [int(number) for number in mine["episode"].to_numpy()[order]]))
    return [number for _, numbers in sorted(found, reverse=True) for number in numbers]


def marked(trace: Trace, lanes: Sequence[Swimlane]) -> list[Swimlane]:
    """The same lanes with the times of other records on their CPUs; one more pass over the trace, if it has any."""
    from dataclasses import replace

    from xtrace.episodes.exact import SMP_HEADERS

    others = {class_of(header & 0x0FFFFFFF) for header in set(trace.survey.counts) - SMP_HEADERS}
    if not lanes or others <= {"GEN"}:
        return list(lanes)
    cpus = frozenset(cpu.cpu for lane in lanes for cpu in lane.cpus)
    span = Selection(cpus, min(lane.from_ns for lane in lanes), max(lane.to_ns for lane in lanes) + 1)
    smp = np.array(sorted(SMP_HEADERS), np.uint32)
    found_cpu, found_ns = [], []
    for batch, selected in trace.batches(span):
        rows = selected[~np.isin(batch.header[selected], smp)]
        ns = trace.clock.to_ns(batch.tsc[rows])
        near = np.zeros(len(rows), np.bool_)
        for lane in lanes:
            near |= (ns >= lane.from_ns) & (ns <= lane.to_ns)
        found_cpu.append(trace.cpu_of(batch)[rows][near])
        found_ns.append(ns[near])
    cpu, ns = np.concatenate(found_cpu), np.concatenate(found_ns)

    def times(lane: Swimlane, number: int) -> tuple[int, ...]:
        mine = np.unique(ns[(cpu == number) & (ns >= lane.from_ns) & (ns <= lane.to_ns)])
        # More would be one black bar, and a large page.
        return tuple(mine[:: max(1, -(-len(mine) // MAX_MARKS))].tolist())

    return [
        replace(lane, cpus=tuple(replace(one, marks_ns=times(lane, one.cpu)) for one in lane.cpus)) for lane in lanes
    ]


def _lanes(episodes: pd.DataFrame, deliveries: pd.DataFrame, one: Row) -> Swimlane:
    number, initiator = int(one["episode"]), int(one["initiator"])
    start, done = int(one["start_ns"]), int(one["done_ns"])
    margin = max(1, int((done - start) * MARGIN))
    begin, end = max(0, start - margin), done + margin
    carriers = episodes.loc[episodes["parent"] == number, "episode"]
    mine = deliveries[deliveries["episode"] == number].sort_values("exit_ns", ascending=False, kind="stable")
    # Those that were waited for longest are the ones to see; the initiator has its lane in any case.
    shown = [int(cpu) for cpu in mine["cpu"] if int(cpu) != initiator][: MAX_CPUS - 1]
    theirs = ~deliveries["episode"].isin([number, *carriers])
    others = deliveries[theirs & (deliveries["exit_ns"] > begin) & (deliveries["enter_ns"] < end)]
    requests = episodes[(episodes["done_ns"] > begin) & (episodes["start_ns"] < end) & episodes["parent"].isna()]
    requests = requests[requests["episode"] != number]
    targets = {int(row["cpu"]): row for row in mine.to_dict("records")}
    lanes = []
    for cpu in (initiator, *sorted(shown)):
        spans = list(_own(one, targets, cpu))
        meanwhile = [
            *_spans("other function", others.loc[others["cpu"] == cpu, ["enter_ns", "exit_ns"]], begin, end),
            *_spans("own request", requests.loc[requests["initiator"] == cpu, ["start_ns", "done_ns"]], begin, end),
        ]
        lanes.append(CpuLane(cpu, _label(one, targets, cpu), tuple((spans + meanwhile)[:MAX_SPANS])))
    left_out = len(set(mine["cpu"].tolist()) - {initiator}) - len(shown)
    return Swimlane(number, str(one["kind"]), initiator, done - start, begin, end, tuple(lanes), left_out)


def _own(one: Row, targets: Mapping[int, Row], cpu: int) -> Iterator[Span]:
    """The episode itself on this CPU."""
    start, send, done = (int(one[name]) for name in ("start_ns", "send_ns", "done_ns"))
    if cpu == int(one["initiator"]):
        yield Span("lock wait", start, send)
        last = max(int(target["exit_ns"]) for target in targets.values())
        yield Span("sent", send, min(last, done))
        yield Span("completion", min(last, done), done)
    if cpu in targets:
        enter, leave = (int(targets[cpu][name]) for name in ("enter_ns", "exit_ns"))
        if cpu != int(one["initiator"]):
            yield Span("delivery", min(send, enter), enter)
        yield Span("execution", enter, leave)


def _spans(what: str, rows: pd.DataFrame, begin: int, end: int) -> Iterator[Span]:
    for first, last in rows.itertuples(index=False):
        yield Span(what, max(int(first), begin), min(int(last), end))


def _label(one: Row, targets: Mapping[int, Row], cpu: int) -> str:
    mine = cpu == int(one["initiator"])
    place = one if mine else targets[cpu]
    what = "initiator" if mine else str(place["state"])
    parts = [f"CPU {cpu}"] + ([what] if what != "unknown" else [])
    domain = place["domain"]
    # What is missing in a row taken out of a frame is sometimes one, sometimes the other.
    if domain is not None and domain is not pd.NA:
        parts.append(vcpu_name(int(domain), int(place["vcpu"])))
    return ", ".join(dict.fromkeys(parts))


EPISODE_COLUMNS: Final = (
    "episode",
    "kind",
    "initiator",
    "start_ns",
    "send_ns",
    "done_ns",
    "total_ns",
    "parent",
    "domain",
    "vcpu",
    "complete",
)
DELIVERY_COLUMNS: Final = ("episode", "cpu", "enter_ns", "exit_ns", "domain", "vcpu", "state")


def worst_of(trace: Trace, selection: Selection, count: int) -> list[Swimlane]:
    """The selected episodes of a trace that took longest, so many of each kind; with what their CPUs wrote."""
    episodes = to_pandas(trace.tables.episodes.select(EPISODE_COLUMNS))
    deliveries = to_pandas(trace.tables.deliveries.select(DELIVERY_COLUMNS))
    started = episodes[episodes["start_ns"].notna()]
    chosen = started[selection.starts(started["initiator"].to_numpy(), started["start_ns"].to_numpy(np.int64))]
    return marked(trace, swimlanes(episodes, deliveries, worst(chosen, count)))

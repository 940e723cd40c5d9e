"""Steps of both kinds → the two tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xtrace import arrow
from xtrace.clock import Clock
from xtrace.context import NOBODY, has_runstates
from xtrace.episodes import relations
from xtrace.episodes.exact import CALL, FLUSH, Index, Steps, in_time, steps
from xtrace.episodes.hits import CALL_FUNCTION_VECTOR, INVALIDATE_TLB_VECTOR
from xtrace.episodes.relations import STATES, Model, Situation
from xtrace.episodes.tables import DELIVERIES, EPISODES, NULL, arrow_table, dictionary
from xtrace.parsers.container import MAX_CPU
from xtrace.states import TRACK_BITS
from xtrace.survey import Survey
from xtrace.symbols import Symbols, function_names

if TYPE_CHECKING:
    from xtrace.episodes.inferred import Inferred

KIND_NAMES: Final = ("call", "flush")
EVIDENCE: Final = ("exact",)
KIND_NOUNS: Final = {"call": "calls", "flush": "flushes"}


@dataclass(frozen=True, slots=True)
class EpisodeTables:
    """The tables of a trace and what they rest on.

    episodes, deliveries  Arrow tables of schemas EPISODES and DELIVERIES
    model                 the hypervisor's way of calling, as recognised from the trace
    evidence              "exact"; without the tracepoints "inferred" where interrupts show, else "none"
    overlaps              bool, by row of `episodes`: complete, and in flight (SEND…DONE) together with another
                          complete one of its kind
    strays                records that name no possible initiator
    inferred              the tables where evidence is "inferred": then `episodes` and `deliveries` are empty, so that
                          no question takes what is inferred for what was traced
    """

    episodes: pa.Table
    deliveries: pa.Table
    model: Model
    evidence: str
    overlaps: NDArray[np.bool_]
    strays: int
    inferred: Inferred | None = None


def assemble(found: Survey, clock: Clock, symbols: Symbols | None = None) -> EpisodeTables:
    """Build both tables from a survey that kept the SMP, context and mode records."""
    calls, flushes = steps(found, CALL), steps(found, FLUSH)
    carried = relations.parents(calls, flushes)
    model = relations.recognise(calls, flushes, carried)
    there = relations.situation(found.states, by_runstate=has_runstates(found.counts))
    queues = relations.waiting_behind_others((calls, flushes), carried)

    groups = (calls, flushes)
    kind = np.repeat(np.arange(2, dtype=np.int8), [len(one.start) for one in groups])
    first_seen = np.concatenate([one.first_seen for one in groups])
    order = in_time(np.concatenate([one.track >> TRACK_BITS for one in groups]), first_seen)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    numbers = (number[: len(calls.start)], number[len(calls.start) :])

    rows = _episode_columns(groups, clock, there, model)
    rows["kind"] = kind
    rows["parent"] = np.concatenate(
        (
            np.where(carried < 0, NULL, numbers[1].take(carried, mode="wrap") if len(flushes.start) else NULL),
            np.full(len(flushes.start), NULL),
        )
    )
    rows = {name: values[order] for name, values in rows.items()}
    targets = _delivery_columns(groups, queues, numbers, clock, there)
    rows["episode"] = np.arange(len(order), dtype=np.uint64)
    asked = targets.pop("asked")
    rows["targets"] = _target_lists(rows["n_targets"], targets["cpu"][asked])
    func = np.ma.masked_array(rows["func"], rows.pop("func_missing"))
    rows["func_name"] = function_column(func, symbols)
    rows["func"] = func
    for name in ("wait", "flush_flags", "va"):
        rows[name] = np.ma.masked_array(rows[name], rows.pop(f"{name}_missing"))
    rows["kind"] = dictionary(rows["kind"], KIND_NAMES)
    rows["evidence"] = dictionary(np.zeros(len(order), np.int8), EVIDENCE)
    rows["confidence"] = np.ones(len(order))
    targets["state"] = dictionary(targets["state"], STATES)
    return EpisodeTables(
        episodes=arrow_table(EPISODES, rows),
        deliveries=arrow_table(DELIVERIES, targets),
        model=model,
        evidence="exact" if len(order) else "none",
        overlaps=np.concatenate([relations.overlapping(one) for one in groups])[order],
        strays=calls.strays + flushes.strays,
    )


def _ns(clock: Clock, cycles: NDArray[np.uint64]) -> Index:
    """Times in ns, NULL where the cycle count is 0 (not seen)."""
    return np.where(cycles == 0, NULL, clock.to_ns(cycles))


def _minus(later: Index, earlier: Index) -> Index:
    return np.where((later == NULL) | (earlier == NULL), NULL, later - earlier)


def _episode_columns(
    groups: tuple[Steps, Steps], clock: Clock, there: Situation, model: Model
) -> dict[str, NDArray[Any]]:
    def both(per_kind: list[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(per_kind)

    calls, flushes = groups
    start, send, done = (both([_ns(clock, getattr(one, step)) for one in groups]) for step in ("start", "send", "done"))
    track = both([one.track for one in groups])
    initiator = there.at(both([one.subject for one in groups]))
    vectors = {"unknown": NULL, "legacy": INVALIDATE_TLB_VECTOR, "lockless": CALL_FUNCTION_VECTOR}
    call_vector = CALL_FUNCTION_VECTOR if model != "unknown" else NULL
    unseen = [one.start == 0 for one in groups]
    no_call, no_flush = np.ones(len(calls.start), np.bool_), np.ones(len(flushes.start), np.bool_)
    return {
        "initiator": (track & (MAX_CPU | 1)).astype(np.uint16),
        "seq": both([one.seq for one in groups]),
        "start_ns": start,
        "send_ns": send,
        "done_ns": done,
        "lock_wait_ns": _minus(send, start),
        "total_ns": _minus(done, start),
        "n_targets": both([np.where(one.n_targets < 0, NULL, one.n_targets) for one in groups]),
        "func": both([calls.fields["func"], np.zeros(len(flushes.start), np.uint64)]),
        "func_missing": both([unseen[0], no_flush]),
        "wait": both([calls.fields["wait"] != 0, ~no_flush]),
        "wait_missing": both([unseen[0], no_flush]),
        "flush_flags": both([np.zeros(len(calls.start), np.uint32), flushes.fields["flush_flags"]]),
        "flush_flags_missing": both([no_call, unseen[1]]),
        "va": both([np.zeros(len(calls.start), np.uint64), flushes.fields["va"]]),
        "va_missing": both([no_call, unseen[1]]),
        "inflight": both([relations.inflight(one) for one in groups]),
        "straggler": both([relations.stragglers(one) for one in groups]),
        "domain": np.where(initiator.domain == NOBODY, NULL, initiator.domain),
        "vcpu": np.where(initiator.domain == NOBODY, NULL, initiator.vcpu),
        "complete": both([one.complete for one in groups]),
        "vector": both([np.full(len(calls.start), call_vector), np.full(len(flushes.start), vectors[model])]),
    }


def _delivery_columns(
    groups: tuple[Steps, Steps],
    queues: tuple[Index, ...],
    numbers: tuple[Index, Index],
    clock: Clock,
    there: Situation,
) -> dict[str, NDArray[Any]]:
    parts = []
    for one, queue, number in zip(groups, queues, numbers, strict=True):
        send, enter, left = (_ns(clock, time) for time in (one.send[one.episode], one.enter, one.exit))
        target = there.at(one.target_subject)
        absent = target.domain == NOBODY
        spinning = relations.calling(groups, one.target_track, one.enter)
        parts.append(
            {
                "episode": number[one.episode].astype(np.uint64),
                "cpu": one.cpu,
                "enter_ns": enter,
                "exit_ns": left,
                "delivery_ns": _minus(enter, send),
                "execution_ns": _minus(left, enter),
                "queue_ns": np.where(queue == NULL, NULL, clock.span_ns(np.where(queue == NULL, 0, queue))),
                "domain": np.where(absent, NULL, target.domain),
                "vcpu": np.where(absent, NULL, target.vcpu),
                "state": np.where(spinning, np.int8(STATES.index("hypervisor")), target.state),
                "asked": one.asked,
            }
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # Those of each kind are in order, by CPU within an episode.
    order = np.argsort(columns["episode"], kind="stable")
    return {name: values[order] for name, values in columns.items()}


def _target_lists(n_targets: NDArray[Any], cpus: NDArray[Any]) -> pa.ListArray:
    unknown = n_targets == NULL
    lengths = np.where(unknown, 0, n_targets).astype(np.int64)
    return arrow.lists(lengths, arrow.array(cpus, pa.uint16()), unknown)


def function_column(func: Any, symbols: Symbols | None) -> pa.Array:
    """Names of functions (a masked array of uint64), null where the address is, or where no map names it."""
    missing = np.ma.getmaskarray(func)
    distinct, inverse = np.unique(func.data, return_inverse=True)
    names: list[str | None] = list(function_names(distinct, symbols))
    if symbols is None:
        names = [None if one else name for one, name in zip(distinct.tolist(), names, strict=True)]
    return arrow.strings([*names, None], np.where(missing, len(names), inverse))

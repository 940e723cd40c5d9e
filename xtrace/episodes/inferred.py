"""Episodes of a trace without the tracepoints, from the interrupts that its targets show (docs/inference.md).

Only the legacy hypervisor is thought of: one call and one flush in flight at a time, each with a vector of its own;
where interrupts overlap as they cannot there, confidence is lower (`overlaps`). A target that runs a PV guest or
hypervisor code leaves no record, so the targets are those seen: a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xtrace import arrow
from xtrace.clock import NS_PER_S
from xtrace.context import NOBODY
from xtrace.episodes.clusters import Clusters, clusters
from xtrace.episodes.confidence import chance_of_episodes, chance_of_initiators
from xtrace.episodes.guesses import GUESSES, guesses
from xtrace.episodes.hits import INTERRUPTED, INVALIDATE_TLB_VECTOR, HitFinder, Hits
from xtrace.episodes.merging import merged
from xtrace.episodes.overlaps import overlapping
from xtrace.episodes.suspects import SuspectFinder, Suspects
from xtrace.episodes.tables import DELIVERIES, EPISODES, NULL, arrow_table, column, dictionary
from xtrace.states import TRACK_BITS, cpu_of

if TYPE_CHECKING:
    from xtrace.clock import Clock
    from xtrace.episodes.assemble import EpisodeTables
    from xtrace.episodes.relations import Model
    from xtrace.parsers.event import Event
    from xtrace.trace import Trace

EVIDENCE: Final = ("inferred",)
_NOT_TOLD: Final = frozenset({"initiator", "seq"})

INFERRED_EPISODES: Final = pa.schema(
    [
        *(one.with_nullable(True) if one.name in _NOT_TOLD else one for one in EPISODES),
        column("guess", pa.dictionary(pa.int8(), pa.string()), "what it was: flush, call, kick or calibration"),
        column("initiator_confidence", pa.float64(), "0 to 1; null where no CPU may be the initiator", nullable=True),
        column("preceded_by", pa.string(), "the initiator's last record before its silence", nullable=True),
        column("first_ns", pa.int64(), "earliest record of a target: SEND came before", nullable=True),
        column("last_ns", pa.int64(), "latest record of a target", nullable=True),
    ]
)
"""The table of episodes where they are inferred: what is not known is null, and five columns come behind.

Their times are never null; in a dataset they are where episodes were traced.
"""

INFERRED_DELIVERIES: Final = pa.schema(
    [
        *DELIVERIES,
        column(
            "taken_ns",
            pa.int64(),
            "record that names the interrupt; of a target in a guest ENTER came after",
            nullable=True,
        ),
        column(
            "resumed_ns", pa.int64(), "the CPU's next record; of a target in a guest EXIT came before", nullable=True
        ),
    ]
)

STATES: Final = ("guest", "idle")
FALLBACK_NS: Final = 2_000
"""How long a target takes, where none that was in a guest tells."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """Arrow tables of schemas INFERRED_EPISODES and INFERRED_DELIVERIES, and the model that the vectors tell."""

    episodes: pa.Table
    deliveries: pa.Table
    model: Model


def can_infer(counts: Any) -> bool:
    """Whether a trace with these records by header word shows vectors of interrupts: whether its CPUs are Intel's."""
    return bool(counts.get(INTERRUPTED))


def infer(trace: Trace) -> Inferred | None:
    """The episodes of a trace without the tracepoints; None where none shows. Takes two passes over the trace."""
    found = gather(trace)
    return None if found is None else tables(found, trace.clock, trace.event_of)


def with_inferred(traced: EpisodeTables, trace: Trace) -> EpisodeTables:
    """The tables of a trace without the tracepoints, with what can be inferred."""
    found = infer(trace)
    return traced if found is None else replace(traced, model=found.model, evidence="inferred", inferred=found)


class Gathered(NamedTuple):
    """What a trace shows: interrupts, the episodes that they make, and who may have begun each."""

    hits: Hits
    clusters: Clusters
    suspects: Suspects


def gather(trace: Trace) -> Gathered | None:
    """Go over the trace twice; None where no interrupt of a call or flush shows."""
    zero = trace.survey.zero_tsc
    finder = HitFinder(zero)
    for batch, _ in trace.batches():
        finder.add(batch)
    hits = finder.hits()
    if not len(hits.taken):
        return None
    found = clusters(hits, FALLBACK_NS * trace.clock.hz / NS_PER_S)
    begin, end = hits.taken[found.first], hits.taken[found.last]
    seeker = SuspectFinder(
        zero, captures(hits, found), begin, end, hits.idle[found.last], quickest(hits, found), trace.event_of
    )
    for batch, _ in trace.batches():
        seeker.add(batch)
    return Gathered(hits, *merged(hits, found, seeker.suspects()))


def quickest(hits: Hits, found: Clusters) -> NDArray[np.float64]:
    """Cycles from the record of an interrupt to the CPU's next record, at the quickest target of each episode."""
    known = np.where(hits.after >= 0, np.maximum(hits.after - hits.taken, 1), np.iinfo(np.int64).max)
    least = np.minimum.reduceat(known, found.first).astype(np.float64)
    return np.minimum(least, found.scale)


def captures(hits: Hits, found: Clusters) -> NDArray[np.int64]:
    """The capture that each episode is in."""
    return hits.track[found.first].astype(np.int64) >> TRACK_BITS


def tables(gathered: Gathered, clock: Clock, event_of: Callable[[int], Event]) -> Inferred:
    """Both tables, episodes in order of their first hit."""
    hits, found, suspects = gathered
    order = np.lexsort((found.first, hits.taken[found.first], captures(hits, found)))
    vector = hits.vector[found.first]
    n_targets = found.last - found.first + 1
    # By hit: the row of its episode.
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    episode = np.repeat(number, n_targets)
    by_episode = np.lexsort((hits.track, episode))
    guess = guesses(hits, found, suspects, clock)
    missing = np.full(len(order), NULL)
    known = suspects.track[order] >= 0
    headers, name = np.unique(suspects.header[order], return_inverse=True)
    names = [event_of(one).name if one else None for one in headers.tolist()]
    chance = chance_of_initiators(suspects)[order]
    rows: dict[str, Any] = dict.fromkeys(EPISODES.names, missing)
    rows |= {
        "episode": np.arange(len(order), dtype=np.uint64),
        "kind": dictionary((vector[order] == INVALIDATE_TLB_VECTOR).astype(np.int8), ("call", "flush")),
        "initiator": np.where(known, cpu_of(suspects.track[order].astype(np.int64)), NULL),
        "n_targets": n_targets[order],
        "targets": arrow.lists(
            n_targets[order], arrow.array(cpu_of(hits.track[by_episode]), pa.uint16()), np.zeros(len(order), np.bool_)
        ),
        "func_name": arrow.strings([None], np.zeros(len(order), np.int64)),
        "domain": _or_null(suspects.domain[order]),
        "vcpu": np.where(suspects.domain[order] == NOBODY, NULL, suspects.vcpu[order]),
        "evidence": dictionary(np.zeros(len(order), np.int8), EVIDENCE),
        "confidence": (chance_of_episodes(hits, found) * _one_and_not_several(hits, found))[order],
        "complete": np.zeros(len(order), np.bool_),
        "vector": vector[order].astype(np.int64),
        "guess": dictionary(guess[order], GUESSES),
        "initiator_confidence": np.ma.masked_array(chance, ~known),
        "preceded_by": arrow.strings(names, name),
        "first_ns": clock.span_ns(hits.taken[found.first])[order],
        "last_ns": clock.span_ns(hits.taken[found.last])[order],
    }
    return Inferred(
        arrow_table(INFERRED_EPISODES, rows),
        arrow_table(INFERRED_DELIVERIES, _deliveries(hits.take(by_episode), episode[by_episode], clock)),
        "legacy" if (vector == INVALIDATE_TLB_VECTOR).any() else "unknown",
    )


def _one_and_not_several(hits: Hits, found: Clusters) -> NDArray[np.float64]:
    """Chance of each that it is not made of several that overlap, as none do under a lock."""
    suspect = (found.last > found.first) & ~np.maximum.reduceat(hits.idle, found.first)
    spread = (hits.taken[found.last] - hits.taken[found.first])[suspect].astype(np.float64)
    chance = np.ones(len(found.first))
    chance[suspect] -= overlapping(spread, found.scale[suspect])
    return chance


def _deliveries(hits: Hits, episode: NDArray[np.int64], clock: Clock) -> dict[str, Any]:
    missing = np.full(len(episode), NULL)
    rows: dict[str, Any] = dict.fromkeys(DELIVERIES.names, missing)
    return rows | {
        "episode": episode.astype(np.uint64),
        "cpu": cpu_of(hits.track),
        "domain": _or_null(hits.domain),
        "vcpu": np.where(hits.domain == NOBODY, NULL, hits.vcpu),
        "state": dictionary(hits.idle.astype(np.int8), STATES),
        "taken_ns": clock.span_ns(hits.taken),
        "resumed_ns": np.where(hits.after < 0, NULL, clock.span_ns(np.maximum(hits.after, 0))),
    }


def _or_null(values: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.where(values == NOBODY, NULL, values)

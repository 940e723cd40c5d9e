"""What was inferred of a trace without the tracepoints: how many, how often, of whom, by whom, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xtrace import arrow
from xtrace.episodes.guesses import GUESSES
from xtrace.episodes.hits import VECTORS
from xtrace.episodes.overlaps import overlapping
from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.host.counts import rate
from xtrace.selection import Selection

if TYPE_CHECKING:
    from xtrace.trace import Trace

KINDS = {0xFB: "call", 0xFD: "flush"}
NO_CPU = 0xFFFF
"""Stands for an initiator that is not known; no CPU has this number (MAX_CPU)."""


@dataclass(frozen=True, slots=True)
class Guessed:
    """Episodes that are taken for the same kind of work.

    guess       calibration, kick, call or flush
    kind        call or flush; vector  the interrupt
    count       how many; expected: the sum of their confidences, of which about so many are right
    per_s       count over the time selected, None where that is no time
    confidence  mean
    targets     CPUs seen to take one, mean; most: at most
    initiators  episodes that have a likely initiator
    handled_ns  median time from a target's record to the next one of its CPU, those in guests only: the handler took
                less; None where no target tells
    """

    guess: str
    kind: str
    vector: int
    count: int
    expected: float
    per_s: float | None
    confidence: float
    targets: float
    most: int
    initiators: int
    handled_ns: float | None


@dataclass(frozen=True, slots=True)
class LikelyInitiator:
    """A CPU as the likely initiator. cpu: None where no CPU may have been it.

    count                 episodes; per_s: over the time selected
    confidence            mean, of these episodes
    initiator_confidence  mean, that it was this CPU; None where cpu is
    preceded_by           the most frequent last record before it fell silent
    """

    kind: str
    cpu: int | None
    count: int
    per_s: float | None
    confidence: float
    initiator_confidence: float | None
    preceded_by: str | None


@dataclass(frozen=True, slots=True)
class InterruptedCpu:
    """A CPU as a target.

    count       episodes that it is a target of, idle: those that woke it up
    confidence  mean, of these episodes
    handled_ns  as in Guessed
    """

    kind: str
    cpu: int
    count: int
    idle: int
    per_s: float | None
    confidence: float
    handled_ns: float | None


@dataclass(frozen=True, slots=True)
class Inference:
    """What was inferred, most frequent first.

    span_ns      the time selected
    overlapping  share of the episodes of several targets that are probably more than one each, in all the trace; 0
                 where one lock a vector explains what shows
    """

    span_ns: int
    overlapping: float
    guesses: tuple[Guessed, ...]
    initiators: tuple[LikelyInitiator, ...]
    targets: tuple[InterruptedCpu, ...]

    def of_kind(self, kind: str) -> dict[str, Any]:
        """What the JSON document says of calls or of flushes; null is what only the tracepoints tell."""
        unknown = dict.fromkeys(("mean", "p50", "p90", "p99", "max"))
        return {
            "count": sum(one.count for one in self.guesses if one.kind == kind),
            "complete": 0,
            "overlapping": None,
            "targets": sum(one.count for one in self.targets if one.kind == kind),
            **{name: dict(unknown) for name in ("total_ns", "lock_wait_ns", "delivery_ns", "execution_ns")},
            "fairness": None,
        }


def inference(trace: Trace, selection: Selection, span_ns: int) -> Inference | None:
    """What the tables of inferred episodes come to; None of a trace that has none.

    selection: by likely initiator, and by the record of the first target.
    """
    inferred = trace.tables.inferred
    if inferred is None:
        return None
    some = _Some(inferred.episodes, inferred.deliveries, selection, span_ns)
    share = _overlapping(inferred.episodes, inferred.deliveries)
    return Inference(span_ns, share, tuple(some.guessed()), tuple(some.initiators()), tuple(some.targets()))


def _overlapping(episodes: pa.Table, deliveries: pa.Table) -> float:
    """As `overlaps.overlapping`, from the tables."""
    of = arrow.values(deliveries["episode"]).astype(np.int64)
    idle = np.bincount(of, arrow.equals(deliveries["state"], "idle"), episodes.num_rows) > 0
    resumed = arrow.values(deliveries["resumed_ns"], null=int(NULL))
    handled = resumed - arrow.values(deliveries["taken_ns"])
    vector = arrow.values(episodes["vector"])
    known = (resumed != NULL) & ~arrow.equals(deliveries["state"], "idle")
    scale = np.full(episodes.num_rows, np.inf)
    for one in VECTORS:
        if (mine := handled[known & (vector[of] == one)]).size:
            scale[vector == one] = np.median(mine)
    spread = (arrow.values(episodes["last_ns"]) - arrow.values(episodes["first_ns"])).astype(np.float64)
    suspect = (arrow.values(episodes["n_targets"]) > 1) & ~idle
    return overlapping(spread[suspect], scale[suspect])


class _Some:
    """Some inferred episodes as arrays, and their targets."""

    def __init__(self, episodes: pa.Table, deliveries: pa.Table, selection: Selection, span_ns: int) -> None:
        cpu = arrow.values(episodes["initiator"], null=NO_CPU)
        chosen = selection.starts(cpu, arrow.values(episodes["first_ns"]))
        self._rows = np.flatnonzero(chosen)
        self._span_ns = span_ns
        self._cpu = cpu[chosen]
        self._vector = arrow.values(episodes["vector"])[chosen]
        self._confidence = arrow.values(episodes["confidence"])[chosen]
        self._by = arrow.values(episodes["initiator_confidence"])[chosen]
        self._n_targets = arrow.values(episodes["n_targets"])[chosen].astype(np.int64)
        guess = np.select([arrow.equals(episodes["guess"], one) for one in GUESSES], range(len(GUESSES)))
        self._guess = guess[chosen]
        self._preceded = episodes["preceded_by"].take(pa.array(self._rows))
        of = arrow.values(deliveries["episode"]).astype(np.int64)
        mine = chosen[of]
        place = np.cumsum(chosen) - 1
        self._of = place[of[mine]]
        self._target = arrow.values(deliveries["cpu"])[mine]
        self._idle = arrow.equals(deliveries["state"], "idle")[mine]
        resumed = arrow.values(deliveries["resumed_ns"], null=int(NULL))[mine]
        taken = arrow.values(deliveries["taken_ns"])[mine]
        self._handled = np.where((resumed == NULL) | self._idle, NULL, resumed - taken)

    def _per_s(self, count: int) -> float | None:
        return rate(count, self._span_ns)

    def _handled_ns(self, targets: NDArray[Any]) -> float | None:
        known = self._handled[targets]
        known = known[known != NULL]
        return float(np.median(known)) if len(known) else None

    def guessed(self) -> Iterator[Guessed]:
        """By guess, most frequent first."""
        found = list(rows_by(self._guess))
        for guess, rows in sorted(found, key=lambda one: -len(one[1])):
            vector = int(self._vector[rows[0]])
            targets = self._n_targets[rows]
            yield Guessed(
                GUESSES[guess],
                KINDS[vector],
                vector,
                len(rows),
                float(self._confidence[rows].sum()),
                self._per_s(len(rows)),
                float(self._confidence[rows].mean()),
                float(targets.mean()),
                int(targets.max()),
                int((self._cpu[rows] != NO_CPU).sum()),
                self._handled_ns(self._guess[self._of] == guess),
            )

    def initiators(self) -> Iterator[LikelyInitiator]:
        """By kind and likely initiator, most frequent first."""
        found = [(vector, cpu, rows) for vector in VECTORS for cpu, rows in self._by_kind(vector, self._cpu)]
        for vector, cpu, rows in sorted(found, key=lambda one: -len(one[2])):
            known = cpu != NO_CPU
            names = self._preceded.take(pa.array(rows)).value_counts().to_pylist() if known else []
            most = max(names, key=lambda one: one["counts"], default={"values": None})
            yield LikelyInitiator(
                KINDS[vector],
                cpu if known else None,
                len(rows),
                self._per_s(len(rows)),
                float(self._confidence[rows].mean()),
                float(self._by[rows].mean()) if known else None,
                most["values"],
            )

    def targets(self) -> Iterator[InterruptedCpu]:
        """By kind and target, most frequent first."""
        vector_of = self._vector[self._of]
        found = []
        for vector in VECTORS:
            mine = np.flatnonzero(vector_of == vector)
            found += [(vector, cpu, mine[rows]) for cpu, rows in rows_by(self._target[mine])]
        for vector, cpu, rows in sorted(found, key=lambda one: -len(one[2])):
            yield InterruptedCpu(
                KINDS[vector],
                cpu,
                len(rows),
                int(self._idle[rows].sum()),
                self._per_s(len(rows)),
                float(self._confidence[self._of[rows]].mean()),
                self._handled_ns(rows),
            )

    def _by_kind(self, vector: int, values: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        mine = np.flatnonzero(self._vector == vector)
        for value, rows in rows_by(values[mine]):
            yield value, mine[rows]

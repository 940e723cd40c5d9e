"""By how much the clocks of CPUs differ, within which bounds: what had to come before what on another CPU shows it.

Evidence is gathered in `skew_evidence`, what follows from it in `skew_bounds`; here it is judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace import units
from xtrace.skew_evidence import (
    HAND_OVER,
    KEPT,
    KINDS,
    LOCK,
    WAKE,
    Evidence,
    Kept,
    changed_places,
    in_turn,
    of_episodes,
    of_trace,
)

if TYPE_CHECKING:
    from xtrace.trace import Trace

Status = Literal["agree", "differ", "contradictory", "unknown"]

SCHEDULER: Final = frozenset((KINDS[WAKE], KINDS[HAND_OVER]))
IN_ORDER: Final = SCHEDULER | {KINDS[LOCK]}
"""Kinds that rest on the order of stays of a vCPU, or of holders of a lock."""
LONGER: Final = 2
"""Stays must have lasted so many times longer than any clock is ahead, or behind, for their order to be certain."""
FEW: Final = 0.03
ROOMS: Final = ("earlier", "later", "room")
LAST: Final = KEPT - 1
"""As many pieces of evidence of each kind and pair of CPUs are taken for exceptions where nothing else helps."""


@dataclass(frozen=True, slots=True)
class OfCpu:
    """The clock of one CPU beside that of the reference.

    offset_ns         by how much it is ahead, what `--fix-skew` takes off; None where nothing is known
    low_ns, high_ns   it is ahead by at least, and at most, that; None where nothing bounds it
    evidence          pieces of evidence that it has a part in
    """

    cpu: int
    offset_ns: int | None
    low_ns: int | None
    high_ns: int | None
    evidence: int


@dataclass(frozen=True, slots=True)
class OfKind:
    """A kind of evidence, a name in `skew_evidence.KINDS`; used: whether the bounds rest on it."""

    kind: str
    count: int
    used: bool


@dataclass(frozen=True, slots=True)
class Skew:
    """What a trace tells of its clocks.

    status       agree: nothing shows a difference; differ: constant differences explain all; contradictory: none do;
                 unknown: no evidence, or several captures
    captures     in the trace; of several nothing is told
    reference    the CPU whose clock others are held against, None where there is none
    within_ns    every clock that is bounded agrees with the reference's, once corrected, to within this
    min_stay_ns  evidence by the order of stays and of holders of a lock counts where these lasted so long
    exceptions   of each kind and pair of CPUs so many pieces were left aside, those that say most
    cpus         by number, those of the trace
    kinds        evidence by kind
    fixed        times of the trace are without these offsets (`--fix-skew`)
    """

    status: Status
    captures: int
    reference: int | None
    within_ns: int | None
    min_stay_ns: int
    exceptions: int
    cpus: tuple[OfCpu, ...]
    kinds: tuple[OfKind, ...]
    fixed: bool = False

    @property
    def offsets_ns(self) -> dict[int, int]:
        """What is to be taken off, by CPU; those of which nothing is are not in it."""
        return {one.cpu: one.offset_ns for one in self.cpus if one.offset_ns}


def skew(trace: Trace) -> Skew:
    """What all evidence of a trace says: its episodes, and the scheduler's records, for which it is read once more."""
    return silent(trace) if trace.survey.captures > 1 else judged(trace, of_trace(trace))


def at_hand(trace: Trace) -> Skew | None:
    """What is known without another pass over the trace: by all evidence if that was looked at, else by episodes.

    None where neither was looked at, and where episodes show nothing amiss.
    """
    known: Skew | None = trace.__dict__.get("skew")
    looked_at = known is not None or "tables" not in trace.__dict__ or trace.survey.captures > 1
    if looked_at or not changed_places(trace.tables):
        return known
    return judged(trace, of_episodes(trace.tables))


def alert(found: Skew | None) -> str | None:
    """What a reader of times must know of clocks; None where there is nothing to say."""
    if found is None:
        return None
    if found.fixed and found.status == "contradictory":
        return "--fix-skew: the evidence on clocks contradicts itself, nothing was taken off; see --section clocks"
    if not found.offsets_ns:
        return None
    cpu, by = max(found.offsets_ns.items(), key=lambda one: (abs(one[1]), -one[0]))
    count = len(found.offsets_ns)
    clocks = "the clock of 1 CPU" if count == 1 else f"clocks of {count} CPUs"
    far = f"that of CPU {cpu} by {units.time(abs(by))}"
    if found.fixed:
        return f"--fix-skew: {clocks} corrected, {far}"
    return f"{clocks} {'differs' if count == 1 else 'differ'} from the others', {far}; --fix-skew takes that off"


def judged(trace: Trace, found: Evidence) -> Skew:
    """What evidence comes to."""
    kept = found.kept()
    if not len(kept.room):
        return silent(trace)
    settled = _settled(kept, found)
    counts = dict(zip(KINDS, found.counts.sum(axis=1).tolist(), strict=True))
    used = settled.kinds if settled is not None else frozenset()
    kinds = tuple(OfKind(kind, count, kind in used) for kind, count in counts.items() if count)
    if settled is None:
        cpus = tuple(OfCpu(cpu, None, None, None, found.by_cpu.get(cpu, 0)) for cpu in sorted(trace.survey.cpus))
        return Skew("contradictory", 1, None, None, 0, 0, cpus, kinds)
    of = dict(zip(settled.cpus.tolist(), range(len(settled.cpus)), strict=True))
    low, high, offset = (_whole(values) for values in (settled.low, settled.high, settled.offset))
    cpus = tuple(
        OfCpu(cpu, offset[of[cpu]], low[of[cpu]], high[of[cpu]], found.by_cpu.get(cpu, 0))
        if cpu in of
        else OfCpu(cpu, None, None, None, found.by_cpu.get(cpu, 0))
        for cpu in sorted(trace.survey.cpus)
    )
    left = [
        max(one.high_ns - one.offset_ns, one.offset_ns - one.low_ns)
        for one in cpus
        if one.offset_ns is not None and one.low_ns is not None and one.high_ns is not None
    ]
    return Skew(
        status="differ" if any(one.offset_ns for one in cpus) else "agree",
        captures=1,
        reference=settled.reference,
        within_ns=max(left, default=None),
        min_stay_ns=settled.lasted_ns,
        exceptions=settled.exceptions,
        cpus=cpus,
        kinds=kinds,
    )


class _Settled(NamedTuple):
    """A solution. cpus: those that evidence names; by these the others, in ns: NaN where nothing bounds."""

    cpus: NDArray[np.int64]
    reference: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    offset: NDArray[np.float64]
    kinds: frozenset[str]
    power: int
    lasted_ns: int
    exceptions: int


def _settled(kept: Kept, found: Evidence) -> _Settled | None:
    """The first solution: with as much evidence as fits together, which is all of it for clocks that agree."""
    present = frozenset(KINDS[kind] for kind in np.unique(kept.kind).tolist())
    for kinds, exceptions in _attempts(present):
        settled = _with(kept, found, kinds, exceptions)
        if settled is not None:
            return _finer(kept, settled, found) if found.locked and settled.offset.any() else settled
    return None


def _finer(kept: Kept, settled: _Settled, found: Evidence) -> _Settled:
    """The solution with turns under locks in their order by clocks that are nearly right; else as it is."""
    from xtrace.skew_bounds import solve

    offsets = {cpu: int(ns) for cpu, ns in zip(settled.cpus.tolist(), np.nan_to_num(settled.offset), strict=True)}
    earlier, later, room, held = in_turn(found.holds, offsets)
    unsure = np.full(int(found.holds.cpu.max(initial=-1)) + 1, np.inf)
    known = settled.cpus < len(unsure)
    off = np.maximum(settled.high - settled.offset, settled.offset - settled.low)
    unsure[settled.cpus[known]] = np.nan_to_num(off[known], nan=np.inf)
    lasted = LONGER * np.maximum(unsure[earlier], unsure[later])
    long = held >= lasted
    turns = Evidence(found.holds, locked=True)
    turns.add(LOCK, earlier[long], later[long], room[long])
    rest = (kept.kind != LOCK) & (kept.stay >= settled.power) & (kept.place == settled.exceptions)
    chosen = kept.take(rest & np.isin(kept.kind, [KINDS.index(kind) for kind in settled.kinds]))
    new = turns.kept().take(turns.kept().place == settled.exceptions)
    earlier, later, room = (np.concatenate([getattr(one, name) for one in (chosen, new)]) for name in ROOMS)
    solution = solve(earlier, later, room) if len(new.room) else None
    if solution is None:
        return settled
    return settled._replace(
        **solution._asdict(), kinds=settled.kinds | {KINDS[LOCK]}, lasted_ns=math.ceil(lasted[long].max())
    )


def _attempts(kinds: frozenset[str]) -> Iterator[tuple[frozenset[str], int]]:
    """What to leave out, less before more: kinds that rest on more than one step; then exceptions, too."""
    fewer = [kinds, kinds - SCHEDULER, kinds - IN_ORDER]
    tries = [(some, 0) for some in fewer] + [(some, LAST) for some in fewer[1:]]
    return (one for one in dict.fromkeys(tries) if one[0])


def _with(kept: Kept, found: Evidence, kinds: frozenset[str], exceptions: int) -> _Settled | None:
    """The solution by these kinds; stays must have lasted far longer than clocks then differ. None where none fits."""
    from xtrace.skew_bounds import solve

    chosen = np.isin(kept.kind, [KINDS.index(kind) for kind in kinds]) & (kept.place == exceptions)
    stays = np.unique(kept.stay[chosen])
    enough = refuted_ns = 0
    while True:
        some = kept.take(chosen & (kept.stay >= enough))
        if not len(some.room):
            return None
        solution = solve(some.earlier, some.later, some.room)
        if solution is None and exceptions:
            return None
        if solution is None:
            refuted_ns = _stay_ns(enough)
            longer = stays[stays > enough]
        else:
            low, high, offset = (np.nan_to_num(side) for side in (solution.low, solution.high, solution.offset))
            furthest = float(np.maximum(low, -high).max(initial=0))
            if LONGER * furthest <= _stay_ns(enough):
                # What put stays so long out of order is no clock that differs by less, and those longer must be many.
                if refuted_ns and (LONGER * float(np.ptp(offset)) < refuted_ns or _few(found, kinds, enough)):
                    return None
                there = frozenset(KINDS[kind] for kind in np.unique(some.kind).tolist())
                lasted = _stay_ns(enough) if there & IN_ORDER else 0
                return _Settled(*solution, there, enough, lasted, exceptions)
            longer = stays[(stays > enough) & (np.exp2(stays - 1) >= LONGER * furthest)]
        if not len(longer):
            return None
        enough = int(longer[0])


def _few(found: Evidence, kinds: frozenset[str], power: int) -> bool:
    """Whether of what the scheduler shows next to nothing rests on stays of this length."""
    counts = found.counts[[KINDS.index(kind) for kind in kinds & SCHEDULER]]
    return bool(counts[:, power:].sum() < FEW * counts.sum())


def _stay_ns(power: int) -> int:
    """What stays last at least whose length is this power of two."""
    return 1 << power - 1 if power else 0


def _whole(values: NDArray[np.float64]) -> list[int | None]:
    return [None if np.isnan(one) else round(one) for one in values.tolist()]


def silent(trace: Trace) -> Skew:
    """Of a trace that tells nothing."""
    cpus = tuple(OfCpu(cpu, None, None, None, 0) for cpu in sorted(trace.survey.cpus))
    return Skew("unknown", trace.survey.captures, None, None, 0, 0, cpus, ())

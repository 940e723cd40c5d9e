"""Times of a trace as one clock would have given them: what each CPU's clock is ahead is taken off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from xtrace.clock import NS_PER_S
from xtrace.context import LOST
from xtrace.decode import Batch
from xtrace.scan import STATE_WORDS
from xtrace.states import STATE, cpu_of
from xtrace.survey import Survey
from xtrace.words import Offsets, Words, tsc_at

if TYPE_CHECKING:
    from xtrace.skew import Skew
    from xtrace.trace import Trace

Cycles = NDArray[np.uint64]

LOST_FIRST_WORD: Final = 2
"""Of the payload of LOST_RECORDS, the first of two that hold the cycle count of the first record lost."""
MAX_TSC: Final = np.iinfo(np.uint64).max


class Correction:
    """What is taken off the cycle counts of each CPU: of these so many ns, of others nothing."""

    def __init__(self, offsets_ns: Mapping[int, int], hz: int) -> None:
        self._cycles = np.zeros(max(offsets_ns, default=0) + 1, np.int64)
        for cpu, ns in offsets_ns.items():
            self._cycles[cpu] = round(ns * hz / NS_PER_S)

    def __bool__(self) -> bool:
        return bool(self._cycles.any())

    def of(self, cpu: NDArray[np.integer], tsc: Cycles) -> Cycles:
        """These cycle counts as the reference's clock has them; 0 stays 0, and no count leaves 64 bits."""
        known = cpu < len(self._cycles)
        ahead = np.where(known, self._cycles[np.where(known, cpu, 0)], 0)
        back, on = np.maximum(ahead, 0).astype(np.uint64), np.maximum(-ahead, 0).astype(np.uint64)
        moved: Cycles = tsc - np.minimum(tsc, back) + np.minimum(on, MAX_TSC - tsc)
        return np.where(tsc == 0, tsc, moved)

    def survey(self, found: Survey) -> Survey:
        """A survey of one capture, moved."""
        kept = found.kept
        words, state = kept.words.copy(), kept.state.copy()
        self._move(words, kept.at, kept.header, cpu_of(kept.track))
        if state.size:
            # A state was set on the CPU of the subject that it precedes.
            subject = np.isin(kept.header, list(found.subjects))
            owner = np.repeat(cpu_of(kept.track[subject]), state.shape[1])
            view = state.reshape(-1, STATE_WORDS).view(STATE)[:, 0]
            view["tsc"] = self.of(owner, view["tsc"])
        cpus, sides = np.array(list(found.ends), np.int64), zip(*found.ends.values(), strict=True)
        first, last = (self.of(cpus, np.array(side, np.uint64)) for side in sides)
        return replace(
            found,
            zero_tsc=int(first.min()),
            last_tsc=int(last.max()),
            ends=dict(zip(cpus.tolist(), zip(first.tolist(), last.tolist(), strict=True), strict=True)),
            kept=kept._replace(words=words, state=state),
        )

    def batch(self, batch: Batch) -> Batch:
        """A batch of one capture, moved."""
        cpu = cpu_of(batch.track)
        words = batch.words.copy()
        self._move(words, batch.starts, batch.header, cpu)
        return replace(batch, words=words, tsc=self.of(cpu, batch.tsc), order=self.of(cpu, batch.order))

    def _move(self, words: Words, at: Offsets, header: Words, cpu: NDArray[np.integer]) -> None:
        """Cycle counts in records, and those that records of lost records name."""
        stamped = header >> np.uint32(31) != 0
        lost = header == np.uint32(LOST)
        for rows, word in ((stamped, 1), (lost, 3 + LOST_FIRST_WORD)):
            place = at[rows] + word - 1
            tsc = self.of(cpu[rows], tsc_at(words, place))
            words[place + 1] = tsc.astype(np.uint32)
            words[place + 2] = (tsc >> np.uint64(32)).astype(np.uint32)


def fixed(trace: Trace) -> tuple[Skew, Survey, Correction]:
    """What the clocks of a trace differ by, and what takes that off, which its survey is then without."""
    found = replace(trace.skew, fixed=True)
    correction = Correction(found.offsets_ns, trace.clock.hz)
    return found, correction.survey(trace.survey) if correction else trace.survey, correction

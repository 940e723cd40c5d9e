"""What an inferred episode was, as far as evidence goes (docs/inference.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from xtrace.clock import NS_PER_S
from xtrace.context import NOBODY
from xtrace.episodes.clusters import Clusters
from xtrace.episodes.hits import INVALIDATE_TLB_VECTOR, Hits
from xtrace.episodes.suspects import CAUSE, HYPERCALL, Suspects
from xtrace.states import TRACK_BITS, cpu_of

if TYPE_CHECKING:
    from xtrace.clock import Clock

GUESSES: Final = ("call", "kick", "calibration", "flush")
_CALL, _KICK, _CALIBRATION, _FLUSH = range(4)

PERIOD_NS: Final = NS_PER_S
"""Time calibration comes about once a second (xen/arch/x86/time.c)."""
TOLERANCE: Final = 0.05
MAX_BY_CHANCE: Final = 0.5
"""Episodes that would be found a period away if they came at random, above which the period says nothing."""


def guesses(hits: Hits, found: Clusters, suspects: Suspects, clock: Clock) -> NDArray[np.int8]:
    """A place in GUESSES by episode.

    flush        vector 0xfd
    calibration  0xfb that spares no CPU in a guest but CPU 0, whose work it may be, about a second from another such
    kick         0xfb to CPUs on which one HVM domain runs, by a CPU that was about to change that domain's memory
    call         0xfb otherwise
    """
    guess = np.full(len(found.first), _CALL, np.int8)
    capture = hits.track[found.first] >> TRACK_BITS
    begin = clock.span_ns(hits.taken[found.first])
    guess[_kicks(hits, found, suspects)] = _KICK
    zero = _by_cpu_0(hits, found, suspects)
    flush = hits.vector[found.first] == INVALIDATE_TLB_VECTOR
    guess[_periodic(capture, begin, zero & (suspects.spared == 0) & ~flush)] = _CALIBRATION
    guess[flush] = _FLUSH
    return guess


def _by_cpu_0(hits: Hits, found: Clusters, suspects: Suspects) -> NDArray[np.bool_]:
    """Which episodes CPU 0 may have begun: it is no target, and nobody else is the likely initiator."""
    hit = np.logical_or.reduceat(cpu_of(hits.track) == 0, found.first)
    mine: NDArray[np.bool_] = ~hit & ((suspects.track < 0) | (cpu_of(suspects.track) == 0))
    return mine


def _periodic(capture: NDArray[np.int32], begin: NDArray[np.int64], mine: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of these have another of them a period before or after."""
    periodic = np.zeros(len(begin), np.bool_)
    slack = int(PERIOD_NS * TOLERANCE)
    for one in np.unique(capture[mine]).tolist():
        rows = np.flatnonzero(mine & (capture == one))
        rows = rows[np.argsort(begin[rows], kind="stable")]
        time = begin[rows]
        span = max(int(time[-1] - time[0]), PERIOD_NS)
        if len(rows) * 2 * slack / span > MAX_BY_CHANCE:
            continue
        for way in (-PERIOD_NS, PERIOD_NS):
            low = np.searchsorted(time, time + (way - slack), side="left")
            high = np.searchsorted(time, time + (way + slack), side="right")
            periodic[rows[high > low]] = True
    return periodic


def _kicks(hits: Hits, found: Clusters, suspects: Suspects) -> NDArray[np.bool_]:
    low, high = (one.reduceat(hits.domain, found.first) for one in (np.minimum, np.maximum))
    asleep = np.logical_or.reduceat(hits.idle, found.first)
    memory = np.isin(suspects.kind, (CAUSE, HYPERCALL))
    kicks: NDArray[np.bool_] = (low == high) & (low != NOBODY) & ~asleep & memory
    return kicks

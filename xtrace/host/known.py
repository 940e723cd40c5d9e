"""What must be known of each CPU before its records are followed: when they begin and end, and when some were lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.states import TRACK_BITS

if TYPE_CHECKING:
    from xtrace.trace import Trace

Ints = NDArray[np.int64]


class Losses(NamedTuple):
    """Times in which CPUs lost records; int64 columns.

    capture, cpu
    begin_ns      of the first record lost
    end_ns        of the record that says so: those before it are missing
    domain, vcpu  who was on the CPU at the end (xen/common/trace.c, LOST_RECORDS)
    """

    capture: Ints
    cpu: Ints
    begin_ns: Ints
    end_ns: Ints
    domain: Ints
    vcpu: Ints

    def take(self, rows: Ints | NDArray[np.bool_]) -> Losses:
        """Some of them."""
        return Losses(*(column[rows] for column in self))

    @classmethod
    def none(cls) -> Losses:
        """No losses."""
        return cls(*np.zeros((6, 0), np.int64))


@dataclass(frozen=True, slots=True)
class Known:
    """spans: first and last timestamp of each track (capture << TRACK_BITS | CPU), ns; of others they are not known."""

    spans: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses.none)

    @classmethod
    def of(cls, trace: Trace) -> Known:
        """Of a trace."""
        ends = trace.clock.to_ns(np.array(list(trace.ends.values()), np.uint64).reshape(-1, 2))
        spans = {track: (begin, end) for track, (begin, end) in zip(trace.ends, ends.tolist(), strict=True)}
        lost = trace.lost
        first = lost.payload[:, 2].astype(np.uint64) | lost.payload[:, 3].astype(np.uint64) << np.uint64(32)
        who = lost.payload[:, 1].astype(np.int64)
        losses = Losses(
            lost.track.astype(np.int64) >> TRACK_BITS,
            lost.cpu.astype(np.int64),
            trace.clock.to_ns(np.minimum(first, lost.tsc)),
            trace.clock.to_ns(lost.tsc),
            who & 0xFFFF,
            who >> 16,
        )
        return cls(spans, losses)

    def of_capture(self, capture: int) -> tuple[dict[int, tuple[int, int]], Losses]:
        """Spans by CPU, and losses, of one capture."""
        first = capture << TRACK_BITS
        spans = {track - first: span for track, span in self.spans.items() if track >> TRACK_BITS == capture}
        return spans, self.losses.take(self.losses.capture == capture)

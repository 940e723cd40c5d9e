"""The parts of a timeline: tracks, the marks on them, and what of a trace is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.selection import Selection

FOREVER_NS: Final = int(np.iinfo(np.int64).max)
"""After everything."""


class Address(int):
    """A number that people read in hexadecimal."""


Arg = bool | int | str | Address
Args = Mapping[str, Arg]


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Where marks are.

    number   from 1, in order of first use
    parent   the track that it is shown under
    rank     its place among those of the same parent
    meaning  what it shows, in a sentence; empty where its name tells
    counter  whether it has counts instead of slices
    """

    number: int
    parent: Track | None
    name: str
    rank: int
    meaning: str = ""
    counter: bool = False


class Begin(NamedTuple):
    """A slice begins. flows: arrows that leave it; arrives: arrows that end at it."""

    track: Track
    ns: int
    name: str
    args: Args
    flows: tuple[int, ...] = ()
    arrives: tuple[int, ...] = ()


class End(NamedTuple):
    """The slice that began last on the track, and has not ended, ends."""

    track: Track
    ns: int


class Instant(NamedTuple):
    """Something without a length, or whose length is not known."""

    track: Track
    ns: int
    name: str
    args: Args
    flows: tuple[int, ...] = ()
    arrives: tuple[int, ...] = ()


class Count(NamedTuple):
    """What a counter is from this time on."""

    track: Track
    ns: int
    value: int


Mark = Begin | End | Instant | Count
"""Times are ns since the trace's first timestamp. On each track marks are in order of time."""


class Piece(NamedTuple):
    """A slice before it has a track, or an instant, whose end is not looked at. flows, arrives: as of Begin."""

    begin_ns: int
    end_ns: int
    name: str
    args: Args
    flows: tuple[int, ...] = ()
    arrives: tuple[int, ...] = ()


class Scope:
    """What of a trace is shown. domains: of the vCPU that runs there and then, None for all."""

    def __init__(self, selection: Selection, domains: frozenset[int] | None = None) -> None:
        self.domains = domains
        self._cpus = selection.cpus
        # Nothing is before the trace.
        self.from_ns = selection.from_ns or 0
        self.to_ns = FOREVER_NS if selection.to_ns is None else selection.to_ns

    def has_cpu(self, cpu: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of these CPUs are meant."""
        return _among(cpu, self._cpus)

    def has_domain(self, domain: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of these domains are meant."""
        return _among(domain, self.domains)

    def meets(self, begin_ns: NDArray[np.int64], end_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these stretches of time are shown, wholly or in part."""
        if self.to_ns <= self.from_ns:
            return np.zeros(len(begin_ns), np.bool_)
        inside = (begin_ns >= self.from_ns) & (begin_ns < self.to_ns)
        return inside | (begin_ns < self.from_ns) & (end_ns > self.from_ns)

    def cut(self, piece: Piece, *, goes_on: bool = False) -> Piece:
        """What is shown of a slice that `meets` the scope; the argument `clipped` says which of its ends are not.

        goes_on: nothing ended it before the trace did.
        """
        before, after = piece.begin_ns < self.from_ns, piece.end_ns > self.to_ns or goes_on
        if not (before or after):
            return piece
        which = "begin and end" if before and after else "begin" if before else "end"
        begin_ns, end_ns = max(piece.begin_ns, self.from_ns), min(piece.end_ns, self.to_ns)
        return piece._replace(begin_ns=begin_ns, end_ns=end_ns, args={**piece.args, "clipped": which})


def _among(values: NDArray[np.integer], wanted: Iterable[int] | None) -> NDArray[np.bool_]:
    if wanted is None:
        return np.ones(len(values), np.bool_)
    return np.isin(values, np.array(sorted(wanted), np.int64))

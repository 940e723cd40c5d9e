"""The spans of time that figures are told of: all that is selected, and the intervals that it is cut into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.errors import UsageError

if TYPE_CHECKING:
    from xtrace.selection import Selection

WHOLE: Final = 0
"""The window that is all of what is selected; intervals are numbered from 1."""
MAX_INTERVALS: Final = 10_000

Ints = NDArray[np.int64]


class Pieces(NamedTuple):
    """Parts of spans of time, each within one window.

    row         int64  the span that it is of
    window      int64
    begin, end  int64  ns
    """

    row: Ints
    window: Ints
    begin: Ints
    end: Ints


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of begin_ns ≤ time < end_ns, cut every `every_ns` (None: not at all); ns since the first timestamp.

    Raises UsageError for more than MAX_INTERVALS.
    """

    begin_ns: int
    end_ns: int
    every_ns: int | None = None

    def __post_init__(self) -> None:
        if self.every_ns is not None and self.intervals > MAX_INTERVALS:
            raise UsageError(
                f"--interval: {self.intervals} intervals are more than {MAX_INTERVALS}; "
                "give a longer one, or --from and --to"
            )

    @classmethod
    def of(cls, selection: Selection, duration_ns: int, every_ns: int | None = None) -> Windows:
        """The part of a trace that is selected, and its intervals. Raises UsageError as for all windows."""
        # The last record is at the end of the trace, and in it.
        end = duration_ns + 1
        begin = min(selection.from_ns or 0, end)
        return cls(begin, end if selection.to_ns is None else min(selection.to_ns, end), every_ns)

    @property
    def intervals(self) -> int:
        """How many intervals there are."""
        return 0 if self.every_ns is None else -(-max(self.end_ns - self.begin_ns, 0) // self.every_ns)

    def span(self, window: int) -> tuple[int, int]:
        """Begin and end of a window in ns."""
        if window == WHOLE or self.every_ns is None:
            return self.begin_ns, self.end_ns
        begin = self.begin_ns + (window - 1) * self.every_ns
        return begin, min(begin + self.every_ns, self.end_ns)

    def at(self, ns: Ints) -> tuple[Ints, Ints]:
        """Rows of the times that are in windows, and the window: each first in WHOLE, then in its interval."""
        inside = np.flatnonzero((ns >= self.begin_ns) & (ns < self.end_ns))
        whole = np.zeros(len(inside), np.int64)
        if self.every_ns is None:
            return inside, whole
        interval = 1 + (ns[inside] - self.begin_ns) // self.every_ns
        return np.concatenate((inside, inside)), np.concatenate((whole, interval))

    def parts(self, begin: Ints, end: Ints) -> Pieces:
        """Spans of time cut into their parts within windows; parts of no length are left out."""
        begin, end = np.maximum(begin, self.begin_ns), np.minimum(end, self.end_ns)
        row = np.flatnonzero(end > begin)
        begin, end = begin[row], end[row]
        whole = Pieces(row, np.zeros(len(row), np.int64), begin, end)
        if self.every_ns is None:
            return whole
        first, last = (begin - self.begin_ns) // self.every_ns, (end - 1 - self.begin_ns) // self.every_ns
        times = last - first + 1
        of = np.repeat(np.arange(len(row)), times)
        step = np.arange(len(of)) - np.repeat(np.cumsum(times) - times, times)
        place = first[of] + step
        low = self.begin_ns + place * self.every_ns
        cut = Pieces(row[of], 1 + place, np.maximum(begin[of], low), np.minimum(end[of], low + self.every_ns))
        return Pieces(*map(np.concatenate, zip(whole, cut, strict=True)))

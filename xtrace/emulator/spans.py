"""When something went on: spans of one CPU that do not overlap."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable


class Spans:
    """Spans (begin, end) in one unit, of which no two overlap."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._spans = sorted(spans)

    def within(self, first: int, last: int) -> int:
        """How much of the time between these two they cover."""
        total = 0
        at = bisect_left(self._spans, (last, 0)) - 1
        while at >= 0 and self._spans[at][1] > first:
            begin, end = self._spans[at]
            total += min(end, last) - max(begin, first)
            at -= 1
        return total

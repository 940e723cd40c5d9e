"""The clock of an emulation: what happens next, in a total order."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any


class Loop:
    """A queue of things to do, by time and then in the order they were asked for; `now` is in cycles."""

    def __init__(self, now: int) -> None:
        self.now = now
        self._queue: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._serial = count()
        self._stopped = False

    def at(self, when: int, act: Callable[[Any], None], argument: Any) -> None:
        """Call `act(argument)` at cycle `when`, which must not be past."""
        heappush(self._queue, (when, next(self._serial), act, argument))

    def stop(self) -> None:
        """Let `run` return after what it does now."""
        self._stopped = True

    def run(self, until: int | None = None) -> None:
        """Do what is due, up to and including cycle `until`; None: until nothing is left."""
        queue = self._queue
        while queue and not self._stopped and (until is None or queue[0][0] <= until):
            self.now, _, act, argument = heappop(queue)
            act(argument)
        if until is not None and not self._stopped:
            self.now = until

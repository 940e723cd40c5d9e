"""When a CPU gets its place in the map: when some CPU's cursor over the file comes past its first window.

xenalyze reads a file with a cursor for each CPU. A cursor that is done with a window steps over the headers of those
that follow up to its own next one, and that of the highest CPU looks one window further when it comes to its own.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from xtrace.decode import Batch
from xtrace.parsers.container import CPU_CHANGE_HEADER
from xtrace.states import cpu_of

AT_ONCE: Final = -1
"""In place of a row: before the records of this batch."""


class Arrivals:
    """CPUs as they are met. One that is met first in a later batch may come late by what is not shown yet."""

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}
        self._first_round = True
        self._before: tuple[int, list[int]] = (AT_ONCE, [])

    def of(self, batch: Batch) -> list[tuple[int, int]]:
        """Rows of the batch and the CPU that is there once the record is done; the first of each CPU counts."""
        found: list[tuple[int, int]] = []
        self._ends = dict.fromkeys(self._ends, AT_ONCE)
        heads = np.flatnonzero(batch.header == CPU_CHANGE_HEADER)
        ends = np.append(heads[1:], len(batch.header))
        cpus = cpu_of(batch.track)[heads]
        for head, end, cpu in zip(heads.tolist(), ends.tolist(), cpus.tolist(), strict=True):
            known = cpu in self._ends
            self._first_round = self._first_round and not known
            if known:
                entered = [self._ends[cpu]]
            elif self._first_round:
                entered = [AT_ONCE]
            else:
                highest, rows = self._before
                ahead = rows if highest == max(self._ends) else []
                entered = [*self._ends.values(), *ahead]
            if not known:
                found += [(row, cpu) for row in entered]
            self._before = cpu, entered
            if end > head + 1 or not known:
                self._ends[cpu] = end - 1 if end > head + 1 else AT_ONCE
        return found

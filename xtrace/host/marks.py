"""What happens to CPUs that no record of a switch tells: records are lost, come again, and end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.context import NOBODY
from xtrace.host.known import Known
from xtrace.host.switches import Switches

Ints = NDArray[np.int64]

LOSS, BACK, END = range(3)
"""Records of a CPU begin to be lost; they come again, and say who is there; there are no more."""


class Marks(NamedTuple):
    """Marks in order of time; int64 columns.

    ns, kind, cpu
    who   domain << 16 | vCPU that is there, of BACK; else NOBODY
    """

    ns: Ints
    kind: Ints
    cpu: Ints
    who: Ints

    def take(self, rows: Ints | NDArray[np.bool_] | slice) -> Marks:
        """Some of them."""
        return Marks(*(column[rows] for column in self))

    @classmethod
    def of(cls, known: Known, capture: int) -> Marks:
        """Those of a capture."""
        spans, losses = known.of_capture(capture)
        ends = np.array([end for _, end in spans.values()], np.int64)
        cpus = np.array(list(spans), np.int64)
        sizes = (len(losses.cpu), len(losses.cpu), len(cpus))
        marks = cls(
            np.concatenate((losses.begin_ns, losses.end_ns, ends)),
            np.repeat((LOSS, BACK, END), sizes),
            np.concatenate((losses.cpu, losses.cpu, cpus)),
            np.concatenate((np.full(sizes[0], NOBODY), losses.domain << 16 | losses.vcpu, np.full(sizes[2], NOBODY))),
        )
        return marks.take(np.lexsort((marks.kind, marks.ns)))

    def due(self, ns: int | None) -> int:
        """How many come before what follows records of a time; None: all.

        A CPU's records end behind its last, and others of that time may still come.
        """
        if ns is None:
            return len(self.ns)
        begin, end = (int(np.searchsorted(self.ns, ns, side=side)) for side in ("left", "right"))
        return begin + int((self.kind[begin:end] != END).sum())

    def places(self, switches: Switches) -> Ints:
        """Before which of the switches each mark comes."""
        before, behind = (np.searchsorted(switches.ns, self.ns, side=side) for side in ("left", "right"))
        found: Ints = np.where(self.kind == END, behind, before)
        return found


class Beginnings:
    """Who was on each CPU of a capture when its records began: the vCPU that the first to tell says runs on."""

    def __init__(self, spans: Mapping[int, tuple[int, int]]) -> None:
        """spans: first and last timestamp by CPU, ns."""
        self._spans = spans
        self._told: set[int] = set()

    def of(self, switches: Switches, marks: Marks) -> tuple[NDArray[np.bool_], Ints]:
        """Which of the next switches in order of time tell that, and since when each is as it says, ns.

        marks: those among the switches; where records were lost, what comes cannot tell any more.
        """
        lost = marks.take(marks.kind == LOSS)
        # Of several losses of a CPU the first.
        losses = dict(zip(lost.cpu.tolist()[::-1], lost.places(switches).tolist()[::-1], strict=True))
        found = np.zeros(len(switches.ns), np.bool_)
        since = switches.ns.copy()
        telling = np.flatnonzero(switches.arrives | switches.leaves | switches.goes_on)
        cpus, at = np.unique(switches.cpu[telling], return_index=True)
        for cpu, row in zip(cpus.tolist(), telling[at].tolist(), strict=True):
            in_time = cpu not in self._told and row < losses.get(cpu, len(found))
            if in_time and switches.goes_on[row] and cpu in self._spans:
                found[row] = True
                since[row] = self._spans[cpu][0]
        self._told.update(cpus.tolist(), losses)
        return found, since

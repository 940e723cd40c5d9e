"""When the vCPUs of a domain ran, and when they were paused."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace import arrow
from xtrace.episodes.tables import NULL
from xtrace.errors import MissingEventsError
from xtrace.questions.spans import Index, spread

if TYPE_CHECKING:
    from xtrace.trace import Trace


class VcpuTime(NamedTuple):
    """Stays of vCPUs in runstates, in the order of what ended them (`runstates.RUNSTATES`).

    vcpu        int64, domain << 16 | vCPU
    running     bool, it ran
    paused      bool, it was not allowed to run (`offline`)
    begin, end  int64, ns, NULL where not seen
    """

    vcpu: Index
    running: NDArray[np.bool_]
    paused: NDArray[np.bool_]
    begin: Index
    end: Index

    @classmethod
    def of(cls, trace: Trace) -> VcpuTime | None:
        """Those of a trace, None where the scheduler was not traced."""
        try:
            table = trace.table_runstates()
        except MissingEventsError:
            return None
        domain, vcpu = (arrow.values(table[name]).astype(np.int64) for name in ("domain", "vcpu"))
        begin, end = (arrow.values(table[name], null=int(NULL)) for name in ("begin_ns", "end_ns"))
        running, paused = (arrow.equals(table["state"], name) for name in ("running", "offline"))
        return cls(domain << 16 | vcpu, running, paused, begin, end)

    def of_domain(self, domain: int) -> VcpuTime:
        """Of its vCPUs only."""
        rows = self.vcpu >> 16 == domain
        return VcpuTime(*(values[rows] for values in self))

    def pauses(self) -> Index:
        """When vCPUs were paused, ns."""
        found: Index = self.begin[self.paused & (self.begin != NULL)]
        return found

    def ran(self, edges: Index) -> Index | None:
        """For how long vCPUs ran between each two edges, ns; None of no vCPU.

        One that runs when its first record comes has run since the trace began, and one that runs at its last record
        runs until the trace ends. Other stays with an end that was not seen do not count: records were lost there.
        """
        if not len(self.vcpu):
            return None
        first, last = np.zeros((2, len(self.vcpu)), np.bool_)
        first[np.unique(self.vcpu, return_index=True)[1]] = True
        last[len(last) - 1 - np.unique(self.vcpu[::-1], return_index=True)[1]] = True
        begin = np.where(first & (self.begin == NULL), edges[0], self.begin)
        end = np.where(last & (self.end == NULL), edges[-1], self.end)
        rows = self.running & (begin != NULL) & (end != NULL)
        return spread(begin[rows], end[rows], edges)

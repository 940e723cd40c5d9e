"""A trace as a timeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xtrace.timeline.cpus import Cpus
from xtrace.timeline.interrupts import Interrupts
from xtrace.timeline.marks import Mark, Scope
from xtrace.timeline.requests import Requests
from xtrace.timeline.rows import Host
from xtrace.timeline.vcpus import Vcpus

if TYPE_CHECKING:
    from xtrace.trace import Trace


def timeline(trace: Trace, scope: Scope) -> Iterator[list[Mark]]:
    """The marks of a trace, a portion at a time: those of each track in order of time, the tracks one in another.

    What is kept from one portion to the next is the state of each CPU and vCPU, and the tables of episodes, which
    the trace holds anyway.
    """
    host = Host()
    yield from Requests(trace.tables, scope, host).marks()
    cpus, interrupts, vcpus = Cpus(trace, scope, host), Interrupts(trace, scope, host), Vcpus(trace, scope, host)
    for batch, _ in trace.batches():
        cpus.feed(batch)
        interrupts.feed(batch)
        vcpus.feed(batch)
        yield host.take()
    cpus.finish()
    vcpus.finish()
    yield host.close()

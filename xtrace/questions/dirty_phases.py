"""Phases in which a domain is log-dirty, and the passes in them: what was dirtied, and who paid for flushes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xtrace.context import NOBODY
from xtrace.episodes.tables import NULL
from xtrace.questions.dirtying import BEGINS, FIRST, Dirtied, Moments, begins, bursts
from xtrace.questions.flush_costs import PAYERS, TOOLSTACK, Flushes, Paid, kinds, payers
from xtrace.questions.memory_events import (
    CHANGE,
    EXIT,
    PML_FULL,
    RAM_LOGDIRTY,
    RAM_RW,
    Flags,
    Index,
    MemoryEvents,
)
from xtrace.questions.spans import place_of, spread, sums
from xtrace.questions.vcpu_time import VcpuTime

if TYPE_CHECKING:
    from xtrace.parsers.vendor import Vendor
    from xtrace.questions.requests import Requests

NS_PER_S: Final = 1_000_000_000
MAX_PARTS: Final = 400
"""Of a phase over time; they are 1, 2 or 5 of a decimal unit long."""
LAST_NS: Final = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Pass:
    """Some time in which a domain is log-dirty: between two times at which its pages were marked, or all of it.

    begun    how its begin is known, of `dirtying.BEGINS`
    dirtied  pages, by their first write; 512 for each full buffer of page-modification logging
    changed  entries of its P2M that were changed; None where no P2M changes were traced, as on Intel
    marked   pages that P2M changes made log-dirty: Xen marks all memory without one, but video memory with them
    filled   pages that dom0 meanwhile put into other domains, such as the one that it is migrated to
    faults   VM exits for nested page faults; None where no exits were traced
    full     VM exits for full buffers of page-modification logging; None as well on AMD, which has none
    ran_ns   for which its vCPUs ran, summed; None where the scheduler was not traced
    changed_per_flush, flushes_per_page  of its own flushes that a change of its memory asks for; None of none
    paid     by payer, all of PAYERS; None where the trace has no flushes
    """

    begin_ns: int
    end_ns: int
    begun: str
    dirtied: int
    changed: int | None
    marked: int | None
    filled: int | None
    faults: int | None
    full: int | None
    ran_ns: int | None
    dirtied_per_s: float | None
    dirtied_per_ran_s: float | None
    changed_per_flush: float | None
    flushes_per_page: float | None
    paid: dict[str, Paid] | None


@dataclass(frozen=True, slots=True)
class Subject:
    """For whose memory flushes were that a change of a guest's memory asks for; domain None: no P2M change tells."""

    payer: str
    domain: int | None
    flushes: int
    ns: int


@dataclass(frozen=True, slots=True)
class Course:
    """A phase in equal parts of time, from begin_ns on: pages dirtied and marked, what flushes took of two payers.

    guest_ns, toolstack_ns  None where the trace has no flushes
    """

    begin_ns: int
    width_ns: int
    dirtied: tuple[int, ...]
    marked: tuple[int, ...]
    guest_ns: tuple[int, ...] | None
    toolstack_ns: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Phase:
    """A domain that is log-dirty, from the first to the last page of which a record says that it was dirtied.

    told_by   "changes" of its P2M or "faults"
    whole     all of it
    passes    at least so many: one in which no page was dirtied that had been before does not show
    subjects  None where no P2M changes were traced, or no flushes
    """

    domain: int
    told_by: str
    whole: Pass
    passes: tuple[Pass, ...]
    subjects: tuple[Subject, ...] | None
    course: Course


@dataclass(frozen=True, slots=True)
class Found:
    """What phases are made from.

    flushes   None where the trace has none
    time      None where the scheduler was not traced
    hit_ns, hit  when dom0 had a CPU flush what it knew of a guest's memory, and which domain was there
    changes, exits, buffers  whether P2M changes, VM exits, exits for full buffers could be traced and were
    proof     P2M changes tell what was dirtied
    """

    events: MemoryEvents
    dirtied: Dirtied
    flushes: Flushes | None
    time: VcpuTime | None
    hit_ns: Index
    hit: Index
    changes: bool
    exits: bool
    buffers: bool
    proof: bool


def marking(events: MemoryEvents) -> Flags:
    """Which records make pages log-dirty, of domains that can be migrated."""
    found: Flags = (events.kind == CHANGE) & (events.type == RAM_LOGDIRTY) & (events.subject != TOOLSTACK)
    return found


def hits(requests: Requests, vendor: Vendor | None) -> tuple[Index, Index]:
    """When dom0 had CPUs flush what they knew of a guest's memory, and which domain was on each."""
    asked = kinds(requests, vendor)[1] & (requests.start != NULL) & (requests.domain == TOOLSTACK)
    services = requests.services.take(asked[requests.services.request])
    return requests.start[services.request], services.domain


def phase_of(found: Found, domain: int) -> Phase:
    """Of a domain of which pages were dirtied or marked."""
    events, dirtied = found.events, found.dirtied.take(found.dirtied.domain == domain)
    time = None if found.time is None else found.time.of_domain(domain)
    marks = events.take(marking(events) & (events.subject == domain))
    moments = Moments.of(
        marked=bursts(np.sort(marks.ns), dirtied.ns),
        paused=np.zeros(0, np.int64) if time is None else time.pauses(),
        flushed=np.unique(found.hit_ns[found.hit == domain]),
    )
    later = begins(dirtied, moments, proof=found.proof)
    seen = np.concatenate((dirtied.ns, dirtied.until, marks.ns))
    edges = np.concatenate((np.min(seen, keepdims=True), later.ns, np.max(seen, keepdims=True)))
    counted = _counted(found, domain, dirtied, marks, edges)
    counted["ran_ns"] = None if time is None else time.ran(edges)
    paid = None if found.flushes is None else found.flushes.paid(edges, domain)
    passes = tuple(
        _pass(begin, end, how, {name: _at(values, row) for name, values in counted.items()}, _at(paid, row))
        for row, ((begin, end), how) in enumerate(
            zip(pairwise(edges.tolist()), (FIRST, *later.how.tolist()), strict=True)
        )
    )
    whole = {name: None if values is None else int(values.sum()) for name, values in counted.items()}
    begin, end = passes[0].begin_ns, passes[-1].end_ns
    known = found.flushes if found.changes else None
    return Phase(
        domain,
        "changes" if found.proof else "faults",
        _pass(begin, end, FIRST, whole, None if paid is None else paid.sum(axis=0)),
        passes,
        None if known is None else _subjects(known, edges, domain),
        _course(found.flushes, dirtied, marks, begin, end, domain),
    )


def _at(values: Index | None, row: int) -> Any:
    return None if values is None else values[row]


def _counted(found: Found, domain: int, dirtied: Dirtied, marks: MemoryEvents, edges: Index) -> dict[str, Index | None]:
    """By pass, what `Pass` counts of records."""
    events, count = found.events, len(edges) - 1
    place = place_of(events.ns, edges)
    change, here, own = events.kind == CHANGE, events.domain == domain, events.subject == domain
    filled = change & ~own & (events.subject != TOOLSTACK) & (events.domain == TOOLSTACK) & (events.type == RAM_RW)
    one = np.ones(len(place), np.int64)

    def total(rows: Flags, values: Index) -> Index:
        return sums(place[rows], values[rows], count)

    return {
        "dirtied": sums(place_of(dirtied.ns, edges), dirtied.pages, count),
        "changed": total(change & own, one) if found.changes else None,
        "marked": sums(place_of(marks.ns, edges), marks.pages, count) if found.changes else None,
        "filled": total(filled, events.pages) if found.changes else None,
        "faults": total((events.kind == EXIT) & here, one) if found.exits else None,
        "full": total((events.kind == PML_FULL) & here, one) if found.buffers else None,
    }


def _pass(begin: int, end: int, begun: int, counted: dict[str, Any], paid: Index | None) -> Pass:
    count = {name: None if value is None else int(value) for name, value in counted.items()}
    dirtied = count["dirtied"]
    who = None if paid is None else {name: Paid(*row) for name, row in zip(PAYERS, paid.tolist(), strict=True)}
    flushes = None if who is None else who["guest"].memory_flushes
    return Pass(
        begin_ns=begin,
        end_ns=end,
        begun=BEGINS[begun],
        **count,  # type: ignore[arg-type]
        dirtied_per_s=_ratio(dirtied, end - begin, NS_PER_S),
        dirtied_per_ran_s=_ratio(dirtied, count["ran_ns"], NS_PER_S),
        changed_per_flush=_ratio(count["changed"], flushes),
        flushes_per_page=_ratio(flushes, dirtied),
        paid=who,
    )


def _ratio(above: int | None, below: int | None, scale: int = 1) -> float | None:
    return None if above is None or not below else scale * above / below


def _subjects(flushes: Flushes, edges: Index, domain: int) -> tuple[Subject, ...]:
    """Flushes for the memory of guests by payer and whose it is, most of them first."""
    rows = np.flatnonzero((place_of(flushes.start, edges) >= 0) & flushes.memory)
    who = np.stack((payers(flushes.domain[rows], domain), flushes.subject[rows]), axis=1)
    pairs, which, count = np.unique(who, axis=0, return_inverse=True, return_counts=True)
    ns = sums(which.ravel(), flushes.ns[rows], len(pairs))
    found = (
        Subject(PAYERS[payer], None if subject == NOBODY else subject, many, cost)
        for (payer, subject), many, cost in zip(pairs.tolist(), count.tolist(), ns.tolist(), strict=True)
    )
    return tuple(sorted(found, key=lambda one: -one.flushes))


def _course(
    flushes: Flushes | None, dirtied: Dirtied, marks: MemoryEvents, begin: int, end: int, domain: int
) -> Course:
    widths = (step * 10**power for power in range(19) for step in (1, 2, 5))
    width = next(one for one in widths if one * MAX_PARTS >= end - begin)
    count = max(1, -(-(end - begin) // width))
    edges = np.array([min(begin + width * row, LAST_NS) for row in range(count + 1)], np.int64)

    def took(payer: str) -> tuple[int, ...] | None:
        if flushes is None:
            return None
        rows = payers(flushes.domain, domain) == PAYERS.index(payer)
        rows &= (flushes.start >= begin) & (flushes.start <= end)
        return tuple(spread(flushes.start[rows], flushes.done[rows], edges).tolist())

    def pages(some: Dirtied | MemoryEvents) -> tuple[int, ...]:
        return tuple(sums(place_of(some.ns, edges), some.pages, count).tolist())

    return Course(begin, width, pages(dirtied), pages(marks), took("guest"), took("toolstack"))

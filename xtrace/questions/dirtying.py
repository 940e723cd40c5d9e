"""When guests dirtied pages while they were log-dirty, and when their pages were marked anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.context import NOBODY
from xtrace.questions.memory_events import (
    CHANGE,
    FAULT,
    PML_FULL,
    POPULATE,
    RAM_LOGDIRTY,
    RAM_RW,
    Index,
    MemoryEvents,
)

if TYPE_CHECKING:
    from xtrace.parsers.vendor import Vendor

PML_PAGES: Final = 512
"""Pages that a full buffer of page-modification logging names (NR_PML_ENTRIES, xen/arch/x86/include/asm/hvm/vmx)."""

BEGINS: Final = ("first", "marked", "paused", "flushed", "again")
"""How the begin of a pass is known.

first    its domain's first page dirtied, or marked
marked   P2M changes by others make its pages log-dirty
paused   the domain was paused, and pages that were dirtied before are dirtied again after
flushed  dom0 had its CPUs flush what they knew of its memory, and pages are dirtied again after
again    a page is dirtied again, so that it must have been marked since
"""
FIRST, MARKED, PAUSED, FLUSHED, AGAIN = range(len(BEGINS))

MAX_PASSES: Final = 2_000
"""More are not told apart: the last one has all the rest."""


class Dirtied(NamedTuple):
    """Pages dirtied, in order of time; a row is a page, or a full buffer of them.

    domain  int32  NOBODY where not known
    ns      int64  when the fault, or the full buffer, took the guest out
    until   int64  the last record of it
    frame   int64  −1 where not known
    pages   int64
    """

    domain: NDArray[np.int32]
    ns: Index
    until: Index
    frame: Index
    pages: Index

    def take(self, rows: NDArray[Any]) -> Dirtied:
        """Some of them."""
        return Dirtied(*(values[rows] for values in self))


def by_changes(events: MemoryEvents) -> Dirtied:
    """As P2M changes tell: the domain's own CPU makes a page writable, and the nested page fault is noted behind it.

    A page that is populated on demand leaves a record of its own in between. Without nested page faults at all its own
    changes must do.
    """
    told = np.flatnonzero(events.kind <= POPULATE)
    told = told[np.argsort(events.cpu[told], kind="stable")]
    found = events.take(told)
    last = np.append(found.cpu[1:] != found.cpu[:-1], True)[: len(told)]
    kind, frame, ns = (np.append(values[1:], values[:1]) for values in (found.kind, found.frame, found.ns))
    faulted = ~last & (kind == FAULT) & (frame == found.frame)
    writable = (found.kind == CHANGE) & (found.type == RAM_RW) & (found.order == 0)
    own = found.domain == found.subject
    if (found.kind == FAULT).any():
        rows = writable & faulted & (own | (found.domain == NOBODY))
    else:
        rows = writable & own & (last | (kind != POPULATE))
    until = np.where(faulted, np.maximum(found.ns, ns), found.ns)
    return _in_order(Dirtied(found.subject, found.ns, until, found.frame, np.ones(len(told), np.int64)).take(rows))


def by_faults(events: MemoryEvents, vendor: Vendor | None) -> Dirtied:
    """As nested page faults tell, and full buffers of page-modification logging.

    On Intel a fault is noted before it is handled: a write to a page that is log-dirty. On AMD it is noted after, when
    the page is ordinary memory again.
    """
    fault = events.kind == FAULT
    if vendor == "vmx":
        rows = fault & (events.type == RAM_LOGDIRTY) & events.written
    else:
        rows = fault & np.isin(events.type, (RAM_RW, RAM_LOGDIRTY))
    full = events.kind == PML_FULL
    pages = np.where(full, PML_PAGES, 1)
    return _in_order(Dirtied(events.domain, events.ns, events.ns, events.frame, pages).take(rows | full))


def _in_order(some: Dirtied) -> Dirtied:
    return some.take(np.argsort(some.ns, kind="stable"))


class Moments(NamedTuple):
    """When pages may have been marked, in order of time.

    ns   int64
    how  int64, a place in BEGINS
    """

    ns: Index
    how: Index

    @classmethod
    def of(cls, **some: Index) -> Moments:
        """By name in BEGINS, in any order."""
        ns = np.concatenate([np.zeros(0, np.int64), *some.values()])
        how = np.repeat([BEGINS.index(name) for name in some], [len(values) for values in some.values()])
        order = np.argsort(ns, kind="stable")
        return cls(ns[order], how[order].astype(np.int64))


def bursts(marked_ns: Index, dirtied_ns: Index) -> Index:
    """Of marks, in order of time, those that are the first since a page was dirtied, or of all."""
    before = np.searchsorted(dirtied_ns, marked_ns)
    found: Index = marked_ns[np.diff(before, prepend=-1) != 0]
    return found


def begins(dirtied: Dirtied, moments: Moments, *, proof: bool) -> Moments:
    """When the passes behind the first one began, of one domain.

    A page that is dirtied twice was marked in between, at the latest such moment. Where there is none, the second time
    itself begins a pass, if it is proof.

    proof: no record says twice that the same page was dirtied once.
    """
    order = np.argsort(dirtied.frame, kind="stable")
    frame, ns = dirtied.frame[order], dirtied.ns[order]
    twice = (frame[1:] == frame[:-1]) & (frame[1:] >= 0)
    before, after = ns[:-1][twice], ns[1:][twice]
    latest = np.searchsorted(moments.ns, after, side="right") - 1
    told = (latest >= 0) & (np.append(moments.ns, 0)[latest] > before)
    chosen = moments.how == MARKED
    chosen[latest[told]] = True
    again = _again(before[~told], after[~told]) if proof else after[:0]
    found, how = np.append(moments.ns[chosen], again), np.append(moments.how[chosen], np.full(len(again), AGAIN))
    order = np.argsort(found, kind="stable")
    # Nothing was dirtied between two of them: one pass. Nor does one begin before anything was dirtied, or after all.
    place = np.searchsorted(dirtied.ns, found[order])
    inside = (place > 0) & (place < len(dirtied.ns)) & (np.diff(place, prepend=-1) != 0)
    rows = order[inside][: MAX_PASSES - 1]
    return Moments(found[rows], how[rows])


def _again(before: Index, after: Index) -> Index:
    """The fewest moments such that each of these spans, `before` excluded, has one in it."""
    order = np.argsort(after, kind="stable")
    found: list[int] = []
    for begin, end in zip(before[order].tolist(), after[order].tolist(), strict=True):
        if not found or begin >= found[-1]:
            found.append(end)
    return np.array(found, np.int64)

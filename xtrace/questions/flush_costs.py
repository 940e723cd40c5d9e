"""Flushes as far as it matters who paid for them: what each cost, whom, and for whose memory it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from xtrace.context import IDLE_DOMAIN, NOBODY
from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.questions.memory_events import CHANGE, Flags, Index, MemoryEvents
from xtrace.questions.paths import CAUSES
from xtrace.questions.requests import CALL, FLUSH
from xtrace.questions.spans import place_of
from xtrace.symbols import INTERRUPT_ONLY
from xtrace.works import flush_name

if TYPE_CHECKING:
    from xtrace.parsers.vendor import Vendor
    from xtrace.questions.paths import Paths
    from xtrace.questions.requests import Requests

FLUSH_HVM_ASID: Final = flush_name(0x4000)
"""What a change of a guest's memory asks for on AMD (guest_flush_tlb_mask(), xen/arch/x86/flushtlb.c)."""

TOOLSTACK: Final = 0
"""The domain that runs the toolstack, among all else that it does."""

PAYERS: Final = ("guest", "toolstack", "others", "idle", "unknown")
"""Who has a CPU: the domain that is log-dirty, dom0, another domain, nobody; or no record tells."""
_GUEST, _TOOLSTACK, _OTHERS, _IDLE, _UNKNOWN = range(len(PAYERS))


@dataclass(frozen=True, slots=True)
class Paid:
    """What the flushes that started in some time cost one payer.

    flushes, ns  that it waited for, START to DONE
    memory_flushes, memory_ns  of them those that a change of a guest's memory asks for
    lock_ns, queue_ns, serving_ns  of ns, when other requests were in the way (`paths.CAUSES`)
    stolen_ns    for which functions of flushes ran on its CPUs, asked for by other CPUs
    """

    flushes: int
    ns: int
    memory_flushes: int
    memory_ns: int
    lock_ns: int
    queue_ns: int
    serving_ns: int
    stolen_ns: int


class Flushes(NamedTuple):
    """The chosen flushes in order of start, and functions of theirs on CPUs other than the caller's.

    start, done  int64, ns
    domain   int64, on the caller's CPU at START, NOBODY where not known
    memory   bool, one that a change of a guest's memory asks for
    lost     int64 (causes, flushes), ns in which others were in the way, by cause as in CAUSES
    subject  int64, of those for memory: of which domain, NOBODY where no change tells
    of       int64, by function: which flush
    victim   int64, by function: domain on its CPU
    ran      int64, by function: ns
    """

    start: Index
    done: Index
    domain: Index
    memory: Flags
    lost: Index
    subject: Index
    of: Index
    victim: Index
    ran: Index

    @classmethod
    def of_paths(cls, paths: Paths, events: MemoryEvents, vendor: Vendor | None) -> Flushes:
        """Of what is chosen; events: to tell for whose memory."""
        requests = paths.requests
        flush, memory = kinds(requests, vendor)
        rows = np.flatnonzero(flush[paths.rows])
        rows = rows[np.argsort(paths.start[rows], kind="stable")]
        lost = np.zeros((len(CAUSES), len(paths.rows)), np.int64)
        for cause, blame in paths.blame():
            np.add.at(lost[cause], blame.waiting, blame.ns)
        chosen = paths.rows[rows]
        place = np.full(len(requests.episode), -1)
        place[chosen] = np.arange(len(rows))
        services = requests.services.take(requests.services.seen)
        theirs = services.take((place[services.request] >= 0) & (services.cpu != requests.initiator[services.request]))
        return cls(
            paths.start[rows],
            paths.done[rows],
            requests.domain[chosen],
            memory[chosen],
            lost[:, rows],
            np.where(memory[chosen], _subjects(requests, events)[chosen], NOBODY),
            place[theirs.request],
            theirs.domain,
            np.maximum(theirs.left - theirs.enter, 0),
        )

    @property
    def ns(self) -> Index:
        """What each cost its caller."""
        return self.done - self.start

    def paid(self, edges: Index, domain: int) -> Index:
        """Who paid what between each two edges, the last one included: int64 (spans, payers, fields of `Paid`).

        domain: the one that is log-dirty.
        """
        span = place_of(self.start, edges)
        payer, victim = payers(self.domain, domain), payers(self.victim, domain)
        one, ns = np.ones(len(span), np.int64), self.ns
        memory = self.memory.astype(np.int64)
        found = np.zeros((len(edges) - 1, len(PAYERS), 8), np.int64)
        inside = span >= 0
        for field, values in enumerate((one, ns, memory, memory * ns, *self.lost)):
            np.add.at(found[..., field], (span[inside], payer[inside]), values[inside])
        ran = inside[self.of]
        np.add.at(found[..., 7], (span[self.of[ran]], victim[ran]), self.ran[ran])
        return found


def payers(domains: Index, domain: int) -> Index:
    """Places in PAYERS, where this domain is the log-dirty one."""
    found = np.full(len(domains), _OTHERS)
    for one, payer in ((NOBODY, _UNKNOWN), (IDLE_DOMAIN, _IDLE), (TOOLSTACK, _TOOLSTACK), (domain, _GUEST)):
        found[domains == one] = payer
    return found


def kinds(requests: Requests, vendor: Vendor | None) -> tuple[Flags, Flags]:
    """Which requests are flushes, and which of them a change of a guest's memory asks for.

    On Intel that is a call without a function: CPUs forget what they know when they enter the guest again. On AMD such
    a call is a flush that a guest asks for (HVMOP_flush_tlbs).
    """
    alone = np.array([name == INTERRUPT_ONLY for name in requests.works], np.bool_)[requests.work]
    asid = np.array([FLUSH_HVM_ASID in name.split("|") for name in requests.works], np.bool_)[requests.work]
    alone &= requests.kind == CALL
    memory = (requests.kind == FLUSH) & asid | alone & (vendor != "svm")
    return (requests.kind == FLUSH) | alone, memory


def _subjects(requests: Requests, events: MemoryEvents) -> Index:
    """By request the domain whose P2M was changed last on its CPU.

    NOBODY where that was before the CPU's request before, or with another domain on the CPU.
    """
    found = np.full(len(requests.episode), NOBODY)
    changes = events.take(events.kind == CHANGE)
    started = np.flatnonzero(requests.start != NULL)
    started = started[np.argsort(requests.start[started], kind="stable")]
    for cpu, mine in rows_by(requests.initiator[started]):
        rows, theirs = started[mine], changes.take(changes.cpu == cpu)
        start = requests.start[rows]
        free = np.maximum.accumulate(np.maximum(start, requests.done[rows]))
        before = np.append(NULL, free)[: len(rows)]
        last = np.searchsorted(np.maximum.accumulate(theirs.ns), start, side="right") - 1
        known = last >= 0
        change = theirs.take(last[known])
        fresh = (change.ns >= before[known]) & (change.domain == requests.domain[rows[known]])
        found[rows[known][fresh]] = change.subject[fresh]
    return found

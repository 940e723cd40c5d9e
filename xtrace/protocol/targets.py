"""Rules about the CPUs that are asked: who serves, when, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from xtrace.grouping import rows_by
from xtrace.protocol.asked import CALL, FLUSH, NOBODY
from xtrace.protocol.rule import Case, Finding
from xtrace.protocol.steps import ENTER, EXIT, NONE, Flags, Index
from xtrace.states import cpu_of

MIN_DELIVERIES: Final = 20
"""Fewer do not tell how quick an interrupt can be."""
INSIDE: Final = 4
"""Steps of a flush that stand between the ENTER and the EXIT of the call that carries it, and room for one twice."""


def answers(case: Case) -> Iterator[Finding]:
    """DONE after the answer of every CPU in the mask."""
    steps, requests, services = case.steps, case.requests, case.services
    of = services.request
    done = requests.done[of]
    due = services.asked & (done >= 0) & case.known_wait[of]
    waits = due & requests.wait[of]
    late = (services.left >= 0) & (steps.time[services.left] > steps.time[done])
    yield _served(case, "DONE before an EXIT", waits & late, done, services.left)
    if case.model == "legacy":
        late = (services.enter >= 0) & (steps.time[services.enter] > steps.time[done])
        late &= _not_checked_in(case, steps.time[done])
        yield _served(case, "DONE before a CPU checked in", due & ~waits & late, done, services.enter)
        waits = due
    yield _served(case, "DONE, and a CPU in the mask never served it", waits & unserved(case, done), done)


def _served(case: Case, what: str, chosen: Flags, *rows: Index) -> Finding:
    services = case.services.request[chosen]
    return Finding(what, services, (case.requests.send[services], *(row[chosen] for row in rows)))


def unserved(case: Case, until: Index) -> Flags:
    """Services of which no step is there, though all that the CPU wrote from START to this step is."""
    steps, services = case.steps, case.services
    start = case.requests.start[services.request]
    missing = (services.enter < 0) & (services.left < 0) & (start >= 0) & (until >= 0)
    rows = np.flatnonzero(missing)
    missing[rows] = steps.spans.cover(services.track[rows], steps.time[start[rows]], steps.time[until[rows]])
    return missing


def _not_checked_in(case: Case, by: Index) -> Flags:
    """Services whose ENTER shows that the CPU had not checked in by then.

    It checks in and notes ENTER in one go, so that it had not if it noted something else meanwhile; nor where no
    interrupt gets through as quickly.
    """
    steps, requests, services = case.steps, case.requests, case.services
    busy = steps.before[services.enter] > by
    send = requests.send[services.request]
    sent = (send >= 0) & (services.enter >= 0) & (services.track != requests.owner[services.request])
    took = (steps.time[services.enter] - steps.time[send])[sent]
    if len(took) >= MIN_DELIVERIES:
        busy |= sent & (by - steps.time[send] < took.min())
    return busy


def pairs(case: Case) -> Iterator[Finding]:
    """ENTER, then EXIT."""
    steps, services = case.steps, case.services
    enter, left = services.enter, services.left
    swapped = steps.later(enter, left)
    yield Finding("EXIT before ENTER", services.request[swapped], (left[swapped], enter[swapped]))
    mine = np.flatnonzero((enter >= 0) & (left < 0))
    proof = _outside(case, mine, enter[mine], 1)
    shown = steps.unbroken(enter[mine], proof)
    mine, proof = mine[shown], proof[shown]
    yield Finding("no EXIT, though the CPU went on", services.request[mine], (enter[mine], proof))
    mine = np.flatnonzero((left >= 0) & (enter < 0))
    proof = _outside(case, mine, left[mine], -1)
    shown = steps.unbroken(proof, left[mine])
    start = case.requests.start[services.request[mine]]
    begun = np.flatnonzero((start >= 0) & ~shown)
    begin, end = steps.time[start[begun]], steps.time[left[mine[begun]]]
    whole = steps.spans.cover(services.track[mine[begun]], begin, end)
    proof = np.where(shown, proof, start)
    shown[begun[whole]] = True
    mine, proof = mine[shown], proof[shown]
    yield Finding("EXIT without ENTER", services.request[mine], (proof, left[mine]))


def _outside(case: Case, mine: Index, rows: Index, step: int) -> Index:
    """By service the next row (step 1), or the one before (−1), of its CPU that is no part of the same function."""
    steps, of = case.steps, case.of
    count = len(of)
    request = case.services.request[mine]
    may_carry = (case.requests.kind[request] == CALL) & (case.model != "legacy")
    owner = case.requests.owner[request]
    place = rows + step
    for _ in range(INSIDE):
        at = np.clip(place, 0, count - 1)
        of_flush = may_carry & (steps.kind[at] == FLUSH) & (case.requests.owner[of[at]] == owner)
        part = (steps.step[at] == ENTER) | (steps.step[at] == EXIT)
        part &= of_flush | (of[at] == request)
        place = np.where(part, place + step, place)
    return np.where((place >= 0) & (place < count), place, NONE)


def in_mask(case: Case) -> Iterator[Finding]:
    """Only CPUs that the mask names."""
    requests, services = case.requests, case.services
    counted = (requests.n_cpus > 0) & (requests.n_cpus == requests.n_asked)
    known = (requests.send >= 0) & (case.whole | counted)
    seen = np.where(services.enter >= 0, services.enter, services.left)
    yield _served(case, "served by a CPU that is not in the mask", known[services.request] & ~services.asked, seen)


def asked_first(case: Case) -> Iterator[Finding]:
    """START before ENTER, on the CPU that the target names."""
    steps, requests, services = case.steps, case.requests, case.services
    of, enter = services.request, services.enter
    start = requests.start[of]
    early = (enter >= 0) & (start >= 0) & (steps.time[enter] < steps.time[start])
    yield Finding("ENTER before START", of[early], (enter[early], start[early]))
    seen = np.where(enter >= 0, enter, services.left)
    nobody = cpu_of(requests.owner[of]) == NOBODY
    yield Finding("an initiator that cannot be", of[nobody], (seen[nobody],))
    for kind in (CALL, FLUSH):
        lone = (requests.kind[of] == kind) & (start < 0) & (requests.seq[of] != 0) & (enter >= 0) & ~nobody
        mine = np.flatnonzero(lone)
        last, first = _starts_before(case, kind, requests.owner[of[mine]], steps.time[enter[mine]])
        begun = np.flatnonzero(last >= 0)
        told = np.zeros(len(mine), np.bool_)
        rows = last[begun]
        told[begun] = steps.spans.cover(steps.track[rows], steps.time[rows], steps.time[enter[mine[begun]]])
        # Requests from before the first one that was seen may still be served.
        told &= requests.seq[of[mine]] - steps.words[first, 0] & 0xFFFFFFFF < 1 << 31
        mine, last = mine[told], last[told]
        yield Finding("served, but no CPU started it", of[mine], (last, enter[mine]))


def _starts_before(case: Case, kind: int, track: Index, time: Index) -> tuple[Index, Index]:
    """The last START of a kind that each of these CPUs noted before a time, and the first of the same stream."""
    steps = case.steps
    rows = np.flatnonzero(case.starts(kind))
    new = np.diff(steps.stream[rows], prepend=NONE) != 0
    opening = rows[np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))]
    last, first = np.full((2, len(track)), NONE)
    for one, mine in rows_by(track):
        low, high = np.searchsorted(steps.track[rows], [one, one + 1])
        place = low + np.searchsorted(steps.time[rows[low:high]], time[mine], side="right") - 1
        some = place >= low
        last[mine[some]], first[mine[some]] = rows[place[some]], opening[place[some]]
    return last, first


def once(case: Case) -> Iterator[Finding]:
    """One ENTER and one EXIT of each CPU."""
    steps, again, of = case.steps, case.again, case.of
    for step, what in ((ENTER, "ENTER twice"), (EXIT, "EXIT twice")):
        rows = np.flatnonzero((again >= 0) & (steps.step == step))
        rows = rows[case.requests.start[of[rows]] >= 0]
        yield Finding(what, of[rows], (again[rows], rows))


def nesting(case: Case) -> Iterator[Finding]:
    """One function at a time, but for a flush within the call that carries it."""
    steps, requests = case.steps, case.requests
    services = case.services.take(steps.unbroken(case.services.enter, case.services.left))
    services = services.take(services.left > services.enter)
    services = services.take(np.argsort(services.enter, kind="stable"))
    place = np.arange(len(services.enter))
    ends = np.maximum.accumulate(services.left)
    longest = np.maximum.accumulate(np.where(services.left == ends, place, 0))
    outer = np.append(0, longest[:-1])[: len(place)]
    near = steps.unbroken(services.left[outer], services.enter) & (outer < place)
    inside = near & steps.later(services.left[outer], services.enter)
    carried = (requests.kind[services.request] == FLUSH) & (requests.kind[services.request[outer]] == CALL)
    carried &= requests.owner[services.request] == requests.owner[services.request[outer]]
    carried &= ~steps.later(services.left, services.left[outer])
    if case.model == "legacy":
        carried[:] = False
    mine = np.flatnonzero(inside & ~carried)
    outer = outer[mine]
    shown = (services.enter[outer], services.enter[mine], services.left[outer], services.left[mine])
    yield Finding("a function began inside another", services.request[mine], shown)

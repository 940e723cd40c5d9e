"""Rules of one design only: locks that are handed on in turn, or descriptors of which each CPU has one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from xtrace.grouping import rows_by
from xtrace.protocol.asked import CALL, FLUSH
from xtrace.protocol.rule import Case, Finding, next_after
from xtrace.protocol.steps import NEVER, NONE, Flags, Index
from xtrace.protocol.targets import unserved
from xtrace.states import TRACK_BITS


def _locks(case: Case) -> Iterator[Index]:
    """Requests that took the same lock, by SEND."""
    requests, steps = case.requests, case.steps
    rows = np.flatnonzero(requests.send >= 0)
    rows = rows[np.argsort(steps.time[requests.send[rows]], kind="stable")]
    for _, mine in rows_by(_lock(case, rows)):
        yield rows[mine]


def _lock(case: Case, rows: Index) -> Index:
    """The lock that requests take: one a kind and capture."""
    lock: Index = case.requests.owner[rows] >> TRACK_BITS << 1 | case.requests.kind[rows]
    return lock


def holders(case: Case) -> Iterator[Finding]:
    """One holder of a lock, SEND to DONE."""
    requests, steps = case.requests, case.steps
    for mine in _locks(case):
        send, done = requests.send[mine], requests.done[mine]
        until = np.where(done >= 0, steps.time[done], NEVER)
        other = _longest(until)
        both = np.flatnonzero((other >= 0) & (steps.time[send] < until[other]))
        held = other[both]
        yield Finding("another held the lock", mine[both], (send[held], send[both], done[held], done[both]))


def _longest(until: Index) -> Index:
    """By row the one before it with the highest value, NONE for the first."""
    place = np.arange(len(until))
    top = np.maximum.accumulate(until)
    return np.append(NONE, np.maximum.accumulate(np.where(until == top, place, 0)))[: len(until)]


STALLS: Final = 10
"""A CPU that is away so many times longer than any was elsewhere is not away: it was passed."""
MIN_STALLS: Final = 10
"""Fewer waits do not tell how long CPUs are away."""
PASSED_SHARE: Final = 0.05
MIN_PASSED: Final = 5
"""As many of those that found the lock taken, and so large a share of them, are no accident."""


def fifo(case: Case) -> Iterator[Finding]:
    """Locks go to CPUs in the order in which they asked.

    A CPU asks a little after START, and what keeps it from asking, such as an interrupt, lets others pass: that takes
    as long as from its START to that of the last one which passed, less what functions for others took. It is believed
    unless it is far longer than any CPU was away where that shows, after a lock was let go or found free, or happens
    too often.
    """
    requests, steps = case.requests, case.steps
    ran = case.ran
    found, away, alone = [], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    contended = 0
    for mine, out in _asked_for(case):
        start, owner, done = steps.time[requests.start[mine]], requests.owner[mine], requests.done[mine]
        free = np.append(NEVER, np.maximum.accumulate(np.where(done >= 0, steps.time[done], NEVER)))[: len(mine)]
        taken, sent = free > start, requests.send[mine] >= 0
        contended += int(taken.sum())
        begin = np.where(taken, free, start)
        idle = np.maximum(out - begin, 0) - ran.within(owner, begin, out)
        away.append(idle[sent])
        alone.append(idle[sent & ~taken])
        other = _longest(np.where(sent, start, NEVER))
        passed = np.flatnonzero((other >= 0) & (start < start[other]))
        by = other[passed]
        kept = start[by] - start[passed] - ran.within(owner[passed], start[passed], start[by])
        found.append((mine[passed], mine[by], kept))
    if not found:
        return
    passed, by, kept = (np.concatenate(part) for part in zip(*found, strict=True))
    stalls, usual = np.concatenate(away), np.concatenate(alone)
    shown = np.zeros(len(kept), np.bool_)
    if len(stalls) >= MIN_STALLS:
        shown |= kept > STALLS * max(int(stalls.max()), 1)
    often = kept > (np.median(usual) if len(usual) else 0)
    if often.sum() >= max(MIN_PASSED, PASSED_SHARE * contended):
        shown |= often
    passed, by = passed[shown], by[shown]
    rows = (requests.start[passed], requests.start[by], requests.send[by], requests.send[passed])
    yield Finding("passed by one that started later", passed, rows)


def _asked_for(case: Case) -> Iterator[tuple[Index, Index]]:
    """By lock the requests whose START was seen and the times of SEND, in this order.

    Of one that was not sent when its CPU's records end, that is the time.
    """
    requests, steps = case.requests, case.steps
    rows = np.flatnonzero((requests.start >= 0) & ((requests.send >= 0) | (requests.done < 0)))
    start = steps.time[requests.start[rows]]
    until = steps.spans.reach(requests.owner[rows], start)
    out = np.where(requests.send[rows] >= 0, steps.time[requests.send[rows]], np.maximum(until, start))
    order = np.argsort(out, kind="stable")
    for _, mine in rows_by(_lock(case, rows[order])):
        yield rows[order[mine]], out[order[mine]]


def sent_first(case: Case) -> Iterator[Finding]:
    """ENTER after SEND."""
    steps, requests, services = case.steps, case.requests, case.services
    send = requests.send[services.request]
    early = (services.enter >= 0) & (send >= 0) & services.asked
    early &= steps.time[services.enter] < steps.time[send]
    yield Finding("ENTER before SEND", services.request[early], (services.enter[early], send[early]))


def descriptor(case: Case) -> Iterator[Finding]:
    """A CPU's descriptor is used again once all targets have answered."""
    steps, requests, services = case.steps, case.requests, case.services
    of = services.request
    after = next_after(case.starts(CALL))
    again = np.where(requests.start >= 0, after[requests.start], NONE)
    again[~steps.unbroken(requests.start, again) | (requests.kind != CALL)] = NONE
    later = np.where(again >= 0, case.of[again], NONE)[of]
    used = np.where(later >= 0, requests.send[later], NONE)
    waits = requests.wait[of]
    answer = np.where(waits, services.left, services.enter)
    # Where nobody waits, a target that is not asked again tells nothing: Linux's design has a descriptor for each, and
    # its traces look like these.
    named = of[services.asked] << 32 | services.track[services.asked]
    asked_again = np.isin(later << 32 | services.track, named)
    due = services.asked & (used >= 0) & (waits | asked_again)
    late = due & (answer >= 0) & (steps.time[answer] > steps.time[used])
    # It checks in and notes ENTER in one go, so that it had not if it noted something else meanwhile.
    late &= waits | (steps.before[services.enter] > steps.time[used])
    never = due & unserved(case, used)
    for what, chosen in (
        ("its descriptor was used again before a target had answered", late),
        ("its descriptor was used again, and a target never answered", never),
    ):
        rows = np.flatnonzero(chosen)
        yield Finding(what, of[rows], (requests.send[of[rows]], used[rows], answer[rows]))


def carried(case: Case) -> Iterator[Finding]:
    """Flushes ride on calls."""
    steps, requests = case.steps, case.requests
    rows = np.flatnonzero(case.whole & (requests.kind == FLUSH) & (requests.send >= 0) & (requests.carrier < 0))
    yield Finding("no call carries it", rows, (requests.start[rows], requests.send[rows], requests.done[rows]))
    rows = np.flatnonzero(requests.carrier >= 0)
    call = requests.carrier[rows]
    early = steps.later(requests.done[call], requests.done[rows])
    early |= steps.later(requests.send[rows], requests.start[call])
    rows, call = rows[early], call[early]
    shown = (requests.send[rows], requests.start[call], requests.done[call], requests.done[rows])
    yield Finding("steps of the call are not within those of its flush", rows, shown)
    flush, of_call = _matched(case)
    inner, outer = case.services.take(flush), case.services.take(of_call)
    wrong = steps.later(outer.enter, inner.enter) | steps.later(inner.left, outer.left)
    yield Finding(
        "a CPU flushed outside of the call that carries the flush",
        inner.request[wrong],
        (outer.enter[wrong], inner.enter[wrong], inner.left[wrong], outer.left[wrong]),
    )


def _matched(case: Case) -> tuple[Index, Index]:
    """Services of flushes, and of the calls that carry them, on the same CPU."""
    requests, services = case.requests, case.services
    call = requests.carrier[services.request]
    mine = np.flatnonzero(call >= 0)
    pairs = services.request << 32 | services.track
    wanted = call[mine] << 32 | services.track[mine]
    place = np.minimum(np.searchsorted(pairs, wanted), max(0, len(pairs) - 1))
    there = pairs[place] == wanted
    return mine[there], place[there]


def by_itself(case: Case) -> Iterator[Finding]:
    """No call carries a flush."""
    requests = case.requests
    flush = np.flatnonzero((requests.carrier >= 0) & (requests.done >= 0))
    call = requests.carrier[flush]
    within: Flags = (requests.done[call] >= 0) & (requests.done[call] < requests.done[flush])
    flush, call = flush[within], call[within]
    rows = (requests.start[flush], requests.start[call], requests.done[call], requests.done[flush])
    yield Finding("a call carries it", flush, rows)

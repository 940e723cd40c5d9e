"""Rules about the CPU that asks: its steps in their order, each once, to the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from xtrace.protocol.asked import CALL, FLUSH
from xtrace.protocol.rule import Case, Finding, last_before, next_after
from xtrace.protocol.steps import DONE, LATEST, NEVER, NONE, SEND, Flags, Index

TOO_LONG: Final = 10
"""So many times longer than ever is no wait any more."""
MIN_ENDED: Final = 100
"""Fewer do not tell how long a wait may be."""


def order(case: Case) -> Iterator[Finding]:
    """START, SEND, DONE, each once, and no START in between."""
    steps, requests = case.steps, case.requests
    # Number 0 without a START may be several: each whose mask was empty at first (tracepoints/README.md).
    numbered = (requests.start >= 0) | (requests.seq != 0)
    no_send = np.where(requests.send < 0, requests.start, NONE)
    for what, first, then in (
        ("SEND before START", requests.start, requests.send),
        ("DONE before SEND", requests.sent, requests.done),
        ("DONE before START", no_send, requests.done),
    ):
        yield _of(what, np.flatnonzero(numbered & steps.later(first, then)), then, first)
    for kind in (CALL, FLUSH):
        starts = case.starts(kind)
        yield from _without_start(case, kind, last_before(starts))
        yield from _too_early(case, starts)
    yield from _without_send(case)
    again = case.again
    for step, what in ((SEND, "SEND twice"), (DONE, "DONE twice")):
        rows = np.flatnonzero((again >= 0) & (steps.step == step))
        rows = rows[requests.start[case.of[rows]] >= 0]
        yield Finding(what, case.of[rows], (again[rows], rows))
    yield Finding("START with another seq than is next", case.of[steps.odd], (steps.odd,))


def _of(what: str, chosen: Index, *rows: Index) -> Finding:
    return Finding(what, chosen, tuple(row[chosen] for row in rows))


def _without_start(case: Case, kind: int, start_before: Index) -> Iterator[Finding]:
    """A step of a request that its CPU did not start, though it started others of the kind before and meanwhile."""
    steps, requests = case.steps, case.requests
    lone = (requests.kind == kind) & (requests.start < 0) & (requests.seq != 0)
    for what, step, other in (
        ("SEND without START", requests.send, np.full(len(lone), NONE)),
        ("DONE without START", requests.done, requests.send),
    ):
        mine = np.flatnonzero(lone & (step >= 0) & (other < 0))
        before = start_before[step[mine]]
        shown = steps.unbroken(before, step[mine])
        yield Finding(what, mine[shown], (before[shown], step[mine][shown]))


def _too_early(case: Case, starts: Flags) -> Iterator[Finding]:
    """STARTs of a kind before the last one's DONE, or with its number."""
    steps, requests, of = case.steps, case.requests, case.of
    rows = np.flatnonzero(starts)
    first, then = rows[:-1], rows[1:]
    near = steps.unbroken(first, then)
    first, then = first[near], then[near]
    twice = steps.words[first, 0] == steps.words[then, 0]
    yield Finding("START twice", of[then[twice]], (first[twice], then[twice]))
    done = requests.done[of[first]]
    early = (done > then) & ~twice
    yield Finding("START before the last one's DONE", of[then[early]], (first[early], then[early], done[early]))


def _without_send(case: Case) -> Iterator[Finding]:
    """A mask that is empty by then leaves no SEND (tracepoints/README.md), but nobody serves that."""
    requests, services = case.requests, case.services
    seen = services.take((services.enter >= 0) | (services.left >= 0))
    by = np.full(len(requests.start), NONE)
    by[seen.request] = np.maximum(seen.enter, seen.left)
    yield _of(
        "served without SEND",
        np.flatnonzero(case.whole & (requests.send < 0) & (by >= 0)),
        requests.start,
        by,
        requests.done,
    )


def ends(case: Case) -> Iterator[Finding]:
    """DONE follows, unless the CPU's records end or miss some before it goes on."""
    steps, requests = case.steps, case.requests
    last = np.maximum(requests.start, requests.sent)
    open_ = np.flatnonzero((requests.done < 0) & (last >= 0) & ((requests.start >= 0) | (requests.seq != 0)))
    calls = requests.kind[open_] == CALL
    last = last[open_]
    flush_start, any_start = case.starts(FLUSH), case.starts(FLUSH) | case.starts(CALL)
    proofs = [np.where(calls, next_after(any_start)[last], next_after(flush_start)[last]), next_after(case.back)[last]]
    parent = requests.parent[open_]
    proofs.append(np.where(parent >= 0, requests.done[parent], NONE))
    proof = np.full(len(last), NONE)
    for one in proofs:
        good = steps.unbroken(last, one) & (one > last) & ((proof < 0) | (one < proof))
        proof = np.where(good, one, proof)
    shown = proof >= 0
    yield Finding("no DONE, though its CPU went on", open_[shown], (last[shown], proof[shown]))

    waiting = open_[~shown & (requests.start[open_] >= 0) & (requests.send[open_] >= 0)]
    what = f"no DONE, {TOO_LONG} times as long after the last answer as it ever came"
    yield _of(what, waiting[_overdue(case, waiting)], requests.start, requests.send)


def _overdue(case: Case, waiting: Index) -> Flags:
    """Which of these all targets answered long before their CPU's records end."""
    steps, requests, services = case.steps, case.requests, case.services
    named = services.take(services.asked)
    answer = np.where(requests.wait[named.request], named.left, named.enter)
    lacks = np.bincount(named.request[answer < 0], minlength=len(requests.start)) > 0
    answered = np.where(requests.send >= 0, steps.time[requests.send], NEVER)
    np.maximum.at(answered, named.request[answer >= 0], steps.time[answer[answer >= 0]])
    known = ~lacks & (requests.send >= 0) & (requests.wait | (case.model == "legacy"))
    ended = np.flatnonzero(case.whole & known)
    if len(ended) < MIN_ENDED:
        return np.zeros(len(waiting), np.bool_)
    took = int((steps.time[requests.done[ended]] - answered[ended]).max())
    longest = min(max(took, 1), LATEST // TOO_LONG)
    since = answered[waiting]
    until = np.maximum(steps.spans.reach(requests.owner[waiting], steps.time[requests.send[waiting]]), since)
    idle = until - since - case.ran.within(requests.owner[waiting], since, until)
    late: Flags = known[waiting] & (idle > TOO_LONG * longest)
    return late


def mask(case: Case) -> Iterator[Finding]:
    """As many CPUs as START says, and those of the flush that a call carries."""
    requests, services = case.requests, case.services
    other = case.whole & (requests.send >= 0) & (requests.n_cpus >= 0) & (requests.n_cpus != requests.n_asked)
    yield _of("another number of CPUs in SEND than in START", np.flatnonzero(other), requests.start, requests.send)
    carrying = (requests.parent >= 0) & case.whole & case.whole[requests.parent]
    carrying &= (requests.send >= 0) & (requests.send[requests.parent] >= 0)
    named = services.take(services.asked)
    by_call, by_flush = carrying[named.request], carrying[requests.carrier[named.request]]
    by_flush &= requests.carrier[named.request] >= 0
    mine = named.request[by_call] << 32 | named.track[by_call]
    theirs = requests.carrier[named.request[by_flush]] << 32 | named.track[by_flush]
    differ = np.unique(np.setxor1d(mine, theirs) >> 32)
    flush_send = requests.send[requests.parent]
    yield _of("a call with another mask than the flush it carries", differ, flush_send, requests.send)

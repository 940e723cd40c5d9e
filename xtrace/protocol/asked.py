"""Steps → what was asked (requests) and who answered (services): which rows belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.episodes.assemble import KIND_NAMES
from xtrace.parsers.container import MAX_CPU
from xtrace.protocol.steps import DONE, ENTER, EXIT, NONE, SEND, START, Flags, Index, Steps
from xtrace.states import TRACK_BITS

CALL: Final = KIND_NAMES.index("call")
FLUSH: Final = KIND_NAMES.index("flush")

NOBODY: Final = MAX_CPU + 1
"""Stands for an initiator that no host has."""
WORD_CPUS: Final = 64


@dataclass(frozen=True, slots=True)
class Requests:
    """Calls and flushes, a row each: all steps of one kind, initiator and `seq`. Steps are rows of `Steps`.

    kind       int8, CALL or FLUSH
    owner      the initiator's track; its CPU is NOBODY where a target names one that cannot be
    seq        int64
    start, send, sent, done  steps, the first of several, NONE where not seen; `sent`: the last record of the mask
    first      the earliest step of any CPU
    wait       the initiator waits for the functions to end; of flushes always
    n_cpus     in the mask as START says, NONE where it says nothing
    n_asked    in the mask as SEND says
    parent     the flush that a call carries, NONE for none
    carrier    the call that carries a flush, NONE for none
    """

    kind: NDArray[np.int8]
    owner: Index
    seq: Index
    start: Index
    send: Index
    sent: Index
    done: Index
    first: Index
    wait: Flags
    n_cpus: Index
    n_asked: Index
    parent: Index
    carrier: Index


@dataclass(frozen=True, slots=True)
class Services:
    """Targets: a row for each CPU that a mask names, or that served a request; by request and CPU.

    request      row of `Requests`
    track        the target
    asked        the mask names it
    enter, left  ENTER and EXIT, rows of `Steps`, the first of several, NONE where not seen
    """

    request: Index
    track: Index
    asked: Flags
    enter: Index
    left: Index

    def take(self, rows: Index | Flags) -> Services:
        """Some of them."""
        return Services(self.request[rows], self.track[rows], self.asked[rows], self.enter[rows], self.left[rows])


class Asked(NamedTuple):
    """All of a trace.

    of     by row of `Steps` its request, NONE of BACK
    again  by row of `Steps` the row before it that says the same, of the same CPU; NONE where it is the first
    """

    steps: Steps
    of: Index
    again: Index
    requests: Requests
    services: Services


def asked(steps: Steps) -> Asked:
    """Put together what belongs together."""
    mine = np.flatnonzero(steps.kind >= 0)
    found = _grouped(steps, mine)
    of = np.full(len(steps.track), NONE)
    of[mine] = found.of
    count = len(found.kind)
    by_time = mine[np.argsort(steps.time[mine], kind="stable")]
    rows = [np.flatnonzero(steps.step == step) for step in range(EXIT + 1)]
    start, send, done = (_first(of, rows[step], count) for step in (START, SEND, DONE))
    sent = np.full(count, NONE)
    sent[of[rows[SEND]]] = rows[SEND]

    call = found.kind == CALL
    flags = np.where(call & (start >= 0), steps.words[start, 3], 0).astype(np.int64)
    services = _services(steps, of, rows)
    parent = _parents(steps, of, done)
    carrier = np.full(count, NONE)
    carrier[parent[parent >= 0]] = np.flatnonzero(parent >= 0)
    requests = Requests(
        kind=found.kind,
        owner=found.owner,
        seq=found.seq,
        start=start,
        send=send,
        sent=sent,
        done=done,
        first=_first(of, by_time, count),
        wait=~call | (flags & 1 != 0),
        n_cpus=np.where(call & (start >= 0), flags >> 16, NONE),
        n_asked=np.bincount(services.request[services.asked], minlength=count),
        parent=parent,
        carrier=carrier,
    )
    return Asked(steps, of, _again(steps, of, mine), requests, services)


class _Grouped(NamedTuple):
    """of: by step its request; the others by request."""

    of: Index
    kind: NDArray[np.int8]
    owner: Index
    seq: Index


def _grouped(steps: Steps, mine: Index) -> _Grouped:
    """Steps by kind, initiator and `seq`; where a number was used again, by time: from one START to the next."""
    kind, step, words = steps.kind[mine], steps.step[mine], steps.words[mine]
    track = steps.track[mine].astype(np.int64)
    served = step >= ENTER
    named = np.minimum(words[:, 0], NOBODY).astype(np.int64)
    owner = np.where(served, track >> TRACK_BITS << TRACK_BITS | named, track)
    seq = np.where(served, words[:, 1], words[:, 0]).astype(np.int64)
    key = owner.astype(np.uint64) << np.uint64(33) | kind.astype(np.uint64) << np.uint64(32) | seq.astype(np.uint64)
    order = np.lexsort((step, steps.time[mine], key))
    key = key[order]
    new_key = np.append(True, key[1:] != key[:-1])[: len(key)]
    begun = step[order] == START
    before = np.cumsum(begun) - begun
    opened = before > before[np.maximum.accumulate(np.where(new_key, np.arange(len(key)), 0))]
    new = new_key | (begun & opened)
    of = np.empty(len(mine), np.int64)
    of[order] = np.cumsum(new) - 1
    head = order[new]
    return _Grouped(of, kind[head], owner[head], seq[head])


def _first(of: Index, rows: Index, count: int) -> Index:
    """By request the first of these rows, in the order given; NONE where there is none."""
    found = np.full(count, NONE)
    found[of[rows[::-1]]] = rows[::-1]
    return found


def _services(steps: Steps, of: Index, rows: list[Index]) -> Services:
    send, entered, left = rows[SEND], rows[ENTER], rows[EXIT]
    named = []
    first = np.minimum(steps.words[send, 1], NOBODY).astype(np.int64)
    capture = steps.track[send].astype(np.int64) >> TRACK_BITS << TRACK_BITS
    for bit in range(WORD_CPUS):
        cpu = first + bit
        has = (steps.words[send, 2 + bit // 32] >> np.uint32(bit % 32) & np.uint32(1) != 0) & (cpu <= MAX_CPU)
        named.append(of[send[has]] << 32 | capture[has] | cpu[has])
    by_mask = np.concatenate(named)
    pairs = [of[some] << 32 | steps.track[some] for some in (entered, left)]
    every = np.unique(np.concatenate((by_mask, *pairs)))
    is_asked = np.zeros(len(every), np.bool_)
    is_asked[np.searchsorted(every, by_mask)] = True
    places = [
        _first_at(np.searchsorted(every, pair), some, len(every))
        for pair, some in zip(pairs, (entered, left), strict=True)
    ]
    return Services(every >> 32, every & 0xFFFFFFFF, is_asked, *places)


def _first_at(place: Index, rows: Index, count: int) -> Index:
    found = np.full(count, NONE)
    found[place[::-1]] = rows[::-1]
    return found


def _parents(steps: Steps, of: Index, done: Index) -> Index:
    """By request the flush that a call carries, NONE for none.

    That is the flush which its CPU has begun and not done, where the call is the first that it starts since.
    """
    row = np.arange(len(of))
    starts = steps.step == START
    flush = np.maximum.accumulate(np.where(starts & (steps.kind == FLUSH), row, NONE))
    call = np.maximum.accumulate(np.where(starts & (steps.kind == CALL), row, NONE))
    found = np.full(len(done), NONE)
    mine = np.flatnonzero(starts & (steps.kind == CALL))
    begun = flush[mine]
    ended = np.where(begun >= 0, done[of[begun]], NONE)
    earlier = np.where(mine > 0, call[mine - 1], NONE)
    carried = steps.unbroken(begun, mine) & (earlier < begun) & ((ended < 0) | (ended > mine))
    found[of[mine[carried]]] = of[begun[carried]]
    return found


def _again(steps: Steps, of: Index, mine: Index) -> Index:
    step, track = steps.step[mine], steps.track[mine]
    word = np.where(step == SEND, steps.words[mine, 1], 0)
    keys = (word, track, step, of[mine])
    order = np.lexsort((mine, *keys))
    same = np.ones(max(0, len(mine) - 1), np.bool_)
    for key in keys:
        same &= key[order[1:]] == key[order[:-1]]
    found = np.full(len(of), NONE)
    found[mine[order[1:][same]]] = mine[order[:-1][same]]
    return found

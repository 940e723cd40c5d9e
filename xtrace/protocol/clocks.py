"""By how much the clocks of CPUs differ, as far as what came before what on other CPUs shows it.

Times of one CPU can be held against another's only where their clocks agree. Where steps that cannot change places
seem to, and not just once or twice, and one constant difference for each CPU explains all of it, then it is the clocks
that differ. Where none does, as where it happens both ways, it is not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from xtrace.protocol.asked import Asked
from xtrace.protocol.steps import NEVER, Index, Spans, Steps
from xtrace.states import TRACK_BITS

MIN_SEEN: Final = 3
SEEN_SHARE: Final = 0.05
"""So many steps of two CPUs, or of one to others, must have changed places, and so large a share of them."""
MAX_ROUNDS: Final = 64
"""Differences are passed on from CPU to CPU so often at most."""
MAX_ROOM: Final = 1 << 45
"""More cycles than clocks of one host ever differ by; sums of as many as there are CPUs fit 64 bits."""


def ahead(found: Asked, *, in_turn: bool) -> dict[int, int]:
    """Cycles by which the clocks of tracks are ahead of most others, or behind, without those that are not.

    in_turn: requests of a kind go out one by one, as under a lock.
    """
    earlier, later = _pairs(found, in_turn=in_turn)
    steps = found.steps
    sender, receiver = steps.track[earlier].astype(np.int64), steps.track[later].astype(np.int64)
    room = np.clip(steps.time[later] - steps.time[earlier], -MAX_ROOM, MAX_ROOM)
    apart = sender != receiver
    pair, room = (sender << 32 | receiver)[apart], room[apart]
    if not any(_doubtful(group, room) for group in (pair, pair >> 32, pair & 0xFFFFFFFF)):
        return {}
    # All that was seen, if that fits together; else without what was seen once or twice.
    for place in (0, MIN_SEEN - 1):
        edges, least = _least(pair, room, place)
        tracks = np.unique(np.concatenate((edges >> 32, edges & 0xFFFFFFFF)))
        shift = _shifts(np.searchsorted(tracks, edges >> 32), np.searchsorted(tracks, edges & 0xFFFFFFFF), least)
        if shift is not None and len(shift):
            shift -= int(np.median(shift))
            return {track: by for track, by in zip(tracks.tolist(), shift.tolist(), strict=True) if by}
    return {}


def _doubtful(group: Index, room: Index) -> bool:
    """Whether in any group what changed places is no exception."""
    _, of = np.unique(group, return_inverse=True)
    changed = np.bincount(of, room < 0)
    return bool(((changed >= MIN_SEEN) & (changed >= SEEN_SHARE * np.bincount(of))).any())


def _least(pair: Index, room: Index, place: int) -> tuple[Index, Index]:
    """Pairs and the room that is this small in each (place 0: the least), of those that have so many."""
    order = np.lexsort((room, pair))
    first = np.flatnonzero(np.diff(pair[order], prepend=-1))
    first = first[np.diff(first, append=len(order)) > place]
    return pair[order[first]], room[order[first + place]]


def corrected(steps: Steps, by: dict[int, int]) -> Steps:
    """The steps with times as one clock would have had them. by: as `ahead` tells."""
    if not by:
        return steps
    shift = np.zeros(max(int(steps.track.max()), int(steps.spans.track.max(initial=0)), *by) + 1, np.int64)
    shift[list(by)] = list(by.values())
    spans, own = steps.spans, shift[steps.track]
    moved = Spans(spans.track, spans.begin - shift[spans.track], spans.end - shift[spans.track])
    before = np.where(steps.before == NEVER, NEVER, steps.before - own)
    return replace(steps, time=steps.time - own, before=before, spans=moved)


def _pairs(found: Asked, *, in_turn: bool) -> tuple[Index, Index]:
    """Steps, and others that cannot come before them."""
    requests, services = found.requests, found.services
    of, steps = services.request, found.steps
    asks = (requests.send if in_turn else requests.start)[of]
    pairs = [(asks, services.enter), (np.where(requests.wait[of], services.left, -1), requests.done[of])]
    if in_turn:
        sent = np.flatnonzero(requests.send >= 0)
        lock = requests.owner[sent] >> TRACK_BITS << 1 | requests.kind[sent]
        order = np.lexsort((steps.time[requests.send[sent]], lock))
        sent, lock = sent[order], lock[order]
        next_in_turn = lock[1:] == lock[:-1]
        pairs.append((requests.done[sent[:-1]][next_in_turn], requests.send[sent[1:]][next_in_turn]))
    earlier, later = (np.concatenate(side) for side in zip(*pairs, strict=True))
    both = (earlier >= 0) & (later >= 0)
    return earlier[both], later[both]


def _shifts(sender: Index, receiver: Index, room: Index) -> Index | None:
    """By how much each clock is ahead, at most 0, so that no receiver is ahead of its sender by more than the room.

    None where there is no such solution.
    """
    shift = np.zeros(int(max(sender.max(initial=-1), receiver.max(initial=-1))) + 1, np.int64)
    for _ in range(MAX_ROUNDS):
        before = shift.copy()
        np.minimum.at(shift, receiver, before[sender] + room)
        if (shift == before).all():
            return shift
    return None

"""Which design wrote a trace, by most of what tells: a violation must not make it another's."""

from __future__ import annotations

from typing import Final

import numpy as np

from xtrace.episodes.relations import Model
from xtrace.protocol.asked import CALL, FLUSH, Asked
from xtrace.protocol.steps import LATEST, NEVER, Flags, Index
from xtrace.states import TRACK_BITS

CLEAR: Final = 2
"""More than so many times as much must speak for a design as for the other."""
STRAY_SHARE: Final = 0.05
"""No more than this of what speaks for legacy may be what its lock keeps from happening."""


def recognise(found: Asked) -> Model:
    """The design that clearly most speaks for; "unknown" where none does.

    Flushes tell first: a call carries them under lockless, none does under legacy. Else calls. Lockless: one that goes
    out while another is waited for; an ENTER before SEND; DONE before the targets enter, where nobody waits for more.
    Legacy: one that starts while another is waited for, and goes out after it, which happens by chance under lockless,
    too; DONE after the targets enter, where nobody waits for more.
    """
    steps, requests, services = found.steps, found.requests, found.services
    whole = steps.unbroken(requests.start, requests.done) & (requests.send >= 0)
    flush = whole & (requests.kind == FLUSH)
    carried = flush & (requests.carrier >= 0)
    sent = (requests.kind == CALL) & (requests.parent < 0) & (requests.send >= 0)
    call = whole & sent

    entered = services.take(services.asked & (services.enter >= 0) & sent[services.request])
    of, time = entered.request, steps.time[entered.enter]
    early = time < steps.time[requests.send[of]]
    last_enter = np.full(len(whole), NEVER)
    np.maximum.at(last_enter, of, time)
    # Where not all are seen nothing is known. A CPU in its own mask is done late: it runs the function itself.
    last_enter[np.bincount(of, minlength=len(whole)) < requests.n_asked] = NEVER
    last_enter[of[entered.track == requests.owner[of]]] = NEVER
    unwaited = call & ~requests.wait & (last_enter > NEVER)
    unchecked = unwaited & (last_enter > steps.time[requests.done])

    out = np.where(requests.send >= 0, steps.time[requests.send], LATEST)
    np.minimum.at(out, of, time)
    together, in_turn = _met(found, call, out)
    by_itself, by_call = int((flush & ~carried).sum()), int(carried.sum())
    if by_itself + by_call:
        return "lockless" if by_call > CLEAR * by_itself else "legacy" if by_itself > CLEAR * by_call else "unknown"
    lockless = together + int(early.sum() + unchecked.sum())
    legacy = in_turn + int((unwaited & ~unchecked).sum())
    return "lockless" if lockless > CLEAR * legacy else "legacy" if lockless < STRAY_SHARE * legacy else "unknown"


def _met(found: Asked, call: Flags, out: Index) -> tuple[int, int]:
    """Of calls that started while another was waited for: how many went out meanwhile, and how many after."""
    steps, requests = found.steps, found.requests
    rows = np.flatnonzero(call)
    capture = requests.owner[rows] >> TRACK_BITS
    rows = rows[np.lexsort((out[rows], capture))]
    together = in_turn = 0
    for one in np.unique(capture).tolist():
        mine = rows[requests.owner[rows] >> TRACK_BITS == one]
        start, done = steps.time[requests.start[mine]], steps.time[requests.done[mine]]
        until: Index = np.maximum.accumulate(np.where(requests.wait[mine], done, NEVER))
        met = out[mine][1:] < until[:-1]
        together += int(met.sum())
        in_turn += int((~met & (start[1:] < until[:-1])).sum())
    return together, in_turn

"""What a caller does for others before it gets on: the functions that its CPU runs directly after its call."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from xtrace.grouping import rows_by

Times = NDArray[np.int64]

DIRECTLY: Final = 0.02
"""What begins within this part of the call's own time after it, or after what was served before, is directly after."""


def served_after(
    cpu: NDArray[np.integer],
    start_ns: Times,
    done_ns: Times,
    target: NDArray[np.integer],
    enter_ns: Times,
    exit_ns: Times,
) -> Times:
    """Of each episode, for how long (ns) its CPU ran others' functions directly after DONE and before its next START.

    A caller that is held up by the interrupts that came while it could not take them pays for them, although they are
    outside START and DONE: a benchmark in the hypervisor counts them as time of its call.

    cpu, start_ns, done_ns     of the episodes of one trace that no other carries
    target, enter_ns, exit_ns  of functions run, none inside another
    """
    total = np.zeros(len(cpu), np.int64)
    run = {one: rows[np.argsort(enter_ns[rows], kind="stable")] for one, rows in rows_by(target)}
    for one, rows in rows_by(cpu):
        if one in run:
            mine = rows[np.argsort(start_ns[rows], kind="stable")]
            following = np.append(start_ns[mine][1:], np.iinfo(np.int64).max)
            total[mine] = _chained(
                done_ns[mine],
                following,
                DIRECTLY * (done_ns - start_ns)[mine].astype(np.float64),
                enter_ns[run[one]],
                exit_ns[run[one]],
            )
    return total


def _chained(done: Times, following: Times, patience: NDArray[np.float64], enter: Times, leave: Times) -> Times:
    """The time in functions that follow each `done`, each within `patience` of what was before."""
    total = np.zeros(len(done), np.int64)
    active, free = np.arange(len(done)), done.copy()
    while len(active):
        place = np.searchsorted(enter, free)
        inside = place < len(enter)
        active, free, place = active[inside], free[inside], place[inside]
        direct = (enter[place] - free <= patience[active]) & (enter[place] < following[active])
        active, place = active[direct], place[direct]
        total[active] += leave[place] - enter[place]
        # A function takes some time, or the walk would not end.
        free = np.maximum(leave[place], enter[place] + 1)
    return total

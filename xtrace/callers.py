"""How many CPUs were calling at a time: the columns of the grid."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

BLOCK_NS: Final = 100_000_000
AT_WORK: Final = 2
CPU_BITS: Final = 14


def callers_at_work(start_ns: NDArray[np.int64], initiator: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Of each episode of a trace, the CPUs at work as initiators around it, its own always included.

    A CPU is at work where it starts two or more in the same tenth of a second or its neighbours: the time calibration
    that each host makes once a second does not count as a caller, and a benchmark's last calls count as what they are
    part of, although the other callers may have finished by then.
    """
    block, cpu = start_ns // BLOCK_NS, initiator.astype(np.int64)
    own = block << CPU_BITS | cpu
    around = np.concatenate([(block + step) << CPU_BITS | cpu for step in (-1, 0, 1)])
    pairs, started = np.unique(around, return_counts=True)
    working = pairs[started >= AT_WORK]
    blocks, callers = np.unique(working >> CPU_BITS, return_counts=True)
    if not len(blocks):
        return np.ones(len(block), np.int64)
    place = np.minimum(np.searchsorted(blocks, block), len(blocks) - 1)
    count = np.where(blocks[place] == block, callers[place], 0)
    alone = ~np.isin(own, working)
    return count + alone


def bucket(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """1, 2, 3-4, 5-8, …: the power of two that is not smaller."""
    return np.frexp(np.maximum(values - 1, 0).astype(np.float64))[1].astype(np.int64)


def while_all_call(
    start_ns: NDArray[np.int64], initiator: NDArray[np.integer], run: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Which episodes began while none of the callers around had made its last call.

    A caller that is held up goes on when the others have finished, and then nobody is in its way: that must not hide
    that it was. Callers are around as long as there is no silence of a tenth of a second.

    Episodes in order of run and start; run: of several traces, default one.
    """
    fresh = np.diff(start_ns, prepend=start_ns[:1]) > BLOCK_NS
    if run is not None:
        fresh |= np.diff(run, prepend=run[:1]) != 0
    burst = np.cumsum(fresh)
    callers, of = np.unique(burst << CPU_BITS | initiator.astype(np.int64), return_inverse=True)
    last = np.zeros(len(callers), np.int64)
    last[of] = start_ns
    until = np.full(int(burst[-1]) + 1 if len(burst) else 0, np.iinfo(np.int64).max)
    np.minimum.at(until, callers >> CPU_BITS, last)
    found: NDArray[np.bool_] = start_ns <= until[burst]
    return found

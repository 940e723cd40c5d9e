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

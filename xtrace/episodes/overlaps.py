"""Whether interrupts overlap as they cannot under one lock, so that what looks like one episode may be several.

Under a lock the targets of an episode are interrupted together, and the next is sent when all have answered. So on CPUs
in guests the interrupts of an episode come within a small part of the time that one takes to handle. Of requests that
need no lock, those that overlap come at any time in it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

LATE: Final = 0.5
"""Behind this part of the handling time, the last interrupt of an episode is late."""
MIN_LATE: Final = 5
MAX_LATE_SHARE: Final = 0.01
"""So many, and more than this share, are not found under a lock (docs/inference.md)."""


def overlapping(spread: NDArray[np.float64], scale: NDArray[np.float64]) -> float:
    """Share of these episodes that is probably made of several; 0 where a lock explains all of them.

    spread  from the first interrupt to the last, of episodes with several targets that were all in guests
    scale   how long handling one takes, in the same unit
    """
    late = int((spread > LATE * scale).sum())
    if late < MIN_LATE or late <= MAX_LATE_SHARE * len(spread):
        return 0.0
    # Those that overlap but are not late come as often in the time before.
    return min(late / len(spread) / (1 - LATE), 1.0)

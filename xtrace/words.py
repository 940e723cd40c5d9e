"""Words of an xentrace file: how long the records are that they make."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Offsets = NDArray[np.int64]

MAX_RECORD_WORDS = 10
"""Header, two cycle words, seven payload words (xen/include/public/trace.h)."""

RECORD_WORDS = np.array([1 + (top & 7) + 2 * (top >> 3) for top in range(16)], np.int64)
"""Length of a record in words by the four highest bits of its header."""

WORDS_OF: list[int] = RECORD_WORDS.tolist()
"""The same for plain loops."""

HEADER_SHIFT = np.uint32(28)


def ends_at(words: Words, starts: Offsets) -> int:
    """Word offset behind the last record of `starts`: `len(words)` where the walk fits exactly."""
    if not len(starts):
        return 0
    last = int(starts[-1])
    return last + int(RECORD_WORDS[int(words[last]) >> 28])


def tsc_at(words: Words, at: Offsets) -> NDArray[np.uint64]:
    """Cycle counts of the timestamped records at these word offsets; 0 where the offset is negative."""
    if not len(words):
        return np.zeros(len(at), np.uint64)
    tsc = words.take(at + 2, mode="clip").astype(np.uint64)
    tsc <<= np.uint64(32)
    tsc |= words.take(at + 1, mode="clip")
    tsc[at < 0] = 0
    return tsc

"""Small numbers for large ones, as many as there is room for: a file may be made to hold any number of names."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

LIMIT: Final = 4096


class Numbering:
    """Numbers codes from 0 as they come; when there are `limit`, others get the number of what stands for the rest."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.codes: list[int] = []
        self._limit = limit
        self._known: dict[int, int] = {}

    def of(self, codes: Ints, rest: Ints) -> Ints:
        """The number of each code; rest: the code that it counts as where there is no more room, always numbered."""
        distinct, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        pairs = zip(distinct.tolist(), rest[first].tolist(), strict=True)
        numbers = [self._number(code, instead) for code, instead in pairs]
        found: Ints = np.array(numbers, np.int64)[inverse]
        return found

    def _number(self, code: int, instead: int) -> int:
        if code not in self._known:
            if len(self.codes) >= self._limit and code != instead:
                return self._number(instead, instead)
            self._known[code] = len(self.codes)
            self.codes.append(code)
        return self._known[code]

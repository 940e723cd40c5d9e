"""Sums by what rows have in common, in any number of columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from xtrace.questions.requests import Index

_DENSE: Final = 1 << 24
"""Below this, numbers are ranked by a table of all."""


class Groups:
    """Rows that have all of these columns (int64, −1 or more) in common; keys: of each group, ascending."""

    def __init__(self, *columns: Index) -> None:
        self._code = np.zeros(len(columns[0]), np.int64)
        for column in columns:
            self._code = _ranks(self._code * (column.max(initial=-1) + 2) + column + 1)
        first = np.zeros(self._code.max(initial=-1) + 1, np.int64)
        # Of several values for one place the last one stays.
        first[self._code[::-1]] = np.arange(len(self._code))[::-1]
        self.keys = list(zip(*(column[first].tolist() for column in columns), strict=True))

    def sums(self, *values: Index) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The key of each group, and how many rows it has with the sums of their values: exact, as no float is."""
        total = np.zeros((len(values), len(self.keys)), np.int64)
        for sums, of in zip(total, values, strict=True):
            np.add.at(sums, self._code, of)
        count = np.bincount(self._code, minlength=len(self.keys)).tolist()
        return zip(self.keys, zip(count, *total.tolist(), strict=True), strict=True)

    def longest(self, values: Index) -> list[int]:
        """The largest value of each group, of values not negative."""
        found = np.zeros(len(self.keys), np.int64)
        np.maximum.at(found, self._code, values)
        return found.tolist()


def _ranks(numbers: Index) -> Index:
    """Of numbers not negative, how many smaller distinct ones there are; few and small ones need no sorting."""
    highest = int(numbers.max(initial=0))
    if highest >= _DENSE:
        return np.unique(numbers, return_inverse=True)[1]
    there = np.zeros(highest + 1, np.bool_)
    there[numbers] = True
    ranks: Index = (np.cumsum(there) - 1)[numbers]
    return ranks

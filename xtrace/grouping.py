"""Rows by the value that they have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def rows_by(values: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each distinct value of integers that are not negative, ascending, and the rows that have it, ascending."""
    # Sorting 16-bit numbers takes linear time.
    narrow = values.astype(np.uint16) if values.max(initial=0) < 1 << 16 else values
    order = np.argsort(narrow, kind="stable")
    begin = np.flatnonzero(np.diff(values[order], prepend=-1))
    for first, rows in zip(begin.tolist(), np.split(order, begin[1:]), strict=False):
        yield int(values[order[first]]), rows

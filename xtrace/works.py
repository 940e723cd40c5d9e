"""What episodes do, by name: the function of a call, the kind of a flush."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xtrace import arrow
from xtrace.parsers.vectors import FLUSH_FLAGS


class Works(NamedTuple):
    """Distinct names, ascending, and which of them each episode has (int64)."""

    names: list[str]
    code: NDArray[np.int64]


def works(episodes: pa.Table, rows: NDArray[np.int64], kind: str) -> Works:
    """What some rows of a table of episodes, all of this kind, do; a START that was not seen counts as 0."""
    column = episodes["func" if kind == "call" else "flush_flags"]
    values, first, codes = np.unique(arrow.values(column)[rows], return_index=True, return_inverse=True)
    if kind == "flush":
        names = [flush_name(flags) for flags in values.tolist()]
    else:
        known = episodes["func_name"]
        names = [
            known[row].as_py() or f"0x{address:x}"
            for row, address in zip(rows[first].tolist(), values.tolist(), strict=True)
        ]
    # Two addresses may lie in one function, and two sets of bits differ only in bits without a name.
    distinct = sorted(set(names))
    return Works(distinct, np.array([distinct.index(name) for name in names], np.int64)[codes])


def flush_name(flags: int) -> str:
    """A flush by its FLUSH_* bits, `TLB|VA_VALID`, without the order."""
    names = [name.removeprefix("FLUSH_") for bit, name in FLUSH_FLAGS.items() if flags & bit]
    return "|".join(names) if names else f"0x{flags:x}"

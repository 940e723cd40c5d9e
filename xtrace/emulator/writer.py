"""Records → the bytes of an xentrace file, through the declarations in `parsers`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray

from xtrace import columns
from xtrace.emulator.log import Layout
from xtrace.emulator.rings import LOST, Capture

WORD = np.uint64(0xFFFF_FFFF)


def file_bytes(capture: Capture, tsc_offsets: Mapping[int, int]) -> bytes:
    """The file; tsc_offsets: by how many cycles the TSC of a CPU is ahead, 0 where it is not named."""
    rows = capture.rows
    layouts: dict[Layout, list[int]] = {}
    for position, index in enumerate(capture.order):
        layouts.setdefault(rows[index][2], []).append(position)
    sizes = [rows[index][2].size_bytes // 4 for index in capture.order]
    begins = np.fromiter(accumulate(chain((0,), sizes)), np.int64, len(sizes) + 1)
    words = np.zeros(int(begins[-1]), "<u4")
    for layout, positions in layouts.items():
        place = begins[positions]
        chosen = [rows[capture.order[position]] for position in positions]
        words[place] = layout.header
        if layout.event.timestamped:
            tsc = np.array([row[1] + tsc_offsets.get(row[0], 0) for row in chosen], np.uint64)
            words[place + 1] = tsc & WORD
            words[place + 2] = tsc >> np.uint64(32)
        first = 1 + 2 * layout.event.timestamped
        fields = [row[3] for row in chosen]
        if layout is LOST:
            # It names the time of the first record lost, by the same clock.
            fields = [(*what, first + tsc_offsets.get(row[0], 0)) for row in chosen for *what, first in [row[3]]]
        payload = _payload(layout, fields)
        for word in range(payload.shape[1]):
            words[place + first + word] = payload[:, word]
    return words.tobytes()


def _payload(layout: Layout, fields: list[tuple[int, ...]]) -> NDArray[np.uint32]:
    """The payload words of records of one layout, uint32 (records, words)."""
    count = len(fields)
    if layout.event.words is None or columns.dtype_of(layout.event.payload) is None:
        return np.zeros((count, layout.header >> 28 & 7), np.uint32)
    names = columns.names_of(layout.event)
    if not names:
        return np.zeros((count, 0), np.uint32)
    # Masks and addresses take all 64 bits; what is negative is cut as a store in C does it.
    values = np.array([[value % (1 << 64) for value in one] for one in fields], np.uint64)
    return columns.encode(layout.event, {name: values[:, at] for at, name in enumerate(names)}, count)

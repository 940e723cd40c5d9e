"""Hypervisor symbols: an `nm` or `System.map` file, three columns: address, type, name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xtrace.errors import InputError

MAX_OFFSET = 1 << 20
"""An address further than this behind a symbol belongs to none: no hypervisor function is a megabyte long."""


INTERRUPT_ONLY = "(interrupt only)"
"""Stands for the function of a call that has none."""


class Symbols:
    """Names for hypervisor text addresses, by the nearest symbol at or before them."""

    def __init__(self, addresses: list[int], names: list[str]) -> None:
        order = sorted(range(len(addresses)), key=addresses.__getitem__)
        self._addresses = np.array([addresses[row] for row in order], np.uint64)
        self._names = [names[row] for row in order]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Symbols:
        """The symbols of a file. Raises InputError naming the first line that is not `address type name`."""
        addresses, names = [], []
        try:
            with Path(path).open(encoding="utf-8", errors="replace") as lines:
                for number, line in enumerate(lines, 1):
                    parts = line.split()
                    if not parts:
                        continue
                    try:
                        address, _, name = int(parts[0], 16), *parts[1:3]
                    except ValueError:
                        # nm lists undefined symbols without an address: they name nothing here.
                        if len(parts) == 2 and parts[0] in {"U", "w", "v"}:
                            continue
                        raise InputError(
                            f"{path}, line {number}: not `address type name`; give nm's output or a System.map"
                        ) from None
                    if 0 <= address < 1 << 64:
                        addresses.append(address)
                        names.append(name)
        except OSError as reason:
            raise InputError(f"{path}: cannot be read: {reason.strerror}") from None
        if not names:
            raise InputError(f"{path}: holds no symbols; give nm's output or a System.map")
        return cls(addresses, names)

    def name(self, address: int) -> str:
        """`symbol`, `symbol+0x1c`, or the bare address where no symbol is near."""
        place = int(np.searchsorted(self._addresses, np.uint64(address), side="right")) - 1
        if place < 0 or address - int(self._addresses[place]) >= MAX_OFFSET:
            return f"0x{address:x}"
        offset = address - int(self._addresses[place])
        return self._names[place] if offset == 0 else f"{self._names[place]}+0x{offset:x}"


def function_names(addresses: NDArray[np.uint64], symbols: Symbols | None) -> list[str]:
    """What to call each called function: its symbol, its address, or that it is none at all."""
    return [INTERRUPT_ONLY if not one else symbols.name(one) if symbols else f"0x{one:x}" for one in addresses.tolist()]

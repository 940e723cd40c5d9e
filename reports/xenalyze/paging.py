"""Page-table indices of an address, and accesses to linear page tables, as Windows has them."""

from __future__ import annotations

from typing import Final, NamedTuple

LONG_MODE_LEVELS: Final = 4
NO_ENTRY: Final = (1 << 64) - 1
SELF_MAP: Final = {2: 0x300, 4: 0x1ED}
"""The slot through which page tables show in the address space, by number of levels."""


class Place(NamedTuple):
    """indices by level, lowest first; level and highest address of the entry where va is one in a linear table."""

    indices: tuple[int, int, int, int, int]
    level: int
    entry_of: int


def linear(va: int, levels: int) -> Place:
    """What an address is to a guest with so many levels of page tables."""
    if levels == 4:
        return _long(va)
    if levels == 3:
        return _pae(va)
    if levels == 2:
        return _two(va)
    return Place((0, 0, 0, 0, 0), 0, NO_ENTRY)


def _two(va: int) -> Place:
    low, middle, high = va >> 2 & 0x3FF, va >> 12 & 0x3FF, va >> 22 & 0x3FF
    indices = (low, middle, high, 0, 0)
    if high != SELF_MAP[2]:
        return Place(indices, 0, NO_ENTRY)
    if middle == SELF_MAP[2]:
        return Place(indices, 2, low << 22 & 0xFFFFFFFF | (1 << 22) - 1)
    return Place(indices, 1, middle << 22 & 0xFFFFFFFF | low << 12 | (1 << 12) - 1)


def _pae(va: int) -> Place:
    low, one, two, three = va >> 3 & 0x1FF, va >> 12 & 0x1FF, va >> 21 & 0x1FF, va >> 30 & 3
    indices = (low, one, two, three, 0)
    if three != 3 or two >> 2:
        return Place(indices, 0, NO_ENTRY)
    if two == 3 and not one >> 2:
        if one == 3 and not low >> 2:
            return Place(indices, 3, low << 30 & 0xFFFFFFFF | (1 << 30) - 1)
        return Place(indices, 2, one << 30 & 0xFFFFFFFF | two << 21 | (1 << 21) - 1)
    return Place(indices, 1, two << 30 & 0xFFFFFFFF | one << 21 | low << 12 | (1 << 12) - 1)


def _long(va: int) -> Place:
    indices = (va >> 3 & 0x1FF, *(va >> shift & 0x1FF for shift in (12, 21, 30, 39)))
    low, one, two, three, four = indices
    place = (low, one, two, three, four)
    level = 0
    while level < LONG_MODE_LEVELS and indices[4 - level] == SELF_MAP[4]:
        level += 1
    if not level:
        return Place(place, 0, NO_ENTRY)
    shift = 12 + 9 * (level - 1)
    entry = (1 << shift) - 1
    for index in indices[: 5 - level]:
        entry |= index << shift
        shift += 9
    if entry >> 47 & 1:
        entry |= NO_ENTRY & ~((1 << 48) - 1)
    return Place(place, level, entry)

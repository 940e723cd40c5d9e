"""The few building blocks every payload is declared with.

Fields sit at any multiple of their position, never padded by Construct: Xen packs its records, so a 64-bit
value at offset 4 is common. Fields whose name starts with `pad` or `stale` carry nothing (see `is_filler`).
"""

from __future__ import annotations

from typing import Any

from construct import (
    Adapter,
    Array,
    Construct,
    Container,
    GreedyRange,
    Int8ul,
    Int16sl,
    Int16ul,
    Int32sl,
    Int32ul,
    Int64ul,
    Struct,
)

u8, u16, u32, u64 = Int8ul, Int16ul, Int32ul, Int64ul
i16, i32 = Int16sl, Int32sl

EMPTY = Struct()
"""A record whose id says it all: no payload words."""


class Bits(Adapter):  # type: ignore[type-arg]
    """An unsigned unit split in named bit ranges, `name=(lowest, highest)`, bit 0 the least significant.

    Parses to a Container of the ranges in declared order; builds from a mapping, absent ranges being 0.
    """

    def __init__(self, unit: Construct[int, int], **ranges: tuple[int, int]) -> None:
        super().__init__(unit)
        self.ranges = ranges

    def _decode(self, obj: int, context: Any, path: str) -> Container[int]:
        return Container({name: obj >> low & (1 << high - low + 1) - 1 for name, (low, high) in self.ranges.items()})

    def _encode(self, obj: Any, context: Any, path: str) -> int:
        return sum((obj.get(name, 0) & (1 << high - low + 1) - 1) << low for name, (low, high) in self.ranges.items())


def words_of(name: str) -> Struct:
    """A payload of any number of opaque 32-bit words, under one field `name`."""
    return Struct(name / GreedyRange(u32))


def is_filler(name: str) -> bool:
    """Whether a field of this name carries nothing: padding, or bytes left over from older records."""
    return name.startswith(("pad", "stale"))


__all__ = [
    "EMPTY",
    "Array",
    "Bits",
    "Struct",
    "i16",
    "i32",
    "is_filler",
    "u8",
    "u16",
    "u32",
    "u64",
    "words_of",
]

"""A Construct payload as NumPy columns: one declaration, two engines.

`dtype_of` walks a fixed-size Struct and gives the structured dtype with the same bytes; `decode` cuts whole
records with it. The payloads that are no fixed struct have an adapter here, beside the rule it replaces:
opaque words stay a matrix, packed hypercalls unfold by their argument bits. Tests hold both engines equal.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from construct import Array, Construct, FormatField, GreedyRange, Renamed, Struct
from numpy.typing import NDArray

from xtrace.parsers.event import Event
from xtrace.parsers.fields import Bits
from xtrace.parsers.pv import Packed

Column = NDArray[Any]
Columns = dict[str, Column]


@cache
def dtype_of(payload: Construct[Any, Any]) -> np.dtype[Any] | None:
    """The little-endian structured dtype with the byte layout of `payload`, None where it is not fixed."""
    if not isinstance(payload, Struct):
        return None
    fields = []
    named: Any
    for named in payload.subcons:
        kind = _field_type(named.subcon)
        if kind is None:
            return None
        fields.append((str(named.name), *kind))
    return np.dtype(fields)


def _field_type(spec: Any) -> tuple[Any, ...] | None:
    if isinstance(spec, Renamed | Bits):
        return _field_type(spec.subcon)
    if isinstance(spec, FormatField):
        # By length, not by format character: Construct's "L" has four bytes, NumPy's has eight.
        return (f"<{'i' if spec.fmtstr[-1].islower() else 'u'}{spec.length}",)
    if isinstance(spec, Array):
        inner = _field_type(spec.subcon)
        return None if inner is None else (*inner, (spec.sizeof() // spec.subcon.sizeof(),))
    return None


def decode(event: Event, words: NDArray[np.uint32]) -> Columns:
    """The fields of `n` records of one event and one length.

    words: uint32 (n, payload words), C-contiguous. Returns one array of length n for each field, in declared
    order, bit ranges under their own names; fields that repeat are matrices of n rows, absent arguments of a
    packed hypercall are masked arrays.
    """
    kind = dtype_of(event.payload)
    if kind is None:
        return _decode_variable(event, words)
    columns: Columns = {}
    if not kind.fields:
        return columns
    records = np.ascontiguousarray(words, "<u4").view(kind)[:, 0]
    for named in event.payload.subcons:  # type: ignore[attr-defined]
        column = records[named.name]
        if isinstance(named.subcon, Bits):
            columns.update(_split(column, named.subcon))
        else:
            columns[named.name] = column
    return columns


def encode(event: Event, columns: Columns, count: int) -> NDArray[np.uint32]:
    """The payload words of `count` records of a fixed-size event: `decode` the other way.

    columns: as `decode` returns them; values are cut to their field's width, as a store in C does. Returns uint32
    (count, payload words). Raises ValueError for an event whose payload is not fixed.
    """
    kind = dtype_of(event.payload)
    if kind is None:
        raise ValueError(f"{event.name} has no fixed layout")
    records = np.zeros(count, kind)
    for named in event.payload.subcons if kind.fields else ():  # type: ignore[attr-defined]
        field = records[named.name]
        if isinstance(named.subcon, Bits):
            for name, (low, high) in named.subcon.ranges.items():
                part = columns[name].astype(np.uint64) & np.uint64((1 << high - low + 1) - 1)
                field |= (part << np.uint64(low)).astype(field.dtype)
        else:
            records[named.name] = columns[named.name].astype(field.dtype)
    return records.view("<u4").reshape(count, kind.itemsize // 4)


def names_of(event: Event) -> tuple[str, ...]:
    """The fields of a fixed-size event in the order of `decode`'s columns."""
    names: list[str] = []
    for named in getattr(event.payload, "subcons", ()):
        names += named.subcon.ranges if isinstance(named.subcon, Bits) else [str(named.name)]
    return tuple(names)


def _split(column: Column, bits: Bits) -> Columns:
    kind = column.dtype.type
    return {name: column >> kind(low) & kind((1 << high - low + 1) - 1) for name, (low, high) in bits.ranges.items()}


def _decode_variable(event: Event, words: NDArray[np.uint32]) -> Columns:
    subcons = getattr(event.payload, "subcons", [])
    if len(subcons) == 1 and isinstance(subcons[0].subcon, GreedyRange):
        return {str(subcons[0].name): words}
    return _unpack_hypercall(words)


def _unpack_hypercall(words: NDArray[np.uint32]) -> Columns:
    """Word 0 holds the number and six 2-bit argument sizes, the arguments follow (xen/common/trace.c).

    `rest`, the words no argument accounts for, is an object array of lists: Xen writes no such record.
    """
    count, length = words.shape
    if not length:
        return {}
    op_word: Any = Packed.subcons[0]
    columns = _split(words[:, 0], op_word.subcon)
    position = np.ones(count, np.int64)
    padded = np.pad(words, ((0, 0), (0, 2))).astype(np.uint64)
    row = np.arange(count)
    for argument in range(6):
        size = columns[f"A{argument}"].astype(np.int64)
        size[size == 3] = 0
        whole = (size > 0) & (position + size <= length)
        value = padded[row, position] | np.where(size == 2, padded[row, position + 1] << np.uint64(32), np.uint64(0))
        columns[f"arg{argument}"] = np.ma.masked_array(value, ~whole)
        position += np.where(whole, size, 0)
    rest = np.empty(count, object)
    rest[:] = [one[begin:] for one, begin in zip(words.tolist(), position.tolist(), strict=True)]
    columns["rest"] = rest
    return columns

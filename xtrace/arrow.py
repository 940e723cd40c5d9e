"""NumPy to Arrow and back by their buffers.

pyarrow's own converters load pandas first, which takes longer than most of what the command line does with the
result; buffers are the same bytes without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def array(values: NDArray[Any], kind: pa.DataType, missing: NDArray[np.bool_] | None = None) -> pa.Array:
    """An Arrow array of an integer, float or bool type; null where `missing`."""
    if pa.types.is_boolean(kind):
        data = np.packbits(values, bitorder="little")
    else:
        data = np.ascontiguousarray(values, kind.to_pandas_dtype())
    validity = None if missing is None else _validity(missing)
    return pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(data)])


def strings(texts: Sequence[str | None], codes: NDArray[np.integer] | None = None) -> pa.StringArray:
    """An Arrow array of texts, null where there is None; codes: which of them stands where, default each once."""
    codes = np.arange(len(texts)) if codes is None else codes
    encoded = [(text or "").encode() for text in texts]
    size = np.array([len(one) for one in encoded], np.int64)
    length = size[codes]
    ends = np.append(0, np.cumsum(length))
    source = np.repeat((np.cumsum(size) - size)[codes] - ends[:-1], length) + np.arange(ends[-1])
    data = np.frombuffer(b"".join(encoded), np.uint8)[source]
    validity = _validity(np.array([text is None for text in texts], np.bool_)[codes])
    offsets = pa.py_buffer(ends.astype(np.int32))
    return pa.StringArray.from_buffers(len(codes), offsets, pa.py_buffer(data), validity)


def binary(data: bytes, sizes: NDArray[np.int64]) -> pa.BinaryArray:
    """An Arrow array of byte strings of these sizes, one behind the other in `data`."""
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(sizes), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def lists(lengths: NDArray[np.int64], items: pa.Array, missing: NDArray[np.bool_]) -> pa.ListArray:
    """An Arrow array of lists of these lengths, their items one behind the other; null where `missing`."""
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    buffers = [_validity(missing), pa.py_buffer(offsets)]
    return pa.Array.from_buffers(pa.list_(items.type), len(lengths), buffers, children=[items])


def _validity(missing: NDArray[np.bool_]) -> pa.Buffer | None:
    return pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None


def values(column: pa.ChunkedArray, null: int = 0) -> NDArray[Any]:
    """A column of an integer, float or bool type as NumPy; `null` where it is null."""
    parts = [_values(chunk, null) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.zeros(0, column.type.to_pandas_dtype())


def equals(column: pa.ChunkedArray, text: str) -> NDArray[np.bool_]:
    """Which rows of a column of few distinct texts have this one."""
    parts = [np.zeros(0, np.bool_)]
    for chunk in column.chunks:
        same = np.array([one == text for one in chunk.dictionary.to_pylist()], np.bool_)
        parts.append(same[values(pa.chunked_array([chunk.indices]))])
    return np.concatenate(parts)


def _values(chunk: pa.Array, null: int) -> NDArray[Any]:
    validity, data = chunk.buffers()
    if pa.types.is_boolean(chunk.type):
        found: NDArray[Any] = _bits(data, chunk)
    else:
        kind = np.dtype(chunk.type.to_pandas_dtype())
        found = np.frombuffer(data, kind, len(chunk), chunk.offset * kind.itemsize) if len(chunk) else np.zeros(0, kind)
    if validity is not None and chunk.null_count:
        found = np.where(_bits(validity, chunk), found, np.array(null, found.dtype))
    return found


def _bits(data: pa.Buffer, chunk: pa.Array) -> NDArray[np.bool_]:
    unpacked = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little") if len(chunk) else np.zeros(0, np.uint8)
    return unpacked[chunk.offset : chunk.offset + len(chunk)].astype(np.bool_)

"""Column contracts: what a method that gives a frame promises, in its docstring, from the schema that it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import pyarrow as pa

from xtrace.episodes.tables import NULLABLE

Method = TypeVar("Method", bound=Callable[..., Any])


def gives(columns: Iterable[pa.Field]) -> Callable[[Method], Method]:
    """A method that gives a frame of these columns in this order; its docstring tells name, dtype, unit and meaning."""

    def promise(method: Method) -> Method:
        method.__doc__ = "\n\n        ".join((method.__doc__ or "", *_paragraphs(columns)))
        return method

    return promise


def _paragraphs(columns: Iterable[pa.Field]) -> Iterator[str]:
    rows = [(one.name, dtype_of(one), _text(one, b"unit"), _text(one, b"meaning")) for one in columns]
    widths = [max(len(row[place]) for row in rows) for place in range(3)]
    lines = (
        "  ".join((*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3])) for row in rows
    )
    yield "\n        ".join(lines)


def _text(field: pa.Field, key: bytes) -> str:
    text = field.metadata[key].decode()
    return "" if key == b"unit" and text == "none" else text


def dtype_of(field: pa.Field) -> str:
    """The pandas dtype of a column, as `episodes.tables.to_pandas` makes it."""
    kind = field.type
    if pa.types.is_dictionary(kind):
        return "category"
    if pa.types.is_string(kind):
        return "str"
    if pa.types.is_list(kind):
        return "object"
    if field.nullable:
        return NULLABLE[kind]
    return "float64" if kind == pa.float64() else str(kind)

"""Column contracts: what a method that gives a frame promises, in its docstring, from the schema that it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from xtrace.episodes.tables import dtype_of

if TYPE_CHECKING:
    import pandas as pd

Method = TypeVar("Method", bound=Callable[..., Any])


def gives(columns: Iterable[pa.Field]) -> Callable[[Method], Method]:
    """A method that gives a frame of these columns in this order; its docstring tells name, dtype, unit and meaning."""

    def promise(method: Method) -> Method:
        listed = "\n        ".join(_listed(columns))
        method.__doc__ = f"{method.__doc__ or ''}\n\n        {listed}"
        return method

    return promise


def _listed(columns: Iterable[pa.Field]) -> Iterator[str]:
    """A line a column: name, dtype, unit and meaning, aligned."""
    rows = [(one.name, dtype_of(one), _text(one, b"unit"), _text(one, b"meaning")) for one in columns]
    widths = [max(len(row[place]) for row in rows) for place in range(3)]
    for *cells, meaning in rows:
        yield "  ".join((*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), meaning))


def _text(field: pa.Field, key: bytes) -> str:
    text: str = field.metadata[key].decode()
    return "" if key == b"unit" and text == "none" else text


def frame(rows: Iterable[Mapping[str, Any]], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Rows as a frame of these columns, by name, in this order and of these dtypes."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(dtypes)).astype(dict(dtypes))

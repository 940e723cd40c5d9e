"""Arrow arrays made from buffers against pyarrow's own."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtrace import arrow

texts = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=6), min_size=1, max_size=6)


def same(found: pa.Array, expected: pa.Array) -> None:
    found.validate(full=True)
    assert found.equals(expected)
    assert found.null_count == expected.null_count


@given(texts, st.data())
def test_strings(values: list[str | None], data: st.DataObject) -> None:
    same(arrow.strings(values), pa.array(values, pa.string()))
    codes = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=12))
    same(arrow.strings(values, np.array(codes, np.int64)), pa.array([values[code] for code in codes], pa.string()))


@given(st.lists(st.none() | st.lists(st.integers(0, 0xFFFF), max_size=4)))
def test_lists(values: list[list[int] | None]) -> None:
    lengths = np.array([len(one or []) for one in values], np.int64)
    items = arrow.array(np.array([item for one in values for item in one or []], np.uint16), pa.uint16())
    found = arrow.lists(lengths, items, np.array([one is None for one in values], np.bool_))
    same(found, pa.array(values, pa.list_(pa.uint16())))


@pytest.mark.parametrize("kind", [pa.bool_(), pa.uint16(), pa.int64(), pa.float64()])
@given(st.lists(st.none() | st.integers(0, 1), max_size=20))
def test_arrays(kind: pa.DataType, values: list[int | None]) -> None:
    data = np.array([one or 0 for one in values], kind.to_pandas_dtype())
    missing = np.array([one is None for one in values], np.bool_)
    found = arrow.array(data, kind, missing)
    same(found, pa.array([None if one is None else kind.to_pandas_dtype()(one) for one in values], kind))
    back = arrow.values(pa.chunked_array([found, found[1:]], kind), null=1)
    filled = [1 if one is None else one for one in values]
    assert back.tolist() == filled + filled[1:]

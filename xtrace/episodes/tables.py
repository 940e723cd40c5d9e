"""The two tables of the project, as Arrow schemas: the same in Python, Parquet and JSON (docs/tables.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xtrace import arrow

if TYPE_CHECKING:
    import pandas as pd

NULL: Final = np.int64(np.iinfo(np.int64).min)
"""Stands for "missing" in the integer arrays tables are made from; every table has null in its place."""


def _field(name: str, kind: Any, meaning: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


EPISODES: Final = pa.schema(
    [
        _field("episode", pa.uint64(), "number, in order of start"),
        _field("kind", pa.dictionary(pa.int8(), pa.string()), "call or flush"),
        _field("initiator", pa.uint16(), "CPU that asked"),
        _field("seq", pa.uint32(), "the initiator's own count, by kind"),
        _field("start_ns", pa.int64(), "START, ns since the trace's first timestamp", nullable=True),
        _field("send_ns", pa.int64(), "first SEND", nullable=True),
        _field("done_ns", pa.int64(), "DONE", nullable=True),
        _field("lock_wait_ns", pa.int64(), "SEND − START", nullable=True),
        _field("total_ns", pa.int64(), "DONE − START: what the caller paid", nullable=True),
        _field("n_targets", pa.uint32(), "CPUs in the mask", nullable=True),
        _field("targets", pa.list_(pa.uint16()), "CPUs in the mask, ascending", nullable=True),
        _field("func", pa.uint64(), "calls: address of the function, 0 = only take the interrupt", nullable=True),
        _field("func_name", pa.string(), "calls: its symbol, where a map was given", nullable=True),
        _field("wait", pa.bool_(), "calls: the caller waits for the function to end", nullable=True),
        _field("flush_flags", pa.uint32(), "flushes: Xen's FLUSH_* bits", nullable=True),
        _field("va", pa.uint64(), "flushes: address", nullable=True),
        _field("parent", pa.uint64(), "calls: episode of the flush that this call carries", nullable=True),
        _field(
            "inflight",
            pa.uint32(),
            "episodes of its kind in flight when it started, itself included",
            nullable=True,
        ),
        _field("straggler", pa.uint16(), "target whose EXIT came last", nullable=True),
        _field("domain", pa.uint16(), "domain on the initiator at START", nullable=True),
        _field("vcpu", pa.uint16(), "vCPU on the initiator at START", nullable=True),
        _field("evidence", pa.dictionary(pa.int8(), pa.string()), "exact or inferred"),
        _field("confidence", pa.float64(), "0 to 1; 1 where exact"),
        _field("complete", pa.bool_(), "START, SEND, DONE and every target's ENTER and EXIT were seen"),
        _field(
            "vector",
            pa.uint8(),
            "interrupt vector it uses, where the hypervisor model is known",
            nullable=True,
        ),
    ]
)

DELIVERIES: Final = pa.schema(
    [
        _field("episode", pa.uint64(), "row of `episodes`"),
        _field("cpu", pa.uint16(), "target"),
        _field("enter_ns", pa.int64(), "ENTER, ns since the trace's first timestamp", nullable=True),
        _field("exit_ns", pa.int64(), "EXIT", nullable=True),
        _field(
            "delivery_ns",
            pa.int64(),
            "ENTER − SEND; a little negative where a target was already serving",
            nullable=True,
        ),
        _field("execution_ns", pa.int64(), "EXIT − ENTER", nullable=True),
        _field(
            "queue_ns",
            pa.int64(),
            "part of delivery in which the target ran other initiators' functions",
            nullable=True,
        ),
        _field("domain", pa.uint16(), "domain on the target at ENTER", nullable=True),
        _field("vcpu", pa.uint16(), "vCPU on the target at ENTER", nullable=True),
        _field(
            "state",
            pa.dictionary(pa.int8(), pa.string()),
            "what the interrupt hit: guest, hypervisor, idle, unknown",
        ),
    ]
)


def arrow_table(schema: pa.Schema, columns: Mapping[str, Any]) -> pa.Table:
    """A table of `schema` from one array a column; NULL in integer arrays becomes null."""
    return pa.Table.from_arrays([_array(field, columns[field.name]) for field in schema], schema=schema)


def _array(field: pa.Field, values: Any) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ma.MaskedArray):
        return arrow.array(values.data, field.type, np.ma.getmaskarray(values))
    if field.nullable and values.dtype == np.int64:
        missing = values == NULL
        return arrow.array(np.where(missing, 0, values), field.type, missing)
    return arrow.array(values, field.type)


def dictionary(codes: NDArray[np.int8], names: tuple[str, ...]) -> pa.DictionaryArray:
    """A column of few distinct texts."""
    return pa.DictionaryArray.from_arrays(arrow.array(codes, pa.int8()), arrow.strings(names))


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """The table as a frame: NumPy columns where nothing can be missing, pandas' nullable ones where it can.

    Texts of few values become categories, lists become objects.
    """
    import pandas as pd

    nullable = {
        pa.int64(): pd.Int64Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
        pa.uint16(): pd.UInt16Dtype(),
        pa.uint8(): pd.UInt8Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    columns: dict[str, Any] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        mapper = nullable.get if field.nullable else None
        columns[field.name] = column.to_pandas(types_mapper=mapper)
    return pd.DataFrame(columns)

"""The tables of episodes as Arrow schemas: the same in Python, Parquet and JSON (docs/tables.md)."""

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


UNITS: Final = {"ns": "ns", "cycles": "cycles", "bytes": "bytes", "hz": "Hz", "tsc": "cycles"}
"""Units by the last part of a column's name."""


def column(name: str, kind: Any, meaning: str, *, nullable: bool = False) -> pa.Field:
    """A column of a table: its metadata say `meaning` and `unit`, which is `none` for names, numbers and counts."""
    unit = UNITS.get(name.rpartition("_")[2], "none")
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit, "meaning": meaning})


EPISODES: Final = pa.schema(
    [
        column("episode", pa.uint64(), "number, in order of start"),
        column("kind", pa.dictionary(pa.int8(), pa.string()), "call or flush"),
        column("initiator", pa.uint16(), "CPU that asked"),
        column("seq", pa.uint32(), "the initiator's own count, by kind"),
        column("start_ns", pa.int64(), "START, ns since the trace's first timestamp", nullable=True),
        column("send_ns", pa.int64(), "first SEND", nullable=True),
        column("done_ns", pa.int64(), "DONE", nullable=True),
        column("lock_wait_ns", pa.int64(), "SEND − START", nullable=True),
        column("total_ns", pa.int64(), "DONE − START: what the caller paid", nullable=True),
        column("n_targets", pa.uint32(), "CPUs in the mask", nullable=True),
        column("targets", pa.list_(pa.uint16()), "CPUs in the mask, ascending", nullable=True),
        column("func", pa.uint64(), "calls: address of the function, 0 = only take the interrupt", nullable=True),
        column("func_name", pa.string(), "calls: its symbol, where a map was given", nullable=True),
        column("wait", pa.bool_(), "calls: the caller waits for the function to end", nullable=True),
        column("flush_flags", pa.uint32(), "flushes: Xen's FLUSH_* bits", nullable=True),
        column("va", pa.uint64(), "flushes: address", nullable=True),
        column("parent", pa.uint64(), "calls: episode of the flush that this call carries", nullable=True),
        column(
            "inflight",
            pa.uint32(),
            "episodes of its kind in flight when it started, itself included",
            nullable=True,
        ),
        column("straggler", pa.uint16(), "target whose EXIT came last", nullable=True),
        column("domain", pa.uint16(), "domain on the initiator at START", nullable=True),
        column("vcpu", pa.uint16(), "vCPU on the initiator at START", nullable=True),
        column("evidence", pa.dictionary(pa.int8(), pa.string()), "exact or inferred"),
        column("confidence", pa.float64(), "0 to 1; 1 where exact"),
        column("complete", pa.bool_(), "START, SEND, DONE and every target's ENTER and EXIT were seen"),
        column(
            "vector",
            pa.uint8(),
            "interrupt vector it uses, where the hypervisor model is known",
            nullable=True,
        ),
    ]
)

DELIVERIES: Final = pa.schema(
    [
        column("episode", pa.uint64(), "row of `episodes`"),
        column("cpu", pa.uint16(), "target"),
        column("enter_ns", pa.int64(), "ENTER, ns since the trace's first timestamp", nullable=True),
        column("exit_ns", pa.int64(), "EXIT", nullable=True),
        column(
            "delivery_ns",
            pa.int64(),
            "ENTER − SEND; a little negative where a target was already serving",
            nullable=True,
        ),
        column("execution_ns", pa.int64(), "EXIT − ENTER", nullable=True),
        column(
            "queue_ns",
            pa.int64(),
            "part of delivery in which the target ran other initiators' functions",
            nullable=True,
        ),
        column("domain", pa.uint16(), "domain on the target at ENTER", nullable=True),
        column("vcpu", pa.uint16(), "vCPU on the target at ENTER", nullable=True),
        column(
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


NULLABLE: Final = {
    pa.int64(): "Int64",
    pa.int32(): "Int32",
    pa.uint64(): "UInt64",
    pa.uint32(): "UInt32",
    pa.uint16(): "UInt16",
    pa.uint8(): "UInt8",
    pa.bool_(): "boolean",
}
"""The pandas dtypes of columns in which something can be missing."""


def dtype_of(field: pa.Field) -> str:
    """The pandas dtype of a column, as `to_pandas` makes it of types that tables have."""
    kind = field.type
    if pa.types.is_dictionary(kind):
        return "category"
    if pa.types.is_string(kind):
        return "str"
    if pa.types.is_list(kind):
        return "object"
    if field.nullable and kind in NULLABLE:
        return NULLABLE[kind]
    return "float64" if kind == pa.float64() else str(kind)


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """The table as a frame: NumPy columns where nothing can be missing, pandas' nullable ones where it can.

    Texts of few values become categories, lists become objects.
    """
    import pandas as pd

    columns: dict[str, Any] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        # Without a mapper pandas makes the dtype of all others by itself.
        name = dtype_of(field)
        kind = pd.api.types.pandas_dtype(name) if name == "str" or name in NULLABLE.values() else None
        columns[field.name] = column.to_pandas(types_mapper={field.type: kind}.get)
    return pd.DataFrame(columns)

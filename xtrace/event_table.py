"""The `events` table: records of chosen events as one Arrow table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from xtrace.context import NOBODY
from xtrace.decode import Batch, Group
from xtrace.parsers.event import Event

if TYPE_CHECKING:
    from xtrace.trace import Trace


def event_table(trace: Trace, wanted: Callable[[Event], bool]) -> pa.Table:
    """All records of these events in order of time. Columns as `Trace.table_events` documents them."""
    parts: list[pa.Table] = []
    merger, ranks, base = trace.order(), [], 0
    for batch, _ in trace.batches():
        items = np.full(len(batch.starts), None, object)
        for group in trace.groups(batch, wanted):
            parts.append(records_table(trace, batch.take(group.rows), group))
            items[group.rows] = np.arange(base, base + len(group.rows))
            base += len(group.rows)
        ranks.append(merger.feed(batch, items))
    ranks.append(merger.finish())
    if not parts:
        return pa.table({"ns": pa.array([], pa.int64())})
    table = pa.concat_tables(parts, promote_options="permissive")
    return table.take(pa.array(np.concatenate(ranks).astype(np.int64)))


def records_table(trace: Trace, batch: Batch, group: Group) -> pa.Table:
    """The records of one group, which the batch is of. Columns as `Trace.table_events` documents them."""
    columns: dict[str, pa.Array] = {
        "ns": pa.array(trace.clock.to_ns(batch.tsc), pa.int64(), mask=batch.tsc == 0),
        "tsc": pa.array(batch.tsc, pa.uint64()),
        "cpu": pa.array(trace.cpu_of(batch), pa.uint16()),
        "event": pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(len(group.rows), np.int32)), pa.array([group.event.name])
        ),
        "domain": pa.array(batch.domain, pa.int32(), mask=batch.domain == NOBODY).cast(pa.uint16()),
        "vcpu": pa.array(batch.vcpu, pa.int32(), mask=batch.vcpu == NOBODY).cast(pa.uint16()),
    }
    fields: dict[str, Any] = dict(group.columns)
    for name, value in group.event.constants.items():
        fields[name] = np.full(len(group.rows), value)
    for name, values in fields.items():
        # A payload may name a domain or vCPU of its own, which is another than the one that runs.
        column = f"{name}_" if name in columns else name
        columns[column] = _column(values)
    return pa.table(columns)


def _column(values: Any) -> pa.Array:
    if values.dtype == object:
        return pa.array(values.tolist(), pa.list_(pa.uint32()))
    if isinstance(values, np.ma.MaskedArray):
        return pa.array(values.data, mask=np.ma.getmaskarray(values))
    if values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        if values.shape[1] == 0:
            return pa.array([[]] * len(values), pa.list_(flat.type))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1]).cast(pa.list_(flat.type))
    return pa.array(np.ascontiguousarray(values))

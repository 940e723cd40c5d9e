"""The records of a trace as one Parquet file an event, in order of time, written as they come."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xtrace import arrow, columns
from xtrace.dataset.layout import COMMON, EVENT_PREFIX, FOLDER_OF_EVENTS, RECORDS
from xtrace.decode import Batch, Group
from xtrace.episodes.tables import column
from xtrace.event_table import records_table
from xtrace.parsers import guest
from xtrace.parsers.event import Event
from xtrace.parsers.registry import EVENTS

if TYPE_CHECKING:
    from xtrace.trace import Trace

ROW_GROUP_RECORDS: Final = 1 << 17
HELD_BYTES: Final = 128 << 20
"""Row groups are made smaller rather than hold more than this in memory."""

_RISING: Final = ("record", "ns", "tsc")
"""Columns whose differences are smaller than their values."""


class EventFiles:
    """Takes records in the order of reading, and writes them in order of time once that is certain."""

    def __init__(self, trace: Trace, folder: Path) -> None:
        self._trace = trace
        self._folder = folder / FOLDER_OF_EVENTS
        self._layouts: dict[str, pa.Schema] = {}
        self._pending: dict[str, list[tuple[NDArray[np.int64], pa.Table]]] = {}
        self._held: dict[str, list[pa.Table]] = {}
        self._held_bytes = 0
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._given = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._write_all()
        finally:
            for writer in self._writers.values():
                writer.close()

    def add(self, batch: Batch, group: Group, number: NDArray[np.int64]) -> None:
        """Records of one layout; number: of each, in the order of reading."""
        part = batch.take(group.rows)
        table = records_table(self._trace, part, group).drop_columns(["event"])
        sizes = np.full(len(group.rows), group.payload.shape[1] * 4)
        extra = {
            "header": arrow.array(part.header, pa.uint32()),
            "payload": arrow.binary(np.ascontiguousarray(group.payload, "<u4").tobytes(), sizes),
        }
        for name, values in extra.items():
            table = table.append_column(name, values)
        self._pending.setdefault(file_of(group.event), []).append((number, table))

    def release(self, ready: NDArray[np.int64]) -> None:
        """These numbers are next in order of time."""
        if not len(ready):
            return
        low = int(ready.min())
        place = np.full(int(ready.max()) - low + 1, -1)
        place[ready - low] = self._given + np.arange(len(ready))
        self._given += len(ready)
        for name, parts in self._pending.items():
            kept, done = [], []
            for number, table in parts:
                inside = (number >= low) & (number < low + len(place))
                record = np.where(inside, place[np.where(inside, number - low, 0)], -1)
                later, now = np.flatnonzero(record < 0), np.flatnonzero(record >= 0)
                if len(later):
                    kept.append((number[later], table.take(pa.array(later))))
                if len(now):
                    chosen = table.take(pa.array(now)) if len(later) else table
                    done.append(chosen.append_column("record", arrow.array(record[now], pa.int64())))
            self._pending[name] = kept
            if done:
                self._hold(name, done)

    def _hold(self, name: str, parts: list[pa.Table]) -> None:
        if name not in self._layouts:
            self._layouts[name] = _layout(self._trace, name)
        schema = self._layouts[name]
        table = pa.concat_tables([schema.empty_table(), *parts], promote_options="permissive").select(schema.names)
        order = np.argsort(arrow.values(table["record"]), kind="stable")
        table = table.take(pa.array(order)).cast(schema)
        held = self._held.setdefault(name, [])
        held.append(table)
        self._held_bytes += table.nbytes
        if sum(one.num_rows for one in held) >= ROW_GROUP_RECORDS:
            self._write(name)
        elif self._held_bytes > HELD_BYTES:
            self._write_all()

    def _write_all(self) -> None:
        for name in list(self._held):
            self._write(name)

    def _write(self, name: str) -> None:
        parts = self._held.pop(name)
        self._held_bytes -= sum(one.nbytes for one in parts)
        if name not in self._writers:
            self._writers[name] = _writer(self._folder / f"{EVENT_PREFIX}{quote(name)}", self._layouts[name])
        self._writers[name].write_table(pa.concat_tables(parts), row_group_size=ROW_GROUP_RECORDS)


def _writer(folder: Path, schema: pa.Schema) -> pq.ParquetWriter:
    folder.mkdir(parents=True)
    return pq.ParquetWriter(
        folder / RECORDS,
        schema,
        compression="zstd",
        use_dictionary=[name for name in schema.names if name not in (*_RISING, "payload")],
        column_encoding=dict.fromkeys(_RISING, "DELTA_BINARY_PACKED"),
    )


def _layout(trace: Trace, name: str) -> pa.Schema:
    """The schema of a file: columns of all layouts declared for its events, so that it is the same for all traces."""
    declared = [event for event in EVENTS if file_of(event) == name] or [Event(0, name)]
    tables = [_no_records(trace, event, 1 if event.words is None else event.words) for event in declared]
    whole = pa.concat_tables(tables, promote_options="permissive").schema
    known = {one.name for one in COMMON}
    fields = [
        column(one.name, one.type, _meaning(declared, one.name), nullable=True)
        for one in whole
        if one.name not in known
    ]
    *before, header, payload = COMMON
    return pa.schema([*before, *fields, header, payload])


def _meaning(events: list[Event], name: str) -> str:
    """What the declarations say of a field: `Event.units` is a list of `field: meaning`."""
    for event in events:
        for clause in event.units.split("; "):
            if clause.startswith(f"{name}: "):
                return clause.removeprefix(f"{name}: ")
    return f"as written by {events[0].source}" if events[0].source else "no declared meaning"


def _no_records(trace: Trace, event: Event, words: int) -> pa.Table:
    payload = np.zeros((0, words), np.uint32)
    none = np.zeros(0, np.int64)
    batch = Batch(*(none.astype(kind) for kind in ("i8", "i8", "u4", "i4", "u8", "u8", "i8", "i4", "i4")))
    group = Group(event, none, payload, columns.decode(event, payload))
    return records_table(trace, batch, group).drop_columns(["event"])


def file_of(event: Event) -> str:
    """Which file an event's records go to: its own, unless it has a name that a trace could make up."""
    if event in guest.EVENTS or event.trace_class == "GUEST":
        return "TRC_GUEST"
    return "TRC_UNDECLARED" if event.variant == "undeclared" else event.name

"""A trace in a dataset: what `TraceFile` tells of a file, told from its tables."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xtrace import arrow
from xtrace.block import Skip
from xtrace.clock import Clock
from xtrace.context import LOST, NOBODY
from xtrace.dataset.layout import (
    CATEGORIES,
    EVENT_PREFIX,
    INFERRED_CATEGORIES,
    INFERRED_TABLES,
    RECORDS,
    SCHEMA,
    TABLES,
    TRACES,
    files,
)
from xtrace.decode import Batch
from xtrace.episodes.assemble import EpisodeTables, function_column
from xtrace.episodes.inferred import Inferred
from xtrace.episodes.tables import DELIVERIES, EPISODES
from xtrace.errors import InputError, UsageError
from xtrace.grouping import rows_by
from xtrace.merge import wanted
from xtrace.needs import needs
from xtrace.parsers.container import LOST_RECORDS
from xtrace.parsers.registry import Dialect
from xtrace.selection import Selection
from xtrace.survey import CpuTotals, Records, Survey
from xtrace.trace import Trace

BATCH_RECORDS: Final = 1 << 19

_READ: Final = ("record", "tsc", "cpu", "domain", "vcpu", "header", "payload")


class StoredTrace(Trace):
    """One trace of a dataset, its tables read when first asked.

    folder   `DIR/trace=NAME`
    cpu_hz   must be what the trace was stored with, as its times are
    symbols  names functions, instead of the map that the trace was stored with
    fix_skew the clocks of its CPUs must agree: its times are as it was stored

    `facts` is its row of the table `traces`, by column. Raises InputError where the folder is not one that
    `xtrace dataset` wrote, UsageError for another frequency and for clocks that differ.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        cpu_hz: int | None = None,
        symbols: str | os.PathLike[str] | None = None,
        fix_skew: bool = False,
    ) -> None:
        self.folder = Path(folder)
        super().__init__(symbols)
        self.facts: dict[str, Any] = read_table(self.folder / TRACES, "traces").to_pylist()[0]
        if cpu_hz not in (None, self.facts["cpu_hz"]):
            raise UsageError(
                f"--cpu-hz {cpu_hz}: times in {folder} are by {self.facts['cpu_hz']} Hz; store the trace anew"
            )
        if fix_skew and self.skew.offsets_ns:
            raise UsageError(
                f"--fix-skew: times in {folder} are as the clocks gave them; store the trace anew with --fix-skew"
            )

    @property
    def name(self) -> str:
        return str(self.facts["path"])

    def close(self) -> None:
        """Nothing is held."""

    @cached_property
    def survey(self) -> Survey:
        """Totals and damage; it keeps no records."""
        facts = self.facts
        return Survey(
            self.name,
            Counter({one["header"]: one["records"] for one in facts["headers"]}),
            {one["cpu"]: CpuTotals(one["windows"], one["size_bytes"]) for one in facts["cpus"]},
            facts["captures"],
            facts["first_tsc"],
            facts["last_tsc"],
            facts["size_bytes"],
            facts["record_bytes"],
            [Skip(one["offset"], one["size_bytes"], one["reason"]) for one in facts["skips"]],
        )

    @cached_property
    def clock(self) -> Clock:
        return Clock(self.facts["cpu_hz"], self.facts["cpu_hz_source"], self.facts["first_tsc"])

    @cached_property
    def dialect(self) -> Dialect:
        return Dialect(self.facts["vendor"], self.facts["release"])

    @cached_property
    def ends(self) -> dict[int, tuple[int, int]]:
        found: dict[int, tuple[int, int]] = {}
        for path in files(self.folder, "events"):
            file = _opened(path)
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["cpu", "tsc"])
                cpu, tsc = arrow.values(table["cpu"]), arrow.values(table["tsc"], null=0)
                cpu, tsc = cpu[tsc > 0], tsc[tsc > 0]
                for one, rows in rows_by(cpu):
                    begin, end = found.get(one, (int(tsc[rows[0]]), 0))
                    found[one] = min(begin, int(tsc[rows].min())), max(end, int(tsc[rows].max()))
        return found

    @property
    def lost(self) -> Records:
        path = self.folder / "events" / f"{EVENT_PREFIX}{LOST_RECORDS.name}" / RECORDS
        if not path.exists():
            none = np.zeros(0, np.int64)
            return Records(none.astype(np.int32), none.astype(np.uint64), np.zeros((0, 4), np.uint32), none)
        table = _opened(path).read(columns=["cpu", "tsc", "header", "payload"])
        table = table.filter(pc.equal(table["header"], LOST))
        data = b"".join(table["payload"].to_pylist())
        if len(data) != 16 * table.num_rows:
            raise InputError(f"{path}: payloads do not fit their headers; store the trace anew")
        cpu, payload = arrow.values(table["cpu"]).astype(np.int32), np.frombuffer(data, "<u4").reshape(-1, 4)
        return Records(cpu, arrow.values(table["tsc"]), payload, np.zeros(0, np.int64))

    @cached_property
    def lost_by_cpu(self) -> dict[int, int]:
        return {one["cpu"]: one["lost_records"] for one in self.facts["cpus"] if one["lost_records"]}

    @cached_property
    def tables(self) -> EpisodeTables:
        facts = self.facts
        if facts["evidence"] == "inferred":
            return self._inferred_tables()
        stored = self._table("episodes")
        overlaps = arrow.values(stored["overlapping"])
        episodes = stored.drop_columns(["overlapping"])
        if self.symbols is not None:
            place = EPISODES.get_field_index("func_name")
            func = np.ma.masked_array(
                arrow.values(episodes["func"]), np.asarray(episodes["func"].is_null().to_numpy(zero_copy_only=False))
            )
            episodes = episodes.set_column(place, EPISODES.field(place), function_column(func, self.symbols))
        return EpisodeTables(
            episodes,
            self._table("deliveries"),
            facts["smp_model"],
            facts["evidence"],
            overlaps,
            facts["stray_records"],
        )

    def _inferred_tables(self) -> EpisodeTables:
        facts = self.facts
        episodes, deliveries = (
            read_table(self.folder / f"{name}.parquet", name, inferred=True) for name in INFERRED_TABLES
        )
        return EpisodeTables(
            EPISODES.empty_table(),
            DELIVERIES.empty_table(),
            facts["smp_model"],
            "inferred",
            np.zeros(0, np.bool_),
            facts["stray_records"],
            Inferred(episodes.drop_columns(["overlapping"]), deliveries, facts["smp_model"]),
        )

    @needs("TRC_SCHED_RUNSTATE_CHANGE")
    def table_runstates(self) -> pa.Table:
        """Schema `runstates.RUNSTATES`. Raises MissingEventsError for a trace without runstate changes."""
        return self._table("runstates")

    def _table(self, name: str) -> pa.Table:
        return read_table(self.folder / f"{name}.parquet", name)

    def batches(self, selection: Selection | None = None) -> Iterator[tuple[Batch, np.ndarray[Any, Any]]]:
        """All records in order of time, and which rows are selected."""
        selection = selection or Selection()
        sources = [_Records(path) for path in files(self.folder, "events")]
        total = self.survey.total_records
        found = sum(source.count for source in sources)
        if found != total:
            raise InputError(f"{self.folder}: {found} of {total} records are there; store the trace anew")
        for begin in range(0, total, BATCH_RECORDS):
            batch = _batch([source.before(begin + BATCH_RECORDS) for source in sources])
            yield batch, np.flatnonzero(selection.records(batch, self.clock))

    def order(self) -> InOrder:
        return InOrder()


class InOrder:
    """The order of records that come in order."""

    def feed(self, _: Batch, items: NDArray[Any]) -> NDArray[Any]:
        """The items but for those not wanted."""
        return items[wanted(items)]

    def finish(self) -> NDArray[Any]:
        """Nothing is left."""
        return np.zeros(0, object)


class _Records:
    """The records of one event's file, taken from the front; one row group is in memory at a time."""

    def __init__(self, path: Path) -> None:
        self._file = _opened(path)
        missing = set(_READ) - set(self._file.schema_arrow.names)
        if missing:
            raise InputError(f"{path}: has no column {', '.join(sorted(missing))}; store the trace anew")
        self._group = 0
        self._ahead = pa.table({})

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self._file.metadata.num_rows)

    def before(self, record: int) -> pa.Table:
        """Those before this place in the order of the trace that were not taken yet."""
        found = []
        while True:
            if not self._ahead.num_rows:
                if self._group == self._file.num_row_groups:
                    break
                self._ahead = self._file.read_row_group(self._group, columns=list(_READ))
                self._group += 1
            count = int(np.searchsorted(arrow.values(self._ahead["record"]), record))
            if not count:
                break
            found.append(self._ahead.slice(0, count))
            self._ahead = self._ahead.slice(count)
        return pa.concat_tables(found) if found else None


def _batch(parts: list[pa.Table | None]) -> Batch:
    table = pa.concat_tables([one for one in parts if one is not None]).sort_by("record").combine_chunks()
    header, tsc = arrow.values(table["header"]), arrow.values(table["tsc"])
    payload = table["payload"].combine_chunks()
    stamped = (header >> np.uint32(31)).astype(np.int64)
    size = (header >> np.uint32(28) & np.uint32(7)).astype(np.int64)
    lead = 1 + 2 * stamped
    ends = np.cumsum(lead + size)
    starts = ends - lead - size
    words = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint32)
    words[starts] = header
    at = np.flatnonzero(stamped)
    words[starts[at] + 1] = tsc[at].astype(np.uint32)
    words[starts[at] + 2] = (tsc[at] >> np.uint64(32)).astype(np.uint32)
    data = b"".join(payload.to_pylist())
    if len(data) != int(size.sum()) * 4:
        raise InputError("payloads do not fit their headers; store the trace anew")
    inside = np.repeat(starts + lead - (np.cumsum(size) - size), size) + np.arange(int(size.sum()))
    words[inside] = np.frombuffer(data, "<u4")
    cpu = arrow.values(table["cpu"]).astype(np.int32)
    domain, vcpu = (arrow.values(table[name].cast(pa.int32()), null=NOBODY) for name in ("domain", "vcpu"))
    return Batch(words, starts, header, cpu, tsc, tsc, np.zeros(len(header), np.int64), domain, vcpu)


def read_table(path: Path, name: str, *, inferred: bool = False) -> pa.Table:
    """A table of a trace, each column in one piece. Raises InputError where the file is not one that was stored."""
    file = _opened(path)
    schema, categories = (INFERRED_TABLES[name], INFERRED_CATEGORIES) if inferred else (TABLES[name], CATEGORIES)
    written = (file.schema_arrow.metadata or {}).get(b"schema", b"").decode()
    if written != SCHEMA:
        raise InputError(f"{path}: has schema {written or 'none'}, not {SCHEMA}; store the trace anew")
    try:
        table = file.read().select(schema.names)
        columns = [_column(field, table[field.name], categories.get((name, field.name))) for field in schema]
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: does not hold the table {name}: {error}; store the trace anew") from error
    return pa.Table.from_arrays(columns, schema=schema)


def _column(field: pa.Field, values: pa.ChunkedArray, names: tuple[str, ...] | None) -> pa.Array:
    """The column as a table from a file has it; Parquet keeps categories in the order in which they occur."""
    if names is None:
        return pa.concat_arrays([pa.array([], field.type), *values.cast(field.type).chunks])
    codes = pc.index_in(values.cast(pa.string()), value_set=pa.array(names))
    whole = pa.concat_arrays([pa.array([], pa.int32()), *codes.chunks])
    return pa.DictionaryArray.from_arrays(whole.cast(pa.int8()), pa.array(names))


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}; store the trace anew") from error

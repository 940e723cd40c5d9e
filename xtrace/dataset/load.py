"""Datasets from Python: lazy ones of Arrow, and the same frames as a trace has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from xtrace.contract import gives
from xtrace.dataset.layout import (
    COMMON,
    EVENT_PREFIX,
    FOLDER_OF_EVENTS,
    PREFIX,
    TABLES,
    TRACE,
    TRACES,
    files,
    partitions,
)
from xtrace.dataset.stored import StoredTrace, read_table
from xtrace.episodes.tables import DELIVERIES, EPISODES, column, to_pandas
from xtrace.errors import MissingEventsError, UsageError
from xtrace.runstates import RUNSTATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from xtrace.trace import Trace


_NAMED = column("trace", pa.dictionary(pa.int32(), pa.string()), "its name in the dataset")


class Dataset:
    """The traces in a folder that `xtrace dataset` wrote. What is added later is seen by a new `load`.

    Frames (`df_…`) are those of the traces one behind the other, with the column `trace` (category) before theirs.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Raises InputError where the folder holds no trace."""
        self.root = Path(root)
        self._folders = {one.name.removeprefix(PREFIX): one for one in partitions(self.root)}

    @property
    def names(self) -> list[str]:
        """The traces, in the order of their names."""
        return list(self._folders)

    def __getitem__(self, name: str) -> StoredTrace:
        """One trace. Raises UsageError where there is none of that name."""
        if name not in self._folders:
            raise UsageError(f"{self.root}: no trace {name}; it has {', '.join(self._folders)}")
        return StoredTrace(self._folders[name])

    def __len__(self) -> int:
        return len(self._folders)

    def __iter__(self) -> Iterator[StoredTrace]:
        return (StoredTrace(one) for one in self._folders.values())

    def dataset(self, table: str, event: str | None = None) -> ds.Dataset:
        """A lazy Arrow dataset of a table: `traces`, `episodes`, `deliveries`, `runstates` or `events`.

        event: of `events`, only this one, by name; without it there are only the columns that all events have. Columns
        `trace` and, of events, `event` come behind those of the files. Raises UsageError for another table, and
        MissingEventsError for an event that no trace has.
        """
        if table not in (*TABLES, FOLDER_OF_EVENTS):
            raise UsageError(f"no table {table}; give {', '.join((*TABLES, FOLDER_OF_EVENTS))}")
        paths = [path for folder in self._folders.values() for path in files(folder, table)]
        partitioning = pa.schema([("trace", pa.string())])
        schema = TABLES.get(table)
        if table == FOLDER_OF_EVENTS:
            partitioning = partitioning.append(pa.field("event", pa.string()))
            schema = pa.schema(COMMON)
        if event is not None:
            paths = [path for path in paths if unquote(path.parent.name) == f"{EVENT_PREFIX}{event}"]
            if not paths:
                raise MissingEventsError(f"{self.root}: no {event} records in any trace", (event,))
            schema = pq.read_schema(paths[0])
        return ds.dataset(
            [str(path) for path in paths],
            format="parquet",
            schema=pa.unify_schemas([schema, partitioning]),
            partitioning=ds.partitioning(partitioning, flavor="hive"),
        )

    @gives([_NAMED, *TRACE])
    def df_traces(self) -> pd.DataFrame:
        """One row a trace."""
        parts = [(name, read_table(folder / TRACES, "traces")) for name, folder in self._folders.items()]
        return _frame(parts)

    @gives([_NAMED, *EPISODES])
    def df_episodes(self) -> pd.DataFrame:
        """One row a call or flush, of the traces that have the tracepoints."""
        return self._frames(lambda trace: trace.table_episodes())

    @gives([_NAMED, *DELIVERIES])
    def df_deliveries(self) -> pd.DataFrame:
        """One row a target of an episode, of the traces that have the tracepoints."""
        return self._frames(lambda trace: trace.table_deliveries())

    @gives([_NAMED, *RUNSTATES])
    def df_runstates(self) -> pd.DataFrame:
        """One row a stay of a vCPU in a runstate, of the traces that have runstate changes."""
        return self._frames(lambda trace: trace.table_runstates())

    def df_events(self, name: str) -> pd.DataFrame:
        """One row a record of the events that `name` means; columns trace, and those of `Trace.table_events`."""
        return self._frames(lambda trace: trace.table_events(name))

    def _frames(self, ask: Callable[[Trace], pa.Table]) -> pd.DataFrame:
        """Raises MissingEventsError where no trace has what is asked for."""
        parts, lacking = [], []
        for name in self._folders:
            try:
                parts.append((name, ask(self[name])))
            except MissingEventsError as error:
                lacking.append(error)
        if not parts:
            raise lacking[0]
        return _frame(parts)


def _frame(parts: list[tuple[str, pa.Table]]) -> pd.DataFrame:
    named = []
    for name, table in parts:
        trace = pa.DictionaryArray.from_arrays(pa.array([0] * table.num_rows, pa.int32()), pa.array([name]))
        named.append(table.add_column(0, pa.field("trace", trace.type, nullable=False), trace))
    return to_pandas(pa.concat_tables(named, promote_options="permissive").unify_dictionaries())


def load(root: str | os.PathLike[str]) -> Dataset:
    """The traces in a folder that `xtrace dataset` wrote. Raises InputError where it holds none."""
    return Dataset(root)

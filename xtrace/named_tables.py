"""Tables by their names, as `xtrace table` gives them: one row a thing, for plots and scripts."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow as pa

from xtrace import arrow
from xtrace.episodes.tables import NULL
from xtrace.selection import Selection

if TYPE_CHECKING:
    from xtrace.trace import Trace


class Where(NamedTuple):
    """Columns that say where and when a row of a table is."""

    cpu: str
    ns: str


PLACES: Final = {
    "episodes": Where("initiator", "start_ns"),
    "deliveries": Where("cpu", "enter_ns"),
    "runstates": Where("cpu", "begin_ns"),
    "exits": Where("cpu", "begin_ns"),
    "wakes": Where("cpu", "begin_ns"),
}
"""The tables that a trace has besides those of its events: `Trace.table_…`."""

EVENTS: Final = Where("cpu", "ns")


def named_table(trace: Trace, name: str, selection: Selection) -> pa.Table:
    """The rows of a table that are selected by CPU and by the time at which they begin.

    name: one of PLACES, or what `Trace.table_events` takes. Raises UsageError for a name that is neither,
    MissingEventsError where the trace has not what it takes.
    """
    table = getattr(trace, f"table_{name}")() if name in PLACES else trace.table_events(name)
    if not selection:
        return table
    where = PLACES.get(name, EVENTS)
    cpu, ns = (arrow.values(table[column].cast(pa.int64()), null=int(NULL)) for column in where)
    return table.take(pa.array(np.flatnonzero(selection.starts(cpu, ns))))


def write_csv(table: pa.Table, file: IO[bytes]) -> None:
    """As CSV with the names of columns first; lists as numbers with blanks between, nulls as nothing."""
    import pyarrow.compute as pc
    from pyarrow import csv

    for place, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = pc.binary_join(table[field.name].cast(pa.list_(pa.string())), " ")
            table = table.set_column(place, field.name, texts)
    csv.write_csv(table, file, csv.WriteOptions(quoting_style="needed"))


def write_parquet(table: pa.Table, file: IO[bytes]) -> None:
    """As Parquet."""
    import pyarrow.parquet as pq

    pq.write_table(table, file, compression="zstd")


WRITERS: Final = {".parquet": write_parquet, ".csv": write_csv}
"""How a table is written, by the end of the file's name."""

"""A trace → its part of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xtrace import __version__
from xtrace.dataset.event_files import EventFiles
from xtrace.dataset.layout import PREFIX, SCHEMA, STORED_EPISODES, TRACE, TRACES
from xtrace.dataset.staging import whole_folder
from xtrace.errors import UsageError
from xtrace.runstates import CHANGE, RUNSTATES, Stays, losses
from xtrace.summary import measured

if TYPE_CHECKING:
    from xtrace.trace_file import TraceFile


MARK: Final = {"schema": SCHEMA}
"""Metadata of every file."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the folder, its rows by table (`events` all together) and its size."""

    folder: Path
    rows: dict[str, int]
    size_bytes: int


def write(trace: TraceFile, root: Path, name: str, *, host: str | None = None, force: bool = False) -> Written:
    """Add a trace to the dataset `root`, or replace what is there of it.

    Raises UsageError where another trace has that name there and force is not given, InputError where the trace cannot
    be read or the folder not be written.
    """
    target = root / f"{PREFIX}{name}"
    digest = trace.sha256()
    check(target, digest, force=force)
    with whole_folder(target) as folder:
        rows = _write_tables(trace, folder)
        row = pa.Table.from_pylist([_row(trace, host, digest)], TRACE)
        # Last, and what a folder without it is not a trace's.
        _write_table(row, folder / TRACES)
        size_bytes = sum(one.stat().st_size for one in folder.rglob("*.parquet"))
    return Written(target, rows, size_bytes)


def document(found: Sequence[Written]) -> dict[str, Any]:
    """The JSON document `xtrace.stored/1` (docs/json.md)."""
    return {
        "schema": "xtrace.stored/1",
        "traces": [
            {"folder": str(one.folder), "name": one.folder.name.removeprefix(PREFIX)}
            | {"rows": one.rows, "size_bytes": one.size_bytes}
            for one in found
        ],
    }


def check(target: Path, digest: str, *, force: bool) -> None:
    """Raise UsageError where the folder of a trace holds another one."""
    there = target / TRACES
    if force or not there.exists():
        return
    try:
        known = pq.read_table(there, columns=["sha256", "path"]).to_pylist()[0]
    except (pa.ArrowException, OSError, IndexError) as error:
        raise UsageError(f"{target}: cannot be read; give --force to replace it") from error
    if known["sha256"] != digest:
        raise UsageError(f"{target}: holds another trace, {known['path']}; give --name for this one, or --force")


def _write_tables(trace: TraceFile, folder: Path) -> dict[str, int]:
    tables = trace.tables
    told = tables if tables.inferred is None else tables.inferred
    # Inferred ones, none of which is complete, do not overlap.
    overlaps = tables.overlaps if tables.inferred is None else np.zeros(told.episodes.num_rows, np.bool_)
    episodes = told.episodes.append_column(STORED_EPISODES.field("overlapping"), pa.array(overlaps))
    _write_table(episodes, folder / "episodes.parquet")
    _write_table(told.deliveries, folder / "deliveries.parquet")
    stays, order = Stays(trace, losses(trace)), trace.order()
    count = runstates = 0
    with (
        EventFiles(trace, folder) as files,
        pq.ParquetWriter(folder / "runstates.parquet", RUNSTATES.with_metadata(MARK), compression="zstd") as writer,
    ):

        def pass_on(ready: NDArray[Any]) -> None:
            files.release(ready.astype(np.int64))
            keep(stays.release(ready.astype(np.int64)))

        def keep(ended: pa.Table) -> None:
            nonlocal runstates
            runstates += ended.num_rows
            if ended.num_rows:
                writer.write_table(ended.replace_schema_metadata(MARK))

        for batch, _ in trace.batches():
            numbers = count + np.arange(len(batch.starts))
            for group in trace.groups(batch):
                files.add(batch, group, numbers[group.rows])
                if group.event.name == CHANGE:
                    stays.add(batch, group, numbers[group.rows])
            count += len(batch.starts)
            pass_on(order.feed(batch, numbers.astype(object)))
        pass_on(order.finish())
        keep(stays.finish())
    return {
        "episodes": episodes.num_rows,
        "deliveries": told.deliveries.num_rows,
        "runstates": runstates,
        "events": count,
    }


def _write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(table.replace_schema_metadata(MARK), path, compression="zstd")


def _row(trace: TraceFile, host: str | None, digest: str) -> dict[str, Any]:
    """The row of the table `traces`."""
    survey, tables, dialect = trace.survey, trace.tables, trace.dialect
    found = measured(trace)
    return {
        "path": found["path"],
        "host": host,
        "size_bytes": found["bytes"],
        "sha256": digest,
        "cpu_hz": found["cpu_hz"],
        "cpu_hz_source": found["cpu_hz_source"],
        "duration_ns": found["duration_ns"],
        "smp_model": tables.model,
        "vendor": dialect.vendor,
        "release": dialect.release,
        "evidence": tables.evidence,
        "records": found["records"],
        "lost_records": found["lost_records"],
        "skipped_bytes": found["skipped_bytes"],
        "stray_records": tables.strays,
        "captures": survey.captures,
        "first_tsc": survey.zero_tsc,
        "last_tsc": survey.last_tsc,
        "record_bytes": survey.record_bytes,
        "cpus": [
            {
                "cpu": cpu,
                "windows": totals.windows,
                "size_bytes": totals.size_bytes,
                "lost_records": trace.lost_by_cpu.get(cpu, 0),
            }
            for cpu, totals in sorted(survey.cpus.items())
        ],
        # In the order of the survey, which breaks ties where events are listed.
        "headers": [{"header": header, "records": count} for header, count in survey.counts.items()],
        "skips": [{"offset": skip.offset, "size_bytes": skip.length, "reason": skip.reason} for skip in survey.skips],
        "xtrace_version": __version__,
    }

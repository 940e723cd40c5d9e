"""An emulation as files: the trace, and beside it the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xtrace.emulator import truth
from xtrace.emulator.choices import Records
from xtrace.emulator.host import Emulation
from xtrace.emulator.rings import Tool, capture
from xtrace.emulator.writer import file_bytes
from xtrace.output import whole
from xtrace.parsers import smp

_SMP: Final = frozenset(event.event_id for event in smp.EVENTS)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    records, size_bytes  of the trace
    lost                 records that the rings had no room for
    """

    trace: Path
    episodes: Path
    deliveries: Path
    records: int
    size_bytes: int
    lost: int


def paths(path: str) -> tuple[Path, Path, Path]:
    """Where trace, episodes and deliveries go: OUT.bin, OUT.episodes.parquet and OUT.deliveries.parquet."""
    trace = Path(path)
    stem = trace.with_suffix("") if trace.suffix == ".bin" else trace
    return trace, Path(f"{stem}.episodes.parquet"), Path(f"{stem}.deliveries.parquet")


def made(emulation: Emulation, tool: Tool, records: Records) -> tuple[bytes, truth.Truth, int, int]:
    """The trace, the truth, and how many records are in the trace and were lost.

    records: smp leaves out all but the tracepoints, stock leaves those out; the truth tells of all episodes anyway.
    """
    host, rows = emulation.host, emulation.log.rows
    wanted = [
        index
        for index, row in enumerate(rows)
        if records == "all" or (row[2].event.event_id in _SMP) == (records == "smp")
    ]
    taken = capture(emulation.log, wanted, host.cpus, host.hz, tool)
    ahead = host.tsc_offsets
    stamps = (
        when + ahead.get(cpu, 0)
        for cpu, when, layout, _ in (taken.rows[index] for index in taken.order)
        if layout.event.timestamped
    )
    time = truth.Time(host.hz, min(stamps, default=0), ahead)
    tables = truth.tables(emulation.requests, taken.lost, time, flush_vector=emulation.design.flush_vector)
    return file_bytes(taken, ahead), tables, len(taken.order), len(taken.lost)


def write(emulation: Emulation, path: str, tool: Tool, records: Records) -> Written:
    """Write trace and truth, each file whole or not at all. Raises InputError where a file cannot be written."""
    import pyarrow.parquet as pq

    content, tables, count, lost = made(emulation, tool, records)
    trace, episodes, deliveries = paths(path)
    with whole(episodes) as file:
        pq.write_table(tables.episodes, file, compression="zstd")
    with whole(deliveries) as file:
        pq.write_table(tables.deliveries, file, compression="zstd")
    with whole(trace) as file:
        file.write(content)
    return Written(trace, episodes, deliveries, count, len(content), lost)

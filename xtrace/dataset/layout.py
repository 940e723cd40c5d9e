"""How a dataset is laid out: a folder, in it one for each trace, in that one Parquet file a table.

    DIR/trace=NAME/traces.parquet                     one row: the file, and what was found of it
    DIR/trace=NAME/episodes.parquet                   and deliveries, runstates
    DIR/trace=NAME/events/event=TRC_…/records.parquet one file an event

Names of folders are Hive partitions, so whoever reads several files at a time gets columns `trace` and `event`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pyarrow as pa

from xtrace.episodes.assemble import EVIDENCE, KIND_NAMES
from xtrace.episodes.guesses import GUESSES
from xtrace.episodes.inferred import EVIDENCE as INFERRED
from xtrace.episodes.inferred import INFERRED_DELIVERIES, INFERRED_EPISODES
from xtrace.episodes.inferred import STATES as HIT
from xtrace.episodes.relations import STATES as INTERRUPTED
from xtrace.episodes.tables import DELIVERIES, EPISODES, column
from xtrace.errors import InputError, UsageError
from xtrace.parsers.vectors import RUNSTATES as STATES
from xtrace.runstates import RUNSTATES

SCHEMA: Final = "xtrace.dataset/1"

PREFIX: Final = "trace="
EVENT_PREFIX: Final = "event="
TRACES: Final = "traces.parquet"
FOLDER_OF_EVENTS: Final = "events"
RECORDS: Final = "records.parquet"

_SUFFIXES: Final = re.compile(r"(\.(bin|dat|trace|xentrace|raw))?(\.(gz|xz|zst))?$", re.IGNORECASE)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")

TRACE: Final = pa.schema(
    [
        column("path", pa.string(), "the trace file, as it was named"),
        column("host", pa.string(), "where it was captured, as --host said", nullable=True),
        column("size_bytes", pa.uint64(), "uncompressed"),
        column("sha256", pa.string(), "of the uncompressed content"),
        column("cpu_hz", pa.uint64(), "TSC frequency of the traced host"),
        column("cpu_hz_source", pa.string(), "option, trace (estimated) or default (assumed)"),
        column("duration_ns", pa.int64(), "first to last timestamp"),
        column("smp_model", pa.string(), "how the hypervisor calls: legacy, lockless or unknown"),
        column("vendor", pa.string(), "svm or vmx", nullable=True),
        column("release", pa.uint8(), "Xen 4.x, where it is recognised", nullable=True),
        column("evidence", pa.string(), "what episodes rest on: exact, inferred or none"),
        column("records", pa.uint64(), "records, window headers included"),
        column("lost_records", pa.uint64(), "records that Xen dropped for want of room"),
        column("skipped_bytes", pa.uint64(), "bytes that belong to no decoded record"),
        column("stray_records", pa.uint64(), "tracepoints that name no possible initiator"),
        column("captures", pa.uint32(), "captures one behind the other in the file"),
        column("first_tsc", pa.uint64(), "cycle count of time 0"),
        column("last_tsc", pa.uint64(), "the last cycle count of any CPU"),
        column("record_bytes", pa.uint64(), "bytes of all records"),
        column(
            "cpus",
            pa.list_(
                pa.struct(
                    [
                        column("cpu", pa.uint16(), "CPU"),
                        column("windows", pa.uint64(), "windows of it"),
                        column("size_bytes", pa.uint64(), "without their headers"),
                        column("lost_records", pa.uint64(), "records that it dropped"),
                    ]
                )
            ),
            "CPUs that wrote",
        ),
        column(
            "headers",
            pa.list_(
                pa.struct(
                    [
                        column("header", pa.uint32(), "header word: id, payload words, whether cycles follow"),
                        column("records", pa.uint64(), "records that it begins"),
                    ]
                )
            ),
            "records by header word",
        ),
        column(
            "skips",
            pa.list_(
                pa.struct(
                    [
                        column("offset", pa.uint64(), "first byte"),
                        column("size_bytes", pa.uint64(), "bytes not decoded"),
                        column("reason", pa.string(), "why"),
                    ]
                )
            ),
            "damage, in order",
        ),
        column("xtrace_version", pa.string(), "what wrote this"),
    ]
)

_OVERLAPPING: Final = column(
    "overlapping", pa.bool_(), "complete, and SEND…DONE intersects that of another complete one of its kind"
)
STORED_EPISODES: Final = EPISODES.append(_OVERLAPPING)
STORED_INFERRED: Final = INFERRED_EPISODES.append(_OVERLAPPING)

TABLES: Final = {
    "episodes": STORED_EPISODES,
    "deliveries": DELIVERIES,
    "runstates": RUNSTATES,
    "traces": TRACE,
}
"""The tables with one file a trace; events have a file for each event, too."""

INFERRED_TABLES: Final = {"episodes": STORED_INFERRED, "deliveries": INFERRED_DELIVERIES}
"""What two of them are where they are inferred."""

CATEGORIES: Final = {
    ("episodes", "kind"): KIND_NAMES,
    ("episodes", "evidence"): EVIDENCE,
    ("deliveries", "state"): INTERRUPTED,
    ("runstates", "state"): STATES,
}
INFERRED_CATEGORIES: Final = {
    ("episodes", "kind"): KIND_NAMES,
    ("episodes", "evidence"): INFERRED,
    ("episodes", "guess"): GUESSES,
    ("deliveries", "state"): HIT,
}
"""The columns of few distinct texts, by table, and what these are, in the order in which they are numbered."""

COMMON: Final = (
    column("record", pa.int64(), "place among all records of the trace, in order of time"),
    column("ns", pa.int64(), "ns since the trace's first timestamp; null before a CPU's first", nullable=True),
    column("tsc", pa.uint64(), "cycle count; that of the record before on its CPU where it has none", nullable=True),
    column("cpu", pa.uint16(), "CPU that wrote it"),
    column("domain", pa.uint16(), "domain then on that CPU", nullable=True),
    column("vcpu", pa.uint16(), "vCPU then on that CPU", nullable=True),
    column("header", pa.uint32(), "header word: id, payload words, whether cycles follow"),
    column("payload", pa.binary(), "the payload as it was, little-endian words"),
)
"""The columns that the files of all events have; the event's own fields come before the last two."""


def name_of(path: str, given: str | None = None) -> str:
    """What a trace is called in a dataset: the name given, else its file's without suffix.

    Raises UsageError where that cannot be the name of a folder that every tool reads.
    """
    name = given
    if name is None:
        name = "" if path == "-" else re.sub(r"[^A-Za-z0-9._+-]", "_", _SUFFIXES.sub("", Path(path).name))
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name or 'standard input'}: no name for a trace; give --name with letters, digits and . _ -")
    return name


def partitions(root: Path) -> list[Path]:
    """The folders of the traces of a dataset, or that folder itself. Raises InputError where it is neither."""
    if (root / TRACES).is_file():
        return [root]
    found = sorted(one.parent for one in root.glob(f"{PREFIX}*/{TRACES}"))
    if not found:
        raise InputError(f"{root}: a folder without traces; give one that `xtrace dataset` wrote")
    return found


def files(folder: Path, table: str) -> list[Path]:
    """The files of a table of one trace; `events` has one for each event."""
    if table == FOLDER_OF_EVENTS:
        return sorted(folder.glob(f"{FOLDER_OF_EVENTS}/{EVENT_PREFIX}*/{RECORDS}"))
    return [folder / f"{table}.parquet"]

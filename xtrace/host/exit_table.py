"""The `exits` table: one row a VM exit that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from xtrace import arrow
from xtrace.episodes.tables import arrow_table, column
from xtrace.host import exit_rows
from xtrace.host.exit_kinds import NAMES, Kind, name_of
from xtrace.host.exit_rows import ExitReader, ExitRows
from xtrace.host.walk import in_time
from xtrace.parsers.vectors import exit_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from xtrace.host.walk import Ints
    from xtrace.parsers.vendor import Vendor
    from xtrace.trace import Trace

TEXTS: Final = pa.dictionary(pa.int32(), pa.string())

EXITS: Final = pa.schema(
    [
        column("begin_ns", pa.int64(), "when the guest was left, ns since the trace's first timestamp"),
        column("end_ns", pa.int64(), "when it was entered again, or its vCPU became runnable"),
        column("duration_ns", pa.int64(), "end − begin"),
        column("entered", pa.bool_(), "it ended with an entry into the guest"),
        column("domain", pa.uint16(), "domain"),
        column("vcpu", pa.uint16(), "vCPU"),
        column("cpu", pa.uint16(), "pCPU on which it began"),
        column("reason", pa.uint32(), "VMX exit reason with its flags, SVM exit code"),
        column("reason_name", TEXTS, "its name"),
        column("rip", pa.uint64(), "the guest's instruction pointer"),
        column(
            "kind", TEXTS, "what handled it: interrupt, hypercall, cr_write, port_read, npf, …; none: no record tells"
        ),
        column("what", TEXTS, "the same with its number, in words: LOCAL_TIMER (0xfa), vcpu_op, write CR4"),
        column("vector", pa.uint16(), "of the host interrupt; null on SVM", nullable=True),
        column("hypercall", pa.uint32(), "number of the hypercall", nullable=True),
        column("cr", pa.uint32(), "control register", nullable=True),
        column("msr", pa.uint32(), "model-specific register", nullable=True),
        column("port", pa.uint32(), "I/O port", nullable=True),
        column(
            "gpa", pa.uint64(), "guest-physical address of an NPF or of an access to emulated memory", nullable=True
        ),
        column("va", pa.uint64(), "linear address of a fault that shadow paging handled", nullable=True),
        column("value", pa.uint64(), "read or written: of a CR or MSR, low 32 bits of port or memory", nullable=True),
    ]
)


def exits_of(trace: Trace) -> pa.Table:
    """All VM exits of a trace as EXITS, in the order in which they ended; one pass over the trace."""
    reader = ExitReader(trace.dialect)
    found = [reader.feed(chunk) for chunk in in_time(trace, exit_rows.wants, finish=reader.finish)]
    if not found:
        return EXITS.empty_table()
    columns: tuple[Any, ...] = tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
    return exit_table(ExitRows(*columns), trace.dialect.vendor)


def exit_table(rows: ExitRows, vendor: Vendor | None) -> pa.Table:
    """These exits as EXITS."""

    def of(*kinds: Kind) -> Any:
        return np.ma.array(rows.number, mask=~np.isin(rows.kind, kinds) | (rows.number < 0))

    # The numbers of kinds have at most 32 bits.
    kind_and_number = rows.kind.astype(np.int64) << 40 | (rows.number + 1)
    with_value = (Kind.CR_READ, Kind.CR_WRITE, Kind.MSR_READ, Kind.MSR_WRITE)
    accesses = (Kind.PORT_READ, Kind.PORT_WRITE, Kind.MMIO_READ, Kind.MMIO_WRITE)
    valued = np.isin(rows.kind, with_value + accesses) & rows.has_value
    return arrow_table(
        EXITS,
        {
            "begin_ns": rows.begin_ns,
            "end_ns": rows.end_ns,
            "duration_ns": rows.end_ns - rows.begin_ns,
            "entered": rows.entered,
            "domain": rows.domain,
            "vcpu": rows.vcpu,
            "cpu": rows.cpu,
            "reason": rows.reason,
            "reason_name": _texts(rows.reason, lambda code: exit_name(code, vendor)),
            "rip": rows.rip,
            "kind": _texts(rows.kind.astype(np.int64), lambda kind: NAMES[Kind(kind)]),
            "what": _texts(kind_and_number, lambda code: name_of(code >> 40, (code & (1 << 40) - 1) - 1)),
            "vector": np.ma.array(rows.vector, mask=rows.vector < 0),
            "hypercall": of(Kind.HYPERCALL),
            "cr": of(Kind.CR_READ, Kind.CR_WRITE),
            "msr": of(Kind.MSR_READ, Kind.MSR_WRITE),
            "port": of(Kind.PORT_READ, Kind.PORT_WRITE),
            "gpa": np.ma.array(rows.gpa, mask=(rows.kind != Kind.NPF) & (rows.access == 0)),
            "va": np.ma.array(rows.address, mask=rows.kind != Kind.PAGE_FAULT),
            "value": np.ma.array(rows.value, mask=~valued),
        },
    )


def _texts(codes: Ints, named: Callable[[int], str]) -> pa.DictionaryArray:
    """A column of texts that numbers stand for."""
    distinct, places = np.unique(codes, return_inverse=True)
    names = arrow.strings(tuple(map(named, distinct.tolist())))
    return pa.DictionaryArray.from_arrays(arrow.array(places.astype(np.int32), pa.int32()), names)

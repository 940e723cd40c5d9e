"""Emulating from Python: a plan, run, written and opened."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xtrace.emulator.choices import Records
from xtrace.emulator.output import paths, write
from xtrace.emulator.plan import Plan, read
from xtrace.output import check
from xtrace.trace_file import TraceFile

if TYPE_CHECKING:
    from xtrace.trace import Trace


def emulate(
    plan: Plan | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    records: Records = "all",
    force: bool = False,
) -> Trace:
    """Emulate a host, write its trace and, beside it, the truth as Parquet; returns the trace, opened.

    plan     what to emulate, or the path of a workload file (docs/emulator.md)
    output   OUT.bin; the truth goes to OUT.episodes.parquet and OUT.deliveries.parquet
    records  all; smp: only the tracepoints; stock: all but the tracepoints
    force    replace files that are there

    The same plan gives the same bytes. Raises UsageError for what cannot be emulated and for files in the way,
    InputError where a file cannot be read or written.
    """
    check(*paths(str(output)), force=force)
    chosen = plan if isinstance(plan, Plan) else read(str(plan))
    write(chosen.run(), str(output), chosen.tool, records)
    return TraceFile(output, cpu_hz=chosen.host.hz)

"""A trace that is a file, or comes through a pipe: read when first asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from xtrace.clock import DEFAULT_HZ, Clock, estimate_hz
from xtrace.context import LOST, header_of
from xtrace.decode import Batch, batches
from xtrace.dialect import DIALECT_SAMPLES_PER_BLOCK, RUNQ_LOAD, recognise_dialect
from xtrace.digest import interest
from xtrace.episodes.exact import CHANNELS, SMP_HEADERS, SUBJECT_HEADERS
from xtrace.merge import Merger
from xtrace.parsers.registry import EVENTS, Dialect
from xtrace.reader import Progress, Reader
from xtrace.selection import Selection
from xtrace.survey import Records, Survey, survey
from xtrace.trace import Trace

if TYPE_CHECKING:
    from xtrace.episodes.assemble import EpisodeTables
    from xtrace.skew import Skew
    from xtrace.skew_fix import Correction

_INFPREV = next(header_of(event) for event in EVENTS if event.name == "TRC_SCHED_SWITCH_INFPREV")

HZ_SAMPLES_PER_BLOCK = 1 << 14

INTEREST = interest(
    kept=SMP_HEADERS | {LOST},
    sampled={_INFPREV: HZ_SAMPLES_PER_BLOCK, RUNQ_LOAD: DIALECT_SAMPLES_PER_BLOCK},
    subjects=SUBJECT_HEADERS,
    channels=CHANNELS,
)
"""The records that a survey keeps for everything below."""


class TraceFile(Trace):
    """A trace file (or `-`), read when first asked.

    cpu_hz    frequency of the traced host's TSC; None: estimated from the trace, else assumed
    symbols   a file that names hypervisor functions (`nm` output, System.map)
    workers   blocks decoded at a time; more than one starts processes or threads for large files
    progress  called with bytes read and bytes in all (None: unknown)
    once      one pass will do: a pipe is then not copied to a temporary file for a second
    fix_skew  take off what each CPU's clock is ahead of others (docs/skew.md), which takes two more passes

    Raises InputError where the file cannot be read or holds no xentrace window.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        cpu_hz: int | None = None,
        symbols: str | os.PathLike[str] | None = None,
        workers: int = 1,
        progress: Progress | None = None,
        once: bool = False,
        fix_skew: bool = False,
    ) -> None:
        self._once = once and not fix_skew
        self._fix_skew = fix_skew
        self._cpu_hz = cpu_hz
        super().__init__(symbols)
        if cpu_hz is not None:
            Clock(cpu_hz, "option")
        self.reader = Reader(path, workers, progress)

    @property
    def name(self) -> str:
        return self.reader.name

    def close(self) -> None:
        """Remove what was kept of a pipe."""
        self.reader.close()

    def sha256(self) -> str:
        """The hash, in hexadecimal, of the trace, uncompressed."""
        self.reader.spool()
        return self.reader.sha256()

    @cached_property
    def survey(self) -> Survey:
        """Totals, damage and the records kept; one pass over the file."""
        if self._fix_skew:
            # From here on it is known what is taken off.
            _ = self.skew
            return self._fixed[1]
        if not self._once:
            self.reader.spool()
        return survey(self.reader, INTEREST)

    @cached_property
    def skew(self) -> Skew:
        return self._fixed[0] if self._fix_skew else super().skew

    @cached_property
    def _fixed(self) -> tuple[Skew, Survey, Correction]:
        """What the clocks of the file differ by, and its survey without that."""
        from xtrace.skew_fix import fixed

        read = copy(self)
        read._fix_skew = False
        return fixed(read)

    @cached_property
    def clock(self) -> Clock:
        zero = self.survey.zero_tsc
        if self._cpu_hz is not None:
            return Clock(self._cpu_hz, "option", zero)
        switched = self.survey.records(_INFPREV)
        estimate = estimate_hz(switched.track, switched.tsc, switched.payload[:, 2])
        return Clock(estimate or DEFAULT_HZ, "trace" if estimate else "default", zero)

    @cached_property
    def dialect(self) -> Dialect:
        return recognise_dialect(self.survey)

    @property
    def ends(self) -> dict[int, tuple[int, int]]:
        return self.survey.ends

    @property
    def lost(self) -> Records:
        return self.survey.records(LOST)

    @cached_property
    def lost_by_cpu(self) -> dict[int, int]:
        lost = self.lost
        dropped = np.bincount(lost.cpu, lost.payload[:, 0].astype(np.float64))
        return {cpu: int(dropped[cpu]) for cpu in np.flatnonzero(dropped).tolist()}

    @cached_property
    def tables(self) -> EpisodeTables:
        from xtrace.episodes.assemble import assemble
        from xtrace.episodes.inferred import can_infer, with_inferred

        tables = assemble(self.survey, self.clock, self.symbols)
        # What came through a pipe once is gone.
        if tables.evidence == "none" and can_infer(self.survey.counts) and self.reader.rereadable:
            return with_inferred(tables, self)
        return tables

    def batches(self, selection: Selection | None = None) -> Iterator[tuple[Batch, np.ndarray[Any, Any]]]:
        """A second pass: all records of each batch, and which rows are selected."""
        clock = self.clock
        correction = self._fixed[2] if self._fix_skew else None
        for read in batches(self.reader, self.survey):
            batch = correction.batch(read) if correction else read
            chosen = (selection or Selection()).records(batch, clock)
            yield batch, np.flatnonzero(chosen)

    def order(self) -> Merger:
        return Merger()

"""One trace, and the questions a program may ask of it: the Python interface."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np

from xtrace.clock import DEFAULT_HZ, Clock, estimate_hz
from xtrace.context import LOST, header_of
from xtrace.decode import Batch, Group, batches, groups
from xtrace.dialect import DIALECT_SAMPLES_PER_BLOCK, RUNQ_LOAD, recognise_dialect
from xtrace.digest import interest
from xtrace.episodes.exact import CHANNELS, SMP_HEADERS, SUBJECT_HEADERS
from xtrace.errors import MissingEventsError
from xtrace.parsers.event import Event
from xtrace.parsers.registry import EVENTS, Dialect, resolve
from xtrace.reader import Progress, Reader
from xtrace.selection import Selection, parse_events
from xtrace.states import cpu_of
from xtrace.survey import Survey, survey

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from xtrace.episodes.assemble import EpisodeTables
    from xtrace.symbols import Symbols

_INFPREV = next(header_of(event) for event in EVENTS if event.name == "TRC_SCHED_SWITCH_INFPREV")

HZ_SAMPLES_PER_BLOCK = 1 << 14

INTEREST = interest(
    kept=SMP_HEADERS | {LOST},
    sampled={_INFPREV: HZ_SAMPLES_PER_BLOCK, RUNQ_LOAD: DIALECT_SAMPLES_PER_BLOCK},
    subjects=SUBJECT_HEADERS,
    channels=CHANNELS,
)
"""The records that a survey keeps for everything below."""


class Trace:
    """A trace file (or `-`), read when first asked.

    cpu_hz    frequency of the traced host's TSC; None: estimated from the trace, else assumed
    symbols   a file that names hypervisor functions (`nm` output, System.map)
    workers   blocks decoded at a time; more than one starts processes or threads for large files
    progress  called with bytes read and bytes in all (None: unknown)
    once      one pass will do: a pipe is then not copied to a temporary file for a second

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
    ) -> None:
        self._once = once
        self._cpu_hz = cpu_hz
        self._symbols_path = symbols
        if cpu_hz is not None:
            Clock(cpu_hz, "option")
        self.reader = Reader(path, workers, progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was kept of a pipe."""
        self.reader.close()

    @cached_property
    def symbols(self) -> Symbols | None:
        """The symbol map, if one was given."""
        if self._symbols_path is None:
            return None
        from xtrace.symbols import Symbols

        return Symbols.read(self._symbols_path)

    @cached_property
    def survey(self) -> Survey:
        """Totals, damage and the records kept; one pass over the file."""
        if not self._once:
            self.reader.spool()
        return survey(self.reader, INTEREST)

    @cached_property
    def clock(self) -> Clock:
        """How cycles become nanoseconds, and how that is known."""
        zero = self.survey.zero_tsc
        if self._cpu_hz is not None:
            return Clock(self._cpu_hz, "option", zero)
        switched = self.survey.records(_INFPREV)
        estimate = estimate_hz(switched.track, switched.tsc, switched.payload[:, 2])
        return Clock(estimate or DEFAULT_HZ, "trace" if estimate else "default", zero)

    @cached_property
    def dialect(self) -> Dialect:
        """CPU vendor and Xen release, as far as the records tell."""
        return recognise_dialect(self.survey)

    @cached_property
    def lost_by_cpu(self) -> dict[int, int]:
        """Records that Xen dropped for want of room, by CPU; CPUs that lost none are not in it."""
        lost = self.survey.records(LOST)
        dropped = np.bincount(lost.cpu, lost.payload[:, 0].astype(np.float64))
        return {cpu: int(dropped[cpu]) for cpu in np.flatnonzero(dropped).tolist()}

    @cached_property
    def tables(self) -> EpisodeTables:
        """Episodes and deliveries, and what they rest on."""
        from xtrace.episodes.assemble import assemble

        return assemble(self.survey, self.clock, self.symbols)

    @cached_property
    def info(self) -> dict[str, Any]:
        """What the container holds: sizes, span, CPUs, loss, damage, volume by class and event (docs/tables.md)."""
        from xtrace.summary import container

        return container(self)

    def summary(self, selection: Selection | None = None) -> dict[str, Any]:
        """The analysis, as `xtrace analyze --format json` prints it (docs/tables.md)."""
        from xtrace.summary import analysis, choose

        selection = selection or Selection()
        return analysis(self, selection, choose(self, selection))

    @overload
    def episodes(self, *, arrow: Literal[False] = False) -> pd.DataFrame: ...
    @overload
    def episodes(self, *, arrow: Literal[True]) -> pa.Table: ...
    def episodes(self, *, arrow: bool = False) -> pd.DataFrame | pa.Table:
        """One row a call or flush, in order of start (schema: `episodes.tables.EPISODES`)."""
        return self._frame(self.tables.episodes, arrow)

    @overload
    def deliveries(self, *, arrow: Literal[False] = False) -> pd.DataFrame: ...
    @overload
    def deliveries(self, *, arrow: Literal[True]) -> pa.Table: ...
    def deliveries(self, *, arrow: bool = False) -> pd.DataFrame | pa.Table:
        """One row a target of an episode, by episode and CPU (schema: `episodes.tables.DELIVERIES`)."""
        return self._frame(self.tables.deliveries, arrow)

    @overload
    def events(self, name: str, *, arrow: Literal[False] = False) -> pd.DataFrame: ...
    @overload
    def events(self, name: str, *, arrow: Literal[True]) -> pa.Table: ...
    def events(self, name: str, *, arrow: bool = False) -> pd.DataFrame | pa.Table:
        """One row a record of the events that `name` means, in order of time.

        name: an event (`TRC_SCHED_WAKE`, `sched_wake`), a class (`HVM`), a pattern (`*EXIT*`) or an id.
        Columns: ns (int64, null before a CPU's first timestamp), tsc (uint64), cpu (uint16), event (category),
        domain, vcpu (uint16, null where not known), then the fields of the events, null where a record's event
        has none of that name. Raises UsageError for an unknown name, MissingEventsError for one not in the trace.
        """
        from xtrace.event_table import event_table

        wanted = parse_events(name)
        table = event_table(self, wanted)
        if not table.num_rows:
            present = ", ".join(f"{one} ({count})" for one, count in list(self.event_counts().items())[:5])
            raise MissingEventsError(f"{self.reader.name}: no {name} records; it has {present}, …")
        return self._frame(table, arrow)

    @staticmethod
    def _frame(table: pa.Table, arrow: bool) -> pd.DataFrame | pa.Table:
        if arrow:
            return table
        from xtrace.episodes.tables import to_pandas

        return to_pandas(table)

    def event_counts(self, counts: dict[int, int] | None = None) -> dict[str, int]:
        """Records by event name, most frequent first; counts: by header word, default those of the trace."""
        named: dict[str, int] = {}
        for header, count in (self.survey.counts if counts is None else counts).items():
            name = self.event_name(header)
            named[name] = named.get(name, 0) + count
        return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))

    def event_name(self, header: int) -> str:
        """The name of the event that a header word begins."""
        return resolve(header & 0x0FFFFFFF, header >> 28 & 7, bool(header >> 31), None, self.dialect).name

    def batches(self, selection: Selection | None = None) -> Iterator[tuple[Batch, np.ndarray[Any, Any]]]:
        """A second pass: all records of each batch, and which rows are selected."""
        clock = self.clock
        for batch in batches(self.reader, self.survey):
            chosen = (selection or Selection()).records(batch, clock)
            yield batch, np.flatnonzero(chosen)

    def groups(self, batch: Batch, wanted: Callable[[Event], bool] | None = None) -> Iterator[Group]:
        """Records of a batch by event layout, decoded."""
        return groups(batch, self.dialect, wanted)

    @staticmethod
    def cpu_of(batch: Batch) -> np.ndarray[Any, Any]:
        """The CPU of each record."""
        return cpu_of(batch.track)


def open(path: str | os.PathLike[str], **options: Any) -> Trace:  # noqa: A001
    """Open a trace; options as for Trace."""
    return Trace(path, **options)

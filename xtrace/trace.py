"""A trace, however it is kept, and the questions a program may ask of it: the Python interface."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from xtrace.contract import gives
from xtrace.decode import Batch, Group, groups
from xtrace.episodes.tables import DELIVERIES, EPISODES, to_pandas
from xtrace.host import NAMES as HOST_NAMES
from xtrace.host.exit_table import EXITS
from xtrace.host.wakes import WAKES
from xtrace.needs import missing, needs
from xtrace.parsers.event import Event
from xtrace.parsers.registry import Dialect, resolve
from xtrace.runstates import RUNSTATES, runstate_table
from xtrace.selection import Selection, parse_events
from xtrace.series import SERIES
from xtrace.states import cpu_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from xtrace.clock import Clock
    from xtrace.episodes.assemble import EpisodeTables
    from xtrace.host.summary import HostSeries
    from xtrace.questions.answers import Answers
    from xtrace.skew import Skew
    from xtrace.survey import Records, Survey
    from xtrace.symbols import Symbols


class Order(Protocol):
    """Puts the records of batches into one order of time, as `merge.Merger` does."""

    def feed(self, batch: Batch, items: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Add one item for each record; returns those whose turn is certain, without the Nones."""

    def finish(self) -> np.ndarray[Any, Any]:
        """All that is left."""


class Trace(ABC):
    """What can be asked of a trace, whether it is a file (`TraceFile`) or in a dataset (`dataset.StoredTrace`).

    Methods `df_…` return pandas frames, `table_…` the same as Arrow tables, whose fields say unit and meaning. A column
    in which something can be missing has one of pandas' nullable types, with <NA> there; never 0 or −1.
    """

    def __init__(self, symbols: str | os.PathLike[str] | None) -> None:
        self._symbols_path = symbols

    @cached_property
    def symbols(self) -> Symbols | None:
        """The symbol map, if one was given. Raises InputError where it cannot be read."""
        if self._symbols_path is None:
            return None
        from xtrace.symbols import Symbols

        return Symbols.read(self._symbols_path)

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it: its path, or <stdin>."""

    @property
    @abstractmethod
    def survey(self) -> Survey:
        """Totals and damage."""

    @property
    @abstractmethod
    def clock(self) -> Clock:
        """How cycles become nanoseconds, and how that is known."""

    @property
    @abstractmethod
    def dialect(self) -> Dialect:
        """CPU vendor and Xen release, as far as the records tell."""

    @property
    @abstractmethod
    def lost_by_cpu(self) -> dict[int, int]:
        """Records that Xen dropped for want of room, by CPU; CPUs that lost none are not in it."""

    @property
    @abstractmethod
    def ends(self) -> dict[int, tuple[int, int]]:
        """First and last timestamp of each CPU's stream (capture << 14 | CPU) that has one, cycles."""

    @property
    @abstractmethod
    def lost(self) -> Records:
        """The records that say that records were lost (xen/common/trace.c, LOST_RECORDS)."""

    @property
    @abstractmethod
    def tables(self) -> EpisodeTables:
        """Episodes and deliveries, and what they rest on."""

    @abstractmethod
    def batches(self, selection: Selection | None = None) -> Iterator[tuple[Batch, np.ndarray[Any, Any]]]:
        """All records, batch by batch, and which rows are selected."""

    @abstractmethod
    def order(self) -> Order:
        """What puts the records of `batches` into one order of time."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held for the trace."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def info(self) -> dict[str, Any]:
        """What the container holds: sizes, span, CPUs, loss, damage, volume by class and event (docs/json.md)."""
        from xtrace.summary import container

        return container(self)

    @cached_property
    def skew(self) -> Skew:
        """By how much the clocks of CPUs differ, within which bounds, as the file has them; takes one more pass."""
        from xtrace.skew import skew

        return skew(self)

    @property
    def duration_ns(self) -> int:
        """From the first to the last timestamp."""
        span = np.array([max(self.survey.last_tsc, self.survey.zero_tsc)], np.uint64)
        return int(self.clock.to_ns(span)[0])

    def summary(
        self,
        selection: Selection | None = None,
        *,
        log_dirty: bool = False,
        clocks: bool = False,
        host: Collection[str] | None = None,
        every_ns: int | None = None,
    ) -> dict[str, Any]:
        """The analysis, as `xtrace analyze --format json` prints it (docs/json.md).

        log_dirty, clocks: also the part on log-dirty phases, and on clocks, one more pass each. host: parts of the
        host's summary (`xtrace.host.NAMES`), one more pass; default: those that the command line tells unasked.
        every_ns: also calls, flushes and the host for every such interval.
        """
        from xtrace.summary import analyzed

        part = selection or Selection()
        return analyzed(self, part, host=host, every_ns=every_ns, log_dirty=log_dirty, clocks=clocks).document

    def host(
        self, selection: Selection | None = None, parts: Collection[str] = HOST_NAMES, every_ns: int | None = None
    ) -> HostSeries:
        """What vCPUs and CPUs did: what `xtrace analyze --section host` prints, as plain data, by one pass.

        selection: what counts; default all. parts: those of `xtrace.host.NAMES` that are wanted. every_ns: also for
        every such interval. Raises UsageError for more than 10,000 intervals.
        """
        from xtrace.host.summary import summary

        return summary(self, selection or Selection(), parts, every_ns)

    @gives(EXITS)
    def df_exits(self) -> pd.DataFrame:
        """One row a VM exit that ended, in the order of ends. Raises MissingEventsError as `table_exits`."""
        return to_pandas(self.table_exits())

    @needs("TRC_HVM_VMEXIT*")
    def table_exits(self) -> pa.Table:
        """Schema `host.exit_table.EXITS`, by one pass. Raises MissingEventsError for a trace without VM exits."""
        from xtrace.host.exit_table import exits_of

        return exits_of(self)

    @gives(WAKES)
    def df_wakes(self) -> pd.DataFrame:
        """One row a stretch that a vCPU ran for an interrupt. Raises MissingEventsError as `table_wakes`."""
        return to_pandas(self.table_wakes())

    @needs("TRC_HVM_INJ_VIRQ")
    def table_wakes(self) -> pa.Table:
        """Schema `host.wakes.WAKES`, by one pass. Raises MissingEventsError for a trace without injections."""
        from xtrace.host.wakes import wakes_of

        return wakes_of(self)

    @gives(SERIES)
    def df_series(
        self, every_ns: int, selection: Selection | None = None, sections: Collection[str] = ()
    ) -> pd.DataFrame:
        """Figures of every interval, one row a figure: what `xtrace analyze --interval --series` writes.

        sections: as --section names them; default: calls, flushes and the host.
        """
        from xtrace.series import intervals, series_table

        selection = selection or Selection()
        parts = [name for name in HOST_NAMES if name in (sections or HOST_NAMES)]
        host = self.host(selection, parts, every_ns) if parts else None
        return to_pandas(series_table(intervals(self, selection, sections, every_ns, host)))

    def answers(self, selection: Selection | None = None, *, log_dirty: bool = False, clocks: bool = False) -> Answers:
        """Who waits for whom, whether that is fair, who pays: what `xtrace analyze --section` prints, as plain data.

        selection: which requests count, by their START; default all. log_dirty, clocks: as for `summary`.
        """
        from xtrace.questions.answers import answers

        return answers(self, selection or Selection(), log_dirty_too=log_dirty, clocks_too=clocks)

    @gives(EPISODES)
    def df_episodes(self) -> pd.DataFrame:
        """One row a call or flush, in order of start. Raises MissingEventsError as `table_episodes`.

        Where they are inferred (docs/inference.md), `initiator` and `seq` can be <NA>, and more columns come behind.
        """
        return to_pandas(self.table_episodes())

    @needs("SMP_*", "TLB_FLUSH_*")
    def df_waits(self, selection: Selection | None = None) -> pd.DataFrame:
        """One row a wait of a complete call or flush for another, by episode; there may be many more than episodes.

        selection: of those that wait. Raises MissingEventsError for a trace without the tracepoints.

        episode            uint64        that waited, in the table of episodes; a flush, not what carries it
        blocker            uint64        what it waited for
        cause              category      lock, queue or serving (docs/contention.md)
        initiator          uint16        CPU of the one that waited
        blocker_initiator  uint16        CPU of the other
        wait_ns            int64     ns  for how long
        """
        from xtrace.questions.contention import df_waits
        from xtrace.questions.paths import Paths
        from xtrace.questions.requests import Requests

        return df_waits(Paths.of(Requests.of(self.tables, selection or Selection())))

    @gives(DELIVERIES)
    def df_deliveries(self) -> pd.DataFrame:
        """One row a target of an episode, by episode and CPU. Raises MissingEventsError as `table_deliveries`.

        Where they are inferred, more columns come behind.
        """
        return to_pandas(self.table_deliveries())

    def df_events(self, name: str) -> pd.DataFrame:
        """One row a record of the events that `name` means, in order of time; columns as `table_events`."""
        return to_pandas(self.table_events(name))

    @gives(RUNSTATES)
    def df_runstates(self) -> pd.DataFrame:
        """One row a stay of a vCPU in a runstate, in the order of what ended them.

        Raises MissingEventsError as `table_runstates`.
        """
        return to_pandas(self.table_runstates())

    def table_episodes(self) -> pa.Table:
        """Schema `episodes.tables.EPISODES`; `episodes.inferred.INFERRED_EPISODES` where `tables.evidence` is inferred.

        Raises MissingEventsError for a trace that has neither the tracepoints nor interrupts to infer from.
        """
        inferred = self.tables.inferred
        return self._traced().episodes if inferred is None else inferred.episodes

    def table_deliveries(self) -> pa.Table:
        """Schema `episodes.tables.DELIVERIES`; `episodes.inferred.INFERRED_DELIVERIES` where inferred.

        Raises MissingEventsError as `table_episodes`.
        """
        inferred = self.tables.inferred
        return self._traced().deliveries if inferred is None else inferred.deliveries

    @needs("SMP_*", "TLB_FLUSH_*")
    def _traced(self) -> EpisodeTables:
        return self.tables

    @needs("TRC_SCHED_RUNSTATE_CHANGE")
    def table_runstates(self) -> pa.Table:
        """Schema `runstates.RUNSTATES`. Raises MissingEventsError for a trace without runstate changes."""
        return runstate_table(self)

    def table_events(self, name: str) -> pa.Table:
        """Records of the events that `name` means.

        name: an event (`TRC_SCHED_WAKE`, `sched_wake`), a class (`HVM`), a pattern (`*EXIT*`) or an id.
        Columns: ns (int64, null before a CPU's first timestamp), tsc (uint64), cpu (uint16), event (category),
        domain, vcpu (uint16, null where not known), then the fields of the events, null where a record's event
        has none of that name. Raises UsageError for an unknown name, MissingEventsError for one not in the trace.
        """
        from xtrace.event_table import event_table

        table = event_table(self, parse_events(name))
        if not table.num_rows:
            raise missing(self, name)
        return table

    def event_counts(self, counts: dict[int, int] | None = None) -> dict[str, int]:
        """Records by event name, most frequent first; counts: by header word, default those of the trace."""
        named: dict[str, int] = {}
        for header, count in (self.survey.counts if counts is None else counts).items():
            name = self.event_name(header)
            named[name] = named.get(name, 0) + count
        return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))

    def event_of(self, header: int) -> Event:
        """The event that a header word begins."""
        return resolve(header & 0x0FFFFFFF, header >> 28 & 7, bool(header >> 31), None, self.dialect)

    def event_name(self, header: int) -> str:
        """Its name."""
        return self.event_of(header).name

    def groups(self, batch: Batch, wanted: Callable[[Event], bool] | None = None) -> Iterator[Group]:
        """Records of a batch by event layout, decoded."""
        return groups(batch, self.dialect, wanted)

    @staticmethod
    def cpu_of(batch: Batch) -> np.ndarray[Any, Any]:
        """The CPU of each record."""
        return cpu_of(batch.track)

"""A trace, however it is kept, and the questions a program may ask of it: the Python interface."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from xtrace.contract import gives
from xtrace.decode import Batch, Group, groups
from xtrace.episodes.tables import DELIVERIES, EPISODES, to_pandas
from xtrace.needs import missing, needs
from xtrace.parsers.event import Event
from xtrace.parsers.registry import Dialect, resolve
from xtrace.runstates import RUNSTATES, runstate_table
from xtrace.selection import Selection, parse_events
from xtrace.states import cpu_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from xtrace.clock import Clock
    from xtrace.episodes.assemble import EpisodeTables
    from xtrace.questions.answers import Answers
    from xtrace.survey import Survey
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

    @property
    def duration_ns(self) -> int:
        """From the first to the last timestamp."""
        span = np.array([max(self.survey.last_tsc, self.survey.zero_tsc)], np.uint64)
        return int(self.clock.to_ns(span)[0])

    def summary(self, selection: Selection | None = None, *, log_dirty: bool = False) -> dict[str, Any]:
        """The analysis, as `xtrace analyze --format json` prints it (docs/json.md).

        log_dirty: also the part on log-dirty phases, which takes one more pass over the trace.
        """
        from xtrace.summary import analysis, choose

        selection = selection or Selection()
        found = self.answers(selection, log_dirty=log_dirty)
        return analysis(self, selection, choose(self, selection), found)

    def answers(self, selection: Selection | None = None, *, log_dirty: bool = False) -> Answers:
        """Who waits for whom, whether that is fair, who pays: what `xtrace analyze --section` prints, as plain data.

        selection: which requests count, by their START; default all. log_dirty: as for `summary`.
        """
        from xtrace.questions.answers import answers

        return answers(self, selection or Selection(), log_dirty_too=log_dirty)

    @gives(EPISODES)
    def df_episodes(self) -> pd.DataFrame:
        """One row a call or flush, in order of start. Raises MissingEventsError as `table_episodes`."""
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
        """One row a target of an episode, by episode and CPU. Raises MissingEventsError as `table_deliveries`."""
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

    @needs("SMP_*", "TLB_FLUSH_*")
    def table_episodes(self) -> pa.Table:
        """Schema `episodes.tables.EPISODES`. Raises MissingEventsError for a trace without the tracepoints."""
        return self.tables.episodes

    @needs("SMP_*", "TLB_FLUSH_*")
    def table_deliveries(self) -> pa.Table:
        """Schema `episodes.tables.DELIVERIES`. Raises MissingEventsError for a trace without the tracepoints."""
        return self.tables.deliveries

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

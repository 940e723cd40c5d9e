"""What CPUs asked of others, as arrays: a call, or a flush together with the call that carries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xtrace import arrow
from xtrace.context import NOBODY
from xtrace.episodes.assemble import KIND_NAMES
from xtrace.episodes.relations import STATES, Model
from xtrace.episodes.tables import NULL
from xtrace.states import TRACK_BITS
from xtrace.works import works

if TYPE_CHECKING:
    from xtrace.episodes.assemble import EpisodeTables
    from xtrace.selection import Selection

Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

CALL: Final = KIND_NAMES.index("call")
FLUSH: Final = KIND_NAMES.index("flush")


@dataclass(frozen=True, slots=True)
class Services:
    """The functions of requests on their targets: a row each, by request and CPU.

    request      row of `Requests`
    cpu, place   the target; `place` tells the CPUs of several captures apart
    enter, left  ns, NULL where not seen: ENTER and EXIT, of the call where a flush is carried
    domain, vcpu on the target at ENTER, NOBODY where not known
    state        int8, what was hit, a place in `STATES`
    """

    request: Index
    cpu: Index
    place: Index
    enter: Index
    left: Index
    domain: Index
    vcpu: Index
    state: NDArray[np.int8]

    @property
    def seen(self) -> Flags:
        """Which have both times."""
        both: Flags = (self.enter != NULL) & (self.left != NULL)
        return both

    def take(self, rows: Index | Flags) -> Services:
        """Some of them."""
        return Services(
            self.request[rows],
            self.cpu[rows],
            self.place[rows],
            self.enter[rows],
            self.left[rows],
            self.domain[rows],
            self.vcpu[rows],
            self.state[rows],
        )


@dataclass(frozen=True, slots=True)
class Requests:
    """All requests of a trace in the order of the table of episodes; a row each.

    A flush and the call that carries it are one: it starts as the flush does, is sent as the call is, and its functions
    are those of the call.

    model         the hypervisor's, as recognised
    episode       row in the table of episodes: of the flush, where there is one
    kind          int8, CALL or FLUSH
    capture       of several in one file: times of different ones have nothing to do with each other
    initiator     CPU
    start, send, done  ns, NULL where not seen
    wait          the caller waits for the functions to end; of flushes always
    n_targets     CPUs in the mask, 0 where not known
    work          what it does, a place in `works`
    domain, vcpu  on the initiator at START, NOBODY where not known
    whole         all of it was seen
    chosen        whole and selected: what statistics are about
    services      all functions, also of requests that are not whole
    """

    model: Model
    episode: Index
    kind: NDArray[np.int8]
    capture: Index
    initiator: Index
    start: Index
    send: Index
    done: Index
    wait: Flags
    n_targets: Index
    work: Index
    works: tuple[str, ...]
    domain: Index
    vcpu: Index
    whole: Flags
    chosen: Flags
    services: Services

    @classmethod
    def of(cls, tables: EpisodeTables, selection: Selection) -> Requests:
        """The requests of a trace; selection: which of them count."""
        episodes, deliveries = tables.episodes, tables.deliveries
        flush = arrow.equals(episodes["kind"], "flush")
        flush_of = _column(episodes, "parent")
        carrier = np.flatnonzero(flush_of != NULL)
        outer = np.ones(len(flush), np.bool_)
        outer[carrier] = False
        rows = np.flatnonzero(outer)
        row_of = np.cumsum(outer) - 1
        row_of[carrier] = row_of[flush_of[carrier]]
        # The call through which a request reaches its targets: itself, or the one that carries it.
        through = rows.copy()
        through[row_of[carrier]] = carrier

        start, complete = _column(episodes, "start_ns"), arrow.values(episodes["complete"])
        capture = _captures(tables)
        initiator = _column(episodes, "initiator")
        whole = complete[rows] & complete[through]
        selected = (
            selection.starts(initiator[rows].astype(np.uint16), start[rows])
            if selection
            else np.ones(len(rows), np.bool_)
        )
        work, names = _works(episodes, rows, flush)
        waits = arrow.values(episodes["wait"].cast(pa.int8()), null=1) != 0
        return cls(
            model=tables.model,
            episode=rows,
            kind=np.where(flush, FLUSH, CALL).astype(np.int8)[rows],
            capture=capture[rows],
            initiator=initiator[rows],
            start=start[rows],
            send=_column(episodes, "send_ns")[through],
            done=_column(episodes, "done_ns")[rows],
            wait=waits[rows] | flush[rows],
            n_targets=_column(episodes, "n_targets", 0)[through],
            work=work,
            works=names,
            domain=_column(episodes, "domain", NOBODY)[rows],
            vcpu=_column(episodes, "vcpu", NOBODY)[rows],
            whole=whole,
            chosen=whole & selected,
            services=_services(deliveries, row_of, through, capture),
        )

    def rows(self, kind: str) -> Index:
        """The chosen ones of a kind."""
        return np.flatnonzero(self.chosen & (self.kind == KIND_NAMES.index(kind)))

    @property
    def own_place(self) -> Index:
        """The caller's CPU, captures told apart, as `Services.place`."""
        return self.capture << TRACK_BITS | self.initiator

    @property
    def total(self) -> Index:
        """What callers paid, START to DONE; NULL where not seen."""
        seen = (self.start != NULL) & (self.done != NULL)
        return np.where(seen, self.done - self.start, NULL)


def _column(table: pa.Table, name: str, null: int = int(NULL)) -> Index:
    return arrow.values(table[name].cast(pa.int64()), null=null)


def _works(episodes: pa.Table, rows: Index, flush: Flags) -> tuple[Index, tuple[str, ...]]:
    code = np.zeros(len(rows), np.int64)
    names: list[str] = []
    for kind, mine in (("call", ~flush[rows]), ("flush", flush[rows])):
        found = works(episodes, rows[mine], kind)
        code[mine] = found.code + len(names)
        names += found.names
    return code, tuple(names)


def _captures(tables: EpisodeTables) -> Index:
    """The capture of each episode: within one, episodes are in order of time."""
    seen = _column(tables.episodes, "start_ns")
    deliveries = tables.deliveries
    first = np.full(len(seen), np.iinfo(np.int64).max)
    of = _column(deliveries, "episode")
    for name in ("enter_ns", "exit_ns"):
        times = _column(deliveries, name)
        np.minimum.at(first, of[times != NULL], times[times != NULL])
    for name in ("send_ns", "done_ns"):
        times = _column(tables.episodes, name)
        first = np.where(times != NULL, np.minimum(first, times), first)
    order = np.where(seen != NULL, seen, first)
    return np.cumsum(np.diff(order, prepend=order[:1]) < 0)


def _services(deliveries: pa.Table, row_of: Index, through: Index, capture: Index) -> Services:
    episode = _column(deliveries, "episode")
    mine = np.flatnonzero(through[row_of[episode]] == episode)
    request, cpu = row_of[episode[mine]], _column(deliveries, "cpu")[mine]
    # A call comes after its flush in the table, and its number is another's.
    mine = mine[np.lexsort((cpu, request))]
    episode, cpu = episode[mine], _column(deliveries, "cpu")[mine]
    columns: dict[str, Any] = {
        name: _column(deliveries, column, null)[mine]
        for name, column, null in (
            ("enter", "enter_ns", int(NULL)),
            ("left", "exit_ns", int(NULL)),
            ("domain", "domain", NOBODY),
            ("vcpu", "vcpu", NOBODY),
        )
    }
    state = deliveries["state"].combine_chunks()
    names = state.dictionary.to_pylist()
    code = np.array([STATES.index(name) for name in names], np.int8)[arrow.values(pa.chunked_array([state.indices]))]
    return Services(
        request=row_of[episode],
        cpu=cpu,
        place=capture[episode] << TRACK_BITS | cpu,
        state=code[mine],
        **columns,
    )

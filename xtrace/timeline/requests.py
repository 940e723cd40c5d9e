"""Calls and flushes on a timeline: requests with their phases, the functions that targets ran, arrows, counters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xtrace import arrow
from xtrace.context import vcpu_name
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.episodes.tables import NULL
from xtrace.states import TRACK_BITS
from xtrace.timeline.marks import FOREVER_NS, Address, Arg, Args, Count, Mark, Piece, Scope
from xtrace.timeline.rows import FUNCTIONS, REQUESTS, Host
from xtrace.units import numbers, printable
from xtrace.works import flush_name

if TYPE_CHECKING:
    from xtrace.episodes.assemble import EpisodeTables

CHUNK_ROWS: Final = 4096
MAX_NAME: Final = 120

_ROW: Final = [
    *("episode", "kind", "initiator", "seq", "start_ns", "send_ns", "done_ns", "targets", "func", "func_name", "wait"),
    *("flush_flags", "va", "parent", "straggler", "domain", "vcpu", "evidence", "complete"),
]
_DELIVERY_ROW: Final = ["episode", "cpu", "enter_ns", "exit_ns", "delivery_ns", "queue_ns", "domain", "vcpu", "state"]

COUNTERS: Final = (
    ("waiting to send", "start_ns", "send_ns", "START to SEND: the lock queue, or the wait for an earlier call."),
    ("in flight", "send_ns", "done_ns", "SEND to DONE."),
)


class Requests:
    """The chosen episodes of a trace. An episode is chosen by its initiator and its start, like everywhere."""

    def __init__(self, tables: EpisodeTables, scope: Scope, host: Host) -> None:
        self._scope, self._host = scope, host
        self._episodes, self._deliveries = tables.episodes, tables.deliveries
        self._owner = arrow.values(self._deliveries.column("episode")).astype(np.int64)
        self._first, self._last = _ends(self._deliveries, ("enter_ns", "exit_ns"))
        self.chosen = self._choose()
        # Of what lies outside the span nothing is seen, and no arrow can point there.
        self._shown = self.chosen[self._owner] & (self._first != NULL) & scope.meets(self._first, self._last)

    def marks(self) -> Iterator[list[Mark]]:
        """All of them, a portion at a time."""
        yield from self._counters()
        order = np.flatnonzero(self.chosen)
        for begin in range(0, len(order), CHUNK_ROWS):
            self._requests(order[begin : begin + CHUNK_ROWS])
            yield self._host.take()
        yield from self._functions()

    def _choose(self) -> NDArray[np.bool_]:
        episodes, scope = self._episodes, self._scope
        first, _ = _ends(episodes, ("start_ns", "send_ns", "done_ns"))
        # Where the initiator's records are missing, the earliest of its targets' has to do.
        known = np.flatnonzero((self._first != NULL) & (first == NULL)[self._owner])
        reached = np.full(len(first), FOREVER_NS)
        np.minimum.at(reached, self._owner[known], self._first[known])
        first = np.where(first == NULL, reached, first)
        chosen = scope.has_cpu(arrow.values(episodes.column("initiator"))) & (first >= scope.from_ns)
        if scope.domains is not None:
            chosen &= scope.has_domain(arrow.values(episodes.column("domain").cast(pa.int32()), -1))
        return chosen & (first < scope.to_ns)

    def _counters(self) -> Iterator[list[Mark]]:
        for rank, (kind, noun) in enumerate(KIND_NOUNS.items()):
            mine = self.chosen & arrow.equals(self._episodes["kind"], kind)
            for place, (what, begin, end, meaning) in enumerate(COUNTERS):
                first, last = (arrow.values(self._episodes.column(name), int(NULL))[mine] for name in (begin, end))
                whole = (first != NULL) & (last != NULL)
                ns, steps = np.unique(np.concatenate((first[whole], last[whole])), return_inverse=True)
                values = np.cumsum(np.bincount(steps, np.repeat((1, -1), whole.sum())).astype(np.int64))
                inside = (ns >= self._scope.from_ns) & (ns < self._scope.to_ns)
                ns, values = ns[inside], values[inside]
                if not len(ns):
                    continue
                track = self._host.counter(2 * rank + place, f"{noun} {what}", meaning)
                for at in range(0, len(ns), CHUNK_ROWS):
                    portion = slice(at, at + CHUNK_ROWS)
                    yield [
                        Count(track, *step) for step in zip(ns[portion].tolist(), values[portion].tolist(), strict=True)
                    ]

    def _requests(self, rows: NDArray[np.int64]) -> None:
        begins, ends = np.searchsorted(self._owner, rows), np.searchsorted(self._owner, rows, side="right")
        cpus = arrow.values(self._deliveries.column("cpu"))
        exits = arrow.values(self._deliveries.column("exit_ns"), int(NULL))
        for row, begin, end in zip(_dicts(self._episodes, rows, _ROW), begins.tolist(), ends.tolist(), strict=True):
            mine = cpus[begin:end]
            flows = tuple(arrow_id(row["episode"], cpu) for cpu in mine[self._shown[begin:end]].tolist())
            last = int(exits[begin:end].max(initial=NULL)) if row["complete"] else None
            self._request(row, flows, last)

    def _request(self, row: dict[str, Any], flows: tuple[int, ...], last_exit: int | None) -> None:
        start, send, done = row["start_ns"], row["send_ns"], row["done_ns"]
        known = [ns for ns in (start, send, done) if ns is not None]
        if not known:
            return
        shown = self._host.cpu(row["initiator"], REQUESTS)
        whole = Piece(min(known), max(known), request_name(row), _request_args(row), flows)
        if len(known) == 1:
            shown.instant(whole)
            return
        inside = []
        if start is not None and send is not None:
            # Viewers draw an arrow from the end of the slice that it leaves; the end of this one is SEND.
            inside.append(Piece(start, max(start, send), "lock wait", {}, flows))
            whole = whole._replace(flows=())
        if last_exit is not None:
            # A damaged trace may have them in any order.
            sent = max(start, send)
            noticed = max(sent, min(last_exit, done))
            inside.append(Piece(sent, noticed, "waiting", {}))
            if last_exit <= done:
                inside.append(Piece(noticed, max(noticed, done), "completion", {}))
        cut = self._scope.cut
        shown.slice(cut(whole), [cut(phase) for phase in inside if phase.begin_ns < self._scope.to_ns])

    def _functions(self) -> Iterator[list[Mark]]:
        """Of each CPU in order of time; what a call carries is inside it."""
        cpu = arrow.values(self._deliveries.column("cpu"))
        carries = arrow.equals(self._episodes["kind"], "call")
        order = np.flatnonzero(self._shown)
        keys = (~carries[self._owner[order]], -self._last[order], self._first[order], cpu[order])
        order = order[np.lexsort(keys)]
        for begin in range(0, len(order), CHUNK_ROWS):
            rows = order[begin : begin + CHUNK_ROWS]
            owners, inverse = np.unique(self._owner[rows], return_inverse=True)
            episodes = list(_dicts(self._episodes, owners, _ROW))
            names = [(request_name(row), row) for row in episodes]
            for one, place in zip(_dicts(self._deliveries, rows, _DELIVERY_ROW), inverse.tolist(), strict=True):
                self._function(one, *names[place])
            yield self._host.take()

    def _function(self, one: dict[str, Any], name: str, episode: dict[str, Any]) -> None:
        row = self._host.cpu(one["cpu"], FUNCTIONS)
        args: dict[str, Arg] = {"episode": one["episode"], "initiator": episode["initiator"]}
        args |= {key: one[key] for key in ("delivery_ns", "queue_ns", "state") if one[key] is not None}
        args |= _who(one)
        asked = any(episode[step] is not None for step in ("start_ns", "send_ns", "done_ns"))
        arrives = (arrow_id(one["episode"], one["cpu"]),) if asked else ()
        enter, left = one["enter_ns"], one["exit_ns"]
        if enter is None or left is None:
            args["complete"] = False
            row.instant(Piece(enter if left is None else left, 0, name, args, (), arrives))
            return
        row.slice(self._scope.cut(Piece(enter, max(enter, left), name, args, (), arrives)))


def arrow_id(episode: int, cpu: int) -> int:
    """The number of the arrow from an episode's initiator to this target; never 0."""
    return (episode + 1) << TRACK_BITS | cpu


def request_name(row: dict[str, Any]) -> str:
    """`call stop_machine`, `flush TLB|VA_VALID`; the kind alone where its START was not seen."""
    if row["kind"] == "flush":
        flags = row["flush_flags"]
        return "flush" if flags is None else f"flush {flush_name(flags)}"
    if row["func"] is None:
        return "call"
    return f"call {printable(row['func_name'] or hex(row['func']))[:MAX_NAME]}"


def _who(row: dict[str, Any]) -> Args:
    return {} if row["domain"] is None else {"vcpu": vcpu_name(row["domain"], row["vcpu"])}


def _request_args(row: dict[str, Any]) -> Args:
    args: dict[str, Arg] = {"episode": row["episode"], "seq": row["seq"]}
    if row["targets"] is not None:
        args["mask"] = numbers(row["targets"])
    for name, column in (("func", "func"), ("flags", "flush_flags"), ("va", "va")):
        if row[column] is not None:
            args[name] = Address(row[column])
    args |= {name: row[name] for name in ("wait", "parent", "straggler") if row[name] is not None}
    return {**args, **_who(row), "evidence": row["evidence"], "complete": row["complete"]}


def _dicts(table: pa.Table, rows: NDArray[np.int64], columns: list[str]) -> Iterator[dict[str, Any]]:
    """These rows as dictionaries."""
    yield from table.select(columns).take(arrow.array(rows, pa.int64())).to_pylist()


def _ends(table: pa.Table, names: tuple[str, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The earliest and the latest of these times in each row, NULL where it has none."""
    times = np.stack([arrow.values(table.column(name), int(NULL)) for name in names])
    known = times != NULL
    first = np.where(known, times, FOREVER_NS).min(axis=0)
    return np.where(known.any(axis=0), first, NULL), times.max(axis=0)

"""Who waits for whom: what requests cost each other's callers, by CPU, domain and function, and where they meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xtrace.context import NOBODY
from xtrace.contract import frame
from xtrace.episodes.assemble import KIND_NAMES
from xtrace.episodes.relations import Model
from xtrace.grouping import rows_by
from xtrace.questions.convoys import Convoys, Overlap, Place, Waiters, convoys, overlap, places, waiters
from xtrace.questions.paths import CAUSES, LOCK, QUEUE, SERVING, Paths
from xtrace.questions.requests import CALL, FLUSH, Flags, Index

if TYPE_CHECKING:
    import pandas as pd

MAX_PAIRS: Final = 1 << 16
"""Pairs of CPUs that are kept, the most expensive first: all of them on hosts of up to 256 CPUs."""

_DENSE: Final = 1 << 22

LOSSES: Final = {"waits": "int64", "lock_ns": "int64", "queue_ns": "int64", "serving_ns": "int64", "lost_ns": "int64"}
"""Columns of frames of pairs, as the fields of `Pair`."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Where the time of callers went, START to DONE, in sums of ns over some requests.

    total_ns       lock_ns + sending_ns + delivery_ns + execution_ns + completion_ns, to the nanosecond
    lock_ns        legacy: others had the lock; lockless: the caller's earlier call was not answered
    sending_ns     the rest from START to the first IPI; of it sending_serving_ns running functions for others
    delivery_ns    from there until the target that answered last began; of it queue_ns behind functions of others
    execution_ns   until that target had answered: its function, where the caller waits for its end
    completion_ns  until DONE; of it completion_serving_ns running functions for others
    serving_ns     sending_serving_ns + completion_serving_ns
    lost_ns        lock_ns + queue_ns + serving_ns: what other requests cost the callers, whatever the design
    own_ns         the part of lost_ns behind requests of the caller's own CPU
    losers         requests that lost any time
    """

    requests: int
    total_ns: int
    lock_ns: int
    sending_ns: int
    sending_serving_ns: int
    delivery_ns: int
    queue_ns: int
    execution_ns: int
    completion_ns: int
    completion_serving_ns: int
    serving_ns: int
    lost_ns: int
    own_ns: int
    losers: int

    @property
    def lost_share(self) -> float | None:
        """The part of total_ns that others cost; None of nothing."""
        return self.lost_ns / self.total_ns if self.total_ns else None


@dataclass(frozen=True, slots=True)
class Pair:
    """What requests of one initiator lost to those of another; CPUs, or domains with None for not known.

    waits    how often: a request that waits for two of the blocker's counts twice
    lock_ns, queue_ns, serving_ns, lost_ns  as in `Spent`
    """

    waiting: int | None
    blocker: int | None
    waits: int
    lock_ns: int
    queue_ns: int
    serving_ns: int
    lost_ns: int


@dataclass(frozen=True, slots=True)
class Work:
    """A function (calls) or kind of flush: what its callers paid, lost to others, and made others lose; ns."""

    kind: str
    name: str
    requests: int
    total_ns: int
    lost_ns: int
    caused_ns: int


@dataclass(frozen=True, slots=True)
class Queueing:
    """All deliveries, not only those that the caller waited for last; ns.

    queued       deliveries that waited behind functions of other requests on their target
    delivery_ns  sum of SEND to ENTER; queue_ns: the part of it in which the target ran such functions
    """

    deliveries: int
    queued: int
    delivery_ns: int
    queue_ns: int


@dataclass(frozen=True, slots=True)
class Contention:
    """What requests cost each other.

    trace_ns  length of the trace, or of what is selected
    spent     by kind, and of `all`
    blame     by initiator and blocker's initiator, most expensive first; blame_left_out: pairs beyond MAX_PAIRS
    domains   the same by domain
    works     by function or kind of flush, most expensive first
    places    locks, then CPUs, the busiest first
    convoys   at `lock` and at `cpu`
    overlap   of flushes of different domains
    """

    model: Model
    trace_ns: int
    spent: dict[str, Spent]
    blame: tuple[Pair, ...]
    blame_left_out: int
    domains: tuple[Pair, ...]
    works: tuple[Work, ...]
    queueing: Queueing
    places: tuple[Place, ...]
    convoys: dict[str, Convoys]
    overlap: Overlap

    def df_blame(self) -> pd.DataFrame:
        """One row a pair of CPUs of which one waited for the other, most expensive first.

        Columns: initiator, blocker (uint16, CPUs), then LOSSES.
        """
        rows = (_cells(one, "initiator") for one in self.blame)
        return frame(rows, {"initiator": "uint16", "blocker": "uint16"} | LOSSES)

    def df_domains(self) -> pd.DataFrame:
        """One row a pair of domains of which one waited for the other, most expensive first; <NA>: not known.

        Columns: domain, blocker (UInt16), then LOSSES.
        """
        return frame(
            (_cells(one, "domain") for one in self.domains), {"domain": "UInt16", "blocker": "UInt16"} | LOSSES
        )

    def df_works(self) -> pd.DataFrame:
        """One row a function or kind of flush, most expensive first.

        Columns: kind, name (str), requests, total_ns, lost_ns, caused_ns (int64), as the fields of `Work`.
        """
        numbers = dict.fromkeys(("requests", "total_ns", "lost_ns", "caused_ns"), "int64")
        return frame(map(_fields, self.works), {"kind": "str", "name": "str"} | numbers)

    def df_places(self) -> pd.DataFrame:
        """One row a lock or CPU; locks first, then the busiest.

        Columns: name (str), cpu (UInt16, <NA> of a lock), served, busy_ns, wanted_ns, waited_ns (int64), waiting
        (Float64), most, handed_over (int64), share, wanted_share (Float64), as the fields of `convoys.Place`.
        """
        columns = dict.fromkeys(Place.__dataclass_fields__, "int64") | {"name": "str", "cpu": "UInt16"}
        columns |= dict.fromkeys(("waiting", "share", "wanted_share"), "Float64")
        return frame(map(_fields, self.places), columns)

    def df_convoys(self) -> pd.DataFrame:
        """One row a convoy of the worst at locks, then at CPUs.

        Columns: place (str), begin_ns, span_ns, requests (int64), initiators (object, a tuple of CPUs), waited_ns
        (int64), as the fields of `convoys.Convoy`.
        """
        names = ("place", "begin_ns", "span_ns", "requests", "initiators", "waited_ns")
        columns = dict.fromkeys(names, "int64") | {"place": "str", "initiators": "object"}
        return frame((_fields(row) for one in self.convoys.values() for row in one.worst), columns)


def _fields(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def _cells(one: Pair, name: str) -> dict[str, Any]:
    cells = _fields(one)
    return {name: cells.pop("waiting")} | cells


def contention(paths: Paths, trace_ns: int) -> Contention:
    """What the chosen requests lost to others, chosen or not; trace_ns: length of the trace, for shares."""
    requests = paths.requests
    by_cpu, by_domain = _Pairs(requests.initiator), _Pairs(requests.domain)
    lost = np.zeros((len(CAUSES), len(paths.rows)), np.int64)
    own = np.zeros(len(paths.rows), np.int64)
    caused = np.zeros(len(requests.episode), np.int64)
    for cause, (waiting, blocker, ns) in paths.blame():
        np.add.at(lost[cause], waiting, ns)
        np.add.at(caused, blocker, ns)
        rows = paths.rows[waiting]
        same = requests.initiator[rows] == requests.initiator[blocker]
        np.add.at(own, waiting[same], ns[same])
        by_cpu.add(cause, rows, blocker, ns)
        by_domain.add(cause, rows, blocker, ns)
    pairs, domains = by_cpu.rows(), by_domain.rows()
    of = waiters(paths)
    return Contention(
        model=requests.model,
        trace_ns=trace_ns,
        spent=_spent(paths, lost, own),
        blame=tuple(pairs[:MAX_PAIRS]),
        blame_left_out=max(0, len(pairs) - MAX_PAIRS),
        domains=tuple(domains),
        works=_works(paths, lost.sum(axis=0), caused),
        queueing=_queueing(of),
        places=places(paths, of, trace_ns),
        convoys=convoys(paths),
        overlap=overlap(requests),
    )


class _Pairs:
    """Sums of losses by pair of what requests have in common."""

    def __init__(self, value: Index) -> None:
        self._values, self._code = np.unique(value, return_inverse=True)
        self._keys = np.zeros(0, np.int64)
        self._sums = np.zeros((1 + len(CAUSES), 0), np.int64)

    def add(self, cause: int, waiting: Index, blocker: Index, ns: Index) -> None:
        """Rows of requests, who waited for whom, and for how long."""
        keys = np.concatenate((self._keys, self._code[waiting] * len(self._values) + self._code[blocker]))
        known = len(self._keys)
        self._keys, at = _distinct(keys, len(self._values) ** 2)
        sums = np.zeros((1 + len(CAUSES), len(self._keys)), np.int64)
        sums[:, at[:known]] = self._sums
        np.add.at(sums[0], at[known:], 1)
        np.add.at(sums[1 + cause], at[known:], ns)
        self._sums = sums

    def rows(self) -> list[Pair]:
        """Most expensive first."""
        total = self._sums[1:].sum(axis=0)
        order = np.argsort(-total, kind="stable")
        waiting, blocker = (
            [None if one == NOBODY else one for one in self._values[codes].tolist()]
            for codes in np.divmod(self._keys[order], max(1, len(self._values)))
        )
        columns = [waiting, blocker, *self._sums[:, order].tolist(), total[order].tolist()]
        return [Pair(*row) for row in zip(*columns, strict=True)]


def _distinct(keys: Index, end: int) -> tuple[Index, Index]:
    """Distinct numbers from 0 to `end`, ascending, and which of them each key is."""
    if end > _DENSE:
        return np.unique(keys, return_inverse=True)
    seen = np.zeros(end, np.bool_)
    seen[keys] = True
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[keys]


def _spent(paths: Paths, lost: Index, own: Index) -> dict[str, Spent]:
    requests = paths.requests
    before = np.zeros(len(paths.rows), np.int64)
    place = requests.own_place[paths.rows]
    for wait, owner, ns in paths.cpus.during(place, paths.owned, paths.sent):
        other = owner != paths.rows[wait]
        np.add.at(before, wait[other], ns[other])
    every = lost.sum(axis=0)
    columns = {
        "total_ns": paths.done - paths.start,
        "lock_ns": lost[LOCK],
        "sending_ns": paths.sent - paths.start - lost[LOCK],
        "sending_serving_ns": before,
        "delivery_ns": paths.began - paths.sent,
        "queue_ns": lost[QUEUE],
        "execution_ns": paths.answered - paths.began,
        "completion_ns": paths.done - paths.answered,
        "completion_serving_ns": lost[SERVING] - before,
        "serving_ns": lost[SERVING],
        "lost_ns": every,
        "own_ns": own,
        "losers": every > 0,
    }
    kind = requests.kind[paths.rows]

    def of(mine: Flags) -> Spent:
        return Spent(requests=int(mine.sum()), **{name: int(values[mine].sum()) for name, values in columns.items()})

    found = {KIND_NAMES[one]: of(kind == one) for one in (CALL, FLUSH)}
    return found | {"all": of(np.ones(len(kind), np.bool_))}


def _works(paths: Paths, lost: Index, caused: Index) -> tuple[Work, ...]:
    requests = paths.requests
    total, mine = paths.done - paths.start, requests.work[paths.rows]
    made = np.zeros(len(requests.works), np.int64)
    np.add.at(made, requests.work, caused)
    rows = dict(rows_by(mine))
    found = []
    for work, all_rows in rows_by(requests.work):
        chosen = rows.get(work, np.zeros(0, np.int64))
        if len(chosen) or made[work]:
            found.append(
                Work(
                    kind=KIND_NAMES[int(requests.kind[all_rows[0]])],
                    name=requests.works[work],
                    requests=len(chosen),
                    total_ns=int(total[chosen].sum()),
                    lost_ns=int(lost[chosen].sum()),
                    caused_ns=int(made[work]),
                )
            )
    return tuple(sorted(found, key=lambda one: (-one.total_ns, -one.caused_ns, one.name)))


def _queueing(of: Waiters) -> Queueing:
    ns = of.behind.ns
    return Queueing(
        deliveries=len(ns),
        queued=int((ns > 0).sum()),
        delivery_ns=int((of.services.enter - of.asked).sum()),
        queue_ns=int(ns.sum()),
    )


def df_waits(paths: Paths) -> pd.DataFrame:
    """One row a wait of a chosen request for another, by waiting episode and time; as many as there were.

    episode, blocker              uint64    who waited for whom, in the table of episodes; a flush, not what carries it
    cause                         category  `lock`, `queue` or `serving`, as in `questions.paths`
    initiator, blocker_initiator  uint16    their CPUs
    wait_ns                       int64     for how long
    """
    import pandas as pd

    requests = paths.requests
    nothing = (np.zeros(0, np.int64),) * 4
    parts = [nothing, *((np.full(len(one.ns), cause), *one) for cause, one in paths.blame())]
    cause, waiting, blocker, ns = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(waiting, kind="stable")
    cause, blocker, ns, rows = cause[order], blocker[order], ns[order], paths.rows[waiting[order]]
    return pd.DataFrame(
        {
            "episode": requests.episode[rows].astype(np.uint64),
            "blocker": requests.episode[blocker].astype(np.uint64),
            "cause": pd.Categorical.from_codes(cause, pd.Index(CAUSES)),
            "initiator": requests.initiator[rows].astype(np.uint16),
            "blocker_initiator": requests.initiator[blocker].astype(np.uint16),
            "wait_ns": ns,
        }
    )

"""Stragglers: what the last target of each call and flush was doing, and who is last most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from xtrace.contract import frame
from xtrace.episodes.assemble import KIND_NAMES
from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.questions.situations import DOINGS, Lasts, vcpu_codes, vcpu_of

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.questions.paths import Paths
    from xtrace.questions.requests import Index

LATE: Final = 10
"""A target is late that began after more than so many times the typical delivery."""
WORST: Final = 10
"""Requests of each kind that are told one by one."""

_CODES: Final = tuple(DOINGS)
_SPREAD: Final = ("sum_ns", "p50_ns", "p99_ns", "max_ns")
_DELIVERY: Final = {f"delivery_{name}": "int64" for name in _SPREAD}
_LATENESS: Final = {f"lateness_{name}": "Int64" for name in _SPREAD}
_OFFENDER: Final = (
    {"requests": "int64", "took_ns": "int64"}
    | _DELIVERY
    | {"of_several": "int64", "by_chance": "float64", "lateness_ns": "int64"}
)


@dataclass(frozen=True, slots=True)
class Spread:
    """Times of some requests: their sum, quantiles (linear between neighbours, rounded) and the longest."""

    sum_ns: int
    p50_ns: int
    p99_ns: int
    max_ns: int

    @classmethod
    def of(cls, times: Index) -> Spread:
        """Of one time or more."""
        half, most = np.quantile(times, [0.5, 0.99]).round().tolist()
        return cls(int(times.sum()), int(half), int(most), int(times.max()))


@dataclass(frozen=True, slots=True)
class KindOfRequest:
    """Calls or flushes: how many were chosen, and where the time of their callers went.

    paid_ns       START to DONE, summed, which is the sum of the next four
    before_ns     START to SEND
    delivery_ns   and then until the last target began
    execution_ns  and then until it had answered
    after_ns      and then until DONE
    typical_ns    the median delivery of all targets that ran no function of another request meanwhile, None for none
    """

    kind: str
    requests: int
    paid_ns: int
    before_ns: int
    delivery_ns: int
    execution_ns: int
    after_ns: int
    typical_ns: int | None


@dataclass(frozen=True, slots=True)
class Doing:
    """Requests of a kind whose last target was doing this.

    doing     of DOINGS
    took_ns   SEND until it had answered, summed
    delivery  SEND until it began
    lateness  by how much it answered after the last but one; None where none had two targets
    late      how many began after more than LATE times the typical delivery; None where nothing is typical
    """

    kind: str
    doing: str
    requests: int
    took_ns: int
    delivery: Spread
    lateness: Spread | None
    late: int | None


@dataclass(frozen=True, slots=True)
class Offender:
    """A CPU, or the vCPU that was on the target, and the requests of which it was last.

    cpu, domain, vcpu  None where the row is not about it, where it is not known; vcpu also of the idle domain
    took_ns      SEND until it had answered, summed
    delivery     SEND until it began
    of_several   of how many requests with two targets or more it was last
    by_chance    and of how many if no target of a request were last more often than another
    lateness_ns  by how much it answered after the last but one of those, summed
    """

    cpu: int | None
    domain: int | None
    vcpu: int | None
    requests: int
    took_ns: int
    delivery: Spread
    of_several: int
    by_chance: float
    lateness_ns: int


@dataclass(frozen=True, slots=True)
class WorkOfLast:
    """A function or a kind of flush; doing: what most of took_ns went by with, and which part of it."""

    kind: str
    name: str
    requests: int
    took_ns: int
    delivery: Spread
    doing: str
    doing_percent: float | None


@dataclass(frozen=True, slots=True)
class LongestWait:
    """A request: its row in the table of episodes, its START, its last target; lateness_ns: None of one target."""

    kind: str
    episode: int
    start_ns: int
    initiator: int
    name: str
    cpu: int
    domain: int | None
    vcpu: int | None
    doing: str
    delivery_ns: int
    execution_ns: int
    lateness_ns: int | None


@dataclass(frozen=True, slots=True)
class Stragglers:
    """The whole answer; in each part, what took most time first.

    Methods `df_…` return rows as pandas frames, with columns in the order and of the types that they name.
    """

    kinds: tuple[KindOfRequest, ...]
    doings: tuple[Doing, ...]
    cpus: tuple[Offender, ...]
    vcpus: tuple[Offender, ...]
    works: tuple[WorkOfLast, ...]
    worst: tuple[LongestWait, ...]

    def df_doings(self) -> pd.DataFrame:
        """One row a kind and what the last target was doing.

        Columns: kind, doing (str, of DOINGS), requests, took_ns, delivery_sum_ns, delivery_p50_ns, delivery_p99_ns,
        delivery_max_ns (int64), lateness_sum_ns, lateness_p50_ns, lateness_p99_ns, lateness_max_ns (Int64, <NA> where
        no request had two targets), late (Int64, <NA> where nothing is typical).
        """
        dtypes = {"kind": "str", "doing": "str", "requests": "int64", "took_ns": "int64"}
        return frame(map(_flat, self.doings), dtypes | _DELIVERY | _LATENESS | {"late": "Int64"})

    def df_cpus(self) -> pd.DataFrame:
        """One row a CPU that was last.

        Columns: cpu (uint16), requests, took_ns, delivery_… as `df_doings`, of_several (int64), by_chance (float64),
        lateness_ns (int64).
        """
        return frame(map(_flat, self.cpus), {"cpu": "uint16"} | _OFFENDER)

    def df_vcpus(self) -> pd.DataFrame:
        """One row a vCPU that was on the last target.

        Columns: domain, vcpu (UInt16, <NA> where not known; vCPUs of the idle domain are one), then as `df_cpus`.
        """
        return frame(map(_flat, self.vcpus), {"domain": "UInt16", "vcpu": "UInt16"} | _OFFENDER)

    def df_works(self) -> pd.DataFrame:
        """One row a function or kind of flush.

        Columns: kind, name (str), requests, took_ns, delivery_… as `df_doings`, doing (str), doing_percent (Float64).
        """
        dtypes = {"kind": "str", "name": "str", "requests": "int64", "took_ns": "int64"}
        return frame(map(_flat, self.works), dtypes | _DELIVERY | {"doing": "str", "doing_percent": "Float64"})

    def df_worst(self) -> pd.DataFrame:
        """One row a request, WORST of each kind, that took longest from SEND until its last target had answered.

        Columns: kind (str), episode, start_ns (int64), initiator (uint16), name (str), cpu (uint16), domain, vcpu
        (UInt16, on the target, <NA> where not known), doing (str), delivery_ns, execution_ns (int64), lateness_ns
        (Int64, <NA> of one target).
        """
        dtypes = {"kind": "str", "episode": "int64", "start_ns": "int64", "initiator": "uint16", "name": "str"}
        dtypes |= {"cpu": "uint16", "domain": "UInt16", "vcpu": "UInt16", "doing": "str"}
        dtypes |= {"delivery_ns": "int64", "execution_ns": "int64", "lateness_ns": "Int64"}
        return frame(map(asdict, self.worst), dtypes)


def _flat(row: Any) -> dict[str, Any]:
    """A row with its spreads as columns of their own."""
    cells = asdict(row)
    for name in {"delivery", "lateness"} & cells.keys():
        spread = cells.pop(name) or dict.fromkeys(_SPREAD)
        cells |= {f"{name}_{part}": value for part, value in spread.items()}
    return cells


def stragglers(paths: Paths) -> Stragglers:
    """What the last targets of the chosen requests were doing."""
    lasts = Lasts.of(paths)
    requests, services = paths.requests, paths.requests.services
    kind = requests.kind[paths.rows].astype(np.int64)
    kinds = {number: _kind(lasts, number, rows) for number, rows in rows_by(kind)}
    return Stragglers(
        kinds=tuple(sorted(kinds.values(), key=lambda one: -one.paid_ns)),
        doings=_longest_first(
            _doing(lasts, rows, kinds[number // len(_CODES)])
            for number, rows in rows_by(kind * len(_CODES) + lasts.doing)
        ),
        cpus=_longest_first(
            _offender(lasts, found, chance, cpu=number) for number, found, chance in _last(lasts, services.cpu)
        ),
        vcpus=_longest_first(
            _offender(lasts, found, chance, vcpu=vcpu_of(number))
            for number, found, chance in _last(lasts, vcpu_codes(services.domain, services.vcpu))
        ),
        works=_longest_first(_work(lasts, rows) for _, rows in rows_by(requests.work[paths.rows])),
        worst=tuple(row for _, rows in rows_by(kind) for row in _worst(lasts, rows)),
    )


_Row = TypeVar("_Row", Doing, Offender, WorkOfLast)


def _longest_first(rows: Iterable[_Row]) -> tuple[_Row, ...]:
    return tuple(sorted(rows, key=lambda row: -row.took_ns))


def _kind(lasts: Lasts, kind: int, rows: Index) -> KindOfRequest:
    paths = lasts.paths
    steps = (paths.start, paths.sent, paths.began, paths.answered, paths.done)
    before, delivery, execution, after = (int((end - begin)[rows].sum()) for begin, end in pairwise(steps))
    paid = before + delivery + execution + after
    return KindOfRequest(KIND_NAMES[kind], len(rows), paid, before, delivery, execution, after, lasts.typical[kind])


def _doing(lasts: Lasts, rows: Index, kind: KindOfRequest) -> Doing:
    several = rows[lasts.several[rows]]
    delivery = lasts.delivery[rows]
    return Doing(
        kind=kind.kind,
        doing=_CODES[int(lasts.doing[rows[0]])],
        requests=len(rows),
        took_ns=int(lasts.took[rows].sum()),
        delivery=Spread.of(delivery),
        lateness=Spread.of(lasts.lateness[several]) if len(several) else None,
        late=None if kind.typical_ns is None else int((delivery > LATE * kind.typical_ns).sum()),
    )


def _last(lasts: Lasts, of: Index) -> Iterator[tuple[int, Index, float]]:
    """By what services have in common: the requests of which one of them was last, and of how many it would be."""
    chance = np.where(lasts.several, 1 / np.maximum(np.bincount(lasts.row, minlength=len(lasts.several)), 1), 0)
    values, code = np.unique(of[lasts.all], return_inverse=True)
    expected = dict(zip(values.tolist(), np.bincount(code, chance[lasts.row]).tolist(), strict=True))
    for value, rows in rows_by(of[lasts.paths.last]):
        yield value, rows, expected[value]


def _offender(
    lasts: Lasts,
    rows: Index,
    chance: float,
    *,
    cpu: int | None = None,
    vcpu: tuple[int | None, int | None] = (None, None),
) -> Offender:
    several = rows[lasts.several[rows]]
    return Offender(
        cpu=cpu,
        domain=vcpu[0],
        vcpu=vcpu[1],
        requests=len(rows),
        took_ns=int(lasts.took[rows].sum()),
        delivery=Spread.of(lasts.delivery[rows]),
        of_several=len(several),
        by_chance=chance,
        lateness_ns=int(lasts.lateness[several].sum()),
    )


def _work(lasts: Lasts, rows: Index) -> WorkOfLast:
    requests, row = lasts.paths.requests, lasts.paths.rows[rows[0]]
    took = np.zeros(len(_CODES), np.int64)
    np.add.at(took, lasts.doing[rows], lasts.took[rows])
    most, whole = int(took.argmax()), int(took.sum())
    return WorkOfLast(
        kind=KIND_NAMES[requests.kind[row]],
        name=requests.works[requests.work[row]],
        requests=len(rows),
        took_ns=whole,
        delivery=Spread.of(lasts.delivery[rows]),
        doing=_CODES[most],
        doing_percent=100 * int(took[most]) / whole if whole else None,
    )


def _worst(lasts: Lasts, rows: Index) -> Iterator[LongestWait]:
    requests, services = lasts.paths.requests, lasts.services
    for at in rows[np.argsort(-lasts.took[rows], kind="stable")][:WORST].tolist():
        row = int(lasts.paths.rows[at])
        domain, vcpu = vcpu_of(int(vcpu_codes(services.domain[at : at + 1], services.vcpu[at : at + 1])[0]))
        lateness = int(lasts.lateness[at])
        yield LongestWait(
            kind=KIND_NAMES[requests.kind[row]],
            episode=int(requests.episode[row]),
            start_ns=int(requests.start[row]),
            initiator=int(requests.initiator[row]),
            name=requests.works[requests.work[row]],
            cpu=int(services.cpu[at]),
            domain=domain,
            vcpu=vcpu,
            doing=_CODES[int(lasts.doing[at])],
            delivery_ns=int(lasts.delivery[at]),
            execution_ns=int(lasts.execution[at]),
            lateness_ns=None if lateness == NULL else lateness,
        )

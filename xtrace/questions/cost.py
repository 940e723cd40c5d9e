"""Who pays: time that callers waited, and time that functions took from vCPUs on their targets, by domain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from xtrace.context import IDLE_DOMAIN, NOBODY
from xtrace.contract import frame
from xtrace.episodes.assemble import KIND_NAMES
from xtrace.episodes.relations import STATES
from xtrace.questions.groups import Groups
from xtrace.questions.situations import arriving, own_requests

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.questions.paths import Paths
    from xtrace.questions.requests import Flags, Index


@dataclass(frozen=True, slots=True)
class Account:
    """What the requests of a kind cost a domain, the idle domain left out.

    paid_ns       by its vCPUs as callers
    lost_ns       by its vCPUs on targets
    waiting_ns    what is in both: lost inside a call or flush of their own
    cost_ns       paid_ns + lost_ns − waiting_ns
    cost_percent  of the cost of all domains, None where there is none
    taken_ns      what its requests took from vCPUs of other domains
    """

    kind: str
    domain: int
    requests: int
    paid_ns: int
    lost_ns: int
    waiting_ns: int
    cost_ns: int
    cost_percent: float | None
    taken_ns: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Requests of a kind that were made with a vCPU on the caller's CPU.

    domain, vcpu  at START; None where not known, vcpu also of the idle domain
    paid_ns    START to DONE, summed, which is the sum of the next four
    lock_ns    START until nobody else had the lock; lockless: until the caller's own earlier call was answered
    before_ns  and then until SEND
    target_ns  and then until the last target had answered
    after_ns   and then until DONE
    """

    kind: str
    domain: int | None
    vcpu: int | None
    requests: int
    paid_ns: int
    lock_ns: int
    before_ns: int
    target_ns: int
    after_ns: int


@dataclass(frozen=True, slots=True)
class Victim:
    """Functions of a kind of request that ran on the CPU of a vCPU which had not asked for them.

    domain, vcpu   at ENTER, never of the idle domain
    interruptions  functions
    stolen_ns      ENTER to EXIT, summed, which is the sum of the last four
    max_ns         the longest
    guest_ns       where the guest was running
    hypervisor_ns  where Xen was, for it
    waiting_ns     inside a call or flush of the vCPU's own, which it paid for from START to DONE
    unknown_ns     where a PV guest cannot be told from Xen
    """

    kind: str
    domain: int
    vcpu: int
    interruptions: int
    stolen_ns: int
    max_ns: int
    guest_ns: int
    hypervisor_ns: int
    waiting_ns: int
    unknown_ns: int


@dataclass(frozen=True, slots=True)
class Interference:
    """What requests of one domain (None: not known) took from vCPUs of another, or from its own others."""

    kind: str
    initiator: int | None
    victim: int
    interruptions: int
    stolen_ns: int


@dataclass(frozen=True, slots=True)
class WorkOfDomain:
    """Calls of a function, or flushes of a kind, by domain on the caller's CPU (None: not known).

    targets    CPUs in their masks, summed
    stolen_ns  what their functions took from vCPUs that are known
    """

    kind: str
    domain: int | None
    name: str
    requests: int
    paid_ns: int
    targets: int
    stolen_ns: int


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Functions of a kind of request that took nothing from a vCPU, or nobody knows from which; how many, and ns.

    own      on the caller's CPU, which was in its own mask: part of what was paid
    idle     on idle CPUs
    unknown  where no record says who was there
    """

    kind: str
    own: int
    own_ns: int
    idle: int
    idle_ns: int
    unknown: int
    unknown_ns: int


_NS: Final = ("paid_ns", "lock_ns", "before_ns", "target_ns", "after_ns")
_PARTS: Final = ("guest_ns", "hypervisor_ns", "waiting_ns", "unknown_ns")


@dataclass(frozen=True, slots=True)
class Cost:
    """The whole answer; in each part, by kind, what cost most first.

    span_ns  from the first START to the last DONE of what was chosen, summed over captures
    known    whether any record says which domain was where

    Methods `df_…` return rows as pandas frames, with columns in the order and of the types that they name.
    """

    span_ns: int
    known: bool
    accounts: tuple[Account, ...]
    callers: tuple[Caller, ...]
    victims: tuple[Victim, ...]
    interference: tuple[Interference, ...]
    works: tuple[WorkOfDomain, ...]
    elsewhere: tuple[Elsewhere, ...]

    def df_accounts(self) -> pd.DataFrame:
        """One row a kind and domain: what it paid, what it lost, what it took.

        Columns: kind (str), domain (uint16), requests, paid_ns, lost_ns, waiting_ns, cost_ns (int64), cost_percent
        (Float64), taken_ns (int64).
        """
        dtypes = {"kind": "str", "domain": "uint16"} | dict.fromkeys(("requests", "paid_ns", "lost_ns"), "int64")
        dtypes |= {"waiting_ns": "int64", "cost_ns": "int64", "cost_percent": "Float64", "taken_ns": "int64"}
        return frame(map(asdict, self.accounts), dtypes)

    def df_callers(self) -> pd.DataFrame:
        """One row a kind and vCPU on callers' CPUs.

        Columns: kind (str), domain, vcpu (UInt16, <NA> where not known; vCPUs of the idle domain are one), requests,
        paid_ns, lock_ns, before_ns, target_ns, after_ns (int64).
        """
        dtypes = {"kind": "str", "domain": "UInt16", "vcpu": "UInt16"} | dict.fromkeys(("requests", *_NS), "int64")
        return frame(map(asdict, self.callers), dtypes)

    def df_victims(self) -> pd.DataFrame:
        """One row a kind and vCPU that functions were run on.

        Columns: kind (str), domain, vcpu (uint16), interruptions, stolen_ns, max_ns, guest_ns, hypervisor_ns,
        waiting_ns, unknown_ns (int64).
        """
        names = ("interruptions", "stolen_ns", "max_ns", *_PARTS)
        dtypes = {"kind": "str", "domain": "uint16", "vcpu": "uint16"} | dict.fromkeys(names, "int64")
        return frame(map(asdict, self.victims), dtypes)

    def df_interference(self) -> pd.DataFrame:
        """One row a kind, domain on the caller's CPU and domain on targets.

        Columns: kind (str), initiator (UInt16, <NA> where not known), victim (uint16), interruptions, stolen_ns
        (int64).
        """
        dtypes = {"kind": "str", "initiator": "UInt16", "victim": "uint16"}
        return frame(map(asdict, self.interference), dtypes | {"interruptions": "int64", "stolen_ns": "int64"})

    def df_works(self) -> pd.DataFrame:
        """One row a domain on callers' CPUs and function or kind of flush.

        Columns: kind (str), domain (UInt16, <NA> where not known), name (str), requests, paid_ns, targets, stolen_ns
        (int64).
        """
        dtypes = {"kind": "str", "domain": "UInt16", "name": "str"}
        dtypes |= dict.fromkeys(("requests", "paid_ns", "targets", "stolen_ns"), "int64")
        return frame(map(asdict, self.works), dtypes)


def cost(paths: Paths) -> Cost:
    """What the chosen requests cost, and whom."""
    requests = paths.requests
    ran = _Ran.of(paths)
    callers = tuple(_callers(paths))
    victims = tuple(_victims(ran))
    interference = tuple(_interference(paths, ran))
    known = bool((requests.domain != NOBODY).any() or (requests.services.domain != NOBODY).any())
    return Cost(
        span_ns=_span(paths),
        known=known,
        accounts=tuple(_accounts(callers, victims, interference)),
        callers=callers,
        victims=victims,
        interference=interference,
        works=tuple(_works(paths, ran)),
        elsewhere=tuple(_elsewhere(ran)),
    )


class _Ran(NamedTuple):
    """Functions of chosen requests; int64, a row each.

    request, kind  whose: row of `Requests`, and its kind
    domain, vcpu   who was there
    ns             how long
    own, idle, stolen  what that was: a row is one of these, or nobody knows
    parts          _PARTS of what was stolen
    """

    request: Index
    kind: Index
    domain: Index
    vcpu: Index
    ns: Index
    own: Flags
    idle: Flags
    stolen: Flags
    parts: tuple[Index, ...]

    @classmethod
    def of(cls, paths: Paths) -> _Ran:
        requests = paths.requests
        rows = np.flatnonzero(requests.services.seen & requests.chosen[requests.services.request])
        arrives = arriving(requests.services)[rows]
        services = requests.services.take(rows)
        ns = np.maximum(services.left - services.enter, 0)
        own = services.place == requests.own_place[services.request]
        idle = ~own & (services.domain == IDLE_DOMAIN)
        stolen = ~own & ~idle & (services.domain != NOBODY)
        waiting = np.zeros(len(rows), np.int64)
        inside = own_requests(requests, requests.chosen)
        for one in inside.during(services.place, services.enter, services.left):
            np.add.at(waiting, one.wait, one.ns)
        guest = services.state == STATES.index("guest")
        hypervisor = (services.state == STATES.index("hypervisor")) | arrives
        rest = ns - waiting
        parts = (
            np.where(guest, rest, 0),
            np.where(hypervisor, rest, 0),
            waiting,
            np.where(guest | hypervisor, 0, rest),
        )
        kind = requests.kind[services.request].astype(np.int64)
        return cls(services.request, kind, services.domain, services.vcpu, ns, own, idle, stolen, parts)


def _span(paths: Paths) -> int:
    capture = paths.requests.capture[paths.rows]
    first = np.full(capture.max(initial=-1) + 1, np.iinfo(np.int64).max)
    last = np.full(len(first), np.iinfo(np.int64).min)
    np.minimum.at(first, capture, paths.start)
    np.maximum.at(last, capture, paths.done)
    there = np.unique(capture)
    return int((last - first)[there].sum())


def _callers(paths: Paths) -> list[Caller]:
    requests, rows = paths.requests, paths.rows
    domain = requests.domain[rows]
    vcpu = np.where(domain == IDLE_DOMAIN, NOBODY, requests.vcpu[rows])
    steps = (paths.start, paths.owned, paths.sent, paths.answered, paths.done)
    phases = [end - begin for begin, end in pairwise(steps)]
    found = [
        Caller(KIND_NAMES[kind], _known(one), _known(number), count, sum(times), *times)
        for (kind, one, number), (count, *times) in Groups(requests.kind[rows].astype(np.int64), domain, vcpu).sums(
            *phases
        )
    ]
    return sorted(found, key=lambda one: (one.kind, -one.paid_ns))


def _victims(ran: _Ran) -> list[Victim]:
    mine = ran.stolen
    groups = Groups(ran.kind[mine], ran.domain[mine], ran.vcpu[mine])
    parts = [part[mine] for part in ran.parts]
    found = [
        Victim(KIND_NAMES[kind], domain, vcpu, count, sum(times), longest, *times)
        for ((kind, domain, vcpu), (count, *times)), longest in zip(
            groups.sums(*parts), groups.longest(ran.ns[mine]), strict=True
        )
    ]
    return sorted(found, key=lambda one: (one.kind, -one.stolen_ns))


def _interference(paths: Paths, ran: _Ran) -> list[Interference]:
    mine = ran.stolen
    groups = Groups(ran.kind[mine], paths.requests.domain[ran.request[mine]], ran.domain[mine])
    found = [
        Interference(KIND_NAMES[kind], _known(initiator), victim, count, ns)
        for (kind, initiator, victim), (count, ns) in groups.sums(ran.ns[mine])
    ]
    return sorted(found, key=lambda one: (one.kind, -one.stolen_ns))


def _works(paths: Paths, ran: _Ran) -> list[WorkOfDomain]:
    requests, rows = paths.requests, paths.rows
    stolen = np.zeros(len(requests.episode), np.int64)
    np.add.at(stolen, ran.request[ran.stolen], ran.ns[ran.stolen])
    groups = Groups(requests.kind[rows].astype(np.int64), requests.domain[rows], requests.work[rows])
    found = [
        WorkOfDomain(KIND_NAMES[kind], _known(domain), requests.works[work], *sums)
        for (kind, domain, work), sums in groups.sums(paths.done - paths.start, requests.n_targets[rows], stolen[rows])
    ]
    return sorted(found, key=lambda one: (one.kind, -one.paid_ns))


def _elsewhere(ran: _Ran) -> Iterator[Elsewhere]:
    unknown = ~(ran.own | ran.idle | ran.stolen)
    each = (ran.own, ran.idle, unknown)
    values = [part for mine in each for part in (mine.astype(np.int64), np.where(mine, ran.ns, 0))]
    for (kind,), (_, *sums) in Groups(ran.kind).sums(*values):
        yield Elsewhere(KIND_NAMES[kind], *sums)


def _known(number: int) -> int | None:
    return None if number == NOBODY else number


def _accounts(
    callers: Iterable[Caller], victims: Iterable[Victim], interference: Iterable[Interference]
) -> list[Account]:
    found: dict[tuple[str, int], dict[str, int]] = {}

    def add(kind: str, domain: int | None, **values: int) -> None:
        if domain in (None, IDLE_DOMAIN):
            return
        empty = dict.fromkeys(("requests", "paid_ns", "lost_ns", "waiting_ns", "taken_ns"), 0)
        sums = found.setdefault((kind, domain), empty)
        for name, value in values.items():
            sums[name] += value

    for caller in callers:
        add(caller.kind, caller.domain, requests=caller.requests, paid_ns=caller.paid_ns)
    for victim in victims:
        add(victim.kind, victim.domain, lost_ns=victim.stolen_ns, waiting_ns=victim.waiting_ns)
    for one in interference:
        if one.initiator != one.victim:
            add(one.kind, one.initiator, taken_ns=one.stolen_ns)
    costs = {key: sums["paid_ns"] + sums["lost_ns"] - sums["waiting_ns"] for key, sums in found.items()}
    whole = {kind: sum(cost for (of, _), cost in costs.items() if of == kind) for kind in KIND_NAMES}
    accounts = [
        Account(
            kind,
            domain,
            cost_ns=costs[kind, domain],
            cost_percent=100 * costs[kind, domain] / whole[kind] if whole[kind] else None,
            **sums,
        )
        for (kind, domain), sums in found.items()
    ]
    return sorted(accounts, key=lambda one: (one.kind, -one.cost_ns, one.domain))

"""Wasted work: handlers that found nothing to do, and requests looked at for each function that was run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from xtrace.contract import frame
from xtrace.questions.flight import Flight
from xtrace.questions.requests import Flags, Index, Requests
from xtrace.questions.walks import Ran, in_vain, late, walked
from xtrace.states import TRACK_BITS

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.episodes.relations import Model
    from xtrace.questions.paths import Paths

COUNTS: Final = ("handlers", "idle", "scanned", "served")

BINS: Final = np.concatenate(([0], 1 << np.arange(TRACK_BITS + 1)))
"""Numbers in flight that are told apart: 0, 1, 2, 3-4, 5-8, …; the greatest of each."""


@dataclass(frozen=True, slots=True)
class OfCpu:
    """What a CPU did as a target: as the fields of `Waste`."""

    cpu: int
    ipis: int
    late: int
    handlers: int
    idle: int
    scanned: int
    served: int


@dataclass(frozen=True, slots=True)
class OfFlight:
    """Handlers that began when so many requests, from low to high, were in flight: as the fields of `Waste`."""

    low: int
    high: int
    handlers: int
    idle: int
    scanned: int
    served: int


@dataclass(frozen=True, slots=True)
class Waste:
    """What handlers of calls and flushes found; None where the model is not known.

    ipis        interrupts sent: one a target, but for the initiator itself
    late        those whose function had been picked up by a handler that began before they came
    coalesced   those that began no handler of their own; None where not all requests are selected, too
    handlers    that ran, by interrupt or, `direct` of them, called by a CPU that is in its own mask
    idle        of these, those that found nothing to do
    scanned     requests that handlers looked at
    served      functions that they ran
    idle_share  idle / handlers, scanned_per_served  scanned / served; None of nothing
    arrival_ns, turn_ns, empty_ns, look_ns  what told handlers apart, as `walks.Pace`; None under legacy
    cpus        by target, ascending
    in_flight   by requests in flight, ascending; only of the lockless model
    """

    model: Model
    ipis: int | None = None
    late: int | None = None
    coalesced: int | None = None
    handlers: int | None = None
    direct: int | None = None
    idle: int | None = None
    scanned: int | None = None
    served: int | None = None
    idle_share: float | None = None
    scanned_per_served: float | None = None
    arrival_ns: int | None = None
    turn_ns: int | None = None
    empty_ns: int | None = None
    look_ns: int | None = None
    cpus: tuple[OfCpu, ...] = ()
    in_flight: tuple[OfFlight, ...] = ()

    def df_cpus(self) -> pd.DataFrame:
        """One row a target CPU, ascending.

        Columns: cpu (uint16), ipis, late, handlers, idle, scanned, served (int64), as the fields of `Waste`.
        """
        columns = {"cpu": "uint16"} | dict.fromkeys(("ipis", "late", *COUNTS), "int64")
        return frame(map(asdict, self.cpus), columns)

    def df_in_flight(self) -> pd.DataFrame:
        """One row a range of numbers of requests in flight when handlers began, ascending.

        Columns: low, high (int64, the range), handlers, idle, scanned, served (int64), as the fields of `Waste`.
        """
        return frame(map(asdict, self.in_flight), dict.fromkeys(("low", "high", *COUNTS), "int64"))


class _Runs(NamedTuple):
    """Handlers that count, a row each, int64: where they ran, requests in flight when they began, what they did."""

    cpu: Index
    flight: Index
    scanned: Index
    served: Index


def waste(paths: Paths) -> Waste:
    """Of the chosen requests, their interrupts, and the handlers that ran a function of one of them, or none for it.

    Under legacy a handler serves the one request that its interrupt is for. Under lockless handlers are told from the
    functions that ran, by the rule of the series (`walks`): those that found nothing, and so all figures that count
    them, are estimates.
    """
    requests = paths.requests
    if requests.model == "unknown":
        return Waste("unknown")
    if requests.model == "legacy":
        ran = Ran.of(requests)
        chosen = requests.chosen[ran.request]
        each = np.ones(int(chosen.sum()), np.int64)
        runs = _Runs(ran.cpu[chosen], each, each, each)
        none = np.zeros(len(chosen), np.bool_)
        return _waste(requests, ran, none, runs, int((chosen & ran.own).sum()), (None, None, None, None))
    flight = Flight.of(requests)
    walks, looked, pace = walked(requests, flight)
    ran, too_late = walks.ran, late(walks, pace)
    chosen = requests.chosen[ran.request]
    counted = np.logical_or.reduceat(chosen, walks.first) if len(chosen) else np.zeros(0, np.bool_)
    found = _Runs(
        ran.cpu[walks.first],
        np.maximum(flight.count(ran.capture[walks.first], ran.enter[walks.first]), 1),
        looked,
        walks.last - walks.first + 1,
    )
    vain, when = in_vain(walks, pace, too_late)
    mine = chosen[vain]
    vain, when = vain[mine], when[mine]
    there = flight.count(ran.capture[vain], when)
    idle = _Runs(ran.cpu[vain], there, there, np.zeros(len(vain), np.int64))
    runs = _Runs(*(np.concatenate((some[counted], more)) for some, more in zip(found, idle, strict=True)))
    return _waste(requests, ran, too_late, runs, int((walks.direct & counted).sum()), pace)


def _waste(
    requests: Requests,
    ran: Ran,
    too_late: Flags,
    runs: _Runs,
    direct: int,
    pace: tuple[int, int, int, int] | tuple[None, None, None, None],
) -> Waste:
    """Put together; too_late: by row of `ran`."""
    chosen = requests.chosen[ran.request]
    asked, missed = ran.cpu[chosen & ~ran.own], ran.cpu[chosen & too_late]
    handlers, served, scanned = len(runs.cpu), int(runs.served.sum()), int(runs.scanned.sum())
    idle = int((runs.served == 0).sum())
    every = bool((requests.chosen == requests.whole).all())
    return Waste(
        requests.model,
        ipis=len(asked),
        late=len(missed),
        coalesced=max(len(asked) - (handlers - direct), 0) if every else None,
        handlers=handlers,
        direct=direct,
        idle=idle,
        scanned=scanned,
        served=served,
        idle_share=idle / handlers if handlers else None,
        scanned_per_served=scanned / served if served else None,
        arrival_ns=pace[0],
        turn_ns=pace[1],
        empty_ns=pace[2],
        look_ns=pace[3],
        cpus=_cpus(asked, missed, runs),
        in_flight=() if requests.model == "legacy" else _in_flight(runs),
    )


def _cpus(asked: Index, missed: Index, runs: _Runs) -> tuple[OfCpu, ...]:
    count = max((int(one.max()) for one in (asked, runs.cpu) if len(one)), default=-1) + 1
    ipis, too_late = (np.bincount(one, minlength=count).tolist() for one in (asked, missed))
    sums = _sums(runs, runs.cpu, count)
    return tuple(
        OfCpu(cpu, ipis[cpu], too_late[cpu], **_counts(sums, cpu))
        for cpu in range(count)
        if ipis[cpu] or sums["handlers"][cpu]
    )


def _in_flight(runs: _Runs) -> tuple[OfFlight, ...]:
    sums = _sums(runs, np.searchsorted(BINS, runs.flight), len(BINS) + 1)
    greatest = BINS.tolist()
    return tuple(
        OfFlight(greatest[place - 1] + 1 if place else 0, greatest[place], **_counts(sums, place))
        for place in range(len(greatest))
        if sums["handlers"][place]
    )


def _sums(runs: _Runs, key: Index, count: int) -> dict[str, list[int]]:
    """By key: COUNTS."""
    columns = (np.ones(len(key), np.int64), (runs.served == 0).astype(np.int64), runs.scanned, runs.served)
    found = np.zeros((len(COUNTS), count), np.int64)
    for sums, values in zip(found, columns, strict=True):
        np.add.at(sums, key, values)
    return dict(zip(COUNTS, found.tolist(), strict=True))


def _counts(sums: dict[str, list[int]], place: int) -> dict[str, int]:
    return {name: values[place] for name, values in sums.items()}

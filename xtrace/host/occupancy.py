"""Who was on each CPU, and where each vCPU stayed: switches → stays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.context import NOBODY
from xtrace.host.known import Known
from xtrace.host.marks import BACK, END, LOSS, Beginnings, Marks
from xtrace.host.switches import Switches

Ints = NDArray[np.int64]

_SET, _OFF = END + 1, END + 2
"""Somebody is on the CPU from here on, or nobody is; beside the kinds of marks."""
_CARRIED, _NOT_YET = -1, -1


class Stays(NamedTuple):
    """Stays of vCPUs on CPUs; int64 columns; who is NOBODY where records were lost."""

    cpu: Ints
    who: Ints
    begin: Ints
    end: Ints

    @classmethod
    def none(cls) -> Stays:
        """No stays."""
        return cls(*np.zeros((4, 0), np.int64))


class _Rows(NamedTuple):
    cpu: Ints
    place: Ints
    begin: Ints
    end: Ints
    kind: Ints
    who: Ints

    def take(self, rows: Ints | NDArray[np.bool_]) -> _Rows:
        return _Rows(*(column[rows] for column in self))


class Occupancy:
    """Follows the CPUs of one capture: each stay from an arrival to what ends it, none where an end is missing."""

    def __init__(self, known: Known, capture: int) -> None:
        self._marks = Marks.of(known, capture)
        self._beginnings = Beginnings(known.of_capture(capture)[0])
        self._open = _Rows(*np.zeros((6, 0), np.int64))

    def feed(self, switches: Switches) -> Stays:
        """The stays that these end."""
        return self._until(switches, int(switches.ns[-1])) if len(switches.ns) else Stays.none()

    def finish(self) -> Stays:
        """Those that CPUs' ends end."""
        return self._until(Switches.none(), None)

    def _until(self, switches: Switches, ns: int | None) -> Stays:
        due = self._marks.due(ns)
        marks, self._marks = self._marks.take(slice(0, due)), self._marks.take(slice(due, None))
        begins, since = self._beginnings.of(switches, marks)
        at = np.flatnonzero(switches.arrives | switches.leaves | begins)
        told = switches.take(at)
        rows = _Rows(
            *map(
                np.concatenate,
                zip(
                    self._open,
                    (told.cpu, 2 * at + 1, since[at], told.ns, np.where(told.leaves, _OFF, _SET), told.who),
                    (marks.cpu, 2 * marks.places(switches), marks.ns, marks.ns, marks.kind, marks.who),
                    strict=True,
                ),
            )
        )
        rows = rows.take(np.lexsort((rows.place, rows.cpu)))
        same = rows.cpu[1:] == rows.cpu[:-1]
        last = np.flatnonzero(np.append(~same, True)[: len(rows.cpu)])
        self._open = rows.take(last)._replace(place=np.full(len(last), -1))
        was, now = rows.kind[:-1], rows.kind[1:]
        # A departure of another vCPU than came tells that records are missing.
        ends = np.isin(now, (LOSS, END)) | ((now == _OFF) & (rows.who[1:] == rows.who[:-1]))
        stays = same & np.where(was == LOSS, now == BACK, np.isin(was, (_SET, BACK)) & ends)
        row = np.flatnonzero(stays)
        return Stays(rows.cpu[row], rows.who[row], rows.begin[row], rows.end[row + 1])


class Whereabouts:
    """Follows where the vCPUs of one capture stay: from when each is seen on a CPU until it is seen on another.

    As xenalyze does, it begins where a vCPU comes onto a CPU for the second time.
    """

    def __init__(self, known: Known, capture: int) -> None:
        self._marks = Marks.of(known, capture)
        self._marks = self._marks.take(self._marks.kind == BACK)
        self._who, self._cpu, self._since = np.zeros((3, 0), np.int64)

    def feed(self, switches: Switches) -> Stays:
        """The stays that these end."""
        return self._until(switches, int(switches.ns[-1])) if len(switches.ns) else Stays.none()

    def finish(self, ns: int) -> Stays:
        """The others, which end with the capture."""
        stays = self._until(Switches.none(), None)
        open_ = self._since != _NOT_YET
        left = Stays(self._cpu[open_], self._who[open_], self._since[open_], np.full(int(open_.sum()), ns))
        return Stays(*map(np.concatenate, zip(stays, left, strict=True)))

    def _until(self, switches: Switches, ns: int | None) -> Stays:
        due = self._marks.due(ns)
        marks, self._marks = self._marks.take(slice(0, due)), self._marks.take(slice(due, None))
        at = np.flatnonzero(switches.arrives | switches.goes_on)
        told = switches.take(at)
        names = np.unique(np.concatenate((told.who, marks.who)))
        cpu, since = self._of(names)
        carried = np.full(len(names), _CARRIED)
        columns = (
            (names, carried, cpu, since, carried),
            (told.who, 2 * at + 1, told.cpu, told.ns, np.where(told.arrives, _SET, _OFF)),
            (marks.who, 2 * marks.places(switches), marks.cpu, marks.ns, marks.kind),
        )
        who, place, cpu, at_ns, kind = map(np.concatenate, zip(*columns, strict=True))
        order = np.lexsort((place, who))
        who, cpu, at_ns, kind = who[order], cpu[order], at_ns[order], kind[order]
        first = kind == _CARRIED
        group = np.flatnonzero(first)[np.cumsum(first) - 1]
        before = np.append(NOBODY, cpu[:-1])[: len(cpu)]
        moved = cpu != before
        starts = ~first & ((kind == BACK) | ((before != NOBODY) & ((kind == _SET) | moved)))
        passed = np.cumsum(starts)
        begun = np.append(0, passed[:-1])[: len(who)] - passed[group] > 0
        begun |= since[np.cumsum(first) - 1] != _NOT_YET
        turns = starts & (~begun | moved)
        # What was carried over begins a stay, too, where one was open.
        chosen = np.flatnonzero(turns | (first & (at_ns != _NOT_YET)))
        followed = np.flatnonzero(who[chosen[1:]] == who[chosen[:-1]])
        row, until = chosen[followed], chosen[followed + 1]
        last = np.flatnonzero(np.append(first[1:], True)[: len(who)])
        open_since = np.maximum.accumulate(np.where(turns | first, np.arange(len(who)), 0))[last]
        self._keep(names, cpu[last], at_ns[open_since])
        return Stays(cpu[row], who[row], at_ns[row], at_ns[until])

    def _of(self, who: Ints) -> tuple[Ints, Ints]:
        at = np.searchsorted(self._who, who)
        there = np.append(self._who, NOBODY)[at] == who
        cpu, since = (np.append(column, NOBODY)[at] for column in (self._cpu, self._since))
        return np.where(there, cpu, NOBODY), np.where(there, since, _NOT_YET)

    def _keep(self, who: Ints, cpu: Ints, since: Ints) -> None:
        names, rows = np.unique(np.concatenate((who, self._who)), return_index=True)
        self._cpu = np.concatenate((cpu, self._cpu))[rows]
        self._since = np.concatenate((since, self._since))[rows]
        self._who = names

"""In which run state each vCPU is: changes of run states → stays in them, as xenalyze follows them.

A vCPU counts from when it is first seen to run. Where a CPU loses records, its vCPU is lost, and every other that does
not run then: it may run on that CPU meanwhile. While any CPU loses records, a vCPU that ceases to run is lost, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.context import IDLE_DOMAIN, NOBODY
from xtrace.host.known import Known
from xtrace.host.marks import BACK, END, LOSS, Beginnings, Marks
from xtrace.host.switches import RUNNING, Switches

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

LOST: Final = 4
"""A state beside those of the scheduler: not known, for records were lost."""
UNSEEN: Final = 5
"""Has not been seen to run."""
PREEMPTED, WOKEN = 0, 1
"""Why a vCPU is runnable: it ran, or it did not wait for a CPU before."""

MAX_ROWS: Final = 1 << 20
"""Of a loss there is a row for every vCPU; about so many rows are made at a time."""

_SWITCH, _CARRIED = END + 1, END + 2
"""Kinds of rows, beside those of marks."""


class Vcpus(NamedTuple):
    """Some vCPUs by `who`, ascending; int64 columns.

    state, since  ns
    cpu           where it runs or last ran
    cause         why it is runnable
    """

    who: Ints
    state: Ints
    since: Ints
    cpu: Ints
    cause: Ints

    @classmethod
    def unseen(cls, who: Ints) -> Vcpus:
        """These, not seen yet."""
        none = np.zeros(len(who), np.int64)
        return cls(who, none + UNSEEN, none, none + NOBODY, none)

    def of(self, who: Ints) -> Vcpus:
        """These, ascending, UNSEEN where not among them."""
        at = np.searchsorted(self.who, who)
        there = np.append(self.who, NOBODY)[at] == who
        found = Vcpus.unseen(who)
        return Vcpus(
            who, *(_put(column, there, mine[at[there]]) for column, mine in zip(found[1:], self[1:], strict=True))
        )

    def with_(self, some: Vcpus) -> Vcpus:
        """All of them, these as given."""
        joined = Vcpus(*map(np.concatenate, zip(some, self, strict=True)))
        _, rows = np.unique(joined.who, return_index=True)
        return Vcpus(*(column[rows] for column in joined))


def _put(column: Ints, rows: Flags, values: Ints) -> Ints:
    column = column.copy()
    column[rows] = values
    return column


class Updates(NamedTuple):
    """Changes of state, and renewals of the same, in order of time; int64 columns.

    who
    ns            from when on the state is `after`
    before        the state until then, UNSEEN for none
    after
    begin, end    of the stay in `before`
    cpu           where it ran or last ran in `before`
    cause         why it was runnable, of that state
    fits          bool   the record leaves the state that was known; else where the stay ended was not seen
    """

    who: Ints
    ns: Ints
    before: Ints
    after: Ints
    begin: Ints
    end: Ints
    cpu: Ints
    cause: Ints
    fits: Flags

    @property
    def stays(self) -> Flags:
        """Which end a stay of which begin and end were seen."""
        found: Flags = self.fits & (self.before != UNSEEN)
        return found


class Follower:
    """Follows the vCPUs of one capture."""

    def __init__(self, known: Known, capture: int) -> None:
        self._marks = Marks.of(known, capture)
        self._beginnings = Beginnings(known.of_capture(capture)[0])
        self._vcpus = Vcpus.unseen(np.zeros(0, np.int64))
        self._losing = 0
        self._told: dict[int, int] = {}

    def feed(self, switches: Switches) -> Iterator[Updates]:
        """The next changes in order of time."""
        if len(switches.ns):
            yield from self._until(switches, int(switches.ns[-1]))

    def finish(self) -> Iterator[Updates]:
        """There are no more."""
        yield from self._until(Switches.none(), None)

    @property
    def vcpus(self) -> Vcpus:
        """What they have come to."""
        return self._vcpus

    def _until(self, switches: Switches, ns: int | None) -> Iterator[Updates]:
        due = self._marks.take(slice(0, self._marks.due(ns)))
        self._marks = self._marks.take(slice(len(due.ns), None))
        losses = np.flatnonzero(due.kind == LOSS)
        vcpus = len(np.union1d(self._vcpus.who, switches.who)) if len(losses) else 0
        step = max(1, MAX_ROWS // max(1, vcpus))
        cuts = losses[step::step]
        places = due.places(switches)[cuts]
        marks_of = zip([0, *cuts.tolist()], [*cuts.tolist(), len(due.ns)], strict=True)
        rows_of = zip([0, *places.tolist()], [*places.tolist(), len(switches.ns)], strict=True)
        for (first, last), (begin, end) in zip(marks_of, rows_of, strict=True):
            yield self._step(switches.take(slice(begin, end)), due.take(slice(first, last)))

    def _step(self, switches: Switches, marks: Marks) -> Updates:
        # Before each switch there is room for all marks, and for who is replaced.
        room = len(marks.ns) + 2
        place = room * marks.places(switches) + np.arange(len(marks.ns))
        _, since = self._beginnings.of(switches, marks)
        rows = _Rows.joined(
            [
                _Rows.of_switches(switches, since, room),
                self._of_marks(switches, marks, place),
                self._replaced(switches, marks, room),
            ]
        )
        carried = self._vcpus.of(np.unique(rows.who))
        rows = _Rows.joined([_Rows.of_vcpus(carried), rows])
        rows = self._met(rows.take(np.lexsort((rows.place, rows.who))))
        times = [place[marks.kind == kind] for kind in (LOSS, BACK)]
        losses, returns = (np.searchsorted(one, rows.place, side="right") for one in times)
        updates, last = _followed(rows, self._losing + losses - returns, carried)
        self._losing += len(times[0]) - len(times[1])
        self._vcpus = self._vcpus.with_(last)
        return updates

    def _met(self, rows: _Rows) -> _Rows:
        """Without losses that a vCPU of which nothing was known yet could not suffer."""
        told = np.cumsum((rows.kind == _SWITCH) | (rows.kind == BACK))
        first = np.maximum.accumulate(np.where(rows.kind == _CARRIED, np.arange(len(told)), 0))
        unmet = (told == told[first]) & ~np.isin(rows.who, self._vcpus.who)
        return rows.take(~(unmet & (rows.kind == LOSS)))

    def _of_marks(self, switches: Switches, marks: Marks, place: Ints) -> _Rows:
        """A row for each vCPU that a mark may matter to."""
        losses, back, ends = (np.flatnonzero(marks.kind == kind) for kind in (LOSS, BACK, END))
        running, on = self._vcpus.state == RUNNING, switches.new == RUNNING
        cpu = np.concatenate((self._vcpus.cpu[running], switches.cpu[on], marks.cpu[back]))
        who = np.concatenate((self._vcpus.who[running], switches.who[on], marks.who[back]))
        pairs = np.unique(np.stack((cpu, who)), axis=1)
        low, high = (np.searchsorted(pairs[0], marks.cpu[ends], side=side) for side in ("left", "right"))
        there = [pairs[1][begin:end] for begin, end in zip(low, high, strict=True)]
        known = np.unique(np.concatenate((self._vcpus.who, switches.who, marks.who[back])))
        names = np.concatenate((np.tile(known, len(losses)), marks.who[back], *there))
        at = np.concatenate((np.repeat(losses, len(known)), back, np.repeat(ends, high - low)))
        return _Rows.made(names, place[at], marks.ns[at], marks.kind[at], marks.cpu[at])

    def _replaced(self, switches: Switches, marks: Marks, room: int) -> _Rows:
        """Who was there when records came again, but went unseen: the next that tells of the CPU tells of another."""
        back = np.flatnonzero(marks.kind == BACK)
        told = [(cpu, who, 0) for cpu, who in self._told.items()]
        places = marks.places(switches)[back]
        told += zip(marks.cpu[back].tolist(), marks.who[back].tolist(), places.tolist(), strict=True)
        telling = switches.arrives | switches.leaves | switches.goes_on
        found: list[tuple[int, int, int, int]] = []
        self._told = {}
        for cpu, who, first in told:
            rows = first + np.flatnonzero(telling[first:] & (switches.cpu[first:] == cpu))
            if not len(rows):
                self._told[cpu] = who
                continue
            row = int(rows[0])
            other = bool(switches.arrives[row]) or (bool(switches.goes_on[row]) and int(switches.who[row]) != who)
            if other:
                found.append((who, room * (row + 1) - 2, int(switches.ns[row]), cpu))
        names, at, ns, cpus = np.array(found, np.int64).reshape(-1, 4).T
        return _Rows.made(names, at, ns, np.full(len(names), END), cpus)


class _Rows(NamedTuple):
    """Whatever bears upon vCPUs; place: in order of time; begin: since when a record's state lasts."""

    who: Ints
    place: Ints
    ns: Ints
    begin: Ints
    kind: Ints
    cpu: Ints
    old: Ints
    new: Ints

    def take(self, rows: Ints | Flags) -> _Rows:
        return _Rows(*(column[rows] for column in self))

    @classmethod
    def joined(cls, parts: list[_Rows]) -> _Rows:
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    @classmethod
    def made(cls, who: Ints, place: Ints, ns: Ints, kind: Ints, cpu: Ints) -> _Rows:
        nothing = np.full(len(who), NOBODY)
        return cls(who, place, ns, ns, kind, cpu, nothing, nothing)

    @classmethod
    def of_switches(cls, switches: Switches, begin: Ints, room: int) -> _Rows:
        count = len(switches.ns)
        place = room * np.arange(1, count + 1) - 1
        kind = np.full(count, _SWITCH)
        return cls(switches.who, place, switches.ns, begin, kind, switches.cpu, switches.old, switches.new)

    @classmethod
    def of_vcpus(cls, vcpus: Vcpus) -> _Rows:
        count = len(vcpus.who)
        place, nothing = np.full(count, -1), np.full(count, NOBODY)
        return cls(
            vcpus.who, place, vcpus.since, vcpus.since, np.full(count, _CARRIED), vcpus.cpu, nothing, vcpus.state
        )


def _followed(rows: _Rows, losing_cpus: Ints, carried: Vcpus) -> tuple[Updates, Vcpus]:
    """Rows by vCPU and time, of each vCPU first what was carried → its updates, and what it has come to.

    losing_cpus: how many CPUs lose records at each row.
    """
    kind, count = rows.kind, len(rows.who)
    at = np.arange(count)
    is_carried, is_switch = kind == _CARRIED, kind == _SWITCH
    resets = is_carried | (kind == BACK) | (is_switch & (rows.new == RUNNING))
    last_reset = np.maximum.accumulate(np.where(resets, at, 0))
    reset = np.append(0, last_reset[:-1])[:count]
    from_carried, state = is_carried[reset], rows.new[reset]

    def since_reset(flags: Flags) -> Flags:
        """Whether there was one from the reset before each row until before it."""
        passed = np.cumsum(flags)
        found: Flags = (np.append(0, passed[:-1])[:count] - passed[reset]) > 0
        return found

    is_loss = kind == LOSS
    stops = is_switch & (rows.new != RUNNING)
    off = since_reset(stops) | (from_carried & (state != RUNNING))
    here = rows.cpu == rows.cpu[reset]
    unseen = from_carried & (state == UNSEEN) & ~since_reset(is_loss)
    dropped = stops & (rows.old == RUNNING) & (losing_cpus > 0) & (rows.who >> 16 != IDLE_DOMAIN) & ~unseen
    loses = (is_loss & (off | here)) | ((kind == END) & ~off & here) | dropped
    lost = since_reset(loses) | (from_carried & (state == LOST))
    counts = is_carried | (kind == BACK) | (is_loss & (loses | lost)) | ((kind == END) & loses & ~lost)
    counts |= is_switch & ((rows.new == RUNNING) | ~(unseen | lost))

    after = np.where(is_carried | is_switch, rows.new, RUNNING)
    after[is_loss | (kind == END) | dropped] = LOST
    begin = np.where(unseen & is_switch, rows.begin, rows.ns)
    cause = np.where(rows.old == RUNNING, PREEMPTED, WOKEN)
    cause[is_carried] = carried.cause
    chosen = np.flatnonzero(counts)
    who, place, ns, after, begin, cause = (
        column[chosen] for column in (rows.who, rows.place, rows.ns, after, begin, cause)
    )
    cpu = rows.cpu[last_reset[chosen]]
    old, was_switch = rows.old[chosen], is_switch[chosen]
    end_of = np.flatnonzero(np.append(who[1:] != who[:-1], True)[: len(who)])
    left = Vcpus(who[end_of], after[end_of], begin[end_of], cpu[end_of], cause[end_of])
    now = np.flatnonzero(~is_carried[chosen])
    now = now[np.argsort(place[now], kind="stable")]
    then = now - 1
    before = after[then]
    fits = ~was_switch[now] | (before == LOST) | (before == UNSEEN) | (before == old[now])
    updates = Updates(who[now], begin[now], before, after[now], begin[then], ns[now], cpu[then], cause[then], fits)
    return updates, left

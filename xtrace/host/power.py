"""How CPUs slept, what woke them, and how their frequency changed: what xenalyze shows in its dump only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.context import LOST
from xtrace.contract import frame
from xtrace.decode import groups
from xtrace.host.account import Account, Ground
from xtrace.host.counts import Counts
from xtrace.host.figures import FIGURES, figures
from xtrace.host.tally import Spread, Tally, no_spread
from xtrace.parsers.container import LOST_RECORDS
from xtrace.parsers.vectors import vector_name

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.host.walk import Chunk
    from xtrace.parsers.event import Event

Ints = NDArray[np.int64]
Column = NDArray[Any]

NS: Final = "ticks"
PM_TIMER: Final = "pm timer"
RECORDS: Final = "records"
"""What tells how long sleeps were: tick words in ns, tick words of the ACPI timer, or the times of the records."""

_ENTRY, _EXIT, _FREQUENCY = "TRC_PM_IDLE_ENTRY", "TRC_PM_IDLE_EXIT", "TRC_PM_FREQ_CHANGE"
_GOES, _WAKES, _LOSES = range(3)
_PM_TIMER_HZ: Final = 3_579_545
_WRAPS: Final = {NS: (1 << 32, 1.0), PM_TIMER: (1 << 24, 1e9 / _PM_TIMER_HZ)}
"""After how many ticks a counter may begin again, and ns of each; an ACPI timer may have no more than 24 bits."""
_STATE_BITS: Final = 16
_NO_VECTOR: Final = 0
_NS_PER_US: Final = 1000


@dataclass(frozen=True, slots=True)
class CState:
    """A CPU's sleeps in a C-state, told where both ends were seen; quantiles are of sleeps, not of time.

    c_state    as recorded: the C-state's number by the mwait driver, its place in Xen's table by the ACPI driver
    sleeps     how many of them ended
    residency  how long, what lies in the span; None: for no time
    share      of the span; None for a span of no length
    expected   until the next timer, when the CPU went to sleep, of those that ended
    predicted  by the governor, how long it would sleep
    shorter    sleeps shorter than predicted
    """

    cpu: int
    c_state: int
    sleeps: int
    residency: Spread | None
    share: float | None
    expected: Spread
    predicted: Spread
    shorter: int


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A vector that was pending when CPUs woke up; a record lists the lowest four."""

    vector: int
    name: str
    count: int


@dataclass(frozen=True, slots=True)
class FrequencyChange:
    """Changes of frequency, by the CPU that recorded them: the governor's, which need not be the one that changed."""

    cpu: int
    old_mhz: int
    new_mhz: int
    count: int


@dataclass(frozen=True, slots=True)
class Power:
    """Sleeps and frequencies, in a span of time.

    lengths    what tells how long sleeps were: ticks, pm timer or records; None where there were none
    c_states   by CPU and C-state
    wake_ups   vectors, most frequent first
    unlisted   wake-ups with no vector pending
    frequency  by CPU, old and new
    """

    lengths: str | None
    c_states: tuple[CState, ...]
    wake_ups: tuple[WakeUp, ...]
    unlisted: int
    frequency: tuple[FrequencyChange, ...]

    def df_c_states(self) -> pd.DataFrame:
        """One row a CPU and C-state with a length: cpu, c_state, sleeps, count, total_ns, … as in `tally.Spread`."""
        dtypes = {"cpu": "uint16", "c_state": "uint32", "sleeps": "int64", **FIGURES}
        rows = (
            {"cpu": one.cpu, "c_state": one.c_state, "sleeps": one.sleeps, **figures(one.residency)}
            for one in self.c_states
            if one.residency
        )
        return frame(rows, dtypes)


class _Idle(NamedTuple):
    """Entries, wake-ups and losses; int64 columns."""

    cpu: Ints
    place: Ints
    ns: Ints
    kind: Ints
    state: Ints
    tick: Ints
    expected_us: Ints
    predicted_us: Ints

    def take(self, rows: Ints | NDArray[np.bool_]) -> _Idle:
        return _Idle(*(column[rows] for column in self))

    @classmethod
    def none(cls) -> _Idle:
        return cls(*np.zeros((8, 0), np.int64))

    @classmethod
    def made(cls, chunk: Chunk, rows: Ints, kind: int, *columns: Column) -> _Idle:
        """Some records of a chunk. columns: the last ones of this, zeros where not given."""
        given = [column.astype(np.int64) for column in columns]
        given += [np.zeros(len(rows), np.int64)] * (4 - len(given))
        return cls(chunk.cpu[rows].astype(np.int64), rows, chunk.ns[rows], np.full(len(rows), kind), *given)


class PowerAccount(Account[Power]):
    """Pairs each CPU's wake-up with the entry before it, unless records between them were lost."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        windows = ground.windows
        self._length = {source: Tally(windows) for source in (NS, PM_TIMER, RECORDS)}
        self._shorter = {source: Counts(windows) for source in self._length}
        self._expected, self._predicted = Tally(windows), Tally(windows)
        self._vectors, self._changes = Counts(windows), Counts(windows)
        self._by_record = 0.0
        self._by_ticks = dict.fromkeys(_WRAPS, 0.0)
        self._open = _Idle.none()

    @staticmethod
    def wants(event: Event) -> bool:
        """Entries, wake-ups, changes of frequency; and losses."""
        return _is_power(event) or event.name == LOST_RECORDS.name

    def feed(self, chunk: Chunk) -> None:
        """The next records."""
        parts = [self._open]
        lost = np.flatnonzero(chunk.header == LOST)
        parts.append(_Idle.made(chunk, lost, _LOSES))
        for group in groups(chunk, self.ground.dialect, _is_power):
            rows, found = group.rows, group.columns
            if group.event.name == _FREQUENCY:
                self._add_changes(chunk, rows, found["old_mhz"], found["new_mhz"])
                continue
            state = found["cx_index"] if "cx_index" in found else found["cx_type"]
            if group.event.name == _ENTRY:
                columns = state, found["tick"], found["expected_us"], found["predicted_us"]
                parts.append(_Idle.made(chunk, rows, _GOES, *columns))
            else:
                self._add_vectors(chunk, rows, [found[f"vec{place}"] for place in range(4)])
                parts.append(_Idle.made(chunk, rows, _WAKES, state, found["tick"]))
        idle = _Idle(*map(np.concatenate, zip(*parts, strict=True)))
        idle = idle.take(np.lexsort((idle.place, idle.cpu)))
        last = np.flatnonzero(np.append(idle.cpu[1:] != idle.cpu[:-1], True)[: len(idle.cpu)])
        self._open = idle.take(last)._replace(place=np.full(len(last), -1))
        self._add_sleeps(idle)

    def finish(self) -> None:
        """The capture ends."""
        self._open = _Idle.none()

    def _add_changes(self, chunk: Chunk, rows: Ints, old: Column, new: Column) -> None:
        rows_on = self.ground.on(chunk.cpu[rows])
        cpu, ns = chunk.cpu[rows][rows_on].astype(np.int64), chunk.ns[rows][rows_on]
        # No CPU has a frequency of more than 24 bits of MHz.
        key = cpu << 48 | (old[rows_on].astype(np.int64) & 0xFF_FFFF) << 24 | new[rows_on].astype(np.int64) & 0xFF_FFFF
        self._changes.at(key, ns)

    def _add_vectors(self, chunk: Chunk, rows: Ints, vectors: list[Column]) -> None:
        rows_on = self.ground.on(chunk.cpu[rows])
        ns = chunk.ns[rows][rows_on]
        pending = np.stack([vector[rows_on].astype(np.int64) for vector in vectors])
        # Slots that are not used hold 0, which is no vector of an interrupt; one wake-up counts once with none.
        for place, vector in enumerate(pending):
            counts = vector != _NO_VECTOR if place else np.ones(len(ns), np.bool_)
            self._vectors.at(vector[counts], ns[counts])

    def _add_sleeps(self, idle: _Idle) -> None:
        pair = np.flatnonzero((idle.cpu[1:] == idle.cpu[:-1]) & (idle.kind[:-1] == _GOES) & (idle.kind[1:] == _WAKES))
        pair = pair[self.ground.on(idle.cpu[pair])]
        goes, wakes = idle.take(pair), idle.take(pair + 1)
        same = goes.state == wakes.state
        goes, wakes = goes.take(same), wakes.take(same)
        key = goes.cpu << _STATE_BITS | np.minimum(goes.state, (1 << _STATE_BITS) - 1)
        between = np.clip(wakes.ns - goes.ns, 0, 1 << 61)
        lengths = {RECORDS: between}
        for source, (wraps, unit) in _WRAPS.items():
            ticks = (wakes.tick - goes.tick) % wraps
            self._by_ticks[source] += float(ticks.sum()) * unit
            rounds = np.maximum(np.rint((between / unit - ticks) / wraps), 0)
            lengths[source] = ((ticks + rounds * wraps) * unit).astype(np.int64)
        self._by_record += float((between % (_WRAPS[NS][0])).sum())
        for source, length in lengths.items():
            self._length[source].over(key, goes.ns, goes.ns + length)
            shorter = length < goes.predicted_us * _NS_PER_US
            self._shorter[source].at(key[shorter], wakes.ns[shorter])
        self._expected.at(key, wakes.ns, goes.expected_us * _NS_PER_US)
        self._predicted.at(key, wakes.ns, goes.predicted_us * _NS_PER_US)

    def _source(self) -> str:
        """The ticks that agree with the records' times, if any do."""
        for source, passed in self._by_ticks.items():
            if 0.3 < passed / max(self._by_record, 1.0) < 3:
                return source
        return RECORDS

    def found(self, window: int) -> Power:
        """Sleeps and frequencies, in a window."""
        source = self._source()
        states = tuple(self._states(window, source))
        vectors = self._vectors.of(window)
        ranked = sorted(vectors.items(), key=lambda item: (-item[1], item[0]))
        wake_ups = (WakeUp(one, vector_name(one), count) for one, count in ranked if one != _NO_VECTOR)
        changes = (
            FrequencyChange(key >> 48, key >> 24 & 0xFF_FFFF, key & 0xFF_FFFF, count)
            for key, count in self._changes.of(window).items()
        )
        return Power(source if states else None, states, tuple(wake_ups), vectors.get(_NO_VECTOR, 0), tuple(changes))

    def _states(self, window: int, source: str) -> Iterator[CState]:
        begin, end = self.ground.windows.span(window)
        lengths, shorter = self._length[source].spreads(window), self._shorter[source].of(window)
        expected, predicted = self._expected.spreads(window), self._predicted.spreads(window)
        for key in sorted(lengths.keys() | expected.keys()):
            length = lengths.get(key)
            share = (length.total_ns if length else 0) / (end - begin) if end > begin else None
            cpu, state = key >> _STATE_BITS, key & (1 << _STATE_BITS) - 1
            to_timer, guessed = (guesses.get(key, no_spread()) for guesses in (expected, predicted))
            yield CState(cpu, state, to_timer.count, length, share, to_timer, guessed, shorter.get(key, 0))


def _is_power(event: Event) -> bool:
    return event.name in {_ENTRY, _EXIT, _FREQUENCY}

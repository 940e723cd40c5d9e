"""The steps of calls and flushes as a trace has them, each with its place, and where the trace has nothing to tell.

A trace shows what a CPU did only while nothing is missing from its records: from the first to the last, but not across
records that were lost, bytes that were skipped, or captures. Such a stretch is a *stream* here: that a step is missing
can be said within one only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.context import LOST, header_of
from xtrace.episodes.exact import KINDS, MODE
from xtrace.grouping import rows_by
from xtrace.parsers import pv, sched, smp
from xtrace.states import TRACK_BITS
from xtrace.survey import RESTART_CYCLES

if TYPE_CHECKING:
    from xtrace.decode import Batch
    from xtrace.trace import Trace

Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

START, SEND, DONE, ENTER, EXIT, BACK = range(6)
"""Steps; BACK is a record that shows its CPU outside of all of them."""

NONE: Final = -1
"""No row."""
NEVER: Final = -(1 << 61)
LATEST: Final = 1 << 61
"""Later times are no times. Sums and differences of two times fit 64 bits."""
STRETCH_BITS: Final = 32

EVENTS: Final = {
    (kind, step): event
    for event in smp.EVENTS
    for kind, of in enumerate(KINDS)
    for step, step_id in enumerate((of.start, of.send, of.done, of.enter, of.exit))
    if event.event_id == step_id
}
_STEP_OF: Final = {header_of(event): place for place, event in EVENTS.items()}
_SMP: Final = np.array(sorted(_STEP_OF), np.uint32)
_BACK: Final = np.array(
    sorted(
        {header & 0x0FFFFFFF for header in MODE}
        | {event.event_id for event in sched.EVENTS if event.name == "TRC_SCHED_SWITCH"}
        | {event.event_id for event in pv.EVENTS if event.name == "TRC_PV_HYPERCALL_V2"}
    ),
    np.uint32,
)
"""A guest runs or ran, or another vCPU comes: nobody is inside a function, or waits for others to run one."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a trace, a row each, by CPU and in the order in which it wrote them.

    track   int32   CPU in a capture
    at      int64   where: byte of the uncompressed input, or number of the record in a dataset
    time    int64   cycles by the CPU's clock
    before  int64   cycles of the record before it, of any event, in its stream; NEVER where there is none
    header  uint32
    words   uint32 (n, 4), the payload, 0 beyond its end
    kind    int8    place in KINDS, −1 of BACK
    step    int8    START … EXIT, or BACK: the last such record of a stream
    stream  int64   between two rows of a stream nothing is missing
    odd     START rows whose `seq` does not fit those of the STARTs before and after it
    spans   when each CPU was traced without a gap
    by_byte what `at` is
    """

    track: NDArray[np.int32]
    at: Index
    time: Index
    before: Index
    header: NDArray[np.uint32]
    words: NDArray[np.uint32]
    kind: NDArray[np.int8]
    step: NDArray[np.int8]
    stream: Index
    odd: Index
    spans: Spans
    by_byte: bool

    def unbroken(self, first: Index, last: Index) -> Flags:
        """Whether both rows are there, and all that was between them."""
        same: Flags = (first >= 0) & (last >= 0) & (self.stream[first] == self.stream[last])
        return same

    def later(self, first: Index, last: Index) -> Flags:
        """Of rows of one CPU, whether `first` was written after `last`, or bears a later time."""
        after: Flags = (first >= 0) & (last >= 0) & ((first > last) | (self.time[first] > self.time[last]))
        return after


class Spans(NamedTuple):
    """Stretches of time of which a CPU's records are all there, by track and time; int64."""

    track: Index
    begin: Index
    end: Index

    def reach(self, track: NDArray[Any], time: Index) -> Index:
        """Until when the CPU's records are all there from this time on; NEVER where they are not."""
        found = np.full(len(track), NEVER)
        for one, rows in rows_by(track):
            low, high = np.searchsorted(self.track, [one, one + 1])
            place = low + np.searchsorted(self.begin[low:high], time[rows], side="right") - 1
            inside = place >= low
            found[rows[inside]] = self.end[place[inside]]
        return found

    def cover(self, track: NDArray[Any], begin: Index, end: Index) -> Flags:
        """Whether all that these CPUs wrote between these times is there."""
        whole: Flags = self.reach(track, begin) >= end
        return whole

    def narrowed(self, by: int) -> Spans:
        """Shorter by so much at both ends: of clocks that may differ by that."""
        wide = self.end - self.begin > 2 * by
        return Spans(self.track[wide], self.begin[wide] + by, self.end[wide] - by)


def take(trace: Trace) -> Steps:
    """The steps of a trace, in one pass over its records."""
    taking = _Taking(trace)
    for batch, _ in trace.batches():
        taking.add(batch)
    return taking.steps()


class _Rows(NamedTuple):
    """Records as `Steps` has them; stretch: that of its CPU, counted from 0."""

    track: NDArray[np.int32]
    stretch: Index
    at: Index
    time: Index
    before: Index
    header: NDArray[np.uint32]
    words: NDArray[np.uint32]

    def take(self, rows: Index | Flags) -> _Rows:
        """Some of them."""
        return _Rows(
            self.track[rows],
            self.stretch[rows],
            self.at[rows],
            self.time[rows],
            self.before[rows],
            self.header[rows],
            self.words[rows],
        )


class _Last(NamedTuple):
    """Of a CPU: its stretch, and the time of its last record."""

    stretch: int
    time: int


class _Taking:
    """Gathers steps and spans batch by batch."""

    def __init__(self, trace: Trace) -> None:
        survey = trace.survey
        self._damage, size = np.array([skip[:2] for skip in survey.skips], np.int64).reshape(-1, 2).T
        self._damage_begin = np.zeros(len(self._damage), np.int64)
        self._damage_end = self._damage + size
        self._captures = survey.captures
        self._capture = 0
        self._clock = NEVER
        self._count = 0
        self._by_byte = True
        self._last: dict[int, _Last] = {}
        self._rows: list[_Rows] = []
        self._spans: list[tuple[Index, ...]] = []

    def add(self, batch: Batch) -> None:
        """The records of a batch."""
        number = self._count + np.arange(len(batch.starts))
        self._count += len(number)
        self._by_byte = batch.offset is not None
        at = number if batch.offset is None else batch.offset
        time = np.minimum(batch.tsc, np.uint64(LATEST)).astype(np.int64)
        track = batch.track
        if batch.offset is None and self._captures > 1:
            track = self._told_apart(track, time)
        self._note_damage(batch, at)
        lost = batch.header == np.uint32(LOST)

        order = np.concatenate([rows for _, rows in rows_by(track)] or [number])
        owner = track[order]
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        of = np.repeat(np.arange(len(first)), np.diff(first, append=len(order)))
        known = [self._last.get(one, _Last(0, NEVER)) for one in owner[first].tolist()]
        stretches, times = np.array(known, np.int64).reshape(-1, 2).T
        gap = lost[order]
        before = np.where(gap, NEVER, _shifted(time[order], first, times))
        steps = np.cumsum(gap)
        stretch = (stretches - steps[first] + gap[first])[of] + steps
        last = np.append(first[1:], len(order)) - 1
        for one, *values in zip(owner[last], stretch[last], time[order[last]], strict=True):
            self._last[int(one)] = _Last(*map(int, values))

        gap[first] = True
        begins = np.flatnonzero(gap)
        stamped = batch.header[order] >> np.uint32(31) != 0
        back = np.isin(batch.header[order] & np.uint32(0x0FFFFFFF), _BACK)
        if len(begins):
            part = owner[begins].astype(np.int64) << STRETCH_BITS | stretch[begins]
            low = np.minimum.reduceat(np.where(stamped, time[order], LATEST), begins)
            high = np.maximum.reduceat(np.where(stamped, time[order], NEVER), begins)
            self._spans.append((part, low, high, at[order[begins]], at[order[np.append(begins[1:], len(order)) - 1]]))
            latest = np.maximum.reduceat(np.where(back, np.arange(len(order)), NONE), begins)
            back[:] = False
            back[latest[latest >= 0]] = True
        chosen = np.flatnonzero(back | np.isin(batch.header[order], _SMP))
        rows = order[chosen]
        words = _words(batch, rows)
        self._rows.append(
            _Rows(track[rows], stretch[chosen], at[rows], time[rows], before[chosen], batch.header[rows], words)
        )

    def _note_damage(self, batch: Batch, at: Index) -> None:
        """Where the window begins of the record before each damaged place: from there on records may be misread."""
        if self._by_byte and len(at):
            record = np.searchsorted(at, self._damage) - 1
            begin = at[np.searchsorted(batch.window, batch.window[np.maximum(record, 0)])]
            self._damage_begin = np.where(record >= 0, begin, self._damage_begin)

    def _told_apart(self, track: NDArray[np.int32], time: Index) -> NDArray[np.int32]:
        """Tracks by capture, in a dataset: its records are in order of time but where another capture begins."""
        back = time + RESTART_CYCLES < np.concatenate(([self._clock], time[:-1]))
        capture = self._capture + np.cumsum(back)
        self._capture, self._clock = int(capture[-1]), int(time[-1])
        return (capture << TRACK_BITS | track).astype(np.int32)

    def steps(self) -> Steps:
        """All of them, once all batches were added."""
        joined = _Rows(*map(np.concatenate, zip(*self._rows, strict=True)))
        rows = joined.take(np.argsort(joined.track, kind="stable"))
        missing = []
        if self._by_byte:
            # What a damaged window holds is not believed.
            missing.append((self._damage_begin, self._damage_end))
            rows = rows.take(~_within(rows.at, *_joined(self._damage_begin, self._damage_end)))
        kind, step = np.full((2, len(rows.track)), NONE, np.int8)
        step[:] = BACK
        for header, (of, place) in _STEP_OF.items():
            mine = rows.header == header
            kind[mine], step[mine] = of, place
        part = rows.track.astype(np.int64) << STRETCH_BITS | rows.stretch
        # Of each stretch one BACK stays, the last.
        backs = np.flatnonzero(step == BACK)
        stays = np.ones(len(part), np.bool_)
        stays[backs[:-1][part[backs[:-1]] == part[backs[1:]]]] = False
        rows = rows.take(stays)
        kind, step, part = kind[stays], step[stays], part[stays]

        first, last, odd = _unmarked(rows, kind, step, part)
        missing.append((rows.at[first], rows.at[last]))
        places = _joined(*map(np.concatenate, zip(*missing, strict=True)))
        hidden = _near(rows, part, *places)
        if len(self._damage) and not self._by_byte:
            # Records are missing, and a dataset does not tell where.
            hidden[:] = True
        stream = np.cumsum((np.diff(part, prepend=-1) != 0) | hidden)
        return Steps(
            track=rows.track,
            at=rows.at,
            time=rows.time,
            before=np.where(hidden, NEVER, rows.before),
            header=rows.header,
            words=rows.words,
            kind=kind,
            step=step,
            stream=stream,
            odd=odd,
            spans=self._told(rows, stream, *places),
            by_byte=self._by_byte,
        )

    def _told(self, rows: _Rows, stream: Index, begin: Index, end: Index) -> Spans:
        """Spans by all records, but by streams of steps where records are missing from these places on to those."""
        part, low, high, first, last = map(np.concatenate, zip(*self._spans, strict=True))
        order = np.argsort(part, kind="stable")
        part, last = part[order], last[order]
        begins = np.flatnonzero(np.diff(part, prepend=-1))
        low, high = np.minimum.reduceat(low[order], begins), np.maximum.reduceat(high[order], begins)
        last = last[np.append(begins[1:], len(part)) - 1]
        part = part[begins]
        doubtful = _meets(first[order[begins]], last, begin, end)
        if len(self._damage) and not self._by_byte:
            doubtful[:] = True
        sure = ~doubtful & (low <= high)
        heads = np.flatnonzero(np.diff(stream, prepend=NONE))
        tails = np.append(heads[1:], len(stream))[: len(heads)] - 1
        own = rows.track[heads].astype(np.int64) << STRETCH_BITS | rows.stretch[heads]
        some = np.isin(own, part[doubtful]) & (rows.time[heads] < rows.time[tails])
        tracks = np.concatenate((part[sure] >> STRETCH_BITS, rows.track[heads[some]]))
        low = np.concatenate((low[sure], rows.time[heads[some]]))
        high = np.concatenate((high[sure], rows.time[tails[some]]))
        order = np.lexsort((low, tracks))
        return Spans(tracks[order], low[order], high[order])


def _shifted(values: Index, first: Index, carried: Index) -> Index:
    """The value before each on its CPU; first: the first row of each CPU, which has the one carried."""
    found = np.concatenate((values[:1], values[:-1]))
    found[first] = carried
    return found


def _words(batch: Batch, rows: Index) -> NDArray[np.uint32]:
    found = np.zeros((len(rows), 4), np.uint32)
    for header in _STEP_OF:
        mine = np.flatnonzero(batch.header[rows] == header)
        payload = batch.payload(rows[mine], header)
        found[mine, : payload.shape[1]] = payload
    return found


def _unmarked(rows: _Rows, kind: NDArray[np.int8], step: NDArray[np.int8], part: Index) -> tuple[Index, Index, Index]:
    """Where `seq` tells that whole requests are missing: the STARTs before and after; and STARTs with a wrong `seq`.

    A CPU numbers what it asks for one by one. Two captures of one host in a file leave such a hole, and so does a CPU
    that was offline; no record marks either. It is none where just the STARTs are missing.
    """
    before, after, odd = [], [], []
    for one in range(len(KINDS)):
        starts = np.flatnonzero((kind == one) & (step == START))
        seq = rows.words[starts, 0]
        ahead = np.diff(seq)
        jump = (part[starts[1:]] == part[starts[:-1]]) & (ahead > 1)
        sends = np.flatnonzero((kind == one) & (step == SEND))
        new = np.diff(rows.words[sends, 0], prepend=np.uint32(0)) != 0
        sent = np.append(0, np.cumsum(new))[np.searchsorted(sends, starts)]
        # One of them is that of the START before.
        jump &= np.diff(sent) < ahead
        wrong = np.flatnonzero(jump[:-1] & jump[1:] & (seq[2:] - seq[:-2] == 2))
        jump[wrong] = jump[wrong + 1] = False
        place = np.flatnonzero(jump)
        before.append(starts[place])
        after.append(starts[place + 1])
        odd.append(starts[wrong + 1])
    return np.concatenate(before), np.concatenate(after), np.concatenate(odd)


def _joined(begin: Index, end: Index) -> tuple[Index, Index]:
    """These stretches in order, those that meet as one."""
    order = np.argsort(begin, kind="stable")
    begin, end = begin[order], np.maximum.accumulate(end[order])
    new = np.append(True, begin[1:] > end[:-1])[: len(begin)]
    return begin[new], end[np.append(np.flatnonzero(new)[1:], len(end))[: int(new.sum())] - 1]


def _meets(first: Index, last: Index, begin: Index, end: Index) -> Flags:
    """Which of these places, from first to last, meet one of the stretches in order."""
    found = np.zeros(len(first), np.bool_)
    if len(begin):
        place = np.searchsorted(end, first, side="right")
        found = (place < len(end)) & (begin[np.minimum(place, len(end) - 1)] < last)
    return found


def _within(place: Index, begin: Index, end: Index) -> Flags:
    """Which of these places are in one of the stretches in order, the end not included."""
    return _meets(place, place + 1, begin, end)


def _near(rows: _Rows, part: Index, begin: Index, end: Index) -> Flags:
    """Rows of which the one before may be missing, where records are from these places on to those."""
    found = np.zeros(len(part), np.bool_)
    found[1:] = (part[1:] == part[:-1]) & _meets(rows.at[:-1], rows.at[1:], begin, end)
    return found

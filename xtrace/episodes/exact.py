"""Episodes from the TRC_HW_SMP tracepoints: every step was traced, so this is book-keeping, not inference.

The key of an episode is (kind, initiator, seq); its START opens it. A trace may begin or stop inside one, on
some CPUs before others, and records may be lost in between: what was seen is kept, and marked incomplete.
Times are cycle counts here, 0 = not seen; tables hold nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace import columns
from xtrace.context import OCCUPANT, SWITCHES, header_of
from xtrace.parsers import hvm, smp
from xtrace.parsers.container import MAX_CPU
from xtrace.states import TRACK_BITS, Channel
from xtrace.survey import Records, Survey

Cycles = NDArray[np.uint64]
Index = NDArray[np.int64]


class Kind(NamedTuple):
    """The events of one kind of episode."""

    name: str
    start: int
    send: int
    done: int
    enter: int
    exit: int


CALL: Final = Kind("call", smp.CALL_START, smp.CALL_SEND, smp.CALL_DONE, smp.CALL_ENTER, smp.CALL_EXIT)
FLUSH: Final = Kind("flush", smp.FLUSH_START, smp.FLUSH_SEND, smp.FLUSH_DONE, smp.FLUSH_ENTER, smp.FLUSH_EXIT)
KINDS: Final = (CALL, FLUSH)

_EVENTS: Final = {event.event_id: event for event in smp.EVENTS}
SMP_HEADERS: Final = frozenset(header_of(event) for event in smp.EVENTS)
SUBJECT_HEADERS: Final = frozenset(header_of(_EVENTS[step]) for kind in KINDS for step in (kind.start, kind.enter))
"""Steps of which the state of their CPU is wanted."""

MODE: Final[Channel] = {
    header_of(event): (0, 0)
    for event in hvm.EVENTS
    if event.emitted and (event.name == "TRC_HVM_VMENTRY" or event.name.removesuffix("64").endswith("EXIT"))
}
"""Records that tell whether a CPU is inside an HVM guest."""

CHANNELS: Final = (OCCUPANT, SWITCHES, MODE)


@dataclass(slots=True)
class Steps:
    """The episodes of one kind, by order of start, and their targets.

    By episode: track (initiator's, int32), seq (uint32), start, send, done, first_seen (cycles), n_targets (int64,
    −1 unknown), fields (those of START, 0 where it was not seen), subject (of START, int64, a row of `Survey.states`,
    −1 where it was not seen), complete (bool).
    By target, ordered by episode and CPU: episode (row above), cpu (uint16), track (int32), asked (the mask names
    it), enter, exit (cycles), target_subject (as subject, of ENTER).
    strays: records that name no possible initiator.
    """

    kind: Kind
    track: NDArray[np.int32]
    seq: NDArray[np.uint32]
    start: Cycles
    send: Cycles
    done: Cycles
    first_seen: Cycles
    n_targets: Index
    fields: columns.Columns
    subject: Index
    complete: NDArray[np.bool_]
    episode: Index
    cpu: NDArray[np.uint16]
    target_track: NDArray[np.int32]
    asked: NDArray[np.bool_]
    enter: Cycles
    exit: Cycles
    target_subject: Index
    strays: int


class _Seen(NamedTuple):
    """Records of one step: whose episode, when, and what they say."""

    track: NDArray[np.int32]
    key: Cycles
    tsc: Cycles
    fields: columns.Columns
    subject: Index


def steps(found: Survey, kind: Kind) -> Steps:
    """All episodes of one kind."""
    start, send, done = (_own(found, event) for event in (kind.start, kind.send, kind.done))
    enter, enter_strays = _served(found, kind.enter)
    exit_, exit_strays = _served(found, kind.exit)

    assign = _Assignment(start, (send, done, enter, exit_))
    opened, keys = assign.opened, assign.keys
    count = len(keys)
    capture = (keys >> np.uint64(32 + TRACK_BITS)).astype(np.int32)
    fields = {name: _by_row(count, assign.start_row, values) for name, values in start.fields.items()}
    started = _by_row(count, assign.start_row, start.tsc)
    subject = np.full(count, -1)
    subject[assign.start_row] = start.subject

    send_row = assign.rows(0)
    asked_row, asked_cpu = _mask_bits(send, send_row)
    targets = _targets(asked_row, asked_cpu, (assign.rows(2), enter), (assign.rows(3), exit_))
    has_send = _first(send_row, send.tsc, count)
    n_targets = np.where(has_send > 0, np.bincount(targets.episode[targets.asked], minlength=count), -1)
    has_done = _first(assign.rows(1), done.tsc, count)
    served = targets.asked & (targets.enter > 0) & (targets.exit > 0)
    failed = np.bincount(targets.episode[~served], minlength=count)
    complete = opened & (has_send > 0) & (has_done > 0) & (failed == 0) & (n_targets > 0)
    if "n_cpus" in fields:
        # A mask of several words may have lost one of them.
        complete &= fields["n_cpus"] == n_targets
    initiator = (keys >> np.uint64(32)).astype(np.int32) & np.int32(MAX_CPU | 1)
    return Steps(
        kind=kind,
        track=capture << TRACK_BITS | initiator,
        seq=keys.astype(np.uint32),
        start=started,
        send=has_send,
        done=has_done,
        first_seen=assign.first_seen,
        n_targets=n_targets,
        fields=fields,
        subject=subject,
        complete=complete,
        episode=targets.episode,
        cpu=targets.cpu.astype(np.uint16),
        target_track=(capture[targets.episode] << TRACK_BITS | targets.cpu).astype(np.int32),
        asked=targets.asked,
        enter=targets.enter,
        exit=targets.exit,
        target_subject=targets.subject,
        strays=enter_strays + exit_strays,
    )


def _by_row(count: int, row: Index, values: NDArray[Any]) -> NDArray[Any]:
    whole = np.zeros(count, values.dtype)
    whole[row] = values
    return whole


def _own(found: Survey, event_id: int) -> _Seen:
    """What initiators noted: the CPU that wrote the record is the initiator."""
    event = _EVENTS[event_id]
    records = found.records(header_of(event))
    fields = columns.decode(event, records.payload)
    return _seen(records, records.cpu, fields)


def _served(found: Survey, event_id: int) -> tuple[_Seen, int]:
    """What targets noted: the record names the initiator; returns how many name an impossible one."""
    event = _EVENTS[event_id]
    records = found.records(header_of(event))
    possible = columns.decode(event, records.payload)["initiator_cpu"] <= MAX_CPU
    if not possible.all():
        subject = records.subject[possible] if len(records.subject) else records.subject
        records = Records(records.track[possible], records.tsc[possible], records.payload[possible], subject)
    fields = columns.decode(event, records.payload)
    return _seen(records, fields["initiator_cpu"], fields), int((~possible).sum())


def _seen(records: Records, initiator: NDArray[np.integer], fields: columns.Columns) -> _Seen:
    capture = (records.track >> TRACK_BITS).astype(np.uint64)
    key = (capture << np.uint64(TRACK_BITS) | initiator.astype(np.uint64)) << np.uint64(32)
    return _Seen(records.track, key | fields["seq"].astype(np.uint64), records.tsc, fields, records.subject)


class _Assignment:
    """Which episode a record belongs to: by its key, and where a key was used again, by its time.

    keys, first_seen, opened  by episode, in order of start: key, time of START or of the first record seen, and
                              whether START was seen
    start_row                 the episode of each START
    """

    def __init__(self, start: _Seen, others: tuple[_Seen, ...]) -> None:
        # Records of one key come from one CPU, in order of time: a stable sort keeps that order.
        order = np.argsort(start.key, kind="stable")
        self._keys, self._starts = start.key[order], start.tsc[order]
        last = np.flatnonzero(np.append(self._keys[1:] != self._keys[:-1], True)[: len(order)])
        self._reused = len(last) < len(order)
        self._stop = np.repeat(last + 1, np.diff(last, prepend=-1))
        self._found = []
        for one in others:
            self._found.append((one, *_find(self._keys, one.key)))
        lonely = [one.key[~matched] for one, _, matched in self._found]
        self._orphans, inverse = np.unique(np.concatenate(lonely), return_inverse=True)
        earliest = np.full(len(self._orphans), np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(earliest, inverse, np.concatenate([one.tsc[~matched] for one, _, matched in self._found]))

        keys = np.concatenate((self._keys, self._orphans))
        seen = np.concatenate((self._starts, earliest))
        by_time = in_time(keys >> np.uint64(32 + TRACK_BITS), seen)
        self.keys, self.first_seen = keys[by_time], seen[by_time]
        self.opened = by_time < len(order)
        self._row = np.empty(len(by_time), np.int64)
        self._row[by_time] = np.arange(len(by_time))
        self.start_row = np.empty(len(order), np.int64)
        self.start_row[order] = self._row[: len(order)]

    def rows(self, other: int) -> Index:
        """The episode of each record of `others[other]`, −1 for one before the first of several STARTs of its key."""
        seen, place, matched = self._found[other]
        if self._reused:
            stop = self._stop.take(place, mode="clip")
            place = np.where(matched, self._latest(place, np.where(matched, stop, place), seen.tsc), place)
        orphan = len(self._keys) + np.searchsorted(self._orphans, seen.key[~matched])
        place = place.copy()
        place[~matched] = orphan
        return np.where(place < 0, -1, self._row.take(place, mode="clip"))

    def _latest(self, first: Index, stop: Index, tsc: Cycles) -> Index:
        """The last START of each range that is not after its time; −1 for none, unless the range has only one."""
        low, high = first.copy(), stop.copy()
        while (low < high).any():
            middle = (low + high) // 2
            before = (low < high) & (self._starts.take(middle, mode="clip") <= tsc)
            high = np.where((low < high) & ~before, middle, high)
            low = np.where(before, middle + 1, low)
        return np.where(low > first, low - 1, np.where(stop - first == 1, first, -1))


def in_time(capture: NDArray[Any], tsc: Cycles) -> Index:
    """The order by capture, then time; those that are in order already keep it.

    Long runs are (each CPU's episodes): stable sorts have only to merge those.
    """
    order = np.argsort(tsc, kind="stable")
    return order[np.argsort(capture[order], kind="stable")]


class _Targets(NamedTuple):
    episode: Index
    cpu: Index
    asked: NDArray[np.bool_]
    enter: Cycles
    exit: Cycles
    subject: Index


def _targets(asked_row: Index, asked_cpu: Index, entered: tuple[Index, _Seen], left: tuple[Index, _Seen]) -> _Targets:
    """One row for each CPU that an episode's mask names or that served it."""
    cpu_mask = np.int64(MAX_CPU | 1)
    named = np.sort(asked_row << TRACK_BITS | asked_cpu)
    named = named[np.diff(named, prepend=-1) > 0]
    packs = []
    for row, seen in (entered, left):
        known = row >= 0
        packs.append((row[known] << TRACK_BITS | (seen.track[known] & cpu_mask), known))
    # Nearly all records are of CPUs that a mask names: only the others need to be sorted in.
    unasked = [packed[~_find(named, packed)[1]] for packed, _ in packs]
    pairs = np.union1d(named, np.concatenate(unasked)) if sum(map(len, unasked)) else named
    asked = np.ones(len(pairs), np.bool_) if pairs is named else _find(named, pairs)[1]
    times, places = [], []
    for (packed, known), (_, seen) in zip(packs, (entered, left), strict=True):
        places.append(np.searchsorted(pairs, packed))
        times.append(_first(places[-1], seen.tsc[known], len(pairs)))
    subject = np.full(len(pairs), -1)
    # Of several ENTERs the first stays, as its time does.
    subject[places[0][::-1]] = entered[1].subject[packs[0][1]][::-1]
    return _Targets(pairs >> TRACK_BITS, pairs & cpu_mask, asked, times[0], times[1], subject)


def _find(ordered: NDArray[Any], values: NDArray[Any]) -> tuple[Index, NDArray[np.bool_]]:
    """Where each value is in `ordered`, or would be, and whether it is there."""
    place = np.searchsorted(ordered, values)
    if not len(ordered):
        return place, np.zeros(len(values), np.bool_)
    return place, ordered.take(place, mode="clip") == values


def _mask_bits(send: _Seen, row: Index) -> tuple[Index, Index]:
    """Episode and CPU of every bit set in the masks of SEND; CPUs that cannot exist are left out."""
    octets = np.ascontiguousarray(send.fields["mask"], "<u8").view(np.uint8).reshape(-1, 8)
    record, octet = np.nonzero(octets)
    one, bit = np.nonzero(np.unpackbits(octets[record, octet][:, None], axis=1, bitorder="little"))
    record, bit = record[one], 8 * octet[one] + bit
    cpu = send.fields["first_cpu"].astype(np.int64)[record] + bit
    usable = (cpu <= MAX_CPU) & (row[record] >= 0)
    return row[record][usable], cpu[usable]


def _first(row: Index, tsc: Cycles, count: int) -> Cycles:
    """The earliest time by row, 0 where a row has none; rows of −1 are ignored."""
    never = np.uint64(np.iinfo(np.uint64).max)
    found = np.full(count, never)
    known = row >= 0
    np.minimum.at(found, row[known], tsc[known])
    return np.where(found == never, np.uint64(0), found)

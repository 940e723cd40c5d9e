"""Episodes from the TRC_HW_SMP tracepoints: every step was traced, so this is book-keeping, not inference.

The key of an episode is (kind, initiator, seq); its START opens it. A trace may begin or stop inside one, on
some CPUs before others, and records may be lost in between: what was seen is kept, and marked incomplete.
Times are cycle counts here, 0 = not seen; tables hold nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace import columns
from xtrace.context import OCCUPANT, SWITCHES, header_of
from xtrace.parsers import hvm, smp
from xtrace.parsers.container import MAX_CPU
from xtrace.states import STATE, Channel, States
from xtrace.survey import TRACK_BITS, Records, Survey

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
    −1 unknown), fields (those of START, 0 where it was not seen), initiator_state (STATE (n, CHANNELS), before START),
    complete (bool).
    By target, ordered by episode and CPU: episode (row above), cpu (uint16), track (int32), asked (the mask names
    it), enter, exit (cycles), mode (uint64 (n, 3), the mode record before ENTER).
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
    initiator_state: States
    complete: NDArray[np.bool_]
    episode: Index
    cpu: NDArray[np.uint16]
    target_track: NDArray[np.int32]
    asked: NDArray[np.bool_]
    enter: Cycles
    exit: Cycles
    state: States
    strays: int


class _Seen(NamedTuple):
    """Records of one step: whose episode, when, and what they say."""

    track: NDArray[np.int32]
    key: Cycles
    tsc: Cycles
    fields: columns.Columns
    state: States


def steps(found: Survey, kind: Kind) -> Steps:
    """All episodes of one kind."""
    start, send, done = (_own(found, event) for event in (kind.start, kind.send, kind.done))
    enter, enter_strays = _served(found, kind.enter)
    exit_, exit_strays = _served(found, kind.exit)
    seen = (start, send, done, enter, exit_)

    keys, inverse = np.unique(np.concatenate([one.key for one in seen]), return_inverse=True)
    groups = np.split(inverse, np.cumsum([len(one.key) for one in seen])[:-1])
    tsc = np.concatenate([one.tsc for one in seen])
    earliest = np.full(len(keys), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(earliest, inverse, tsc)

    opened = np.lexsort((start.tsc, groups[0]))
    orphans = np.setdiff1d(np.arange(len(keys)), groups[0])
    owner = np.concatenate((groups[0][opened], orphans))
    first_seen = np.concatenate((start.tsc[opened], earliest[orphans]))
    order = np.lexsort((owner, first_seen, keys[owner] >> np.uint64(32 + TRACK_BITS)))
    row_of = np.empty(len(order), np.int64)
    row_of[order] = np.arange(len(order))
    assign = _Assignment(groups[0][opened], start.tsc[opened], orphans, row_of)

    count = len(order)
    key = keys[owner[order]]
    fields = {}
    for name, values in start.fields.items():
        whole = np.zeros(count, values.dtype)
        whole[row_of[: len(opened)]] = values[opened]
        fields[name] = whole
    started = np.zeros(count, np.uint64)
    started[row_of[: len(opened)]] = start.tsc[opened]

    initiator_state = np.zeros((count, len(CHANNELS)), STATE)
    if len(start.state):
        initiator_state[row_of[: len(opened)]] = start.state[opened]

    send_row = assign.rows(groups[1], send.tsc)
    asked_row, asked_cpu = _mask_bits(send, send_row)
    targets = _targets(
        asked_row,
        asked_cpu,
        (assign.rows(groups[3], enter.tsc), enter),
        (assign.rows(groups[4], exit_.tsc), exit_),
    )
    has_send = _first(send_row, send.tsc, count)
    n_targets = np.where(has_send > 0, np.bincount(targets.episode[targets.asked], minlength=count), -1)
    has_done = _first(assign.rows(groups[2], done.tsc), done.tsc, count)
    served = targets.asked & (targets.enter > 0) & (targets.exit > 0)
    failed = np.bincount(targets.episode[~served], minlength=count)
    complete = (started > 0) & (has_send > 0) & (has_done > 0) & (failed == 0) & (n_targets > 0)
    if "n_cpus" in fields:
        # A mask of several words may have lost one of them.
        complete &= fields["n_cpus"] == n_targets
    capture = (key >> np.uint64(32 + TRACK_BITS)).astype(np.int32)
    initiator = (key >> np.uint64(32)).astype(np.int32) & np.int32(MAX_CPU | 1)
    return Steps(
        kind=kind,
        track=capture << TRACK_BITS | initiator,
        seq=key.astype(np.uint32),
        start=started,
        send=has_send,
        done=has_done,
        first_seen=first_seen[order],
        n_targets=n_targets,
        fields=fields,
        complete=complete,
        episode=targets.episode,
        cpu=targets.cpu.astype(np.uint16),
        target_track=(capture[targets.episode] << TRACK_BITS | targets.cpu).astype(np.int32),
        asked=targets.asked,
        enter=targets.enter,
        exit=targets.exit,
        state=targets.state,
        initiator_state=initiator_state,
        strays=enter_strays + exit_strays,
    )


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
    state = records.state[possible] if len(records.state) else records.state
    records = Records(records.track[possible], records.tsc[possible], records.payload[possible], state)
    fields = columns.decode(event, records.payload)
    return _seen(records, fields["initiator_cpu"], fields), int((~possible).sum())


def _seen(records: Records, initiator: NDArray[np.integer], fields: columns.Columns) -> _Seen:
    capture = (records.track >> TRACK_BITS).astype(np.uint64)
    key = (capture << np.uint64(TRACK_BITS) | initiator.astype(np.uint64)) << np.uint64(32)
    return _Seen(records.track, key | fields["seq"].astype(np.uint64), records.tsc, fields, records.state)


class _Assignment:
    """Which episode a record belongs to: by its key, and where a key was used again, by its time."""

    def __init__(self, owner: Index, start: Cycles, orphans: Index, row_of: Index) -> None:
        self.owner, self.start, self.row_of = owner, start, row_of
        keys = int(max(owner.max(initial=-1), orphans.max(initial=-1))) + 1
        self.starts = np.bincount(owner, minlength=keys)
        self.place = np.zeros(keys, np.int64)
        self.place[owner[::-1]] = np.arange(len(owner))[::-1]
        self.place[orphans] = len(owner) + np.arange(len(orphans))

    def rows(self, key: Index, tsc: Cycles) -> Index:
        """The episode of each record, −1 for one that came before the first of several STARTs with its key."""
        place = self.place[key]
        again = np.flatnonzero(self.starts[key] > 1)
        if len(again):
            shared = np.flatnonzero(self.starts[self.owner] > 1)
            owners = np.concatenate((self.owner[shared], key[again]))
            times = np.concatenate((self.start[shared], tsc[again]))
            is_record = np.arange(len(owners)) >= len(shared)
            order = np.lexsort((is_record, times, owners))
            latest = np.maximum.accumulate(np.where(is_record[order], -1, np.arange(len(order))))
            found = np.full(len(owners), -1)
            valid = (latest >= 0) & (owners[order][latest] == owners[order])
            found[order[valid]] = order[latest[valid]]
            place[again] = np.where(found[len(shared) :] < 0, -1, shared[found[len(shared) :]])
        return np.where(place < 0, -1, self.row_of[place])


class _Targets(NamedTuple):
    episode: Index
    cpu: Index
    asked: NDArray[np.bool_]
    enter: Cycles
    exit: Cycles
    state: States


def _targets(asked_row: Index, asked_cpu: Index, entered: tuple[Index, _Seen], left: tuple[Index, _Seen]) -> _Targets:
    """One row for each CPU that an episode's mask names or that served it."""
    cpu_mask = np.int64(MAX_CPU | 1)

    def pack(row: Index, cpu: NDArray[np.integer]) -> Index:
        return row << TRACK_BITS | cpu

    packs = [pack(asked_row, asked_cpu)]
    packs += [pack(row, seen.track & cpu_mask)[row >= 0] for row, seen in (entered, left)]
    pairs = np.unique(np.concatenate(packs))
    asked = np.zeros(len(pairs), np.bool_)
    asked[np.searchsorted(pairs, packs[0])] = True
    times = []
    for packed, (row, seen) in zip(packs[1:], (entered, left), strict=True):
        times.append(_first(np.searchsorted(pairs, packed), seen.tsc[row >= 0], len(pairs)))
    state = np.zeros((len(pairs), len(CHANNELS)), STATE)
    row, seen = entered
    if len(seen.state):
        state[np.searchsorted(pairs, packs[1])[::-1]] = seen.state[row >= 0][::-1]
    return _Targets(pairs >> TRACK_BITS, pairs & cpu_mask, asked, times[0], times[1], state)


def _mask_bits(send: _Seen, row: Index) -> tuple[Index, Index]:
    """Episode and CPU of every bit set in the masks of SEND; CPUs that cannot exist are left out."""
    mask = np.ascontiguousarray(send.fields["mask"], "<u8")
    bits = np.unpackbits(mask.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    record, bit = np.nonzero(bits)
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

"""A Perfetto file read back by the package's own schema, as its trace processor would: for the tests of the export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from xtrace.perfetto import SEQUENCE, schema


class Slice(NamedTuple):
    """A slice, or an instant (`end` None). depth: how many slices it is inside of."""

    row: str
    begin: int
    end: int | None
    name: str
    args: dict[str, Any]
    flows: tuple[int, ...]
    arrives: tuple[int, ...]
    depth: int


@dataclass
class Picture:
    """What a file shows: rows by their path of names."""

    slices: list[Slice] = field(default_factory=list)
    counts: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    tracks: dict[int, Any] = field(default_factory=dict)
    packets: int = 0

    def on(self, row: str) -> list[Slice]:
        """The slices and instants of rows whose path ends so."""
        return [one for one in self.slices if one.row.endswith(row)]

    def path(self, track: int) -> str:
        """`CPUs/CPU 0/requests`."""
        found = self.tracks[track]
        return f"{self.path(found.parent_uuid)}/{found.name}" if found.parent_uuid else str(found.name)

    def rows(self) -> set[str]:
        """The paths of all tracks."""
        return set(map(self.path, self.tracks))


def picture(data: bytes) -> Picture:
    """Read a file; on every track marks are in order of time, and slices nest and end, or this fails."""
    found, texts = Picture(), _Texts()
    open_slices: dict[int, list[Slice]] = {}
    latest: dict[int, int] = {}
    for packet in _packets(data):
        found.packets += 1
        assert packet.trusted_packet_sequence_id == SEQUENCE
        texts.learn(packet)
        if packet.HasField("track_descriptor"):
            described = packet.track_descriptor
            assert described.uuid not in found.tracks
            assert not described.parent_uuid or described.parent_uuid in found.tracks
            found.tracks[described.uuid] = described
            if described.HasField("counter"):
                found.counts[found.path(described.uuid)] = []
            continue
        if not packet.HasField("track_event"):
            continue
        event, ns = packet.track_event, packet.timestamp
        assert packet.HasField("timestamp")
        assert ns >= latest.get(event.track_uuid, 0)
        latest[event.track_uuid] = ns
        stack = open_slices.setdefault(event.track_uuid, [])
        row = found.path(event.track_uuid)
        if event.type == event.TYPE_COUNTER:
            found.counts[row].append((ns, event.counter_value))
        elif event.type == event.TYPE_SLICE_END:
            begun = stack.pop()
            found.slices.append(begun._replace(end=ns))
            assert not stack or stack[-1].begin <= begun.begin
        else:
            assert event.type in (event.TYPE_SLICE_BEGIN, event.TYPE_INSTANT)
            name, args = texts.told(event)
            one = Slice(row, ns, None, name, args, tuple(event.flow_ids), tuple(event.terminating_flow_ids), len(stack))
            (stack if event.type == event.TYPE_SLICE_BEGIN else found.slices).append(one)
    assert not any(open_slices.values())
    return found


def _packets(data: bytes) -> Iterator[Any]:
    whole = schema().Trace()
    whole.ParseFromString(data)
    first = whole.packet[0]
    assert first.sequence_flags == first.SEQ_INCREMENTAL_STATE_CLEARED
    assert first.trace_packet_defaults.timestamp_clock_id == schema().BUILTIN_CLOCK_BOOTTIME
    yield from whole.packet


class _Texts:
    """Texts by number, of each kind; a number is told once, before or with its first use."""

    def __init__(self) -> None:
        self.known: dict[str, dict[int, str]] = {}

    def learn(self, packet: Any) -> None:
        if not packet.HasField("interned_data"):
            return
        for kind, entries in packet.interned_data.ListFields():
            table = self.known.setdefault(kind.name, {})
            for entry in entries:
                assert entry.iid not in table
                table[entry.iid] = entry.str.decode() if hasattr(entry, "str") else entry.name

    def told(self, event: Any) -> tuple[str, dict[str, Any]]:
        name = self.known["event_names"][event.name_iid] if event.HasField("name_iid") else event.name
        args = {}
        for note in event.debug_annotations:
            key = self.known["debug_annotation_names"][note.name_iid]
            kind = note.WhichOneof("value")
            value = getattr(note, kind)
            args[key] = self.known["debug_annotation_string_values"][value] if kind == "string_value_iid" else value
        return name, args


def read(path: Path) -> Picture:
    """The picture of a file."""
    return picture(path.read_bytes())

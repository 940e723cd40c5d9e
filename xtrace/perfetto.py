"""A timeline as a Perfetto trace: the packets that ui.perfetto.dev and its trace processor read.

Written with the maintained package (PyPI `perfetto`): its protobuf messages, never its TraceProcessor, which downloads
a program. Times are given as CLOCK_BOOTTIME, the clock that a reader takes for a trace's own, so that none has to be
converted; 0 is the first timestamp of the trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from xtrace.errors import UsageError
from xtrace.output import whole
from xtrace.timeline.assemble import timeline
from xtrace.timeline.marks import Address, Begin, Count, End, Instant, Scope, Track

if TYPE_CHECKING:
    from xtrace.timeline.marks import Mark
    from xtrace.trace import Trace

SEQUENCE: Final = 1
"""All packets are one sequence, as if one thread of a traced program had written them."""

PORTION: Final = 2048
"""Packets that are put into bytes together."""

MAX_INTERNED: Final = 1 << 16
"""Texts that are written once and then meant by number; later ones are written in full each time."""


def schema() -> Any:
    """The package's module of protobuf messages. Raises UsageError where the package is not installed."""
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2
    except ImportError:
        raise UsageError(
            "the package perfetto, which writes these files, is not installed: pip install 'xen-xtrace[perfetto]'"
        ) from None
    return perfetto_trace_pb2


def write(trace: Trace, path: str, scope: Scope) -> int:
    """Write the chosen part of a trace; the file appears whole or not at all. Returns the number of packets.

    Raises UsageError where the package is missing, InputError where the file cannot be written.
    """
    messages = schema()
    with whole(Path(path)) as file:
        writer = Writer(messages, file)
        for marks in timeline(trace, scope):
            writer.add(marks)
        writer.finish()
    return writer.packets


class Writer:
    """Puts marks into packets, and packets into a file.

    messages: the module that `schema` gives.
    """

    def __init__(self, messages: Any, file: IO[bytes]) -> None:
        self._messages, self._file = messages, file
        self._portion = messages.Trace()
        self._described: set[int] = set()
        self._names: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        self.packets = 0
        event = messages.TrackEvent
        self._dependent = messages.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        self._types = {
            Begin: event.TYPE_SLICE_BEGIN,
            End: event.TYPE_SLICE_END,
            Instant: event.TYPE_INSTANT,
            Count: event.TYPE_COUNTER,
        }
        first = self._packet()
        first.sequence_flags = messages.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        first.trace_packet_defaults.timestamp_clock_id = messages.BUILTIN_CLOCK_BOOTTIME

    def add(self, marks: Iterable[Mark]) -> None:
        """Write these marks, and each track before the first mark on it."""
        described, types, dependent = self._described, self._types, self._dependent
        for mark in marks:
            track = mark.track
            if track.number not in described:
                self._describe(track)
            packet = self._packet()
            packet.timestamp = mark.ns
            packet.sequence_flags = dependent
            event = packet.track_event
            event.type = types[type(mark)]
            event.track_uuid = track.number
            if isinstance(mark, Count):
                event.counter_value = mark.value
            elif not isinstance(mark, End):
                self._tell(packet, event, mark)

    def finish(self) -> None:
        """Write what is left."""
        self._file.write(self._portion.SerializeToString())
        # A message that is cleared keeps the memory of all it ever held.
        self._portion = self._messages.Trace()

    def _packet(self) -> Any:
        if len(self._portion.packet) == PORTION:
            self.finish()
        self.packets += 1
        packet = self._portion.packet.add()
        packet.trusted_packet_sequence_id = SEQUENCE
        return packet

    def _describe(self, track: Track) -> None:
        if track.parent is not None and track.parent.number not in self._described:
            self._describe(track.parent)
        self._described.add(track.number)
        found = self._packet().track_descriptor
        found.uuid, found.name, found.sibling_order_rank = track.number, track.name, track.rank
        if track.parent is not None:
            found.parent_uuid = track.parent.number
        if track.meaning:
            found.description = track.meaning
        if track.counter:
            found.counter.unit = self._messages.CounterDescriptor.UNIT_COUNT
        else:
            found.child_ordering = self._messages.TrackDescriptor.EXPLICIT

    def _tell(self, packet: Any, event: Any, mark: Begin | Instant) -> None:
        """The name, the arguments and the arrows of a slice or instant."""
        number = self._interned(packet, "event_names", self._names, mark.name)
        if number:
            event.name_iid = number
        else:
            event.name = mark.name
        for key, value in mark.args.items():
            note = event.debug_annotations.add()
            note.name_iid = self._interned(packet, "debug_annotation_names", self._keys, key)
            if isinstance(value, bool):
                note.bool_value = value
            elif isinstance(value, Address):
                note.pointer_value = value
            elif isinstance(value, int):
                note.int_value = value
            elif text := self._interned(packet, "debug_annotation_string_values", self._texts, value):
                note.string_value_iid = text
            else:
                note.string_value = value
        if mark.flows:
            event.flow_ids.extend(mark.flows)
        if mark.arrives:
            event.terminating_flow_ids.extend(mark.arrives)

    @staticmethod
    def _interned(packet: Any, table: str, known: dict[str, int], text: str) -> int:
        """The number that stands for a text, told with its first packet; 0: too many have one already."""
        number = known.get(text, 0)
        if not number and len(known) < MAX_INTERNED:
            number = known[text] = len(known) + 1
            entry = getattr(packet.interned_data, table).add()
            entry.iid = number
            if table == "debug_annotation_string_values":
                entry.str = text.encode()
            else:
                entry.name = text
        return number

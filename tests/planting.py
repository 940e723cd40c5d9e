"""Traces in which something was changed: records by what they are, and bytes put in their place."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xtrace.context import header_of
from xtrace.parsers import smp
from xtrace.parsers.fields import u32, u64
from xtrace.trace_file import TraceFile

EVENT_OF: Final = {event.name: event for event in smp.EVENTS}
HEADER_OF: Final = {event.name: header_of(event) for event in smp.EVENTS}
NOTHING_ID: Final = 0x0804006
"""An event of the same subclass that means nothing."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A TRC_HW_SMP record of a trace: where it is, and what it says."""

    at: int
    tsc: int
    cpu: int
    event: str
    fields: dict[str, int]
    size: int

    @property
    def kind(self) -> str:
        return "call" if self.event.startswith("SMP_CALL") else "flush"

    @property
    def step(self) -> str:
        return self.event.rpartition("_")[2]

    @property
    def key(self) -> tuple[str, int, int]:
        """Kind, initiator and `seq`."""
        return self.kind, self.fields.get("initiator_cpu", self.cpu), self.fields["seq"]


class Planted:
    """The bytes of a trace, to be changed; `noted` are its SMP records in order of time."""

    def __init__(self, data: bytes, path: Path, hz: int) -> None:
        self._clean = data
        self._data = bytearray(data)
        self._path = path
        self.hz = hz
        path.write_bytes(data)
        self.noted = sorted(_noted(path, hz), key=lambda one: one.tsc)

    def fresh(self) -> Planted:
        """The trace as it was at first, to be changed anew."""
        other = copy(self)
        other._data = bytearray(self._clean)
        return other

    @property
    def data(self) -> bytes:
        """The trace as it is now."""
        return bytes(self._data)

    def open(self) -> TraceFile:
        """The trace as it is now, opened."""
        self._path.write_bytes(self._data)
        return TraceFile(self._path, cpu_hz=self.hz)

    def requests(self) -> dict[tuple[str, int, int], dict[str, list[Noted]]]:
        """Records by request and step."""
        found: dict[tuple[str, int, int], dict[str, list[Noted]]] = {}
        for one in self.noted:
            found.setdefault(one.key, {}).setdefault(one.step, []).append(one)
        return found

    def bytes_of(self, one: Noted) -> bytes:
        """What stands there now."""
        return bytes(self._data[one.at : one.at + one.size])

    def put(self, at: int, data: bytes) -> None:
        """Other bytes."""
        self._data[at : at + len(data)] = data

    def move(self, one: Noted, tsc: int) -> None:
        """Another time."""
        self.put(one.at + 4, u64.build(tsc))

    def hide(self, one: Noted) -> None:
        """The record becomes one that means nothing."""
        header = u32.parse(self.bytes_of(one)[:4])
        self.put(one.at, u32.build(header & ~0x0FFFFFFF | NOTHING_ID))

    def word(self, one: Noted, place: int, value: int) -> None:
        """Another payload word."""
        self.put(one.at + 12 + 4 * place, u32.build(value))

    def swap(self, one: Noted, other: Noted) -> None:
        """Two records of one length change places, each keeps its content but the time stays where it was."""
        first, second = self.bytes_of(one), self.bytes_of(other)
        self.put(one.at, second[:4] + first[4:12] + second[12:])
        self.put(other.at, first[:4] + second[4:12] + first[12:])

    def become(self, one: Noted, event: str, *words: int) -> None:
        """The record becomes another event with as many words."""
        self.put(one.at, u32.build(HEADER_OF[event]))
        for place, value in enumerate(words):
            self.word(one, place, value)


def _noted(path: Path, hz: int) -> list[Noted]:
    found: list[Noted] = []
    with TraceFile(path, cpu_hz=hz) as trace:
        for batch, _ in trace.batches():
            cpus = trace.cpu_of(batch)
            for group in trace.groups(batch, lambda event: event.name in EVENT_OF):
                assert batch.offset is not None
                places = batch.offset[group.rows].tolist()
                times, sources = batch.tsc[group.rows].tolist(), cpus[group.rows].tolist()
                size = 12 + 4 * group.payload.shape[1]
                columns = {name: column.tolist() for name, column in group.columns.items()}
                found += [
                    Noted(at, tsc, cpu, group.event.name, {name: values[row] for name, values in columns.items()}, size)
                    for row, (at, tsc, cpu) in enumerate(zip(places, times, sources, strict=True))
                ]
    return found

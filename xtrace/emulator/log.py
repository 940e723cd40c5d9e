"""What the emulated hypervisor notes: records before they are bytes."""

from __future__ import annotations

from dataclasses import dataclass

from xtrace.context import header_of
from xtrace.parsers.event import Event


@dataclass(frozen=True, eq=False)
class Layout:
    """An event as it is written: its declaration, the header word of its records, and their size."""

    event: Event
    header: int
    size_bytes: int

    @classmethod
    def of(cls, event: Event, words: int | None = None) -> Layout:
        """The layout of an event; words: of one whose length its declaration leaves open."""
        length = event.words if words is None else words
        if length is None:
            raise ValueError(f"{event.name} has no fixed length")
        header = header_of(event) if words is None else event.event_id | words << 28 | int(event.timestamped) << 31
        return cls(event, header, 4 + 8 * event.timestamped + 4 * length)


Row = tuple[int, int, Layout, tuple[int, ...]]
"""CPU, time in cycles, layout, fields in the order of `columns.names_of`."""


class Log:
    """Records of all CPUs in order of time; one that is not `on` keeps none."""

    def __init__(self, *, on: bool = True) -> None:
        self.rows: list[Row] = []
        self._on = on

    def add(self, cpu: int, when: int, layout: Layout, *fields: int) -> int:
        """Note a record; returns its row, −1 where none is kept."""
        if not self._on:
            return -1
        self.rows.append((cpu, when, layout, fields))
        return len(self.rows) - 1

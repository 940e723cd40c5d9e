"""Trace buffers and the tool that empties them: which records reach the file, in which windows, and which are lost.

Facts: docs/format.md, from xen/common/trace.c and tools/xentrace/xentrace.c. A ring is written by its CPU and read by
xentrace, which comes every so often, and when a ring is half full.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from xtrace.context import IDLE_DOMAIN, header_of
from xtrace.emulator.log import Layout, Log, Row
from xtrace.emulator.machine import NS_PER_S
from xtrace.errors import UsageError
from xtrace.parsers.container import CPU_CHANGE, LOST_RECORDS
from xtrace.parsers.container import EVENTS as CONTAINER_EVENTS
from xtrace.parsers.sched import MIN

PAGE_BYTES: Final = 4096
RING_HEADER_BYTES: Final = 8
MAX_RING_PAGES: Final = 1 << 16
_WRAP, _WRAP_TIMED = (event for event in CONTAINER_EVENTS if event.name == "TRC_TRACE_WRAP_BUFFER")
WRAPS: Final = {4 + 4 * words: Layout.of(_WRAP, words) for words in range(8)} | {36: Layout.of(_WRAP_TIMED)}
"""Fillers by the bytes they take."""

WINDOW: Final = Layout.of(CPU_CHANGE)
LOST: Final = Layout.of(LOST_RECORDS)
_ARRIVES: Final = {header_of(event) for event in MIN if event.constants.get("new_state") == "running"}


@dataclass(frozen=True, slots=True)
class Tool:
    """How xentrace runs.

    ring_pages  4 KiB pages of each CPU's ring (`tbuf_size`)
    poll_ns     it looks at all rings so often (`-s`)
    react_ns    from a ring being half full until it comes
    step_ns     from reading one CPU's ring to the next one's
    """

    ring_pages: int = 32
    poll_ns: int = 100_000_000
    react_ns: int = 200_000
    step_ns: int = 5_000

    def __post_init__(self) -> None:
        if not 1 <= self.ring_pages <= MAX_RING_PAGES:
            raise UsageError(f"a ring of {self.ring_pages} pages: give 1 to {MAX_RING_PAGES}")


@dataclass(slots=True)
class Ring:
    """One CPU's ring: bytes written and read, ever; what is in it; and what was dropped since the last record."""

    size: int
    produced: int = 0
    consumed: int = 0
    rows: list[int] = field(default_factory=list)
    dropped: int = 0
    first_dropped: int = 0

    def free(self) -> int:
        """Bytes that can be written."""
        return self.size - (self.produced - self.consumed)

    def to_wrap(self) -> int:
        """Bytes until the ring begins again, never 0."""
        return self.size - self.produced % self.size


@dataclass(frozen=True, slots=True)
class Capture:
    """What ends up in the file.

    rows   the log's rows, then those that the rings and the tool add
    order  indices into `rows`, in file order
    lost   indices into the log's rows that were dropped
    """

    rows: list[Row]
    order: list[int]
    lost: frozenset[int]


def capture(log: Log, wanted: list[int], n_cpus: int, hz: int, tool: Tool) -> Capture:
    """Write the `wanted` rows of the log through rings of this size, with this tool reading them."""
    return _Capturing(log, n_cpus, hz, tool).run(wanted)


class _Capturing:
    def __init__(self, log: Log, n_cpus: int, hz: int, tool: Tool) -> None:
        self._rows = list(log.rows)
        size = tool.ring_pages * PAGE_BYTES - RING_HEADER_BYTES
        self._rings = [Ring(size) for _ in range(n_cpus)]
        self._current = [(IDLE_DOMAIN, cpu) for cpu in range(n_cpus)]
        self._order: list[int] = []
        self._lost: set[int] = set()
        self._poll, self._react, self._step = (
            ns * hz // NS_PER_S for ns in (tool.poll_ns, tool.react_ns, tool.step_ns)
        )

    def run(self, wanted: list[int]) -> Capture:
        rows = self._rows
        begin = rows[wanted[0]][1] if wanted else 0
        # The CPU that the tool reads next, and when.
        reading, when = 0, begin + self._poll
        for index in wanted:
            cpu, now, layout, fields = rows[index]
            while when <= now:
                self._drain(reading)
                reading += 1
                when += self._step
                if reading == len(self._rings):
                    reading, when = 0, when + self._poll
            ring = self._rings[cpu]
            before = ring.produced - ring.consumed
            self._write(ring, index)
            if layout.header in _ARRIVES:
                self._current[cpu] = fields[1], fields[0]
            if before * 2 < ring.size <= 2 * (ring.produced - ring.consumed) and reading == 0:
                when = min(when, now + self._react)
        for cpu in range(len(self._rings)):
            self._drain(cpu)
        return Capture(rows, self._order, frozenset(self._lost))

    def _write(self, ring: Ring, index: int) -> None:
        cpu, now, layout, _ = self._rows[index]
        size = layout.size_bytes
        needed, to_wrap = 0, ring.to_wrap()
        for piece in (LOST.size_bytes, size) if ring.dropped else (size,):
            if piece > to_wrap:
                needed, to_wrap = needed + to_wrap, ring.size
            needed, to_wrap = needed + piece, (to_wrap - piece) or ring.size
        if needed > ring.free():
            if not ring.dropped:
                ring.first_dropped = now
            ring.dropped += 1
            self._lost.add(index)
            return
        if ring.dropped:
            domain, vcpu = self._current[cpu]
            marker = (cpu, now, LOST, (ring.dropped, domain, vcpu, ring.first_dropped))
            self._put(ring, self._add(marker), LOST.size_bytes)
            ring.dropped = 0
        self._put(ring, index, size)

    def _put(self, ring: Ring, index: int, size: int) -> None:
        cpu, now, _, _ = self._rows[index]
        room = ring.to_wrap()
        if size > room:
            filler = WRAPS[room]
            ring.rows.append(self._add((cpu, now, filler, (0,) * (filler.header >> 28 & 7))))
            ring.produced += room
        ring.rows.append(index)
        ring.produced += size

    def _drain(self, cpu: int) -> None:
        ring = self._rings[cpu]
        if ring.rows:
            unread = ring.produced - ring.consumed
            self._order.append(self._add((cpu, 0, WINDOW, (cpu, unread))))
            self._order += ring.rows
            ring.rows = []
            ring.consumed = ring.produced

    def _add(self, row: Row) -> int:
        self._rows.append(row)
        return len(self._rows) - 1

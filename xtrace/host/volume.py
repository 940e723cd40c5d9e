"""How much each CPU wrote, of which classes: every record counts, only the headers of windows do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from xtrace.contract import frame
from xtrace.host.account import Account, Ground
from xtrace.host.counts import Counts, rate
from xtrace.parsers.container import CPU_CHANGE_HEADER
from xtrace.parsers.event import CLASSES, class_of
from xtrace.states import cpu_of
from xtrace.words import RECORD_WORDS

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.decode import Batch
    from xtrace.host.walk import Chunk
    from xtrace.parsers.event import Event

ALL: Final = ""
"""The part that is all of a class."""

_SUBCLASSES: Final = {(0x002, 8): "verbose", (0x008, 2): "handler", (0x008, 4): "emul"}
"""Parts by class bits and subclass (xen/include/public/trace.h)."""
_TURNS: Final = {1: "vmentry", 2: "vmexit", 3: "vmexit"}
"""Of the subclass HVM_ENTRYEXIT by the low byte of the id."""
_ENTRYEXIT: Final = (0x008, 1)


@dataclass(frozen=True, slots=True)
class Written:
    """Records of one class, or of one part of it, that a CPU wrote.

    trace_class    gen, sched, dom0op, hvm, mem, pv, shadow, hw, guest; unknown: its bits name none or several
    part           of sched: verbose; of hvm: vmentry, vmexit, handler, emul; empty: all of the class
    records_per_s  None in no time, as bytes_per_s
    """

    trace_class: str
    part: str
    records: int
    size_bytes: int
    records_per_s: float | None
    bytes_per_s: float | None


@dataclass(frozen=True, slots=True)
class CpuVolume:
    """What one CPU wrote.

    classes  in the order of the classes' bits, each before its parts
    """

    cpu: int
    records: int
    size_bytes: int
    records_per_s: float | None
    bytes_per_s: float | None
    classes: tuple[Written, ...]


@dataclass(frozen=True, slots=True)
class Volume:
    """What was written in a span of time; rates are over all of it.

    classes  of all CPUs together
    cpus     by number
    """

    records: int
    size_bytes: int
    records_per_s: float | None
    bytes_per_s: float | None
    classes: tuple[Written, ...]
    cpus: tuple[CpuVolume, ...]

    def df_cpus(self) -> pd.DataFrame:
        """One row a CPU, class and part: cpu, trace_class, part, records, size_bytes, records_per_s, bytes_per_s."""
        dtypes = {"cpu": "uint16", "trace_class": "str", "part": "str", "records": "int64", "size_bytes": "int64"}
        dtypes |= {"records_per_s": "float64", "bytes_per_s": "float64"}
        names = list(dtypes)[1:]
        rows = (
            {"cpu": cpu.cpu, **{name: getattr(one, name) for name in names}} for cpu in self.cpus for one in cpu.classes
        )
        return frame(rows, dtypes)


class VolumeAccount(Account[Volume]):
    """Counts header words by CPU: they tell class and size."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._headers = Counts(ground.windows)

    @staticmethod
    def wants(event: Event) -> bool:  # noqa: ARG004
        """None: batches will do."""
        return False

    def feed(self, chunk: Chunk) -> None:
        """Nothing comes."""

    def read(self, batch: Batch) -> None:
        """The next records."""
        cpu = cpu_of(batch.track).astype(np.int64)
        rows = np.flatnonzero((batch.header != CPU_CHANGE_HEADER) & self.ground.on(cpu))
        ns = np.clip(self.ground.clock.to_ns(batch.tsc[rows]), 0, self.ground.last_ns)
        # A CPU's records before its first timestamp are as early as can be.
        ns[batch.tsc[rows] == 0] = 0
        self._headers.at(cpu[rows] << 32 | batch.header[rows], ns)

    def found(self, window: int) -> Volume:
        """Bytes and records, in a window."""
        begin, end = self.ground.windows.span(window)
        # Over the last record there is a ns that is no time.
        span_ns = min(end, self.ground.last_ns) - begin
        totals: dict[int, dict[tuple[str, str], list[int]]] = {}
        for key, count in self._headers.of(window).items():
            header = key & 0xFFFF_FFFF
            for place in _places(header):
                held = totals.setdefault(key >> 32, {}).setdefault(place, [0, 0])
                held[0] += count
                held[1] += count * 4 * int(RECORD_WORDS[header >> 28])
        together: dict[tuple[str, str], list[int]] = {}
        for parts in totals.values():
            for place, counts in parts.items():
                held = together.setdefault(place, [0, 0])
                held[0] += counts[0]
                held[1] += counts[1]
        cpus = (CpuVolume(cpu, *_summed(parts, span_ns)) for cpu, parts in sorted(totals.items()))
        return Volume(*_summed(together, span_ns), tuple(cpus))


def _places(header: int) -> list[tuple[str, str]]:
    """Class, and class and part, of records with this header word."""
    event_id = header & 0x0FFF_FFFF
    trace_class = class_of(event_id).lower()
    kind = event_id >> 16, event_id >> 12 & 0xF
    part = _TURNS.get(event_id & 0xFF, ALL) if kind == _ENTRYEXIT else _SUBCLASSES.get(kind, ALL)
    return [(trace_class, ALL)] if part == ALL else [(trace_class, ALL), (trace_class, part)]


_CLASSES: Final = [*(name.lower() for name in CLASSES.values()), "unknown"]
_PARTS: Final = [ALL, "verbose", "vmentry", "vmexit", "handler", "emul"]


def _summed(
    parts: dict[tuple[str, str], list[int]], span_ns: int
) -> tuple[int, int, float | None, float | None, tuple[Written, ...]]:
    order = sorted(parts, key=lambda place: (_CLASSES.index(place[0]), _PARTS.index(place[1])))
    rows = tuple(Written(*place, *parts[place], *(rate(one, span_ns) for one in parts[place])) for place in order)
    records, size = (sum(counts[at] for place, counts in parts.items() if place[1] == ALL) for at in (0, 1))
    return records, size, rate(records, span_ns), rate(size, span_ns), rows

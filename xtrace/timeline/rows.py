"""Rows of the picture, made of tracks.

A row may need several tracks: slices on one track nest or are apart, and what crosses goes to another track of the same
name, which viewers show as one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from xtrace.timeline.marks import Begin, End, Instant, Mark, Piece, Track

MAX_LANES: Final = 16
"""Tracks of one row. Interrupts in interrupts need two or three; only a damaged trace has slices that all cross."""


class Row:
    """One row of the picture. Marks go to `out`, those of each track in order of time."""

    def __init__(self, out: list[Mark], new_track: Callable[[], Track]) -> None:
        self._out = out
        self._new_track = new_track
        self._tracks: list[Track] = []
        self._open: list[list[int]] = []
        self._latest: list[int] = []

    def slice(self, piece: Piece, inside: Sequence[Piece] = ()) -> None:
        """Add a slice, on the first track where it nests, and what is inside it, one behind the other.

        Where no track has room for it, it becomes an instant.
        """
        lane = self._place(piece.begin_ns, piece.end_ns)
        if lane is None:
            flows = sum((part.flows for part in inside), piece.flows)
            args = {**piece.args, "duration_ns": piece.end_ns - piece.begin_ns}
            self.instant(piece._replace(args=args, flows=flows))
            return
        self._begin(lane, piece)
        depth = len(self._open[lane])
        for part in inside:
            self._end_until(lane, part.begin_ns, depth)
            self._begin(lane, part)

    def instant(self, piece: Piece) -> None:
        """Add an instant."""
        lane = self._place(piece.begin_ns, piece.begin_ns)
        # Where there is no room, one is out of order, which it can bear: it holds nothing.
        lane = MAX_LANES - 1 if lane is None else lane
        self._latest[lane] = max(self._latest[lane], piece.begin_ns)
        begin_ns, _, name, args, flows, arrives = piece
        self._out.append(Instant(self._tracks[lane], begin_ns, name, args, flows, arrives))

    def close(self) -> None:
        """End what has not ended."""
        for track, ends in zip(self._tracks, self._open, strict=True):
            while ends:
                self._out.append(End(track, ends.pop()))

    def _place(self, begin_ns: int, end_ns: int) -> int | None:
        """The first track where a slice nests; None where all that may be are in use."""
        for lane, latest in enumerate(self._latest):
            if begin_ns >= latest:
                self._end_until(lane, begin_ns)
                ends = self._open[lane]
                if not ends or ends[-1] >= end_ns:
                    return lane
        if len(self._tracks) == MAX_LANES:
            return None
        self._tracks.append(self._new_track())
        self._open.append([])
        self._latest.append(begin_ns)
        return len(self._tracks) - 1

    def _begin(self, lane: int, piece: Piece) -> None:
        begin_ns, end_ns, name, args, flows, arrives = piece
        self._open[lane].append(end_ns)
        self._latest[lane] = begin_ns
        self._out.append(Begin(self._tracks[lane], begin_ns, name, args, flows, arrives))

    def _end_until(self, lane: int, ns: int, depth: int = 0) -> None:
        """End what has ended by then, but not the outermost `depth`."""
        ends = self._open[lane]
        while len(ends) > depth and ends[-1] <= ns:
            self._latest[lane] = ends.pop()
            self._out.append(End(self._tracks[lane], self._latest[lane]))


class Host:
    """The tracks of a host, each made when it is first used, and the marks made so far."""

    def __init__(self) -> None:
        self.out: list[Mark] = []
        self._tracks: dict[tuple[object, ...], Track] = {}
        self._rows: dict[tuple[object, ...], Row] = {}
        self._count = 0

    def take(self) -> list[Mark]:
        """The marks made since the last time."""
        marks = self.out.copy()
        self.out.clear()
        return marks

    def close(self) -> list[Mark]:
        """End what has not ended; the marks made since the last time."""
        for row in self._rows.values():
            row.close()
        return self.take()

    def counter(self, rank: int, name: str, meaning: str) -> Track:
        """A counter of the whole host."""
        return self._new(self._fixed("Calls and flushes", 0), name, rank, meaning, counter=True)

    def cpu(self, cpu: int, kind: CpuRow) -> Row:
        """A row of a CPU."""
        key = ("cpu", cpu, kind)
        if key not in self._rows:
            parent = self._fixed("CPUs", 1, cpu)
            self._rows[key] = Row(self.out, lambda: self._new(parent, kind.title, kind.rank, kind.meaning))
        return self._rows[key]

    def vcpu(self, domain: int, vcpu: int) -> Row:
        """The row of a vCPU."""
        key = ("vcpu", domain, vcpu)
        if key not in self._rows:
            parent = self._fixed(f"Domain {domain}", 2 + domain)
            self._rows[key] = Row(self.out, lambda: self._new(parent, f"d{domain}v{vcpu}", vcpu, VCPU_MEANING))
        return self._rows[key]

    def _fixed(self, root: str, rank: int, cpu: int | None = None) -> Track:
        key = (root, cpu)
        if key not in self._tracks:
            if cpu is None:
                self._tracks[key] = self._new(None, root, rank)
            else:
                self._tracks[key] = self._new(self._fixed(root, rank), f"CPU {cpu}", cpu)
        return self._tracks[key]

    def _new(self, parent: Track | None, name: str, rank: int, meaning: str = "", *, counter: bool = False) -> Track:
        self._count += 1
        return Track(self._count, parent, name, rank, meaning, counter)


class CpuRow(NamedTuple):
    """A kind of row that each CPU may have."""

    rank: int
    title: str
    meaning: str


RUNS: Final = CpuRow(0, "runs", "The vCPU that runs, by the scheduler's records.")
EXITS: Final = CpuRow(1, "VM exits", "From a VM exit to the next VM entry, or until the vCPU left the CPU.")
INTERRUPTS: Final = CpuRow(2, "interrupts", "Host interrupts that records tell of; many leave none.")
REQUESTS: Final = CpuRow(3, "requests", "Calls and flushes that this CPU asked for, START to DONE, with their phases.")
FUNCTIONS: Final = CpuRow(4, "functions run", "What this CPU ran for a call or a flush, ENTER to EXIT.")
LOSSES: Final = CpuRow(5, "lost records", "Xen had no room for records: what happened here is not known.")
VCPU_MEANING: Final = "The state of the vCPU, by the scheduler's records."

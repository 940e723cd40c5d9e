"""What each CPU did on a timeline, from its records: who ran, VM exits, where records were lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from xtrace.context import LOST, NOBODY, header_of, vcpu_name
from xtrace.grouping import rows_by
from xtrace.parsers import hvm
from xtrace.parsers.vectors import exit_name
from xtrace.parsers.vendor import Vendor
from xtrace.states import TRACK_BITS, cpu_of
from xtrace.timeline.marks import Address, Arg, Piece, Scope
from xtrace.timeline.rows import EXITS, LOSSES, RUNS, Host

if TYPE_CHECKING:
    from xtrace.decode import Batch
    from xtrace.trace import Trace

_ENTRIES: Final = [header_of(event) for event in hvm.ENTRY_EXIT if event.name == "TRC_HVM_VMENTRY"]
_EXITS: Final = [header_of(event) for event in hvm.ENTRY_EXIT if event.name != "TRC_HVM_VMENTRY"]
_VENDORS: Final[tuple[Vendor | None, ...]] = (None, "vmx", "svm")
_EXIT, _ENTRY, _LEFT, _GAP = range(4)

Cycles = NDArray[np.uint64]


class _Records(NamedTuple):
    """Records by track, each in order; of each track the last one fed before comes first.

    source  row of the batch, −1 for those fed before
    domain  who was there when it was written; vcpu likewise
    gap     of a marker of lost records: when they began to be lost; else 0
    """

    track: NDArray[np.int32]
    source: NDArray[np.int64]
    tsc: Cycles
    domain: NDArray[np.int32]
    vcpu: NDArray[np.int32]
    gap: Cycles


class _Arrivals(NamedTuple):
    """Someone, or nobody, comes to a CPU; by track, each in order.

    until  when the one before was gone
    """

    track: NDArray[np.int32]
    tsc: Cycles
    domain: NDArray[np.int32]
    vcpu: NDArray[np.int32]
    until: Cycles


class _Points(NamedTuple):
    """VM exits, and what ends the stretch behind one; by track, each in order.

    kind    _EXIT, _ENTRY, _LEFT (the vCPU left the CPU) or _GAP (lost records)
    vendor  of an exit, a place in _VENDORS; code, rip and domain are of exits, too
    """

    track: NDArray[np.int32]
    kind: NDArray[np.int8]
    tsc: Cycles
    domain: NDArray[np.int32]
    code: Cycles
    rip: Cycles
    vendor: NDArray[np.int8]


_ByTrack = TypeVar("_ByTrack", _Records, _Arrivals, _Points)


class Cpus:
    """Keeps of each CPU its last record, who is there, and the VM exit that it is in."""

    def __init__(self, trace: Trace, scope: Scope, host: Host) -> None:
        self._trace, self._scope, self._host = trace, scope, host
        track, cycles, small = np.zeros(0, np.int32), np.zeros(0, np.uint64), np.zeros(0, np.int8)
        self._records = _Records(track, track.astype(np.int64), cycles, track, track, cycles)
        self._arrivals = _Arrivals(track, cycles, track, track, cycles)
        self._points = _Points(track, small, cycles, track, cycles, cycles, small)
        self._end_tsc: dict[int, int] = {}

    def feed(self, batch: Batch) -> None:
        """Add the marks of these records."""
        for capture, rows in rows_by(batch.track >> TRACK_BITS):
            self._end_tsc[capture] = max(self._end_tsc.get(capture, 0), int(batch.tsc[rows].max()))
        rows = np.flatnonzero(self._scope.has_cpu(self._trace.cpu_of(batch)) & (batch.tsc > 0))
        records = self._sequence(batch, rows)
        self._show_losses(batch, records)
        at, arrivals = _arrivals(records)
        points = self._found_points(batch, records, at)
        last = np.append(records.track[1:] != records.track[:-1], True)[: len(records.track)]
        self._records = _taken(records, last)._replace(source=np.full(last.sum(), -1))
        self._advance(arrivals, points)

    def finish(self) -> None:
        """Add what nothing ended before the trace did."""
        track, end = self._arrivals.track, self._ends(self._arrivals.track)
        nobody = np.full(len(track), NOBODY, np.int32)
        self._show_stays(*_joined(self._arrivals, _Arrivals(track, end, nobody, nobody, end)), goes_on=True)
        track, end = self._points.track, self._ends(self._points.track)
        none, kind = np.zeros(len(track), np.uint64), np.full(len(track), _LEFT, np.int8)
        behind = _Points(track, kind, end, none.astype(np.int32), none, none, kind)
        self._show_exits(*_joined(self._points, behind), goes_on=True)

    def _ends(self, track: NDArray[np.int32]) -> Cycles:
        """The last timestamp of the capture that each track is in."""
        return np.array([self._end_tsc[capture] for capture in (track >> TRACK_BITS).tolist()], np.uint64)

    def _sequence(self, batch: Batch, rows: NDArray[np.int64]) -> _Records:
        gap = np.zeros(len(rows), np.uint64)
        lost = np.flatnonzero(batch.header[rows] == LOST)
        part = batch.take(rows[lost])
        for group in self._trace.groups(part):
            gap[lost[group.rows]] = np.maximum(group.columns["first_tsc"], 1)
        found = _Records(batch.track[rows], rows, batch.tsc[rows], batch.domain[rows], batch.vcpu[rows], gap)
        records, _ = _joined(self._records, found)
        # What was lost was lost after the record before it, and before its marker, whatever the marker says.
        before = np.append(np.uint64(0), records.tsc[:-1])[: len(records.tsc)]
        before[~_follows(records.track)] = 0
        gap = np.where(records.gap > 0, np.clip(records.gap, before, np.maximum(before, records.tsc)), 0)
        return records._replace(gap=gap.astype(np.uint64))

    def _found_points(self, batch: Batch, records: _Records, at: NDArray[np.int64]) -> _Points:
        """at: which of the records are the first behind a change of who is there."""
        # The place −1 is the last: records of before are no points again.
        header = np.append(batch.header, np.uint32(0))[records.source]
        exits, entries = (np.flatnonzero(np.isin(header, some)) for some in (_EXITS, _ENTRIES))
        code, rip, vendor = self._exit_fields(batch, records.source[exits])
        changed = at[_follows(records.track)[at]]
        # Who was not known did not leave.
        changed = changed[(records.domain[changed - 1] != NOBODY) | (records.gap[changed - 1] > 0)]
        gap = records.gap[changed - 1]
        kinds = np.concatenate(
            (
                np.full(len(exits), _EXIT),
                np.full(len(entries), _ENTRY),
                np.where(gap > 0, _GAP, _LEFT),
            )
        )
        rows = np.concatenate((exits, entries, changed))
        # A change takes effect with the record before the one that shows it.
        tsc = np.concatenate((records.tsc[exits], records.tsc[entries], records.tsc[changed - 1]))
        none = np.zeros(len(entries) + len(changed), np.uint64)
        found = _Points(
            records.track[rows],
            kinds.astype(np.int8),
            tsc,
            records.domain[rows],
            np.concatenate((code, none)),
            np.concatenate((rip, none)),
            np.concatenate((vendor, none.astype(np.int8))),
        )
        return _taken(found, np.argsort(np.concatenate((2 * exits, 2 * entries, 2 * changed - 1)), kind="stable"))

    def _exit_fields(self, batch: Batch, rows: NDArray[np.int64]) -> tuple[Cycles, Cycles, NDArray[np.int8]]:
        code, rip = np.zeros((2, len(rows)), np.uint64)
        vendor = np.zeros(len(rows), np.int8)
        for group in self._trace.groups(batch.take(rows)):
            values = list(group.columns.values())
            # Reason or code, then the guest's instruction pointer, by whatever names.
            code[group.rows], rip[group.rows] = values[0], values[1]
            vendor[group.rows] = _VENDORS.index(group.event.vendor or self._trace.dialect.vendor)
        return code, rip, vendor

    def _advance(self, arrivals: _Arrivals, points: _Points) -> None:
        arrivals, ended = _joined(self._arrivals, arrivals)
        self._arrivals = _taken(arrivals, ~ended)
        self._show_stays(arrivals, ended)
        points, ended = _joined(self._points, points)
        self._points = _taken(points, ~ended & (points.kind == _EXIT))
        self._show_exits(points, ended)

    def _show_stays(self, found: _Arrivals, ended: NDArray[np.bool_], *, goes_on: bool = False) -> None:
        to_ns = self._trace.clock.to_ns
        begin, end = to_ns(found.tsc), np.maximum(to_ns(np.append(found.until[1:], np.uint64(0))), to_ns(found.tsc))
        ended = ended & (found.domain != NOBODY) & self._scope.has_domain(found.domain) & self._scope.meets(begin, end)
        columns = (cpu_of(found.track), begin, end, found.domain, found.vcpu)
        for cpu, first, last, domain, vcpu in zip(*(values[ended].tolist() for values in columns), strict=True):
            piece = self._scope.cut(Piece(first, last, vcpu_name(domain, vcpu), {}), goes_on=goes_on)
            self._host.cpu(cpu, RUNS).slice(piece)

    def _show_exits(self, found: _Points, ended: NDArray[np.bool_], *, goes_on: bool = False) -> None:
        begin = self._trace.clock.to_ns(found.tsc)
        end, by = np.maximum(np.append(begin[1:], 0), begin), np.append(found.kind[1:], _GAP)
        ended = ended & (found.kind == _EXIT) & self._scope.has_domain(found.domain)
        # Where records are missing its end is not known.
        end = np.where((by == _ENTRY) | (by == _LEFT), end, begin)
        ended &= self._scope.meets(begin, end)
        columns = (cpu_of(found.track), begin, end, by, found.code, found.rip, found.vendor)
        names: dict[tuple[int, int], str] = {}
        for cpu, first, last, how, code, rip, vendor in zip(*(one[ended].tolist() for one in columns), strict=True):
            if (code, vendor) not in names:
                names[code, vendor] = exit_name(code, _VENDORS[vendor])
            args: dict[str, Arg] = {"code": Address(code), "rip": Address(rip)}
            row = self._host.cpu(cpu, EXITS)
            if how not in (_ENTRY, _LEFT):
                row.instant(Piece(first, first, names[code, vendor], args | {"complete": False}))
                continue
            if how == _LEFT and not goes_on:
                args["left_cpu"] = True
            row.slice(self._scope.cut(Piece(first, last, names[code, vendor], args), goes_on=goes_on))

    def _show_losses(self, batch: Batch, records: _Records) -> None:
        to_ns = self._trace.clock.to_ns
        rows = np.flatnonzero((records.gap > 0) & (records.source >= 0))
        begin, end = to_ns(records.gap[rows]), to_ns(records.tsc[rows])
        count = np.zeros(len(rows), np.int64)
        for group in self._trace.groups(batch.take(records.source[rows])):
            count[group.rows] = group.columns["lost"]
        shown = self._scope.meets(begin, end)
        columns = (cpu_of(records.track[rows]), begin, end, count)
        for cpu, first, last, lost in zip(*(values[shown].tolist() for values in columns), strict=True):
            piece = Piece(first, last, f"{lost} records lost", {"records": lost})
            self._host.cpu(cpu, LOSSES).slice(self._scope.cut(piece))


def _arrivals(records: _Records) -> tuple[NDArray[np.int64], _Arrivals]:
    """Where in the records someone else is there than before, or records were lost, and who it is."""
    follows = _follows(records.track)
    before = np.maximum(np.arange(len(follows)) - 1, 0)
    other = (records.domain != records.domain[before]) | (records.vcpu != records.vcpu[before])
    known = (records.source >= 0) & ~follows
    at = np.flatnonzero(follows & (other | (records.gap[before] > 0)) | known)
    cause = np.where(follows[at], at - 1, at)
    tsc, gap = records.tsc[cause], np.where(follows[at], records.gap[cause], 0)
    until = np.where(gap > 0, gap, tsc)
    return at, _Arrivals(records.track[at], tsc, records.domain[at], records.vcpu[at], until)


def _follows(track: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which rows have one of the same track before them."""
    return np.append(False, track[1:] == track[:-1])[: len(track)]


def _taken(some: _ByTrack, rows: NDArray[np.integer] | NDArray[np.bool_]) -> _ByTrack:
    make: Any = type(some)
    found: _ByTrack = make(*(values[rows] for values in some))
    return found


def _joined(before: _ByTrack, behind: _ByTrack) -> tuple[_ByTrack, NDArray[np.bool_]]:
    """Both, by track, and which rows have one of the same track behind them."""
    make: Any = type(before)
    both: _ByTrack = make(*(np.concatenate(pair) for pair in zip(before, behind, strict=True)))  # type: ignore[arg-type]
    # Sorting 16-bit numbers takes linear time.
    narrow = both.track.astype(np.uint16) if both.track.max(initial=0) < 1 << 16 else both.track
    both = _taken(both, np.argsort(narrow, kind="stable"))
    return both, np.append(both.track[1:] == both.track[:-1], False)[: len(both.track)]

"""Records as the lines of `xenalyze -a`, in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xtrace.context import LOST
from xtrace.decode import Batch, Group
from xtrace.parsers.event import Event, class_of
from xtrace.reports.xenalyze import hvm, hw, loss, mem, pv, sched, shadow
from xtrace.reports.xenalyze.arrivals import AT_ONCE, Arrivals
from xtrace.reports.xenalyze.host import Host, Pcpu
from xtrace.reports.xenalyze.line import Handler, Line, by_event, unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xtrace.selection import Selection
    from xtrace.trace import Trace

LINES: Final = by_event(sched.LINES, mem.LINES, hw.LINES, hvm.LINES, pv.LINES, shadow.LINES)
SILENT: Final = frozenset((*sched.SILENT, *mem.SILENT))
UNKNOWN: Final = Line(
    "", "]%(words)s", {"words": lambda group, _: [unknown(group.event.event_id, row) for row in group.payload.tolist()]}
)
"""An event that xenalyze does not know."""
NOTHING: Final = Line("", " ")
LINES_KEPT: Final = 1 << 12
NS_PER_S: Final = 1_000_000_000
NO_TIME: Final = " " * 14

Item = tuple[int, str, str, Handler | None, tuple[Any, ...] | None]
"""CPU, mark with time, text, handler and what it is told; no mark where the record is not shown."""


def lines(
    trace: Trace,
    selection: Selection,
    events: Callable[[Event], bool] | None = None,
    domains: frozenset[int] | None = None,
) -> Iterator[list[str]]:
    """The lines of the selected records, as batches; some hold several lines."""
    host = Host(trace.dialect.vendor, trace.clock)
    arrivals, merger = Arrivals(), trace.order()
    for batch, rows in trace.batches(selection):
        chosen = np.zeros(len(batch.starts), np.bool_)
        chosen[rows] = True
        if domains is not None:
            chosen &= np.isin(batch.domain, np.array(sorted(domains)))
        # A dataset keeps no windows; there all CPUs are in the map from the start.
        in_order = batch.offset is None
        whole, items, places = _with_losses(batch, _items(trace, batch, chosen, events), in_order=in_order)
        for row, number in [(AT_ONCE, cpu) for cpu in sorted(trace.survey.cpus)] if in_order else arrivals.of(batch):
            if row == AT_ONCE:
                host.activate(number)
            else:
                place = places[row]
                items[place] = _arriving(items[place], number, int(trace.cpu_of(batch)[row]))
        yield _told(host, merger.feed(whole, items).tolist())
    yield _told(host, merger.finish().tolist())


def _told(host: Host, items: list[Item]) -> list[str]:
    """The lines of items whose turn has come."""
    shown = []
    heads, cpus = host.heads, host.cpus
    for number, mark, text, handler, record in items:
        head = heads.get(number)
        if head is None:
            head = host.head(cpus.get(number) or host.activate(number))
        if handler is None:
            shown.append(mark + head + text)
            continue
        line = handler(host, cpus[number], mark + head, text, record or ())
        if mark and line is not None:
            shown.append(line)
    return shown


def _items(
    trace: Trace, batch: Batch, chosen: NDArray[np.bool_], events: Callable[[Event], bool] | None
) -> NDArray[Any]:
    items = np.full(len(batch.starts), None, object)

    def wanted(event: Event) -> bool:
        return (events is None or events(event)) or _matters(event)

    for group in trace.groups(batch, wanted):
        line = line_of(group.event.name, group.event.event_id, frozenset(group.columns))
        mine = chosen[group.rows] if events is None or events(group.event) else np.zeros(len(group.rows), np.bool_)
        if line is NOTHING:
            continue
        if line.handler is None:
            if not mine.any():
                continue
            shown = group if mine.all() else _some(group, mine)
            mine = mine[mine]
        else:
            shown = group
        part = batch.take(shown.rows)
        marks, texts = _shown(trace, line, shown, part, mine)
        records: Any = repeat(None)
        if line.handler is not None:
            records = zip(
                repeat(shown.event.event_id),
                part.tsc.tolist(),
                shown.payload.tolist(),
                *line.needed(shown, trace),
                strict=False,
            )
        made = zip(trace.cpu_of(part).tolist(), marks, texts, repeat(line.handler), records, strict=False)
        items[shown.rows] = np.fromiter(made, object, len(shown.rows))
    return items


def _some(group: Group, chosen: NDArray[np.bool_]) -> Group:
    columns = {name: values[chosen] for name, values in group.columns.items()}
    return Group(group.event, group.rows[chosen], group.payload[chosen], columns)


def _shown(
    trace: Trace, line: Line, group: Group, part: Batch, chosen: NDArray[np.bool_]
) -> tuple[list[str], list[str]]:
    """Mark with time, and text; both empty for records that are not shown."""
    if not chosen.any():
        return [""] * len(chosen), [""] * len(chosen)
    seconds, ns = np.divmod(trace.clock.to_ns(part.tsc), NS_PER_S)
    marks = [*map(f"{line.mark}%3d.%09d ".__mod__, zip(seconds.tolist(), ns.tolist(), strict=True))]
    untimed = (part.tsc == 0) | (seconds < 0) | ((seconds == 0) & (ns == 0))
    for row in np.flatnonzero(untimed).tolist():
        marks[row] = f"{line.mark}{NO_TIME} "
    for row in np.flatnonzero(~chosen).tolist():
        marks[row] = ""
    return marks, line.texts(group, trace)


def _matters(event: Event) -> bool:
    """Whether records of an event matter even where they are not shown."""
    told = any(line.handler for line in LINES.get(event.name, ()))
    return told or event.trace_class in {"HVM", "PV", "SHADOW"}


@lru_cache(maxsize=LINES_KEPT)
def line_of(name: str, number: int, fields: frozenset[str]) -> Line:
    """The line of records of this event, by name and id, with these fields."""
    kind = class_of(number)
    if name in SILENT:
        return NOTHING
    nested = kind == "HVM" and number & hvm.NESTED
    for line in () if nested else LINES.get(name, ()):
        if line.fits(fields):
            return line
    if kind == "PV":
        return pv.ANY
    if kind == "SHADOW":
        return shadow.ANY
    if kind == "HVM":
        return hvm.HANDLER if number >> 12 == hvm.HANDLER_EVENTS >> 12 else hvm.OTHER
    return UNKNOWN


def _arriving(item: Item | None, number: int, cpu: int) -> Item:
    """The item of a record once which is done a CPU has its place in the map."""
    _, mark, text, handler, record = item or (cpu, "", "", None, None)

    def handle(host: Host, on: Pcpu, prefix: str, text: str, record: tuple[Any, ...]) -> str | None:
        line = prefix + text if handler is None else handler(host, on, prefix, text, record)
        host.activate(number)
        return line

    return cpu, mark, text, handle, record


def _with_losses(batch: Batch, items: NDArray[Any], *, in_order: bool) -> tuple[Batch, NDArray[Any], NDArray[np.int64]]:
    """Markers of lost records twice: at the time of the first lost one, and at their own.

    in_order: the batch is in order of time, and the first of both has to be put in its place. Also returns where
    each record of the batch is now, markers where they end.
    """
    rows = np.arange(len(batch.starts))
    at = np.flatnonzero(batch.header == LOST)
    if not len(at):
        return batch, items, rows
    first = batch.payload(at, LOST)[:, 2:].astype(np.uint64)
    begins = first[:, 0] | first[:, 1] << np.uint64(32)
    earlier = [_before(batch, row) for row in at.tolist()]
    floor = np.array([batch.order[row] if row >= 0 else 0 for row in earlier], np.uint64)
    begins = np.clip(begins, floor, batch.order[at])
    places = at
    if in_order:
        places = np.minimum(np.maximum(np.searchsorted(batch.order, begins, side="right"), np.array(earlier) + 1), at)
    doubled = np.insert(np.zeros(len(rows), np.bool_), places, True)
    index = np.insert(rows, places, at)
    whole, shown = batch.take(index), items[index]
    whole.order[doubled] = begins
    now = np.flatnonzero(~doubled)
    for row in now[at].tolist():
        shown[row] = (*shown[row][:3], loss.ends, shown[row][4])
    return whole, shown, now


def _before(batch: Batch, row: int) -> int:
    """The record before this one on its CPU, −1 for none."""
    found = np.flatnonzero(batch.track[:row] == batch.track[row])
    return int(found[-1]) if len(found) else -1

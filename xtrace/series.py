"""Sections of an analysis as time series: the same facts for every interval, and all of them as one long table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa

from xtrace.context import domain_name
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.episodes.tables import column
from xtrace.host.tally import Spread
from xtrace.host.windows import Windows
from xtrace.questions import NAMES as QUESTIONS
from xtrace.selection import Selection
from xtrace.summary import Chosen, distribution

if TYPE_CHECKING:
    from xtrace.host.summary import HostSeries
    from xtrace.trace import Trace

SERIES: Final = pa.schema(
    [
        column("begin_ns", pa.int64(), "begin of the interval, ns since the trace's first timestamp"),
        column("end_ns", pa.int64(), "its end"),
        column("section", pa.string(), "section of the analysis, as --section names it"),
        column("table", pa.string(), "the table in it; empty for figures of the whole section"),
        column("domain", pa.uint16(), "domain that the row is of; 32767 is idle", nullable=True),
        column("vcpu", pa.uint16(), "its vCPU", nullable=True),
        column("cpu", pa.uint16(), "pCPU that the row is of", nullable=True),
        column("name", pa.string(), "what else the row is of: a state, an exit reason, an address, …; empty: nothing"),
        column("measure", pa.string(), "what was measured; its end is its unit"),
        column("value", pa.float64(), "how much"),
    ]
)

NUMBERED: Final = frozenset({"vector", "irq", "order", "address", "cr3", "c_state"})
"""Fields that say what a row is of, though they are numbers."""
HEXADECIMAL: Final = frozenset({"address", "cr3", "vector"})
DOMAINS: Final = {"by_domain": "by", "for_domain": "for"}
"""Fields that name a domain as one of two."""
NAMED: Final = frozenset({"reason", "number", "type"})
"""Numbers of which a text beside them is the name."""
PLACES: Final = frozenset({"domain", "vcpu", "cpu"})


@dataclass(frozen=True, slots=True)
class Episodes:
    """Calls or flushes that started in an interval; times in ns are of the complete ones.

    total_ns, lock_wait_ns, delivery_ns, execution_ns  mean, p50, p90, p99 and max by name
    """

    count: int
    complete: int
    targets: int
    sum_ns: int
    total_ns: dict[str, float | None]
    lock_wait_ns: dict[str, float | None]
    delivery_ns: dict[str, float | None]
    execution_ns: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Interval:
    """A span of time and what the sections say of it, by name; episodes count where they start."""

    begin_ns: int
    end_ns: int
    sections: Mapping[str, Any]


def intervals(
    trace: Trace, selection: Selection, names: Collection[str], every_ns: int, host: HostSeries | None = None
) -> tuple[Interval, ...]:
    """What each interval of the selection holds of calls, flushes and questions of these names, and of the host.

    names: none for calls and flushes. host: its summary with its intervals, None where it is not wanted.
    """
    windows = Windows.of(selection, trace.duration_ns, every_ns)
    asked = [name for name in QUESTIONS if name in names]
    found = []
    for number in range(1, windows.intervals + 1):
        begin, end = windows.span(number)
        part = Selection(selection.cpus, begin, end)
        sections: dict[str, Any] = {
            nouns: _episodes(trace, part, kind) for kind, nouns in KIND_NOUNS.items() if nouns in names or not names
        }
        if asked:
            answers = trace.answers(part, log_dirty="log-dirty" in asked)
            sections |= {name: getattr(answers, name.replace("-", "_")) for name in asked}
        if host is not None:
            sections |= dict(host.intervals[number - 1].parts())
        found.append(Interval(begin, end, sections))
    return tuple(found)


def _episodes(trace: Trace, part: Selection, kind: str) -> Episodes:
    chosen = Chosen.of(trace, part, kind)
    total = chosen.episode("total_ns")
    return Episodes(
        chosen.count,
        len(chosen.complete),
        len(chosen.targets),
        int(total.sum()),
        distribution(total),
        distribution(chosen.episode("lock_wait_ns")),
        distribution(chosen.delivery("delivery_ns")),
        distribution(chosen.delivery("execution_ns")),
    )


class Subject(NamedTuple):
    """What a figure is of; fields as the columns of SERIES."""

    table: str = ""
    domain: int | None = None
    vcpu: int | None = None
    cpu: int | None = None
    name: str = ""

    def within(self, field: str) -> Subject:
        """The same, in a table of that name in its own."""
        return self._replace(table=f"{self.table}.{field}".strip("."))

    def called(self, name: str) -> Subject:
        """The same, with one name more."""
        return self._replace(name=f"{self.name} {name}".strip())


NOTHING: Final = Subject()


def figures(value: Any, of: Subject = NOTHING, measure: str = "") -> Iterator[tuple[Subject, str, float]]:
    """All numbers in facts, which are dataclasses, mappings and tuples of such: what each is of, its name, itself.

    In rows of tables a text, or a number called as in PLACES or NUMBERED, says what the others beside it are of.
    """
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, int | float):
        yield of, measure, float(value)
    elif is_dataclass(value):
        yield from _of_fields(value, of, measure)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from figures(one, of.called(str(key)), measure)
    elif isinstance(value, tuple):
        for one in value:
            yield from figures(one, of, measure)


def _of_fields(value: Any, of: Subject, measure: str) -> Iterator[tuple[Subject, str, float]]:
    held = {one.name: getattr(value, one.name) for one in fields(value)}
    if isinstance(value, Spread):
        for name, part in held.items():
            yield from figures(part, of, f"{measure.removesuffix('_ns')}_{name}")
        return
    if of.table:
        for name, part in held.items():
            of = _told(of, name, part)
    for name, part in held.items():
        if name not in _TELLING:
            yield from figures(part, of.within(name) if isinstance(part, tuple) else of, name)


_TELLING: Final = PLACES | NUMBERED | NAMED | DOMAINS.keys()


def _told(of: Subject, field: str, value: Any) -> Subject:
    """What is known of a subject when a field beside it says this."""
    if isinstance(value, bool) or value is None:
        return of
    if field in PLACES and isinstance(value, int):
        return Subject(**of._asdict() | {field: value})
    if field in DOMAINS:
        return of.called(f"{DOMAINS[field]} {domain_name(value)}")
    if field in NUMBERED and isinstance(value, int):
        return of.called(f"{field} {value:#x}" if field in HEXADECIMAL else f"{field} {value}")
    return of.called(value) if isinstance(value, str) else of


def series_table(found: Collection[Interval]) -> pa.Table:
    """All figures of all intervals, schema SERIES, in order of time and section."""
    columns: dict[str, list[Any]] = {name: [] for name in SERIES.names}
    for interval in found:
        for section, part in interval.sections.items():
            for of, measure, number in figures(part):
                row = (interval.begin_ns, interval.end_ns, section, *of, measure, number)
                for name, value in zip(SERIES.names, row, strict=True):
                    columns[name].append(value)
    return pa.table([pa.array(columns[field.name], field.type) for field in SERIES], schema=SERIES)


def document(found: Collection[Interval]) -> list[dict[str, Any]]:
    """The part `intervals` of the JSON document `xtrace.analysis/1` (docs/json.md)."""
    return [
        {"begin_ns": one.begin_ns, "end_ns": one.end_ns}
        | {name.replace("-", "_"): _plain(part) for name, part in one.sections.items()}
        for one in found
    ]


def _plain(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {name: _plain(one) for name, one in part.items()}
    return asdict(part) if is_dataclass(part) and not isinstance(part, type) else part

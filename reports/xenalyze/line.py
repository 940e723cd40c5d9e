"""How a record's line is declared: a mark, a text with fields, and what the record does to whoever it is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from xtrace.decode import Group

if TYPE_CHECKING:
    from xtrace.reports.xenalyze.host import Host, Pcpu
    from xtrace.trace import Trace

Values = Callable[[Group, "Trace"], Iterable[Any]]
"""Gives a value for each record of a group, where a field as it is will not do."""

Handler = Callable[["Host", "Pcpu", str, str, tuple[Any, ...]], str | None]
"""Told of a record in its turn: the host, the record's pCPU, mark with time, map and vCPU; the text behind them; and
(event id, cycles, payload words, needed fields…). Gives the line, or several; None for none."""

_FIELD: Final = re.compile(r"%\((\w+)\)")


@dataclass(frozen=True, slots=True)
class Line:
    """The line of one event.

    event    its name, as in `parsers`; of several lines for an event, the first whose fields a record has counts
    text     mark (blank, `]`) and what follows the vCPU, as for the operator %, `%(name)d` being a field
    made     values of names in the text that are no fields
    handler  for events that change a state, or are shown by one
    needs    names of fields or of `made` that the handler wants
    """

    event: str
    text: str
    made: Mapping[str, Values] = field(default_factory=dict)
    handler: Handler | None = None
    needs: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """The first character of the line."""
        return self.text[0]

    def fits(self, fields: Iterable[str]) -> bool:
        """Whether a record with these fields can be shown so."""
        return {*_FIELD.findall(self.text), *self.needs} <= {*fields, *self.made}

    def texts(self, group: Group, trace: Trace) -> list[str]:
        """What follows the vCPU in each line."""
        names = _FIELD.findall(self.text)
        plain = _FIELD.sub("%", self.text[1:])
        if not names:
            return [plain.replace("%%", "%")] * len(group.rows)
        return [*map(plain.__mod__, zip(*(self._values(name, group, trace) for name in names), strict=True))]

    def needed(self, group: Group, trace: Trace) -> list[Sequence[Any]]:
        """What the handler wants, by name."""
        return [[*self._values(name, group, trace)] for name in self.needs]

    def _values(self, name: str, group: Group, trace: Trace) -> Iterable[Any]:
        if name in self.made:
            return self.made[name](group, trace)
        values: list[Any] = group.columns[name].tolist()
        return values


def by_event(*tables: Iterable[Line]) -> dict[str, list[Line]]:
    """The lines of all tables by the event's name."""
    found: dict[str, list[Line]] = {}
    for table in tables:
        for line in table:
            found.setdefault(line.event, []).append(line)
    return found


def words(numbers: Iterable[int]) -> str:
    """Payload words as xenalyze shows them where it knows no better: ` [ 1 2a ]`."""
    return " [" + "".join(f" {number:x}" for number in numbers) + " ]"


def unknown(event_id: int, numbers: Sequence[int]) -> str:
    """What follows the vCPU in the line of an event that xenalyze does not know, or does not expect here."""
    kind, minor = event_id >> 16 & 0xFFF, event_id & 0xFFF
    return f" {event_id:7x}({kind:x}:{event_id >> 12 & 0xF:x}:{minor:x}) {len(numbers)}{words(numbers)}"


def each(name: str, text: Callable[[Any], Any]) -> Values:
    """A value for each one of a field."""
    return lambda group, _: map(text, group.columns[name].tolist())


def micro(name: str) -> Values:
    """Nanoseconds as xenalyze shows microseconds: thousands, a point, the rest without leading zeros."""
    return each(name, lambda ns: f"{ns // 1000}.{ns % 1000}")


def yes(name: str, text: str, otherwise: str = "") -> Values:
    """A text where the field is not zero, another where it is."""
    return each(name, lambda value: text if value else otherwise)

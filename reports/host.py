"""The chapters of a host's summary: how each part of it is painted."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from xtrace.host import NAMES
from xtrace.reports.page import Point
from xtrace.reports.sections import (
    addresses,
    cpus,
    exits,
    interrupts,
    memory,
    power,
    pv,
    runstates,
    volume,
)

if TYPE_CHECKING:
    from xtrace.host.summary import Host
    from xtrace.reports.page import Section

_PAINT: Final[dict[str, Any]] = {
    "runstates": runstates,
    "cpus": cpus,
    "exits": exits,
    "addresses": addresses,
    "interrupts": interrupts,
    "pv": pv,
    "memory": memory,
    "power": power,
    "volume": volume,
}

_LABELS: Final = {
    "runstates": "Run states",
    "cpus": "CPUs",
    "exits": "VM exits",
    "addresses": "Addresses",
    "interrupts": "Interrupts",
    "pv": "PV events",
    "memory": "Memory",
    "power": "Power",
    "volume": "Volume",
}


def sections(host: Host | None, names: Collection[str] = NAMES) -> Iterator[Section]:
    """The chapters of these names, without pictures; none where the host was not looked at."""
    for name, part in host.parts() if host else ():
        if name in names:
            yield _PAINT[name].section(part)


def illustrated(host: Host | None) -> Iterator[Section]:
    """All chapters, with pictures."""
    for name, part in host.parts() if host else ():
        yield replace(_PAINT[name].section(part), pictures=_PAINT[name].pictures(part))


def points(host: Host | None) -> Iterator[Point]:
    """What the chapters come to, as far as they have something to say."""
    for name, part in host.parts() if host else ():
        text = " ".join(_PAINT[name].answer(part))
        if text:
            yield Point(name, _LABELS[name], text)

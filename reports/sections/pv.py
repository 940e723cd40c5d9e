"""What PV guests enter the hypervisor for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.context import domain_name, vcpu_name
from xtrace.reports import bars, parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from xtrace.host.pv import Hypercall, Pv, PvEvent, Trap

TITLE: Final = "PV events"
NONE: Final = "None: no PV guest entered the hypervisor, or the TRC_PV events were not traced."
COUNTS: Final = (
    "Counts only: Xen records that a hypercall begins, and no record says when it ends, so none tells how long one "
    "took."
)
NAMED: Final = 3
"""Hypercalls that a sentence names."""


def answer(found: Pv) -> Iterator[str]:
    """How many hypercalls, which most."""
    whole = [one for one in found.hypercalls if one.vcpu is None]
    events = sum(one.count for one in found.events if one.vcpu is None)
    if not events:
        return
    calls, subcalls = sum(one.calls for one in whole), sum(one.subcalls for one in whole)
    rate = sum(one.per_s or 0 for one in whole)
    sums: dict[str, int] = defaultdict(int)
    for one in whole:
        sums[one.name] += one.calls + one.subcalls
    most = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:NAMED]
    named = ", ".join(f"{name} {100 * count / (calls + subcalls):.0f} %" for name, count in most)
    told = f"PV guests made {_counted(calls, 'hypercall')}"
    if subcalls:
        told += f" and {_counted(subcalls, 'sub-call')} of multicalls"
    if rate:
        told += f", {rate:,.1f} a second"
    if named:
        told += f"; most often {named}"
    yield f"{told}."


def section(found: Pv) -> Section:
    """Domains first, then vCPUs."""
    if not found.events:
        return Section("pv", TITLE, (NONE, *_unknown(found)))
    text = (*answer(found), COUNTS, *_unknown(found))
    return Section("pv", TITLE, text, (), tuple(_tables(found)))


def _unknown(found: Pv) -> Iterator[str]:
    if found.unattributed:
        yield f"Which vCPU ran is not known of {_counted(found.unattributed, 'event')}: not in the figures."


def _tables(found: Pv) -> Iterator[Table]:
    domains = [one for one in found.events if one.vcpu is None]
    yield _events("By domain and kind, most first", "domain", domains)
    if found.hypercalls:
        whole = [one for one in found.hypercalls if one.vcpu is None]
        yield _hypercalls("Hypercalls by domain, most first", "domain", whole)
    if found.traps:
        heads = (Head("domain", False), Head("trap"), Head("name", False), Head("count"), Head("a second"))
        traps = sorted((one for one in found.traps if one.vcpu is None), key=lambda one: -one.count)
        yield parts.table("Traps given to guests by domain, most first", heads, [_trap(one) for one in traps], "traps")
    vcpus = [one for one in found.events if one.vcpu is not None]
    yield _events("By vCPU and kind, most first", "vCPU", vcpus)
    if found.hypercalls:
        mine = [one for one in found.hypercalls if one.vcpu is not None]
        yield _hypercalls("Hypercalls by vCPU, most first", "vCPU", mine)


def _hypercalls(caption: str, whose: str, rows: list[Hypercall]) -> Table:
    heads = (
        Head(whose, False),
        Head("hypercall", False),
        Head("number"),
        Head("calls"),
        Head("sub-calls", title="as part of a multicall"),
        Head("a second"),
    )
    most = sorted(rows, key=lambda one: -(one.calls + one.subcalls))
    return parts.table(caption, heads, [_call(one) for one in most], "lines")


def _who(one: PvEvent | Hypercall | Trap) -> Cell:
    if one.vcpu is None:
        return Cell(domain_name(one.domain), one.domain)
    return Cell(vcpu_name(one.domain, one.vcpu))


def _events(caption: str, whose: str, rows: list[PvEvent]) -> Table:
    heads = (Head(whose, False), Head("what", False), Head("count"), Head("a second"))
    cells = [
        (_who(one), Cell(one.kind), parts.count(one.count), parts.per_s(one.per_s))
        for one in sorted(rows, key=lambda one: -one.count)
    ]
    return parts.table(caption, heads, cells, "lines")


def _call(one: Hypercall) -> tuple[Cell, ...]:
    return (
        _who(one),
        Cell(one.name),
        _number(one.number),
        parts.count(one.calls),
        parts.count(one.subcalls),
        parts.per_s(one.per_s),
    )


def _trap(one: Trap) -> tuple[Cell, ...]:
    return _who(one), _number(one.number), Cell(one.name), parts.count(one.count), parts.per_s(one.per_s)


def _number(number: int | None) -> Cell:
    return Cell("–") if number is None else Cell(str(number), number)


def _counted(count: int, noun: str) -> str:
    return f"{units.count(count)} {noun}" + ("" if count == 1 else "s")


def pictures(found: Pv) -> tuple[Picture, ...]:
    """Events by vCPU and kind, hypercalls by name and domain."""
    if not found.events:
        return ()
    events: dict[str, dict[str, float]] = defaultdict(dict)
    for one in found.events:
        if one.vcpu is not None:
            events[vcpu_name(one.domain, one.vcpu)][one.kind] = one.count
    figure = bars.stacked(events, "events")
    shown = [parts.picture(figure, "pv-events", "PV events by vCPU", "Of the vCPUs with most, by kind of event.")]
    calls: dict[str, dict[str, float]] = defaultdict(dict)
    for call in found.hypercalls:
        if call.vcpu is None:
            calls[call.name][domain_name(call.domain)] = call.calls + call.subcalls
    if calls:
        figure = bars.stacked(calls, "hypercalls")
        caption = "Those made most, sub-calls of multicalls included, by domain."
        shown.append(parts.picture(figure, "pv-hypercalls", "Hypercalls", caption))
    return tuple(shown)

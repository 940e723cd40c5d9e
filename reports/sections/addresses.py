"""Addresses: where guests exit, what they access that Xen emulates, which address spaces they use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.context import domain_name, vcpu_name
from xtrace.reports import parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from xtrace.host.addresses import Access, Addresses, Instruction
    from xtrace.host.cr3 import AddressSpace
    from xtrace.host.heaviest import LeftOut

TITLE: Final = "Addresses"
NONE: Final = "No VM exit of this selection ended, so no address of a guest is known."
SUMS: Final = (Head("exits"), Head("time", title="until the guest went on"), Head("mean"))
TIMES: Final = (*SUMS[:2], Head("% of span"), SUMS[2], Head("p5"), Head("p50"), Head("p95"), Head("max"))


def answer(found: Addresses) -> Iterator[str]:
    """The address at which exits took most time."""
    if not found.hottest:
        return
    first = found.hottest[0]
    yield (
        f"Exits took most time at {first.address:#x} of {domain_name(first.domain)} ({first.what}): "
        f"{units.count(first.count)} exits, {units.time(first.total_ns)}."
    )


def section(found: Addresses) -> Section:
    """Instructions, then what they accessed, then address spaces."""
    if not found.hottest:
        return Section("addresses", TITLE, (NONE,))
    tables = [_instructions("Where guests exited, by reason, most time first", "reason", found.hottest)]
    if found.interrupted:
        vector = "vector" if any(one.what for one in found.interrupted) else ""
        tables.append(_instructions("Where host interrupts hit guests", vector, found.interrupted))
    if found.emulated:
        tables.append(_instructions("Instructions that shadow paging emulated", "", found.emulated))
    tables += [_accesses(caption, rows) for caption, rows in _access_tables(found) if rows]
    if found.spaces:
        tables.append(_spaces(found.spaces))
    return Section("addresses", TITLE, (*answer(found), *_meaning(found)), (), tuple(tables))


def _access_tables(found: Addresses) -> Iterator[tuple[str, Sequence[Access]]]:
    yield "I/O ports by vCPU, most time first; quantiles over exits", found.ports
    yield "Emulated memory (MMIO) by vCPU and guest-physical address, most time first; quantiles over exits", found.mmio


def _meaning(found: Addresses) -> Iterator[str]:
    yield "An address is the guest’s instruction pointer at the exit; an exit’s time ends as under VM exits."
    for what, left in (
        ("addresses of exits", found.hottest_left_out),
        ("interrupted addresses", found.interrupted_left_out),
        ("emulated instructions", found.emulated_left_out),
    ):
        if left is not None:
            yield f"There were too many {what} to keep all: {_left(left)}"


def _left(left: LeftOut) -> str:
    return (
        f"{units.count(left.count)} exits of {units.time(left.total_ns)} are in no line, and a line’s time may be too "
        f"low by up to {units.time(left.most_ns)}."
    )


def _instructions(caption: str, what: str, rows: Sequence[Instruction]) -> Table:
    """what: the head of a column of its own, empty for none."""
    heads = (Head("domain", False), Head("address", False), *([Head(what, False)] if what else []), *SUMS)
    shown = [
        (
            Cell(domain_name(one.domain), one.domain),
            Cell(f"{one.address:#x}", one.address),
            *([Cell(one.what or "not told")] if what else []),
            parts.count(one.count),
            parts.time(one.total_ns),
            parts.time(one.mean_ns),
        )
        for one in rows
    ]
    return parts.table(caption, heads, shown, "addresses")


def _accesses(caption: str, rows: Sequence[Access]) -> Table:
    heads = (Head("vCPU", False), Head("address", False), Head("access", False), *TIMES)
    shown = [
        (
            Cell(vcpu_name(one.domain, one.vcpu)),
            Cell("others") if one.address is None else Cell(f"{one.address:#x}", one.address),
            Cell(one.direction),
            parts.count(one.time.count),
            parts.time(one.time.total_ns),
            Cell("–") if one.percent is None else Cell(f"{one.percent:.2f}", one.percent),
            *map(parts.time, (one.time.mean_ns, one.time.p5_ns, one.time.p50_ns, one.time.p95_ns, one.time.max_ns)),
        )
        for one in sorted(rows, key=lambda one: -one.time.total_ns)
    ]
    return parts.table(caption, heads, shown, "lines")


def _spaces(rows: Sequence[AddressSpace]) -> Table:
    heads = (
        Head("domain", False),
        Head("CR3", False),
        Head("loads", title="in place of another value"),
        Head("flushes", title="of the value that was there"),
        Head("in the guest"),
        Head("in exits"),
        Head("mean stay", title="from a load until the next value"),
        Head("first", title="loaded, in all the trace"),
        Head("last", title="left, in all the trace"),
        Head("most exits", False),
    )
    shown = [
        (
            Cell("others") if one.domain is None else Cell(domain_name(one.domain), one.domain),
            Cell("others") if one.cr3 is None else Cell(f"{one.cr3:#x}", one.cr3),
            parts.count(one.loads),
            parts.count(one.flushes),
            parts.time(one.guest.total_ns),
            parts.time(one.hypervisor.total_ns),
            parts.time(one.stay.mean_ns),
            parts.time(one.first_ns),
            parts.time(one.last_ns),
            Cell(max(one.mix, key=lambda group: group.time.total_ns).group if one.mix else "–"),
        )
        for one in rows
    ]
    return parts.table("Address spaces (values of CR3 whose writes were seen), most time first", heads, shown, "values")


def pictures(_: Addresses) -> tuple[Picture, ...]:
    """None: addresses are for tables."""
    return ()

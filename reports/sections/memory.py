"""Operations on the memory of guests, by whom and for whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.context import domain_name
from xtrace.reports import bars, parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from xtrace.host.memory import Memory

TITLE: Final = "Memory operations"
NONE: Final = (
    "None: no grant was mapped, no P2M entry or reservation changed, or the TRC_MEM events were not traced. On Intel "
    "with EPT, Xen records no change of a P2M entry."
)
WHO: Final = (
    "Done by: the domain that ran. Done for: the domain whose memory it is; of grants the one that granted, of "
    "transfers the one that received."
)
PAGE_BITS: Final = 12


def answer(found: Memory) -> Iterator[str]:
    """How many operations of which kind."""
    counts: dict[str, int] = defaultdict(int)
    for one in found.details:
        counts[one.operation] += one.count
    if not counts:
        return
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{units.count(count)} × {name}" for name, count in most)
    rate = sum(one.per_s or 0 for one in found.details)
    often = f" ({rate:,.1f} a second)" if rate else ""
    whom = sorted({one.for_domain for one in found.details})
    yield f"Operations on the memory of {_domains(whom)}{often}: {named}."


def _domains(numbers: list[int]) -> str:
    shown = ", ".join(domain_name(number) for number in numbers[:4])
    return shown if len(numbers) <= 4 else f"{shown} and {len(numbers) - 4} more domains"


def section(found: Memory) -> Section:
    """Domains first, then all that the records tell apart."""
    if not found.details:
        return Section("memory", TITLE, (NONE,))
    text = (*answer(found), WHO)
    return Section("memory", TITLE, text, (), (_operations(found), _details(found)))


def _operations(found: Memory) -> Table:
    heads = (
        Head("domain", False),
        Head("operation", False),
        Head("done by it"),
        Head("a second"),
        Head("memory"),
        Head("done for it"),
        Head("a second"),
        Head("memory", title="size of the entries, where records tell it"),
    )
    rows = [
        (
            Cell(domain_name(one.domain), one.domain),
            Cell(one.operation),
            parts.count(one.done_by),
            parts.per_s(one.by_per_s),
            _size(one.done_by, one.pages_by),
            parts.count(one.done_for),
            parts.per_s(one.for_per_s),
            _size(one.done_for, one.pages_for),
        )
        for one in sorted(found.operations, key=lambda one: -(one.done_by + one.done_for))
    ]
    return parts.table("By domain and operation, most first; memory: size of what was changed", heads, rows, "lines")


def _details(found: Memory) -> Table:
    heads = (
        Head("operation", False),
        Head("by", False),
        Head("for", False),
        Head("order", title="of 2^order pages of 4 KiB"),
        Head("new type", False),
        Head("during", False, title="what a page was reclaimed in"),
        Head("count"),
        Head("a second"),
    )
    rows = [
        (
            Cell(one.operation),
            Cell("–") if one.by_domain is None else Cell(domain_name(one.by_domain), one.by_domain),
            Cell(domain_name(one.for_domain), one.for_domain),
            Cell("–") if one.order is None else Cell(str(one.order), one.order),
            Cell(one.type_name or "–"),
            Cell(one.context or "–"),
            parts.count(one.count),
            parts.per_s(one.per_s),
        )
        for one in sorted(found.details, key=lambda one: -one.count)
    ]
    return parts.table("By all that records tell, most first; order: log2 of the number of pages", heads, rows, "lines")


def _size(count: int, pages: int | None) -> Cell:
    if not count or pages is None:
        return Cell("–")
    return Cell(units.size(pages << PAGE_BITS), pages)


def pictures(found: Memory) -> tuple[Picture, ...]:
    """Operations by whom they are for, and kind."""
    if not found.details:
        return ()
    counts: dict[str, dict[str, float]] = defaultdict(dict)
    for one in found.operations:
        if one.done_for:
            counts[domain_name(one.domain)][one.operation] = one.done_for
    figure = bars.stacked(counts, "operations")
    caption = "By the domain whose memory it is, and by operation."
    return (parts.picture(figure, "memory-operations", "Operations on the memory of domains", caption),)

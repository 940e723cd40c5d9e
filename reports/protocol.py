"""What `xtrace check` prints: the verdict in a line, then each broken rule with its first violations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from rich.text import Text

from xtrace import units

if TYPE_CHECKING:
    from rich.console import Console

    from xtrace.protocol.verdict import Checked, Difference, Outcome, Record, Violation

SHOWN: Final = 5
"""Violations of each rule."""
SHOWN_CLOCKS: Final = 8

_HEXADECIMAL: Final = ("flush_flags", "func", "mask", "va")


def show(out: Console, found: Checked) -> None:
    """Print it."""
    out.print(Text(found.sentence(), style="bold red" if found.count else ""), soft_wrap=True)
    for line in _clocks(found.clocks):
        out.print(Text(line), soft_wrap=True)
    for one in found.rules:
        if one.count:
            out.print()
            out.print(Text(f"{one.rule}: {units.count(one.count)}", style="bold"), Text(one.promise), soft_wrap=True)
            for line in _violations(one):
                out.print(Text(units.printable(line)), soft_wrap=True)


def _clocks(found: tuple[Difference, ...]) -> Iterator[str]:
    shown = ", ".join(
        f"CPU {one.cpu} {units.time(abs(one.ahead_ns))} {'ahead' if one.ahead_ns > 0 else 'behind'}"
        for one in found[:SHOWN_CLOCKS]
    )
    more = len(found) - SHOWN_CLOCKS
    if found:
        yield f"clocks: allowed for {shown}{f', {more} more' if more > 0 else ''}"


def _violations(found: Outcome) -> Iterator[str]:
    for one in found.violations:
        yield f"  {one.kind} {one.seq} of CPU {one.initiator}: {one.what}"
        yield from _records(one)
    more = found.count - len(found.violations)
    if more > 0:
        yield f"  … {units.count(more)} more"


def _records(found: Violation) -> Iterator[str]:
    for one in found.records:
        place = f"byte {one.offset}" if one.offset is not None else f"record {one.number}"
        sign, (whole, rest) = "-" if one.ns < 0 else "", divmod(abs(one.ns), 1_000_000_000)
        yield f"    {place:>16} {f'{sign}{whole}.{rest:09d}':>16} {one.cpu:>4} {one.event}{_fields(one)}"


def _fields(found: Record) -> str:
    name = found.fields.get("func_name")
    texts = []
    for field, value in found.fields.items():
        if field != "func_name":
            shown = f"0x{value:x}" if field in _HEXADECIMAL else f"{value}"
            texts.append(f" {field}={shown}" + (f"({name})" if field == "func" and name else ""))
    return "".join(texts)

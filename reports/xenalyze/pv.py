"""Lines of PV guests' events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from xtrace.decode import Group
from xtrace.parsers import vectors
from xtrace.parsers.pv import PACKING
from xtrace.reports.xenalyze.host import Host, Pcpu
from xtrace.reports.xenalyze.kinds import pv_guest, unexpected
from xtrace.reports.xenalyze.line import Line, Values
from xtrace.reports.xenalyze.names import HYPERCALLS, PV

if TYPE_CHECKING:
    from xtrace.trace import Trace

PREEMPTED: Final = 1 << 31
CALLS_KEPT: Final = 1 << 12
"""Distinct calls whose text is remembered."""

Record = tuple[Any, ...]


def _of_guest(_host: Host, cpu: Pcpu, prefix: str, text: str, record: Record) -> str:
    return prefix + text if pv_guest(cpu) else unexpected(prefix, record[0], record[2])


def _signed(word: int) -> int:
    return word - (1 << 32) if word & PREEMPTED else word


def _command(names: dict[int, str], word: int, last: int) -> str:
    """The name of a sub-command, by number beyond the last that xenalyze knows."""
    return names[word] if word <= last else f"unknown ({_signed(word)})"


@lru_cache(maxsize=CALLS_KEPT)
def hypercall(numbers: tuple[int, ...]) -> str:
    """What follows the vCPU for these words: number, name, and what is known of the arguments."""
    if not numbers:
        return " hypercall"
    op = numbers[0] & 0xFFFFF
    name = HYPERCALLS.get(op)
    head = f" hypercall {op:2x} ({name})" if name else f" hypercall {op:2x}"
    first, second, third = (_argument(numbers, place) for place in range(3))
    if op == 1:
        preempted = " (preempted)" if second & PREEMPTED else ""
        return f"{head} {second & ~PREEMPTED & 0xFFFFFFFF} updates{preempted}"
    if op == 13:
        return f"{head} {_signed(second)} calls"
    if op == 20:
        return f"{head} {_command(vectors.GRANT_TABLE_OPS, first, 11)} {_signed(third)} ops"
    if op == 24:
        return f"{head} {_command(vectors.VCPU_OPS, first, 13)} vcpu {_signed(second)}"
    if op == 26:
        return f"{head} {_signed(second)} ops"
    if op == 29:
        return f"{head} {_command(vectors.SCHED_OPS, first, 6)}"
    return head + "".join(_shown(numbers))


def _sizes(numbers: Sequence[int]) -> Iterable[tuple[int, int]]:
    """First word and number of words of each argument."""
    place = 1
    for low, _ in PACKING.values():
        size = numbers[0] >> low & 3
        yield place, size
        place += size


def _argument(numbers: Sequence[int], wanted: int) -> int:
    """The low word of an argument, 0 where it was not recorded."""
    begin, size = [*_sizes(numbers)][wanted]
    return numbers[begin] if size in (1, 2) and begin < len(numbers) else 0


def _shown(numbers: Sequence[int]) -> Iterable[str]:
    for begin, size in _sizes(numbers):
        if begin >= len(numbers):
            return
        if size == 0:
            yield " ??"
        elif size == 1:
            yield f" {numbers[begin]:08x}"
        elif size == 2 and begin + 1 < len(numbers):
            yield f" {numbers[begin + 1] << 32 | numbers[begin]:016x}"


def _call(indent: str) -> Values:
    def texts(group: Group, _: Trace) -> Iterable[str]:
        return [indent + hypercall(tuple(numbers)) for numbers in group.payload.tolist()]

    return texts


def _words(group: Group, _: Trace) -> Iterable[str]:
    number = group.event.event_id & 0xFF
    name = PV.get(number, f"PV-{number} ")
    if not group.payload.shape[1]:
        return [f" {name}"] * len(group.rows)
    return [f" {name}[ {''.join(f'{word:x} ' for word in numbers)}]" for numbers in group.payload.tolist()]


def _error(group: Group, _: Trace) -> Iterable[str]:
    used, codes = group.columns["use_error_code"].tolist(), group.columns["error_code"].tolist()
    return [f" ec {code:x}" if one else "" for one, code in zip(used, codes, strict=True)]


LINES: Final = (
    *(
        Line("TRC_PV_TRAP", f"  trap %(trapnr)x eip %({address})x%(error)s", {"error": _error}, _of_guest)
        for address in ("eip", "rip")
    ),
    *(
        Line(event, f"  ptwr l1e %(npte)x eip %({address})x addr %(addr)x", handler=_of_guest)
        for event, address in (("TRC_PV_PTWR_EMULATION", "rip"), ("TRC_PV_PTWR_EMULATION_PAE", "eip"))
    ),
    Line("TRC_PV_HYPERCALL_V2", " %(call)s", {"call": _call("")}, _of_guest),
    Line("TRC_PV_HYPERCALL_SUBCALL", " %(call)s", {"call": _call(" ")}, _of_guest),
)

ANY: Final = Line("", " %(words)s", {"words": _words}, _of_guest)
"""Any other event of a PV guest."""

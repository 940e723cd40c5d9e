"""Lines of shadow paging events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from xtrace.decode import Group
from xtrace.reports.xenalyze.host import Host, Pcpu
from xtrace.reports.xenalyze.kinds import hvm_guest, unexpected
from xtrace.reports.xenalyze.line import Line, each, words
from xtrace.reports.xenalyze.names import SHADOW
from xtrace.reports.xenalyze.paging import linear

if TYPE_CHECKING:
    from xtrace.trace import Trace

SETS_LEVELS: Final = frozenset((1, 3, 5, 6, 8, 9, 10, 11))
"""Faults from which xenalyze learns how many levels of page tables a guest has."""

LAST_FAULT: Final = 0x0B

FLAGS: Final = (
    (2, "g"),
    (3, "p"),
    (8, "D"),
    (9, "P"),
    (10, "w"),
    (11, "G"),
    (13, "e"),
    (17, "H"),
    (18, "u"),
    (19, "a"),
)
EVICTS: Final = (20, "x")
WORDS_SHOWN: Final = 4
UNSYNC: Final = 1 << 18

Record = tuple[Any, ...]


def fault_text(event_id: int, numbers: Sequence[int]) -> str:
    """What follows the vCPU where the first words of a record are shown as they are."""
    number = event_id & 0xFF
    return f" shadow {SHADOW.get(number, number)} gl {event_id >> 8 & 0xF}{words(numbers[:WORDS_SHOWN])}"


def flag_letters(flags: int) -> str:
    """A letter for each thing done."""
    accessed = "d" if flags & 1 else "a" if flags & 2 else "-"
    return accessed + "".join(letter if flags >> bit & 1 else "-" for bit, letter in (*FLAGS, EVICTS))


def _handles(_host: Host, cpu: Pcpu, prefix: str, text: str, record: Record) -> str:
    event_id, _, numbers = record
    vcpu = hvm_guest(cpu)
    if vcpu is None or vcpu.hvm is None:
        return unexpected(prefix, event_id, numbers)
    if not vcpu.hvm.exited:
        return f"!{prefix[1:]}{fault_text(event_id, numbers)}"
    if event_id & 0xFF in SETS_LEVELS:
        vcpu.levels = (event_id >> 8 & 0xF) + 2
    if event_id & 0xFF <= LAST_FAULT:
        vcpu.hvm.claim()
    return prefix + text


def _levels(group: Group) -> int:
    return (group.event.event_id >> 8 & 0xF) + 2


def _fixup(group: Group, _: Trace) -> Iterable[str]:
    columns = (group.columns[name].tolist() for name in ("va", "gl1e", "flags"))
    for va, entry, flags in zip(*columns, strict=True):
        letters = flag_letters(flags)
        if flags & UNSYNC:
            of = linear(va, _levels(group)).entry_of
            yield f"fixup:unsync va {va:x} gl1e {entry:x} corr {of:x} flags ({flags:x}){letters}"
        else:
            yield f"fixup va {va:x} gl1e {entry:x} flags ({flags:x}){letters}"


def _emulated(group: Group, _: Trace) -> Iterable[str]:
    for va in group.columns["va"].tolist():
        place = linear(va, _levels(group))
        yield f"pt_level {place.level} corr {place.entry_of:8x}"


def _words(group: Group, _: Trace) -> Iterable[str]:
    return [fault_text(group.event.event_id, numbers) for numbers in group.payload.tolist()]


LETTERS: Final = each("flags", flag_letters)

LINES: Final = (
    Line(
        "TRC_SHADOW_NOT_SHADOW",
        "] propagate va %(va)x gl1e %(gl1e)x flags (%(flags)x)%(letters)s",
        {"letters": LETTERS},
        _handles,
    ),
    Line("TRC_SHADOW_FAST_MMIO", "] fast mmio va %(va)x", handler=_handles),
    Line("TRC_SHADOW_MMIO", "] mmio va %(va)x", handler=_handles),
    Line("TRC_SHADOW_FIXUP", "] %(fixup)s", {"fixup": _fixup}, _handles),
    Line(
        "TRC_SHADOW_EMULATE",
        "] emulate va %(va)x gl1e %(gl1e)8x wval %(write_val)8x flags %(letters)s(%(flags)x) %(place)s",
        {"letters": LETTERS, "place": _emulated},
        _handles,
    ),
    *(
        Line(
            f"TRC_SHADOW_EMULATE_UNSHADOW_{name}", f"] shadow {SHADOW[number]} gfn %(gfn)x va %(va)x", handler=_handles
        )
        for name, number in (("USER", 9), ("EVTINJ", 10), ("UNHANDLED", 11))
    ),
    Line("TRC_SHADOW_RESYNC_FULL", "  oos resync full gfn %(gfn)x", handler=_handles),
    Line("TRC_SHADOW_RESYNC_ONLY", "  oos resync only gfn %(gfn)x", handler=_handles),
    Line("TRC_SHADOW_PREALLOC_UNPIN", "  prealloc-unpin gfn %(gfn)x", handler=_handles),
    Line("TRC_SHADOW_WRMAP_BF", "  wrmap-bf gfn %(gfn)x", handler=_handles),
)

ANY: Final = Line("", "]%(words)s", {"words": _words}, _handles)
"""Any other shadow event."""

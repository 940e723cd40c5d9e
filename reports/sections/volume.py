"""Volume: how much was written, by which CPU, of which class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.reports import bars, parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from xtrace.host.volume import CpuVolume, Volume, Written

TITLE: Final = "Volume"
NONE: Final = "No record of this selection."
MEANING: Final = (
    "Every record counts, but for the headers of windows, which the tool writes. Rates are over all of the span. Under "
    "a class, a line for each of its parts that records are of; a class may have others."
)
AMOUNTS: Final = tuple(map(Head, ("records", "a second", "bytes", "bytes a second")))


def answer(found: Volume) -> Iterator[str]:
    """How much in all, and most of which class."""
    if not found.records:
        return
    told = f"{units.count(found.records)} records, {units.size(found.size_bytes)}"
    if found.bytes_per_s is not None:
        told += f": {units.count(found.records_per_s or 0)} records and {units.size(found.bytes_per_s)} a second"
    most = max((one for one in found.classes if not one.part), key=lambda one: one.size_bytes)
    yield f"{told}; {100 * most.size_bytes / found.size_bytes:.0f} % of the bytes are of the class {most.trace_class}."


def section(found: Volume) -> Section:
    """All CPUs first, then each."""
    if not found.records:
        return Section("volume", TITLE, (NONE,))
    return Section("volume", TITLE, (*answer(found), MEANING), (), tuple(_tables(found)))


def _tables(found: Volume) -> Iterator[Table]:
    yield parts.table(
        "By class, all CPUs",
        (Head("class", False), *AMOUNTS, Head("of bytes")),
        [(_class(one), *_amounts(one), _share(one.size_bytes, found.size_bytes)) for one in found.classes],
        "lines",
    )
    yield parts.table(
        "By CPU, most bytes first",
        (Head("CPU"), *AMOUNTS, Head("of bytes"), Head("most of class", False)),
        [
            (
                Cell(str(one.cpu), one.cpu),
                *_amounts(one),
                _share(one.size_bytes, found.size_bytes),
                Cell(max((part for part in one.classes if not part.part), key=_size).trace_class),
            )
            for one in sorted(found.cpus, key=lambda one: (-one.size_bytes, one.cpu))
        ],
        "CPUs",
    )
    yield parts.table(
        "By CPU and class",
        (Head("CPU"), Head("class", False), *AMOUNTS, Head("of the CPU's bytes")),
        [
            (Cell(str(cpu.cpu), cpu.cpu), _class(one), *_amounts(one), _share(one.size_bytes, cpu.size_bytes))
            for cpu in found.cpus
            for one in cpu.classes
        ],
        "lines",
    )


def pictures(found: Volume) -> tuple[Picture, ...]:
    """Bytes by CPU and class."""
    shown = {
        f"CPU {cpu.cpu}": {one.trace_class: one.size_bytes / 1e6 for one in cpu.classes if not one.part}
        for cpu in found.cpus
    }
    if not shown:
        return ()
    figure = bars.stacked(shown, "MB")
    return (parts.picture(figure, "volume", "What CPUs wrote", "Bytes of records by class; CPUs that wrote most."),)


def _size(one: Written) -> int:
    return one.size_bytes


def _class(one: Written) -> Cell:
    return Cell(f"  {one.part}" if one.part else one.trace_class, None)


def _amounts(one: Written | CpuVolume) -> tuple[Cell, ...]:
    rates = (
        Cell("–") if rate is None else Cell(units.count(rate), rate) for rate in (one.records_per_s, one.bytes_per_s)
    )
    records_per_s, bytes_per_s = rates
    return parts.count(one.records), records_per_s, parts.count(one.size_bytes), bytes_per_s


def _share(part: int, whole: int) -> Cell:
    return Cell(f"{100 * part / whole:.1f} %", part / whole) if whole else Cell("–")

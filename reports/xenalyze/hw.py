"""Lines of hardware events: power states and host interrupts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from xtrace.decode import Group
from xtrace.reports.xenalyze.line import Line

if TYPE_CHECKING:
    from xtrace.trace import Trace

XENALYZE_MASK_WORDS: Final = 4


def _mask(group: Group, _: Trace) -> Iterable[str]:
    """The last word first; those that xenalyze has no room for only where CPUs are in them."""
    for row in group.columns["cpumask"].tolist():
        count = max(XENALYZE_MASK_WORDS, *(place + 1 for place, word in enumerate(row) if word), 0)
        yield " ".join(f"{word:04x}" for word in reversed(row[:count]))


def _handling(group: Group, _: Trace) -> list[int]:
    """Cycles, of counts that have 32 bits."""
    begin, end = (group.columns[name].astype(np.uint32) for name in ("tsc_in", "tsc_out"))
    cycles: list[int] = (end - begin).tolist()
    return cycles


LINES: Final = (
    Line("TRC_PM_FREQ_CHANGE", "  pm_freq_change o%(old_mhz)d n%(new_mhz)d"),
    *(
        Line(event, f"  {name} c%({field})d")
        for event, name in (("TRC_PM_IDLE_ENTRY", "pm_idle_start"), ("TRC_PM_IDLE_EXIT", "pm_idle_end"))
        for field in ("cx_index", "cx_type")
    ),
    *(
        Line(f"TRC_HW_IRQ_{name}", f"  irq_{name.lower()} irq %(irq)x vec %(vector)x mask %(mask)s", {"mask": _mask})
        for name in ("BIND_VECTOR", "ASSIGN_VECTOR")
    ),
    *(
        Line(f"TRC_HW_IRQ_{name}", f"  irq_{name.lower()} irq %(irq)x vec %(vector)x cpu %(cpu)d")
        for name in ("MOVE_CLEANUP_DELAY", "MOVE_CLEANUP")
    ),
    Line("TRC_HW_IRQ_UNMAPPED_VECTOR", "  irq_unmapped_vector vec %(vector)x"),
    Line(
        "TRC_HW_IRQ_HANDLED",
        "  irq_handled irq %(irq)x %(cycles)d (%(tsc_in)d,%(tsc_out)d)",
        {"cycles": _handling},
    ),
)

"""The host around the episodes: what its vCPUs and CPUs did, from all that xentrace records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from xtrace.trace import Trace

NAMES: Final = ("runstates", "cpus", "exits", "addresses", "interrupts", "pv", "memory", "power", "volume")
"""What the command line calls its parts, in the order in which reports show them."""

BY_DEFAULT_BYTES: Final = 64 << 20
"""Of larger traces the host is looked at when asked."""


def by_default(trace: Trace) -> tuple[str, ...]:
    """The parts that an analysis looks at unasked, of small traces, and of those that tell of nothing else.

    All but addresses, of which there may be very many.
    """
    small = trace.survey.total_bytes <= BY_DEFAULT_BYTES
    unasked = tuple(name for name in NAMES if name != "addresses")
    return unasked if small or trace.tables.evidence != "exact" else ()

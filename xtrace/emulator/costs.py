"""What things cost on the emulated machine: every number in one place, with its unit and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Final

from xtrace.errors import UsageError

SERVER: Final = "the order of magnitude of current two-socket x86 servers; not measured by this project"
ALGORITHM: Final = "no time of its own by default; there to be set"


def _cost(default: float, meaning: str, source: str = SERVER) -> Any:
    return field(default=default, metadata={"meaning": meaning, "source": source})


@dataclass(frozen=True, slots=True)
class Costs:
    """Times in nanoseconds; each field's metadata tells its meaning and its source. `docs/emulator.md` lists them."""

    setup_ns: float = _cost(20, "caller: from START until it asks for its lock or descriptor")
    fill_ns: float = _cost(40, "filling in a request, with the lock held where there is one")
    lock_ns: float = _cost(20, "taking a free spinlock")
    handover_ns: float = _cost(120, "a spinlock's release until the CPU next in line goes on")
    publish_ns: float = _cost(40, "from a request being visible to others until SEND is noted")
    icr_write_ns: float = _cost(60, "each write that sends an IPI; interrupts are off meanwhile")
    flight_ns: float = _cost(500, "from such a write until the interrupt is pending at its target")
    flight_jitter_ns: float = _cost(50, "most that is added to a flight, evenly drawn")
    irq_entry_ns: float = _cost(250, "from a pending interrupt until its handler runs, hypervisor code interrupted")
    irq_exit_ns: float = _cost(150, "from a handler's end until what it interrupted goes on")
    scan_ns: float = _cost(15, "a handler looking at another CPU's request")
    notice_ns: float = _cost(100, "from the last target's answer until the spinning caller sees it")
    trace_ns: float = _cost(
        0, "writing a trace record, after its timestamp was taken; interrupts are off meanwhile", ALGORITHM
    )
    check_in_ns: float = _cost(40, "a target clearing its bit; each waits for the line of the one before", ALGORITHM)
    enqueue_ns: float = _cost(90, "linux: locking and queueing one target's descriptor, one line from another CPU")
    collect_ns: float = _cost(60, "linux: the caller reading one target's descriptor while it waits")
    vm_exit_ns: float = _cost(700, "leaving an HVM guest")
    vm_entry_ns: float = _cost(500, "entering an HVM guest")
    wake_ns: float = _cost(2000, "an idle CPU waking up")
    flush_ns: float = _cost(400, "flushing a TLB or an ASID on one CPU")
    timer_ns: float = _cost(800, "serving a timer interrupt")
    fault_ns: float = _cost(1500, "a write fault of a logged page, without its flush")
    local_flush_ns: float = _cost(300, "the same on the caller, before it asks others")

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not 0 <= value <= MAX_NS:
                raise UsageError(f"{one.name} = {value}: give 0 to {MAX_NS:.0f} ns")


MAX_NS: Final = 1e9

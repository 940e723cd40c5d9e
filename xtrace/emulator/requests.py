"""What one CPU asks of others, and what became of it: the emulator's own account, which is the truth of a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from xtrace.emulator.machine import Signal

Work = Callable[[int], int]
"""How many cycles a function runs on a CPU."""

State = Literal["guest", "hypervisor", "idle"]


class Situation(NamedTuple):
    """What a CPU was doing, and which vCPU was there (None: nobody known)."""

    state: State
    vcpu: tuple[int, int] | None


@dataclass(slots=True)
class Served:
    """What became of a request on one target: cycles at which the function began and ended (0: not yet)."""

    entered: int
    found: Situation
    left: int = 0


@dataclass(slots=True, eq=False)
class Request:
    """A function call, or a TLB flush where `flush_flags` is set.

    targets   CPUs in the mask, ascending
    work      how long the function runs on each of them
    wait      the caller waits for the functions to end, not only to begin
    carries   the flush that this call carries
    selected  targets that have not answered yet; the caller spins on `answered` until there are none
    line_free when the last target that answered lets go of the cache line with the mask
    seq …     noted by `tracepoints`: cycles, 0 = not reached; `rows` are those of its records in the log
    """

    initiator: int
    targets: tuple[int, ...]
    work: Work
    answered: Signal
    func: int = 0
    wait: bool = True
    flush_flags: int = 0
    va: int = 0
    carries: Request | None = None
    selected: set[int] = field(init=False)
    line_free: int = 0
    seq: int = -1
    start: int = 0
    send: int = 0
    done: int = 0
    found: Situation | None = None
    served: dict[int, Served] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.selected = set(self.targets)

    @property
    def is_flush(self) -> bool:
        """A flush, not a call."""
        return self.flush_flags != 0

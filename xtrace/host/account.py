"""What an account of a host is: it takes records in order of time, and tells what they come to, window by window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from xtrace.host.known import Known

if TYPE_CHECKING:
    from xtrace.clock import Clock
    from xtrace.decode import Batch
    from xtrace.host.walk import Chunk
    from xtrace.host.windows import Windows
    from xtrace.parsers.event import Event
    from xtrace.parsers.registry import Dialect
    from xtrace.selection import Selection

Facts_co = TypeVar("Facts_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Ground:
    """What all accounts of a trace stand on.

    windows    the spans of time that are told of
    selection  --cpus, --from, --to: what counts; state is followed through all records
    last_ns    the last timestamp
    cpus       those in the trace
    known      when each CPU's records end, and when some were lost
    """

    windows: Windows
    selection: Selection
    dialect: Dialect
    clock: Clock
    last_ns: int
    cpus: tuple[int, ...]
    known: Known = field(default_factory=Known)

    def on(self, cpu: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of these CPUs are selected."""
        if self.selection.cpus is None:
            return np.ones(len(cpu), np.bool_)
        return np.isin(cpu, np.array(sorted(self.selection.cpus), np.int64))


class Account(ABC, Generic[Facts_co]):
    """Made for one pass over a trace; `found` may be asked when it is over."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    @staticmethod
    @abstractmethod
    def wants(event: Event) -> bool:
        """Whether it takes records of this event. It must pass over those of others."""

    @abstractmethod
    def feed(self, chunk: Chunk) -> None:
        """The next records in order of time, of one capture."""

    def read(self, batch: Batch) -> None:
        """The next records in the order of the input, all of them."""

    def finish(self) -> None:
        """The capture ends: what follows, if anything, begins anew."""

    @abstractmethod
    def found(self, window: int) -> Facts_co:
        """What it comes to in a window."""


def packed(domain: NDArray[Any], vcpu: NDArray[Any], thing: NDArray[Any] | int = 0) -> NDArray[np.int64]:
    """A key for `Tally`: domain and vCPU of 16 bits each, and a number of 31 bits."""
    return domain.astype(np.int64) << 47 | vcpu.astype(np.int64) << 31 | thing


def unpacked(key: int) -> tuple[int, int, int]:
    """Domain, vCPU and number of a key."""
    return key >> 47, key >> 31 & 0xFFFF, key & 0x7FFF_FFFF

"""What the scheduler's records tell of vCPUs: who comes onto a CPU, goes on there and leaves it."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xtrace.decode import groups
from xtrace.host.account import Account, Facts_co, Ground
from xtrace.parsers.vectors import RUNSTATES
from xtrace.runstates import CHANGE

if TYPE_CHECKING:
    from xtrace.host.walk import Chunk
    from xtrace.parsers.event import Event
    from xtrace.parsers.registry import Dialect

Ints = NDArray[np.int64]

CONTINUE: Final = "TRC_SCHED_CONTINUE_RUNNING"
RUNNING, RUNNABLE, BLOCKED, OFFLINE = range(len(RUNSTATES))


def is_switch(event: Event) -> bool:
    """Whether its records are read here."""
    return event.name in {CHANGE, CONTINUE}


class Switches(NamedTuple):
    """Changes of run states, in order of time; int64 columns.

    ns, cpu   of the record
    who       domain << 16 | vCPU
    old, new  places in RUNSTATES; both RUNNING where the vCPU was chosen again
    """

    ns: Ints
    cpu: Ints
    who: Ints
    old: Ints
    new: Ints

    @property
    def arrives(self) -> NDArray[np.bool_]:
        """A vCPU comes onto the CPU."""
        found: NDArray[np.bool_] = (self.new == RUNNING) & (self.old != RUNNING)
        return found

    @property
    def leaves(self) -> NDArray[np.bool_]:
        """A vCPU that ran on the CPU does not any more."""
        found: NDArray[np.bool_] = (self.old == RUNNING) & (self.new != RUNNING)
        return found

    @property
    def goes_on(self) -> NDArray[np.bool_]:
        """The vCPU on the CPU runs on."""
        found: NDArray[np.bool_] = (self.old == RUNNING) & (self.new == RUNNING)
        return found

    def take(self, rows: Ints | NDArray[np.bool_] | slice) -> Switches:
        """Some of them."""
        return Switches(*(column[rows] for column in self))

    @classmethod
    def none(cls) -> Switches:
        """No changes."""
        return cls(*np.zeros((5, 0), np.int64))

    @classmethod
    def of(cls, chunk: Chunk, dialect: Dialect) -> Switches:
        """Those of a chunk; times never go back."""
        rows: list[Ints] = []
        who: list[Ints] = []
        old: list[Ints] = []
        new: list[Ints] = []
        for group in groups(chunk, dialect, is_switch):
            count = len(group.rows)
            rows.append(group.rows)
            who.append(group.columns["domid"].astype(np.int64) << 16 | group.columns["vcpuid"])
            states = (str(group.event.constants.get(name, "running")) for name in ("old_state", "new_state"))
            for column, state in zip((old, new), states, strict=True):
                column.append(np.full(count, RUNSTATES.index(state)))
        if not rows:
            return cls.none()
        at = np.concatenate(rows)
        order = np.argsort(at, kind="stable")
        at = at[order]
        ns = np.maximum.accumulate(chunk.ns[at])
        return cls(ns, chunk.cpu[at].astype(np.int64), *(np.concatenate(one)[order] for one in (who, old, new)))


class SwitchesAccount(Account[Facts_co]):
    """An account that follows run states, each capture for itself."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._capture = 0
        self._begin()

    @staticmethod
    def wants(event: Event) -> bool:
        """Changes of run states."""
        return is_switch(event)

    def feed(self, chunk: Chunk) -> None:
        """The next records."""
        if not len(chunk.capture):
            return
        if self._capture != int(chunk.capture[0]):
            self._capture = int(chunk.capture[0])
            self._begin()
        self._follow(Switches.of(chunk, self.ground.dialect))

    @abstractmethod
    def _begin(self) -> None:
        """A capture begins."""

    @abstractmethod
    def _follow(self, switches: Switches) -> None:
        """The next changes of it."""

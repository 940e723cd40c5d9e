"""The summary of a host: all accounts of it, made in one pass over the trace."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xtrace.host import NAMES
from xtrace.host.account import Account, Ground
from xtrace.host.addresses import Addresses, AddressesAccount
from xtrace.host.cpus import Cpus, CpusAccount
from xtrace.host.exits import Exits, ExitsAccount
from xtrace.host.interrupts import Interrupts, InterruptsAccount
from xtrace.host.known import Known
from xtrace.host.memory import Memory, MemoryAccount
from xtrace.host.power import Power, PowerAccount
from xtrace.host.pv import Pv, PvAccount
from xtrace.host.runstates import Runstates, RunstatesAccount
from xtrace.host.volume import Volume, VolumeAccount
from xtrace.host.walk import in_time
from xtrace.host.windows import WHOLE, Windows

if TYPE_CHECKING:
    from xtrace.decode import Batch
    from xtrace.parsers.event import Event
    from xtrace.selection import Selection
    from xtrace.trace import Trace

ACCOUNTS: Final[dict[str, type[Account[Any]]]] = {
    "runstates": RunstatesAccount,
    "cpus": CpusAccount,
    "exits": ExitsAccount,
    "addresses": AddressesAccount,
    "interrupts": InterruptsAccount,
    "pv": PvAccount,
    "memory": MemoryAccount,
    "power": PowerAccount,
    "volume": VolumeAccount,
}


@dataclass(frozen=True, slots=True)
class Host:
    """What a host did in a span of time, as plain data; parts are None where they were not asked for.

    begin_ns, end_ns  the span, since the trace's first timestamp
    """

    begin_ns: int
    end_ns: int
    runstates: Runstates | None
    cpus: Cpus | None
    exits: Exits | None
    addresses: Addresses | None
    interrupts: Interrupts | None
    pv: Pv | None
    memory: Memory | None
    power: Power | None
    volume: Volume | None

    def parts(self) -> Iterator[tuple[str, Any]]:
        """The parts that were asked for, by name, in order."""
        for name in NAMES:
            if (part := getattr(self, name)) is not None:
                yield name, part


@dataclass(frozen=True, slots=True)
class HostSeries:
    """A host in all of the span selected, and in each interval of it; none where no interval was given."""

    whole: Host
    intervals: tuple[Host, ...]


def summary(
    trace: Trace, selection: Selection, names: Collection[str] = NAMES, every_ns: int | None = None
) -> HostSeries:
    """Look at these parts of the host, by one pass over the trace. Raises UsageError for far too many intervals."""
    windows = Windows.of(selection, trace.duration_ns, every_ns)
    cpus = tuple(sorted(trace.survey.cpus))
    known = Known.of(trace)
    ground = Ground(windows, selection, trace.dialect, trace.clock, trace.duration_ns, cpus, known)
    accounts = {name: ACCOUNTS[name](ground) for name in NAMES if name in names}

    def wants(event: Event) -> bool:
        return any(account.wants(event) for account in accounts.values())

    def read(batch: Batch) -> None:
        for account in accounts.values():
            account.read(batch)

    def finish() -> None:
        for account in accounts.values():
            account.finish()

    for chunk in in_time(trace, wants, read, finish):
        for account in accounts.values():
            account.feed(chunk)

    def host(window: int) -> Host:
        found: dict[str, Any] = dict.fromkeys(NAMES)
        found |= {name: account.found(window) for name, account in accounts.items()}
        begin, end = windows.span(window)
        return Host(begin, end, **found)

    return HostSeries(host(WHOLE), tuple(host(window) for window in range(1, windows.intervals + 1)))

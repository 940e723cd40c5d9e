"""VM exits: how often, for what reason, how long until the guest went on, and what handled them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xtrace.contract import frame
from xtrace.host import exit_rows
from xtrace.host.account import Account, packed, unpacked
from xtrace.host.exit_kinds import NAMES, Kind, name_of
from xtrace.host.exit_rows import ExitReader, ExitRows
from xtrace.host.numbering import Numbering
from xtrace.host.shadow_paths import EMULATE, FIXUP, HANDLED, UNSYNC, paths
from xtrace.host.tally import Spread, Tally
from xtrace.host.windows import WHOLE
from xtrace.parsers.vectors import exit_name

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from xtrace.host.account import Ground
    from xtrace.host.walk import Chunk, Ints
    from xtrace.parsers.event import Event

MIX: Final = ("emulate", "unsync", "fixup", "mmio", "propagate", "cr3", "vmcall", "interrupt", "halt", "other")
"""What exits were for, in ten groups; mmio is any access to emulated memory, under shadow paging or not."""
FAST_MMIO, SHADOW_MMIO, HLT = 3, 5, 0x13

REST: Final = -1
"""The reason of exits for which there was no room; a made-up file may have any number of reasons."""
OTHER_NUMBER: Final = -2
KIND_SHIFT, REASON_SHIFT = 34, 40
"""A handling's code: number of the reason, kind, number + 2."""


@dataclass(frozen=True, slots=True)
class ExitReason:
    """Exits of one reason; domain and vcpu are None where of all.

    reason   as recorded: VMX exit reason with its flags, or SVM exit code; None: of reasons beyond the first 4096
    percent  of the span of time, on one CPU: may be above 100 for several vCPUs
    time     from the exit until the guest went on, or its vCPU became runnable; quantiles not weighted
    """

    domain: int | None
    vcpu: int | None
    reason: int | None
    name: str
    percent: float | None
    time: Spread


@dataclass(frozen=True, slots=True)
class ExitHandling:
    """Exits of one vCPU for one reason that one thing handled; those of a reason add up to it.

    kind    interrupt, hypercall, cr_write, msr_read, port_write, npf, page_fault, handler …; none: no record tells
    number  what the kind counts by: vector, hypercall, register, port, p2m type; None where not told
    what    both in words
    """

    domain: int
    vcpu: int
    reason: int | None
    name: str
    kind: str
    number: int | None
    what: str
    percent: float | None
    time: Spread


@dataclass(frozen=True, slots=True)
class ExitPath:
    """Exits of one vCPU in which shadow paging did one thing; an exit may be in several, or in none."""

    domain: int
    vcpu: int
    path: str
    percent: float | None
    time: Spread


@dataclass(frozen=True, slots=True)
class ExitMix:
    """Exits of a domain in one of ten groups (MIX); each exit is in one."""

    domain: int
    group: str
    percent: float | None
    time: Spread


@dataclass(frozen=True, slots=True)
class Exits:
    """VM exits of a span of time, each counted where it begins.

    vendor     vmx or svm, whose names the reasons have; None: unknown
    unended    exits of all the trace whose end was not seen (records lost, end of the trace): they are in no figure;
               None in intervals
    totals     by reason, most time first
    domains    by domain and reason, most time first in each
    vcpus      by vCPU and reason, by number
    handlings  by vCPU, reason and what handled it, by number; most time first in each reason
    paths      what shadow paging did, by vCPU; empty where guests use nested paging
    mixes      by domain and group
    """

    vendor: str | None
    unended: int | None
    totals: tuple[ExitReason, ...]
    domains: tuple[ExitReason, ...]
    vcpus: tuple[ExitReason, ...]
    handlings: tuple[ExitHandling, ...]
    paths: tuple[ExitPath, ...]
    mixes: tuple[ExitMix, ...]

    def df_reasons(self) -> pd.DataFrame:
        """One row a vCPU and reason: domain, vcpu, reason, name, count, times in ns, percent."""
        return frame(({**_flat(one), "reason": one.name} for one in self.vcpus), _dtypes("reason"))

    def df_handlings(self) -> pd.DataFrame:
        """One row a vCPU, reason and what handled it: domain, vcpu, reason, kind, what, count, times in ns, percent."""
        rows = ({**_flat(one), "reason": one.name, "kind": one.kind, "what": one.what} for one in self.handlings)
        return frame(rows, _dtypes("reason", "kind", "what"))


def _flat(one: ExitReason | ExitHandling) -> dict[str, Any]:
    time = {name: getattr(one.time, name) for name in _TIMES}
    return {"domain": one.domain, "vcpu": one.vcpu, "percent": one.percent, **time}


_TIMES: Final = {
    "count": "int64",
    "total_ns": "int64",
    "mean_ns": "float64",
    "p5_ns": "Int64",
    "p50_ns": "Int64",
    "p95_ns": "Int64",
    "max_ns": "Int64",
}


def _dtypes(*names: str) -> dict[str, str]:
    return {"domain": "int64", "vcpu": "int64", **dict.fromkeys(names, "str"), **_TIMES, "percent": "float64"}


class ExitsAccount(Account[Exits]):
    """Counts VM exits; state is followed on all CPUs, exits count that begin on those selected."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._reader = ExitReader(ground.dialect)
        self._reasons, self._handlings, self._paths = Numbering(), Numbering(), Numbering()
        self._path_names: list[str] = []
        self._total, self._domain, self._vcpu, self._handling, self._path, self._mix = (
            Tally(ground.windows) for _ in range(6)
        )

    @staticmethod
    def wants(event: Event) -> bool:
        """Exits, entries, what handles exits, and what a vCPU becoming runnable ends."""
        return exit_rows.wants(event)

    def feed(self, chunk: Chunk) -> None:
        """The next records."""
        rows = self._reader.feed(chunk)
        rows = rows.take(np.flatnonzero(self.ground.on(rows.cpu)))
        if not len(rows.begin_ns):
            return
        time = rows.end_ns - rows.begin_ns
        reason = self._reasons.of(rows.reason, np.full(len(time), REST))
        handling = self._handling_of(rows, reason)
        nobody = np.zeros(len(time), np.int64)
        for tally, domain, vcpu, thing in (
            (self._total, nobody, nobody, reason),
            (self._domain, rows.domain, nobody, reason),
            (self._vcpu, rows.domain, rows.vcpu, reason),
            (self._handling, rows.domain, rows.vcpu, handling),
            (self._mix, rows.domain, nobody, mix_of(rows)),
        ):
            tally.at(packed(domain, vcpu, thing), rows.begin_ns, time)
        for name, taken in paths(rows):
            if name not in self._path_names:
                self._path_names.append(name)
            place = self._path_names.index(name)
            self._path.at(packed(rows.domain, rows.vcpu, place)[taken], rows.begin_ns[taken], time[taken])

    def finish(self) -> None:
        """The capture ends."""
        self._reader.finish()

    def found(self, window: int) -> Exits:
        """What they come to in a window."""
        begin, end = self.ground.windows.span(window)

        def percent(time: Spread) -> float | None:
            return 100 * time.total_ns / (end - begin) if end > begin else None

        def reasons(tally: Tally, *, by_domain: bool, by_vcpu: bool) -> list[ExitReason]:
            found = []
            for key, time in tally.spreads(window).items():
                domain, vcpu, number = unpacked(key)
                reason, name = self._reason(number)
                who = domain if by_domain else None, vcpu if by_vcpu else None
                found.append(ExitReason(*who, reason, name, percent(time), time))
            return found

        totals = reasons(self._total, by_domain=False, by_vcpu=False)
        domains = reasons(self._domain, by_domain=True, by_vcpu=False)
        vcpus = reasons(self._vcpu, by_domain=True, by_vcpu=True)
        handlings = []
        for key, time in self._handling.spreads(window).items():
            domain, vcpu, place = unpacked(key)
            code = self._handlings.codes[place]
            reason, name = self._reason(code >> REASON_SHIFT)
            kind = code >> KIND_SHIFT & (1 << REASON_SHIFT - KIND_SHIFT) - 1
            number = (code & (1 << KIND_SHIFT) - 1) + OTHER_NUMBER
            what = f"{NAMES[Kind(kind)]}, others" if number == OTHER_NUMBER else name_of(kind, number)
            told = number if number >= 0 else None
            row = (domain, vcpu, reason, name, NAMES[Kind(kind)], told, what, percent(time), time)
            handlings.append(ExitHandling(*row))
        shadow = []
        for key, time in self._path.spreads(window).items():
            domain, vcpu, place = unpacked(key)
            shadow.append(ExitPath(domain, vcpu, self._path_names[place], percent(time), time))
        mixes = []
        for key, time in self._mix.spreads(window).items():
            domain, _, group = unpacked(key)
            mixes.append(ExitMix(domain, MIX[group], percent(time), time))
        return Exits(
            self.ground.dialect.vendor,
            self._reader.unended if window == WHOLE else None,
            tuple(sorted(totals, key=lambda one: -one.time.total_ns)),
            tuple(sorted(domains, key=lambda one: (one.domain, -one.time.total_ns))),
            tuple(sorted(vcpus, key=lambda one: (one.domain, one.vcpu, _place(one.reason)))),
            tuple(
                sorted(
                    handlings, key=lambda one: (one.domain, one.vcpu, _place(one.reason), -one.time.total_ns, one.what)
                )
            ),
            tuple(sorted(shadow, key=lambda one: (one.domain, one.vcpu, one.path))),
            tuple(mixes),
        )

    def _handling_of(self, rows: ExitRows, reason: Ints) -> Ints:
        base = reason << REASON_SHIFT | rows.kind.astype(np.int64) << KIND_SHIFT
        return self._handlings.of(base | (rows.number - OTHER_NUMBER), base)

    def _reason(self, number: int) -> tuple[int | None, str]:
        """Its code and its name."""
        code = self._reasons.codes[number]
        return (None, "others") if code == REST else (code, exit_name(code, self.ground.dialect.vendor))


def _place(reason: int | None) -> tuple[bool, int]:
    """Sorts reasons by number, others last."""
    return reason is None, reason or 0


def mix_of(rows: ExitRows) -> NDArray[np.int64]:
    """Place in MIX of each exit."""
    kind, number = rows.kind, rows.number
    fault = kind == Kind.PAGE_FAULT
    mmio = (kind == Kind.MMIO_READ) | (kind == Kind.MMIO_WRITE)
    groups = {
        "emulate": fault & (number == EMULATE),
        "unsync": fault & (number == FIXUP) & (rows.flags & np.uint32(UNSYNC) != 0),
        "fixup": fault & (number == FIXUP),
        "mmio": mmio | (fault & ((number == FAST_MMIO) | (number == SHADOW_MMIO))),
        "propagate": fault & (number != HANDLED),
        "cr3": (kind == Kind.CR_WRITE) & (number == 3),
        "vmcall": kind == Kind.HYPERCALL,
        "interrupt": kind == Kind.INTERRUPT,
        "halt": (kind == Kind.HANDLER) & (number == HLT),
    }
    return np.select(list(groups.values()), [MIX.index(name) for name in groups], MIX.index("other")).astype(np.int64)

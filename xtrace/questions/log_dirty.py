"""Who pays while a domain is log-dirty, as it is when it is migrated live: pages dirtied, what flushes cost whom."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xtrace.context import NOBODY
from xtrace.contract import frame
from xtrace.questions.dirty_phases import Found, Pass, Phase, hits, marking, phase_of
from xtrace.questions.dirtying import by_changes, by_faults
from xtrace.questions.flush_costs import PAYERS, TOOLSTACK, Flushes, Paid
from xtrace.questions.memory_events import (
    CHANGE,
    FAULT,
    RAM_LOGDIRTY,
    RAM_RW,
    MemoryEvents,
    exits_traced,
    may_tell,
)
from xtrace.questions.spans import sums
from xtrace.questions.vcpu_time import VcpuTime

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.questions.paths import Paths
    from xtrace.trace import Trace


MAX_PHASES: Final = 64


@dataclass(frozen=True, slots=True)
class Change:
    """P2M changes of one domain (`of`) by whom a CPU had (`by`, None where not known); pages are those of RAM."""

    by: int | None
    of: int
    entries: int
    pages: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Outside:
    """The time of a trace in which no domain is log-dirty, and what flushes cost dom0 in it."""

    length_ns: int
    flushes: int
    ns: int


@dataclass(frozen=True, slots=True)
class LogDirty:
    """What a trace tells of domains that are log-dirty.

    vendor    vmx or svm, None where not known
    captures  of several, which have no common time, nothing is told
    flushes   whether the trace has calls or flushes, so that it tells what these cost
    changes   None where P2M changes were not traced
    faults    nested page faults of which there is a record; None likewise
    strays    pages dirtied by domains of which no record tells the number
    phases    those with the most pages dirtied first
    left_out  more phases, beyond MAX_PHASES
    outside   None without phases, or without flushes
    """

    vendor: str | None
    captures: int
    flushes: bool
    changes: tuple[Change, ...] | None
    faults: int | None
    strays: int
    phases: tuple[Phase, ...]
    left_out: int
    outside: Outside | None

    def df_passes(self) -> pd.DataFrame:
        """One row a pass, by phase and begin.

        Columns: domain, number (int64, of the pass, from 1), then those of `Pass` (int64 and float64, where something
        can be missing Int64 and Float64; begun str), then for each of PAYERS those of `Paid`, as in `guest_flushes`
        (Int64).
        """
        rows = (
            {"domain": phase.domain, "number": number} | _flat(one)
            for phase in self.phases
            for number, one in enumerate(phase.passes, 1)
        )
        return frame(rows, PASS_COLUMNS)

    def df_changes(self) -> pd.DataFrame:
        """One row a pair of domains, most entries first; columns as `Change` has them: by Int64, the others int64."""
        columns = {one.name: "Int64" if one.name == "by" else "int64" for one in fields(Change)}
        return frame((asdict(one) for one in self.changes or ()), columns)


_DTYPES: Final = {"int": "int64", "int | None": "Int64", "float | None": "Float64", "str": "str"}

PASS_COLUMNS: Final = {
    "domain": "int64",
    "number": "int64",
    **{one.name: _DTYPES[str(one.type)] for one in fields(Pass) if one.name != "paid"},
    **{f"{payer}_{one.name}": "Int64" for payer in PAYERS for one in fields(Paid)},
}
"""The columns of `df_passes` and their dtypes."""


def _flat(one: Pass) -> dict[str, Any]:
    row = asdict(one)
    paid = row.pop("paid") or {}
    return row | {
        f"{payer}_{each.name}": paid[payer][each.name] if paid else None for payer in PAYERS for each in fields(Paid)
    }


def log_dirty(trace: Trace, paths: Paths) -> LogDirty | None:
    """What a trace tells of domains that are log-dirty; None where it has no record that could.

    It takes one pass over the trace, and another where there is something to tell: for how long vCPUs ran. Paths: which
    flushes count; phases and passes are always those of the whole trace.
    """
    if not may_tell(trace):
        return None
    vendor, captures = trace.dialect.vendor, trace.survey.captures
    known = LogDirty(vendor, captures, bool(len(paths.requests.episode)), None, None, 0, (), 0, None)
    if captures > 1:
        return known
    events = MemoryEvents.of(trace)
    change, fault = events.kind == CHANGE, events.kind == FAULT
    proof = bool(change.any()) and vendor != "vmx"
    dirtied = by_changes(events) if proof else by_faults(events, vendor)
    strays = dirtied.domain == NOBODY
    # As a PVH guest dom0 changes a P2M of its own, but nobody migrates it.
    dirtied = dirtied.take(~strays & (dirtied.domain != TOOLSTACK))
    domains, count = np.unique(np.append(dirtied.domain, events.subject[marking(events)]), return_counts=True)
    chosen = domains[np.argsort(-count, kind="stable")].tolist()
    found = Found(
        events,
        dirtied,
        Flushes.of_paths(paths, events, vendor) if known.flushes and chosen else None,
        VcpuTime.of(trace) if chosen else None,
        *hits(paths.requests, vendor),
        changes=bool(change.any()),
        exits=vendor is not None and exits_traced(trace),
        buffers=vendor == "vmx" and exits_traced(trace),
        proof=proof,
    )
    phases = tuple(phase_of(found, domain) for domain in chosen[:MAX_PHASES])
    return replace(
        known,
        changes=_changes(events.take(change)) if found.changes else None,
        faults=int(fault.sum()) if fault.any() else None,
        strays=int(strays.sum()),
        phases=phases,
        left_out=max(0, len(chosen) - MAX_PHASES),
        outside=None if found.flushes is None else _outside(phases, found.flushes, trace.duration_ns),
    )


def _changes(changes: MemoryEvents) -> tuple[Change, ...]:
    """By whom and of whom, most entries first."""
    who = np.stack((changes.domain, changes.subject), axis=1)
    pairs, which, count = np.unique(who, axis=0, return_inverse=True, return_counts=True)
    which = which.ravel()
    pages = sums(which, np.where(np.isin(changes.type, (RAM_RW, RAM_LOGDIRTY)), changes.pages, 0), len(pairs))
    first, last = np.full(len(pairs), np.iinfo(np.int64).max), np.full(len(pairs), np.iinfo(np.int64).min)
    np.minimum.at(first, which, changes.ns)
    np.maximum.at(last, which, changes.ns)
    rows = zip(*(values.tolist() for values in (pairs, count, pages, first, last)), strict=True)
    found = (Change(None if by == NOBODY else by, of, *figures) for (by, of), *figures in rows)
    return tuple(sorted(found, key=lambda one: -one.entries))


def _outside(phases: tuple[Phase, ...], flushes: Flushes, duration_ns: int) -> Outside:
    """What is in no phase."""
    rows, inside, until = flushes.domain == TOOLSTACK, 0, 0
    for phase in sorted(phases, key=lambda one: one.whole.begin_ns):
        begin, end = phase.whole.begin_ns, phase.whole.end_ns
        rows &= ~((flushes.start >= begin) & (flushes.start <= end))
        inside += max(0, end - max(begin, until))
        until = max(until, end)
    return Outside(max(0, duration_ns - inside), int(rows.sum()), int(flushes.ns[rows].sum()))

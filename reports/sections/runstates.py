"""Run states: what vCPUs did, why they waited, what of a domain ran at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.context import IDLE_DOMAIN, domain_name, vcpu_name
from xtrace.reports import bars, parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from xtrace.host.runstates import DomainStates, Runstates, VcpuStates
    from xtrace.host.tally import Spread

TITLE: Final = "Run states"
NONE: Final = "None: no vCPU is seen to run, or changes of run states were not traced."
MEANING: Final = (
    "A vCPU counts from when it is first seen to run. It is runnable while it waits for a CPU: woken, if it had been "
    "blocked before; preempted, if it had been running. Quantiles are weighted by time: half of the time passed in "
    "stays of p50 or less. A stay in running ends, too, where the scheduler chooses the same vCPU again."
)

STATES: Final = ("running", "runnable", "blocked", "offline", "lost")
CAUSES: Final = {"woken": "  woken", "preempted": "  preempted"}
AT_ONCE: Final = {
    "full_run": "full run",
    "partial_run": "partial run",
    "concurrency_hazard": "concurrency hazard",
    "partial_contention": "partial contention",
    "full_contention": "full contention",
    "blocked": "blocked",
    "lost": "lost",
}
SHORT: Final = ("full run", "part run", "hazard", "part cont.", "full cont.", "blocked", "lost")
"""The same as heads of columns."""
SPREAD: Final = tuple(map(Head, ("stays", "time", "mean", "p5", "p50", "p95", "longest")))


def answer(found: Runstates) -> Iterator[str]:
    """How much of the time in which guests' vCPUs could have run they waited, and who did most."""
    guests = [one for one in found.vcpus if one.domain != IDLE_DOMAIN]
    ran, waited = (sum(_time(one, state) for one in guests) for state in ("running", "runnable"))
    if not ran + waited:
        return
    told = f"vCPUs with work to do waited for a CPU {_percent(waited, ran + waited)} of the time"
    worst = max(guests, key=lambda one: (_waiting(one), _time(one, "runnable")))
    if len(guests) > 1 and _waiting(worst):
        told += f", most {vcpu_name(worst.domain, worst.vcpu)} ({100 * _waiting(worst):.1f} %)"
    if waited:
        woken = sum(_time(one, "woken") for one in guests)
        preempted = sum(_time(one, "preempted") for one in guests)
        told += f"; {_percent(woken, waited)} of that after a wake-up, {_percent(preempted, waited)} preempted"
    yield f"{told}."


def section(found: Runstates) -> Section:
    """Shares first, then all figures."""
    if not found.vcpus:
        return Section("runstates", TITLE, (NONE,))
    return Section("runstates", TITLE, tuple(_text(found)), (), tuple(_tables(found)))


def _text(found: Runstates) -> Iterator[str]:
    yield from answer(found)
    yield MEANING
    if found.unexpected:
        yield (
            f"{units.count(found.unexpected)} changes left another state than the one known, as records are missing "
            "or clocks differ: how long that state lasted is in no figure."
        )
    if found.domains is None:
        yield "What vCPUs of a domain did at the same time cannot be told of some CPUs only."


def _tables(found: Runstates) -> Iterator[Table]:
    guests = [one for one in found.vcpus if one.domain != IDLE_DOMAIN]
    ranked = sorted(guests, key=lambda one: (-_waiting(one), one.domain, one.vcpu))
    heads = (Head("vCPU", False), Head("time known"), *(Head(state) for state in STATES), Head("waiting of able"))
    yield parts.table(
        "Share of each vCPU's time in each state, most waiting first; of able: of running and runnable",
        heads,
        [(_who(one), *_shares(one, STATES), Cell(*_of_able(one))) for one in ranked],
        "vCPUs",
    )
    if found.domains:
        names = zip(SHORT, AT_ONCE.values(), strict=True)
        heads = (Head("domain", False), Head("time known"), *(Head(short, title=name) for short, name in names))
        yield parts.table(
            "Share of each domain's time by what its vCPUs did at the same time; hazard: some run while others wait; "
            "cont.: none runs, some or all wait",
            heads,
            [
                (Cell(domain_name(one.domain), one.domain), *_shares(one, tuple(AT_ONCE)))
                for one in found.domains
                if one.domain != IDLE_DOMAIN
            ],
            "domains",
        )
    waits = [(_time(one, cause), one, cause) for one in guests for cause in CAUSES if _time(one, cause)]
    if waits:
        waits.sort(key=lambda wait: (-wait[0], wait[1].domain, wait[1].vcpu))
        yield parts.table(
            "Waiting for a CPU, by vCPU and cause, most time first; quantiles weighted by time",
            (Head("vCPU", False), Head("cause", False), *SPREAD),
            [(_who(one), Cell(cause), *_spread(getattr(one, cause))) for _, one, cause in waits],
            "lines",
        )
    yield parts.table(
        "All states of all vCPUs; quantiles weighted by time",
        (Head("vCPU", False), Head("state", False), *SPREAD),
        [(_who(one), Cell(state), *_spread(getattr(one, state))) for one in found.vcpus for state in _states(one)],
        "lines",
    )
    if found.domains:
        yield parts.table(
            "All states of all domains, from change to change of any vCPU; quantiles weighted by time",
            (Head("domain", False), Head("state", False), *SPREAD),
            [
                (Cell(domain_name(one.domain), one.domain), Cell(name), *_spread(getattr(one, state)))
                for one in found.domains
                for state, name in AT_ONCE.items()
                if getattr(one, state)
            ],
            "lines",
        )


def pictures(found: Runstates) -> tuple[Picture, ...]:
    """What vCPUs did, in one bar each."""
    shown = {
        _name(one): {state: _time(one, state) / 1e9 for state in STATES if _time(one, state)}
        for one in found.vcpus
        if one.domain != IDLE_DOMAIN
    }
    if not shown:
        return ()
    figure = bars.stacked(shown, "seconds")
    return (
        parts.picture(
            figure, "runstates", "What vCPUs did", "Time of each vCPU by run state; of many, those with most time."
        ),
    )


def _time(one: VcpuStates | DomainStates, state: str) -> int:
    spread: Spread | None = getattr(one, state)
    return spread.total_ns if spread else 0


def _states(one: VcpuStates) -> Iterator[str]:
    for state in ("running", "runnable", *CAUSES, *STATES[2:]):
        if getattr(one, state):
            yield state


def _waiting(one: VcpuStates) -> float:
    able = _time(one, "running") + _time(one, "runnable")
    return _time(one, "runnable") / able if able else 0.0


def _of_able(one: VcpuStates) -> tuple[str, float | None]:
    if not _time(one, "running") + _time(one, "runnable"):
        return "–", None
    return f"{100 * _waiting(one):.1f} %", _waiting(one)


def _shares(one: VcpuStates | DomainStates, states: tuple[str, ...]) -> tuple[Cell, ...]:
    whole = sum(_time(one, state) for state in states)
    shares = (_time(one, state) / whole if whole else 0.0 for state in states)
    return (parts.time(whole), *(Cell(f"{100 * share:.1f} %" if share else "–", share) for share in shares))


def _spread(one: Spread) -> tuple[Cell, ...]:
    times = (one.total_ns, one.mean_ns, one.p5_ns, one.p50_ns, one.p95_ns, one.max_ns)
    return (parts.count(one.count), *map(parts.time, times))


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def _name(one: VcpuStates) -> str:
    return f"idle, CPU {one.vcpu}" if one.domain == IDLE_DOMAIN else vcpu_name(one.domain, one.vcpu)


def _who(one: VcpuStates) -> Cell:
    return Cell(_name(one), (one.domain << 16) + one.vcpu)

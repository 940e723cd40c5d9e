"""Cost by domain: who pays for calls and flushes, as a caller and as a target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.context import IDLE_DOMAIN, domain_name, vcpu_name
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.reports import parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xtrace.questions.cost import Account, Cost, Interference

NAMED: Final = 3
"""Domains that a sentence names."""
ONE_DOMAIN: Final = 0.9
"""A domain that paid so much of what a function cost is named with it."""
MATRIX: Final = 7
"""Domains that a table has columns for."""
MAP: Final = 16
"""Domains that a picture has room for."""

UNKNOWN: Final = (
    "No record says which domain was on which CPU, so who pays cannot be told: trace scheduler events, too."
)


def answer(found: Cost) -> Iterator[str]:
    """Who pays, most expensive kind first."""
    if not found.callers:
        return
    if not found.known:
        yield UNKNOWN
        return
    for kind in kinds(found):
        accounts = [one for one in found.accounts if one.kind == kind and one.cost_ns > 0]
        if accounts:
            yield f"Who pays for {KIND_NOUNS[kind]}: {_shares(accounts)}; {_how(found, accounts)}."


def kinds(found: Cost) -> list[str]:
    """Calls and flushes, what cost domains most first."""
    cost = dict.fromkeys((one.kind for one in found.callers), 0)
    for one in found.accounts:
        cost[one.kind] = cost.get(one.kind, 0) + one.cost_ns
    return sorted(cost, key=lambda kind: -cost[kind])


def _shares(accounts: Sequence[Account]) -> str:
    named = [one for one in accounts[:NAMED] if (one.cost_percent or 0) >= 1] or accounts[:1]
    told = [f"d{one.domain} {units.time(one.cost_ns)} ({one.cost_percent or 0:.0f} %)" for one in named]
    more = accounts[len(named) :]
    if more:
        noun = "other domain" if len(more) == 1 else "other domains"
        told.append(f"{units.count(len(more))} {noun} {units.time(sum(one.cost_ns for one in more))}")
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"


def _how(found: Cost, accounts: Sequence[Account]) -> str:
    """As callers or as targets; and what most was paid for."""
    paid, lost = sum(one.paid_ns for one in accounts), sum(one.lost_ns for one in accounts)
    told = []
    if paid:
        told.append(f"{units.time(paid)} as callers that wait, {_for_what(found, accounts[0].kind, paid)}")
    if lost:
        told.append(f"{units.time(lost)} to functions that interrupted them")
    return ", and ".join(told)


def _for_what(found: Cost, kind: str, paid: int) -> str:
    works = [one for one in found.works if one.kind == kind and one.domain not in (None, IDLE_DOMAIN)]
    by_name: dict[str, int] = {}
    for one in works:
        by_name[one.name] = by_name.get(one.name, 0) + one.paid_ns
    name, most = max(by_name.items(), key=lambda item: item[1])
    whose = [one.domain for one in works if one.name == name and one.paid_ns >= ONE_DOMAIN * most]
    part = "all" if most == paid else units.time(most)
    return f"{part} of it for {_short(name)}" + "".join(f" by d{domain}" for domain in whose)


def section(found: Cost) -> Section:
    """Who paid, for what, and who took it from whom."""
    if not found.callers:
        return Section("cost", "Who pays", ("No request of this selection is complete.",))
    tables = []
    for kind in kinds(found):
        tables += [*_accounts(found, kind), *_matrix(found, kind)]
    tables += [_works(found), _callers(found), *_victims(found)]
    return Section("cost", "Who pays", (*answer(found), *_meaning(found)), (), tuple(tables))


def _meaning(found: Cost) -> Iterator[str]:
    if not found.known:
        return
    yield (
        "A caller pays from START to DONE; a vCPU on a target loses ENTER to EXIT of each function. What surrounds a "
        "function (interrupt entry, VM exit and entry, waking up, cold caches) is not traced and in no figure."
    )
    yield (
        "A request counts for the vCPU that was on the caller’s CPU, whether that asked for it or Xen did by itself, "
        "as it does for time calibration."
    )
    idle, own, unknown = (
        sum(getattr(one, name) for one in found.elsewhere) for name in ("idle_ns", "own_ns", "unknown_ns")
    )
    if idle or own or unknown:
        told = [
            f"{units.time(ns)} {where}"
            for ns, where in (
                (idle, "on idle CPUs"),
                (own, "on callers’ own CPUs, part of what they paid"),
                (unknown, "where no record says who was there"),
            )
            if ns
        ]
        yield f"Functions that took nothing from these vCPUs: {', '.join(told)}."
    nobody = sum(one.paid_ns for one in found.callers if one.domain in (None, IDLE_DOMAIN))
    if nobody:
        yield f"Callers on idle CPUs, or where no record says who was there, waited {units.time(nobody)}."


def _accounts(found: Cost, kind: str) -> Iterator[Table]:
    accounts = [one for one in found.accounts if one.kind == kind]
    if not accounts:
        return
    nouns = KIND_NOUNS[kind]
    heads = (
        Head("domain", False),
        Head(nouns),
        Head("paid", title="by its vCPUs as callers, START to DONE"),
        Head("lost", title="by its vCPUs on targets, ENTER to EXIT of functions"),
        Head("in both", title="lost while the vCPU was a caller itself"),
        Head("cost", title="paid and lost, what is in both once"),
        Head("% of all"),
        Head("took from others", title="by its requests, from vCPUs of other domains"),
    )
    rows = [
        (
            _domain(one.domain),
            parts.count(one.requests),
            *map(parts.time, (one.paid_ns, one.lost_ns, one.waiting_ns, one.cost_ns)),
            Cell("–") if one.cost_percent is None else Cell(f"{one.cost_percent:.1f}", one.cost_percent),
            parts.time(one.taken_ns),
        )
        for one in accounts
    ]
    yield parts.table(f"What {nouns} cost each domain, as a caller and as a target", heads, rows, "domains")


def _matrix(found: Cost, kind: str) -> Iterator[Table]:
    """Who took from whom: a row a domain that asked, a column a domain that lost."""
    taken = {(one.initiator, one.victim): one for one in found.interference if one.kind == kind}
    if not taken:
        return
    lost, by = _sums(taken.values())
    victims = _most(lost, MATRIX)
    heads = [Head("asked", False), *(Head(f"from d{victim}") for victim in victims), Head("in all"), Head("functions")]
    rows = []
    for initiator in _most(by, len(by)):
        cells = [taken.get((initiator, victim)) for victim in victims if victim is not None]
        functions = sum(one.interruptions for one in taken.values() if one.initiator == initiator)
        times = [parts.time(one.stolen_ns) if one else Cell("") for one in cells]
        rows.append((_domain(initiator), *times, parts.time(by[initiator]), parts.count(functions)))
    only = f"; of {units.count(len(lost))} domains the {MATRIX} that lost most" if len(lost) > MATRIX else ""
    yield parts.table(
        f"Time that functions of {KIND_NOUNS[kind]} took, by domain that asked and vCPUs’ domain that lost{only}",
        heads,
        rows,
        "domains",
    )


def _sums(some: Iterable[Interference]) -> tuple[dict[int | None, int], dict[int | None, int]]:
    """What was taken from each domain, and by the requests of each."""
    lost: dict[int | None, int] = {}
    by: dict[int | None, int] = {}
    for one in some:
        lost[one.victim] = lost.get(one.victim, 0) + one.stolen_ns
        by[one.initiator] = by.get(one.initiator, 0) + one.stolen_ns
    return lost, by


def _most(sums: Mapping[int | None, int], count: int) -> list[int | None]:
    """Those with the largest sums, by number; what is not known last."""
    most = sorted(sums, key=lambda domain: -sums[domain])[:count]
    return sorted(most, key=lambda domain: (domain is None, domain or 0))


def _works(found: Cost) -> Table:
    heads = (
        Head("domain", False),
        Head("function or flush", False),
        *map(Head, ("requests", "targets", "paid", "mean")),
        Head("took", title="by its functions, from vCPUs on targets"),
    )
    rows = [
        (
            _domain(one.domain),
            Cell(_short(one.name)),
            parts.count(one.requests),
            parts.count(one.targets),
            parts.time(one.paid_ns),
            parts.time(one.paid_ns / one.requests),
            parts.time(one.stolen_ns if found.known else None),
        )
        for one in sorted(found.works, key=lambda one: -one.paid_ns)
    ]
    return parts.table("Calls by function and flushes by kind, by the caller’s domain", heads, rows, "lines")


def _short(name: str) -> str:
    """A symbol without its source file, which static functions have in front."""
    return name.rpartition("#")[2]


def _callers(found: Cost) -> Table:
    heads = (
        Head("vCPU", False),
        Head("", False),
        Head("count"),
        Head("paid"),
        Head("% of span", title="of the time from the first START to the last DONE"),
        Head("lock", title="until nobody else had the lock, or its own earlier call was answered"),
        Head("to SEND", title="and then until SEND"),
        Head("targets", title="and then until the last target had answered"),
        Head("to DONE", title="and then until DONE"),
    )
    rows = [
        (
            _vcpu(one.domain, one.vcpu),
            Cell(KIND_NOUNS[one.kind]),
            parts.count(one.requests),
            parts.time(one.paid_ns),
            _part(one.paid_ns, found.span_ns),
            *map(parts.time, (one.lock_ns, one.before_ns, one.target_ns, one.after_ns)),
        )
        for one in sorted(found.callers, key=lambda one: -one.paid_ns)
    ]
    return parts.table(f"What callers paid, by vCPU, within {units.time(found.span_ns)}", heads, rows, "lines")


def _part(ns: int, whole: int) -> Cell:
    return Cell("–") if not whole else Cell(f"{100 * ns / whole:.2f}", 100 * ns / whole)


def _victims(found: Cost) -> Iterator[Table]:
    if not found.victims:
        return
    heads = (
        Head("vCPU", False),
        Head("of", False),
        Head("functions"),
        Head("lost"),
        Head("longest"),
        Head("in the guest"),
        Head("in Xen"),
        Head("as a caller", title="inside a call or flush of its own, which it pays for anyway"),
        Head("not known", title="a PV guest, which cannot be told from Xen"),
    )
    rows = [
        (
            _vcpu(one.domain, one.vcpu),
            Cell(KIND_NOUNS[one.kind]),
            parts.count(one.interruptions),
            *map(
                parts.time,
                (one.stolen_ns, one.max_ns, one.guest_ns, one.hypervisor_ns, one.waiting_ns, one.unknown_ns),
            ),
        )
        for one in sorted(found.victims, key=lambda one: -one.stolen_ns)
    ]
    yield parts.table("What vCPUs lost to functions that interrupted them, by where they were", heads, rows, "lines")


def _domain(domain: int | None) -> Cell:
    return Cell(_name(domain), domain)


def _name(domain: int | None) -> str:
    if domain is None:
        return "not known"
    return domain_name(domain)


def _vcpu(domain: int | None, vcpu: int | None) -> Cell:
    return Cell(_name(domain) if domain is None or vcpu is None else vcpu_name(domain, vcpu))


def pictures(found: Cost) -> tuple[Picture, ...]:
    """What domains paid and lost, and who took from whom."""
    shown = []
    if found.accounts:
        shown.append(
            parts.picture(
                balance(found),
                "cost-balance",
                "What each domain paid and lost",
                "Paid: START to DONE of its vCPUs’ requests; lost: functions on their CPUs. The axis is logarithmic.",
            )
        )
    shown += [
        parts.picture(
            interference_map(found, kind),
            f"cost-{kind}-interference",
            f"Who took time from whom, {KIND_NOUNS[kind]}",
            "Time that functions took from vCPUs of the domain below, by domain that asked for them. Darker is more.",
        )
        for kind in kinds(found)
        if any(one.kind == kind and one.stolen_ns > 0 for one in found.interference)
    ]
    return tuple(shown)


def balance(found: Cost) -> Figure:
    """A Matplotlib Figure: a line a kind and domain, what it paid and what it lost."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    from xtrace.reports.svg import AFTER, BAD, GRID, style

    rows = [one for kind in kinds(found) for one in found.accounts if one.kind == kind and one.cost_ns > 0][:MAP]
    with style():
        figure = Figure(figsize=(5.0, 1.0 + 0.3 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        sides = [(BAD, "paid", [one.paid_ns for one in rows]), (AFTER, "lost", [one.lost_ns for one in rows])]
        for y, one in enumerate(rows):
            if one.paid_ns and one.lost_ns:
                axes.plot([one.paid_ns, one.lost_ns], [y, y], color=GRID, linewidth=2)
        for colour, label, times in sides:
            shown = [(ns, y) for y, ns in enumerate(times) if ns > 0]
            axes.plot([ns for ns, _ in shown], [y for _, y in shown], "o", color=colour, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, numticks=7))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: units.time(value).replace(".00", "").replace(".0", ""))
        )
        axes.xaxis.set_minor_formatter("")
        axes.set_yticks(range(len(rows)), [f"{_name(one.domain)}, {KIND_NOUNS[one.kind]}" for one in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def interference_map(found: Cost, kind: str) -> Figure:
    """A Matplotlib Figure of the matrix of a kind, of the MAP domains on each side with most."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from xtrace.reports.svg import BAD, style

    fields = {(one.initiator, one.victim): one.stolen_ns for one in found.interference if one.kind == kind}
    lost, by = _sums(one for one in found.interference if one.kind == kind)
    victims, initiators = _most(lost, MAP), _most(by, MAP)
    most = max(fields.values())
    with style():
        size = max(2.6, 1.2 + 0.75 * len(victims)), max(2.2, 0.9 + 0.42 * len(initiators))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        for y, initiator in enumerate(initiators):
            for x, victim in enumerate(victims):
                ns = fields.get((initiator, victim or 0), 0)
                if ns > 0:
                    axes.add_patch(
                        Rectangle(
                            (x - 0.48, y - 0.46), 0.96, 0.92, color=BAD, alpha=0.08 + 0.6 * ns / most, linewidth=0
                        )
                    )
                    axes.text(x, y, units.time(ns), ha="center", va="center", fontsize=8)
        axes.set_xticks(range(len(victims)), [_name(one) for one in victims])
        axes.set_yticks(range(len(initiators)), [_name(one) for one in initiators])
        axes.set_xlim(-0.5, len(victims) - 0.5)
        axes.set_ylim(len(initiators) - 0.5, -0.5)
        axes.set_xlabel("domain that lost")
        axes.set_ylabel("domain that asked")
        axes.grid(False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure

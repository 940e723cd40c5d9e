"""Log-dirty phases: what a guest dirtied while it was migrated, and who paid for flushes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.questions.dirtying import PML_PAGES
from xtrace.reports import parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xtrace.questions.dirty_phases import Pass, Phase
    from xtrace.questions.flush_costs import Paid
    from xtrace.questions.log_dirty import LogDirty, Outside

MAX_TOLD: Final = 4
"""Phases that have sentences and a picture; tables have all."""
MAX_LINES: Final = 200
NS_PER_S: Final = 1e9
TELLING_NS: Final = 1_000_000_000
"""What flushes cost in a shorter time is not compared with another."""

BEGUN: Final = {
    "first": "first seen",
    "marked": "pages marked",
    "paused": "domain paused",
    "flushed": "dom0 flushed",
    "again": "dirtied again",
}


def section(found: LogDirty | None) -> Section:
    """All of it, or what is missing for that."""
    if found is None or not found.phases:
        text, tables = list(_nothing(found)), list(_changes(found))
    else:
        text = [sentence for phase in found.phases[:MAX_TOLD] for sentence in _told(phase, found.outside)]
        text += _limits(found)
        tables = [*_who(found.phases), _dirtied(found.phases), *_flushed(found.phases), *_changes(found)]
    return Section("log-dirty", "Log-dirty phases: who pays for a migration", tuple(text), (), tuple(tables))


def answer(found: LogDirty | None) -> Iterator[str]:
    """Who paid, in the phase in which most pages were dirtied."""
    if found is not None and found.phases:
        yield _cost(found.phases[0])
        yield from _memory(found.phases[0], found.outside)


def pictures(found: LogDirty | None) -> tuple[Picture, ...]:
    """The first phases over time."""
    return tuple(
        parts.picture(
            course(phase),
            f"log-dirty-{number}",
            f"{_name(phase.domain)} log-dirty, over time",
            "Above: pages dirtied a second; dotted lines are where passes begin. Below: vCPU time of the domain and of "
            "dom0 that waited for flushes, as a share of one CPU.",
            wide=True,
        )
        for number, phase in enumerate(() if found is None else found.phases[:MAX_TOLD])
    )


def _nothing(found: LogDirty | None) -> Iterator[str]:
    if found is None:
        yield (
            "The trace holds neither P2M changes nor nested page faults, by which log-dirty phases are seen: capture "
            "the classes mem and hvm, too (`xentrace -e all`)."
        )
    elif found.captures > 1:
        yield (
            f"The file holds {found.captures} captures one behind the other, which have no common time: give them one "
            "by one to see log-dirty phases."
        )
    elif found.strays:
        yield f"{units.count(found.strays)} pages were dirtied, but no record tells whose: capture class sched, too."
    else:
        yield "No domain was log-dirty as far as this trace tells: no guest made a page writable by writing to it."
        if found.faults is None and (found.vendor == "vmx" or found.changes is None):
            yield "It holds no nested page faults: if guests ran, capture class hvm, too (`xentrace -e all`)."


def _told(phase: Phase, outside: Outside | None) -> Iterator[str]:
    yield _cost(phase)
    yield from _memory(phase, outside)
    yield from _subjects(phase)
    yield from _filled(phase)
    yield _passes(phase)


def _cost(phase: Phase) -> str:
    whole, name, count = phase.whole, _name(phase.domain), len(phase.passes)
    passes = "1 pass" if count == 1 else f"at least {units.count(count)} passes"
    rate = "" if whole.dirtied_per_s is None else f" ({_rate(whole.dirtied_per_s)} a second)"
    start = (
        f"While {name} was log-dirty (seen for {units.time(whole.end_ns - whole.begin_ns)}, {passes}) it dirtied "
        f"{'at least ' if whole.full else ''}{units.count(whole.dirtied)} pages{rate}"
    )
    if whole.paid is None:
        return f"{start}; the trace has no flushes, so it does not tell what that cost."
    guest = whole.paid["guest"]
    share = f", {100 * guest.ns / whole.ran_ns:.1f} % of the time that its vCPUs ran" if whole.ran_ns else ""
    return (
        f"{start}, and its own flushes cost it {_spent(guest)}{share}; dom0, where the toolstack runs, paid "
        f"{_spent(whole.paid['toolstack'])}."
    )


def _memory(phase: Phase, outside: Outside | None) -> Iterator[str]:
    whole = phase.whole
    if whole.paid is None:
        return
    guest, toolstack = whole.paid["guest"], whole.paid["toolstack"]
    if not guest.memory_flushes + toolstack.memory_flushes:
        yield "None of these flushes was for a change of a guest's memory, which is what log-dirty tracking asks for."
        return
    start = (
        "Flushes for changes of a guest's memory, which is what log-dirty tracking asks for, cost "
        f"{_name(phase.domain)} {units.time(guest.memory_ns)} and dom0 "
        f"{units.time(toolstack.memory_ns) if toolstack.memory_flushes else 'nothing'}"
    )
    length = whole.end_ns - whole.begin_ns
    if outside is None or min(outside.length_ns, length) < TELLING_NS:
        yield f"{start}."
        return
    yield (
        f"{start}; all else that dom0 flushed cost it {_a_second(toolstack.ns - toolstack.memory_ns, length)} then, "
        f"and {_a_second(outside.ns, outside.length_ns)} while no domain was log-dirty."
    )


def _subjects(phase: Phase) -> Iterator[str]:
    if not phase.subjects:
        return
    total = sum(one.flushes for one in phase.subjects)
    known = [one for one in phase.subjects if one.domain is not None]
    count = sum(one.flushes for one in known)
    whose = sorted({one.domain for one in known if one.domain is not None})
    memory = f", {'all ' if len(whose) == 1 else ''}of the memory of {', '.join(map(_name, whose))}" if whose else ""
    yield (
        f"Of {units.count(total)} flushes for a guest's memory {units.count(count)} ({100 * count / total:.1f} %) "
        f"follow a P2M change that the same domain made on the same CPU{memory}."
    )


def _filled(phase: Phase) -> Iterator[str]:
    whole = phase.whole
    length = whole.end_ns - whole.begin_ns
    if whole.filled and length:
        yield (
            f"Meanwhile dom0 put {units.count(whole.filled)} pages into other domains "
            f"({_rate(whole.filled * NS_PER_S / length)} a second), as it does on a host that receives a guest; "
            f"{_name(phase.domain)} dirtied {whole.dirtied / whole.filled:.2g} times as many."
        )


def _passes(phase: Phase) -> str:
    name, more = _name(phase.domain), len(phase.passes) - 1
    if not more:
        if phase.told_by == "changes":
            return f"One pass: no page of {name} was dirtied twice, as it would be if all were marked log-dirty anew."
        return f"One pass: no moment shows at which the pages of {name} were marked log-dirty anew."
    ways: dict[str, int] = {}
    for one in phase.passes[1:]:
        ways[BEGUN[one.begun]] = ways.get(BEGUN[one.begun], 0) + 1
    return (
        f"The pages of {name} were marked log-dirty anew {units.count(more)} times; what tells the moment: "
        f"{', '.join(f'{way} ({units.count(count)})' for way, count in ways.items())}."
    )


def _limits(found: LogDirty) -> Iterator[str]:
    if found.left_out:
        yield f"{units.count(found.left_out)} more domains, of which fewer pages were dirtied, are left out."
    full = sum(phase.whole.full or 0 for phase in found.phases)
    if found.vendor == "vmx":
        seen = f"{units.count(full)} exits for a full log were" if full else "no exit for a full log was"
        yield (
            "On Intel neither P2M changes nor the draining of page-modification logs leave records: all that shows is "
            f"an exit where a log of {PML_PAGES} pages is full, and {seen} seen."
        )


def _who(phases: tuple[Phase, ...]) -> Iterator[Table]:
    rows = [
        (
            Cell(_name(phase.domain)),
            Cell(_payer(payer, phase)),
            parts.count(one.flushes),
            parts.time(one.ns),
            _per_second(one.ns, phase.whole),
            parts.count(one.memory_flushes),
            parts.time(one.memory_ns),
            *(parts.time(value) for value in (one.lock_ns, one.queue_ns, one.serving_ns, one.stolen_ns)),
        )
        for phase in phases
        for payer, one in (phase.whole.paid or {}).items()
        if one.flushes or one.stolen_ns
    ]
    heads = [
        Head("while", False, "the domain that was log-dirty"),
        Head("who", False, "had the CPU that flushed, or that was interrupted"),
        Head("flushes"),
        Head("paid", title="START to DONE"),
        Head("a second", title="paid, for each second of the phase"),
        Head("memory", title="flushes for changes of a guest's memory"),
        Head("paid", title="for them"),
        Head("lock", title="of all that was paid: others had the lock"),
        Head("queue", title="of all that was paid: the last target ran functions of others first"),
        Head("serving", title="of all that was paid: the caller ran functions of others"),
        Head("stolen", title="functions of other CPUs' flushes on its CPUs"),
    ]
    if rows:
        yield parts.table("Who paid for flushes, and what others took from whom", heads, rows, "payers")


_WHICH: Final = (Head("while", False, "the domain that was log-dirty"), Head("pass"), Head("at"))


def _which(phase: Phase, number: int, one: Pass) -> tuple[Cell, ...]:
    return Cell(_name(phase.domain)), Cell(str(number), number), _at(one.begin_ns)


def _dirtied(phases: tuple[Phase, ...]) -> Table:
    rows = [
        (
            *_which(phase, number, one),
            parts.time(one.end_ns - one.begin_ns),
            Cell(BEGUN[one.begun]),
            parts.count(one.dirtied),
            _figure(one.dirtied_per_s),
            parts.time(one.ran_ns),
            _figure(one.dirtied_per_ran_s),
            _count(one.changed),
            _count(one.faults),
            _count(one.filled),
        )
        for phase in phases
        for number, one in enumerate(phase.passes, 1)
    ]
    heads = [
        *_WHICH,
        Head("length"),
        Head("begins", False, "what tells that"),
        Head("dirtied", title="pages, by their first write"),
        Head("a second", title="pages dirtied"),
        Head("ran", title="vCPUs of the domain, summed"),
        Head("per s ran", title="pages dirtied for each second for which a vCPU ran"),
        Head("P2M", title="entries of its P2M changed"),
        Head("faults", title="VM exits for nested page faults"),
        Head("filled", title="pages that dom0 put into other domains"),
    ]
    return parts.table("Passes: pages dirtied, and for how long the vCPUs ran", heads, rows, "passes")


def _flushed(phases: tuple[Phase, ...]) -> Iterator[Table]:
    rows = [
        (
            *_which(phase, number, one),
            *(
                cell
                for paid in (one.paid[payer] for payer in ("guest", "toolstack", "others"))
                for cell in (parts.count(paid.flushes), parts.time(paid.ns))
            ),
            _figure(one.changed_per_flush),
            _figure(one.flushes_per_page),
        )
        for phase in phases
        for number, one in enumerate(phase.passes, 1)
        if one.paid is not None
    ]
    heads = [
        *_WHICH,
        *(head for who in ("own", "dom0's", "others'") for head in (Head(who, title="flushes"), Head("paid"))),
        Head("P2M a flush", title="entries of its P2M changed, for each of its own flushes for that"),
        Head("per page", title="own flushes for changes of its memory, for each page dirtied"),
    ]
    if rows:
        yield parts.table("Passes: flushes of the domain, of dom0 and of others", heads, rows, "passes")


def _changes(found: LogDirty | None) -> Iterator[Table]:
    changes = None if found is None else found.changes
    rows = [
        (
            Cell("not known" if one.by is None else _name(one.by)),
            Cell(_name(one.of)),
            parts.count(one.entries),
            parts.count(one.pages),
            _at(one.first_ns),
            _at(one.last_ns),
        )
        for one in changes or ()
    ]
    heads = [
        Head("by", False, "had the CPU"),
        Head("of", False, "whose memory"),
        Head("entries"),
        Head("pages", title="of RAM"),
        Head("first"),
        Head("last"),
    ]
    if rows:
        yield parts.table("P2M changes: by whom, of whose memory", heads, rows, "pairs of domains")


def course(phase: Phase) -> Figure:
    """A Matplotlib Figure of a phase over time: pages dirtied (and marked) a second; what flushes took of whom."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from xtrace.reports.svg import ACCENT, AFTER, BEFORE, GRID, PHASE_4, style

    over = phase.course
    edges = (over.begin_ns + over.width_ns * np.arange(len(over.dirtied) + 1, dtype=np.float64)) / NS_PER_S
    upper = [("dirtied", ACCENT, over.dirtied), ("marked", PHASE_4, over.marked if any(over.marked) else None)]
    lower = [(_name(phase.domain), AFTER, over.guest_ns), ("dom0", BEFORE, over.toolstack_ns)]
    rows = [
        ("pages a second", NS_PER_S / over.width_ns, upper),
        ("% of a CPU in flushes", 100 / over.width_ns, lower),
    ][: 1 if over.guest_ns is None else 2]
    with style():
        figure = Figure(figsize=(10.0, 0.5 + 1.8 * len(rows)), layout="constrained")
        panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (label, scale, lines) in zip(panels, rows, strict=True):
            for name, colour, values in lines:
                if values is not None:
                    heights = np.array(values, np.float64) * scale
                    axes.stairs(heights, edges, color=colour, fill=True, alpha=0.3)
                    axes.stairs(heights, edges, color=colour, label=name)
            for one in phase.passes[1:MAX_LINES]:
                axes.axvline(one.begin_ns / NS_PER_S, color=GRID, linestyle=":", linewidth=1)
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.legend(loc="upper right", ncols=2)
        # Of a phase that is short, and late, all times may be the same in seconds.
        if edges[-1] > edges[0]:
            panels[-1].set_xlim(edges[0], edges[-1])
        panels[-1].set_xlabel("seconds")
    return figure


def _name(domain: int) -> str:
    return f"d{domain}"


def _payer(payer: str, phase: Phase) -> str:
    names = {"guest": _name(phase.domain), "toolstack": "dom0", "others": "other domains", "unknown": "not known"}
    return names.get(payer, payer)


def _spent(paid: Paid) -> str:
    return f"{units.time(paid.ns)} in {units.count(paid.flushes)}"


def _a_second(ns: int, length_ns: int) -> str:
    return f"{units.time(ns * NS_PER_S / length_ns)} a second"


def _rate(value: float) -> str:
    return units.count(value) if value >= 10 else f"{value:.2g}"


def _per_second(ns: int, whole: Pass) -> Cell:
    length = whole.end_ns - whole.begin_ns
    return parts.time(ns * NS_PER_S / length) if length else Cell("–")


def _figure(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(f"{value:,.0f}" if value >= 100 else f"{value:.3g}", value)


def _count(value: int | None) -> Cell:
    return Cell("–") if value is None else parts.count(value)


def _at(ns: int) -> Cell:
    return Cell(f"{ns / NS_PER_S:.3f} s", ns)

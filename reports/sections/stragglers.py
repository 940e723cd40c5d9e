"""Stragglers: what the last target to answer was doing, and which targets are last most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from xtrace import units
from xtrace.context import domain_name, vcpu_name
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.questions.stragglers import LATE
from xtrace.reports import parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xtrace.questions.stragglers import Doing, Offender, Spread, Stragglers

DOINGS: Final = {
    "function": "running the function",
    "queue": "running others’ functions",
    "sender": "not asked yet",
    "calling": "in a call of its own",
    "arriving": "in Xen, entering a guest",
    "guest": "in its guest",
    "idle": "idle",
    "hypervisor": "in Xen for its vCPU",
    "vcpu": "in a PV guest or Xen",
    "unknown": "not known",
}
NAMED: Final = 4
"""Doings that a sentence names, of those that make up NOTABLE or more."""
NOTABLE: Final = 0.05
FEW: Final = 10
"""Of fewer there is no sentence."""


def answer(found: Stragglers) -> Iterator[str]:
    """What the last targets were doing, by the time that it took; most expensive kind first."""
    for kind in found.kinds:
        doings = [one for one in found.doings if one.kind == kind.kind and one.took_ns > 0]
        took = sum(one.took_ns for one in doings)
        if took:
            named = [one for one in doings if one.took_ns >= NOTABLE * took][:NAMED] or doings[:1]
            told = [f"{DOINGS[one.doing]} for {100 * one.took_ns / took:.0f} %" for one in named]
            yield (
                f"Of the {units.time(took)} from SEND until the last target of {KIND_NOUNS[kind.kind]} had answered, "
                f"it was {', '.join(told)}."
            )


def section(found: Stragglers) -> Section:
    """What the last targets were doing, who they were, and the longest waits."""
    if not found.kinds:
        return Section("stragglers", "The slowest target", ("No request of this selection is complete.",))
    tables = [_doings(found)]
    tables += [_longest(found, kind.kind) for kind in found.kinds]
    tables += [_works(found), _offenders("CPU", "CPUs", found.cpus), _offenders("vCPU", "vCPUs", found.vcpus)]
    return Section("stragglers", "The slowest target", (*answer(found), *_meaning(found)), (), tuple(tables))


def _meaning(found: Stragglers) -> Iterator[str]:
    for kind in found.kinds:
        yield (
            f"{KIND_NOUNS[kind.kind].capitalize()} cost their callers {units.time(kind.paid_ns)}: "
            f"{units.time(kind.before_ns)} until SEND, {units.time(kind.delivery_ns)} until the last target began, "
            f"{units.time(kind.execution_ns)} until it had answered, {units.time(kind.after_ns)} until DONE. Only the "
            "two in the middle are the target’s."
        )
    yield (
        "What a target was at is what the interrupt met there, the state at ENTER. For part of a long delivery the CPU "
        "may have done something else."
    )
    typical = {kind.kind: kind.typical_ns for kind in found.kinds}
    for one in found.doings:
        if one.doing == "hypervisor" and one.requests >= FEW and one.late is not None:
            yield (
                f"{units.count(one.requests)} {KIND_NOUNS[one.kind]} met it in Xen, in no function of others and no "
                f"call of its own: median delivery {units.time(one.delivery.p50_ns)}. {units.count(one.late)} of them "
                f"took more than {LATE} times the typical {units.time(typical[one.kind])} to begin: interrupts were "
                "off, or a handler ran, as far as it shows."
            )


def _doings(found: Stragglers) -> Table:
    heads = (
        Head("last target was", False),
        Head("", False),
        Head("count"),
        Head("took", title="SEND until it had answered"),
        *_SPREAD,
        Head("late", title=f"began after more than {LATE} times the typical delivery"),
        Head("later by", title="median: how long after the last but one it answered"),
        Head("most", title="and the longest"),
    )
    rows = [
        (
            Cell(DOINGS[one.doing]),
            Cell(KIND_NOUNS[one.kind]),
            parts.count(one.requests),
            parts.time(one.took_ns),
            *_spread(one.delivery),
            Cell("–") if one.late is None else parts.count(one.late),
            *(parts.time(time) for time in _lateness(one)),
        )
        for one in _by_kind(found, found.doings)
    ]
    caption = "What the last target was at; delivery is SEND until it began, later by is after the last but one"
    return parts.table(caption, heads, rows, "lines")


_SPREAD: Final = (
    Head("p50", title="of delivery: SEND until it began"),
    Head("p99", title="of delivery"),
    Head("max", title="of delivery"),
)


def _spread(some: Spread) -> Iterator[Cell]:
    return map(parts.time, (some.p50_ns, some.p99_ns, some.max_ns))


def _lateness(one: Doing) -> tuple[int | None, int | None]:
    return (None, None) if one.lateness is None else (one.lateness.p50_ns, one.lateness.max_ns)


def _by_kind(found: Stragglers, doings: Sequence[Doing]) -> list[Doing]:
    order = [kind.kind for kind in found.kinds]
    return sorted(doings, key=lambda one: order.index(one.kind))


def _longest(found: Stragglers, kind: str) -> Table:
    heads = (
        Head("at, s"),
        Head("CPUs", False, "the caller’s and the last target’s"),
        Head("vCPU", False, "on the last target"),
        Head("what", False),
        Head("last target was", False),
        Head("delivery", title="SEND until it began"),
        Head("ran", title="and then until it had answered"),
        Head("later by", title="how long after the last but one it answered"),
    )
    rows = [
        (
            Cell(f"{one.start_ns / 1e9:.6f}", one.start_ns),
            Cell(f"{one.initiator} → {one.cpu}"),
            Cell(_vcpu(one.domain, one.vcpu)),
            Cell(_short(one.name)),
            Cell(DOINGS[one.doing]),
            *map(parts.time, (one.delivery_ns, one.execution_ns, one.lateness_ns)),
        )
        for one in found.worst
        if one.kind == kind
    ]
    return parts.table(
        f"{KIND_NOUNS[kind].capitalize()} whose last target took longest to answer", heads, rows, "lines"
    )


def _works(found: Stragglers) -> Table:
    heads = (
        Head("function or flush", False),
        Head("count"),
        Head("took", title="SEND until the last target had answered"),
        *_SPREAD,
        Head("last target was mostly", False, "by time"),
        Head("%"),
    )
    rows = [
        (
            Cell(_short(one.name)),
            parts.count(one.requests),
            parts.time(one.took_ns),
            *_spread(one.delivery),
            Cell(DOINGS[one.doing]),
            Cell("–") if one.doing_percent is None else Cell(f"{one.doing_percent:.0f}", one.doing_percent),
        )
        for one in found.works
    ]
    return parts.table("By function and kind of flush", heads, rows, "lines")


def _offenders(what: str, whats: str, some: Sequence[Offender]) -> Table:
    heads = (
        Head(what, what == "CPU"),
        Head("last of", title="requests of which it was the last target"),
        Head("took", title="SEND until it had answered"),
        *_SPREAD,
        Head("of several", title="requests with two targets or more of which it was last"),
        Head("by chance", title="of how many, were no target last more often than another"),
        Head("later by", title="how long after the last but one it answered those, summed"),
    )
    rows = [
        (
            Cell(_vcpu(one.domain, one.vcpu)) if one.cpu is None else Cell(str(one.cpu), one.cpu),
            parts.count(one.requests),
            parts.time(one.took_ns),
            *_spread(one.delivery),
            parts.count(one.of_several),
            Cell(f"{one.by_chance:,.1f}", one.by_chance),
            parts.time(one.lateness_ns),
        )
        for one in some
    ]
    return parts.table(f"Who was last, by {what}", heads, rows, whats)


def _short(name: str) -> str:
    """A symbol without its source file, which static functions have in front."""
    return name.rpartition("#")[2]


def _vcpu(domain: int | None, vcpu: int | None) -> str:
    if domain is None:
        return "not known"
    if vcpu is None:
        return domain_name(domain)
    return vcpu_name(domain, vcpu)


def pictures(found: Stragglers) -> tuple[Picture, ...]:
    """What the last targets were doing; which CPUs are last more often than by chance."""
    if not found.kinds:
        return ()
    shown = [
        parts.picture(
            doings_chart(found),
            "straggler-doing",
            "What the last target was at",
            "Time from SEND until the last target had answered, by what the interrupt met there.",
        )
    ]
    if any(one.by_chance for one in found.cpus):
        shown.append(
            parts.picture(
                cpus_chart(found),
                "straggler-cpus",
                "Which CPU is last",
                "Of requests with two targets or more: bars, how often each CPU was last; ticks, how often it would be "
                "by chance.",
            )
        )
    return tuple(shown)


def doings_chart(found: Stragglers) -> Figure:
    """A Matplotlib Figure: a bar for what last targets were doing, as long as the time that it took."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    from xtrace.reports.svg import AFTER, PHASE_1, style

    doings = [name for name in DOINGS if any(one.doing == name for one in found.doings)]
    with style():
        figure = Figure(figsize=(5.0, 1.1 + 0.32 * len(doings)), layout="constrained")
        axes = figure.add_subplot()
        left = dict.fromkeys(doings, 0)
        for kind, colour in zip(found.kinds, (AFTER, PHASE_1), strict=False):
            took = {one.doing: one.took_ns for one in found.doings if one.kind == kind.kind}
            widths = [max(took.get(name, 0), 0) for name in doings]
            axes.barh(
                range(len(doings)),
                widths,
                left=list(left.values()),
                color=colour,
                label=KIND_NOUNS[kind.kind],
                height=0.6,
            )
            left = {name: left[name] + width for name, width in zip(doings, widths, strict=True)}
        axes.set_yticks(range(len(doings)), [DOINGS[name] for name in doings])
        axes.set_ylim(len(doings) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.time(value)))
        axes.grid(axis="y", visible=False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def cpus_chart(found: Stragglers) -> Figure:
    """A Matplotlib Figure: how often each CPU was last, and how often by chance, by CPU number."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from xtrace.reports.svg import AFTER, BAD, style

    cpus = sorted(found.cpus, key=lambda one: one.cpu or 0)
    with style():
        figure = Figure(figsize=(5.0, 3.1), layout="constrained")
        axes = figure.add_subplot()
        places = range(len(cpus))
        axes.bar(places, [one.of_several for one in cpus], color=AFTER, width=0.7, label="last")
        axes.plot(places, [one.by_chance for one in cpus], "_", color=BAD, markersize=9, label="by chance")
        step = -(-len(cpus) // 16)
        axes.set_xticks(places[::step], [str(one.cpu) for one in cpus[::step]])
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("target CPU")
        axes.set_ylabel("requests")
        axes.grid(axis="x", visible=False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure

"""Contention: what requests cost each other's callers, and where they queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from xtrace import units
from xtrace.context import domain_name
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.questions.convoys import LOCKS
from xtrace.reports import parts
from xtrace.reports.page import Cell, Head, Picture, Section, Table

if TYPE_CHECKING:
    from xtrace.questions.contention import Contention, Pair, Spent

LITTLE: Final = 0.01
"""A smaller part of what callers paid, or of what they lost, is not worth a sentence."""

STANDS_OUT: Final = (0.25, 2.0)
"""A pair stands out that makes up so much of all that was lost, and so many times what the next pair does."""

MAX_BINS: Final = 64
NAMED_CPUS: Final = 12
SHADES: Final = 8
SHADE: Final = 2**0.5

PHASES: Final = {
    "total_ns": "paid, START to DONE",
    "lock_ns": "waiting for {lock}",
    "sending_ns": "sending",
    "sending_serving_ns": "  of it serving others",
    "delivery_ns": "delivery at the last target",
    "queue_ns": "  of it queueing behind others",
    "execution_ns": "execution on the last target",
    "completion_ns": "completion",
    "completion_serving_ns": "  of it serving others",
    "lost_ns": "lost to others: lock, queueing, serving",
}


def answer(found: Contention) -> Iterator[str]:
    """What others cost callers, how, and which pair of CPUs stands out."""
    every = found.spent["all"]
    if not every.requests:
        return
    if not every.lost_ns:
        yield "No caller lost time to the requests of others."
        return
    share = every.lost_ns / every.total_ns
    who = "Others"
    if every.own_ns:
        alone = every.own_ns == every.lost_ns
        who = "Their own earlier requests" if alone else "Other requests, earlier ones of their own included,"
    yield (
        f"{who} cost callers {units.time(every.lost_ns)} of {units.time(every.total_ns)} "
        f"({_percent(share)}): {_how(found)}."
    )
    first = _outstanding(found) if share >= LITTLE else None
    if first is not None:
        yield (
            f"{_percent(first.lost_ns / every.lost_ns)} of that, {units.time(first.lost_ns)}, is CPU {first.waiting} "
            f"waiting for CPU {first.blocker}."
        )


def _how(found: Contention) -> str:
    every, names = found.spent["all"], _ways(found)
    most = max(names, key=lambda name: names[name])
    if every.lost_ns - names[most] < LITTLE * every.lost_ns:
        return f"{'all' if every.lost_ns == names[most] else 'nearly all'} of it {most}"
    told = [f"{units.time(ns)} {name}" for name, ns in sorted(names.items(), key=lambda one: -one[1]) if ns]
    return ", ".join(told)


def _ways(found: Contention) -> dict[str, int]:
    spent = found.spent
    if found.model == "legacy":
        locks = {f"waiting for {name}": spent[kind].lock_ns for name, kind in zip(LOCKS, KIND_NOUNS, strict=True)}
    else:
        locks = {"waiting until an earlier call of their own was answered": spent["all"].lock_ns}
    return locks | {
        "queueing behind others’ functions on targets": spent["all"].queue_ns,
        "serving others while they waited": spent["all"].serving_ns,
    }


def _outstanding(found: Contention) -> Pair | None:
    pairs = [one for one in found.blame if one.waiting != one.blocker]
    if len(pairs) < 3:
        return None
    part, times = STANDS_OUT
    first, second = pairs[:2]
    stands_out = first.lost_ns >= part * found.spent["all"].lost_ns and first.lost_ns >= times * second.lost_ns
    return first if stands_out else None


def section(found: Contention) -> Section:
    """Where the time went, who waited for whom, where, and for what."""
    if not found.spent["all"].requests:
        return Section("contention", "Who waits for whom", ("No request of this selection is complete.",))
    text = [*answer(found), *_locks(found), *_queueing(found), *_overlap(found)]
    tables = [_phases(found), *_blame(found), *_domains(found), _places(found), _works(found), *_convoys(found)]
    return Section("contention", "Who waits for whom", tuple(text), (), tuple(tables))


def _locks(found: Contention) -> Iterator[str]:
    for one in found.places:
        if one.cpu is None and one.waiting:
            yield (
                f"{one.name} was held {_percent(one.wanted_share)} of the time that anybody wanted it, "
                f"{_percent(one.share)} of the trace; meanwhile {one.waiting:.2f} waited for it on average, "
                f"{units.count(one.most)} at most, and {units.count(one.handed_over)} of {units.count(one.served)} "
                "times somebody waited when it was let go."
            )


def _queueing(found: Contention) -> Iterator[str]:
    one = found.queueing
    if one.queued:
        yield (
            f"{units.count(one.queued)} of {units.count(one.deliveries)} deliveries "
            f"({_percent(one.queued / one.deliveries)}) queued behind another function on their target, "
            f"{units.time(one.queue_ns)} in all; {units.time(found.spent['all'].queue_ns)} of it on the target that "
            "answered last, which is what held the caller up."
        )


def _overlap(found: Contention) -> Iterator[str]:
    one = found.overlap
    if one.domains < 2:
        return
    if not one.met:
        yield f"No flush was in flight together with one of another domain, of {units.count(one.flushes)}."
        return
    yield (
        f"{units.count(one.met)} of {units.count(one.flushes)} flushes were in flight together with one of another "
        f"domain: {units.time(one.together_ns)}, {_percent(one.together_ns / max(1, one.in_flight_ns))} of the time in "
        "which any was."
    )


def _phases(found: Contention) -> Table:
    shown = {nouns: found.spent[kind] for kind, nouns in KIND_NOUNS.items() if found.spent[kind].requests}
    if len(shown) > 1:
        shown["all"] = found.spent["all"]
    heads = [Head("phase", False)]
    for nouns, one in shown.items():
        heads += [Head(f"{nouns}: {units.count(one.requests)}"), Head("%")]
    rows = []
    for name, text in PHASES.items():
        row = [Cell(text.format(lock=_lock(found, list(shown.values()))))]
        for one in shown.values():
            row += [_time(getattr(one, name)), _share(getattr(one, name), one.total_ns)]
        rows.append(tuple(row))
    caption = "Where the time of callers went, in sums; phases follow the target that answered last"
    return Table(caption, tuple(heads), tuple(rows))


def _lock(found: Contention, shown: Sequence[Spent]) -> str:
    if found.model != "legacy":
        return "own earlier calls"
    return "the lock" if len(shown) > 1 or not found.spent["call"].requests else LOCKS[0]


def _blame(found: Contention) -> Iterator[Table]:
    if not found.blame:
        return
    heads = (Head("CPU"), Head("waited for CPU"), *LOSS_HEADS)
    rows = [
        (Cell(str(one.waiting), one.waiting), Cell(str(one.blocker), one.blocker), *_losses(one, found))
        for one in found.blame
    ]
    table = parts.table("Who waited for whose requests, most expensive first", heads, rows, "pairs")
    left = len(rows) - parts.MAX_ROWS + found.blame_left_out
    more = f"… and {units.count(left)} more pairs" if left > 0 else ""
    yield Table(table.caption, table.heads, table.rows, more)


LOSS_HEADS: Final = (
    Head("waits", title="a request that waits for two of the other’s counts twice"),
    Head("lock"),
    Head("queueing", title="on the target that answered last"),
    Head("serving", title="running the other’s functions before getting on"),
    Head("sum"),
    Head("% of all", title="of all that was lost to others"),
)


def _losses(one: Pair, found: Contention) -> tuple[Cell, ...]:
    times = (one.lock_ns, one.queue_ns, one.serving_ns, one.lost_ns)
    return (parts.count(one.waits), *map(_time, times), _share(one.lost_ns, found.spent["all"].lost_ns))


def _domains(found: Contention) -> Iterator[Table]:
    if all(None in (one.waiting, one.blocker) for one in found.domains):
        return
    heads = (Head("domain"), Head("waited for"), *LOSS_HEADS)
    rows = [(_domain(one.waiting), _domain(one.blocker), *_losses(one, found)) for one in found.domains]
    yield parts.table("The same by domain on the CPUs that asked", heads, rows, "pairs")


def _domain(number: int | None) -> Cell:
    if number is None:
        return Cell("?")
    return Cell(domain_name(number), number)


def _works(found: Contention) -> Table:
    heads = (
        Head("function or flush", False),
        *map(Head, ("requests", "paid", "lost to others", "%")),
        Head("cost others", title="what others lost to it: also requests that are not selected or not complete"),
    )
    rows = [
        (
            Cell(one.name),
            parts.count(one.requests),
            parts.time(one.total_ns),
            _time(one.lost_ns),
            _share(one.lost_ns, one.total_ns),
            _time(one.caused_ns),
        )
        for one in found.works
    ]
    return parts.table("What each lost to others, and made others lose", heads, rows, "lines")


def _places(found: Contention) -> Table:
    heads = (
        Head("place", False),
        Head("served", title="requests that held the lock; functions that the CPU ran for others"),
        Head("busy", title="a lock from SEND to DONE; a CPU while it ran a function for others"),
        Head("% of trace"),
        Head("% of wanted", title="of the time in which any request had asked and was not through"),
        Head("waiting", title="behind others, mean while it was wanted"),
        Head("most"),
        Head("handed over", title="somebody was waiting when it became free"),
        Head("waited", title="sum of the waits behind others"),
    )
    rows = [
        (
            Cell(one.name, one.cpu),
            parts.count(one.served),
            parts.time(one.busy_ns),
            _cell(one.share),
            _cell(one.wanted_share),
            Cell("–") if one.waiting is None else Cell(f"{one.waiting:.2f}", one.waiting),
            parts.count(one.most),
            parts.count(one.handed_over),
            _time(one.waited_ns),
        )
        for one in found.places
    ]
    return parts.table("Locks and target CPUs, the busiest first", heads, rows, "places")


CONVOY_HEADS: Final = ("convoys", "requests", "mean length", "longest", "longest span", "waited")
WORST_HEADS: Final = ("from", "span", "requests", "by CPUs", "waited")


def _convoys(found: Contention) -> Iterator[Table]:
    some = {where: one for where, one in found.convoys.items() if one.count}
    if not some:
        return
    names = {"lock": "locks", "cpu": "target CPUs"}
    rows = [
        (
            Cell(names[where]),
            parts.count(one.count),
            parts.count(one.requests),
            Cell(f"{one.mean_length or 0:.1f}", one.mean_length),
            parts.count(one.longest_length),
            parts.time(one.longest_span_ns),
            parts.time(one.waited_ns),
        )
        for where, one in some.items()
    ]
    caption = "Convoys: requests one behind the other, each asked for before the one before was through"
    yield Table(caption, (Head("at", False), *map(Head, CONVOY_HEADS)), tuple(rows))
    for where, one in some.items():
        worst = [
            (
                Cell(row.place),
                Cell(f"{row.begin_ns / 1e9:.6f} s", row.begin_ns),
                parts.time(row.span_ns),
                parts.count(row.requests),
                parts.count(len(row.initiators)),
                parts.time(row.waited_ns),
            )
            for row in one.worst
        ]
        caption = f"Convoys at {names[where]} that waited longest"
        yield Table(caption, (Head("at", False), *map(Head, WORST_HEADS)), tuple(worst))


def _time(ns: int) -> Cell:
    """A time, where many are 0."""
    return parts.time(ns) if ns else Cell("–", 0, "muted")


def _share(part: int, whole: int) -> Cell:
    return _cell(part / whole if whole else None)


def _cell(share: float | None) -> Cell:
    return Cell("–") if share is None else Cell(f"{100 * share:.1f}", share)


def _percent(share: float | None) -> str:
    """`66 %`; with a digit where it is small."""
    if share is None:
        return "–"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %" if share >= 0.001 else "under 0.1 %"


def pictures(found: Contention) -> tuple[Picture, ...]:
    """The matrix of blame, where there is one of two CPUs or more."""
    if len({one.waiting for one in found.blame} | {one.blocker for one in found.blame}) < 2:
        return ()
    return (
        parts.picture(
            blame_map(found),
            "blame",
            "Who waited for whom",
            "Time that requests of the CPU on the left lost to those of the CPU below: at the lock, in the queue of a "
            "target, or serving them. Darker is more; neighbours share a field where there are more than "
            f"{MAX_BINS} CPUs.",
        ),
    )


def blame_map(found: Contention) -> Any:
    """A Matplotlib Figure of the matrix of blame; neighbouring CPUs share a field where there are too many."""
    from matplotlib.figure import Figure

    from xtrace.reports.svg import BAD, style

    cpus = sorted({cpu for one in found.blame for cpu in (one.waiting, one.blocker) if cpu is not None})
    width = -(-len(cpus) // MAX_BINS)
    groups = [cpus[first : first + width] for first in range(0, len(cpus), width)]
    place = {cpu: at for at, group in enumerate(groups) for cpu in group}
    fields: dict[tuple[int, int], int] = {}
    for one in found.blame:
        if one.waiting is not None and one.blocker is not None:
            key = place[one.blocker], place[one.waiting]
            fields[key] = fields.get(key, 0) + one.lost_ns
    most = max(fields.values())
    with style():
        size = min(5.4, 1.6 + 0.55 * len(groups))
        figure = Figure(figsize=(size + 0.6, size), layout="constrained")
        axes = figure.add_subplot()
        for shade in range(SHADES):
            high, low = most / SHADE**shade, most / SHADE ** (shade + 1) if shade < SHADES - 1 else 0
            mine = [key for key, ns in fields.items() if low < ns <= high]
            if mine:
                axes.add_patch(_squares(mine, BAD, 0.7 * (1 - shade / SHADES), f"up to {units.time(high)}"))
        if len(groups) <= NAMED_CPUS:
            for (x, y), ns in fields.items():
                axes.text(x, y, units.time(ns), ha="center", va="center", fontsize=8)
        step = max(1, len(groups) // 16)
        names = [str(group[0]) for group in groups[::step]]
        axes.set_xticks(range(0, len(groups), step), names)
        axes.set_yticks(range(0, len(groups), step), names)
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.set_xlabel("CPU that was in the way")
        axes.set_ylabel("CPU that waited")
        axes.grid(False)
        axes.tick_params(length=0)
        if len(groups) > NAMED_CPUS:
            figure.legend(loc="outside right upper")
    return figure


def _squares(fields: Sequence[tuple[int, int]], colour: str, alpha: float, label: str) -> Any:
    """All fields of one shade as one path: a page of 64 × 64 stays small."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners = ((-0.48, -0.48), (0.48, -0.48), (0.48, 0.48), (-0.48, 0.48), (0.0, 0.0))
    vertices = [(x + right, y + down) for x, y in fields for right, down in corners]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(fields)
    return PathPatch(Path(vertices, codes), facecolor=colour, alpha=alpha, linewidth=0, label=label)

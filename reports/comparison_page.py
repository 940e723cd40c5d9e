"""The page of `xtrace compare --html`: a comparison as facts for the template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from xtrace import __version__, units
from xtrace.comparing import contested
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.reports import comparison, figures, parts, pictured
from xtrace.reports.answer import answer, fairness_changes
from xtrace.reports.page import Cell, Head, Page, Picture, Section, Table
from xtrace.sides import Costs

if TYPE_CHECKING:
    from xtrace.comparison import CallerOfSide, Comparison, Contest, KindComparison, Row
    from xtrace.provenance import Provenance
    from xtrace.statistics import Change
    from xtrace.swimlanes import Swimlane

TONES = {"faster": "good", "slower": "bad", "no change": "muted", "too few": "muted"}
HEADS = (
    Head("before"),
    Head("after"),
    Head("change %"),
    Head("95 % from"),
    Head("to"),
    Head("verdict", False),
    Head("p", title="rank test over runs or blocks, corrected for the lines of this table"),
    Head("Cliff's δ", title="how much likelier a value is larger after than before, −1 to 1"),
    Head("n before"),
    Head("n after"),
)


def page(
    found: Comparison,
    lanes: Sequence[tuple[str, Swimlane]],
    origin: Provenance,
) -> Page:
    """All that the page shows; lanes: the worst episodes with the name of their side."""
    sections: list[Section] = []
    first: Picture | None = None
    for kind, one in found.kinds.items():
        sides = dict(zip(("before", "after"), found.costs[kind], strict=True))
        shown = list(_of_kind(one, sides))
        if first is None:
            # The grid shows the answer, where it has more than one cell to show.
            first, rest = (shown[0].pictures or shown[2].pictures)[0], shown
            shown = [
                Section(part.key, part.title, part.text, _without(part.pictures, first), part.tables) for part in rest
            ]
        sections += shown
    if lanes:
        sections.append(pictured.lanes(lanes))
    sections.append(parts.origin(origin, (*found.before, *found.after)))
    models = [sorted({one["hypervisor"]["smp_model"] for one in side}) for side in (found.before, found.after)]
    return Page(
        f"Calls and TLB flushes before and after: {'/'.join(models[0])} against {'/'.join(models[1])}",
        answer(found),
        found.alerts,
        tuple(comparison.side_lines(found)),
        first,
        tuple(sections),
        __version__,
    )


def _without(pictures: tuple[Picture, ...], one: Picture) -> tuple[Picture, ...]:
    return tuple(other for other in pictures if other is not one)


def _of_kind(one: KindComparison, sides: dict[str, Costs]) -> Iterator[Section]:
    kind, nouns = one.kind, KIND_NOUNS[one.kind]
    title = nouns.capitalize()
    frames = {name: side.episodes for name, side in sides.items()}
    grid: tuple[Picture, ...] = ()
    if len(one.grid) > 1:
        grid = (
            parts.picture(
                figures.grid_of(one.grid),
                f"{kind}-grid",
                f"Change of what callers paid for {nouns}{comparison.caution(one)}",
                "Rows: CPUs in the mask; columns: callers at work. ~ no change can be shown, ? too few to say.",
            ),
        )
    cells = [
        (Cell(str(cell.mask), cell.mask.low), Cell(str(cell.callers), cell.callers.low), *_change(cell.change))
        for cell in one.grid
    ]
    heads = (Head("CPUs in mask"), Head("callers"), *HEADS)
    yield Section(
        f"{kind}-grid",
        f"{title}: the grid",
        (
            "What a caller paid is START to DONE and what its CPU served for others directly after.",
            "A CPU is at work as a caller where it calls at least twice within tenths of a second.",
        ),
        grid,
        (
            parts.table(
                f"Mean paid, by CPUs in the mask and callers at work{comparison.caution(one)}", heads, cells, "cells"
            ),
        ),
    )
    yield Section(
        f"{kind}-phases",
        f"{title}: which phase changed",
        pictures=(
            parts.picture(
                figures.phases(frames, kind),
                f"{kind}-phases",
                f"Where the time of {nouns} goes",
                "Mean of START to DONE: waiting to send, and from the first IPI to the end.",
            ),
        ),
        tables=(
            Table(
                f"Mean by phase{comparison.caution(one)}",
                (Head("phase", False), *HEADS),
                tuple(
                    (Cell(name.strip()), *_change(one.metrics[key]["mean"])) for key, name in comparison.PHASES.items()
                ),
            ),
            _totals(one),
        ),
    )
    paid = one.metrics["paid"]
    yield Section(
        f"{kind}-distribution",
        f"{title}: distribution",
        pictures=pictured.distributions(frames, kind, "paid_ns"),
        tables=(
            Table(
                f"What callers paid{comparison.caution(one)}",
                (Head("", False), *HEADS),
                tuple((Cell(name), *_change(figure)) for name, figure in paid.items()),
            ),
        ),
    )
    alone = {name: side.episodes[side.episodes["run"] == 0] for name, side in sides.items()}
    yield Section(
        f"{kind}-time",
        f"{title}: over time",
        ("Of several runs a side, the first.",) if any(side.episodes["run"].max() for side in sides.values()) else (),
        (pictured.over_time(alone, kind),),
    )
    if one.contest is not None:
        yield _who(one.contest, sides, one)
    sheets = list(comparison.topics(one))
    yield Section(
        f"{kind}-answers",
        f"{title}: who waits for whom, is it fair, who pays",
        tuple(fairness_changes(one)),
        tables=tuple(
            Table(
                sheet.title,
                (Head("", False), Head("before"), Head("after")),
                tuple(tuple(map(Cell, line.texts)) for line in sheet.lines),
            )
            for sheet in sheets
        ),
    )
    tables = [
        _rows(what, rows, nouns)
        for what, rows in (("function" if kind == "call" else "flags", one.works), ("domain", one.domains))
        if rows
    ]
    yield Section(f"{kind}-what", f"{title}: by function and domain", tables=tuple(tables))


def _change(one: Change) -> tuple[Cell, ...]:
    return (
        parts.time(one.before),
        parts.time(one.after),
        Cell(units.percent(one.percent), one.percent, TONES[one.verdict]),  # type: ignore[arg-type]
        Cell(units.percent(one.low), one.low),
        Cell(units.percent(one.high), one.high),
        Cell(one.verdict, tone=TONES[one.verdict]),  # type: ignore[arg-type]
        Cell("–" if one.p is None else f"{one.p:.2g}", one.p),
        Cell("–" if one.effect is None else f"{one.effect:+.2f}".replace("-", "−"), one.effect),
        parts.count(one.n_before),
        parts.count(one.n_after),
    )


def _totals(one: KindComparison) -> Table:
    rows = [tuple(map(Cell, line)) for line in comparison.totals(one.before, one.after)]
    return Table(f"All {KIND_NOUNS[one.kind]}", (Head("", False), Head("before"), Head("after")), tuple(rows))


def _rows(what: str, rows: tuple[Row, ...], nouns: str) -> Table:
    cells = [(Cell(row.name), *_change(row.change)) for row in rows]
    return parts.table(f"Mean paid for {nouns} by {what}", (Head(what, False), *HEADS), cells, "lines")


def _who(contest: Contest, sides: dict[str, Costs], one: KindComparison) -> Section:
    where = f", {contest.callers} callers, {contest.mask} CPUs in the mask"
    by_cpu = [{caller.cpu: caller for caller in side} for side in (contest.before, contest.after)]
    rows = [
        (Cell(str(cpu), cpu), *(cell for side in by_cpu for cell in _caller(side.get(cpu))))
        for cpu in sorted(by_cpu[0].keys() | by_cpu[1].keys())
    ]
    heads = [Head("CPU")]
    for side in ("before", "after"):
        heads += [Head(f"{name} {side}") for name in ("mean", "95 % from", "to", "p99", "longest", "n")]
    frames = {name: side.episodes.iloc[contested(side, contest)] for name, side in sides.items()}
    return Section(
        f"{one.kind}-who",
        f"{KIND_NOUNS[one.kind].capitalize()}: who waits longest",
        (
            "The busiest cell of the grid that both sides have, while all its callers were at work.",
            "Once others have finished, the one that was held up is in nobody's way.",
        ),
        (pictured.by_cpu(frames, one.kind, "paid_ns", where),),
        (parts.table(f"What each caller paid{where}", heads, rows, "CPUs"),),
    )


def _caller(caller: CallerOfSide | None) -> tuple[Cell, ...]:
    if caller is None:
        return (Cell("–"),) * 6
    mean = caller.mean
    times = (mean.mean, mean.low, mean.high, caller.p99, float(caller.max))
    return (*map(parts.time, times), parts.count(caller.count))

"""What `xtrace compare` prints, on a terminal and as plain text: the answer, the grid, where the change comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.text import Text

from xtrace import units
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.reports.answer import answer
from xtrace.reports.terminal import new_table

if TYPE_CHECKING:
    from xtrace.comparison import Comparison, Contest, KindComparison, Row, Totals
    from xtrace.gate import Judgement
    from xtrace.side_by_side import Unit
    from xtrace.statistics import Change

MARKS: Final = {"faster": "", "slower": "", "no change": "~", "too few": "?"}
STYLES: Final = {"faster": "green", "slower": "bold red", "no change": "dim", "too few": "dim"}
LEGEND: Final = (
    "Change of the mean with its 95 % interval; ~ no change can be shown, ? too few to say. Paid is START to DONE and "
    "what the caller's CPU served for others directly after; times of a column are means."
)
MAX_ROWS: Final = 12


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table: its texts, and the verdict that colours its change."""

    texts: tuple[str, ...]
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table for a terminal or a mail; the first `left` columns are texts."""

    title: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]
    left: int = 1
    left_out: int = 0


def sheets(one: KindComparison) -> Iterator[Sheet]:
    """All tables of calls or flushes, the grid first."""
    nouns = KIND_NOUNS[one.kind]
    yield grid(one)
    yield Sheet(
        f"Where the time of {nouns} goes",
        ("phase", *CHANGE_HEADS),
        tuple(
            Line((PHASES[name], *_change(one.metrics[name]["mean"])), one.metrics[name]["mean"].verdict)
            for name in PHASES
        ),
    )
    paid = one.metrics["paid"]
    quantiles = tuple(Line((name, *_change(figure)), figure.verdict) for name, figure in paid.items())
    yield Sheet(f"What callers paid for {nouns}", ("", *CHANGE_HEADS), quantiles)
    yield Sheet(f"All {nouns}", ("", "before", "after"), tuple(map(Line, totals(one.before, one.after))))
    if one.contest is not None:
        yield contest(one.contest, nouns)
    yield from topics(one)
    if len(one.works) > 1:
        yield _rows("function" if one.kind == "call" else "flags", one.works, nouns)
    if len(one.domains) > 1:
        yield _rows("domain", one.domains, nouns)


PHASES: Final = {
    "lock_wait": "lock wait",
    "delivery": "delivery, by target",
    "queue": "  of it queueing",
    "execution": "execution, by target",
    "completion": "completion",
    "total": "total: START to DONE",
    "aftermath": "served for others after",
}
CHANGE_HEADS: Final = ("before", "after", "change %", "95 % interval", "", "n")


def _change(one: Change) -> tuple[str, ...]:
    known = one.low is not None
    return (
        units.time(one.before),
        units.time(one.after),
        units.percent(one.percent),
        f"{units.percent(one.low)} … {units.percent(one.high)}" if known else "",
        MARKS[one.verdict],
        f"{units.count(one.n_before)}/{units.count(one.n_after)}",
    )


def grid(one: KindComparison) -> Sheet:
    """The cover letter's table with what it lacks: both means, interval, sample sizes."""
    lines = [Line((str(cell.mask), str(cell.callers), *_change(cell.change)), cell.change.verdict) for cell in one.grid]
    title = f"What callers paid for {KIND_NOUNS[one.kind]}, by CPUs in the mask and callers at work{caution(one)}"
    return Sheet(title, ("CPUs", "callers", *CHANGE_HEADS), tuple(lines), left=0)


def caution(one: KindComparison) -> str:
    """What a title of times needs where the hosts were not alike, or nobody knows."""
    if one.work.comparable:
        return ""
    return (
        " (hosts not alike: do not compare the times)" if one.work.percent is not None else " (hosts alike? not known)"
    )


def letter(one: KindComparison) -> Sheet:
    """The grid as cover letters have it: a row a mask size, a column a number of callers."""
    cells = {(str(cell.mask), str(cell.callers)): cell.change for cell in one.grid}
    masks, callers = (list(dict.fromkeys(key[axis] for key in cells)) for axis in (0, 1))
    callers.sort(key=lambda name: int(name.split("-")[0]))

    def text(change: Change | None) -> str:
        if change is None:
            return ""
        return f"{units.percent(change.percent)} %{MARKS[change.verdict]}" if change.percent is not None else "?"

    lines = [Line((mask, *(text(cells.get((mask, one))) for one in callers))) for mask in masks]
    heads = tuple(f"{name} caller{'' if name == '1' else 's'}" for name in callers)
    title = f"Change of what callers paid for {KIND_NOUNS[one.kind]}{caution(one)}"
    return Sheet(title, ("CPUs in mask", *heads), tuple(lines), left=0)


def contest(one: Contest, nouns: str) -> Sheet:
    """The callers of the busiest cell, one a line, on both sides."""
    sides = [{caller.cpu: caller for caller in side} for side in (one.before, one.after)]
    lines = []
    for cpu in sorted(sides[0].keys() | sides[1].keys()):
        texts = [str(cpu)]
        for side in sides:
            caller = side.get(cpu)
            if caller is None:
                texts += ["–"] * 4
                continue
            mean = caller.mean
            known = mean.low is not None
            texts += [
                units.time(mean.mean),
                f"{units.time(mean.low)} … {units.time(mean.high)}" if known else "",
                units.time(caller.max),
                units.count(caller.count),
            ]
        lines.append(Line(tuple(texts)))
    heads = ("CPU", *(f"{name}{side}" for side in ("", " after") for name in ("mean", "95 % interval", "max", "n")))
    title = f"Who waits: {nouns} with {one.callers} callers and {one.mask} CPUs in the mask, while all of them call"
    return Sheet(title, heads, tuple(lines), left=0)


TOPICS: Final = {"waiting": "Who waits for whom", "fairness": "Is it fair", "cost": "Who pays"}


def topics(one: KindComparison) -> Iterator[Sheet]:
    """Waiting, fairness and cost side by side."""
    for topic, title in TOPICS.items():
        lines = tuple(
            Line((figure.name, *(_value(value, figure.unit) for value in (figure.before, figure.after))))
            for figure in one.figures
            if figure.topic == topic and (figure.before is not None or figure.after is not None)
        )
        if lines:
            yield Sheet(f"{title}: {KIND_NOUNS[one.kind]}", ("", "before", "after"), lines)


def _value(value: float | None, unit: Unit) -> str:
    if value is None:
        return "–"
    if unit == "ns":
        return units.time(value)
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3f}".replace("-", "−")


def _rows(what: str, rows: tuple[Row, ...], nouns: str) -> Sheet:
    lines = [Line((units.printable(row.name), *_change(row.change)), row.change.verdict) for row in rows]
    return Sheet(
        f"What callers paid for {nouns}, by {what}",
        (what, *CHANGE_HEADS),
        tuple(lines[:MAX_ROWS]),
        left_out=max(0, len(lines) - MAX_ROWS),
    )


def totals(old: Totals, new: Totals) -> Iterator[tuple[str, ...]]:
    """Lines of name, before and after: how many, how they overlap, what they cost together."""
    sides = (old, new)

    def line(name: str, *texts: str) -> tuple[str, ...]:
        return (name, *texts)

    yield line("complete, of all", *(f"{units.count(one.complete)} of {units.count(one.count)}" for one in sides))
    yield line("overlapping another in flight", *(units.count(one.overlapping) for one in sides))
    flying = ("–" if one.in_flight is None else f"{one.in_flight:.2f}" for one in sides)
    yield line("in flight while one was, mean", *flying)
    yield line("in flight at once, most", *(units.count(one.max_in_flight) for one in sides))
    shares = ("–" if one.lock_share is None else f"{100 * one.lock_share:.1f} %" for one in sides)
    yield line("lock wait, part of the time paid", *shares)
    rates = ("–" if one.per_second is None else units.count(one.per_second) for one in sides)
    yield line("done a second, while one was under way", *rates)
    yield line("time that callers paid", *(units.time(one.paid_ns) for one in sides))


def side_lines(found: Comparison) -> Iterator[str]:
    """A line a trace: what was compared, and what it rests on."""
    for name, side in (("before", found.before), ("after", found.after)):
        for document in side:
            trace, hypervisor = document["trace"], document["hypervisor"]
            lost, skipped = trace["lost_records"], trace["skipped_bytes"]
            yield (
                f"{name}: {units.printable(trace['path'])}, {hypervisor['smp_model']}, {len(trace['cpus'])} CPUs, "
                f"{units.frequency(trace['cpu_hz'])} ({_SOURCES[trace['cpu_hz_source']]}), "
                f"{units.time(trace['duration_ns'])}, lost records: {units.count(lost) if lost else 'none'}, "
                f"skipped bytes: {units.count(skipped) if skipped else 'none'}"
            )


_SOURCES: Final = {"option": "given", "trace": "from the trace", "default": "assumed"}


def show(out: Console, found: Comparison, judged: tuple[Judgement, ...]) -> None:
    """Print the answer, what to know before believing it, and the tables."""
    for line in side_lines(found):
        out.print(Text(line, style="dim"), soft_wrap=True)
    out.print()
    out.print(Text(" ".join(answer(found)), style="bold"))
    for alert in found.alerts:
        out.print(Text.assemble(("! ", "bold yellow"), alert))
    for one in found.kinds.values():
        for sheet in sheets(one):
            _print(out, sheet)
    out.print()
    out.print(Text(LEGEND, style="dim"))
    for one_judged in judged:
        style = {True: "bold red", False: "green", None: "yellow"}[one_judged.failed]
        out.print(Text(one_judged.sentence, style=style))


def _print(out: Console, sheet: Sheet) -> None:
    out.print()
    out.print(Text(sheet.title, style="bold"))
    table = new_table(*sheet.heads, left=sheet.left)
    for line in sheet.lines:
        cells: list[Any] = list(line.texts)
        for place, head in enumerate(sheet.heads):
            if head == "change %":
                cells[place] = Text(line.texts[place], style=STYLES.get(line.verdict, ""))
        table.add_row(*cells)
    if sheet.left_out:
        table.add_row(Text(f"… {sheet.left_out} more", style="dim"))
    out.print(table)


def markdown(found: Comparison, judged: tuple[Judgement, ...]) -> str:
    """The same for a mail: ASCII only, tables that read well as they are and as Markdown."""
    import textwrap

    blocks = ["\n".join(textwrap.wrap(" ".join(answer(found)), 76))]
    blocks += ["\n".join(textwrap.wrap(f"! {alert}", 76, subsequent_indent="  ")) for alert in found.alerts]
    for one in found.kinds.values():
        for sheet in (letter(one), *sheets(one)):
            blocks.append(f"{sheet.title}:\n\n{_plain(sheet)}")
    blocks.append("\n".join(textwrap.wrap(LEGEND, 76)))
    blocks += ["\n".join(textwrap.wrap(one.sentence, 76, subsequent_indent="  ")) for one in judged]
    blocks += ["\n".join(textwrap.wrap(line, 76, subsequent_indent="  ")) for line in side_lines(found)]
    return _ascii("\n\n".join(blocks)) + "\n"


_TO_ASCII: Final = str.maketrans({"−": "-", "–": "-", "…": "..", "µ": "u", "×": "x"})


def _ascii(text: str) -> str:
    return text.translate(_TO_ASCII).encode("ascii", "backslashreplace").decode()


def _plain(sheet: Sheet) -> str:
    rows = [
        tuple(_ascii(text).replace("|", "/") for text in row)
        for row in (sheet.heads, *(one.texts for one in sheet.lines))
    ]
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(texts: tuple[str, ...]) -> str:
        cells = (
            text.ljust(room) if place < sheet.left else text.rjust(room)
            for place, (text, room) in enumerate(zip(texts, width, strict=True))
        )
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join(
        "-" * (room + 2) if place < sheet.left else "-" * (room + 1) + ":" for place, room in enumerate(width)
    )
    more = [f"({sheet.left_out} more)"] if sheet.left_out else []
    return "\n".join([line(rows[0]), rule + "|", *map(line, rows[1:]), *more])

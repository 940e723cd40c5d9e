"""The command `xtrace compare`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from xtrace.cli_common import (
    CpusOption,
    FixSkewOption,
    ForceOption,
    FromOption,
    HtmlOption,
    HzOption,
    ToOption,
    check_html,
    opened,
    print_json,
    selection,
    warn,
    write_html,
)
from xtrace.errors import RegressionError, UnjudgedError, UsageError

if TYPE_CHECKING:
    from xtrace.swimlanes import Swimlane

SEPARATOR = "vs"
WORST_LANES = 2

Format = Literal["table", "json", "markdown"]


def compare(
    traces: Annotated[
        list[str],
        typer.Argument(
            metavar="BEFORE… [vs] AFTER…",
            help="Two traces, before and after; or several a side with the word vs between the sides.",
        ),
    ],
    symbols_before: Annotated[
        str | None, typer.Option("--symbols-before", metavar="MAP", help="Names functions of BEFORE: nm output.")
    ] = None,
    symbols_after: Annotated[
        str | None, typer.Option("--symbols-after", metavar="MAP", help="Names functions of AFTER: nm output.")
    ] = None,
    cpu_hz: HzOption = None,
    cpus: CpusOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option("--fail-on", metavar="RULE", help="Exit with 5 where this holds: 'flush.total.p99>+5%'."),
    ] = None,
    fix_skew: FixSkewOption = False,
    html: HtmlOption = None,
    force: ForceOption = False,
    format_: Annotated[Format, typer.Option("--format", help="How to print; markdown is plain ASCII.")] = "table",
) -> None:
    """Say what changed between two hypervisors: the grid of the cover letter, phases, quantiles, overlap, who waits.

    Calls that carry a flush are compared with flushes. The other options go for all traces.
    """
    before, after = sides(traces)
    chosen = selection(cpus, from_, to)
    check_html(html, force)
    from xtrace import gate
    from xtrace.comparing import compare_runs as compared
    from xtrace.comparison import document
    from xtrace.opening import traces_at
    from xtrace.sides import Run
    from xtrace.swimlanes import worst_of

    rules = [gate.parse_rule(text) for text in fail_on or []]
    runs: dict[str, list[Run]] = {"before": [], "after": []}
    lanes: list[tuple[str, Swimlane]] = []
    for name, paths, symbols in (("before", before, symbols_before), ("after", after, symbols_after)):
        for path in (str(one) for given in paths for one in traces_at(given)):
            with opened(path, cpu_hz, symbols, once=html is None, fix_skew=fix_skew) as trace:
                # Of several runs the first shows its worst.
                if html is not None and not runs[name]:
                    lanes += [(name, lane) for lane in worst_of(trace, chosen, WORST_LANES)]
                runs[name].append(Run.of(trace, chosen))
                warn(trace)
    found = compared(runs["before"], runs["after"])
    judged = tuple(gate.judge(found, rule) for rule in rules)
    if html is not None:
        from xtrace.provenance import provenance
        from xtrace.reports import comparison_page

        files = [("before", path) for path in before] + [("after", path) for path in after]
        maps = [("symbols before", symbols_before), ("symbols after", symbols_after)]
        options = {"--cpu-hz": cpu_hz, "--cpus": cpus, "--from": from_, "--to": to, "--fail-on": fail_on}
        options |= {"--fix-skew": "yes" if fix_skew else None}
        write_html(html, comparison_page.page(found, lanes, provenance([*files, *maps], options)))
    if format_ == "json":
        print_json(document(found) | {"rules": [{"failed": one.failed, "sentence": one.sentence} for one in judged]})
    else:
        from xtrace.reports import comparison, terminal

        if format_ == "markdown":
            sys.stdout.write(comparison.markdown(found, judged))
        else:
            comparison.show(terminal.console(), found, judged)
    broken = [one.sentence for one in judged if one.failed]
    if broken:
        raise RegressionError(broken[0])
    unknown = [one.sentence for one in judged if one.failed is None]
    if unknown:
        raise UnjudgedError(unknown[0])


def sides(traces: list[str]) -> tuple[list[str], list[str]]:
    """The traces before and after the word `vs`; two need none. Raises UsageError."""
    if traces.count(SEPARATOR) == 1:
        place = traces.index(SEPARATOR)
        before, after = traces[:place], traces[place + 1 :]
        if before and after:
            return before, after
    elif len(traces) == 2:
        return traces[:1], traces[1:]
    raise UsageError(
        "compare: give two traces, before and after, or several with vs between the sides: "
        "xtrace compare old/*.bin vs new/*.bin"
    )

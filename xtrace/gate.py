"""`--fail-on`: what counts as a regression, and whether there is one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from xtrace.comparison import METRICS, STATISTICS, Comparison
from xtrace.errors import UsageError
from xtrace.statistics import Change

_RULE: Final = re.compile(r"(call|flush)\.(\w+)\.(\w+)\s*>\s*\+?(\d{1,6}(?:\.\d{1,6})?)\s*%")


@dataclass(frozen=True, slots=True)
class Rule:
    """A figure, and by how many per cent it may grow."""

    text: str
    kind: str
    metric: str
    statistic: str
    percent: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a rule is broken: None where the traces cannot tell; and a sentence that says so."""

    failed: bool | None
    sentence: str


def parse_rule(text: str) -> Rule:
    """`flush.total.p99>+5%`. Raises UsageError."""
    match = _RULE.fullmatch(text.strip())
    if not match or match[2] not in METRICS or match[3] not in STATISTICS:
        raise UsageError(
            f"--fail-on {text}: give KIND.FIGURE.STATISTIC>+N%, such as flush.total.p99>+5%; KIND: call or flush; "
            f"FIGURE: {', '.join(METRICS)}; STATISTIC: {', '.join(STATISTICS)}"
        )
    return Rule(text.strip(), match[1], match[2], match[3], float(match[4]))


def judge(found: Comparison, rule: Rule) -> Judgement:
    """Hold a comparison against a rule.

    It is broken where the figure grew by more than it may and its 95 % interval holds growth only. Where the sides are
    not comparable, or are too small for an interval, nothing is known.
    """
    one = next((one for kind, one in found.kinds.items() if kind == rule.kind), None)
    if one is None:
        return Judgement(None, f"{rule.text}: cannot be judged: not both sides have complete episodes of this kind.")
    change = one.metrics[rule.metric][rule.statistic]
    if not one.work.comparable:
        why = "nothing shows that the hosts were alike" if one.work.percent is None else "the hosts were not alike"
        return Judgement(None, f"{rule.text}: cannot be judged: {why}. {_said(change)}")
    if change.percent is None or change.low is None:
        return Judgement(None, f"{rule.text}: cannot be judged: too few episodes. {_said(change)}")
    if change.percent > rule.percent and change.low > 0:
        return Judgement(True, f"{rule.text}: regression. {_said(change)}")
    if change.percent > rule.percent:
        return Judgement(False, f"{rule.text}: not shown to be a regression. {_said(change)}")
    return Judgement(False, f"{rule.text}: no regression. {_said(change)}")


def _said(change: Change) -> str:
    if change.percent is None:
        return f"({change.n_before} and {change.n_after} values)"
    if change.low is None:
        return f"({change.percent:+.1f} %, {change.n_before} and {change.n_after} values)"
    return f"({change.percent:+.1f} %, 95 % interval {change.low:+.1f} to {change.high:+.1f})"

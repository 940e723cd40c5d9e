"""What a trace answers beyond each kind of episode by itself: who waits for whom, whether it is fair, who pays."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from xtrace.questions import NAMES
from xtrace.reports.page import Point
from xtrace.reports.sections import asynchronous, clocks, contention, cost, fairness, log_dirty, stragglers, waste

if TYPE_CHECKING:
    from xtrace.questions.answers import Answers
    from xtrace.reports.page import Section

_PAINT: Final = (contention, fairness, cost, stragglers, log_dirty, asynchronous, waste, clocks)
"""By name, in the order of NAMES."""

_LABELS: Final = {
    "contention": "Waiting",
    "fairness": "Fairness",
    "cost": "Cost",
    "stragglers": "Slowest target",
    "log-dirty": "Log-dirty",
    "asynchronous": "Asynchronous calls",
    "waste": "Wasted work",
    "clocks": "Clocks",
}


def _parts(found: Answers, names: Collection[str]) -> Iterator[tuple[Any, Any]]:
    """How to paint a part, and the part."""
    for name, paint in zip(NAMES, _PAINT, strict=True):
        if name in names:
            yield paint, getattr(found, name.replace("-", "_"))


def sections(found: Answers, names: Collection[str] = NAMES) -> Iterator[Section]:
    """The chapters of these names, without pictures."""
    for paint, part in _parts(found, names):
        yield paint.section(part)


def illustrated(found: Answers) -> Iterator[Section]:
    """All chapters, with pictures."""
    for paint, part in _parts(found, NAMES):
        yield replace(paint.section(part), pictures=paint.pictures(part))


def points(found: Answers) -> Iterator[Point]:
    """What the chapters come to, as far as they have something to say."""
    for name, (paint, part) in zip(NAMES, _parts(found, NAMES), strict=True):
        text = " ".join(paint.answer(part))
        if text:
            yield Point(name, _LABELS[name], text)

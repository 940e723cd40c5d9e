"""Figures of calls and flushes with their captions, for the pages of an analysis and of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from xtrace import units
from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.reports import figures, parts
from xtrace.reports.page import Picture, Section

if TYPE_CHECKING:
    import pandas as pd

    from xtrace.reports.figures import Kind
    from xtrace.swimlanes import Swimlane


def distributions(sides: Mapping[str, pd.DataFrame], kind: Kind, column: str) -> tuple[Picture, Picture]:
    """How long episodes took, as shares and as counts."""
    nouns = KIND_NOUNS[kind]
    return (
        parts.picture(
            figures.ecdf(sides, kind, column),
            f"{kind}-ecdf",
            f"How long {nouns} took",
            "Share that took at most so long; the time axis is logarithmic. Further left is faster.",
        ),
        parts.picture(
            figures.histogram(sides, kind, column),
            f"{kind}-histogram",
            f"How often {nouns} took so long",
            "Logarithmic bins of time, the same for all.",
        ),
    )


def over_time(sides: Mapping[str, pd.DataFrame], kind: Kind) -> Picture:
    """The lock queue and the number in flight."""
    return parts.picture(
        figures.timeline(sides, kind),
        f"{kind}-timeline",
        f"{KIND_NOUNS[kind].capitalize()} over time",
        "Mean number waiting to be sent (the queue for the lock) and in flight, sent and not done.",
        wide=True,
    )


def by_cpu(sides: Mapping[str, pd.DataFrame], kind: Kind, column: str, where: str) -> Picture:
    """What each initiating CPU waited."""
    return parts.picture(
        figures.waits_by_cpu(sides, kind, column),
        f"{kind}-by-cpu",
        f"Waits by CPU number{where}",
        "Line: 10th to 90th percentile; dot: mean; tick: longest.",
    )


def lanes(some: Sequence[tuple[str, Swimlane]]) -> Section:
    """The worst episodes; each with the name of its side, or ''."""
    pictures = []
    for number, (side, lane) in enumerate(some):
        of = f"{side}: " if side else ""
        more = f" {lane.left_out} more targets, which ended earlier, are not shown." if lane.left_out else ""
        pictures.append(
            parts.picture(
                figures.swimlane(lane),
                f"lane-{number}",
                f"{of}{lane.kind} {lane.episode} of CPU {lane.initiator}, {units.time(lane.total_ns)}",
                f"From {lane.from_ns / 1e9:.6f} s. Upper bars: this {lane.kind}; lower bars: what the CPU did besides; "
                f"small marks: other records that it wrote.{more}",
                wide=True,
            )
        )
    return Section("worst", "The worst, CPU by CPU", pictures=tuple(pictures))

"""All questions asked of one trace."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from xtrace.inference import Inference, inference
from xtrace.questions.asynchronous import Asynchronous, asynchronous
from xtrace.questions.contention import Contention, contention
from xtrace.questions.cost import Cost, cost
from xtrace.questions.fairness import Fairness, every_kind
from xtrace.questions.log_dirty import LogDirty, log_dirty
from xtrace.questions.paths import Paths
from xtrace.questions.requests import Requests
from xtrace.questions.stragglers import Stragglers, stragglers
from xtrace.questions.waste import Waste, waste

if TYPE_CHECKING:
    from xtrace.selection import Selection
    from xtrace.skew import Skew
    from xtrace.trace import Trace


@dataclass(frozen=True, slots=True)
class Answers:
    """What was found, as plain data; each has methods `df_…` that give parts of it as frames.

    fairness   by kind of episode
    log_dirty  None where it was not asked for, or the trace holds no records that tell
    clocks     None where it was not asked for; always of all of the trace
    inferred   what shows of a trace without the tracepoints, whose other answers are then of no request
    """

    contention: Contention
    fairness: dict[str, Fairness]
    cost: Cost
    stragglers: Stragglers
    log_dirty: LogDirty | None
    asynchronous: Asynchronous
    waste: Waste
    clocks: Skew | None
    inferred: Inference | None = None


def answers(trace: Trace, selection: Selection, *, log_dirty_too: bool = False, clocks_too: bool = False) -> Answers:
    """Ask everything; what concerns log-dirty phases, or clocks, takes one more pass over the trace each."""
    requests = Requests.of(trace.tables, selection)
    paths = Paths.of(requests)
    return Answers(
        contention(paths, _span_ns(trace, selection)),
        every_kind(requests),
        cost(paths),
        stragglers(paths),
        log_dirty(trace, paths) if log_dirty_too else None,
        asynchronous(paths),
        waste(paths),
        trace.skew if clocks_too else None,
        inference(trace, selection, _span_ns(trace, selection)),
    )


def _span_ns(trace: Trace, selection: Selection) -> int:
    """How much of the trace is selected."""
    whole = trace.duration_ns
    end = whole if selection.to_ns is None else min(selection.to_ns, whole)
    return max(end - (selection.from_ns or 0), 0)


def document(found: Answers) -> dict[str, Any]:
    """Parts of the JSON document `xtrace.analysis/1` (docs/json.md), but for fairness, which stands with each kind."""
    names = (one.name for one in fields(found) if one.name != "fairness")
    parts = ((name, getattr(found, name)) for name in names)
    return {name: None if part is None else asdict(part) for name, part in parts}


def fairness_document(found: Answers, kind: str) -> dict[str, Any]:
    """What the JSON document says of the fairness of a kind."""
    return {name: part for name, part in asdict(found.fairness[kind]).items() if name != "kind"}

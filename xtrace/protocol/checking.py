"""A trace → what it shows of the promises of its design: steps, requests, rules, and the records to show for it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from xtrace.episodes.relations import Model
from xtrace.errors import UsageError
from xtrace.protocol import clocks
from xtrace.protocol.asked import CALL, Asked, asked
from xtrace.protocol.model import recognise
from xtrace.protocol.rule import Case
from xtrace.protocol.rules import RULES
from xtrace.protocol.showing import Showing
from xtrace.protocol.steps import Flags, Index, take
from xtrace.protocol.verdict import Checked, Difference, Outcome
from xtrace.selection import Selection
from xtrace.states import TRACK_BITS, cpu_of

if TYPE_CHECKING:
    from xtrace.trace import Trace

SCHEMA = "xtrace.check/1"

DOUBT_NS = 10_000
"""Clocks may differ by so much: what a CPU did not do by another's time is said where its records reach that far on."""

REASONS = (
    "without START",
    "unfinished where their CPU's records end",
    "with records of their CPU missing",
    "with a target whose records do not show it",
)
"""Why a request is not judged; the first one that holds."""


def check(
    trace: Trace, model: Model | None = None, *, selection: Selection | None = None, at_most: int | None = None
) -> Checked:
    """Hold a trace against what its design promises.

    model      the design that made the promises; None: the one that the trace shows
    selection  which requests count, by initiator and START (the first step seen where that was not); default all
    at_most    violations that are shown of each rule, the first in time; all are counted

    The trace is read once more. Of a trace without the tracepoints nothing is judged. Raises UsageError for a model
    that is none.
    """
    if model is not None and model not in get_args(Model):
        raise UsageError(f"no model {model}: give {', '.join(get_args(Model))}")
    noted = take(trace)
    found = asked(noted)
    chosen = _chosen(trace, found, selection or Selection())
    of = model or recognise(found)
    ahead = clocks.ahead(found, in_turn=of == "legacy")
    told = clocks.corrected(noted, ahead)
    told = replace(told, spans=told.spans.narrowed(trace.clock.to_cycles(DOUBT_NS) - trace.clock.zero))
    case = Case(of, *found._replace(steps=told))
    show = Showing(trace, found)
    broken = np.zeros(len(chosen), np.bool_)
    outcomes = []
    for rule in RULES:
        if of in rule.models:
            findings = [one.take(chosen[one.request]) for one in rule.find(case)]
            for one in findings:
                broken[one.request] = True
            count = sum(len(one.request) for one in findings)
            outcomes.append(Outcome(rule.name, rule.models, rule.promise, count, show.violations(findings, at_most)))
    reason = _unjudged(case)
    judged = chosen & (broken | (reason < 0))
    missing = np.bincount(reason[chosen & ~judged], minlength=len(REASONS)).tolist()
    calls = found.requests.kind == CALL
    hz = trace.clock.span_ns
    return Checked(
        model=of,
        model_source="trace" if model is None else "option",
        calls=int((judged & calls).sum()),
        flushes=int((judged & ~calls).sum()),
        not_judged={name: count for name, count in zip(REASONS, missing, strict=True) if count},
        rules=tuple(outcomes),
        clocks=tuple(
            Difference(track >> TRACK_BITS, int(cpu_of(np.array(track))), int(hz(np.array([by]))[0]))
            for track, by in sorted(ahead.items())
        ),
    )


def document(trace: Trace, found: Checked) -> dict[str, Any]:
    """The JSON document `xtrace.check/1` (docs/check.md)."""
    return {"schema": SCHEMA, "trace": trace.info["trace"], **asdict(found)}


def _chosen(trace: Trace, found: Asked, selection: Selection) -> Flags:
    requests, steps = found.requests, found.steps
    begun = np.where(requests.start >= 0, requests.start, requests.first)
    start_ns = trace.clock.to_ns(steps.time[begun].astype(np.uint64))
    return selection.starts(cpu_of(requests.owner).astype(np.uint16), start_ns)


def _unjudged(case: Case) -> Index:
    """By request why it is not judged, a place in REASONS; −1 where nothing keeps it from being judged."""
    requests, services, steps = case.requests, case.services, case.steps
    unseen = services.asked & ((services.enter < 0) | (services.left < 0))
    hidden = np.bincount(services.request[unseen], minlength=len(requests.start)) > 0
    final = np.append(np.flatnonzero(np.diff(steps.track)), len(steps.track) - 1)
    last = np.maximum(requests.start, requests.sent)
    at_end = steps.stream[final[np.searchsorted(final, last)]] == steps.stream[last] if len(last) else hidden
    why = [requests.start < 0, (requests.done < 0) & at_end, ~case.whole, hidden]
    return np.select(why, [np.int64(place) for place in range(len(REASONS))], -1)

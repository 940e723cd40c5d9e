"""What a question needs of a trace: declared where it is asked, and said when it is missing."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from xtrace.errors import MissingEventsError
from xtrace.selection import parse_events

if TYPE_CHECKING:
    from xtrace.trace import Trace

Question = TypeVar("Question", bound=Callable[..., Any])

SHOWN: Final = 5
"""Events named as what a trace has instead."""


def needs(*names: str) -> Callable[[Question], Question]:
    """A method of a trace that needs records of at least one of these events (names, classes or patterns)."""

    def declare(ask: Question) -> Question:
        @wraps(ask)
        def asked(trace: Trace, *arguments: Any, **options: Any) -> Any:
            chosen = parse_events(",".join(names))
            if not any(chosen(trace.event_of(header)) for header in trace.survey.counts):
                raise missing(trace, *names)
            return ask(trace, *arguments, **options)

        return cast("Question", asked)

    return declare


def missing(trace: Trace, *names: str) -> MissingEventsError:
    """The error that says which events are missing, and what the trace has instead."""
    present = trace.event_counts()
    shown = ", ".join(f"{name} ({count})" for name, count in list(present.items())[:SHOWN])
    return MissingEventsError(f"{trace.name}: no {' or '.join(names)} records; it has {shown}, …", names, present)

"""What part of a trace is meant: CPUs, a span of time, events, domains. The same on every command."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from xtrace.clock import Clock
from xtrace.decode import Batch
from xtrace.errors import UsageError
from xtrace.parsers.container import MAX_CPU
from xtrace.parsers.event import Event
from xtrace.parsers.registry import events_named
from xtrace.states import cpu_of

_UNITS_NS = {"": 1_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "µs": 1_000, "ns": 1}
_TIME = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*(s|ms|us|µs|ns)?")
_NUMBERS = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")

_UNDECLARED = re.compile(r"(TRC_)?(UNKNOWN|GUEST).*|.*_[0-7]W")
"""Names that records get which fit no declaration: see `registry.resolve`."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Records of these CPUs with from_ns ≤ time < to_ns; None: no limit. Times are ns since the first timestamp.

    An episode is selected by its START: its initiator is one of the CPUs and its start is in the span.
    """

    cpus: frozenset[int] | None = None
    from_ns: int | None = None
    to_ns: int | None = None

    def __bool__(self) -> bool:
        return not (self.cpus is None and self.from_ns is None and self.to_ns is None)

    def records(self, batch: Batch, clock: Clock) -> NDArray[np.bool_]:
        """Which records of a batch are meant. Those without any time are in no span."""
        chosen = self._on(cpu_of(batch.track))
        if self.from_ns is not None or self.to_ns is not None:
            chosen &= (batch.tsc > 0) & self._within(clock.to_ns(batch.tsc))
        return chosen

    def starts(self, cpu: NDArray[np.uint16], start_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which episodes are meant, by initiator and start; one whose start was not seen (NULL) is in no span."""
        chosen = self._on(cpu)
        if self.from_ns is not None or self.to_ns is not None:
            chosen &= (start_ns != np.iinfo(np.int64).min) & self._within(start_ns)
        return chosen

    def _on(self, cpu: NDArray[np.integer]) -> NDArray[np.bool_]:
        if self.cpus is None:
            return np.ones(len(cpu), np.bool_)
        return np.isin(cpu, np.array(sorted(self.cpus), np.int64))

    def _within(self, ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        inside = np.ones(len(ns), np.bool_)
        if self.from_ns is not None:
            inside &= ns >= self.from_ns
        if self.to_ns is not None:
            inside &= ns < self.to_ns
        return inside


def parse_time(text: str, option: str) -> int:
    """`1.5`, `1.5s`, `200ms`, `35us`, `120ns` in ns. Raises UsageError."""
    match = _TIME.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{option} {text}: not a time; give seconds, or a number with s, ms, us or ns")
    whole, _, fraction = match[1].partition(".")
    unit = _UNITS_NS[match[2] or ""]
    return int(whole) * unit + int(fraction or "0") * unit // int(10 ** len(fraction))


def parse_numbers(text: str, option: str, highest: int) -> frozenset[int]:
    """`0-3,8` as a set. Raises UsageError."""
    found: set[int] = set()
    for part in text.split(","):
        match = _NUMBERS.fullmatch(part.strip())
        if not match:
            raise UsageError(f"{option} {text}: not a list of numbers; give for example 0-3,8")
        begin, end = int(match[1]), int(match[2] or match[1])
        if begin > end or end > highest:
            raise UsageError(f"{option} {text}: {part.strip()} is not a range within 0-{highest}")
        found.update(range(begin, end + 1))
    return frozenset(found)


def parse_cpus(text: str, option: str = "--cpus") -> frozenset[int]:
    """CPU numbers, as `parse_numbers`."""
    return parse_numbers(text, option, MAX_CPU)


@dataclass(frozen=True, slots=True)
class EventChoice:
    """Whether an event is meant: by its id, or by a pattern, in upper case, of its name or class.

    What counts is the name that a record is shown under, so that undeclared events can be chosen, too.
    """

    ids: frozenset[int]
    patterns: tuple[str, ...]

    def __call__(self, event: Event) -> bool:
        """Whether this event is meant."""
        names = (event.name, event.name.removeprefix("TRC_"), event.trace_class)
        return event.event_id in self.ids or any(
            fnmatchcase(name.upper(), pattern) for name in names for pattern in self.patterns
        )


def parse_events(text: str) -> EventChoice:
    """The events that names, classes, patterns or ids mean. Raises UsageError for a name that no event can have."""
    ids, patterns = set(), []
    for part in map(str.strip, text.split(",")):
        try:
            ids.add(int(part, 0))
        except ValueError:
            patterns.append(part.upper())
            if not (events_named(part) or _UNDECLARED.fullmatch(part.upper())):
                raise UsageError(f"--event {part}: no such event; `xtrace info TRACE` lists those of a trace") from None
    return EventChoice(frozenset(ids), tuple(patterns))

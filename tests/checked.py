"""What a check found, for tests to look at."""

from __future__ import annotations

from typing import Final

from conftest import RECORDS

from xtrace.parsers.fields import u32, u64
from xtrace.parsers.registry import EVENTS
from xtrace.protocol import Checked
from xtrace.protocol.verdict import Record, Violation

Key = tuple[str, int, int]
"""A request: kind, initiator and `seq`."""

HZ: Final = dict.fromkeys(RECORDS, 2_596_100_000) | dict.fromkeys(
    ("bench8-legacy", "bench8-lockless", "vmx-legacy"), 60_000_000
)
"""TSC frequencies of the real traces."""


def counts(found: Checked) -> dict[str, int]:
    """Violations by rule, without the rules that hold."""
    return {one.rule: one.count for one in found.rules if one.count}


def violations(found: Checked, rule: str) -> tuple[Violation, ...]:
    """Those of a rule."""
    return next(one.violations for one in found.rules if one.rule == rule)


def held_by(data: bytes, one: Record) -> bool:
    """Whether these are the bytes of the record, at its offset."""
    assert one.offset is not None
    header = u32.parse(data[one.offset : one.offset + 4])
    event = next(event for event in EVENTS if event.name == one.event and event.event_id == header & 0x0FFFFFFF)
    payload = data[one.offset + 12 :]
    words = {name: value for name, value in one.fields.items() if name != "func_name"}
    parsed = event.payload.parse(payload) if words else {}
    shown = dict(parsed.items()) | dict(parsed.get("flags", {}))
    return u64.parse(data[one.offset + 4 :]) == one.tsc and all(shown[name] == value for name, value in words.items())


def flagged(found: Checked, rule: str) -> set[Key]:
    """Requests that a rule found."""
    return {(one.kind, one.initiator, one.seq) for one in violations(found, rule)}

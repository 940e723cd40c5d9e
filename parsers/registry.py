"""Every declared event, and which of them a record is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

from xtrace.parsers import container, dom0op, guest, hvm, hw, mem, pv, sched, shadow, smp
from xtrace.parsers.event import Event
from xtrace.parsers.vendor import Vendor

EVENTS: Final[tuple[Event, ...]] = (
    *container.EVENTS,
    *sched.EVENTS,
    *dom0op.EVENTS,
    *hvm.EVENTS,
    *mem.EVENTS,
    *pv.EVENTS,
    *shadow.EVENTS,
    *hw.EVENTS,
    *smp.EVENTS,
    *guest.EVENTS,
)

KEPT: Final = 1 << 16
"""Answers remembered: more than a real trace has kinds of records, and a bound for a made-up one."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Who wrote a trace: the CPU vendor and the Xen release 4.x; None where unknown."""

    vendor: Vendor | None = None
    release: int | None = None


UNKNOWN: Final = Dialect()


@lru_cache(maxsize=KEPT)
def variants(event_id: int) -> tuple[Event, ...]:
    """Every layout declared for an event id."""
    return tuple(event for event in EVENTS if event.event_id <= event_id <= event.last_id)


@lru_cache(maxsize=KEPT)
def needs_first_word(event_id: int, words: int) -> bool:
    """Whether records of this id and length differ by their first payload word."""
    return any(event.first_word for event in variants(event_id) if event.words == words)


@lru_cache(maxsize=KEPT)
def resolve(
    event_id: int,
    words: int,
    timestamped: bool,
    first_word: int | None = None,
    dialect: Dialect = UNKNOWN,
) -> Event:
    """The declared layout of a record with this id, this many payload words and this first one.

    A layout of the wrong vendor or release is still better than none: its length fits, and the dialect may be
    a guess. With no release given the newest wins. A record that fits no declaration gets an opaque Event,
    named after its id and length. Never raises.
    """
    known = variants(event_id)
    fitting = [event for event in known if _fits(event, words, first_word)]
    if not fitting:
        name = f"{known[0].name}_{words}W" if known else f"TRC_UNKNOWN_0x{event_id:07x}"
        return Event(event_id, name, variant="undeclared", timestamped=timestamped)
    best = max(fitting, key=lambda event: _preference(event, timestamped, dialect))
    if best.last_id == best.event_id:
        return best
    name = f"TRC_GUEST_0x{event_id & 0xFFF:03x}" if best in guest.EVENTS else best.name
    return replace(best, event_id=event_id, last_id=event_id, name=name)


def _fits(event: Event, words: int, first_word: int | None) -> bool:
    """Whether a record of this length and first word can have this layout."""
    if event.words not in (None, words):
        return False
    if event.first_word is None:
        return True
    mask, value = event.first_word
    return first_word is not None and first_word & mask == value


def _preference(event: Event, timestamped: bool, dialect: Dialect) -> tuple[bool | int, ...]:
    """Sorts layouts that fit, best last; `max` takes the one declared first among equals."""
    release = dialect.release
    return (
        None in (event.vendor, dialect.vendor) or event.vendor == dialect.vendor,
        release is None or (event.since <= release and (event.until is None or release <= event.until)),
        event.emitted,
        event.timestamped == timestamped,
        event.words is not None,
        event.since,
    )


def events_named(pattern: str) -> list[Event]:
    """The declared events a person means: a name or class, in any case and with wildcards, or an id.

    `TRC_SCHED_WAKE`, `sched_wake`, `*exit*`, `SCHED`, `0x28004` and `163844` are all understood.
    """
    try:
        return list(variants(int(pattern, 0)))
    except ValueError:
        wanted = pattern.upper()
    return [
        event
        for event in EVENTS
        if any(
            fnmatchcase(name.upper(), wanted)
            for name in (event.name, event.name.removeprefix("TRC_"), event.trace_class)
        )
    ]

"""One part of the host summary by itself, as `xtrace.host.summary` makes it among all."""

from __future__ import annotations

from typing import Any, TypeVar

from xtrace.host.account import Account, Ground
from xtrace.host.known import Known
from xtrace.host.walk import Chunk, in_time
from xtrace.host.windows import Windows
from xtrace.selection import Selection
from xtrace.trace import Trace

Kind = TypeVar("Kind", bound=Account[Any])


def followed(
    trace: Trace,
    kind: type[Kind],
    selection: Selection | None = None,
    every_ns: int | None = None,
    piece: int | None = None,
) -> Kind:
    """The account when all is over. piece: it is fed so many records at a time."""
    selection = selection or Selection()
    end = trace.duration_ns + 1
    windows = Windows(selection.from_ns or 0, end if selection.to_ns is None else min(selection.to_ns, end), every_ns)
    cpus = tuple(sorted(trace.survey.cpus))
    account = kind(Ground(windows, selection, trace.dialect, trace.clock, trace.duration_ns, cpus, Known.of(trace)))
    capture = None
    for chunk in in_time(trace, account.wants, account.read):
        now = int(chunk.capture[0])
        if capture is not None and now != capture:
            account.finish()
        capture = now
        for part in pieces(chunk, piece):
            account.feed(part)
    account.finish()
    return account


def pieces(chunk: Chunk, size: int | None) -> list[Chunk]:
    """A chunk cut into pieces."""
    if size is None:
        return [chunk]
    return [chunk.take(slice(begin, begin + size)) for begin in range(0, len(chunk.ns), size)]

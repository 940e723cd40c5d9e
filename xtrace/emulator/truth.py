"""The truth of an emulated trace as tables in the analyzer's schemas, told from the emulator's own account.

Nothing here reads records: what the analyzer finds in the file is held against this. Plain Python on purpose.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from xtrace.emulator.machine import NS_PER_S
from xtrace.emulator.models.design import CALL_FUNCTION_VECTOR
from xtrace.emulator.requests import Request, Situation
from xtrace.emulator.spans import Spans
from xtrace.episodes.tables import DELIVERIES, EPISODES
from xtrace.symbols import INTERRUPT_ONLY


class Truth(NamedTuple):
    """Arrow tables of schemas EPISODES and DELIVERIES; an episode of which records were lost is not `complete`."""

    episodes: pa.Table
    deliveries: pa.Table


class Time(NamedTuple):
    """The clock of a trace: `zero` its first cycle count, `ahead` by how much each CPU's TSC is."""

    hz: int
    zero: int
    ahead: Mapping[int, int]

    def read(self, cpu: int, cycles: int) -> int | None:
        """What this CPU's TSC shows, None for a step not reached."""
        return cycles + self.ahead.get(cpu, 0) if cycles else None

    def ns(self, tsc: int | None) -> int | None:
        """Nanoseconds since the trace began, rounded down."""
        return None if tsc is None else (tsc - self.zero) * NS_PER_S // self.hz


def tables(requests: Iterable[Request], lost: frozenset[int], time: Time, *, flush_vector: int) -> Truth:
    """Both tables; lost: rows of the log that did not reach the file."""
    order = sorted(requests, key=lambda one: (time.read(one.initiator, one.start), one.is_flush, one.initiator))
    number = {id(one): row for row, one in enumerate(order)}
    busy = _busy(order, time)
    inflight = _inflight(order, time)
    episodes: list[dict[str, Any]] = []
    deliveries: list[dict[str, Any]] = []
    carriers = {id(one.carries): one for one in order if one.carries is not None}
    for row, one in enumerate(order):
        episodes.append(_episode(row, one, time, number, inflight[row], lost, flush_vector))
        outer = carriers.get(id(one), one)
        deliveries += [_delivery(row, one, outer, cpu, time, busy) for cpu in one.targets if one.send]
    return Truth(
        pa.Table.from_pylist(episodes, schema=EPISODES),
        pa.Table.from_pylist(deliveries, schema=DELIVERIES),
    )


def _episode(
    row: int,
    one: Request,
    time: Time,
    number: Mapping[int, int],
    inflight: int,
    lost: frozenset[int],
    flush_vector: int,
) -> dict[str, Any]:
    start, send, done = (time.ns(time.read(one.initiator, step)) for step in (one.start, one.send, one.done))
    ended = {cpu: served.left + time.ahead.get(cpu, 0) for cpu, served in one.served.items() if served.left}
    vcpu = one.found.vcpu if one.found is not None else None
    return {
        "episode": row,
        "kind": "flush" if one.is_flush else "call",
        "initiator": one.initiator,
        "seq": one.seq,
        "start_ns": start,
        "send_ns": send,
        "done_ns": done,
        "lock_wait_ns": _span(start, send),
        "total_ns": _span(start, done),
        # The mask is in SEND.
        "n_targets": len(one.targets) if one.send else None,
        "targets": list(one.targets) if one.send else None,
        "func": None if one.is_flush else one.func,
        "func_name": None if one.is_flush or one.func else INTERRUPT_ONLY,
        "wait": None if one.is_flush else one.wait,
        "flush_flags": one.flush_flags if one.is_flush else None,
        "va": one.va if one.is_flush else None,
        "parent": None if one.carries is None else number[id(one.carries)],
        "inflight": inflight,
        "straggler": max(ended, key=lambda cpu: (ended[cpu], cpu), default=None),
        "domain": None if vcpu is None else vcpu[0],
        "vcpu": None if vcpu is None else vcpu[1],
        "evidence": "exact",
        "confidence": 1.0,
        "complete": bool(one.done) and len(ended) == len(one.targets) and not lost.intersection(one.rows),
        "vector": flush_vector if one.is_flush else CALL_FUNCTION_VECTOR,
    }


def _delivery(
    row: int, one: Request, outer: Request, cpu: int, time: Time, busy: Mapping[int, Spans]
) -> dict[str, Any]:
    """outer: the call that carries it, if one does; that is what waits behind others."""
    served, began = one.served.get(cpu), outer.served.get(cpu)
    enter = left = queued = None
    found: Situation | None = None
    send = time.read(one.initiator, one.send)
    if served is not None and began is not None:
        enter, left, found = time.read(cpu, served.entered), time.read(cpu, served.left), served.found
        until = time.read(cpu, began.entered)
        if send is not None and until is not None:
            queued = busy[cpu].within(send, until) if cpu in busy else 0
    enter_ns, exit_ns = time.ns(enter), time.ns(left)
    vcpu = found.vcpu if found is not None else None
    return {
        "episode": row,
        "cpu": cpu,
        "enter_ns": enter_ns,
        "exit_ns": exit_ns,
        "delivery_ns": _span(time.ns(send), enter_ns),
        "execution_ns": _span(enter_ns, exit_ns),
        "queue_ns": None if queued is None else queued * NS_PER_S // time.hz,
        "domain": None if vcpu is None else vcpu[0],
        "vcpu": None if vcpu is None else vcpu[1],
        "state": "unknown" if found is None else found.state,
    }


def _span(first: int | None, last: int | None) -> int | None:
    return None if first is None or last is None else last - first


def _inflight(order: list[Request], time: Time) -> list[int]:
    """By row: episodes of its kind that have started and are not done, itself included."""
    ended = {
        kind: sorted(
            done for one in order if one.is_flush == kind and (done := time.read(one.initiator, one.done)) is not None
        )
        for kind in (False, True)
    }
    begun = {False: 0, True: 0}
    counts = []
    for one in order:
        begun[one.is_flush] += 1
        start = time.read(one.initiator, one.start) or 0
        counts.append(begun[one.is_flush] - bisect_right(ended[one.is_flush], start))
    return counts


def _busy(order: list[Request], time: Time) -> dict[int, Spans]:
    """When each CPU ran functions, in cycles of its TSC: those of calls, and of flushes that no call carries."""
    carried = {id(one.carries) for one in order}
    spans: dict[int, list[tuple[int, int]]] = {}
    for one in order:
        if id(one) in carried:
            continue
        for cpu, served in one.served.items():
            entered, left = time.read(cpu, served.entered), time.read(cpu, served.left)
            if entered is not None and left is not None:
                spans.setdefault(cpu, []).append((entered, left))
    return {cpu: Spans(of_cpu) for cpu, of_cpu in spans.items()}

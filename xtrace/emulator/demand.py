"""What a trace asks for, whatever the design that served it: who called whom, how long functions ran, what was between.

Bursts: where the whole host asks for nothing for a while, what comes next is not driven by what came before. A burst
begins anew once the one before is over and as much silence has passed as in the trace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from xtrace.emulator.spans import Spans
from xtrace.errors import UsageError

BURST_GAP_NS: Final = 50_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """One call or flush of the demand.

    think_ns  from the caller's last return, or from the burst's begin, until it asks; without what it gave others
    work_ns   how long the function ran, by target
    source    its row in the trace's episodes
    """

    think_ns: int
    targets: tuple[int, ...]
    work_ns: dict[int, int]
    source: int
    func: int = 0
    wait: bool = True
    flush_flags: int = 0
    va: int = 0


@dataclass(frozen=True, slots=True)
class Burst:
    """What CPUs ask for in a row, by initiator; it begins `silence_ns` after the burst before has ended."""

    silence_ns: int
    asked: dict[int, list[Asked]]


@dataclass(frozen=True, slots=True)
class Demand:
    """The bursts of a trace, in order.

    cpus      one more than the highest CPU named
    left_out  episodes that are incomplete, and not in it
    """

    bursts: tuple[Burst, ...]
    cpus: int
    left_out: int


def demand(episodes: pa.Table, deliveries: pa.Table) -> Demand:
    """Take the demand out of a trace's tables. Raises UsageError where there is no complete episode."""
    every = episodes.to_pylist()
    whole = [row for row in every if row["parent"] is None]
    rows = sorted((row for row in whole if row["complete"]), key=lambda row: (row["start_ns"], row["episode"]))
    if not rows:
        raise UsageError("no complete call or flush in this trace: there is no demand to replay")
    served: dict[int, dict[int, int]] = {}
    spans: dict[int, list[tuple[int, int]]] = {}
    carried = {row["parent"] for row in every} - {None}
    for one in deliveries.to_pylist():
        if one["execution_ns"] is not None:
            served.setdefault(one["episode"], {})[one["cpu"]] = one["execution_ns"]
            if one["episode"] not in carried:
                spans.setdefault(one["cpu"], []).append((one["enter_ns"], one["exit_ns"]))
    busy = {cpu: Spans(of_cpu) for cpu, of_cpu in spans.items()}
    bursts: list[Burst] = []
    asked: dict[int, list[Asked]] = {}
    since: dict[int, int] = {}
    begin = end = rows[0]["start_ns"]
    for row in rows:
        cpu, start = row["initiator"], row["start_ns"]
        if start - end > BURST_GAP_NS or not bursts:
            asked, since = {}, {}
            bursts.append(Burst(start - end, asked))
            begin = start
        last = since.get(cpu, begin)
        away = busy[cpu].within(last, start) if cpu in busy and cpu in since else 0
        asked.setdefault(cpu, []).append(
            Asked(
                think_ns=max(0, start - last - away),
                targets=tuple(row["targets"]),
                work_ns=served[row["episode"]],
                source=row["episode"],
                func=row["func"] or 0,
                wait=row["wait"] is not False,
                flush_flags=row["flush_flags"] or 0,
                va=row["va"] or 0,
            )
        )
        since[cpu] = row["done_ns"]
        end = max(end, row["done_ns"])
    highest = max(max(row["initiator"], *row["targets"]) for row in rows)
    return Demand(tuple(bursts), highest + 1, len(whole) - len(rows))

"""Emulated traces beside what the analyzer finds in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xtrace
from xtrace.emulator.choices import Records
from xtrace.emulator.output import made
from xtrace.emulator.plan import Plan

Rows = list[dict[str, Any]]


def analyzed(path: Path, plan: Plan, records: Records = "all") -> tuple[str, int, list[str]]:
    """Emulate, write, analyze: the SMP model found, records lost, and how the analyzer differs from the truth."""
    emulation = plan.run()
    content, truth, _, lost = made(emulation, plan.tool, records)
    path.write_bytes(content)
    with xtrace.open(path, cpu_hz=plan.host.hz) as trace:
        episodes, deliveries = trace.table_episodes().to_pylist(), trace.table_deliveries().to_pylist()
        assert not trace.survey.skips
        assert sum(trace.lost_by_cpu.values()) <= lost  # what is lost at the end has no record that says so
        model = trace.tables.model
    true_episodes, true_deliveries = truth.episodes.to_pylist(), truth.deliveries.to_pylist()
    if lost:
        return model, lost, _differences_of_lossy(episodes, deliveries, true_episodes, true_deliveries)
    found = _differences("episode", episodes, true_episodes) + _differences("delivery", deliveries, true_deliveries)
    return model, lost, found


def _differences(what: str, found: Rows, true: Rows) -> list[str]:
    if len(found) != len(true):
        return [f"{len(found)} rows of {what}, not {len(true)}"]
    return [
        f"{what} {number}: {name} is {one[name]}, not {other[name]}"
        for number, (one, other) in enumerate(zip(found, true, strict=True))
        for name in one
        if one[name] != other[name] and not _unknowable(name, one[name])
    ]


def _unknowable(name: str, value: object) -> bool:
    """What the trace does not tell: what runs where no record says so, and the vector under a model not known."""
    return (name == "state" and value == "unknown") or (name in ("vector", "domain", "vcpu") and value is None)


OWN = ("start_ns", "send_ns", "done_ns", "n_targets", "targets", "func", "wait", "flush_flags", "va", "straggler")
OWN_DELIVERY = ("cpu", "enter_ns", "exit_ns")


def _differences_of_lossy(found: Rows, deliveries: Rows, true: Rows, true_deliveries: Rows) -> list[str]:
    """Each episode of which nothing was lost is there, whole; no other passes for complete."""
    differences = []
    known = {(row["kind"], row["initiator"], row["seq"]): row for row in found if row["complete"]}
    whole = {(row["kind"], row["initiator"], row["seq"]): row for row in true if row["complete"]}
    if known.keys() != whole.keys():
        differences.append(f"complete differ: {sorted(known.keys() ^ whole.keys())[:5]}")
    of, true_of = _by_episode(deliveries), _by_episode(true_deliveries)
    for key in known.keys() & whole.keys():
        one, other = known[key], whole[key]
        differences += [f"{key}: {name} is {one[name]}, not {other[name]}" for name in OWN if one[name] != other[name]]
        mine, theirs = of[one["episode"]], true_of[other["episode"]]
        if [[row[name] for name in OWN_DELIVERY] for row in mine] != [
            [row[name] for name in OWN_DELIVERY] for row in theirs
        ]:
            differences.append(f"{key}: deliveries differ")
    return differences


def _by_episode(rows: Rows) -> dict[int, Rows]:
    found: dict[int, Rows] = {}
    for row in rows:
        found.setdefault(row["episode"], []).append(row)
    return found

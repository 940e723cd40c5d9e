"""What calls cost on a traced host, and what its benchmark did, read off the episodes of its trace."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from xtrace.emulator.costs import Costs
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

ENOUGH: Final = 20
"""Fewer cases than this do not show the extremes."""

BACK_TO_BACK_NS: Final = 1_000_000
"""A caller that pauses longer than this after a call is not in a loop."""


def costs_of(episodes: pd.DataFrame, deliveries: pd.DataFrame) -> Costs:
    """The costs of calls and flushes on a traced host; 0 where another cost includes it.

    From complete episodes that met no other, medians: SEND − START fills the request, the first ENTER − SEND is the
    flight and the entry of an interrupt, DONE − the last EXIT the noticing. Entry is the least time from a START to an
    ENTER on a CPU that is interrupted while it waits; half the arrival where that is not seen.

    episodes, deliveries: frames of `Trace.df_episodes()` and `Trace.df_deliveries()`.
    """
    default = Costs()
    alone = episodes[episodes.complete & (episodes.inflight == 1) & episodes.parent.isna()]
    served = deliveries[deliveries.episode.isin(alone.episode)]
    served = served.merge(alone[["episode", "initiator", "send_ns", "done_ns", "lock_wait_ns"]], on="episode")
    # A CPU that serves itself needs no interrupt.
    plain = served[~served.episode.isin(served.episode[served.cpu == served.initiator])]
    served = plain if len(plain) else served
    others = served[served.cpu != served.initiator].groupby("episode")
    if not len(others):
        return default
    one = served.groupby("episode")
    arrival = max(0.0, float((others.enter_ns.min() - others.send_ns.first()).median()))
    least = _least_entry_ns(episodes, deliveries)
    entry = arrival / 2 if least is None else min(least, arrival)
    return replace(
        default,
        setup_ns=0,
        fill_ns=float(one.lock_wait_ns.first().median()),
        lock_ns=0,
        handover_ns=0,
        publish_ns=0,
        icr_write_ns=0,
        flight_ns=arrival - entry,
        flight_jitter_ns=0,
        irq_entry_ns=entry,
        scan_ns=0,
        notice_ns=max(0.0, float((one.done_ns.first() - one.exit_ns.max()).median())),
        check_in_ns=0,
        wake_ns=0,
    )


def bench_of(episodes: pd.DataFrame, deliveries: pd.DataFrame) -> Bench:
    """The loop of calls in a trace: how long its function runs, its pauses, and when its threads start.

    The pause from DONE to the next START of a caller grows with the mask that is drawn in it; the part that does not
    is taken to be the benchmark's own account of a call. Raises UsageError where no CPU calls in a loop.
    """
    calls = episodes[(episodes.kind == "call") & episodes.complete & episodes.parent.isna()]
    calls = calls.sort_values(["initiator", "start_ns"])
    pause = calls.start_ns - calls.groupby("initiator").done_ns.shift()
    loops = calls[["initiator", "n_targets", "start_ns"]].assign(pause=pause)[pause < BACK_TO_BACK_NS]
    by_size = loops.groupby("n_targets").pause.median()
    if len(loops) < ENOUGH:
        raise UsageError("no CPU of this trace calls functions in a loop: there is no benchmark to take after")
    sizes, pauses = by_size.index.to_numpy(np.float64), by_size.to_numpy(np.float64)
    slope, constant = np.polyfit(sizes, pauses, 1) if len(sizes) > 1 else (0.0, pauses[0])
    of_loops = deliveries[deliveries.episode.isin(calls.episode[loops.index])]
    return Bench(
        masks=Masks(1),
        work_ns=float(of_loops.execution_ns.median()),
        think_ns=0,
        draw_ns=max(0.0, float(slope)),
        overhead_ns=max(0.0, float(constant)),
        stagger_ns=_stagger_ns(calls, pause),
    )


def _least_entry_ns(episodes: pd.DataFrame, deliveries: pd.DataFrame) -> float | None:
    """The least time from START to ENTER on a target whose interrupt was under way; None of fewer than ENOUGH."""
    import pandas as pd

    starts = episodes[["initiator", "start_ns"]].dropna().rename(columns={"initiator": "cpu"}).sort_values("start_ns")
    sent = deliveries[["episode", "cpu", "enter_ns"]].merge(episodes[["episode", "initiator", "send_ns"]], on="episode")
    sent = sent[sent.cpu != sent.initiator].dropna().sort_values("enter_ns")
    near = pd.merge_asof(sent, starts, left_on="enter_ns", right_on="start_ns", by="cpu").dropna()
    near = near[near.start_ns > near.send_ns]
    return float((near.enter_ns - near.start_ns).min()) if len(near) >= ENOUGH else None


def _stagger_ns(calls: pd.DataFrame, pause: pd.Series[int]) -> float:
    """The median time between callers that begin a loop at about the same time; 0 where none do."""
    begins = calls.start_ns[pause.isna() | (pause >= BACK_TO_BACK_NS)].sort_values()
    apart = begins.diff()
    together = apart[apart < BACK_TO_BACK_NS]
    return float(together.median()) if len(together) else 0.0

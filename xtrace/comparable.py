"""Whether two sides may be compared: the same kind of host, the same work, undamaged traces, and equal speed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from xtrace.episodes.assemble import KIND_NOUNS
from xtrace.grouping import rows_by
from xtrace.statistics import MIN_BLOCKS

if TYPE_CHECKING:
    from xtrace.comparison import KindComparison
    from xtrace.sides import Costs, Kind, Run

TOLERANCE: Final = 0.10
"""By how much the same work may differ on the targets before times are not compared."""
HZ_TOLERANCE: Final = 0.005
MIX_TOLERANCE: Final = 0.15
DISTURBED: Final = 1.5


@dataclass(frozen=True, slots=True)
class Work:
    """What the targets did, which no design of calls changes.

    percent    change of the median execution of the same function or kind of flush, over all that both sides have;
               None where they have none in common
    mix        part of the episodes that would have to be of another function, or another number of CPUs, for both sides
               to be the same mix: 0 to 1
    disturbed  mean execution over median, of the most frequent work, on the side where it is larger
    """

    percent: float | None
    mix: float
    disturbed: float

    @property
    def comparable(self) -> bool:
        """Whether the targets were about equally fast, so that times can be compared."""
        return self.percent is not None and abs(self.percent) <= 100 * TOLERANCE


def work_done(old: Costs, new: Costs) -> Work:
    """Hold the work of both sides, neither of which is empty, against each other."""
    ran = [_execution(side) for side in (old, new)]
    weight = shift = 0.0
    for name in sorted(ran[0].keys() & ran[1].keys()):
        mine, theirs = ran[0][name], ran[1][name]
        count = min(len(mine), len(theirs))
        if count >= MIN_BLOCKS and (medians := (np.median(mine), np.median(theirs)))[0] > 0 and medians[1] > 0:
            weight += count
            shift += count * float(np.log(medians[1] / medians[0]))
    return Work(
        100 * float(np.expm1(shift / weight)) if weight else None,
        # Functions that nobody named are not known to be other functions.
        _mix(old, new, ["work", "mask"] if weight else ["mask"]),
        max(_disturbance(side) for side in ran),
    )


def _execution(side: Costs) -> dict[str, NDArray[np.float64]]:
    work = side.episodes["work"].astype("category").cat
    code = work.codes.to_numpy()[side.deliveries["row"].to_numpy()]
    times = side.deliveries["execution_ns"].to_numpy(np.float64)
    return {str(work.categories[one]): times[rows] for one, rows in rows_by(code)}


def _disturbance(ran: Mapping[str, NDArray[np.float64]]) -> float:
    most = max(ran.values(), key=len)
    return float(most.mean() / max(float(np.median(most)), 1.0))


def _mix(old: Costs, new: Costs, columns: list[str]) -> float:
    shares = [
        side.episodes.assign(work=side.episodes["work"].astype(str)).groupby(columns).size() / len(side.episodes)
        for side in (old, new)
    ]
    return float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2)


def alerts(before: Sequence[Run], after: Sequence[Run], found: Mapping[Kind, KindComparison]) -> tuple[str, ...]:
    """What to know before believing a figure, most important first."""
    return (
        *_of_evidence(before, after),
        *_of_models(before, after),
        *_of_work(found),
        *_of_hosts(before, after),
        *_of_traces(before, after),
    )


def _of_evidence(before: Sequence[Run], after: Sequence[Run]) -> Iterator[str]:
    """Of a side with runs of both kinds only those with the tracepoints are compared."""
    for name, side in (("BEFORE", before), ("AFTER", after)):
        without = [run for run in side if run.document["hypervisor"]["evidence"] != "exact"]
        if without:
            yield (
                f"{len(without)} of the {len(side)} traces of {name} hold no tracepoints; what is inferred of them is "
                "not compared with what was traced."
            )


def _of_models(before: Sequence[Run], after: Sequence[Run]) -> Iterator[str]:
    models = [sorted({run.document["hypervisor"]["smp_model"] for run in side}) for side in (before, after)]
    for name, some in zip(("BEFORE", "AFTER"), models, strict=True):
        if len(some) > 1:
            yield f"The traces of {name} are of different designs ({', '.join(some)})."
    if models == [["lockless"], ["legacy"]]:
        yield "BEFORE is lockless and AFTER is legacy: are the sides swapped?"


def _of_work(found: Mapping[Kind, KindComparison]) -> Iterator[str]:
    for kind, one in found.items():
        nouns = KIND_NOUNS[kind]
        work = one.work
        if work.percent is None:
            what = "symbol maps of both sides would name them" if kind == "call" else "their flags differ"
            yield (
                f"No {nouns} of the same work are on both sides ({what}), so nothing tells whether the hosts were "
                "equally fast."
            )
        elif not work.comparable:
            yield (
                f"Times of {nouns} cannot be compared: on the targets the same work took {abs(work.percent):.0f} % "
                f"{'less' if work.percent < 0 else 'more'} time after than before, which no design of calls changes. "
                "The hosts were not equally fast or loaded."
            )
        if work.disturbed > DISTURBED:
            yield (
                f"Disturbed targets: the most frequent work of {nouns} took {work.disturbed:.1f} times its median on "
                "average, so it varies, or CPUs were away; figures have heavy tails."
            )
        if work.mix > MIX_TOLERANCE:
            yield (
                f"The mix of {nouns} differs by {100 * work.mix:.0f} % (function, CPUs in the mask): trust the grid "
                "and the lines by function more than figures over all."
            )


def _of_hosts(before: Sequence[Run], after: Sequence[Run]) -> Iterator[str]:
    cpus = [{len(run.document["trace"]["cpus"]) for run in side} for side in (before, after)]
    if cpus[0] != cpus[1] or len(cpus[0]) > 1:
        counts = " and ".join("/".join(map(str, sorted(side))) for side in cpus)
        yield f"The hosts do not have the same number of CPUs: {counts}."
    every = [run.document["trace"] for run in (*before, *after)]
    hz = [one["cpu_hz"] for one in every]
    if max(hz) > min(hz) * (1 + HZ_TOLERANCE):
        yield f"The CPUs do not have the same frequency: {min(hz) / 1e6:.1f} to {max(hz) / 1e6:.1f} MHz."
    if any(one["cpu_hz_source"] == "default" for one in every):
        yield "The CPU frequency of a trace is assumed, not known: absolute times may be wrong; give --cpu-hz."
    vendors = {run.document["hypervisor"]["vendor"] for run in (*before, *after)} - {"unknown"}
    if len(vendors) > 1:
        yield "One side ran on Intel CPUs (VMX), the other on AMD's (SVM)."


def _of_traces(before: Sequence[Run], after: Sequence[Run]) -> Iterator[str]:
    classes = [{one for run in side for one in run.classes} for side in (before, after)]
    for name, mine, other in (("BEFORE", classes[0], classes[1]), ("AFTER", classes[1], classes[0])):
        if only := sorted(mine - other):
            yield (
                f"Only {name} has records of class {', '.join(only)}: traced with another event mask, or another load; "
                "tracing costs time, too."
            )
    for name, side in (("BEFORE", before), ("AFTER", after)):
        lost, skipped = (sum(run.document["trace"][key] for run in side) for key in ("lost_records", "skipped_bytes"))
        if lost:
            records = sum(run.document["trace"]["records"] for run in side)
            yield f"{name} lost {lost:,} records ({100 * lost / (lost + records):.1f} %): busy moments are missing."
        if skipped:
            yield f"{name} is damaged: {skipped:,} bytes were skipped."
    if min(len(before), len(after)) == 1:
        yield (
            "With one run on a side, what differs from run to run (boot, placement) is not in the intervals; with five "
            "or more on both it is."
        )

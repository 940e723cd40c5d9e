"""Waiting, fairness and cost side by side: the real pair, several runs a side, and what sentences say of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import Sample

import xtrace
from xtrace.comparing import compare_runs
from xtrace.comparison import Comparison
from xtrace.questions.answers import Answers
from xtrace.reports.answer import answer
from xtrace.reports.comparison import topics
from xtrace.selection import Selection
from xtrace.side_by_side import Figure, figures
from xtrace.sides import Run

HZ = {"bench8": 60_000_000, "bench": 2_596_100_000, "migrate": 2_596_100_000}


def run_of(sample: Sample, name: str) -> Run:
    with xtrace.open(sample(name), cpu_hz=HZ[name.partition("-")[0]]) as trace:
        return Run.of(trace, Selection())


@pytest.fixture(scope="module")
def runs(sample: Sample) -> dict[str, Run]:
    """What a comparison takes of the real pairs."""
    return {name: run_of(sample, name) for pair in HZ for name in (f"{pair}-legacy", f"{pair}-lockless")}


def compared(runs: dict[str, Run], before: Sequence[str], after: Sequence[str]) -> Comparison:
    return compare_runs([runs[name] for name in before], [runs[name] for name in after])


def answers_of(runs: dict[str, Run], *names: str) -> list[Answers]:
    found = [runs[name].answers for name in names]
    return [one for one in found if one is not None]


def by_name(found: Sequence[Figure]) -> dict[str, Figure]:
    return {one.name.strip(): one for one in found}


def test_lock_wait_and_queueing_are_on_one_scale(runs: dict[str, Run]) -> None:
    found = by_name(compared(runs, ["bench8-legacy"], ["bench8-lockless"]).kinds["call"].figures)
    share = found["lost to others, part of the time paid"]
    assert (round(share.before or 0, 3), round(share.after or 0, 3)) == (0.659, 0.368)
    mean = found["lost to others, mean"]
    parts = [
        found[name] for name in ("waiting for the lock", "queueing at the last target", "serving others meanwhile")
    ]
    assert mean.before == pytest.approx(sum(one.before or 0 for one in parts))
    assert mean.after == pytest.approx(sum(one.after or 0 for one in parts))
    assert parts[0].after == 0
    assert parts[1].before == 0


def test_fairness_is_side_by_side(runs: dict[str, Run]) -> None:
    one = compared(runs, ["bench8-legacy"], ["bench8-lockless"]).kinds["call"]
    found = by_name(one.figures)
    lower, higher = found["of a CPU with a lower number"], found["of a CPU with a higher number"]
    assert [lower.before, lower.after] == pytest.approx([0, 102 / 151])
    assert [higher.before, higher.after] == pytest.approx([1 / 840, 23 / 186])
    jain = found["Jain's index of cost, while all compete"]
    assert jain.before is not None
    assert jain.after is not None
    assert jain.before > 0.9999 > jain.after
    table = one.df_figures()
    assert list(table.columns) == ["topic", "name", "unit", "before", "after"]
    assert set(table["topic"]) == {"waiting", "fairness", "cost"}


def test_who_pays_is_side_by_side(runs: dict[str, Run]) -> None:
    one = compared(runs, ["migrate-legacy"], ["migrate-lockless"]).kinds["flush"]
    found = by_name(one.figures)
    paid = found["d0 paid as caller"]
    assert paid.before is not None
    assert paid.after is not None
    assert paid.before > paid.after > 0
    assert found["d1 lost on targets"].after
    told = [sheet.title for sheet in topics(one)]
    assert told == ["Who waits for whom: flushes", "Is it fair: flushes", "Who pays: flushes"]


def test_of_a_trace_that_names_no_domain_nothing_is_told_of_cost(runs: dict[str, Run]) -> None:
    found = by_name(compared(runs, ["bench8-legacy"], ["bench8-lockless"]).kinds["call"].figures)
    assert found["taken from vCPUs on targets, a request"] == Figure(
        "cost", "taken from vCPUs on targets, a request", "ns", None, None
    )


def test_runs_of_a_side_count_together(runs: dict[str, Run]) -> None:
    names = ("bench8-lockless", "bench-lockless")
    pooled = by_name(figures(answers_of(runs, *names), answers_of(runs, names[0]), "call"))
    met = passed = lost = total = 0
    for one in answers_of(runs, *names):
        (order,) = one.fairness["call"].orders
        met, passed = met + order.meetings, passed + order.passed
        spent = one.contention.spent["call"]
        lost, total = lost + spent.lost_ns, total + spent.total_ns
    assert pooled["passed by a later one, of those that met one"].before == pytest.approx(passed / met)
    assert pooled["lost to others, part of the time paid"].before == pytest.approx(lost / total)
    alone = by_name(figures(answers_of(runs, names[0]), answers_of(runs, names[0]), "call"))
    assert all(one.before == one.after for one in alone.values())


def test_sentences_say_whom_the_order_favours(runs: dict[str, Run]) -> None:
    said = " ".join(answer(compared(runs, ["bench8-legacy"], ["bench8-lockless"])))
    assert (
        "At locks, in queues at targets and serving others meanwhile calls lost 66 % of their time to others before, "
        "37 % after." in said
    )
    assert (
        "Low CPU numbers are served first now: a later one passed one that waited with it in 68 % of cases if its CPU "
        "had the lower number, in 12 % if the higher; that was not so before." in said
    )
    said = " ".join(answer(compared(runs, ["bench8-lockless"], ["bench8-legacy"])))
    assert "Low CPU numbers were served first before: " in said
    assert "that is not so after." in said
    said = " ".join(answer(compared(runs, ["bench8-lockless"], ["bench-lockless"])))
    assert "Low CPU numbers are served first on both sides: before, " in said
    said = " ".join(answer(compared(runs, ["bench8-legacy"], ["bench-legacy"])))
    assert "That the order of service of calls favours a CPU number cannot be shown, before or after." in said


def test_runs_that_show_it_are_counted(runs: dict[str, Run]) -> None:
    lockless = ["bench8-lockless", "bench-lockless"]
    said = " ".join(answer(compared(runs, ["bench8-legacy", "bench-legacy"], lockless)))
    assert "Low CPU numbers are served first now in 2 of 2 runs: " in said


def test_where_too_few_meet_nothing_is_said(runs: dict[str, Run]) -> None:
    said = " ".join(answer(compared(runs, ["migrate-legacy"], ["migrate-lockless"])))
    assert "served first" not in said
    assert "favours a CPU number" not in said

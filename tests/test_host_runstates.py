"""Run states: every figure of xenalyze's, on real and emulated traces; then what no trace of ours holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Final

import pytest
import xenalyze_summary as judged
from captures import capture
from conftest import Opened, Sample
from host_judged import EXACT_HZ, SMALL, emulated, printed, right, values
from host_parts import followed

import xtrace
from xtrace.context import IDLE_DOMAIN
from xtrace.emulator.rings import Tool
from xtrace.host import following
from xtrace.host.following import Follower
from xtrace.host.known import Known
from xtrace.host.runstates import Runstates, RunstatesAccount
from xtrace.host.switches import Switches, is_switch
from xtrace.host.tally import Spread
from xtrace.host.walk import in_time
from xtrace.reports import terminal
from xtrace.reports.sections import runstates as paint
from xtrace.selection import Selection
from xtrace.trace import Trace

LABELS: Final = {
    "running": "running",
    "runnable": "runnable",
    "wake": "woken",
    "preempt": "preempted",
    "blocked": "blocked",
    "offline": "offline",
    "lost": "lost",
}
NUMBERS: Final = {"running": 0, "runnable": 1, "blocked": 2, "offline": 3, "lost": 4, "woken": 5, "preempted": 6}
AT_ONCE: Final = [
    "blocked",
    "partial_run",
    "full_run",
    "partial_contention",
    "concurrency_hazard",
    "full_contention",
    "lost",
]

TWICE: Final = {"migrate-stock": {(1, "full_run")}}
"""Figures that xenalyze has wrong: a vCPU whose first record says that it runs on is taken to have run since its CPU's
first timestamp, and its domain's clock is set back to that, though it had been counted since."""


def states_of(one: object) -> dict[str, Spread]:
    """By state, those that occur."""
    found = {field.name: getattr(one, field.name) for field in fields(one)}  # type: ignore[arg-type]
    return {name: spread for name, spread in found.items() if isinstance(spread, Spread)}


def domain_state(states: list[int]) -> str:
    """What a domain does whose vCPUs are in these states."""
    kinds = {{0: "run", 1: "wait", 2: "idle", 3: "idle", 4: "lost"}[state] for state in states}
    if "run" in kinds:
        return "concurrency_hazard" if "wait" in kinds else "partial_run" if "idle" in kinds else "full_run"
    if "wait" in kinds:
        return "partial_contention" if "idle" in kinds else "full_contention"
    return "blocked" if "idle" in kinds else "lost"


def domain_stays(trace: Trace, *, back: bool) -> dict[int, dict[str, list[int]]]:
    """Stays of domains by the changes of their vCPUs, one by one. back: the clock may be set back."""
    follower = Follower(Known.of(trace), 0)
    states: dict[int, dict[int, int]] = defaultdict(dict)
    since: dict[int, int] = {}
    found: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))

    def parts() -> Iterator[tuple[int, int, int]]:
        for chunk in in_time(trace, is_switch):
            for updates in follower.feed(Switches.of(chunk, trace.dialect)):
                yield from zip(updates.who.tolist(), updates.ns.tolist(), updates.after.tolist(), strict=True)
        for updates in follower.finish():
            yield from zip(updates.who.tolist(), updates.ns.tolist(), updates.after.tolist(), strict=True)

    for who, ns, after in parts():
        domain = who >> 16
        if domain in since and since[domain] < ns:
            found[domain][domain_state(list(states[domain].values()))].append(ns - since[domain])
        states[domain][who] = after
        since[domain] = ns if back else max(ns, since.get(domain, ns))
    return {domain: dict(stays) for domain, stays in found.items()}


def compared(path: Path, *, twice: frozenset[tuple[int, str]] | set[tuple[int, str]] = frozenset()) -> int:
    """Hold a trace's run states against xenalyze's, line by line in both directions; how many lines there are."""
    told = judged.summary(path)
    with xtrace.open(path, cpu_hz=EXACT_HZ) as trace:
        account = followed(trace, RunstatesAccount)
        at_once, as_xenalyze = (domain_stays(trace, back=back) for back in (False, True))
    found = account.found(0)
    assert found.unexpected == 0
    lines = 0
    vcpus = {(one.domain, one.vcpu): states_of(one) for one in found.vcpus}
    assert found.domains is not None
    domains = {one.domain: states_of(one) for one in found.domains}
    for number, domain in told.domains.items():
        for vcpu, block in domain.vcpus.items():
            expected = judged.by_label(block.sections["Runstates"])
            mine = vcpus.pop((number, vcpu), {})
            assert {LABELS[label] for label in expected} == mine.keys()
            for label, figures in expected.items():
                name = LABELS[label]
                stays = values(account._vcpus, (number << 16 | vcpu) << 31 | NUMBERS[name])
                right(mine[name], stays)
                assert printed(label, stays) == figures, (number, vcpu)
                lines += 1
        expected = judged.by_label(domain.sections["Runstates"])
        mine = domains.pop(number, {})
        assert {label.replace(" ", "_") for label in expected} == mine.keys()
        for label, figures in expected.items():
            name = label.replace(" ", "_")
            stays = values(account._domains, number << 47 | AT_ONCE.index(name))
            right(mine[name], stays)
            assert stays == at_once[number][name]
            assert printed(label, as_xenalyze[number][name]) == figures
            assert (stays != as_xenalyze[number][name]) == ((number, name) in twice)
            lines += 1
    assert not vcpus
    assert not domains
    return lines


LINES: Final = {"dom0-stock": 36, "migrate-stock": 63, "migrate-legacy": 57, "migrate-lockless": 56, "vmx-legacy": 40}


def test_real_traces_beside_xenalyze(trace_name: str, trace: Path) -> None:
    """Counts, times and means equal; xenalyze's quantiles are those that its faulty search gives of our stays."""
    assert compared(trace, twice=TWICE.get(trace_name, frozenset())) == LINES.get(trace_name, 0)


def test_what_xenalyze_counts_twice(sample: Sample) -> None:
    """A domain cannot have been in its states for longer than there was time."""
    path = sample("migrate-stock")
    figures = judged.by_label(judged.summary(path).domains[1].sections["Runstates"])
    with xtrace.open(path, cpu_hz=EXACT_HZ) as trace:
        found = followed(trace, RunstatesAccount).found(0)
    assert found.domains is not None
    mine = found.domains[1].full_run
    assert found.domains[1].domain == 1
    assert mine is not None
    assert figures["full run"].count == mine.count
    assert figures["full run"].mean * mine.count - mine.total_ns > 70_000_000


def test_xenalyze_weighs_the_wrong_value(tmp_path: Path) -> None:
    """The shortest of these stays alone is a quarter of the time, so 5 % lie within it; xenalyze says the longest."""
    path = tmp_path / "trace.bin"
    lines, now = [], 0
    for stay in (101_244, 103_220, 207_896):
        lines.append(f"{now} cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running")
        now += 10
        lines.append(f"{now} cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked")
        now += 10
        lines.append(f"{now} cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=blocked new_state=runnable")
        now += stay
    lines.append(f"{now} cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running")
    path.write_bytes(capture("\n".join(lines)))
    figures = judged.by_label(judged.summary(path).domains[1].vcpus[0].sections["Runstates"])["runnable"]
    with xtrace.open(path, cpu_hz=EXACT_HZ) as trace:
        mine = followed(trace, RunstatesAccount).found(0).vcpus[0].runnable
    assert mine is not None
    assert (mine.p5_ns, mine.p50_ns, mine.p95_ns) == (101_244, 207_896, 207_896)
    assert (figures.p5, figures.p50, figures.p95) == (207_896, 207_896, 207_896)


@pytest.mark.parametrize(
    ("cpus", "vendor", "seed", "tool"),
    [
        (2, "vmx", 1, Tool()),
        (4, "svm", 2, Tool()),
        (16, "svm", 4, Tool()),
        (64, "vmx", 5, Tool()),
        (8, "vmx", 7, SMALL),
        (16, "svm", 8, SMALL),
    ],
)
def test_emulated_traces_beside_xenalyze(cpus: int, vendor: str, seed: int, tool: Tool, tmp_path: Path) -> None:
    """Both vendors, up to 64 CPUs, with and without loss."""
    path, lost = emulated(tmp_path, cpus, vendor, seed, tool)
    assert (lost > 0) == (tool is SMALL)
    assert compared(path) > 12


def test_many_losses_come_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lossy, _ = emulated(tmp_path, 16, "svm", 8, SMALL)
    with xtrace.open(lossy, cpu_hz=EXACT_HZ) as trace:
        expected = followed(trace, RunstatesAccount).found(0)
        for rows in (1, 100):
            monkeypatch.setattr(following, "MAX_ROWS", rows)
            assert followed(trace, RunstatesAccount).found(0) == expected


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_it_does_not_matter_how_records_come(piece: int, sample: Sample, tmp_path: Path) -> None:
    lossy, _ = emulated(tmp_path, 8, "vmx", 7, SMALL)
    for path in (sample("dom0-stock"), lossy):
        with xtrace.open(path, cpu_hz=EXACT_HZ) as trace:
            assert followed(trace, RunstatesAccount, piece=piece).found(0) == followed(trace, RunstatesAccount).found(0)


def test_a_stored_trace_tells_the_same(sample: Sample, tmp_path: Path) -> None:
    lossy, _ = emulated(tmp_path, 8, "vmx", 7, SMALL)
    for path in (sample("dom0-stock"), lossy):
        with xtrace.open(path, cpu_hz=EXACT_HZ) as trace:
            expected, known = followed(trace, RunstatesAccount).found(0), Known.of(trace)
            written = xtrace.store(trace, tmp_path / "set", name=path.stem)
        with xtrace.open(written.folder) as stored:
            again = Known.of(stored)
            assert again.spans == known.spans
            assert (len(known.losses.cpu) > 0) == (path is lossy)
            assert set(zip(*map(list, again.losses), strict=True)) == set(zip(*map(list, known.losses), strict=True))
            assert followed(stored, RunstatesAccount).found(0) == expected


def totals(found: Runstates) -> list[tuple[int, int, dict[str, int]]]:
    """Counts and times of what vCPUs did, without the idle domain."""
    return [
        (one.domain, one.vcpu, {name: spread.total_ns for name, spread in states_of(one).items()})
        for one in found.vcpus
        if one.domain != IDLE_DOMAIN
    ]


def test_intervals_add_up_to_the_whole(sample: Sample) -> None:
    with xtrace.open(sample("dom0-stock"), cpu_hz=EXACT_HZ) as trace:
        account = followed(trace, RunstatesAccount, every_ns=700_000_000)
        windows = account.ground.windows.intervals
        sums: dict[tuple[int, int, str], int] = defaultdict(int)
        for window in range(1, windows + 1):
            for domain, vcpu, times in totals(account.found(window)):
                for name, ns in times.items():
                    sums[domain, vcpu, name] += ns
    whole = {(domain, vcpu, name): ns for domain, vcpu, times in totals(account.found(0)) for name, ns in times.items()}
    assert windows == 12
    assert sums == whole


CHANGE: Final = "RUNSTATE_CHANGE domid=1 vcpuid="


def test_what_of_a_stay_lies_inside(opened: Opened) -> None:
    """From 30 to 70 ns of a stay from 10 to 50 and one from 50 on to 90, which is on CPU 1."""
    text = f"""
        0 cpu0 CSCHED2_TICKLE
        10 cpu0 {CHANGE}0 old_state=runnable new_state=running
        50 cpu0 {CHANGE}0 old_state=running new_state=blocked
        90 cpu1 {CHANGE}0 old_state=blocked new_state=runnable
        95 cpu1 {CHANGE}0 old_state=runnable new_state=running
        99 cpu1 {CHANGE}0 old_state=running new_state=blocked
    """
    with opened(text) as trace:
        some = followed(trace, RunstatesAccount, Selection(from_ns=30, to_ns=70)).found(0)
        assert totals(some) == [(1, 0, {"running": 20, "blocked": 20})]
        on = followed(trace, RunstatesAccount, Selection(cpus=frozenset({1}))).found(0)
    assert totals(on) == [(1, 0, {"running": 4})]
    assert on.domains is None


def test_a_change_that_is_missing(opened: Opened) -> None:
    """Blocked was left, but running was known: neither has a length, and the vCPU is followed on."""
    text = f"""
        10 cpu0 {CHANGE}0 old_state=runnable new_state=running
        50 cpu1 {CHANGE}0 old_state=blocked new_state=runnable
        60 cpu1 {CHANGE}0 old_state=runnable new_state=running
        90 cpu0 CSCHED2_TICKLE
        95 cpu1 CSCHED2_TICKLE
    """
    with opened(text) as trace:
        found = followed(trace, RunstatesAccount).found(0)
        assert found.unexpected == 1
        assert totals(found) == [(1, 0, {"running": 35, "runnable": 10, "woken": 10})]
        assert "1 changes left another state" in " ".join(paint.section(found).text)


def test_who_ran_before_the_first_record(opened: Opened) -> None:
    """It is chosen again at 40: it has run since its CPU's first record. One that leaves has not been seen to run."""
    text = f"""
        5 cpu0 CSCHED2_TICKLE
        9 cpu1 CSCHED2_TICKLE
        40 cpu0 TRC_SCHED_CONTINUE_RUNNING domid=1 vcpuid=0
        60 cpu0 {CHANGE}0 old_state=running new_state=runnable
        70 cpu1 {CHANGE}1 old_state=running new_state=blocked
        80 cpu0 {CHANGE}0 old_state=runnable new_state=running
        90 cpu0 {CHANGE}0 old_state=running new_state=offline
    """
    with opened(text) as trace:
        found = followed(trace, RunstatesAccount).found(0)
    assert totals(found) == [(1, 0, {"running": 65, "runnable": 20, "preempted": 20})]
    running = found.vcpus[0].running
    assert running is not None
    assert running.count == 2
    assert compared(Path(trace.name)) == 5


def test_what_is_lost(opened: Opened) -> None:
    """From 20 to 40 CPU 0 loses records: v0, which ran there, and v1, which slept, are lost; v2, on CPU 1, is not.

    At 40 v0 is there again. v2 stops at 30, while records are lost, so it is lost until it is seen to run.
    """
    text = f"""
        2 cpu1 {CHANGE}1 old_state=runnable new_state=running
        4 cpu1 {CHANGE}1 old_state=running new_state=blocked
        6 cpu1 {CHANGE}2 old_state=runnable new_state=running
        10 cpu0 {CHANGE}0 old_state=runnable new_state=running
        30 cpu1 {CHANGE}2 old_state=running new_state=blocked
        35 cpu1 {CHANGE}2 old_state=blocked new_state=runnable
        40 cpu0 LOST_RECORDS lost=7 domid=1 vcpuid=0 first_tsc=20
        45 cpu1 {CHANGE}2 old_state=runnable new_state=running
        50 cpu0 {CHANGE}0 old_state=running new_state=blocked
        55 cpu1 {CHANGE}2 old_state=running new_state=blocked
        60 cpu1 {CHANGE}1 old_state=runnable new_state=running
        65 cpu1 {CHANGE}1 old_state=running new_state=blocked
    """
    with opened(text) as trace:
        found = followed(trace, RunstatesAccount).found(0)
    assert totals(found) == [
        (1, 0, {"running": 20, "lost": 20}),
        (1, 1, {"running": 7, "blocked": 16, "lost": 40}),
        (1, 2, {"running": 34, "lost": 15}),
    ]
    assert found.domains is not None
    assert {name: spread.total_ns for name, spread in states_of(found.domains[0]).items()} == {
        "full_run": 22,
        "partial_run": 24,
        "blocked": 7,
        "lost": 10,
    }
    assert compared(Path(trace.name)) == 11


def test_who_was_said_to_be_there_and_was_not(opened: Opened) -> None:
    """When records of CPU 0 come again at 40, v0 is there, and at 45 v1 is: how v0 left is not seen, so it is lost."""
    text = f"""
        5 cpu1 {CHANGE}1 old_state=runnable new_state=running
        8 cpu1 {CHANGE}1 old_state=running new_state=blocked
        10 cpu0 {CHANGE}0 old_state=runnable new_state=running
        12 cpu1 {CHANGE}2 old_state=runnable new_state=running
        40 cpu0 LOST_RECORDS lost=7 domid=1 vcpuid=0 first_tsc=20
        45 cpu0 {CHANGE}1 old_state=runnable new_state=running
        50 cpu0 {CHANGE}1 old_state=running new_state=blocked
        70 cpu0 {CHANGE}0 old_state=runnable new_state=running
        75 cpu0 {CHANGE}0 old_state=running new_state=blocked
        80 cpu1 {CHANGE}2 old_state=running new_state=blocked
    """
    with opened(text) as trace:
        for piece in (None, 1):
            found = followed(trace, RunstatesAccount, piece=piece).found(0)
            assert totals(found) == [
                (1, 0, {"running": 20, "lost": 45}),
                (1, 1, {"running": 8, "blocked": 12, "lost": 25}),
                (1, 2, {"running": 68}),
            ]
    assert compared(Path(trace.name)) == 9


def test_captures_one_behind_the_other(tmp_path: Path) -> None:
    """Nothing goes over from one to the next."""
    change = f"{CHANGE}0 old_state=runnable new_state=running"
    first = f"900000000 cpu0 {change}\n900000050 cpu0 CSCHED2_TICKLE"
    second = f"5 cpu0 {change}\n25 cpu0 {CHANGE}0 old_state=running new_state=blocked"
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(first) + capture(second))
    with xtrace.open(path, cpu_hz=EXACT_HZ) as trace:
        found = followed(trace, RunstatesAccount).found(0)
    # The second capture's times lie before the first timestamp of all.
    assert totals(found) == [(1, 0, {"running": 50})]


def test_frames_and_screen(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    with xtrace.open(sample("vmx-legacy"), cpu_hz=60_000_000) as trace:
        found = followed(trace, RunstatesAccount).found(0)
    frame = found.df_vcpus()
    assert frame.columns.tolist()[:5] == ["domain", "vcpu", "state", "count", "total_ns"]
    one = frame[(frame["domain"] == 1) & (frame["vcpu"] == 0)].set_index("state")
    assert one["count"].to_dict() == {"running": 14, "runnable": 11, "woken": 11, "blocked": 12}
    assert found.df_domains()["count"].sum() == sum(
        spread.count for domain in found.domains or () for spread in states_of(domain).values()
    )
    terminal.chapter(terminal.console(110), paint.section(found))
    shown = capsys.readouterr().out
    assert "d1v0      2.12 s    1.2 %    79.6 %   19.1 %        –     –           98.5 %" in shown
    assert max(map(len, shown.splitlines())) <= 110
    assert [picture.title for picture in paint.pictures(found)] == ["What vCPUs did"]


def test_nothing_to_tell(opened: Opened) -> None:
    with opened("1 cpu0 CSCHED2_TICKLE") as trace:
        found = followed(trace, RunstatesAccount).found(0)
    assert found == Runstates((), (), 0)
    assert paint.section(found).text == (paint.NONE,)
    assert paint.pictures(found) == ()
    assert list(paint.answer(found)) == []

"""What CPUs did and where vCPUs stayed: every figure of xenalyze's, then what no trace of ours holds."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import xenalyze_summary as judged
from conftest import Opened, Sample
from host_judged import EXACT_HZ, SMALL, emulated, printed, right, values
from host_parts import followed

import xtrace
from xtrace.emulator.rings import Tool
from xtrace.host.cpus import Cpus, CpusAccount
from xtrace.host.known import Known
from xtrace.host.occupancy import Whereabouts
from xtrace.host.switches import Switches, is_switch
from xtrace.host.walk import in_time
from xtrace.reports import terminal
from xtrace.reports.sections import cpus as paint
from xtrace.selection import Selection
from xtrace.trace import Trace

STATES: Final = ("running", "idle", "lost")


def arrivals(trace: Trace) -> dict[int, list[tuple[int, int, int]]]:
    """Of each vCPU its stays in order: CPU, length, and the CPU to which xenalyze credits it."""
    known = Known.of(trace)
    whereabouts = Whereabouts(known, 0)
    stays: dict[int, list[tuple[int, int]]] = {}
    parts = [whereabouts.feed(Switches.of(chunk, trace.dialect)) for chunk in in_time(trace, is_switch)]
    parts.append(whereabouts.finish(trace.duration_ns))
    for part in parts:
        for cpu, who, begin, end in zip(*(column.tolist() for column in part), strict=True):
            stays.setdefault(who, []).append((cpu, end - begin))
    # xenalyze closes a stay when the vCPU comes elsewhere, and adds it to what it finds there.
    return {
        who: [(cpu, length, held[min(place + 1, len(held) - 1)][0]) for place, (cpu, length) in enumerate(held)]
        for who, held in stays.items()
    }


def plain(label: str, stays: list[int]) -> judged.Figures:
    """What xenalyze prints of times whose quantiles are not weighted."""
    held = sorted(stays)
    quantiles = (held[len(held) * part // 100] for part in (5, 50, 95))
    return judged.Figures(label, len(held), None, None, sum(held) // len(held), *quantiles)


def compared(path: Path) -> tuple[int, int]:
    """Hold a trace's CPUs and affinity against xenalyze's, in both directions; lines, and lines that it has wrong."""
    told = judged.summary(path, "--report-pcpu")
    with xtrace.open(path, cpu_hz=EXACT_HZ) as trace:
        account, stays = followed(trace, CpusAccount), arrivals(trace)
    found = account.found(0)
    assert told.active == found.active
    lines = wrong = 0
    cpus = {one.cpu: one for one in found.cpus}
    for cpu, block in told.cpus.items():
        expected = judged.by_label(block)
        one = cpus.pop(cpu, None)
        assert expected.keys() == {state for state in STATES if one and getattr(one, state)}
        for label, figures in expected.items():
            held = values(account._use, cpu << 2 | STATES.index(label))
            right(getattr(one, label), held)
            assert printed(label, held) == figures
            lines += 1
    assert not cpus
    affinity = {(one.domain, one.vcpu): one for one in found.affinity}
    for number, domain in told.domains.items():
        for vcpu, sections in domain.vcpus.items():
            expected = judged.by_label(sections.sections.get("cpu affinity", []))
            mine = affinity.pop((number, vcpu), None)
            if mine is None:
                assert not expected
                continue
            here = stays[number << 16 | vcpu]
            assert expected.pop("cpu affinity") == plain("cpu affinity", [length for _, length, _ in here])
            assert mine.stays.count == len(here)
            assert not mine.stays.weighted
            assert [on.cpu for on in mine.cpus] == sorted({cpu for cpu, _, _ in here})
            for on in mine.cpus:
                own = [length for cpu, length, _ in here if cpu == on.cpu]
                assert (on.stays.count, on.stays.total_ns) == (len(own), sum(own))
            for label, figures in expected.items():
                credited = [length for _, length, cpu in here if f"[{cpu}]" == label]
                assert plain(label, credited) == figures
                wrong += credited != [length for cpu, length, _ in here if f"[{cpu}]" == label]
            lines += 1 + len(expected)
    assert not affinity
    return lines, wrong


LINES: Final = {
    "dom0-stock": (24, 0),
    "migrate-stock": (46, 24),
    "migrate-legacy": (46, 24),
    "migrate-lockless": (46, 24),
    "vmx-legacy": (16, 0),
}


def test_real_traces_beside_xenalyze(trace_name: str, trace: Path) -> None:
    """CPUs and stays in all equal; stays by CPU are what they are when each is added to the next one's CPU."""
    assert compared(trace) == LINES.get(trace_name, (0, 0))


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
    path, _ = emulated(tmp_path, cpus, vendor, seed, tool)
    lines, _ = compared(path)
    assert lines > 2


CHANGE: Final = "RUNSTATE_CHANGE domid=1 vcpuid="

MOVE: Final = f"""
    0 cpu0 {CHANGE}0 old_state=runnable new_state=running
    10 cpu0 {CHANGE}0 old_state=running new_state=blocked
    20 cpu0 {CHANGE}0 old_state=blocked new_state=runnable
    30 cpu0 {CHANGE}0 old_state=runnable new_state=running
    40 cpu0 {CHANGE}0 old_state=running new_state=blocked
    1000 cpu1 {CHANGE}0 old_state=blocked new_state=runnable
    1020 cpu1 RUNSTATE_CHANGE domid=32767 vcpuid=1 old_state=running new_state=runnable
    1030 cpu1 {CHANGE}0 old_state=runnable new_state=running
    1040 cpu1 {CHANGE}0 old_state=running new_state=blocked
"""
"""It is on CPU 0 from 30 to 1030, and on CPU 1 to the end at 1040."""


def test_a_stay_is_its_own_cpus(opened: Opened) -> None:
    """xenalyze says that it stayed on CPU 0 for no time at all."""
    with opened(MOVE) as trace:
        (mine,) = followed(trace, CpusAccount).found(0).affinity
        told = judged.by_label(judged.summary(Path(trace.name)).domains[1].vcpus[0].sections["cpu affinity"])
    assert [(on.cpu, on.stays.count, on.stays.total_ns) for on in mine.cpus] == [(0, 1, 1000), (1, 1, 10)]
    assert {label: (one.count, one.mean * one.count) for label, one in told.items()} == {
        "cpu affinity": (2, 1010),
        "[1]": (2, 1010),
    }
    assert (mine.stays.count, mine.stays.total_ns) == (2, 1010)


def used(found: Cpus) -> list[tuple[int, ...]]:
    """CPU, running, idle, lost in ns."""
    return [
        (one.cpu, *(spread.total_ns if spread else 0 for spread in (one.running, one.idle, one.lost)))
        for one in found.cpus
    ]


def test_what_a_cpu_did(opened: Opened) -> None:
    """Two domains, idle, and departures that are missing: nobody knows how long those vCPUs were there."""
    text = f"""
        0 cpu0 CSCHED2_TICKLE
        10 cpu0 {CHANGE}0 old_state=runnable new_state=running
        30 cpu0 {CHANGE}0 old_state=running new_state=blocked
        30 cpu0 RUNSTATE_CHANGE domid=32767 vcpuid=0 old_state=runnable new_state=running
        35 cpu0 RUNSTATE_CHANGE domid=32767 vcpuid=0 old_state=running new_state=runnable
        36 cpu0 RUNSTATE_CHANGE domid=2 vcpuid=0 old_state=runnable new_state=running
        42 cpu0 RUNSTATE_CHANGE domid=2 vcpuid=0 old_state=running new_state=runnable
        50 cpu0 {CHANGE}1 old_state=runnable new_state=running
        60 cpu0 {CHANGE}0 old_state=runnable new_state=running
        69 cpu0 {CHANGE}0 old_state=running new_state=blocked
        70 cpu0 {CHANGE}0 old_state=runnable new_state=running
        80 cpu0 {CHANGE}1 old_state=running new_state=blocked
        99 cpu0 CSCHED2_TICKLE
    """
    with opened(text) as trace:
        found = followed(trace, CpusAccount).found(0)
        some = followed(trace, CpusAccount, Selection(from_ns=20, to_ns=40)).found(0)
        none = followed(trace, CpusAccount, Selection(cpus=frozenset({1}))).found(0)
    assert used(found) == [(0, 35, 5, 0)]
    assert [(on.domain, on.running.total_ns) for on in found.cpus[0].domains] == [(1, 29), (2, 6)]
    assert found.cpus[0].busy_share == 35 / 100
    assert used(some) == [(0, 14, 5, 0)]
    assert (some.cpus[0].busy_share, some.cpus[0].known_share) == (0.7, 0.95)
    assert none == Cpus((), 0, ())


def test_what_a_cpu_lost(opened: Opened) -> None:
    text = f"""
        0 cpu0 CSCHED2_TICKLE
        10 cpu0 {CHANGE}0 old_state=runnable new_state=running
        70 cpu0 LOST_RECORDS lost=7 domid=1 vcpuid=1 first_tsc=40
        85 cpu0 {CHANGE}1 old_state=running new_state=blocked
        99 cpu0 RUNSTATE_CHANGE domid=32767 vcpuid=0 old_state=runnable new_state=running
        120 cpu0 CSCHED2_TICKLE
    """
    with opened(text) as trace:
        account = followed(trace, CpusAccount)
        assert used(account.found(0)) == [(0, 45, 21, 30)]
        assert compared(Path(trace.name)) == (5, 0)


def test_it_does_not_matter_how_records_come(sample: Sample, tmp_path: Path) -> None:
    lossy, _ = emulated(tmp_path, 8, "vmx", 7, SMALL)
    for path in (sample("dom0-stock"), lossy):
        with xtrace.open(path, cpu_hz=EXACT_HZ) as trace:
            whole = followed(trace, CpusAccount).found(0)
            for piece in (1, 7):
                assert followed(trace, CpusAccount, piece=piece).found(0) == whole
            written = xtrace.store(trace, tmp_path / "set", name=path.stem)
        with xtrace.open(written.folder) as stored:
            assert followed(stored, CpusAccount).found(0) == whole


def test_moves_in_pieces(sample: Sample) -> None:
    with xtrace.open(sample("migrate-stock"), cpu_hz=EXACT_HZ) as trace:
        assert followed(trace, CpusAccount, piece=997).found(0) == followed(trace, CpusAccount).found(0)


def test_frames_and_screen(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    with xtrace.open(sample("migrate-stock"), cpu_hz=2_596_100_000) as trace:
        found = followed(trace, CpusAccount).found(0)
    cpus, affinity = found.df_cpus(), found.df_affinity()
    assert cpus.columns.tolist()[:4] == ["cpu", "state", "count", "total_ns"]
    assert len(cpus) == 8
    assert len(affinity) == 28
    assert affinity["count"].sum() == sum(one.stays.count for one in found.affinity)
    terminal.chapter(terminal.console(110), paint.section(found))
    shown = capsys.readouterr().out
    assert "   1  96.3 %   3.7 %     –      0.0 %  d2 36 %, d0 36 %, d1 29 %" in shown
    assert max(map(len, shown.splitlines())) <= 110
    assert [picture.title for picture in paint.pictures(found)] == ["What CPUs did"]


def test_nothing_to_tell(opened: Opened) -> None:
    with opened("1 cpu0 CSCHED2_TICKLE") as trace:
        found = followed(trace, CpusAccount).found(0)
    assert paint.section(found).text == (paint.NONE,)
    assert paint.pictures(found) == ()
    assert list(paint.answer(found)) == []

"""Bytes and records by CPU and class: every line of xenalyze's log volume, and what it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import xenalyze_summary as judged
from conftest import Opened, Sample
from host_judged import EXACT_HZ, SMALL, emulated
from host_parts import followed

import xtrace
from xtrace.emulator.rings import Tool
from xtrace.host.volume import ALL, Volume, VolumeAccount
from xtrace.parsers.container import CPU_CHANGE_HEADER
from xtrace.reports import terminal
from xtrace.reports.sections import volume as paint
from xtrace.selection import Selection
from xtrace.states import cpu_of

LOST_BYTES: Final = 28
"""A record that says that records were lost; xenalyze looks at it twice."""


def printed(found: Volume) -> dict[int, dict[str, int]]:
    """Bytes by CPU and label, of what xenalyze knows: it has no part emul, and takes nothing for verbose."""
    return {
        cpu.cpu: {
            one.part or one.trace_class: one.size_bytes for one in cpu.classes if one.part not in {"verbose", "emul"}
        }
        for cpu in found.cpus
    }


def told(path: Path) -> dict[int, dict[str, int]]:
    """The same by xenalyze."""
    found: dict[int, dict[str, int]] = {}
    for cpu, lines in judged.summary(path).volume.items():
        pairs = [line.split(":") for line in lines]
        found[cpu] = {label.strip().removeprefix("+-").strip(): int(size) for label, size in pairs}
        assert len(found[cpu]) == len(lines)
    return found


def test_real_traces_beside_xenalyze(trace: Path) -> None:
    """Equal; and every record counts once, which the survey counts, too."""
    with xtrace.open(trace, cpu_hz=EXACT_HZ) as opened:
        found = followed(opened, VolumeAccount).found(0)
        survey = opened.survey
        windows = sum(one.windows for one in survey.cpus.values())
    assert printed(found) == told(trace)
    assert found.records == sum(survey.counts.values()) - survey.counts[CPU_CHANGE_HEADER]
    assert survey.counts[CPU_CHANGE_HEADER] == windows
    assert found.size_bytes == survey.record_bytes - 12 * windows
    assert found.size_bytes == sum(cpu.size_bytes for cpu in found.cpus)


@pytest.mark.parametrize(("cpus", "vendor", "seed", "tool"), [(64, "vmx", 5, Tool()), (16, "svm", 8, SMALL)])
def test_emulated_traces_beside_xenalyze(cpus: int, vendor: str, seed: int, tool: Tool, tmp_path: Path) -> None:
    """Where records were lost, xenalyze has the bytes of what says so twice."""
    path, _ = emulated(tmp_path, cpus, vendor, seed, tool)
    with xtrace.open(path, cpu_hz=EXACT_HZ) as opened:
        found = printed(followed(opened, VolumeAccount).found(0))
        markers = cpu_of(opened.lost.track).tolist()
    expected = told(path)
    for cpu in markers:
        found[cpu]["gen"] += LOST_BYTES
    assert found == expected
    assert (len(markers) > 0) == (tool is SMALL)


TEXT: Final = """
    - cpu0 INJ_EXC
    10 cpu0 SCHED_WAKE domid=1 vcpuid=0
    20 cpu0 CSCHED2_TICKLE
    - cpu0 INJ_EXC
    25 cpu1 HVM_VMENTRY
    30 cpu1 HVM_VMEXIT
    40 cpu1 HVM_SVM_EXIT
"""


def test_parts_and_rates(opened: Opened) -> None:
    """What has no time yet is as early as can be, what has none of its own as old as the record before it."""
    with opened(TEXT) as trace:
        account = followed(trace, VolumeAccount, every_ns=12)
        whole, *intervals = (account.found(window) for window in range(4))
        some = followed(trace, VolumeAccount, Selection(cpus=frozenset({1}))).found(0)
    cpus = {one.cpu: {(part.trace_class, part.part): part.records for part in one.classes} for one in whole.cpus}
    assert cpus == {
        0: {("sched", ALL): 2, ("sched", "verbose"): 1, ("hvm", ALL): 2, ("hvm", "handler"): 2},
        1: {("hvm", ALL): 3, ("hvm", "vmentry"): 1, ("hvm", "vmexit"): 2},
    }
    assert whole.records == 7
    assert whole.records_per_s == 7 * 10**9 / 30
    assert [one.records for one in intervals] == [4, 2, 1]
    assert [one.records for one in some.cpus] == [3]
    assert some.records == 3


def test_frame_and_screen(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    with xtrace.open(sample("vmx-legacy"), cpu_hz=60_000_000) as trace:
        found = followed(trace, VolumeAccount).found(0)
    frame = found.df_cpus()
    assert frame[frame["part"] == ""]["size_bytes"].sum() == found.size_bytes
    terminal.chapter(terminal.console(110), paint.section(found))
    shown = capsys.readouterr().out
    assert "68 % of the bytes are of the class sched" in shown
    assert max(map(len, shown.splitlines())) <= 110
    assert [picture.title for picture in paint.pictures(found)] == ["What CPUs wrote"]


def test_nothing_to_tell(opened: Opened) -> None:
    with opened(TEXT) as trace:
        found = followed(trace, VolumeAccount, Selection(cpus=frozenset({7}))).found(0)
    assert found == Volume(0, 0, 0.0, 0.0, (), ())
    assert paint.section(found).text == (paint.NONE,)
    assert paint.pictures(found) == ()

"""The analyzer finds in emulated traces what the emulator knows happened, and xenalyze reads them in silence."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from emulated import analyzed
from hypothesis import given, settings
from hypothesis import strategies as st

from xtrace.emulator.host import Host
from xtrace.emulator.models import DESIGNS
from xtrace.emulator.output import made
from xtrace.emulator.plan import Plan
from xtrace.emulator.rings import Tool
from xtrace.emulator.workloads.bench import Bench, Masks
from xtrace.emulator.workloads.evacuate import Evacuate
from xtrace.emulator.workloads.idle import Idle

MODELS = sorted(DESIGNS)
VENDORS = ("vmx", "svm")

MODE = {"vmx": [], "svm": ["--svm-mode"]}

INFORMATION = re.compile(
    r"Using first_tsc|Creating (vcpu|domain)|Activating pcpu|init_pcpus|First schedule for|Using (VMX|SVM) hardware|"
    r"^read_record: read returned zero|^deactivate_pcpu|^pcpu \d+ deactivat|^\s*$"
)
"""What xenalyze says of any trace, the best included."""


@st.composite
def benches(draw: st.DrawFn, cpus: int) -> Bench:
    size = draw(st.integers(1, cpus - 1))
    policy = draw(st.sampled_from(("random", "contiguous", "aligned", "fixed")))
    with_self = draw(st.booleans()) if policy != "aligned" else True
    if policy == "aligned" and cpus % size:
        size = 1
    return Bench(
        threads=draw(st.integers(1, min(4, cpus))),
        masks=Masks(size, policy, with_self=with_self),  # type: ignore[arg-type]
        calls=draw(st.integers(1, 30)),
        work_ns=draw(st.sampled_from((0, 700, 20_000, 500_000))),
        targets=draw(st.sampled_from(("guest", "pv", "idle", "mixed"))),
        callers=draw(st.sampled_from(("spread", "first"))),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    cpus = draw(st.integers(2, 24))
    host = Host(
        cpus,
        model=draw(st.sampled_from(MODELS)),
        vendor=draw(st.sampled_from(VENDORS)),
        ipi_mode=draw(st.sampled_from(("cluster", "physical"))),
        seed=draw(st.integers(0, 1 << 32)),
        first_seq=draw(st.sampled_from((1, 77, (1 << 32) - 3))),
    )
    slow = draw(st.booleans())
    tool = Tool(draw(st.sampled_from((1, 2, 32))), 1_500_000, 700_000) if slow else Tool(draw(st.sampled_from((1, 32))))
    kind = draw(st.sampled_from(("bench", "evacuate", "both")))
    evacuate = Evacuate(1, draw(st.integers(1, 2)), pages=500) if kind != "bench" and cpus > 4 else None
    bench = draw(benches(cpus)) if evacuate is None else Bench(2, Masks(1), 10, work_ns=3_000)
    idle = draw(st.sampled_from((None, Idle(tick_ns=300_000))))
    return Plan(host, evacuate, bench if kind != "evacuate" or evacuate is None else None, idle, tool, 0.004)


@given(plan=plans(), records=st.sampled_from(("all", "smp")))
@settings(max_examples=60, deadline=None)
def test_the_analyzer_finds_what_happened(tmp_path_factory: pytest.TempPathFactory, plan: Plan, records: str) -> None:
    path = tmp_path_factory.mktemp("emulated") / "trace.bin"
    _, _, differences = analyzed(path, plan, records)  # type: ignore[arg-type]
    assert differences == []


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("model", MODELS)
def test_all_workloads_together_are_found(tmp_path: Path, model: str, vendor: str) -> None:
    host = Host(16, model=model, vendor=vendor)  # type: ignore[arg-type]
    plan = Plan(host, Evacuate(2, 2), Bench(3, Masks(4), 40, work_ns=20_000), seconds=0.01)
    found, lost, differences = analyzed(tmp_path / "trace.bin", plan)
    assert differences == []
    assert lost == 0
    assert found == ("legacy" if model == "legacy" else "lockless")


@pytest.mark.parametrize("model", MODELS)
def test_lost_records_are_flagged(tmp_path: Path, model: str) -> None:
    host = Host(8, model=model, vendor="svm")
    plan = Plan(host, Evacuate(2, 2), tool=Tool(ring_pages=1, poll_ns=2_000_000, react_ns=1_000_000), seconds=0.01)
    _, lost, differences = analyzed(tmp_path / "trace.bin", plan)
    assert lost > 100
    assert differences == []


def test_clocks_that_differ_show_in_times(tmp_path: Path) -> None:
    host = Host(4, tsc_offsets={1: 50, 3: 120})
    _, _, differences = analyzed(tmp_path / "trace.bin", Plan(host, bench=Bench(2, Masks(2), 20)))
    assert differences == []


@pytest.mark.parametrize("records", ["all", "stock", "smp"])
@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("model", MODELS)
def test_xenalyze_reads_them_in_silence(tmp_path: Path, model: str, vendor: str, records: str) -> None:
    host = Host(9, model=model, vendor=vendor)  # type: ignore[arg-type]
    emulation = Plan(host, Evacuate(1, 2), Bench(2, Masks(3), 30), seconds=0.03).run()
    trace = tmp_path / "trace.bin"
    trace.write_bytes(made(emulation, Tool(ring_pages=4), records)[0])  # type: ignore[arg-type]
    for option in ("-s", "-a"):
        ran = subprocess.run(["xenalyze", *MODE[vendor], option, trace], capture_output=True, text=True, check=False)
        assert ran.returncode == 0
        said = [line for line in ran.stderr.splitlines() if not INFORMATION.search(line)]
        assert said == []
        assert ran.stdout


@pytest.mark.parametrize("model", MODELS)
def test_the_same_seed_gives_the_same_bytes(model: str) -> None:
    plan = Plan(Host(6, model=model, seed=5), Evacuate(1, 2), Bench(2, Masks(2), 10), seconds=0.005)
    first, second = (made(plan.run(), plan.tool, "all") for _ in range(2))
    assert first[0] == second[0]
    assert first[1].episodes.equals(second[1].episodes)
    other = Plan(Host(6, model=model, seed=6), Evacuate(1, 2), Bench(2, Masks(2), 10), seconds=0.005)
    assert made(other.run(), other.tool, "all")[0] != first[0]

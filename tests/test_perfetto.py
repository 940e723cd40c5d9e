"""The export to Perfetto: files are read back by the package's schema, and held against tables and records."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, Opened, Sample
from damage import Damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import Picture, Slice, picture, read
from strategies import DECLARED, Record, Window, build_capture, captures
from strategies import records as records_of

import xtrace
from xtrace import perfetto
from xtrace.context import IDLE_DOMAIN
from xtrace.emulator.host import Host
from xtrace.emulator.output import made
from xtrace.emulator.plan import Plan
from xtrace.emulator.rings import Tool
from xtrace.emulator.workloads.evacuate import Evacuate
from xtrace.parsers.vectors import exit_name
from xtrace.selection import Selection
from xtrace.timeline.marks import Begin, End, Mark, Piece, Scope, Track
from xtrace.timeline.requests import arrow_id
from xtrace.timeline.rows import MAX_LANES, Row
from xtrace.trace import Trace
from xtrace.works import flush_name

Exported = Callable[..., Picture]


def exported(trace: Trace, path: Path, domains: frozenset[int] | None = None, **selected: Any) -> Picture:
    """The picture of a trace, or of a part of it."""
    packets = perfetto.write(trace, str(path), Scope(Selection(**selected), domains))
    found = read(path)
    assert found.packets == packets
    return found


@pytest.fixture(scope="module")
def bench(sample: Sample) -> Iterator[Trace]:
    with xtrace.open(sample("bench-lockless"), symbols=SAMPLES / "symbols-lockless.map") as trace:
        yield trace


@pytest.fixture(scope="module")
def shown(bench: Trace, tmp_path_factory: pytest.TempPathFactory) -> Picture:
    return exported(bench, tmp_path_factory.mktemp("perfetto") / "bench")


@pytest.fixture(scope="module")
def vmx(sample: Sample) -> Iterator[Trace]:
    with xtrace.open(sample("vmx-legacy")) as trace:
        yield trace


def requests_of(picture: Picture) -> dict[int, Slice]:
    return {one.args["episode"]: one for one in picture.on("/requests") if "episode" in one.args}


def test_requests_are_the_episodes(bench: Trace, shown: Picture) -> None:
    episodes, found = bench.tables.episodes.to_pylist(), requests_of(shown)
    assert found.keys() == {row["episode"] for row in episodes}
    assert sum(row["complete"] for row in episodes) == 1555 + 955
    for row in episodes:
        one = found[row["episode"]]
        known = [row[step] for step in ("start_ns", "send_ns", "done_ns") if row[step] is not None]
        assert (one.row, one.begin, one.end) == (f"CPUs/CPU {row['initiator']}/requests", min(known), max(known))
        assert one.name == (
            f"flush {flush_name(row['flush_flags'])}" if row["kind"] == "flush" else f"call {row['func_name']}"
        )
        assert one.args["complete"] == row["complete"]
        assert one.args["seq"] == row["seq"]
        assert one.args.get("func") == row["func"]
        assert one.args.get("flags") == row["flush_flags"]
        assert one.args.get("parent") == row["parent"]
        assert one.args["evidence"] == "exact"
        assert len(one.args["mask"]) > 0


def test_phases_add_up(bench: Trace, shown: Picture) -> None:
    """Every phase of every episode, as the table has it."""
    phases = Counter((one.row, one.name, one.begin, one.end) for one in shown.on("/requests") if not one.args)
    exits = {
        row["episode"]: row["exit_ns"]
        for row in sorted(bench.tables.deliveries.to_pylist(), key=lambda row: row["exit_ns"] or 0)
    }
    expected: Counter[tuple[str, str, int, int]] = Counter()
    for row in bench.tables.episodes.to_pylist():
        where, start, send, done = (
            f"CPUs/CPU {row['initiator']}/requests",
            *(row[step] for step in ("start_ns", "send_ns", "done_ns")),
        )
        expected[where, "lock wait", start, start + row["lock_wait_ns"]] += 1
        if row["complete"]:
            last = exits[row["episode"]]
            expected[where, "waiting", send, max(send, min(last, done))] += 1
            if last <= done:
                expected[where, "completion", max(send, last), done] += 1
    assert phases == expected


def test_functions_are_the_deliveries(bench: Trace, shown: Picture) -> None:
    names = {row["episode"]: row for row in bench.tables.episodes.to_pylist()}
    found = {(one.args["episode"], one.row): one for one in shown.on("/functions run")}
    rows = bench.tables.deliveries.to_pylist()
    assert len(found) == len(rows) == 2396 + 956
    for row in rows:
        one = found[row["episode"], f"CPUs/CPU {row['cpu']}/functions run"]
        assert (one.begin, one.end) == (row["enter_ns"], row["exit_ns"])
        assert one.args["initiator"] == names[row["episode"]]["initiator"]
        for name in ("delivery_ns", "queue_ns", "state"):
            assert one.args.get(name) == row[name]
        assert one.name == requests_of(shown)[row["episode"]].name
        # A flush runs inside the call that carries it.
        assert one.depth == (names[row["episode"]]["kind"] == "flush")


def test_arrows_lead_from_send_to_each_target(bench: Trace, shown: Picture) -> None:
    episodes = bench.tables.episodes.to_pylist()
    leaving = {flow: one for one in shown.slices for flow in one.flows}
    arriving = {flow: one for one in shown.slices for flow in one.arrives}
    assert len(leaving) == sum(len(one.flows) for one in shown.slices)
    assert leaving.keys() == arriving.keys()
    assert len(leaving) == len(bench.tables.deliveries)
    for row in bench.tables.deliveries.to_pylist():
        flow, episode = arrow_id(row["episode"], row["cpu"]), episodes[row["episode"]]
        source, target = leaving[flow], arriving[flow]
        assert source.row == f"CPUs/CPU {episode['initiator']}/requests"
        assert (source.name, source.begin, source.end) == ("lock wait", episode["start_ns"], episode["send_ns"])
        assert (target.row, target.begin) == (f"CPUs/CPU {row['cpu']}/functions run", row["enter_ns"])
        # Or a viewer would turn the arrow round.
        assert source.begin <= target.begin


@pytest.mark.parametrize("kind", ["call", "flush"])
@pytest.mark.parametrize(
    ("what", "begin", "end"), [("waiting to send", "start", "send"), ("in flight", "send", "done")]
)
def test_counters_are_the_tables(bench: Trace, shown: Picture, kind: str, what: str, begin: str, end: str) -> None:
    episodes = bench.df_episodes()
    mine = episodes[episodes["kind"] == kind].dropna(subset=[f"{begin}_ns", f"{end}_ns"])
    first, last = (np.sort(mine[f"{step}_ns"].to_numpy(np.int64)) for step in (begin, end))
    name = f"Calls and flushes/{'calls' if kind == 'call' else 'flushes'} {what}"
    times, values = map(np.array, zip(*shown.counts[name], strict=True))
    assert (times == np.unique(np.concatenate((first, last)))).all()
    expected = np.searchsorted(first, times, side="right") - np.searchsorted(last, times, side="right")
    assert (values == expected).all()
    assert values[-1] == 0
    if kind == "call" and what == "in flight":
        assert values.max() > 1


@pytest.mark.parametrize("name", ["migrate-lockless", "migrate-legacy"])
def test_run_states_are_the_records(name: str, sample: Sample, tmp_path: Path) -> None:
    with xtrace.open(sample(name)) as trace:
        found = exported(trace, tmp_path / "out", to_ns=20 * 10**9)
        changes = trace.table_events("SCHED_RUNSTATE_CHANGE").to_pylist()
        went_on = {row["ns"] for row in trace.table_events("SCHED_CONTINUE_RUNNING").to_pylist()}
    expected: Counter[Any] = Counter()
    ran: Counter[Any] = Counter()
    last: dict[str, dict[str, Any]] = {}
    for row in changes:
        if row["domid"] == IDLE_DOMAIN or row["ns"] >= 20 * 10**9:
            continue
        who = f"d{row['domid']}v{row['vcpuid']}"
        before, last[who] = last.get(who), row
        if before is None:
            continue
        state, stay = before["new_state"], (before["ns"], row["ns"])
        assert state == row["old_state"]
        if state == "running":
            state = f"running on CPU {before['cpu']}"
            ran[f"CPUs/CPU {before['cpu']}/runs", who, *stay] += 1
        expected[f"Domain {row['domid']}/{who}", state, *stay] += 1
    states = Counter((one.row, one.name, one.begin, one.end) for one in found.on("") if one.row.startswith("Domain"))
    clipped = [one for one in found.slices if "clipped" in one.args]
    assert states - Counter((one.row, one.name, one.begin, one.end) for one in clipped) == expected
    assert {one.args["clipped"] for one in clipped} == {"end"}
    assert {one.end for one in clipped} == {20 * 10**9}
    runs = Counter((one.row, one.name, one.begin, one.end) for one in found.on("/runs") if "clipped" not in one.args)
    assert not ran - runs
    # Who ran before any change of theirs is known from the first record that says that they go on.
    others = [key for key in runs - ran if key[1] != "idle"]
    assert len(others) <= 4
    assert {key[2] for key in others} <= went_on
    assert any(one.name == "idle" for one in found.on("/runs"))
    # AMD does not tell which interrupt it was.
    assert {one.name for one in found.on("/interrupts") if "record" in one.args} == {"interrupt"}


def test_a_stock_trace_shows_who_ran(sample: Sample, tmp_path: Path) -> None:
    with xtrace.open(sample("dom0-stock")) as trace:
        found = exported(trace, tmp_path / "out")
    assert found.rows() == {
        "CPUs",
        *(f"CPUs/CPU {cpu}{row}" for cpu in range(4) for row in ("", "/runs")),
        "Domain 0",
        *(f"Domain 0/d0v{vcpu}" for vcpu in range(4)),
    }
    assert {one.name for one in found.on("/runs")} == {"idle", "d0v0", "d0v1", "d0v2", "d0v3"}


def test_vm_exits_by_reason(vmx: Trace, tmp_path: Path) -> None:
    found = exported(vmx, tmp_path / "out").on("/VM exits")
    both = vmx.df_events("HVM_VMEXIT64,HVM_VMENTRY")
    exits = both[both["event"] == "TRC_HVM_VMEXIT64"]
    assert Counter(one.name for one in found) == Counter(exits["exit_reason"].map(lambda code: exit_name(code, "vmx")))
    entries = {(row.cpu, row.ns) for row in both[both["event"] == "TRC_HVM_VMENTRY"].itertuples()}
    begun = {(f"CPUs/CPU {row.cpu}/VM exits", row.ns): row for row in exits.itertuples()}
    stays = {(one.row, one.begin) for one in found}
    assert stays == begun.keys()
    for one in found:
        row = begun[one.row, one.begin]
        assert (one.args["rip"], one.args["code"]) == (row.rip, row.exit_reason)
        if "left_cpu" not in one.args and "clipped" not in one.args:
            assert (row.cpu, one.end) in entries
    assert sum("left_cpu" in one.args for one in found) > 10


def test_interrupts_by_vector(vmx: Trace, tmp_path: Path) -> None:
    found = exported(vmx, tmp_path / "out").on("/interrupts")
    assert Counter(one.name for one in found if one.args["record"] == "HVM_INTR") == {
        "LOCAL_TIMER": 346,
        "CALL_FUNCTION": 1,
    }
    idle = vmx.df_events("PM_IDLE_EXIT")
    pending = Counter(vector for field in ("vec0", "vec1", "vec2", "vec3") for vector in idle[field] if vector)
    assert Counter(one.args["vector"] for one in found if one.args["record"] == "PM_IDLE_EXIT") == pending


def test_handled_interrupts_have_their_times(bench: Trace, shown: Picture) -> None:
    rows = bench.table_events("HW_IRQ_HANDLED").to_pylist()
    found = sorted(shown.on("CPU 0/interrupts"), key=lambda one: one.begin)
    assert len(found) == len(rows) == 47
    for one, row in zip(found, rows, strict=True):
        assert one.end is not None
        assert one.name == f"IRQ {row['irq']}"
        assert abs((one.end - one.begin) - (row["tsc_out"] - row["tsc_in"]) * 10**9 / bench.clock.hz) <= 1
        assert 0 <= row["ns"] - one.end < 100_000


SVM = """
    100 cpu0 RUNSTATE_CHANGE vcpuid=0 domid=1 old_state=runnable new_state=running
    200 cpu0 HVM_VMENTRY
    250 cpu0 CALL_ENTER initiator_cpu=1 seq=7
    260 cpu0 CALL_EXIT initiator_cpu=1 seq=7
    300 cpu0 HVM_SVM_EXIT64 exit_code=0x60 rip=0x1000
    -   cpu0 HVM_SMI
    400 cpu0 HVM_VMENTRY
    500 cpu0 HVM_SVM_EXIT64 exit_code=0x78 rip=0x2000
    600 cpu0 RUNSTATE_CHANGE vcpuid=0 domid=1 old_state=running new_state=blocked
    700 cpu0 RUNSTATE_CHANGE vcpuid=0 domid=32767 old_state=runnable new_state=running
    800 cpu0 RUNSTATE_CHANGE vcpuid=0 domid=32767 old_state=running new_state=runnable
    900 cpu0 RUNSTATE_CHANGE vcpuid=0 domid=1 old_state=runnable new_state=running
    950 cpu0 HVM_VMENTRY
    990 cpu0 HVM_SVM_EXIT64 exit_code=0x400 rip=0x3000
    999 cpu0 HVM_SVM_EXIT64 exit_code=0x72 rip=0x4000
"""


def told(found: list[Slice]) -> list[tuple[str, int, int | None, dict[str, Any]]]:
    """Slices in order of time, times as in the text of a capture."""
    return [(one.name, one.begin, one.end, one.args) for one in sorted(found, key=lambda one: one.begin)]


def test_svm_exits(opened: Opened, tmp_path: Path) -> None:
    """The function that was run before the exit's record is outside; an exit ends where its vCPU leaves the CPU."""
    found = exported(opened(SVM), tmp_path / "out")
    assert told(found.on("/VM exits")) == [
        ("VMEXIT_INTR", 200, 300, {"code": 0x60, "rip": 0x1000}),
        ("VMEXIT_HLT", 400, 500, {"code": 0x78, "rip": 0x2000, "left_cpu": True}),
        ("VMEXIT_NPF", 890, None, {"code": 0x400, "rip": 0x3000, "complete": False}),
        ("VMEXIT_CPUID", 899, 899, {"code": 0x72, "rip": 0x4000, "clipped": "end"}),
    ]
    assert told(found.on("/interrupts")) == [("SMI", 200, None, {"record": "HVM_SMI"})]
    assert told(found.on("/runs")) == [
        ("d1v0", 0, 500, {}),
        ("idle", 600, 700, {}),
        ("d1v0", 800, 899, {"clipped": "end"}),
    ]
    function = {"episode": 0, "initiator": 1, "state": "guest", "vcpu": "d1v0"}
    assert told(found.on("/functions run")) == [("call", 150, 160, function)]
    assert not found.on("/requests"), "nothing of the initiator was seen"
    assert not any(one.arrives for one in found.slices)
    assert told(found.on("Domain 1/d1v0")) == [
        ("running on CPU 0", 0, 500, {}),
        ("blocked", 500, None, {"complete": False}),
        ("running on CPU 0", 800, 899, {"clipped": "end"}),
    ]


LEARNED = """
    100 cpu0 HVM_VMEXIT64 exit_reason=12 rip=0x1000
    200 cpu0 CONTINUE_RUNNING vcpuid=0 domid=1
    300 cpu0 HVM_VMENTRY
    ---
    400 cpu0 HVM_VMEXIT64 exit_reason=10 rip=0x2000
    ---
    500 cpu0 HVM_VMENTRY
"""


def test_to_learn_who_runs_ends_no_exit(opened: Opened, tmp_path: Path) -> None:
    """Nor does the end of a window."""
    found = exported(opened(LEARNED), tmp_path / "out")
    assert [(one.begin, one.end, one.args.get("left_cpu")) for one in found.on("/VM exits")] == [
        (0, 200, None),
        (300, 400, None),
    ]
    assert told(found.on("/runs")) == [("d1v0", 100, 400, {"clipped": "end"})]


LOSS = """
    100 cpu0 RUNSTATE_CHANGE vcpuid=0 domid=1 old_state=runnable new_state=running
    150 cpu0 HVM_VMEXIT64 exit_reason=12 rip=0x1000
    400 cpu0 LOST_RECORDS lost=17 domid=2 vcpuid=1 first_tsc=200
    500 cpu0 HVM_VMENTRY
    700 cpu0 HVM_VMENTRY
"""


def test_lost_records_leave_a_gap(opened: Opened, tmp_path: Path) -> None:
    found = exported(opened(LOSS), tmp_path / "out")
    assert told(found.on("/lost records")) == [("17 records lost", 100, 300, {"records": 17})]
    assert told(found.on("/runs")) == [("d1v0", 0, 100, {}), ("d2v1", 300, 600, {"clipped": "end"})]
    (exit_,) = found.on("/VM exits")
    assert (exit_.begin, exit_.end, exit_.args["complete"]) == (50, None, False)
    (state,) = found.on("Domain 1/d1v0")
    assert state.args["complete"] is False


CUT = """
    100 cpu0 CALL_SEND seq=1 mask=1
    110 cpu1 CALL_ENTER initiator_cpu=0 seq=1
    120 cpu1 CALL_EXIT initiator_cpu=0 seq=1
    130 cpu0 CALL_DONE seq=1
    200 cpu0 TLB_FLUSH_START seq=5 flush_flags=0x100
    300 cpu0 CALL_START seq=2 func=0x10 n_cpus=2 wait=1
    310 cpu0 CALL_SEND seq=2 mask=1,2
    320 cpu1 CALL_ENTER initiator_cpu=0 seq=2
    330 cpu1 CALL_EXIT initiator_cpu=0 seq=2
    340 cpu2 CALL_ENTER initiator_cpu=0 seq=2
"""


def test_incomplete_episodes_show_what_is_known(opened: Opened, tmp_path: Path) -> None:
    found = exported(opened(CUT), tmp_path / "out")
    shown = {one.name: one for one in found.on("/requests") if one.depth == 0}
    assert {name: (one.begin, one.end) for name, one in shown.items()} == {
        "call": (0, 30),
        "flush TLB": (100, None),
        "call 0x10": (200, 210),
    }
    assert not any(one.args["complete"] for one in shown.values())
    inner = [(one.name, one.begin, one.end) for one in found.on("/requests") if one.depth]
    assert inner == [("lock wait", 200, 210)], "no other phase has two ends that were seen"
    targets = {(one.row, one.begin): (one.end, one.args.get("complete")) for one in found.on("/functions run")}
    assert targets == {
        ("CPUs/CPU 1/functions run", 10): (20, None),
        ("CPUs/CPU 1/functions run", 220): (230, None),
        ("CPUs/CPU 2/functions run", 240): (None, False),
    }
    assert {flow for one in found.slices for flow in one.flows} == {
        flow for one in found.slices for flow in one.arrives
    }
    assert found.counts["Calls and flushes/calls in flight"] == [(0, 1), (30, 0)]


NESTED = """
    0    cpu0 RUNSTATE_CHANGE vcpuid=0 domid=1 old_state=runnable new_state=running
    1000 cpu0 HW_IRQ_HANDLED irq=9 tsc_in=0 tsc_out=900
    2200 cpu0 HW_IRQ_HANDLED irq=20 tsc_in=2100 tsc_out=2200
    2400 cpu0 HW_IRQ_HANDLED irq=16 tsc_in=2000 tsc_out=2400
    ---
    2500 cpu0 HW_IRQ_HANDLED irq=17 tsc_in=2300 tsc_out=2450
"""


def test_interrupts_in_interrupts(opened: Opened, tmp_path: Path) -> None:
    """The outer one is recorded later; one that crosses another is on another track of the row."""
    found = exported(opened(NESTED), tmp_path / "out")
    assert [
        (one.name, one.begin, one.end, one.depth) for one in sorted(found.on("/interrupts"), key=lambda o: o.begin)
    ] == [
        ("IRQ 9", 900, None, 0),
        ("IRQ 16", 2000, 2400, 0),
        ("IRQ 20", 2100, 2200, 1),
        ("IRQ 17", 2300, 2450, 0),
    ]
    same = [track for track in found.tracks if found.path(track).endswith("/interrupts")]
    assert len(same) == 2
    assert len({found.tracks[track].sibling_order_rank for track in same}) == 1


def test_the_same_bytes_each_time(sample: Sample, tmp_path: Path) -> None:
    for name in ("vmx-legacy", "bench8-legacy"):
        contents = set()
        for turn in range(2):
            with xtrace.open(sample(name)) as trace:
                exported(trace, tmp_path / f"{turn}")
            contents.add((tmp_path / f"{turn}").read_bytes())
        assert len(contents) == 1


def test_cpus(bench: Trace, tmp_path: Path) -> None:
    found = exported(bench, tmp_path / "out", cpus=frozenset({0, 2}))
    episodes, deliveries = bench.df_episodes(), bench.df_deliveries()
    mine = episodes[episodes["initiator"].isin([0, 2])]
    assert set(requests_of(found)) == set(mine["episode"])
    assert len(found.on("/functions run")) == int(deliveries["episode"].isin(mine["episode"]).sum())
    assert {one.row for one in found.on("/requests")} == {"CPUs/CPU 0/requests", "CPUs/CPU 2/requests"}
    assert any(one.row == "CPUs/CPU 7/functions run" for one in found.slices)


def test_span(bench: Trace, tmp_path: Path) -> None:
    """Episodes are there by their start, as everywhere; nothing shown is outside, and what is cut says so."""
    episodes = bench.df_episodes()
    # It ends within an episode.
    begin, end = int(episodes["start_ns"][500]), int(episodes["send_ns"][700]) + 1
    found = exported(bench, tmp_path / "out", from_ns=begin, to_ns=end)
    mine = episodes[episodes["start_ns"].between(begin, end, inclusive="left")]
    shown = requests_of(found)
    assert set(shown) == set(mine["episode"])
    assert len(shown) > 200
    whole = dict(zip(mine["episode"], mine["done_ns"], strict=True))
    for episode, one in shown.items():
        cut = whole[episode] > end
        assert one.args.get("clipped") == ("end" if cut else None)
        assert one.end == min(whole[episode], end)
    assert any("clipped" in one.args for one in shown.values())
    assert all(begin <= one.begin and (one.end or one.begin) <= end for one in found.slices)
    assert all(begin <= ns < end for counts in found.counts.values() for ns, _ in counts)
    flows = [{flow for one in found.slices for flow in getattr(one, which)} for which in ("flows", "arrives")]
    assert flows[0] == flows[1]


def test_spans_show_all_between_them(vmx: Trace, tmp_path: Path) -> None:
    """What two adjoining spans show of who ran adds up to what one shows."""
    whole, middle = exported(vmx, tmp_path / "whole"), 10**9
    parts = [exported(vmx, tmp_path / "part", to_ns=middle), exported(vmx, tmp_path / "part", from_ns=middle)]
    for row in ("/runs", "Domain 0/d0v1", "/VM exits"):
        spent = [sum((one.end or one.begin) - one.begin for one in part.on(row)) for part in (whole, *parts)]
        assert spent[0] == spent[1] + spent[2] > 0
    crossing = [one for one in parts[1].on("/runs") if one.args.get("clipped", "").startswith("begin")]
    assert crossing
    assert {one.begin for one in crossing} == {middle}


def test_domain(vmx: Trace, tmp_path: Path) -> None:
    found = exported(vmx, tmp_path / "out", domains=frozenset({1}))
    assert {row for row in found.rows() if row.startswith("Domain")} == {"Domain 1", "Domain 1/d1v0", "Domain 1/d1v1"}
    assert {one.name for one in found.on("/runs")} == {"d1v0", "d1v1"}
    assert len(found.on("/VM exits")) == 755
    assert Counter(one.args["record"] for one in found.on("/interrupts")) == {"HVM_INTR": 347}
    episodes = vmx.df_episodes()
    assert set(requests_of(found)) == set(episodes.loc[(episodes["domain"] == 1).fillna(value=False), "episode"])


def test_an_emulated_trace_with_loss(tmp_path: Path) -> None:
    plan = Plan(Host(8, vendor="svm"), Evacuate(2, 2), tool=Tool(1, 2_000_000, 1_000_000), seconds=0.01)
    content, _, _, lost = made(plan.run(), plan.tool, "all")
    (tmp_path / "trace.bin").write_bytes(content)
    with xtrace.open(tmp_path / "trace.bin", cpu_hz=plan.host.hz) as trace:
        found = exported(trace, tmp_path / "out")
        episodes, told_lost = trace.df_episodes(), trace.lost_by_cpu
    assert lost
    shown: Counter[str] = Counter()
    for one in found.on("/lost records"):
        shown[one.row] += one.args["records"]
    assert shown == {f"CPUs/CPU {cpu}/lost records": count for cpu, count in told_lost.items()}
    flagged = {episode for episode, one in requests_of(found).items() if not one.args["complete"]}
    seen = episodes[["start_ns", "send_ns", "done_ns"]].notna().any(axis=1)
    assert flagged == set(episodes.loc[~episodes["complete"] & seen, "episode"])
    assert flagged


def test_names_are_shown_not_obeyed(tmp_path: Path, sample: Sample) -> None:
    strange = "\x1b]0;evil\x07<img/src=x>\u202e日本" + "x" * 500
    symbols = tmp_path / "map"
    with xtrace.open(sample("bench-lockless")) as trace:
        funcs = trace.df_episodes()["func"].dropna().unique()
    symbols.write_text("".join(f"{func:x} T {strange}\n" for func in funcs if func), encoding="utf-8")
    with xtrace.open(sample("bench-lockless"), symbols=symbols) as trace:
        found = exported(trace, tmp_path / "out", to_ns=10**9)
    names = {one.name for one in requests_of(found).values()}
    assert any("<img/src=x>" in name and "日本" in name for name in names)
    assert all(name.isprintable() and len(name) < 200 for name in names)


@pytest.mark.parametrize("cut", [0, 1000, 3001])
def test_damaged_traces(damaged: Damaged, cut: int, tmp_path: Path) -> None:
    """Whatever is missing, the file is sound: `picture` checks every track."""
    data = bytearray(damaged.data)
    data[len(data) // 3 : len(data) // 3 + cut] = bytes(cut)
    damaged.path.write_bytes(bytes(data[: len(data) - cut // 3]))
    with xtrace.open(damaged.path, cpu_hz=10**9) as trace:
        found = exported(trace, tmp_path / "out")
    assert found.slices


SHOWN = [
    event
    for event in DECLARED
    if event.name.startswith(("SMP_", "TLB_", "TRC_HVM_VM", "TRC_HVM_INTR", "TRC_HVM_SVM"))
    or event.name in ("TRC_SCHED_RUNSTATE_CHANGE", "TRC_LOST_RECORDS", "TRC_HW_IRQ_HANDLED", "TRC_PM_IDLE_EXIT")
]


@st.composite
def shown_captures(draw: st.DrawFn) -> list[Window]:
    """Windows of few CPUs with records that a timeline shows."""
    clock, windows = dict.fromkeys(range(3), 1 << 40), []
    for cpu in draw(st.lists(st.integers(0, 2), min_size=1, max_size=12)):
        inside = []
        for one in draw(st.lists(records_of(SHOWN), max_size=12)):
            clock[cpu] += one.tsc or 0
            inside.append(one if one.tsc is None else Record(one.event_id, one.payload, clock[cpu]))
        windows.append(Window(cpu, tuple(inside)))
    return windows


@given(
    st.one_of(shown_captures(), captures()),
    st.none() | st.tuples(st.integers(0, 1 << 22), st.integers(0, 1 << 22)),
    st.booleans(),
)
@settings(max_examples=60)
def test_any_records(scratch: Path, windows: list[Window], span: tuple[int, int] | None, chosen: bool) -> None:
    """Slices of any records, of any part of them, nest on each track and are inside the span."""
    scratch.write_bytes(build_capture(windows))
    begin, end = span or (None, None)
    domains = frozenset(range(1 << 15)) if chosen else None
    with xtrace.open(scratch, cpu_hz=10**9) as trace:
        found = exported(trace, scratch.with_suffix(".perfetto"), domains, from_ns=begin, to_ns=end)
    for one in found.slices:
        assert (begin or 0) <= one.begin
        assert end is None or (one.end or one.begin) <= max(end, begin or 0)
    leaving, arriving = (
        sorted(flow for one in found.slices for flow in getattr(one, which)) for which in ("flows", "arrives")
    )
    assert leaving == arriving


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.booleans()), max_size=60))
def test_rows_nest(parts: list[tuple[int, int, bool]]) -> None:
    """Slices in any order, crossing and not: each keeps its times, and every track is in order."""
    out: list[Mark] = []
    tracks: list[Track] = []

    def new_track() -> Track:
        tracks.append(Track(len(tracks) + 1, None, "row", 0))
        return tracks[-1]

    row = Row(out, new_track)
    for number, (begin, length, instant) in enumerate(parts):
        piece = Piece(begin, begin + length, f"{number}", {})
        if instant:
            row.instant(piece)
        else:
            row.slice(piece)
    row.close()
    assert len(tracks) <= MAX_LANES
    ended: dict[str, tuple[int, int]] = {}
    for track in tracks:
        stack: list[Begin] = []
        mine = [mark for mark in out if mark.track is track and isinstance(mark, Begin | End)]
        assert [mark.ns for mark in mine] == sorted(mark.ns for mark in mine)
        for mark in mine:
            if isinstance(mark, Begin):
                stack.append(mark)
            else:
                begun = stack.pop()
                ended[begun.name] = (begun.ns, mark.ns)
        assert not stack
    for name, times in ended.items():
        begin, length, _ = parts[int(name)]
        assert times == (begin, begin + length)


def test_packets_go_out_as_they_are_made() -> None:
    """A file of any length takes the memory of one portion."""
    file = io.BytesIO()
    writer = perfetto.Writer(perfetto.schema(), file)
    track = Track(1, None, "row", 0)
    sizes = []
    for turn in range(5):
        writer.add(End(track, turn) for _ in range(perfetto.PORTION))
        sizes.append(file.tell())
    assert sizes == sorted(set(sizes))
    assert sizes[0] > 0


def test_many_names_are_written_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perfetto, "MAX_INTERNED", 3)
    file = io.BytesIO()
    writer = perfetto.Writer(perfetto.schema(), file)
    track = Track(1, None, "row", 0)
    for turn in range(9):
        writer.add([Begin(track, turn, f"name {turn}", {"text": f"value {turn}"}), End(track, turn)])
    writer.finish()
    found = picture(file.getvalue()).slices
    assert [(one.name, one.args["text"]) for one in found] == [(f"name {turn}", f"value {turn}") for turn in range(9)]


def command(*arguments: str, probe: str = "") -> subprocess.CompletedProcess[str]:
    program = f"import sys; {probe}; from xtrace.cli import run; sys.exit(run(sys.argv[1:]))"
    words = [sys.executable, *(["-c", program] if probe else ["-m", "xtrace"]), "export", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_command(tmp_path: Path, sample: Sample) -> None:
    source, out = str(sample("vmx-legacy")), tmp_path / "out.perfetto-trace"
    done = command("--perfetto", str(out), source, "--cpus", "1", "--domain", "1", "--from", "1s", "--to", "1500ms")
    assert done.returncode == 0, done.stderr
    assert "packets" in done.stderr
    assert {one.row for one in read(out).slices} == {
        *(f"CPUs/CPU 1/{row}" for row in ("runs", "VM exits", "interrupts")),
        "Domain 1/d1v0",
        "Domain 1/d1v1",
    }
    before = out.read_bytes()
    again = command("--perfetto", str(out), source)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "--force" in again.stderr
    assert out.read_bytes() == before
    assert command("--perfetto", str(out), source, "--force").returncode == 0
    assert len(out.read_bytes()) > len(before)
    assert [one.name for one in tmp_path.iterdir()] == [out.name]


def test_command_says_what_is_missing(tmp_path: Path, sample: Sample) -> None:
    out = tmp_path / "out"
    done = command("--perfetto", str(out), str(sample("vmx-legacy")), probe="sys.modules['perfetto'] = None")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pip install 'xen-xtrace[perfetto]'" in done.stderr
    assert not out.exists()
    assert command(str(sample("vmx-legacy"))).returncode == 2

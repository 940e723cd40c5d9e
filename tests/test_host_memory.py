"""Memory operations: beside xenalyze's dump and, for populate-on-demand, `xenalyze -s`; and small captures."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import xenalyze_summary
from captures import capture
from conftest import Opened, Sample
from host_parts import followed

import xtrace
from xtrace.host.memory import Memory, MemoryAccount, Operation
from xtrace.host.windows import WHOLE
from xtrace.selection import Selection

SET = re.compile(r"set_p2m_entry d(\d+) o(\d+) t (\d+) g")


def test_real_traces_equal_the_dump(trace: Path, trace_name: str) -> None:
    """xenalyze's summary counts none of the operations that it prints: of all traces there are headings alone."""
    svm = [] if trace_name.startswith("vmx") else ["--svm-mode"]
    command = [xenalyze_summary.judge(), "-a", *svm, "--cpu-hz", "1G", str(trace)]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = Counter((int(domain), int(order), int(kind)) for domain, order, kind in SET.findall(dump))
    with xtrace.open(trace) as one:
        found = followed(one, MemoryAccount).found(WHOLE)
    counts: Counter[tuple[int, int | None, int | None]] = Counter()
    for row in found.details:
        assert row.operation == "set P2M entry"
        counts[row.for_domain, row.order, row.type] += row.count
    assert counts == expected
    assert bool(expected) == trace_name.startswith("migrate")
    for domain in xenalyze_summary.summary(trace).domains.values():
        assert [line.strip() for line in domain.sections["Grant table ops"]] == ["Done by:", "Done for:"]
        headings = ["Populated:", "Reclaim order:", "Reclaim contexts:"]
        assert [line.strip() for line in domain.sections["Populate-on-demand"]] == headings


def test_who_does_it_in_a_migration(sample: Sample) -> None:
    """Golden: a migration's sender writes its own entries, the receiver's are written for it by the toolstack."""
    with xtrace.open(sample("migrate-stock")) as one:
        found = followed(one, MemoryAccount).found(WHOLE)
    assert [(row.domain, row.done_by, row.done_for) for row in found.operations] == [
        (0, 3071, 0),
        (1, 6586, 6586),
        (3, 0, 3071),
    ]
    assert {row.type_name for row in found.details} == {"ram_rw"}


RELEASE_17 = "9 cpu0 CSCHED2_UPDATE_RUNQ_LOAD pad=1"
"""A record that only 4.17 leaves garbage in: it tells that memory records are in its layout."""

OPERATIONS = f"""
    {RELEASE_17}
    10 cpu0 RUNSTATE_CHANGE domid=5 vcpuid=0 old_state=runnable new_state=running
    11 cpu0 MEM_PAGE_GRANT_MAP domid=7
    12 cpu0 MEM_PAGE_GRANT_MAP domid=7
    13 cpu0 MEM_PAGE_GRANT_UNMAP domid=7
    14 cpu0 MEM_PAGE_GRANT_TRANSFER domid=7
    - cpu0 MEM_SET_P2M_ENTRY domid=5 order=9 p2mt=2
    - cpu0 MEM_DECREASE_RESERVATION domid=5 order=9
    - cpu0 MEM_POD_SUPERPAGE_SPLINTER domid=5
    15 cpu1 MEM_PAGE_GRANT_MAP domid=5
    16 cpu1 MEM_PAGE_GRANT_MAP domid=0xffffffff
"""


def test_operations_of_a_small_capture(opened: Opened) -> None:
    with opened(OPERATIONS) as trace:
        found = followed(trace, MemoryAccount).found(WHOLE)
        per_s = 1e9 / 8
        assert found.operations == (
            Operation(5, "grant map", 2, 1, None, None, 2 * per_s, per_s),
            Operation(5, "grant unmap", 1, 0, None, 0, per_s, 0),
            Operation(5, "grant transfer", 1, 0, None, 0, per_s, 0),
            Operation(5, "set P2M entry", 1, 1, 512, 512, per_s, per_s),
            Operation(5, "decrease reservation", 1, 1, 512, 512, per_s, per_s),
            Operation(5, "splinter superpage", 1, 1, None, None, per_s, per_s),
            Operation(7, "grant map", 0, 2, 0, None, 0, 2 * per_s),
            Operation(7, "grant unmap", 0, 1, 0, None, 0, per_s),
            Operation(7, "grant transfer", 0, 1, 0, None, 0, per_s),
            Operation(0xFFFF, "grant map", 0, 1, 0, None, 0, per_s),
        )
        details = [(row.by_domain, row.for_domain, row.operation, row.order, row.type_name) for row in found.details]
        assert details == [
            (5, 7, "grant map", None, None),
            (None, 5, "grant map", None, None),
            (None, 0xFFFF, "grant map", None, None),
            (5, 7, "grant unmap", None, None),
            (5, 7, "grant transfer", None, None),
            (5, 5, "set P2M entry", 9, "ram_logdirty"),
            (5, 5, "decrease reservation", 9, None),
            (5, 5, "splinter superpage", None, None),
        ]
        assert found.df_details()["count"].tolist() == [2, 1, 1, 1, 1, 1, 1, 1]
        selected = followed(trace, MemoryAccount, Selection(cpus=frozenset({1}))).found(WHOLE)
        assert [(row.by_domain, row.count) for row in selected.details] == [(None, 1), (None, 1)]
        account = followed(trace, MemoryAccount, every_ns=4, piece=1)
        assert [sum(row.count for row in account.found(window).details) for window in (1, 2)] == [2, 7]


ON_DEMAND = """
    9 cpu0 CSCHED2_UPDATE_RUNQ_LOAD pad=1
    - cpu0 {intr}
    10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    20 cpu0 VMEXIT64 exit_reason={fault} rip=1
    - cpu0 MEM_POD_POPULATE domid=1 order=9
    - cpu0 MEM_POD_POPULATE domid=1
    - cpu0 MEM_POD_ZERO_RECLAIM domid=1 order=9
    - cpu0 MEM_POD_ZERO_RECLAIM domid=1
    21 cpu0 RUNSTATE_CHANGE domid=9 vcpuid=0 old_state=blocked new_state=runnable
    - cpu0 MEM_POD_ZERO_RECLAIM domid=1
    30 cpu0 VMENTRY
    - cpu0 MEM_POD_ZERO_RECLAIM domid=1 order=18
    40 cpu0 VMEXIT64 exit_reason={call} rip=1
    - cpu0 MEM_POD_ZERO_RECLAIM domid=1
    41 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=runnable
    42 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    - cpu0 MEM_POD_ZERO_RECLAIM domid=1 order=9
    50 cpu0 VMEXIT64 exit_reason=12 rip=1
    - cpu0 MEM_POD_ZERO_RECLAIM domid=1 order=9
"""
VMX = ON_DEMAND.format(intr="INTR vector=0xfa", fault=48, call=18)
RECLAIMED = {("fault", 0): 2, ("fault", 9): 1, ("balloon", 0): 1, ("other", 9): 2, ("other", 18): 1}


def reclaimed(found: Memory) -> dict[tuple[str | None, int | None], int]:
    return {
        (row.context, row.order): row.count
        for row in found.details
        if (row.for_domain, row.operation) == (1, "reclaim zeroed page")
    }


SINCE_18 = VMX.replace("pad=1", "pad=0").replace("order=", "pad=")
"""Later releases have the order where 4.17 has garbage; 4.19 tells AMD's exits apart."""
SVM = (
    SINCE_18.replace("VMEXIT64 exit_reason", "SVM_EXIT64 exit_code")
    .replace("=48", "=0x400")
    .replace("=18 r", "=0x81 r")
)


@pytest.mark.parametrize("piece", [None, 1, 3])
@pytest.mark.parametrize("text", [VMX, SINCE_18, SVM], ids=["vmx", "since 4.18", "svm"])
def test_populate_on_demand(text: str, piece: int | None, opened: Opened) -> None:
    with opened(text) as trace:
        assert reclaimed(followed(trace, MemoryAccount, piece=piece).found(WHOLE)) == RECLAIMED


def test_captures_are_apart(tmp_path: Path) -> None:
    """An exit that the first leaves open is not what the second's first page is reclaimed in."""
    first = VMX.split("    - cpu0 MEM_POD_ZERO")[0]
    second = "-100000000000 cpu0 SCHED_WAKE\n- cpu0 MEM_POD_ZERO_RECLAIM domid=1"
    path = tmp_path / "trace.bin"
    path.write_bytes(capture(first) + capture(second))
    with xtrace.open(path) as trace:
        account = followed(trace, MemoryAccount, Selection(from_ns=-(10**12)))
    assert reclaimed(account.found(WHOLE)) == {("other", 0): 1}


def test_populate_on_demand_equals_xenalyze(opened: Opened, tmp_path: Path) -> None:
    """It writes 0, 1, 2 for orders 0, 9, 18, and `unknown` for what is `other` here; only on Intel is it right."""
    with opened(VMX) as trace:
        found = followed(trace, MemoryAccount).found(WHOLE)
    text = xenalyze_summary.xenalyze(tmp_path / "trace.bin", svm=False)
    lines = xenalyze_summary.blocks(text).domains[1].sections["Populate-on-demand"]
    populated = {row.order: row.count for row in found.details if row.operation == "populate on demand"}
    orders: Counter[int | None] = Counter()
    contexts: Counter[str | None] = Counter()
    for (context, order), count in reclaimed(found).items():
        orders[order] += count
        contexts[context] += count
    expected = ["  Populated:", *ordered("   ", populated), "  Reclaim order:", *ordered("   ", orders)]
    expected.append("  Reclaim contexts:")
    for theirs, context in (("unknown", "other"), ("fault", "fault"), ("balloon", "balloon")):
        expected.append(f"   * [{theirs}] {contexts[context]}")
        expected += ordered(
            "    ", {order: count for (one, order), count in reclaimed(found).items() if one == context}
        )
    assert lines == expected


def ordered(indent: str, counts: dict[int | None, int]) -> list[str]:
    rows = sorted((order or 0, count) for order, count in counts.items())
    return [f"{indent}[{order // 9}] {count}" for order, count in rows]


def test_odd_orders_are_kept(opened: Opened) -> None:
    """D30: xenalyze writes those beyond its table."""
    text = f"""
        {RELEASE_17}
        10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
        - cpu0 MEM_POD_POPULATE domid=1 order=1
        - cpu0 MEM_POD_POPULATE domid=1 order=27
        - cpu0 MEM_SET_P2M_ENTRY domid=1 p2mt=77 order=65535
    """
    with opened(text) as trace:
        found = followed(trace, MemoryAccount).found(WHOLE)
    assert [(row.order, row.type_name) for row in found.details] == [(None, "type 77"), (1, None), (27, None)]
    assert [row.pages_for for row in found.operations] == [None, None]

"""The files of tracepoints/: put into C of Xen's shape, compiled, run, and the trace of that read by xtrace.

Debian's packages coccinelle (the program is spatch) and gcc have what this needs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from captures import same
from test_cli import failure, xtrace

from xtrace import open as open_trace
from xtrace.parsers.smp import EVENTS
from xtrace.tracepoint_files import NAMES

TRACEPOINTS: Final = Path(__file__).parent.parent / "tracepoints"
SAMPLES: Final = Path(__file__).parent / "data" / "tracepoints"
DESIGNS: Final = ("legacy", "lockless")
OF_XEN: Final = ("cpumask", "percpu", "sched", "smp", "spinlock", "trace")
"""The headers of Xen that the samples and ours include: all are the stub here."""

GCC: Final = (
    *("gcc", "-std=gnu99", "-O2", "-I.", "-Werror", "-Wall", "-Wextra", "-Wstrict-prototypes", "-Wvla"),
    "-Wdeclaration-after-statement",
)


def tree(folder: Path) -> Path:
    """A folder with the samples, and our header where Xen has its own."""
    shutil.copytree(SAMPLES, folder, dirs_exist_ok=True)
    (folder / "xen").mkdir()
    for name in OF_XEN:
        (folder / "xen" / f"{name}.h").write_text('#include "stub.h"\n')
    shutil.copy(TRACEPOINTS / "smp_trace.h", folder / "xen")
    return folder


def texts(folder: Path, design: str) -> dict[str, str]:
    """The two samples of a design, `call` and `flush`."""
    return {kind: (folder / f"{design}_{kind}.c").read_text() for kind in ("call", "flush")}


def spatch(folder: Path, patch: str, design: str) -> dict[str, str]:
    """Apply a semantic patch to both samples of a design, and return what they are then."""
    names = [f"{design}_call.c", f"{design}_flush.c"]
    command = ["spatch", "--very-quiet", "--in-place", "--sp-file", str(TRACEPOINTS / f"{patch}.cocci"), *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "error" not in done.stderr
    return texts(folder, design)


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By design: the samples with the tracepoints in them."""
    folders = {design: tree(tmp_path_factory.mktemp(design)) for design in DESIGNS}
    for design, folder in folders.items():
        spatch(folder, design, design)
    return folders


def program(folder: Path, design: str, option: str) -> Path:
    """The samples of a design, compiled without a warning."""
    out = folder / f"host{option}"
    options = [f"-D{design.upper()}", *filter(None, [option])]
    sources = [f"{design}_call.c", f"{design}_flush.c", "host.c"]
    command = [*GCC, *options, *sources, "-o", str(out)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_events_are_those_that_xtrace_reads() -> None:
    """The numbers and the count of words, and what the comment calls them."""
    header = (TRACEPOINTS / "smp_trace.h").read_text()
    base = int(re.search(r"#define TRC_HW_SMP +(0x\w+)", header)[1], 16)  # type: ignore[index]
    found = re.findall(r"#define TRC_(\w+) +\(TRC_HW_SMP \+ (0x\w+)\) /\* (.+) \*/", header)
    told = {name: (base + int(number, 16), words.split(", ")) for name, number, words in found}
    assert {name: (number, len(words)) for name, (number, words) in told.items()} == {
        event.name: (event.event_id, event.words) for event in EVENTS
    }
    for event in EVENTS:
        fields = [str(field.name) for field in getattr(event.payload, "subcons", ())]
        words = told[event.name][1]
        assert list(dict.fromkeys(word.removesuffix("_lo").removesuffix("_hi") for word in words)) == fields


ORDER: Final = {
    ("legacy", "call", "on_selected_cpus"): """
        trace_id = smp_trace_call_start(func, wait, selected);
        spin_lock(&call_lock);
        call_data.wait = wait;
        call_data.trace_id = trace_id;
        smp_trace_call_send(trace_id, &call_data.selected);
        smp_send_call_function_mask(&call_data.selected);
        cpu_relax();
        smp_trace_call_done(trace_id);
        spin_unlock(&call_lock);
    """,
    ("legacy", "call", "smp_call_function_interrupt"): """
        struct smp_trace_id trace_id = call_data.trace_id;
        smp_trace_call_enter(trace_id);
        smp_trace_call_exit(trace_id);
        cpumask_clear_cpu(me, &call_data.selected);
        smp_trace_call_enter(trace_id);
        (*func)(info);
        smp_trace_call_exit(trace_id);
        cpumask_clear_cpu(me, &call_data.selected);
        cpumask_clear_cpu(me, &call_data.selected);
        smp_trace_call_enter(trace_id);
        (*func)(info);
        smp_trace_call_exit(trace_id);
    """,
    ("legacy", "flush", "flush_area_mask"): """
        flush_area_local(va, flags);
        trace_id = smp_trace_flush_start(va, flags);
        spin_lock(&flush_lock);
        flush_trace_id = trace_id;
        smp_trace_flush_send(trace_id, &flush_cpumask);
        send_IPI_mask(&flush_cpumask, INVALIDATE_TLB_VECTOR);
        cpu_relax();
        smp_trace_flush_done(trace_id);
        spin_unlock(&flush_lock);
    """,
    ("legacy", "flush", "invalidate_interrupt"): """
        struct smp_trace_id trace_id = flush_trace_id;
        smp_trace_flush_enter(trace_id);
        flush_area_local(flush_va, flags);
        smp_trace_flush_exit(trace_id);
        cpumask_clear_cpu(smp_processor_id(), &flush_cpumask);
    """,
    ("lockless", "call", "on_selected_cpus"): """
        if ( cpumask_empty(selected) )
        trace_id = smp_trace_call_start(func, wait, selected);
        cpu_relax();
        own->wait = wait;
        own->trace_id = trace_id;
        smp_trace_call_send(trace_id, selected);
        smp_send_call_function_mask(&own->selected);
        cpu_relax();
        smp_trace_call_done(trace_id);
    """,
    ("lockless", "call", "smp_call_function_interrupt"): """
        trace_id = its->trace_id;
        smp_trace_call_enter(trace_id);
        smp_trace_call_exit(trace_id);
        cpumask_clear_cpu(me, &its->selected);
        smp_trace_call_enter(trace_id);
        (*func)(info);
        smp_trace_call_exit(trace_id);
        cpumask_clear_cpu(me, &its->selected);
        cpumask_clear_cpu(me, &its->selected);
        smp_trace_call_enter(trace_id);
        (*func)(info);
        smp_trace_call_exit(trace_id);
    """,
    ("lockless", "flush", "flush_area_mask"): """
        flush_area_local(va, flags);
        wanted.trace_id = smp_trace_flush_start(va, flags);
        smp_trace_flush_send(wanted.trace_id, &flush_cpumask);
        on_selected_cpus(&flush_cpumask, invalidate_cb, &wanted, 1);
        smp_trace_flush_done(wanted.trace_id);
    """,
    ("lockless", "flush", "invalidate_cb"): """
        smp_trace_flush_enter(wanted->trace_id);
        flush_area_local(wanted->va, flags);
        smp_trace_flush_exit(wanted->trace_id);
    """,
}
"""By design, file and function: all our statements, and those of Xen's shape that they must stand before or behind."""


CALL: Final = re.compile(r"smp_trace_\w+\(.*\);")


@pytest.mark.parametrize("place", ORDER, ids="-".join)
def test_order_of_statements(place: tuple[str, str, str], patched: dict[str, Path]) -> None:
    design, kind, function = place
    text = (patched[design] / f"{design}_{kind}.c").read_text()
    body = re.search(rf"^[^\n]*\b{function}\([^;{{]*\)\n{{\n(.*?)^}}", text, re.DOTALL | re.MULTILINE)
    assert body
    lines = [line.strip() for line in body[1].splitlines()]
    expected = [line.strip() for line in ORDER[place].strip().splitlines()]
    rest = iter(lines)
    assert [line for line in expected if line not in rest] == []
    assert CALL.findall("\n".join(lines)) == CALL.findall("\n".join(expected))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("patch", DESIGNS)
def test_nothing_is_done_twice(patch: str, design: str, patched: dict[str, Path], tmp_path: Path) -> None:
    before = texts(patched[design], design)
    folder = tree(tmp_path)
    for kind, text in before.items():
        (folder / f"{design}_{kind}.c").write_text(text)
    assert spatch(folder, patch, design) == before


@pytest.mark.parametrize(
    ("patch", "design", "was", "now"),
    [
        ("legacy", "lockless", "", ""),
        ("lockless", "legacy", "", ""),
        *((design, design, "(*func)(info);", "run(func, info);") for design in DESIGNS),
        *((design, design, "smp_send_call_function_mask(", "send_call(") for design in DESIGNS),
        *((design, design, "int wait;", "bool wait;") for design in DESIGNS),
    ],
)
def test_other_code_stays_as_it_is(patch: str, design: str, was: str, now: str, tmp_path: Path) -> None:
    """Where one place is not as expected, none in the file is changed."""
    folder = tree(tmp_path)
    call = folder / f"{design}_call.c"
    changed = call.read_text().replace(was, now)
    call.write_text(changed)
    assert spatch(folder, patch, design)["call"] == changed


EPISODES: Final = {
    "legacy": """
         kind  initiator  seq  n_targets     targets  wait  lock_wait_ns  total_ns  straggler  parent  complete
         call          0    1          2         1,2   yes            10      2060          2       -       yes
         call          0    2          4  0,1,64,129   yes            10      4120        129       -       yes
         call          3    1          1           4   yes            10        40          4       -       yes
         call          5    1          1           6    no            10      1040          6       -       yes
         call          5    2          2         6,7   yes            10      2060          7       -       yes
         call          9    1          1          10    no            10      1040         10       -       yes
         call          8    1          1          10   yes            10      1040         10       -       yes
        flush          2    1          2        3,70     -            10      1070         70       -       yes
    """,
    "lockless": """
         kind  initiator  seq  n_targets     targets  wait  lock_wait_ns  total_ns  straggler  parent  complete
         call          0    1          2         1,2   yes            10      2060          2       -       yes
         call          0    2          4  0,1,64,129   yes            10      4120        129       -       yes
         call          3    1          1           4   yes            10        40          4       -       yes
         call          5    1          1           6    no            10        20          6       -       yes
         call          5    2          2         6,7   yes          1030      3080          7       -       yes
         call          9    1          1          10    no            10        20         10       -       yes
         call          8    1          1          10   yes            10      2060         10       -       yes
        flush          2    1          2        3,70     -            10      1150         70       -       yes
         call          2    1          2        3,70   yes            10      1110         70       7       yes
    """,
}
"""A record takes 10 ns, `work` 1000 and a flush 500. See `main` in host.c for what is asked for."""

DELIVERIES: Final = {
    "legacy": """
        episode  cpu  delivery_ns  execution_ns  enter_ns
              0    1           10          1010        20
              0    2         1030          1010      1040
              1    0           30          1010      2110
              1    1         1050          1010      3130
              1   64         2070          1010      4150
              1  129         3090          1010      5170
              2    4           10            10      6220
              3    6           10          1010      6270
              4    6           10          1010      7320
              4    7         1030          1010      8340
              5   10           10          1010      9390
              6   10           10          1010     10440
              7    3           20           510     12000
              7   70          540           510     12520
    """,
    "lockless": """
        episode  cpu  delivery_ns  execution_ns  enter_ns
              0    1           10          1010        20
              0    2         1030          1010      1040
              1    0           30          1010      2110
              1    1         1050          1010      3130
              1   64         2070          1010      4150
              1  129         3090          1010      5170
              2    4           10            10      6220
              3    6           30          1010      6290
              4    6           10          1010      7320
              4    7         1030          1010      8340
              5   10         1060          1010     10440
              6   10           10          1010      9420
              7    3           60           510     12040
              7   70          600           510     12580
              8    3           20           530     12030
              8   70          560           530     12570
    """,
}
"""In the lockless design CPU 10 serves two initiators in one interrupt, 8 before 9 although 9 asked first."""


@pytest.mark.parametrize("trace_api", ["", "-DSTUB_TRACE_VAR"], ids=["since 4.19", "before"])
@pytest.mark.parametrize("design", DESIGNS)
def test_a_run_gives_the_episodes(design: str, trace_api: str, patched: dict[str, Path], tmp_path: Path) -> None:
    """The samples on the host of host.c: what xtrace reads in its trace is what was called and flushed there."""
    done = subprocess.run([program(patched[design], design, trace_api)], capture_output=True, check=True)
    path = tmp_path / "trace.bin"
    path.write_bytes(done.stdout)
    with open_trace(path, cpu_hz=10**9) as trace:
        same(EPISODES[design], trace.table_episodes())
        same(DELIVERIES[design], trace.table_deliveries())
        assert trace.summary()["hypervisor"]["smp_model"] == design
        functions = {row["func"] for row in trace.table_episodes().to_pylist() if row["parent"] is None}
        flushes = [row for row in trace.table_episodes().to_pylist() if row["kind"] == "flush"]
    assert functions == {None, 0, int(done.stderr)}
    assert [(row["va"], row["flush_flags"]) for row in flushes] == [(0xFFFF820012345000, 0x901)]


@pytest.mark.parametrize("design", DESIGNS)
def test_without_trace_buffers_nothing_is_left(design: str, patched: dict[str, Path]) -> None:
    """Xen built without CONFIG_TRACEBUFFER: it compiles, runs, and writes nothing."""
    built = program(patched[design], design, "-DSTUB_NO_TRACEBUFFER")
    assert subprocess.run([built], capture_output=True, check=True).stdout == b""


def test_command_prints_the_files() -> None:
    for piece, name in NAMES.items():
        assert xtrace("tracepoints", piece).stdout == (TRACEPOINTS / name).read_text()


def test_command_prints_the_steps() -> None:
    said = xtrace("tracepoints").stdout
    assert all(f"xtrace tracepoints {piece} >" in said for piece in NAMES)
    assert said.endswith("\n")
    assert "##" not in said


def test_command_writes_all_files(tmp_path: Path) -> None:
    names = sorted([*NAMES.values(), "README.md"])
    assert names == sorted(path.name for path in TRACEPOINTS.iterdir())
    done = xtrace("tracepoints", "--output", str(tmp_path))
    assert done.returncode == 0
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert all((tmp_path / name).read_bytes() == (TRACEPOINTS / name).read_bytes() for name in names)
    assert "exists already; give --force" in failure("tracepoints", "-o", str(tmp_path), code=2)
    assert xtrace("tracepoints", "-o", str(tmp_path), "--force").returncode == 0
    assert "no such directory" in failure("tracepoints", "-o", str(tmp_path / "none"), code=2)
    assert "leave out" in failure("tracepoints", "legacy", "-o", str(tmp_path), code=2)

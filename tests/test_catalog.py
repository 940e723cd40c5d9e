"""The declarations against the catalog of every Xen trace event, tests/data/records.csv, row by row."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from construct import Array, Construct, FormatField, GreedyRange, Renamed, StreamError, Struct

from xtrace.parsers import smp, vectors
from xtrace.parsers.event import CLASSES, OPAQUE, Event
from xtrace.parsers.fields import Bits
from xtrace.parsers.pv import Packed
from xtrace.parsers.registry import EVENTS, Dialect, events_named, needs_first_word, resolve, variants

DATA = Path(__file__).parent / "data"

TYPES = {"B": "u8", "H": "u16", "L": "u32", "Q": "u64", "h": "i16", "l": "i32"}

LAST_RELEASE = 22


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


CATALOG = rows("records.csv")


def type_of(spec: Any) -> str:
    """The catalog's word for the type of a field."""
    match spec:
        case Bits():
            return "bits(" + ",".join(f"{name}:{low}-{high}" for name, (low, high) in spec.ranges.items()) + ")"
        case Array():
            inner = type_of(spec.subcon)
            return f"bytes{spec.count}" if inner == "u8" else f"{inner}[{spec.count}]"
        case GreedyRange():
            return f"{type_of(spec.subcon)}[n]"
        case FormatField():
            return TYPES[spec.fmtstr[1]]
    raise AssertionError(f"no catalog type for {spec!r}")


def layout(payload: Construct[Any, Any]) -> list[tuple[str, str, int]]:
    """Name, type and byte offset of every field of a payload."""
    assert isinstance(payload, Struct)
    fields, offset = [], 0
    for field in payload.subcons:
        assert isinstance(field, Renamed)
        assert field.name is not None
        fields.append((field.name, type_of(field.subcon), offset))
        offset += 0 if isinstance(field.subcon, GreedyRange) else field.sizeof()
    return fields


def declared_layout(fields: str) -> list[tuple[str, str, int]]:
    """The same, from a `fields` column: `name:type@offset; …`."""
    matches = (re.fullmatch(r"(\w+):(.+)@(\d+)", field) for field in fields.split("; ") if field)
    return [(m[1], m[2], int(m[3])) for m in matches if m]


def releases(versions: str) -> tuple[int, int | None]:
    """First and last release that a `versions` column names, the last None where master is among them."""
    found = [int(minor) for minor in re.findall(r"4\.(\d+)", versions.split("(", maxsplit=1)[0])]
    return min(found), None if "master" in versions else max(found)


def matching(row: dict[str, str]) -> list[Event]:
    first, _, last = row["event_id_hex"].partition("-")
    return [
        event
        for event in EVENTS
        if (event.event_id, event.last_id) == (int(first, 16), int(last or first, 16))
        and (event.name, event.variant) == (row["name"], row["variant"])
    ]


ROWS = pytest.mark.parametrize(
    "row", CATALOG, ids=[f"{row['event_id_hex']} {row['name']} {row['variant']}" for row in CATALOG]
)


def test_the_catalog_is_whole() -> None:
    assert len(CATALOG) == 278
    assert all(len(declared_layout(row["fields"])) == row["fields"].count("@") for row in CATALOG)


@ROWS
def test_each_row_is_declared_once(row: dict[str, str]) -> None:
    (event,) = matching(row)
    assert event.trace_class == row["class"]
    assert event.emitted == (not re.search("NEVER EMITTED|not reachable", row["versions"]))
    assert event.source == row["emitted_by"].replace("(none)", "")
    if row["timestamped"] != "n/a":
        assert event.timestamped == (row["timestamped"] == "yes")


@ROWS
def test_its_releases(row: dict[str, str]) -> None:
    (event,) = matching(row)
    assert (event.since, event.until) == releases(row["versions"])


@ROWS
def test_its_length(row: dict[str, str]) -> None:
    (event,) = matching(row)
    match row["words"]:
        case "n/a" | "0-7":
            assert event.words is None
        case "2 or 4":
            assert event.words == 4
        case words:
            assert event.words == int(words)


@ROWS
def test_its_fields(row: dict[str, str]) -> None:
    (event,) = matching(row)
    if row["words"] == "n/a":
        assert event.payload is OPAQUE
    elif row["fields"] == "stale:bytes@0":
        assert layout(event.payload) == [("stale", "u32[n]", 0)]
    else:
        assert layout(event.payload) == declared_layout(row["fields"])


@ROWS
def test_its_vendor(row: dict[str, str]) -> None:
    (event,) = matching(row)
    named = set(re.findall("vmx|svm", row["variant"].lower()))
    if "_SVM_" in row["name"]:
        named = {"svm"}
    assert event.vendor == (named.pop() if len(named) == 1 else None)


def test_nothing_else_is_declared() -> None:
    catalog = [event for row in CATALOG for event in matching(row)]
    others = [event for event in EVENTS if not any(event is known for known in catalog)]
    project = [event for event in others if event.trace_class == "HW"]
    assert project == list(smp.EVENTS)
    assert len(project) == 10
    assert [(event.event_id, event.variant) for event in others if event not in project] == [
        (0x020100D, "packed"),
        (0x020200E, "packed"),
    ]
    assert len(EVENTS) == len(CATALOG) + 12


def test_classes_come_in_order() -> None:
    seen = [event.trace_class for event in EVENTS]
    assert list(dict.fromkeys(seen)) == [
        "GEN",
        "SCHED",
        "DOM0OP",
        "HVM",
        "MEM",
        "PV",
        "SHADOW",
        "HW",
        "GUEST",
    ]


@pytest.mark.parametrize(
    ("event_id", "constants"),
    [
        (0x0021011, {"old_state": "running", "new_state": "runnable"}),
        (0x0021321, {"old_state": "offline", "new_state": "blocked"}),
        (0x040F001, {"paging_levels": 2}),
        (0x040F108, {"paging_levels": 3}),
        (0x040F20B, {"paging_levels": 4}),
        (0x0028004, {}),
    ],
)
def test_ids_carry_constants(event_id: int, constants: dict[str, str | int]) -> None:
    assert all(dict(event.constants) == constants for event in variants(event_id))


def test_one_layout_is_one_object() -> None:
    assert len({id(event.payload) for event in variants(0x002220C)}) == 1


# Which layout a record has.


@pytest.mark.parametrize(
    ("event_id", "words", "first_word", "dialect", "name", "variant"),
    [
        # Release alone tells.
        (0x010F005, 4, None, Dialect(release=17), "TRC_MEM_DECREASE_RESERVATION", "4.17"),
        (0x010F005, 4, None, Dialect(release=18), "TRC_MEM_DECREASE_RESERVATION", "since 4.18"),
        (0x010F005, 4, None, Dialect(), "TRC_MEM_DECREASE_RESERVATION", "since 4.18"),
        (0x010F010, 6, None, Dialect(release=17), "TRC_MEM_POD_POPULATE", "4.17"),
        (0x010F011, 6, None, Dialect(release=17), "TRC_MEM_POD_ZERO_RECLAIM", "4.17"),
        (0x010F012, 4, None, Dialect(release=17), "TRC_MEM_POD_SUPERPAGE_SPLINTER", "4.17"),
        (0x010F012, 4, None, Dialect(release=LAST_RELEASE), "TRC_MEM_POD_SUPERPAGE_SPLINTER", "since 4.18"),
        (0x0022803, 6, None, Dialect(release=17), "TRC_RTDS_BUDGET_BURN", "4.17"),
        # Exits: release, then vendor.
        (
            0x0081102,
            3,
            None,
            Dialect("svm", 17),
            "TRC_HVM_VMEXIT64",
            "4.17-4.18, VMX and SVM, guest in long mode",
        ),
        (
            0x0081102,
            3,
            None,
            Dialect("vmx", 17),
            "TRC_HVM_VMEXIT64",
            "4.17-4.18, VMX and SVM, guest in long mode",
        ),
        (
            0x0081102,
            3,
            None,
            Dialect("vmx", 20),
            "TRC_HVM_VMX_EXIT64",
            "since 4.19, VMX only, guest in long mode",
        ),
        (0x0081002, 2, None, Dialect(), "TRC_HVM_VMX_EXIT", "since 4.19, VMX only, guest not in long mode"),
        (0x0081103, 3, None, Dialect(), "TRC_HVM_SVM_EXIT64", "since 4.19, guest in long mode"),
        # A trace whose release is unknown but whose vendor is AMD cannot hold VMX exits.
        (
            0x0081102,
            3,
            None,
            Dialect("svm"),
            "TRC_HVM_VMEXIT64",
            "4.17-4.18, VMX and SVM, guest in long mode",
        ),
        # Length or vendor.
        (0x008200F, 1, None, Dialect(), "TRC_HVM_INTR", "vmx"),
        (0x008200F, 0, None, Dialect(), "TRC_HVM_INTR", "svm"),
        (0x008200F, 0, None, Dialect("vmx"), "TRC_HVM_INTR", "svm"),
        (0x0082021, 6, None, Dialect("svm"), "TRC_HVM_NPF", "svm (NPT)"),
        (0x0082021, 6, None, Dialect("vmx"), "TRC_HVM_NPF", "vmx (EPT)"),
        (0x0082117, 4, None, Dialect(), "TRC_HVM_IOMEM_READ", "gpa >= 4 GiB (TRC_64_FLAG), data inline"),
        (
            0x0082117,
            2,
            None,
            Dialect(),
            "TRC_HVM_IOMEM_READ",
            "gpa >= 4 GiB (TRC_64_FLAG), data in guest memory",
        ),
        (
            0x040F009,
            2,
            None,
            Dialect(),
            "TRC_SHADOW_EMULATE_UNSHADOW_USER",
            "2-level guest (no flag), 4.17-4.18",
        ),
        (
            0x040F009,
            3,
            None,
            Dialect(),
            "TRC_SHADOW_EMULATE_UNSHADOW_USER",
            "2-level guest (no flag), since 4.19",
        ),
        # The first word of hypercalls.
        (0x020100D, 1, 14, Dialect(), "TRC_PV_HYPERCALL_V2", "other ops"),
        (0x020100D, 2, 1 << 22 | 1, Dialect(), "TRC_PV_HYPERCALL_V2", "op 1 mmu_update"),
        (0x020200E, 2, 1 << 22 | 26, Dialect(), "TRC_PV_HYPERCALL_SUBCALL", "op 26 mmuext_op"),
        (0x020100D, 3, 1 << 24 | 1 << 20 | 20, Dialect(), "TRC_PV_HYPERCALL_V2", "op 20 grant_table_op"),
        (0x020100D, 3, 1 << 22 | 1 << 20 | 24, Dialect(), "TRC_PV_HYPERCALL_V2", "op 24 vcpu_op"),
        (0x020100D, 2, 1 << 20 | 29, Dialect(), "TRC_PV_HYPERCALL_V2", "op 29 sched_op"),
        (0x020100D, 2, 2 << 20 | 29, Dialect(), "TRC_PV_HYPERCALL_V2", "packed"),
        (0x020100D, 1, 1 << 22 | 1, Dialect(), "TRC_PV_HYPERCALL_V2", "packed"),
        (0x020100D, 2, None, Dialect(), "TRC_PV_HYPERCALL_V2", "packed"),
        (0x020100D, 0, None, Dialect(), "TRC_PV_HYPERCALL_V2", "packed"),
        # Declared, never emitted, any length.
        (0x0028008, 3, None, Dialect(), "TRC_SCHED_CTL", "n/a"),
    ],
)
def test_a_record_finds_its_layout(
    event_id: int, words: int, first_word: int | None, dialect: Dialect, name: str, variant: str
) -> None:
    event = resolve(event_id, words, True, first_word, dialect)
    assert (event.name, event.variant) == (name, variant)


def test_the_cycle_count_tells_fillers_apart() -> None:
    assert resolve(0x001F002, 6, True).variant == "filler, with cycles"
    assert resolve(0x001F002, 6, False).variant == "filler, no cycles"
    assert resolve(0x001F002, 3, True).variant == "filler, no cycles"


@pytest.mark.parametrize(
    ("event_id", "words", "name"),
    [
        (0x0028004, 3, "TRC_SCHED_WAKE_3W"),
        (0x0082116, 2, "TRC_HVM_IOPORT_READ_2W"),
        (0x0804006, 1, "TRC_UNKNOWN_0x0804006"),
        (0x0000000, 0, "TRC_UNKNOWN_0x0000000"),
        (0xFFFFFFF, 7, "TRC_UNKNOWN_0xfffffff"),
        (0x800F000, 0, "TRC_GUEST_0x000"),
        (0x800FABC, 7, "TRC_GUEST_0xabc"),
        (0x800E000, 1, "TRC_UNKNOWN_0x800e000"),
    ],
)
def test_undeclared_records_are_opaque(event_id: int, words: int, name: str) -> None:
    for timestamped in (True, False):
        event = resolve(event_id, words, timestamped)
        assert (event.name, event.event_id, event.last_id) == (name, event_id, event_id)
        assert event.payload is OPAQUE


@ROWS
def test_every_emitted_row_can_be_resolved_to(row: dict[str, str]) -> None:
    (event,) = matching(row)
    words = 7 if event.words is None else event.words
    first_word = event.first_word[1] if event.first_word else None
    found = resolve(
        event.event_id,
        words,
        event.timestamped,
        first_word,
        Dialect(event.vendor, event.until or event.since),
    )
    if event.last_id != event.event_id:
        assert found.event_id == event.event_id
    elif row["variant"] == "mwait driver":
        # Nothing in a record tells the two idle drivers apart: acpi's is the answer.
        assert found.variant == "acpi driver"
    else:
        assert found is event


def test_what_needs_the_first_word() -> None:
    assert {
        (event.event_id, words) for event in EVENTS for words in range(8) if needs_first_word(event.event_id, words)
    } == {(event_id, words) for event_id in (0x020100D, 0x020200E) for words in (1, 2, 3)}


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("TRC_SCHED_WAKE", 1),
        ("sched_wake", 1),
        ("Sched_Runstate_Change", 12),
        ("smp_call_*", 5),
        ("0x0028004", 1),
        ("163844", 1),
        ("0x800f123", 1),
        ("0x1", 0),
        ("no_such_event", 0),
        ("", 0),
        ("*", len(EVENTS)),
    ],
)
def test_events_by_name(pattern: str, count: int) -> None:
    assert len(events_named(pattern)) == count


@pytest.mark.parametrize("trace_class", CLASSES.values())
def test_events_by_class(trace_class: str) -> None:
    assert events_named(trace_class.lower()) == [e for e in EVENTS if e.trace_class == trace_class]


# The fallback for hypercalls.


@pytest.mark.parametrize(
    ("words", "arguments", "rest"),
    [
        ([12], {}, []),
        ([1 << 20 | 1 << 24 | 20, 5, 7], {"arg0": 5, "arg2": 7}, []),
        ([2 << 30 | 35, 0x89ABCDEF, 0x01234567], {"arg5": 0x0123456789ABCDEF}, []),
        ([3 << 22 | 35, 9], {}, [9]),
        ([1 << 22 | 1], {}, []),
        ([2 << 22 | 1, 4], {}, [4]),
    ],
    ids=["none", "two words", "a long one", "reserved", "cut off", "cut in half"],
)
def test_any_packing(words: list[int], arguments: dict[str, int], rest: list[int]) -> None:
    data = b"".join(word.to_bytes(4, "little") for word in words)
    parsed = Packed.parse(data)
    assert parsed.op_word.op == words[0] & 0xFFFFF
    assert {name: parsed[name] for name in (f"arg{i}" for i in range(6)) if parsed[name] is not None} == arguments
    assert list(parsed.rest) == rest
    assert Packed.build(parsed) == data


def test_packing_from_plain_values() -> None:
    assert (
        Packed.build({"op_word": {"op": 20, "A0": 1}, "arg0": 5}) == (1 << 20 | 20).to_bytes(4, "little") + b"\5\0\0\0"
    )


def test_a_hypercall_without_op_word() -> None:
    with pytest.raises(StreamError):
        Packed.parse(b"")


# Names of numbers.


def test_exit_reasons() -> None:
    for vendor, names in (("vmx", vectors.VMX_EXIT_REASONS), ("svm", vectors.SVM_EXIT_CODES)):
        catalog = {
            int(row["code"]): row["name"]
            for row in rows("exit-reasons.csv")
            if row["vendor"] == vendor and row["code"].isdigit()
        }
        assert names == catalog


def test_exit_flags() -> None:
    catalog = {
        int(row["code_hex"], 16): row["name"].removeprefix("flag: ")
        for row in rows("exit-reasons.csv")
        if row["code"].startswith("bit")
    }
    assert catalog == vectors.VMX_EXIT_FLAGS


def test_hypercalls() -> None:
    tables = {
        "hypercall": vectors.HYPERCALLS,
        "grant_table_op": vectors.GRANT_TABLE_OPS,
        "sched_op": vectors.SCHED_OPS,
        "vcpu_op": vectors.VCPU_OPS,
        "mmuext_op": vectors.MMUEXT_OPS,
    }
    catalog = rows("hypercalls.csv")
    assert {row["kind"] for row in catalog} == set(tables)
    for kind, names in tables.items():
        assert names == {
            int(row["number"]): row["name"].split(" (")[0]
            for row in catalog
            if row["kind"] == kind and row["name"] != "(hole)"
        }
    assert {vectors.HYPERCALLS[op]: names for op, names in vectors.COMMANDS.items()} == {
        kind: names for kind, names in tables.items() if kind != "hypercall"
    }


def test_names_are_unique() -> None:
    for names in (
        vectors.LEGACY_VECTORS,
        vectors.VMX_EXIT_REASONS,
        vectors.SVM_EXIT_CODES,
        vectors.HYPERCALLS,
        vectors.FLUSH_FLAGS,
    ):
        assert max(Counter(names.values()).values()) == 1


def test_lockless_has_no_flush_vector() -> None:
    assert vectors.vector_name(0xFD, "legacy") == "INVALIDATE_TLB"
    assert vectors.vector_name(0xFD, "lockless") == "VECTOR_0xfd"
    assert vectors.vector_name(0xFB, "lockless") == "CALL_FUNCTION"


@pytest.mark.parametrize(
    ("vector", "name"),
    [
        (0x0E, "EXCEPTION_0x0e"),
        (0x21, "LEGACY_PIC_0x21"),
        (0x45, "DYNAMIC_0x45"),
        (0xF1, "HIPRIORITY_0xf1"),
        (0xFA, "LOCAL_TIMER"),
        (0x100, "VECTOR_0x100"),
    ],
)
def test_vector_names(vector: int, name: str) -> None:
    assert vectors.vector_name(vector, "legacy") == name


def test_exit_names() -> None:
    assert vectors.exit_name(1, "vmx") == "EXTERNAL_INTERRUPT"
    assert vectors.exit_name(0x80000021, "vmx") == "INVALID_GUEST_STATE+FAILED_VMENTRY"
    assert vectors.exit_name(35, "vmx") == "EXIT_0x23"
    assert vectors.exit_name(0x60, "svm") == "VMEXIT_INTR"
    assert vectors.exit_name(0xFFFFFFFF, "svm") == "VMEXIT_INVALID"
    assert vectors.exit_name(0x123, "svm") == "VMEXIT_0x123"
    assert vectors.exit_name(0x60, None) == "EXIT_0x60"


def test_hypercall_names() -> None:
    assert vectors.hypercall_name(26) == "mmuext_op"
    assert vectors.hypercall_name(11) == "hypercall_11"

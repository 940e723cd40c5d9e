"""Small captures and tables as text, for golden tests: a trace, a question and its answer, all in the test.

A capture is one record a line, `100 cpu0 CALL_START seq=1 func=0x10 n_cpus=2`: cycles (`-` for a record without),
CPU, event, fields; a field not named is 0. Names may lack their prefix. A line of `---` begins another round of
windows: the records of each CPU in a round stand together in the file, whatever the order of the lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent
from typing import Any, Final

import numpy as np
import pyarrow as pa
from construct import Array
from strategies import Record, Window, build_capture

from xtrace.parsers.event import Event
from xtrace.parsers.fields import Bits, u32
from xtrace.parsers.registry import EVENTS

ZERO_CYCLES: Final = 1 << 40
"""The cycle count of time 0 in a capture: hypervisors do not start to trace at the first cycle."""

PREFIXES: Final = ("", "TRC_", "SMP_", "TLB_", "TRC_SCHED_", "TRC_HVM_", "TRC_TRACE_")


def capture(text: str) -> bytes:
    """The file that a text describes."""
    windows: list[Window] = []
    for part in dedent(text).split("---"):
        streams: dict[int, list[Record]] = {}
        for line in filter(None, map(str.strip, part.splitlines())):
            when, cpu, name, *fields = line.split()
            tsc = None if when == "-" else ZERO_CYCLES + int(when)
            values = dict(field.split("=") for field in fields)
            streams.setdefault(int(cpu.removeprefix("cpu")), []).append(record(name, values, tsc))
        windows += [Window(cpu, tuple(records)) for cpu, records in sorted(streams.items())]
    return build_capture(windows)


def record(name: str, fields: Mapping[str, str], tsc: int | None) -> Record:
    """One record; fields that the event has as constants choose among events of the same name."""
    event = _event(name, fields)
    values = {key: _number(key, text) for key, text in fields.items() if key not in event.constants and key != "vendor"}
    payload = event.payload.build(_nested(event, values))
    assert not values, f"{name} has no {', '.join(values)}"
    return Record(event.event_id, tuple(Array(len(payload) // 4, u32).parse(payload)), tsc)


def _event(name: str, fields: Mapping[str, str]) -> Event:
    for event in EVENTS:
        chosen = all(fields.get(key, str(value)) == str(value) for key, value in event.constants.items())
        vendor = fields.get("vendor", event.vendor) == event.vendor
        if event.name in {prefix + name for prefix in PREFIXES} and chosen and vendor:
            return event
    raise AssertionError(f"no event {name}")


def _number(name: str, text: str) -> int:
    """A field's value; a mask may be given as the CPUs in it, and a time as one of this capture."""
    if name == "mask" and not text.startswith("0x"):
        return sum(1 << int(cpu) for cpu in text.split(","))
    return int(text, 0) + (ZERO_CYCLES if name == "first_tsc" else 0)


def _nested(event: Event, values: dict[str, int]) -> dict[str, Any]:
    """The values as the event's Construct wants them; takes out of `values` those that it uses."""
    found: dict[str, Any] = {}
    for named in getattr(event.payload, "subcons", ()):
        if isinstance(named.subcon, Bits):
            found[named.name] = {part: values.pop(part, 0) for part in named.subcon.ranges}
        elif isinstance(named.subcon, Array):
            found[named.name] = [0] * int(named.subcon.count)  # type: ignore[arg-type]
        else:
            found[named.name] = values.pop(str(named.name), 0)
    return found


def table(rows: pa.Table, head: str) -> str:
    """Columns of a table as aligned text: `-` for null, yes and no, lists with commas."""
    names = head.split()
    cells = [names, *([_cell(row[name]) for name in names] for row in rows.select(names).to_pylist())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "()"
    return str(value)


def same(answer: str, rows: pa.Table) -> None:
    """The table holds what the answer says, in the columns that its first line names."""
    lines = dedent(answer).strip().splitlines()
    expected = [line.split() for line in lines]
    found = table(rows, lines[0])
    assert [line.split() for line in found.splitlines()] == expected, f"found\n{found}"

"""What docs/capture.md says of event masks: what each lets through, how much that is, what xtrace can tell of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from conftest import SAMPLES, Sample

import xtrace
from xtrace.words import RECORD_WORDS

PAGE: Final = SAMPLES.parent / "docs" / "capture.md"
ALL: Final = 0x0FFF_F000
CONTAINER: Final = 1
"""The class of records that no mask keeps out."""


def lets_through(mask: int, event: int) -> bool:
    """Whether Xen writes an event: the class and the subclass are asked for, each by itself."""
    return bool(mask >> 16 & event >> 16) and bool(mask >> 12 & event >> 12 & 0xF)


def volumes() -> list[tuple[int, str, str]]:
    """Mask, sample and figure of each cell of the page's table."""
    _, _, text = PAGE.read_text().partition("The volume of the [sample traces]")
    head, _, *rows = re.findall(r"(?m)^\|(.*)\|$", text.partition("\n\n`dom0-stock`")[0])
    names = [cell.strip(" `") for cell in head.split("|")][1:]
    cells = [[cell.strip(" `") for cell in row.split("|")] for row in rows]
    return [
        (ALL if mask == "all" else int(mask, 16), name, figure)
        for mask, *figures in cells
        for name, figure in zip(names, figures, strict=True)
    ]


def test_volume_is_that_of_the_samples(sample: Sample) -> None:
    found = volumes()
    assert len(found) == 36
    for name in {name for _, name, _ in found}:
        with xtrace.open(sample(name), cpu_hz=2_596_100_000 if name == "bench-legacy" else None) as trace:
            cpu_seconds = trace.info["trace"]["duration_ns"] / 1e9 * len(trace.info["cpus"])
            counts = trace.survey.counts
        for mask, _, figure in (cell for cell in found if cell[1] == name and cell[2] != "–"):
            passing = {
                header: count for header, count in counts.items() if mask == ALL or lets_through(mask, header & ALL)
            }
            size = sum(count * 4 * int(RECORD_WORDS[header >> 28]) for header, count in passing.items())
            assert figure == f"{size / cpu_seconds / 1024:.1f}", (name, hex(mask))


def masked(data: bytes, mask: int) -> bytes:
    """A trace as it had been written with another mask."""
    words = np.frombuffer(data, "<u4")
    values = words.tolist()
    kept: list[Any] = []
    place = 0
    while place < len(values):
        cpu, size = values[place + 1 : place + 3]
        place, end = place + 3, place + 3 + size // 4
        parts = []
        while place < end:
            header = values[place]
            length = int(RECORD_WORDS[header >> 28])
            if header >> 16 & 0xFFF == CONTAINER or lets_through(mask, header & 0xFFF_FFFF):
                parts.append(words[place : place + length])
            place += length
        kept += [np.array([0x2001_F003, cpu, 4 * sum(map(len, parts))], "<u4"), *parts]
    return b"".join(part.tobytes() for part in kept)


@pytest.fixture(scope="module")
def migration(sample: Sample) -> dict[str, Any]:
    """The bytes of a whole trace, and what xtrace makes of it."""
    path = sample("migrate-legacy")
    with xtrace.open(path) as trace:
        tables = {"episodes": trace.table_episodes(), "deliveries": trace.table_deliveries()}
        return {"data": path.read_bytes(), "hz": trace.clock.hz, **tables}


@pytest.mark.parametrize("mask", [0x0080_4000, 0x0082_D000, 0x008A_D000])
def test_what_a_mask_is_enough_for(mask: int, migration: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "trace.bin"
    path.write_bytes(masked(migration["data"], mask))
    scheduler, guests = mask >= 0x0082_D000, mask == 0x008A_D000
    with xtrace.open(path) as trace:
        assert trace.clock.source == ("trace" if scheduler else "default")
        assert not scheduler or trace.clock.hz == migration["hz"]
    with xtrace.open(path, cpu_hz=migration["hz"]) as trace:
        found = {"episodes": trace.table_episodes(), "deliveries": trace.table_deliveries()}
        for name, begins in (("episodes", "start_ns"), ("deliveries", "enter_ns")):
            for column in ("domain", "vcpu"):
                same = found[name][column].equals(migration[name][column])
                assert same == scheduler, (name, column)
            for column in found[name].column_names:
                if column.endswith("_ns") and column not in {begins, "start_ns", "send_ns", "done_ns", "exit_ns"}:
                    assert near(found[name][column], migration[name][column]), column
        states = set(found["deliveries"]["state"].to_pylist())
        assert ("idle" in states) == scheduler
        assert ("guest" in states) == guests
        assert found["deliveries"]["state"].equals(migration["deliveries"]["state"]) == guests


def near(found: Any, expected: Any) -> bool:
    """Whether spans are the same; the zero of the clock is another, which moves roundings by a nanosecond."""
    if found.null_count != expected.null_count:
        return False
    difference = found.drop_null().to_numpy() - expected.drop_null().to_numpy()
    return bool((np.abs(difference) <= 1).all())

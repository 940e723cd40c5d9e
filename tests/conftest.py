"""Fixtures of the whole suite: the real traces of sample_traces/, uncompressed."""

from __future__ import annotations

import lzma
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from captures import capture
from damage import SMALL, Damaged
from hypothesis import HealthCheck, settings

import xtrace
from xtrace import scan
from xtrace.trace import Trace

SAMPLES: Final = Path(__file__).parent.parent / "sample_traces"

RECORDS: Final = {
    "dom0-stock": 4_700,
    "migrate-stock": 196_024,
    "migrate-legacy": 735_058,
    "migrate-lockless": 650_472,
    "bench-legacy": 10_314,
    "bench-lockless": 14_808,
    "bench8-legacy": 10_477,
    "bench8-lockless": 10_462,
    "vmx-legacy": 9_807,
}
"""Records of each sample, window headers included, as an independent decoder counted them."""

# Sharing one machine with other work makes single examples slow at times; that is no failure.
# Examples are drawn anew each time, but not where one change is judged: there they are always the same.
settings.register_profile(
    "xtrace",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("xtrace")

Sample = Callable[[str], Path]
"""The path of a sample trace by its name without suffixes."""

Opened = Callable[[str], Trace]
"""A trace from its text (see captures.py); a cycle is a nanosecond there."""


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Paths of uncompressed samples; those kept as .xz are decompressed once, for all workers together."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "samples"
    folder.mkdir(exist_ok=True)

    def path_of(name: str) -> Path:
        plain = SAMPLES / f"{name}.bin"
        if plain.exists():
            return plain
        copy = folder / plain.name
        if not copy.exists():
            # Workers may do this at the same time: each its own file, and whoever is last wins whole.
            part = copy.with_suffix(f".{os.getpid()}")
            with lzma.open(SAMPLES / f"{name}.bin.xz") as packed, part.open("wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
            part.replace(copy)
        return copy

    return path_of


@pytest.fixture(params=RECORDS)
def trace_name(request: pytest.FixtureRequest) -> str:
    """Each sample trace in turn, by name."""
    return str(request.param)


@pytest.fixture
def trace(trace_name: str, sample: Sample) -> Path:
    """The path of each sample trace in turn, uncompressed."""
    return sample(trace_name)


@pytest.fixture
def expected_records(trace_name: str) -> int:
    """How many records `trace` holds."""
    return RECORDS[trace_name]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to write and write again, where a test has many examples."""
    return tmp_path_factory.mktemp("scratch") / "trace.bin"


@pytest.fixture(scope="module", params=SMALL)
def damaged(request: pytest.FixtureRequest, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """Small sample traces in turn, to be harmed."""
    return Damaged(sample(request.param).read_bytes(), tmp_path_factory.mktemp("damage") / "trace.bin")


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Writes and opens a small capture."""

    def open_text(text: str) -> Trace:
        path = tmp_path / "trace.bin"
        path.write_bytes(capture(text))
        return xtrace.open(path, cpu_hz=10**9)

    return open_text


@pytest.fixture(autouse=True)
def _numpy_engine() -> Iterator[None]:
    """Every test begins and ends with the engine that needs no extra."""
    scan.use_fast(False)
    yield
    scan.use_fast(False)

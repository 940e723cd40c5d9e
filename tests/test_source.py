"""Where bytes come from changes nothing; nor does how many work on them, or with which engine."""

from __future__ import annotations

import gzip
import lzma
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import Sample

from xtrace import digest, framing, reader, scan, survey
from xtrace.digest import interest
from xtrace.errors import InputError
from xtrace.parsers.container import CPU_CHANGE_HEADER
from xtrace.parsers.smp import CALL_SEND
from xtrace.reader import Reader
from xtrace.source import Source
from xtrace.survey import Survey

SEND = CALL_SEND | 5 << 28 | 1 << 31
RUNSTATES = [0x21101 | 1 << 28 | 1 << 31, 0x21011 | 1 << 28 | 1 << 31]
INTEREST = interest(kept=[SEND, *RUNSTATES])


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


def xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=1)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "xz": xz, "zst": zstd}


def facts(found: Survey) -> dict[str, Any]:
    """All that a survey tells, but the name of the file."""
    return {
        "counts": dict(found.counts),
        "cpus": {cpu: (totals.windows, totals.size_bytes) for cpu, totals in found.cpus.items()},
        "captures": found.captures,
        "times": (found.zero_tsc, found.last_tsc),
        "bytes": (found.total_bytes, found.record_bytes, found.skipped_bytes),
        "skips": found.skips,
        "records": {header: [column.tolist() for column in found.records(header)] for header in (SEND, *RUNSTATES)},
    }


def look(path: str | Path, workers: int = 1) -> dict[str, Any]:
    with_reader = Reader(path, workers=workers)
    try:
        return facts(survey.survey(with_reader, INTEREST))
    finally:
        with_reader.close()


@contextmanager
def written_to(pipe: Path, *parts: bytes) -> Iterator[None]:
    """Someone writes these parts into a pipe, with a pause between them."""

    def write() -> None:
        with pipe.open("wb", buffering=0) as out:
            for part in parts:
                out.write(part)
                time.sleep(0.05)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("name", ["dom0-stock", "bench-lockless"])
def test_compressed(sample: Sample, tmp_path: Path, kind: str, name: str) -> None:
    """One stream, or several behind each other, as `gzip -c a b` or parallel compressors write."""
    plain = sample(name)
    data, expected = plain.read_bytes(), look(plain)
    compress, path = COMPRESSORS[kind], tmp_path / f"trace.{kind}"
    path.write_bytes(compress(data))
    assert look(path) == expected
    cut = len(data) // 3 + 1
    path.write_bytes(compress(data[:cut]) + compress(data[cut : 2 * cut]) + compress(data[2 * cut :]))
    assert look(path) == expected
    # The name tells nothing.
    assert look(path.rename(tmp_path / "trace.bin")) == expected


@pytest.mark.parametrize("kind", ["plain", *COMPRESSORS])
@pytest.mark.parametrize("first", [0, 1, 5, 100])
def test_pipe(sample: Sample, pipe: Path, kind: str, first: int) -> None:
    """Even one that gives its first bytes singly."""
    plain = sample("bench-legacy")
    data = COMPRESSORS.get(kind, bytes)(plain.read_bytes())
    with written_to(pipe, *([data[:first]] * bool(first)), data[first:]):
        assert look(pipe) == look(plain)


def test_standard_input(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = sample("bench-legacy")
    with plain.open("rb") as opened:
        monkeypatch.setattr(sys, "stdin", opened)
        assert look("-") == look(plain)


def test_spooled_pipe_is_read_twice(sample: Sample, pipe: Path) -> None:
    plain = sample("bench-legacy")
    once = Reader(pipe)
    before = once.rereadable
    with written_to(pipe, plain.read_bytes()):
        once.spool()
    assert (before, once.rereadable) == (False, True)
    for _ in range(2):
        assert facts(survey.survey(once, INTEREST)) == look(plain)
    once.close()


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_compressed_stream_that_breaks_off(sample: Sample, tmp_path: Path, kind: str, kept: float) -> None:
    """What could be unpacked is decoded, and the break is told."""
    data = sample("migrate-stock").read_bytes()
    packed = COMPRESSORS[kind](data)
    path = tmp_path / "cut"
    path.write_bytes(packed[: int(len(packed) * kept)])
    found = look(path)
    total, records, skipped = found["bytes"]
    assert records + skipped == total
    assert 0.8 * kept * len(data) < total < len(data)
    assert skipped < 40
    assert "ends early" in found["skips"][-1].reason


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed_stream_that_hardly_begins(sample: Sample, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cut"
    path.write_bytes(COMPRESSORS[kind](sample("bench-legacy").read_bytes())[:10])
    with pytest.raises(InputError, match=r"the (gz|xz|zst) stream ends early"):
        look(path)


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed_stream_with_a_broken_middle(sample: Sample, tmp_path: Path, kind: str) -> None:
    packed = bytearray(COMPRESSORS[kind](sample("migrate-stock").read_bytes()))
    middle = len(packed) // 2
    packed[middle : middle + 64] = bytes(64)
    path = tmp_path / "broken"
    path.write_bytes(packed)
    found = look(path)
    total, records, skipped = found["bytes"]
    assert records + skipped == total


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "nothing"
    path.write_bytes(COMPRESSORS[kind](b""))
    with pytest.raises(InputError, match="empty"):
        look(path)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened: No such file"):
        look(tmp_path / "absent")
    with pytest.raises(InputError, match="is a directory"):
        look(tmp_path)


def test_source_counts_bytes_on_disk(sample: Sample) -> None:
    plain = sample("bench-legacy")
    with Source(plain) as source:
        assert source.total_bytes == plain.stat().st_size
        room = memoryview(bytearray(1000))
        assert source.read_into(room) == 1000
        assert room == plain.read_bytes()[:1000]
        assert source.position() == 1000


def damaged(data: bytes) -> bytes:
    """Three places broken: a zeroed block, two bytes missing, a wrong window size."""
    header = CPU_CHANGE_HEADER.to_bytes(4, "little")
    late = data.index(header, len(data) * 3 // 4)
    data = data[: late + 8] + b"\xf0\xff\xff\xff" + data[late + 12 :]
    data = data[: len(data) // 2] + data[len(data) // 2 + 2 :]
    return data[:20_000] + bytes(4096) + data[24_096:]


@pytest.mark.parametrize("state", ["intact", "damaged"])
@pytest.mark.parametrize("fast", [False, True])
def test_workers(monkeypatch: pytest.MonkeyPatch, sample: Sample, tmp_path: Path, state: str, fast: bool) -> None:
    """Processes under NumPy and threads under Numba see what one alone sees."""
    path = sample("migrate-stock" if state == "intact" else "bench-lockless")
    if state == "damaged":
        data = damaged(path.read_bytes())
        path = tmp_path / "trace"
        path.write_bytes(data)
    alone = look(path)
    assert bool(alone["skips"]) == (state == "damaged")
    monkeypatch.setattr(reader, "FAST_FROM_BYTES", 0)
    monkeypatch.setattr(framing, "BLOCK_BYTES", 50_000)
    if not fast:
        monkeypatch.setattr(scan, "use_fast", lambda _: False)
    assert look(path, workers=2) == alone
    assert scan.engine() == ("numba" if fast else "numpy")


def test_engines_agree_on_a_whole_trace(monkeypatch: pytest.MonkeyPatch, trace: Path, expected_records: int) -> None:
    alone = look(trace)
    assert sum(alone["counts"].values()) == expected_records
    monkeypatch.setattr(reader, "FAST_FROM_BYTES", 0)
    assert look(trace) == alone
    assert scan.engine() == "numba"
    assert np.all(np.array(alone["bytes"]) >= 0)


@pytest.mark.parametrize("seed", range(60))
def test_threads_on_any_damage(monkeypatch: pytest.MonkeyPatch, sample: Sample, seed: int, scratch: Path) -> None:
    """Stretches that workers framed by themselves are joined as one who reads in order frames them."""
    chance = random.Random(seed)
    data = sample("bench-lockless").read_bytes()[: 400 << 10]
    for _ in range(seed % 4):
        at = chance.randrange(len(data))
        patch = chance.choice([b"", bytes(64), b"\xff" * 4096, data[:300], chance.randbytes(5)])
        data = data[:at] + patch + data[at + chance.choice([0, len(patch), 4, 5000]) :]
    scratch.write_bytes(data)
    alone = look(scratch)
    monkeypatch.setattr(reader, "FAST_FROM_BYTES", 0)
    monkeypatch.setattr(framing, "BLOCK_BYTES", 20_000)
    assert look(scratch, workers=2) == alone


@pytest.mark.parametrize("sampled", [0, 1 << 20, 128 << 20])
def test_sampled_at_the_beginning(monkeypatch: pytest.MonkeyPatch, sample: Sample, sampled: int) -> None:
    """What is sampled comes from the first bytes; what is kept, from everywhere."""
    monkeypatch.setattr(framing, "BLOCK_BYTES", 100_000)
    monkeypatch.setattr(framing, "CHUNK_BYTES", 100_000)
    path = sample("migrate-stock")
    wanted = interest(kept=[RUNSTATES[0]], sampled={RUNSTATES[1]: 40})
    whole = survey.survey(Reader(path), wanted)
    monkeypatch.setattr(digest, "SAMPLED_BYTES", sampled)
    found = survey.survey(Reader(path), wanted)
    assert len(found.records(RUNSTATES[0]).tsc) == found.counts[RUNSTATES[0]]
    blocks = len([block for block in Reader(path).blocks() if block.offset < sampled])
    assert blocks > 10 or sampled < 1 << 22
    few = len(found.records(RUNSTATES[1]).tsc)
    assert (few > 0) == (sampled > 0)
    assert few <= min(40 * blocks, len(whole.records(RUNSTATES[1]).tsc))

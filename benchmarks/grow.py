"""Grow a real trace to any size: the same records again and again, time going on.

    python benchmarks/grow.py sample_traces/dom0-stock.bin /tmp/big.bin --bytes 1G

Each copy is the whole trace with its time stamps (and LOST_RECORDS.first_tsc) moved behind the copy before it, and the
counters of calls and flushes (`seq`) moved on, as they would be in a longer capture. Everything else is as it was.
"""

from __future__ import annotations

import argparse
import lzma
from pathlib import Path
from typing import Final

import numpy as np

from xtrace.context import LOST, header_of
from xtrace.parsers import smp
from xtrace.scan import record_starts

UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
GAP_CYCLES: Final = 1_000_000
SEQ_STEP: Final = 1 << 14
"""Above the number of calls that any CPU makes in a sample."""

SEQ_WORD: Final = {
    header_of(event): 1 if event.event_id in {smp.CALL_ENTER, smp.CALL_EXIT, smp.FLUSH_ENTER, smp.FLUSH_EXIT} else 0
    for event in smp.EVENTS
}
"""Which payload word of an SMP record is `seq`."""


def grow(source: Path, target: Path, size: int) -> int:
    """Write whole copies of `source` until `target` has at least `size` bytes; returns its size."""
    data = lzma.decompress(source.read_bytes()) if source.suffix == ".xz" else source.read_bytes()
    words = np.frombuffer(data, "<u4").copy()
    starts = record_starts(words)
    headers = words[starts]
    stamps = starts[headers >> np.uint32(31) != 0] + 1
    lost = starts[headers == LOST] + 5
    times = np.concatenate((stamps, lost))
    tsc = words[times].astype(np.uint64) | words[times + 1].astype(np.uint64) << np.uint64(32)
    span = np.uint64(int(tsc.max()) - int(tsc.min()) + GAP_CYCLES)
    seqs = np.concatenate([starts[headers == header] + 3 + word for header, word in SEQ_WORD.items()])
    with target.open("wb") as out:
        while out.tell() < size:
            out.write(words.tobytes())
            tsc += span
            words[times] = tsc.astype(np.uint32)
            words[times + 1] = (tsc >> np.uint64(32)).astype(np.uint32)
            words[seqs] += np.uint32(SEQ_STEP)
        return out.tell()


def parse_size(text: str) -> int:
    """`1G`, `64M` or plain bytes."""
    return int(text.rstrip("KMG")) * UNITS.get(text[-1:], 1)


def main() -> None:
    """Grow a trace from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path, help="a trace, plain or .xz")
    parser.add_argument("target", type=Path)
    parser.add_argument("--bytes", type=parse_size, default=1 << 30, help="1G, 64M or plain bytes; default 1G")
    options = parser.parse_args()
    print(f"{options.target}: {grow(options.source, options.target, options.bytes)} bytes")


if __name__ == "__main__":
    main()

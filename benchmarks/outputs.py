"""How long `xtrace dataset` and `xtrace export --perfetto` take, and how much memory, against `xenalyze -a`.

    python benchmarks/outputs.py [--bytes 256M] [--runs 3]

As benchmarks/decode.py. All three look at every record; xenalyze prints a line of text for most of them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from decode import SAMPLES, XTRACE, compare, need_xenalyze
from grow import grow, parse_size


def main() -> None:
    """Grow a trace in a temporary folder, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bytes", type=parse_size, default=1 << 28, help="size of the grown trace; default 256M")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    need_xenalyze()
    with tempfile.TemporaryDirectory() as folder:
        trace, data, timeline = (str(Path(folder) / name) for name in ("grown.bin", "data", "grown.perfetto-trace"))
        grow(SAMPLES / "migrate-legacy.bin.xz", Path(trace), options.bytes)
        commands = {
            "xenalyze -a --svm-mode --tolerance=6": ["xenalyze", "-a", "--svm-mode", "--tolerance=6", trace],
            "xtrace dataset": [*XTRACE, "dataset", trace, "-o", data],
            "xtrace export --perfetto": [*XTRACE, "export", "--perfetto", timeline, trace, "--force"],
            "xtrace analyze": [*XTRACE, "analyze", trace],
            "xtrace analyze, of the dataset": [*XTRACE, "analyze", data],
        }
        compare("migrate-legacy.bin.xz grown", Path(trace), commands, options.runs)


if __name__ == "__main__":
    main()

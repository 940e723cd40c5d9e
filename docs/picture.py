"""Draws docs/analyze.svg, the picture in README.md: what `xtrace analyze` prints of a bundled trace."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

import xtrace
from xtrace.reports import terminal
from xtrace.selection import Selection
from xtrace.summary import Chosen, breakdown

ROOT = Path(__file__).parent.parent
TRACE = "sample_traces/bench8-lockless.bin"
SYMBOLS = "sample_traces/symbols-lockless.map"
COMMAND = f"xtrace analyze {TRACE} --symbols {SYMBOLS} --cpu-hz 60M"


def main() -> None:
    """Analyze the trace into a recording console and save that."""
    console = Console(record=True, width=104, file=io.StringIO(), highlight=False)
    with xtrace.open(ROOT / TRACE, symbols=ROOT / SYMBOLS, cpu_hz=60_000_000) as trace:
        document = trace.summary()
        calls = breakdown(Chosen.of(trace, Selection(), "call"), "call")
        document["trace"]["path"] = TRACE
        terminal.analysis(console, document, {"call": calls}, {})
    picture = console.export_svg(title=COMMAND, theme=DIMMED_MONOKAI, unique_id="xtrace")
    # The default style fetches a font from the network; any monospaced one at hand will do.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    (ROOT / "docs/analyze.svg").write_text(picture.replace("Fira Code", "DejaVu Sans Mono"))


if __name__ == "__main__":
    main()

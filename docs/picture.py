"""Draws the pictures in README.md, of bundled traces.

docs/report.png: the top of the page that `xtrace compare --html` writes, as Chromium shows it. docs/analyze.svg: what
`xtrace analyze` prints.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

import xtrace
from xtrace.cli import run
from xtrace.reports import terminal
from xtrace.selection import Selection
from xtrace.summary import analyzed

ROOT = Path(__file__).parent.parent
TRACE = "sample_traces/bench8-lockless.bin"
SYMBOLS = "sample_traces/symbols-lockless.map"
COMMAND = f"xtrace analyze {TRACE} --symbols {SYMBOLS} --cpu-hz 60M"
COMPARE = [
    "compare",
    *(f"sample_traces/bench8-{model}.bin" for model in ("legacy", "lockless")),
    *("--symbols-before", "sample_traces/symbols-legacy.map"),
    *("--symbols-after", SYMBOLS),
    *("--cpu-hz", "60M"),
]


def main() -> None:
    """Draw both."""
    report()
    analysis()


def report() -> None:
    """Write the demo's page and take a picture of its top."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "report.html"
        run([*COMPARE, "--html", str(page)])
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1100, "height": 1010})
        shown.goto(page.as_uri())
        shown.screenshot(path=ROOT / "docs/report.png")
        browser.close()


def analysis() -> None:
    """Analyze the trace into a recording console and save that."""
    console = Console(record=True, width=104, file=io.StringIO(), highlight=False)
    with xtrace.open(ROOT / TRACE, symbols=ROOT / SYMBOLS, cpu_hz=60_000_000) as trace:
        found = analyzed(trace, Selection())
        found.document["trace"]["path"] = TRACE
        terminal.analysis(console, found, {}, frozenset())
    picture = console.export_svg(title=COMMAND, theme=DIMMED_MONOKAI, unique_id="xtrace")
    # The default style fetches a font from the network; any monospaced one at hand will do.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    (ROOT / "docs/analyze.svg").write_text(picture.replace("Fira Code", "DejaVu Sans Mono"))


if __name__ == "__main__":
    os.chdir(ROOT)
    main()

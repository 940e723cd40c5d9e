"""Matplotlib figures as SVG in a page: the page's colours and fonts, no names that clash, the same bytes each time."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from html import escape
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from xtrace import units

INK: Final = "#1b1e23"
GRID: Final = "#c8ced7"
BEFORE: Final = "#b85c00"
AFTER: Final = "#1668b0"
ACCENT: Final = "#7d4aa8"
GOOD: Final = "#237a43"
BAD: Final = "#b4291f"
PHASE_1: Final = "#a9bfd6"
PHASE_2: Final = "#2f7fb9"
PHASE_3: Final = "#d9a032"
PHASE_4: Final = "#6b7889"

VARIABLES: Final = {
    INK: "--ink",
    GRID: "--grid",
    BEFORE: "--before",
    AFTER: "--after",
    ACCENT: "--accent",
    GOOD: "--good",
    BAD: "--bad",
    PHASE_1: "--phase-1",
    PHASE_2: "--phase-2",
    PHASE_3: "--phase-3",
    PHASE_4: "--phase-4",
}
"""Colours that look right on white paper, and the CSS variables that stand for them in a page, dark or light."""

STYLE: Final[dict[str, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "path.simplify_threshold": 0.5,
}
"""What figures are drawn with."""


def style() -> AbstractContextManager[None]:
    """A context in which figures are drawn in that style."""
    return mpl.rc_context(STYLE)  # type: ignore[arg-type]


_PROLOG: Final = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
_SHARED_STYLE: Final = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_FONT: Final = re.compile(r"font: [^;\"]*?([\d.]+)px[^;\"]*")
_FAMILY: Final = re.compile(r"font-family: [^;\"]*;?")
_ID: Final = re.compile(r' id="([^"]*)"')
_REFERENCE: Final = re.compile(r'(?<=[("])#([\w.-]+)(?=[)"])')
_ROOT: Final = re.compile(r"<svg [^>]*?viewBox=\"([^\"]*)\"[^>]*>")


def inline(figure: Figure, name: str, title: str) -> str:
    """The figure as an `svg` element to put into HTML.

    name   of the figure, another for each in a page: what the element's ids begin with
    title  what it shows, for those who do not see it
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "xtrace", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = _SHARED_STYLE.sub("", _PROLOG.sub("", buffer.getvalue()))
    text = _FAMILY.sub("", _FONT.sub(r"font-size: \1px", text))
    wanted = set(_REFERENCE.findall(text))
    text = _ID.sub(lambda match: f' id="{name}-{match[1]}"' if match[1] in wanted else "", text)
    text = _REFERENCE.sub(rf"#{name}-\1", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    head = (
        rf'<svg viewBox="\1" role="img" aria-labelledby="{name}-title"><title id="{name}-title">{escape(title)}</title>'
    )
    text = _ROOT.sub(lambda match: match.expand(head.replace("\\", r"\\").replace(r"\\1", r"\1")), text, count=1)
    lines = (units.printable(line.strip()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)

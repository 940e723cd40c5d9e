"""A report as one HTML page: what is in it as plain data, and its rendering."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal

from xtrace import units

if TYPE_CHECKING:
    from jinja2 import Environment

FILTERED_ROWS: Final = 8
"""A table of more rows has a filter."""
LONG_ROWS: Final = 24
"""A table of more rows scrolls by itself."""
MAX_TEXT: Final = 1000
"""Characters of a text that are shown: a name may be as long as its file says."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table; value: what it is sorted by, the text where None; an empty text sorts last."""

    text: str
    value: float | None = None
    tone: Literal["", "good", "bad", "muted"] = ""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a column; title: what it means, where the text is short."""

    text: str
    numeric: bool = True
    title: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that sorts, and filters where it is long; left_out: a line on what is not in it."""

    caption: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure; svg: markup from `svg.inline`, put into the page as it is; wide: a row of its own."""

    title: str
    caption: str
    svg: str
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter of the page; key: what links call it."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """What a section comes to; key: of the section, label: what it is about."""

    key: str
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report.

    answer   sentences: the opening paragraph
    points   and what sections add to it
    alerts   what to know before believing it
    trust    lines that say what the figures rest on
    picture  the one that shows the answer
    """

    title: str
    answer: tuple[str, ...]
    alerts: tuple[str, ...]
    trust: tuple[str, ...]
    picture: Picture | None
    sections: tuple[Section, ...]
    version: str
    points: tuple[Point, ...] = ()


def render(page: Page) -> str:
    """The page as HTML that fetches nothing; the same text for the same page."""
    script = _template_text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            script=script,
            style=_template_text("page.css"),
            digest=digest,
            filtered=FILTERED_ROWS,
            long=LONG_ROWS,
        )
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_template_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["key"] = _sort_key
    return environment


def _template_text(name: str) -> str:
    return (files("xtrace.reports") / "templates" / name).read_text("utf-8")


def _shown(value: Any) -> Any:
    """Names from a file show what is in them: no control character, nothing that turns the direction of text."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return units.printable(value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}…")


def _sort_key(cell: Cell) -> str:
    return cell.text if cell.value is None else repr(float(cell.value))

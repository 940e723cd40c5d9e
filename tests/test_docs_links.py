"""The documentation is built without a warning, and its links lead somewhere, built and on a forge."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from manuals import ROOT, build, copied
from markdown_it import MarkdownIt

import xtrace

PAGES: Final = sorted((ROOT / "docs").glob("*.md"))
LINKING: Final = (*PAGES, ROOT / "README.md", *sorted(ROOT.glob("*/README.md")))


def test_the_built_documentation_has_no_broken_link(tmp_path: Path) -> None:
    done = build(copied(tmp_path), "html", tmp_path / "html")
    assert (done.returncode, done.stderr) == (0, "")
    commands_page = (tmp_path / "html" / "commands" / "xtrace.html").read_text()
    assert all(
        (tmp_path / "html" / "commands" / name).exists()
        for name in re.findall(r'"(xtrace[a-z-]*\.html)"', commands_page)
    )
    assert "With --cpus, --from or --to" in (tmp_path / "html" / "commands" / "xtrace-analyze.html").read_text()
    python_page = (tmp_path / "html" / "python.html").read_text()
    assert all(f'id="xtrace.{name}"' in python_page for name in xtrace.__all__ if name != "__version__")


BROKEN: Final = {
    "nowhere.md": "target not found: 'nowhere.md'",
    "capture.md#nowhere": "nowhere",
    "#nowhere": "target not found: 'nowhere'",
    "../parsers/nowhere.py": "target not found: '../parsers/nowhere.py'",
    "../nowhere/README.md": "target not found: '../nowhere/README.md'",
}


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    docs = copied(tmp_path)
    for page in docs.glob("*.md"):
        if page.name not in {"index.md", "capture.md"}:
            page.unlink()
    (docs / "capture.md").write_text("# Capture\n")
    (docs / "index.md").write_text(
        "# Start\n\n[a](capture.md#capture) [b](../sample_traces/README.md) [c](../parsers)\n\n"
        + "\n\n".join(f"[text]({target})" for target in BROKEN)
        + "\n\n![picture](nowhere.png)\n\n```{toctree}\n:glob:\n\ncapture\ncommands/*\n```\n"
    )
    done = build(docs, "html", tmp_path / "html")
    assert done.returncode == 1
    warnings = done.stderr.splitlines()
    assert len(warnings) == len(BROKEN) + 1, done.stderr
    for message in (*BROKEN.values(), "image file not readable: nowhere.png"):
        assert any(message in warning for warning in warnings), message


def slugs(page: Path) -> set[str]:
    """The anchors that a forge gives to the headings of a page."""
    tokens = MarkdownIt().parse(page.read_text())
    headings = [after for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {slug("".join(part.content for part in heading.children or ())) for heading in headings}


def slug(heading: str) -> str:
    """A heading's anchor: lower case, dashes for blanks, no punctuation."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def broken_links(page: Path) -> list[str]:
    """Links of a page to files and headings that are not there."""
    found = []
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        for part in token.children or ():
            target = str(part.attrGet("href") or part.attrGet("src") or "")
            if not target or re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            if not file.exists() or (anchor and anchor not in slugs(file)):
                found.append(target)
    return found


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_on_a_forge(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A: b `c`\n\n[a](#a-b-c) [b](#b) [c](other.md)\n\n| ![d](d.png) |\n| --- |\n| [e](page.md#e) |\n")
    assert broken_links(page) == ["#b", "other.md", "d.png", "page.md#e"]


def test_every_page_can_be_found_from_the_start() -> None:
    start = (ROOT / "docs" / "index.md").read_text()
    for page in PAGES:
        assert page.stem == "index" or f"]({page.name})" in start, page


WIDE: Final = {"compare.md", "emulator.md", "format.md", "tables.md", "tracepoints.md"}
"""Pages with longer lines, from before the rule."""


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in WIDE], ids=lambda page: str(page.name))
def test_lines_are_no_longer_than_150(page: Path) -> None:
    rows = page.read_text().splitlines()
    assert [row for row in rows if len(row) > 150 and not row.startswith("|")] == []

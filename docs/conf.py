"""How Sphinx builds the documentation: `make docs`. Reads nothing from the network."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import xtrace

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import manual  # noqa: E402 - beside this file

project = "xtrace"
author = "The xtrace authors"
project_copyright = author
release = xtrace.__version__
version = release
today_fmt = "%Y-%m-%d"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
nitpicky = True
# Annotations name types of other packages, whose documentation is elsewhere.
nitpick_ignore_regex = [("py:.*", ".*")]
myst_heading_anchors = 3
# `--cpus` has two hyphens, and what is quoted may be copied.
smartquotes = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["wide.css"]  # command lines and tables are wider than prose
html_title = f"xtrace {release}"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False

# The reference of the command line is made anew each time in commands/, which is not kept.
manual.write(HERE / "commands")
man_pages = [(f"commands/{page}", page, text, "", 1) for page, text in manual.pages()]

# Public names are loaded when they are first used; autodoc sees only what is there.
vars(xtrace).update({name: getattr(xtrace, name) for name in xtrace.__all__})
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"


def setup(app: Sphinx) -> None:
    """Register what happens on the way."""
    app.connect("builder-inited", link_commands)
    app.connect("source-read", link_repository)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("build-finished", tidy_man)


def link_commands(app: Sphinx) -> None:
    """In HTML the pages of commands link to each other; in man a name is enough."""
    if app.builder.format == "html":
        app.config.manpages_url = "{page}.html"


def link_repository(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links to files beside the documentation become downloads, those to folders plain text; others stay, to fail."""

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        path = Path(app.srcdir, docname).parent / target
        if path.is_dir():
            return text
        return f"[{text}](path:{target})" if path.is_file() else found[0]

    source[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)#]+)[^)]*\)", link, source[0])


def docstring(*event: Any) -> None:
    """A docstring, which is plain text, as reStructuredText: paragraphs of columns are kept as they are."""
    lines: list[str] = event[-1]
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))
    lines[:] = [line for paragraph in paragraphs for line in _marked(paragraph)]


def _marked(paragraph: str) -> Iterator[str]:
    rows = paragraph.splitlines()
    if any(re.search(r"\S {2,}\S", row) or row.startswith((" ", ">>>")) for row in rows):
        yield from ("::", "", *(f"    {row}" for row in rows))
    else:
        yield from manual.escaped(paragraph).splitlines()
    yield ""


def tidy_man(app: Sphinx, error: Exception | None) -> None:
    """Take out the paragraph breaks right below headings, which mandoc warns of."""
    if app.builder.name == "man" and error is None:
        for path in Path(app.outdir).glob("*.1"):
            path.write_text(re.sub(r"(?m)^(\.SH .*)\n\.sp$", r"\1", path.read_text()))

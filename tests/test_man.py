"""The man pages, which are made from the help: every command and option is in them, and they are the same each time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from manuals import build, copied

from xtrace.cli import app
from xtrace.errors import XtraceError

SECTIONS: Final = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"]


def built(folder: Path) -> dict[str, str]:
    """The text of each page as Sphinx makes it, by name."""
    done = build(copied(folder), "man", folder / "man")
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_text() for path in (folder / "man").glob("*.1")}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All pages."""
    return built(tmp_path_factory.mktemp("man"))


def commands(command: Any = None, words: tuple[str, ...] = ("xtrace",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command of the command line with its words."""
    command = command or typer.main.get_command(app)
    yield words, command
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, (*words, name))


def read(page: str) -> str:
    """A page's text without markup, in one line."""
    return " ".join(re.sub(r"\\f.|\\%", "", page).replace("\\-", "-").replace("\\(aq", "'").split())


def test_a_page_for_each_command(pages: dict[str, str]) -> None:
    assert set(pages) == {f"{'-'.join(words)}.1" for words, _ in commands()}
    assert {"xtrace.1", "xtrace-analyze.1", "xtrace-emulate-bench.1"} <= set(pages)


def test_each_option_and_what_it_does(pages: dict[str, str]) -> None:
    for words, command in commands():
        page = read(pages[f"{'-'.join(words)}.1"])
        context = typer.Context(command, info_name=words[-1], **command.context_settings)
        for parameter in command.get_params(context):
            _, text = parameter.get_help_record(context)
            if parameter.param_type_name == "option":
                assert all(re.search(rf"\.B (\S+, )*{name}\b", page) for name in parameter.opts), (
                    words,
                    parameter.opts,
                )
            assert " ".join(text.replace("`", "").split()) in page, (words, text)
        for paragraph in command.help.split("\n\n"):
            assert " ".join(paragraph.replace("`", "").split()) in page.replace("`", ""), words


def test_sections_in_their_order(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        found = re.findall(r'(?m)^\.SH "?([^"\n]+)"?$', page)
        assert [one.upper() for one in found if one.upper() in SECTIONS] == SECTIONS, name


def test_exit_status_is_that_of_the_errors(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        codes = {int(code) for code in re.findall(r"(?m)^\.B \\fB(\d+)\\fP$", page)}
        gated = name in {"xtrace.1", "xtrace-compare.1"}
        errors = {error.exit_code for error in XtraceError.__subclasses__()}
        assert codes == {0, 130} | (errors if gated else errors - {5, 6}), name


def test_examples_are_those_of_the_help(pages: dict[str, str]) -> None:
    for words, command in commands():
        if command.epilog and command.epilog.startswith("Example: "):
            assert command.epilog.removeprefix("Example: ") in read(pages[f"{'-'.join(words)}.1"])


def test_pages_name_only_pages_that_exist(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        named = {f"{one}.1" for one in re.findall(r"(xtrace[a-z-]*)\(1\)", read(page))}
        assert named - {name} <= set(pages)
        assert named


def test_the_same_each_time(pages: dict[str, str], tmp_path: Path) -> None:
    assert built(tmp_path) == pages

"""Writes the reference of the command line from its help: a page a command, for HTML and man alike.

The declarations of xtrace.cli are the only source: `pages` tells which pages there are, `write` makes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer

from xtrace.cli import app
from xtrace.errors import XtraceError

EXAMPLE = "Example: "
DONE = "Done. Warnings, of damage or loss for instance, are on standard error."
INTERRUPTED = "Interrupted."


class Command(NamedTuple):
    """A command of the tree: its words, as in `xtrace emulate bench`, and what Typer knows of it."""

    words: tuple[str, ...]
    context: Any
    commands: tuple[Command, ...]

    @property
    def page(self) -> str:
        """The name of its page, `xtrace-emulate-bench`."""
        return "-".join(self.words)

    @property
    def parameters(self) -> list[Any]:
        """Arguments and options, help included."""
        return list(self.context.command.get_params(self.context))

    @property
    def example(self) -> str | None:
        """The command line that its help ends on."""
        epilog = self.context.command.epilog or ""
        return epilog.removeprefix(EXAMPLE) if epilog.startswith(EXAMPLE) else None


def tree() -> Command:
    """The whole command line."""
    return _command(typer.main.get_command(app), ("xtrace",), None)


def _command(command: Any, words: tuple[str, ...], parent: Any) -> Command:
    context = typer.Context(command, info_name=words[-1], parent=parent, **command.context_settings)
    below = getattr(command, "commands", {})
    return Command(words, context, tuple(_command(one, (*words, name), context) for name, one in below.items()))


def flat(command: Command) -> Iterator[Command]:
    """The command and all below it."""
    yield command
    for one in command.commands:
        yield from flat(one)


def pages() -> list[tuple[str, str]]:
    """Name and one-line description of each page."""
    return [(one.page, _summary(one).rstrip(".")) for one in flat(tree())]


def write(folder: Path) -> None:
    """Write all pages as reStructuredText, and nothing where nothing changed."""
    folder.mkdir(exist_ok=True)
    root = tree()
    for command in flat(root):
        path = folder / f"{command.page}.rst"
        text = "\n".join(_lines(command, root)) + "\n"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _lines(command: Command, root: Command) -> Iterator[str]:
    yield from (command.page, "=" * len(command.page))
    yield from _head("Synopsis")
    yield from (_synopsis(command), "")
    yield from _head("Description")
    yield from _description(command)
    if command.commands:
        yield from _head("Commands")
        for one in command.commands:
            yield from (_reference(one), f"    {escaped(_summary(one))}")
    for title, kind in (("Arguments", "argument"), ("Options", "option")):
        chosen = [one for one in command.parameters if one.param_type_name == kind]
        if chosen:
            yield from _head(title)
            yield from _parameters(command, chosen)
    yield from _head("Exit status")
    for code, meaning in _codes(command):
        yield from (f"``{code}``", f"    {meaning}")
    examples = [one.example for one in flat(command) if one.example]
    if examples:
        yield from _head("Examples")
        yield from ("::", "", *(f"    {line}" for line in examples))
    yield from _head("See also")
    yield ", ".join((*map(_reference, _related(command, root)), "**xentrace**\\(8)"))


def _head(title: str) -> tuple[str, ...]:
    return "", title, "-" * len(title), ""


def _summary(command: Command) -> str:
    return _first_paragraph(command.context.command.help)


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split())


def _synopsis(command: Command) -> str:
    parts = [f"**{' '.join(command.words)}**", "[*OPTIONS*]"]
    for one in command.parameters:
        if one.param_type_name == "argument":
            name = f"*{escaped(_metavar(one))}*"
            parts.append(name if one.required else f"[{name}]")
        elif one.required:
            parts.append(f"{one.opts[0]} *{escaped(_metavar(one))}*")
    if command.commands:
        parts.append("*COMMAND* …")
    return " ".join(parts)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _description(command: Command) -> Iterator[str]:
    paragraphs = command.context.command.help.split("\n\n")
    if command.example is None and command.context.command.epilog:
        paragraphs.append(command.context.command.epilog)
    for one in paragraphs:
        yield from (escaped(" ".join(one.split())), "")


def _parameters(command: Command, parameters: list[Any]) -> Iterator[str]:
    yield from (f".. program:: {' '.join(command.words)}", "")
    for one in parameters:
        names, text = one.get_help_record(command.context)
        if one.param_type_name == "argument":
            yield from (f"*{escaped(_metavar(one))}*", f"    {escaped(text)}", "")
        else:
            yield from (f".. option:: {names}", "", f"    {escaped(text)}", "")


def _codes(command: Command) -> Iterator[tuple[int, str]]:
    """Exit codes, from the errors; one whose text names an option concerns commands that have it."""
    options = {name for part in flat(command) for one in part.parameters for name in one.opts}
    yield 0, DONE
    for error in sorted(XtraceError.__subclasses__(), key=lambda one: one.exit_code):
        text = _first_paragraph(error.__doc__ or "")
        if set(re.findall(r"--[a-z-]+", text)) <= options:
            yield error.exit_code, escaped(text)
    yield 130, INTERRUPTED


def _related(command: Command, root: Command) -> Iterator[Command]:
    """The commands above and below."""
    above = {command.words[:length] for length in range(1, len(command.words))}
    for one in flat(root):
        if one.words in above or one.words[:-1] == command.words:
            yield one


def _reference(command: Command) -> str:
    """A link in HTML, a name in bold in man."""
    return f":manpage:`{command.page}(1)`"


def escaped(text: str) -> str:
    """Plain text as reStructuredText: only `code` means something in it."""
    return re.sub(r"`([^`]+)`|([\\*`|_])", lambda one: rf"\ ``{one[1]}``\ " if one[1] else "\\" + one[2], text)

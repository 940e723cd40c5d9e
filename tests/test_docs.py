"""What the documentation shows is what happens: command lines and code run, outputs are what is printed.

Blocks of README.md and docs/: `sh`, and those without a language that begin with a program's name, are command
lines, each run in a folder of its own that holds the files it names; `console` is a session, whose output is held to
what is printed (a row of `…` stands for any rows); `python` is executed. A line that ends on another code than 0
says so: `# exit code 4`.
"""

from __future__ import annotations

import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest import mock

import pytest
import typer
from conftest import SAMPLES
from manuals import ROOT
from markdown_it import MarkdownIt

from xtrace.cli import app, run
from xtrace.errors import XtraceError

PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
OTHER_LANGUAGES: Final = {"toml", "text", "{toctree}", "{eval-rst}"}
PROGRAM: Final = re.compile(r"[a-z][\w.-]*( |$)")

NOT_RUN: Final = {
    "make demo": ".ci/run does, behind the tests",
    "make test": "runs these tests",
    "pip install .": "the environment of these tests is made like that",
    "pip install '.[perfetto]'": "the same",
    "pip install '.[fast]'": "the same",
    "spatch --sp-file legacy.cocci --in-place xen/common/smp.c xen/arch/x86/smp.c": (
        "needs Xen's source; tests/test_tracepoints.py does it with C of the same shape"
    ),
}
"""Lines that are shown and not run here, and why."""

SAMPLE_OF: Final = {
    "trace.bin": "bench-lockless.bin",
    "stock.bin": "dom0-stock.bin",
    "before.bin": "bench8-legacy.bin",
    "after.bin": "bench8-lockless.bin",
    "legacy.bin": "bench8-legacy.bin",
    "lockless.bin": "bench8-lockless.bin",
    "xen-syms.map": "symbols-lockless.map",
}
"""What the files that examples name are here."""

EMULATED: Final = {
    **{f"old/legacy-{seed}.bin": ("legacy", seed) for seed in (1, 2)},
    **{f"new/lockless-{seed}.bin": ("lockless", seed) for seed in (1, 2)},
    "old.bin": ("legacy", 3),
    "new.bin": ("lockless", 3),
}
"""Runs of a host that flushes, by design and seed."""

SMALLER: Final = {
    "emulate table": "--calls 3 --runs 1",
    "emulate evacuate": "--seconds 0.005",
    "emulate idle": "--seconds 0.1",
    "whatif": "--runs 1",
}
"""Options added to lines that would take long: all that is shown is read and obeyed, only less of it is computed."""

STUBS: Final = {
    "xtrace": f'exec {shlex.quote(sys.executable)} -m xtrace "$@"\n',
    "duckdb": f'exec {shlex.quote(sys.executable)} -c "import sys, duckdb; duckdb.sql(sys.argv[2]).show()" "$@"\n',
    # The options of 4.17; a file or, from 4.18 on, standard output.
    "xentrace": (
        "while getopts 's:c:e:S:r:T:M:DxXV' option; do\n"
        '    case "$option$OPTARG" in\n'
        "        [sSrT]*[!0-9]*) exit 1 ;;\n"
        "        e*) [[ $OPTARG =~ ^(gen|sched|dom0op|hvm|all|0x[0-9a-f]+)$ ]] || exit 1 ;;\n"
        "        M*) [[ $OPTARG =~ ^[0-9]+[KkM]?$ ]] || exit 1 ;;\n"
        "        '?'*) exit 1 ;;\n"
        "    esac\n"
        "done\n"
        "shift $((OPTIND - 1))\n"
        f'cat {shlex.quote(str(SAMPLES / "bench-lockless.bin"))} > "${{1:-/dev/stdout}}"\n'
    ),
}
"""Programs that the lines call: xtrace as it is here, DuckDB without its shell, an xentrace that needs no Xen."""


class Block(NamedTuple):
    """A code block: where it is, its language, its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


class Line(NamedTuple):
    """A command line: where it is, what it says, the code it ends on."""

    place: str
    command: str
    code: int

    def __str__(self) -> str:
        return self.place


def blocks() -> Iterator[Block]:
    """All code blocks of all pages."""
    for page in PAGES:
        for token in MarkdownIt().parse(page.read_text()):
            if token.type in {"fence", "code_block"}:
                assert token.map is not None
                yield Block(page.name, token.map[0] + 1, token.info.strip(), token.content)


def is_commands(block: Block) -> bool:
    """Whether it holds command lines."""
    return block.language == "sh" or (not block.language and PROGRAM.match(block.text) is not None)


def line_of(text: str) -> tuple[str, int]:
    """A command without its comment, and the code that the comment says it ends on."""
    code = re.search(r"# exit code (\d+)", text)
    return re.sub(r"\s+# .*", "", text), int(code[1]) if code else 0


def lines() -> Iterator[Line]:
    """All command lines, and the examples in the help."""
    for block in filter(is_commands, blocks()):
        for offset, text in enumerate(block.text.splitlines(), start=1):
            yield Line(f"{block.page}:{block.line + offset}", *line_of(text))
    for words, command in commands():
        if (command.epilog or "").startswith("Example: "):
            yield Line(f"{' '.join(words)} --help", command.epilog.removeprefix("Example: "), 0)


def commands(command: Any = None, words: tuple[str, ...] = ("xtrace",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command of the command line with its words."""
    command = command or typer.main.get_command(app)
    yield words, command
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, (*words, name))


BLOCKS: Final = tuple(blocks())
LINES: Final = tuple({(line.command, line.code): line for line in lines()}.values())
SESSIONS: Final = tuple(block for block in BLOCKS if block.language == "console")
CODE: Final = tuple(block for block in BLOCKS if block.language == "python")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that an example may name."""
    folder = tmp_path_factory.mktemp("files")
    for name, sample in SAMPLE_OF.items():
        shutil.copy(SAMPLES / sample, folder / name)
    (folder / "trace.bin.xz").write_bytes(lzma.compress((folder / "trace.bin").read_bytes(), preset=0))
    for name, (model, seed) in EMULATED.items():
        (folder / name).parent.mkdir(exist_ok=True)
        options = ["--model", model, "--seed", str(seed), "--seconds", "0.01"]
        assert run(["emulate", "evacuate", *options, "-o", str(folder / name)]) == 0
    assert run(["dataset", str(folder / "trace.bin"), "-o", str(folder / "data")]) == 0
    (workload,) = (block.text for block in BLOCKS if block.language == "toml")
    (folder / "load.toml").write_text(re.sub(r"(?m)^seconds = \S+", "seconds = 0.005", workload))
    return folder


@pytest.fixture
def desk(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a folder in which a command finds the files that it names and those folders that it writes to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample_traces").symlink_to(SAMPLES)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in STUBS.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(tmp_path))

    def lay(command: str) -> None:
        for folder in re.findall(r"> (\S+)/", command):
            Path(folder).mkdir(parents=True)
        for source in files.iterdir():
            name = re.escape(source.name)
            written = re.search(rf"(?:-o|--output|--html|--perfetto) {name}(?!\S)", command)
            if written or not re.search(rf"(?<![\w/.-]){name}(?![\w.-])", command):
                continue
            if source.is_dir():
                shutil.copytree(source, tmp_path / source.name)
            else:
                shutil.copy(source, tmp_path)

    return lay


def is_plain(command: str) -> bool:
    """Whether it is one call of xtrace, for which no shell is needed."""
    parts = shlex.shlex(command, posix=True, punctuation_chars=True)
    parts.whitespace_split = True
    return command.startswith("xtrace ") and not any(set(part) <= set("|<>&;()") for part in parts)


def obey(command: str, more: Mapping[str, str]) -> int:
    """Run a command line as bash would, xtrace in this process; returns its exit code."""
    if not is_plain(command) or "completion" in command:
        return subprocess.run(["bash", "-o", "pipefail", "-c", command], check=False).returncode
    words = [word for given in shlex.split(command)[1:] for word in files_of(given)]
    for begin, options in more.items():
        if " ".join(words).startswith(begin):
            words += options.split()
    with mock.patch.object(sys, "argv", ["xtrace", *words]):
        return run(words)


def files_of(word: str) -> list[str]:
    """The files that a pattern means; any other word is itself."""
    return (sorted(map(str, Path().glob(word))) if "*" in word else []) or [word]


@pytest.mark.parametrize("line", [line for line in LINES if line.command not in NOT_RUN], ids=str)
def test_a_command_line_runs(line: Line, desk: Callable[[str], None]) -> None:
    desk(line.command)
    assert obey(line.command, SMALLER) == line.code


@pytest.mark.parametrize("session", SESSIONS, ids=str)
def test_a_session_prints_what_is_shown(
    session: Block, desk: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    desk("")
    steps = re.findall(r"(?m)^\$ (.*)\n((?:(?!\$ ).*\n)*)", session.text)
    assert "".join(f"$ {command}\n{output}" for command, output in steps) == session.text
    for text, output in steps:
        command, code = line_of(text)
        assert obey(command, {}) == code
        sys.stdout.flush()
        printed = [row.rstrip() for row in capfd.readouterr().out.splitlines()]
        assert shown(printed, [row.rstrip() for row in output.splitlines()]), "\n".join(printed)


def shown(printed: Sequence[str], rows: Sequence[str]) -> bool:
    """Whether that was printed; `…` alone in a row stands for any rows."""
    pattern = "".join(r"(?:.*\n)*?" if row == "…" else f"{re.escape(row)}\n" for row in rows)
    return re.fullmatch(pattern, "".join(f"{row}\n" for row in printed)) is not None


def test_what_was_not_printed_is_not_shown() -> None:
    assert shown(["a", "b", "c"], ["a", "…", "c"])
    assert not shown(["a", "b", "c"], ["a", "…", "b"])
    assert not shown(["a", "b"], ["a"])


@pytest.mark.parametrize("block", CODE, ids=str)
def test_python_runs(block: Block, desk: Callable[[str], None]) -> None:
    desk(block.text)
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})


def test_every_block_is_of_a_known_kind() -> None:
    for block in BLOCKS:
        known = {"", "sh", "console", "python"} | OTHER_LANGUAGES
        assert block.language in known, block
        if not block.language and not is_commands(block):
            assert block.text.startswith(("{", "initiator:")), f"{block}: say what it is: sh, console, text"


@pytest.mark.parametrize("options", ["-t 5", "-e hv", "-S many", "-M 1G", "--no-such"])
def test_lines_of_xentrace_are_judged(options: str, desk: Callable[[str], None]) -> None:
    desk("")
    assert obey(f"xentrace -D {options} trace.bin", {}) == 1


def test_lines_are_found() -> None:
    assert len(LINES) > 45
    assert len(SESSIONS) > 5
    assert len(CODE) > 3
    text = "```\nmake x  # why\n```\n\n    pip y\n\n```text\nno line\n```\n"
    found = [token.content for token in MarkdownIt().parse(text) if token.type in {"fence", "code_block"}]
    assert [is_commands(Block("page", 1, "", content)) for content in found] == [True, True, True]
    assert not is_commands(Block("page", 1, "text", found[2]))
    assert not is_commands(Block("page", 1, "", '{"schema": 1}'))


def test_what_is_not_run_is_shown() -> None:
    """The list of exceptions holds nothing that is gone."""
    assert set(NOT_RUN) <= {line.command for line in LINES}
    assert all(NOT_RUN.values())


def test_commands_and_options_within_sentences_exist() -> None:
    options = {words: {name for one in command.params for name in one.opts} for words, command in commands()}
    found = 0
    for page in PAGES:
        for span in re.findall(r"`(xtrace [^`\n]+)`", page.read_text()):
            words = shlex.split(span)
            if words[1] in {"…", "COMMAND"}:
                continue
            command = max((one for one in options if one == tuple(words[: len(one)])), key=len)
            assert len(command) > 1 or words[1].startswith("-"), f"{page.name}: {span}"
            used = {word for word in words if word.startswith("-") and len(word) > 1}
            assert used <= options[command] | {"-h", "--help"}, f"{page.name}: {span}"
            found += 1
    assert found > 20


def test_exit_codes_are_those_of_the_errors() -> None:
    codes = {0, 130} | {error.exit_code for error in XtraceError.__subclasses__()}
    for page in (ROOT / "README.md", ROOT / "docs" / "exit-codes.md"):
        _, _, table = page.read_text().partition("| exit code | meaning |")
        rows = re.findall(r"(?m)^\| (\d+) \| (.+) \|$", table)
        assert {int(code) for code, _ in rows} == codes, page
        assert len(rows) == len(codes)

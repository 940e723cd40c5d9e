"""docs/xenalyze.md answers every option that xenalyze has, and the commands that it names work."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from conftest import Sample

from xtrace.cli import run

PAGE: Final = Path(__file__).parent.parent / "docs" / "xenalyze.md"
MISSING_EVENTS: Final = 4
"""The exit code for a table that a trace has no records for; no sample has shadow paging, for one."""


def rows() -> dict[str, str]:
    """The answer to each option, by its name."""
    table = PAGE.read_text().partition("## What is where")[2].partition("| block of")[0]
    lines = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `--")]
    return {option: answer for named, answer in lines for option in re.findall(r"`(--[a-z0-9-]+)`", named)}


def commands() -> list[str]:
    """The command lines that answers name."""
    found = {part for answer in rows().values() for part in re.findall(r"`(xtrace [^`]+)`", answer)}
    return sorted(found)


def test_every_option_has_an_answer() -> None:
    judge = shutil.which("xenalyze")
    if judge is None:
        pytest.fail("xenalyze is not installed; Debian's xen-utils-4.17 has it: apt-get install xen-utils-4.17")
    text = subprocess.run([judge, "--help"], capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"(?m)^ {2,6}(?:-., +)?(--[a-z0-9-]+)", text)) - {"--help", "--usage"}
    assert len(options) == 47
    assert rows().keys() == options


@pytest.mark.parametrize("command", commands())
def test_the_commands_work(command: str, sample: Sample, capfd: pytest.CaptureFixture[str]) -> None:
    """On the trace that has the most kinds of records; what it prints has content."""
    words = [str(sample("vmx-legacy")) if word == "TRACE" else word for word in shlex.split(command)]
    code = run(words[1:])
    out, err = capfd.readouterr()
    if code == MISSING_EVENTS:
        assert re.search(r"no [\w*]+ records; it has", err)
    else:
        assert code == 0, err
        assert len(out.splitlines()) > 1

"""What `xenalyze -s` prints, as data: its sections by domain and vCPU, each a list of its lines, and lines as figures.

A section's name is its heading as printed, without a colon: "Runstates", "Exit reasons", "PV events", …; what stands
under no heading of its own ("cpu affinity") is taken out of the section before it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

Lines = list[str]

VOLUME: Final = "--- Log volume summary ---"
DOMAIN: Final = re.compile(r"\|-- Domain (\d+) --\|")
VCPU: Final = re.compile(r"-- v(\d+) --")
CPU: Final = re.compile(r" - cpu (\d+) -|pcpu (\d+)")
AFFINITY: Final = re.compile(r" cpu affinity:|   \[\d+\]: +\d+ +\d+ \{")
HEADINGS: Final = (
    "Runstates",
    "Grant table ops",
    "Populate-on-demand",
    "Exit reasons",
    "Guest interrupt counts",
    "IO address summary",
    "MMIO address summary",
    "PV events",
    "Emulate eip list",
    "Interrupt eip list",
    "Cr3 List",
)


@dataclass
class Vcpu:
    """A vCPU's sections."""

    sections: dict[str, Lines] = field(default_factory=dict)


@dataclass
class Domain:
    """A domain's sections, those before and behind its vCPUs, and its vCPUs by number."""

    sections: dict[str, Lines] = field(default_factory=dict)
    vcpus: dict[int, Vcpu] = field(default_factory=dict)


@dataclass
class Summary:
    """All of it.

    before    what it prints while it reads, such as "Strange, pm_idle_end …"
    total     the line "Total time: …"
    volume    of each CPU, its lines
    domains   by number; the stand-in domain 32768 is not among them
    cpus      of each CPU, the lines of `--report-pcpu`
    active    "Total active cpus: …", None without --report-pcpu
    """

    before: Lines = field(default_factory=list)
    total: str = ""
    volume: dict[int, Lines] = field(default_factory=dict)
    domains: dict[int, Domain] = field(default_factory=dict)
    cpus: dict[int, Lines] = field(default_factory=dict)
    active: int | None = None


def blocks(text: str) -> Summary:
    """The output, whole: no line of it is left out."""
    found = Summary()
    domain: Domain | None = None
    where: Domain | Vcpu | None = None
    lines: Lines | None = None
    for line in text.splitlines():
        if line.startswith("Total time:"):
            found.total = line
        elif not found.total:
            found.before.append(line)
        elif line.startswith("Total active cpus:"):
            found.active = int(line.split(":")[1])
        elif line == VOLUME:
            lines = None
        elif match := DOMAIN.fullmatch(line):
            domain = where = found.domains[int(match[1])] = Domain()
            lines = None
        elif match := VCPU.fullmatch(line):
            assert domain is not None, line
            where = domain.vcpus[int(match[1])] = Vcpu()
            lines = None
        elif match := CPU.fullmatch(line):
            lines = (found.volume if match[1] else found.cpus).setdefault(int(match[1] or match[2]), [])
            where = None
        elif (heading := line.strip().rstrip(":")) in HEADINGS and where is not None:
            if heading.endswith("eip list") and domain is not None:
                where = domain
            lines = where.sections.setdefault(heading, [])
        elif AFFINITY.match(line) and isinstance(where, Vcpu) and "Exit reasons" not in where.sections:
            where.sections.setdefault("cpu affinity", []).append(line)
        else:
            assert lines is not None, f"a line under no heading: {line!r}"
            lines.append(line)
    return found


@dataclass(frozen=True, slots=True)
class Figures:
    """One line of figures: `label: count seconds percent avg cyc {p5|p50|p95}`, None where it does not give one."""

    label: str
    count: int
    seconds: str | None
    percent: str | None
    mean: int
    p5: int
    p50: int
    p95: int


_FIGURES: Final = re.compile(
    r"(?P<label>.*?):? +(?P<count>\d+) +(?:(?P<seconds>\d+\.\d\d)s +)?(?:(?P<percent>\d+\.\d\d)% +)?"
    r"(?P<mean>-?\d+) (?:cyc )?\{ *(?P<p5>-?\d+)\| *(?P<p50>-?\d+)\| *(?P<p95>-?\d+)\}"
)


def figures(line: str) -> Figures:
    """A line's figures; the label is stripped of blanks and colon. Fails for a line of another form."""
    match = _FIGURES.fullmatch(line.rstrip())
    assert match is not None, f"no line of figures: {line!r}"
    numbers = (int(match[name]) for name in ("mean", "p5", "p50", "p95"))
    label = match["label"].strip().rstrip(":").strip()
    return Figures(label, int(match["count"]), match["seconds"], match["percent"], *numbers)


def by_label(lines: Lines) -> dict[str, Figures]:
    """Lines of figures by label; fails where two have the same."""
    found = [figures(line) for line in lines]
    table = {one.label: one for one in found}
    assert len(table) == len(found), "a label stands twice"
    return table


def judge() -> str:
    """The path of xenalyze; without it nothing is judged, so its absence fails."""
    found = shutil.which("xenalyze")
    if found is None:
        pytest.fail("xenalyze is not installed; Debian's xen-utils-4.17 has it: apt-get install xen-utils-4.17")
    return found


def xenalyze(path: Path, *options: str, svm: bool = True, hz: str = "1G") -> str:
    """What `xenalyze -s` prints of a trace. At 1 GHz a cycle is a nanosecond."""
    command = [judge(), "-s", *(["--svm-mode"] if svm else []), "--cpu-hz", hz, *options, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def summary(path: Path, *options: str) -> Summary:
    """The same in sections; the vendor is known by the trace's name: vmx-… or else SVM."""
    return blocks(xenalyze(path, *options, svm=not path.name.startswith("vmx")))


def printed_quantiles(values: Iterable[int]) -> tuple[int, int, int]:
    """The p5, p50 and p95, weighted by time, that xenalyze prints of these stays, given in order of time.

    They are too high. Its search parts the values like Hoare's, around one in the middle of what is left, and keeps
    the weight of what lies below either side. When the upper side moves down past a value, it takes off the weight of
    the value left behind, not of the one arrived at, which it now stands before. So it may look above for what is
    below. What it finds also depends on the order, and each search leaves the values in another.
    """
    held = list(values)
    middle, low, high = (_searched(held, percent) for percent in (50, 5, 95))
    return low, middle, high


def _searched(held: list[int], percent: int) -> int:
    total = sum(held)
    target = total * percent // 100
    left, right = 0, len(held) - 1
    below_left, below_right = 0, total - held[right]
    while left < right:
        pivot = held[(left + right) // 2]
        low, high, below_low, below_high = left, right, below_left, below_right
        while low <= high:
            while held[low] < pivot:
                below_low += held[low]
                low += 1
            while held[high] > pivot:
                below_high -= held[high]
                high -= 1
            if low <= high:
                held[low], held[high] = held[high], held[low]
                below_low += held[low]
                below_high -= held[high]
                low += 1
                high -= 1
        if below_high < target:
            left, below_left = low, below_low
        if target < below_low:
            right, below_right = high, below_high
    return held[left]

"""What `xenalyze -a` prints, without its talk about itself, and where xtrace means to differ (docs/xenalyze.md)."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import xtrace
from xtrace.parsers.vectors import HYPERCALLS
from xtrace.reports import records
from xtrace.selection import Selection
from xtrace.trace import Trace

EXACT_HZ: Final = 10**9
"""A cycle is a nanosecond then, and xenalyze's factor is a whole number."""

TALK: Final = re.compile(
    r"""
    Creating\ (vcpu|domain|pdev)\ | First\ schedule\ for\ | Using\ first_tsc\ for\ | Unknown\ hvm\ event:\ | Strange,\ |
    WARNING:\ (p->current|Unexpected|continue) | Warning:\ processing\ shadow | Changing\ p\d+\ current\ |
    runstate_change\ old_runstate\ | TSC\ skew\ detected | Tsc\ skew\ | \ Not\ updating |
    (init_pcpus|scan_for_new_pcpu|process_cpu_change|read_record|deactivate_pcpu|hvm_\w+|shadow_\w+|vcpu_\w+
     |process_lost_records|sched_runstate_process|ipi_send)(\ )?:[ ]
    """,
    re.VERBOSE,
)
"""xenalyze's notes on its own work, on the standard output with -a; records have no part in them."""

NESTED: Final = (" [w2h] Clearing w2h state", "  Interrupt ")


class UnfitError(Exception):
    """xenalyze did not get to the end of the file."""


def printed(path: Path, *options: str) -> Iterator[str]:
    """The lines of xenalyze but for its talk, and for what it forgets where a CPU has no more records."""
    found = shutil.which("xenalyze")
    if found is None:
        pytest.fail("xenalyze is not installed; Debian's xen-utils-4.17 has it: apt-get install xen-utils-4.17")
    command = [found, "-a", "--cpu-hz=1G", *options, str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None
        at_end = False
        for line in process.stdout:
            talk = TALK.match(line)
            if talk or (at_end and line.startswith(NESTED)):
                at_end = at_end if not talk else line.startswith("deactivate_pcpu: setting")
                continue
            at_end = False
            yield line.rstrip("\n")
    if process.returncode:
        raise UnfitError(f"xenalyze ended with {process.returncode}")


def shown(path: Path, selection: Selection | None = None, **chosen: Any) -> Iterator[str]:
    """The lines of xtrace; chosen: events and domains, as `records.lines` takes them."""
    with xtrace.open(path, cpu_hz=EXACT_HZ) as trace:
        yield from shown_of(trace, selection, **chosen)


def shown_of(trace: Trace, selection: Selection | None = None, **chosen: Any) -> Iterator[str]:
    """The lines of an open trace."""
    for batch in records.lines(trace, "xenalyze", selection or Selection(), **chosen):
        for lines in batch:
            yield from lines.split("\n")


def _named(match: re.Match[str]) -> str:
    """A number with the name that xenalyze lacks, or has none for."""
    name = HYPERCALLS.get(int(match[1].split()[1], 16))
    return f"{match[1]} ({name})" if name else match[1]


def _renamed(match: re.Match[str]) -> str:
    return "intr vec " + {"T": "LOCAL_TIMER(fa)", "L": "PMU_APIC(f9)", "S": "SPURIOUS_APIC"}[match[1][0]]


Same = Callable[[str, str], bool]
"""Whether xenalyze's line is xtrace's but for one declared difference."""


def _replaced(pattern: str, text: str | Callable[[re.Match[str]], str]) -> Same:
    compiled = re.compile(pattern)
    return lambda their, our: compiled.sub(text, their) == our


def _unsigned(match: re.Match[str]) -> str:
    begin, *numbers = match.groups()
    return f"{begin}%d (%d,%d)" % tuple(int(number) & 0xFFFFFFFF for number in numbers)


def _seconds(match: re.Match[str]) -> str:
    seconds, ns = divmod(int(match[1]), 10**9)
    return f"latency {match[1]} ({seconds}.{ns:09d} s)"


def _beyond(their: str, our: str) -> bool:
    """The first four words, of which the record has fewer."""
    return " shadow " in our and len(our) < len(their) and their.startswith(our.removesuffix("]"))


def _misread(pattern: str) -> Same:
    """The same form; which numbers are right is tested by themselves."""
    compiled = re.compile(pattern)

    def same(their: str, our: str) -> bool:
        theirs, ours = compiled.search(their), compiled.search(our)
        return bool(theirs and ours) and compiled.sub("", their) == compiled.sub("", our)

    return same


REWRITTEN: Final[dict[str, Same]] = {
    "D29 names": _replaced(r"((?:hypercall|vmcall) +[0-9a-f]+)( \(\(null\)\))?(?=\s|$)", _named),
    "D37 vectors": _replaced(r"intr vec (THERMAL_APIC\(fa\)|LOCAL_TIMER\(f9\)|SPURIOS_APIC)", _renamed),
    "D38 xsm_op": _replaced(r"\(acm_op\)", "(xsm_op)"),
    "D39 no vector": _replaced(r"intr vec 0$", "intr vec -"),
    "D40 latency": _replaced(r"latency (\d+) \(\d+\.\d{9} s\)$", _seconds),
    "D49 unsigned": _replaced(r"(irq_handled irq \w+ )(-?\d+) \((-?\d+),(-?\d+)\)$", _unsigned),
    "D50 hexadecimal": _replaced(r"(?<= )\d{16,20}(?= |$)", lambda match: f"{int(match[0]):016x}"),
    "error code first": _misread(r"pf_xen(:emulate)? va .*"),
    "halves of a word": _misread(r"irq_(bind|assign)_vector irq .*"),
    "priority": _misread(r"deadline = \d+, budget = \d+"),
    "nibbles": _misread(r", (idle|busy), (not )?tickled"),
    "no data": _replaced(r"val [0-9a-f]+$", "val -"),
    "no words": _beyond,
}
"""Lines of both tools that differ."""

ONLY_OURS: Final = {
    "D23 nested": re.compile(r"^\].* +81[45][0-9a-f]{2}\(8:1:[45][0-9a-f]{2}\) \d \[.*\]$"),
    "D34 subclass": re.compile(r"^\].* +80[0-9a-f]{4}\(80:[^12]:[0-9a-f]+\) \d \[.*\]$"),
    "D54 timers": re.compile(r"^\].* +84[0-9a-f]{3}\(8:4:[0-9a-f]+\) \d \[.*\]$"),
}
"""Lines of records that xenalyze leaves out."""


def differences(ours: Iterable[str], theirs: Iterable[str]) -> Counter[str]:
    """How often each of the declared differences is there; any other fails."""
    found: Counter[str] = Counter()
    others = iter(theirs)
    their = next(others, None)
    for number, our in enumerate(ours):
        if our != their:
            kind = next((kind for kind, pattern in ONLY_OURS.items() if pattern.match(our)), None)
            if kind is not None:
                found[kind] += 1
                continue
            kind = next((kind for kind, same in REWRITTEN.items() if their is not None and same(their, our)), None)
            assert kind is not None, f"line {number}:\n{their}\n{our}"
            found[kind] += 1
        their = next(others, None)
    assert their is None, f"not there: {their}"
    return found

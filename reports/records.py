"""Records as lines: what `xtrace dump` prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xtrace.context import NOBODY, vcpu_name
from xtrace.decode import Batch, Group
from xtrace.parsers import vectors
from xtrace.parsers.container import CPU_CHANGE
from xtrace.parsers.event import Event
from xtrace.parsers.fields import is_filler
from xtrace.parsers.pv import PACKING

if TYPE_CHECKING:
    from xtrace.selection import Selection
    from xtrace.trace import Trace

_HEXADECIMAL: Final = frozenset(
    """
    addr cpumask cr2 data eip eax ebx ecx edx error_code exit_qualification flags flush_flags func gfn gl1e gpa
    guest_tsc leaf mask mfn msr new_cr0 npte qualification rip subleaf va value write_val
    """.split()  # noqa: SIM905 a list this long reads better as words
)


def lines(
    trace: Trace,
    form: str,
    selection: Selection,
    events: Callable[[Event], bool] | None = None,
    domains: frozenset[int] | None = None,
) -> Iterator[list[str]]:
    """The selected records in merged order of time, as batches of lines without newlines.

    form: `text`, `json` (an object a line), `raw` (CPU, cycles, header and words in hexadecimal) or `xenalyze` (as
    `xenalyze -a`; one item may hold several lines). domains: of the vCPU on the record's CPU. Window headers are left
    out unless `events` names them.
    """
    if form == "xenalyze":
        from xtrace.reports.xenalyze import dump

        yield from dump.lines(trace, selection, events, domains)
        return
    render = {"text": _Text, "json": _Json, "raw": _Raw}[form](trace)
    merger = trace.order()
    for batch, rows in trace.batches(selection):
        chosen = np.zeros(len(batch.starts), np.bool_)
        chosen[rows] = True
        if events is None:
            chosen &= batch.header & 0x0FFFFFFF != CPU_CHANGE.event_id
        if domains is not None:
            chosen &= np.isin(batch.domain, np.array(sorted(domains)))
        part = batch.take(chosen)
        shown = np.full(len(part.starts), None, object)
        if len(shown):
            for group in trace.groups(part, events):
                shown[group.rows] = render(part, group)
        items = np.full(len(batch.starts), None, object)
        items[chosen] = shown
        yield merger.feed(batch, items).tolist()
    yield merger.finish().tolist()


class _Renderer:
    """Lines for the records of one group."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def __call__(self, batch: Batch, group: Group) -> list[str]:
        part = batch.take(group.rows)
        return self.lines(part, group)

    def lines(self, part: Batch, group: Group) -> list[str]:
        raise NotImplementedError


class _Text(_Renderer):
    """Seconds, CPU, vCPU, event, then field=value of each field."""

    def lines(self, part: Batch, group: Group) -> list[str]:
        seconds = [_seconds(ns, bool(tsc)) for ns, tsc in zip(*_times(self.trace, part), strict=True)]
        heads = [
            f"{when:>16} {cpu:>4} {who:<8} {group.event.name}"
            for when, cpu, who in zip(seconds, self.trace.cpu_of(part).tolist(), _occupants(part), strict=True)
        ]
        fields = [
            [f" {name}={text}" for text in _texts(name, values, self._namer(name, group))]
            for name, values in group.columns.items()
            if not is_filler(name) and name not in PACKING
        ]
        constant = "".join(f" {name}={value}" for name, value in group.event.constants.items())
        return ["".join(parts) + constant for parts in zip(heads, *fields, strict=True)]

    def _namer(self, name: str, group: Group) -> Callable[[int], str] | None:
        """How to name the values of a coded field."""
        vendor = group.event.vendor or self.trace.dialect.vendor
        model = self.trace.tables.model
        if name in {"exit_reason", "exit_code"}:
            return lambda code: vectors.exit_name(code, vendor)
        if name == "op":
            return vectors.hypercall_name
        if name in {"vector", "vec0", "vec1", "vec2", "vec3"} and group.event.name in {
            "TRC_HVM_INTR",
            "TRC_PM_IDLE_EXIT",
            "TRC_HW_IRQ_UNMAPPED_VECTOR",
        }:
            return lambda code: vectors.vector_name(code, "lockless" if model == "lockless" else "legacy")
        if name == "func" and self.trace.symbols is not None:
            return self.trace.symbols.name
        return None


def _times(trace: Trace, part: Batch) -> tuple[list[int], list[int]]:
    return trace.clock.to_ns(part.tsc).tolist(), part.tsc.tolist()


def _seconds(ns: int, known: bool) -> str:
    """Exact decimal seconds; no float is between the trace and the reader."""
    if not known:
        return "-"
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    return f"{sign}{ns // 1_000_000_000}.{ns % 1_000_000_000:09d}"


def _occupants(part: Batch) -> list[str]:
    pairs = list(zip(part.domain.tolist(), part.vcpu.tolist(), strict=True))
    names = {pair: vcpu_name(*pair) for pair in set(pairs)}
    return [names[pair] for pair in pairs]


def _texts(name: str, values: Any, namer: Callable[[int], str] | None) -> list[str]:
    if values.ndim == 2:
        return ["[" + " ".join(f"{word:08x}" for word in row) + "]" for row in values.tolist()]
    plain = values.tolist()
    if name in _HEXADECIMAL:
        plain = ["-" if value is None else f"0x{value:x}" for value in plain]
    if namer is None:
        return [str(value) for value in plain]
    named = {value: namer(value) for value in set(values.tolist())}
    return [f"{shown}({named[value]})" for shown, value in zip(plain, values.tolist(), strict=True)]


class _Json(_Renderer):
    """One object a line; times and fields as numbers, what is not known as null."""

    def lines(self, part: Batch, group: Group) -> list[str]:
        ns, tsc = _times(self.trace, part)
        names = [name for name in group.columns if not is_filler(name)]
        columns = [group.columns[name].tolist() for name in names]
        constants = dict(group.event.constants)
        found = []
        heads = zip(ns, tsc, self.trace.cpu_of(part).tolist(), part.domain.tolist(), part.vcpu.tolist(), strict=True)
        for place, (when, cycles, cpu, dom, number) in enumerate(heads):
            record = {
                "ns": when if cycles else None,
                "tsc": cycles or None,
                "cpu": cpu,
                "domain": None if dom == NOBODY else dom,
                "vcpu": None if number == NOBODY else number,
                "event": group.event.name,
                "fields": {name: column[place] for name, column in zip(names, columns, strict=True)} | constants,
            }
            found.append(json.dumps(record, separators=(",", ":")))
        return found


class _Raw(_Renderer):
    """`CPU cycles header words…`, cycles `-` where the record has none of its own."""

    def lines(self, part: Batch, group: Group) -> list[str]:
        own = [f"{tsc:>20}" for tsc in part.tsc.tolist()]
        blank = " " * 19 + "-"
        return [
            f"{cpu:>4} {when if header >> 31 else blank} {header:08x} " + " ".join(f"{word:08x}" for word in words)
            for cpu, when, header, words in zip(
                self.trace.cpu_of(part).tolist(),
                own,
                part.header.tolist(),
                group.payload.tolist(),
                strict=True,
            )
        ]

"""Findings → violations, with the records as they are in the trace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from xtrace import columns
from xtrace.protocol.asked import CALL, Asked
from xtrace.protocol.rule import Finding
from xtrace.protocol.steps import EVENTS, LATEST, Steps
from xtrace.protocol.verdict import Record, Violation
from xtrace.states import cpu_of
from xtrace.symbols import function_names

if TYPE_CHECKING:
    from xtrace.trace import Trace


class Showing:
    """Makes violations of findings, with the records as they are in the trace."""

    def __init__(self, trace: Trace, found: Asked) -> None:
        self._trace = trace
        self._found = found

    def violations(self, findings: list[Finding], at_most: int | None) -> tuple[Violation, ...]:
        """The first of them, in order of time."""
        steps, requests = self._found.steps, self._found.requests
        whole = [
            (one.what, request, [row for row in rows if row >= 0])
            for one in (self._first(one, at_most) for one in findings)
            for request, *rows in zip(one.request.tolist(), *(rows.tolist() for rows in one.rows), strict=True)
        ]
        whole.sort(key=lambda one: min(int(steps.time[row]) for row in one[2]))
        whole = whole[:at_most]
        records = self._records(steps, {row for _, _, rows in whole for row in rows})
        return tuple(
            Violation(
                what,
                "call" if requests.kind[request] == CALL else "flush",
                int(cpu_of(requests.owner[request])),
                int(requests.seq[request]),
                tuple(records[row] for row in sorted(rows, key=lambda row: (steps.time[row], row))),
            )
            for what, request, rows in whole
        )

    def _first(self, finding: Finding, at_most: int | None) -> Finding:
        if at_most is None:
            return finding
        time = self._found.steps.time
        earliest = np.min([np.where(rows < 0, LATEST, time[rows]) for rows in finding.rows], axis=0)
        return finding.take(np.argsort(earliest, kind="stable")[:at_most])

    def _records(self, steps: Steps, wanted: Iterable[int]) -> dict[int, Record]:
        rows = np.array(sorted(wanted), np.int64)
        found: dict[int, Record] = {}
        for header in np.unique(steps.header[rows]).tolist():
            mine = rows[steps.header[rows] == header]
            event = self._trace.event_of(header)
            known = event in EVENTS.values()
            fields = columns.decode(event, steps.words[mine, : header >> 28 & 7]) if known else {}
            names, values = list(fields), [column.tolist() for column in fields.values()]
            times = steps.time[mine].astype(np.uint64)
            for place, (row, ns) in enumerate(zip(mine.tolist(), self._trace.clock.to_ns(times).tolist(), strict=True)):
                at = int(steps.at[row])
                found[row] = Record(
                    ns=ns,
                    tsc=int(steps.time[row]),
                    cpu=int(cpu_of(steps.track[row])),
                    event=event.name,
                    fields=self._named({name: column[place] for name, column in zip(names, values, strict=True)}),
                    offset=at if steps.by_byte else None,
                    number=None if steps.by_byte else at,
                )
        return found

    def _named(self, fields: dict[str, int | str]) -> dict[str, int | str]:
        symbols = self._trace.symbols
        func = fields.get("func")
        if symbols is None or not isinstance(func, int):
            return fields
        return fields | {"func_name": function_names(np.array([func], np.uint64), symbols)[0]}

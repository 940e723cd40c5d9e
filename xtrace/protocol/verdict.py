"""What a check found, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from xtrace.contract import frame
from xtrace.episodes.relations import Model

if TYPE_CHECKING:
    import pandas as pd

PROMISES: Final = {
    "legacy": "what the legacy design promises",
    "lockless": "what the lockless design promises",
    "unknown": "what every design promises (which one this is does not show; --model tells)",
}


@dataclass(frozen=True, slots=True)
class Record:
    """A record that shows a violation.

    ns      since the trace's first timestamp
    tsc     its cycle count
    fields  by name, as `xtrace dump` shows them; with a symbol map also `func_name`
    offset  byte of the uncompressed trace at which it begins; None in a dataset
    number  its place in the dataset's order of time, from 0; None in a file
    """

    ns: int
    tsc: int
    cpu: int
    event: str
    fields: dict[str, int | str]
    offset: int | None
    number: int | None


@dataclass(frozen=True, slots=True)
class Violation:
    """A request that breaks a promise: how, and the records that show it."""

    what: str
    kind: Literal["call", "flush"]
    initiator: int
    seq: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule found.

    models      the designs that promise it; all of them where the trace need not tell which it is
    count       of violations
    violations  the first of them in time, or all, as was asked for
    """

    rule: str
    models: tuple[Model, ...]
    promise: str
    count: int
    violations: tuple[Violation, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A CPU's clock was taken to be ahead of most others', or behind where that is negative."""

    capture: int
    cpu: int
    ahead_ns: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What a trace shows of the promises of its design.

    model             the design whose promises it was held against; unknown: only those of every design
    model_source      option: given, trace: recognised
    calls, flushes    checked: all of it was seen, or what was seen breaks a promise
    not_judged        how many were not, by what is missing
    rules             those that apply, broken or not
    clocks            differences between clocks that were allowed for
    """

    model: Model
    model_source: Literal["option", "trace"]
    calls: int
    flushes: int
    not_judged: dict[str, int]
    rules: tuple[Outcome, ...]
    clocks: tuple[Difference, ...]

    @property
    def count(self) -> int:
        """Violations of all rules."""
        return sum(one.count for one in self.rules)

    def verdict(self) -> str:
        """How many violations there are, in words."""
        broken = sum(one.count > 0 for one in self.rules)
        return f"{_number(self.count, 'violation')} of {_number(broken, 'rule')}" if broken else "no violation"

    def sentence(self) -> str:
        """All of it in a line."""
        unjudged = sum(self.not_judged.values())
        if not self.calls + self.flushes + unjudged:
            return "nothing to check: there is no call and no flush with TRC_HW_SMP records"
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.not_judged.items())
        rest = f" ({unjudged:,} not judged: {reasons})" if unjudged else ""
        return (
            f"{self.verdict()}: {_number(self.calls, 'call')} and {_number(self.flushes, 'flush')} checked against "
            f"{PROMISES[self.model]}{rest}"
        )

    def df_violations(self) -> pd.DataFrame:
        """A row a record of each violation, in the order of rules and time.

        rule       str
        violation  int64   counts the violations of a rule from 0
        what       str     how the request breaks the promise
        kind       str     call or flush
        initiator  int64   CPU
        seq        int64
        ns         int64   of the record, since the first timestamp
        cpu        int64   that wrote it
        event      str
        offset     Int64   byte at which it begins, <NA> in a dataset
        number     Int64   its place in a dataset, <NA> in a file
        """
        dtypes = dict.fromkeys(("rule", "violation", "what", "kind", "initiator", "seq", "ns", "cpu", "event"), "int64")
        dtypes |= dict.fromkeys(("rule", "what", "kind", "event"), "str")
        dtypes |= {"offset": "Int64", "number": "Int64"}
        return frame(self._rows(), dtypes)

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "rule": one.rule,
                "violation": place,
                "what": violation.what,
                "kind": violation.kind,
                "initiator": violation.initiator,
                "seq": violation.seq,
                "ns": record.ns,
                "cpu": record.cpu,
                "event": record.event,
                "offset": record.offset,
                "number": record.number,
            }
            for one in self.rules
            for place, violation in enumerate(one.violations)
            for record in violation.records
        ]


def _number(count: int, noun: str) -> str:
    plural = {"flush": "flushes"}.get(noun, f"{noun}s")
    return f"{count:,} {noun if count == 1 else plural}"

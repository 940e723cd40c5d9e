"""Every error xtrace raises on purpose, with the exit code a command ends on.

XtraceError                 1   the root; never raised itself
├── UsageError              2   an option or argument that cannot be used
├── InputError              3   a file that cannot be read, or holds nothing usable
├── MissingEventsError      4   a question the trace holds no events for
├── RegressionError         5   `compare --fail-on`: a figure grew more than it may
├── UnjudgedError           6   `compare --fail-on`: the traces cannot tell
└── ViolationError          7   `check`: the trace breaks what its hypervisor's design promises
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class XtraceError(Exception):
    """Root of every error meant for a person: its text is one plain line."""

    exit_code = 1


class UsageError(XtraceError):
    """An option or argument that cannot be used."""

    exit_code = 2


class InputError(XtraceError):
    """A trace that cannot be opened, or in which nothing usable was found."""

    exit_code = 3


class MissingEventsError(XtraceError):
    """A question about events that the trace does not hold.

    missing  the events asked for: names, classes or patterns
    present  what the trace has: records by event name, most frequent first
    """

    exit_code = 4

    def __init__(self, message: str, missing: Sequence[str] = (), present: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.missing = tuple(missing)
        self.present = dict(present or {})


class RegressionError(XtraceError):
    """A comparison found what `--fail-on` forbids."""

    exit_code = 5


class UnjudgedError(XtraceError):
    """A rule of `--fail-on` that the traces cannot decide."""

    exit_code = 6


class ViolationError(XtraceError):
    """`check`: the trace breaks what its hypervisor's design promises."""

    exit_code = 7

"""What to emulate, as a whole: from the command line, or from a workload file (docs/emulator.md)."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from xtrace.emulator.host import Emulation, Host
from xtrace.emulator.rings import Tool
from xtrace.emulator.workloads.bench import Bench
from xtrace.emulator.workloads.evacuate import Evacuate
from xtrace.emulator.workloads.idle import Idle
from xtrace.errors import InputError, UsageError

Made = TypeVar("Made")

Progress = Callable[[int, int], None]

MAX_SECONDS: Final = 3600.0
DEFAULT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """An emulation: a host, the workloads on it, the tool that traces it.

    seconds  how long it runs; None: until the bench is through, or DEFAULT_SECONDS
    """

    host: Host = field(default_factory=Host)
    evacuate: Evacuate | None = None
    bench: Bench | None = None
    idle: Idle | None = field(default_factory=Idle)
    tool: Tool = field(default_factory=Tool)
    seconds: float | None = None

    def run(self, progress: Progress = lambda _done, _all: None) -> Emulation:
        """Emulate it, and return the emulation once it is through. Raises UsageError where it cannot be.

        progress: called now and then with what is done and the whole, calls or milliseconds.
        """
        if self.seconds is not None and not 0 < self.seconds <= MAX_SECONDS:
            raise UsageError(f"{self.seconds} seconds: give up to {MAX_SECONDS:.0f}, more than 0")
        emulation = Emulation(self.host)
        # Those that need their CPUs come before those that take what is left.
        if self.evacuate is not None:
            self.evacuate.install(emulation)
        if self.bench is not None:
            self.bench.install(emulation)
        if self.idle is not None:
            self.idle.install(emulation)
        seconds = self.seconds
        if seconds is None and self.bench is None:
            seconds = DEFAULT_SECONDS
        if seconds is None and self.bench is not None:
            all_calls = self.bench.threads * self.bench.calls
            emulation.watched(lambda: progress(len(emulation.measured), all_calls))
        elif seconds is not None:
            emulation.watched(lambda: progress(int(emulation.duration_ns / 1e6), int(seconds * 1e3)))
        emulation.run(None if seconds is None else seconds * 1e9)
        return emulation


def read(path: str) -> Plan:
    """The plan of a workload file. Raises InputError where it cannot be read, UsageError for what it says."""
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a workload file: {error}") from error
    # What a file does not name is not there; what it names keeps the defaults of what it leaves out.
    plan = _made(Plan, {"idle": None} | found if "idle" not in found else found, path)
    if plan.evacuate is None and plan.bench is None and plan.idle is None:
        raise UsageError(f"{path}: no workload; give one or more of [bench], [evacuate] and [idle]")
    return plan


def _made(kind: type[Made], values: Mapping[str, Any], where: str) -> Made:
    """An instance of a dataclass from a TOML table; each value must be of its field's type."""
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            known = ", ".join(one.name for one in fields(kind))  # type: ignore[arg-type]
            raise UsageError(f"{where}: {name} is not known; give {known}")
        given[name] = None if value is None else _value(hints[name], value, f"{where}: {name}")
    return kind(**given)


def _value(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) in (Union, UnionType):
        hint = next(one for one in get_args(hint) if one is not type(None))
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise UsageError(f"{where}: give a table")
        return _made(hint, value, where)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UsageError(f"{where} = {value!r}: give {', '.join(get_args(hint))}")
        return value
    if get_origin(hint) is not None:
        return _offsets(value, where)
    number = isinstance(value, int) and not isinstance(value, bool)
    if hint is float and (number or isinstance(value, float)):
        return float(value)
    if (hint is int and number) or (hint in (str, bool) and isinstance(value, hint)):
        return value
    wanted = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}[hint]
    raise UsageError(f"{where} = {value!r}: give {wanted}")


MAX_OFFSET: Final = 1 << 40


def _offsets(value: Any, where: str) -> dict[int, int]:
    """TSC offsets by CPU, whose numbers TOML has as texts."""
    if isinstance(value, dict) and all(
        cpu.isdecimal() and type(ahead) is int and abs(ahead) < MAX_OFFSET for cpu, ahead in value.items()
    ):
        return {int(cpu): ahead for cpu, ahead in value.items()}
    raise UsageError(f"{where}: give CPUs and cycles, such as {{ 1 = 250, 5 = -90 }}")

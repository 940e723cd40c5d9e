"""The four designs, by the name the command line knows."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from xtrace.emulator.models.design import Design
from xtrace.emulator.models.fifo import Fifo
from xtrace.emulator.models.legacy import Legacy
from xtrace.emulator.models.linux import Linux
from xtrace.emulator.models.lockless import Lockless
from xtrace.errors import UsageError

DESIGNS: Final[Mapping[str, type[Design]]] = MappingProxyType(
    {one.name: one for one in (Legacy, Lockless, Linux, Fifo)}
)


def design_of(model: str | type[Design]) -> type[Design]:
    """A design by its name; one of your own is itself. Raises UsageError for an unknown name."""
    if not isinstance(model, str):
        return model
    if model not in DESIGNS:
        raise UsageError(f"no model {model}: give {', '.join(DESIGNS)}")
    return DESIGNS[model]

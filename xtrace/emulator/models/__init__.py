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

DESIGNS: Final[Mapping[str, type[Design]]] = MappingProxyType(
    {one.name: one for one in (Legacy, Lockless, Linux, Fifo)}
)

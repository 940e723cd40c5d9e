"""What each design of cross-CPU calls promises, held against what a trace shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xtrace.lazy import lazily

__all__ = ["Checked", "check"]

if TYPE_CHECKING:
    from xtrace.protocol.checking import check
    from xtrace.protocol.verdict import Checked

_HOMES = {"Checked": "verdict", "check": "checking"}

__getattr__ = lazily(__name__, _HOMES)

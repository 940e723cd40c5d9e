"""xtrace: what cross-CPU calls and TLB flushes cost on a Xen host, read from xentrace files.

>>> import xtrace
>>> with xtrace.open("trace.bin") as trace:
...     episodes = trace.episodes()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Selection", "Trace", "XtraceError", "__version__", "open"]

if TYPE_CHECKING:
    from xtrace.errors import XtraceError
    from xtrace.selection import Selection
    from xtrace.trace import Trace, open

_HOMES = {"Trace": "trace", "open": "trace", "Selection": "selection", "XtraceError": "errors"}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that `xtrace --help` need not."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"xtrace.{_HOMES[name]}"), name)

"""xtrace: what cross-CPU calls and TLB flushes cost on a Xen host, read from xentrace files.

>>> import xtrace
>>> with xtrace.open("trace.bin") as trace:
...     episodes = trace.df_episodes()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Dataset",
    "MissingEventsError",
    "Selection",
    "Trace",
    "XtraceError",
    "__version__",
    "compare",
    "emulate",
    "load",
    "open",
    "whatif",
]

if TYPE_CHECKING:
    from xtrace.comparing import compare
    from xtrace.dataset.load import Dataset, load
    from xtrace.emulator.emulate import emulate
    from xtrace.emulator.whatif import whatif
    from xtrace.errors import MissingEventsError, XtraceError
    from xtrace.opening import open
    from xtrace.selection import Selection
    from xtrace.trace import Trace

_HOMES = {
    "Dataset": "dataset.load",
    "MissingEventsError": "errors",
    "Selection": "selection",
    "Trace": "trace",
    "XtraceError": "errors",
    "compare": "comparing",
    "emulate": "emulator.emulate",
    "load": "dataset.load",
    "open": "opening",
    "whatif": "emulator.whatif",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that `xtrace --help` need not."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"xtrace.{_HOMES[name]}"), name)

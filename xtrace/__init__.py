"""xtrace: what cross-CPU calls and TLB flushes cost on a Xen host, read from xentrace files.

>>> import xtrace
>>> with xtrace.open("trace.bin") as trace:
...     episodes = trace.df_episodes()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xtrace.lazy import lazily

__version__ = "0.1.0"
__all__ = [
    "Dataset",
    "MissingEventsError",
    "Selection",
    "Trace",
    "XtraceError",
    "__version__",
    "check",
    "compare",
    "emulate",
    "load",
    "open",
    "store",
    "whatif",
]

if TYPE_CHECKING:
    from xtrace.comparing import compare
    from xtrace.dataset.load import Dataset, load
    from xtrace.dataset.store import store
    from xtrace.emulator.emulate import emulate
    from xtrace.emulator.whatif import whatif
    from xtrace.errors import MissingEventsError, XtraceError
    from xtrace.opening import open
    from xtrace.protocol.checking import check
    from xtrace.selection import Selection
    from xtrace.trace import Trace

_HOMES = {
    "Dataset": "dataset.load",
    "MissingEventsError": "errors",
    "Selection": "selection",
    "Trace": "trace",
    "XtraceError": "errors",
    "check": "protocol.checking",
    "compare": "comparing",
    "emulate": "emulator.emulate",
    "load": "dataset.load",
    "open": "opening",
    "store": "dataset.store",
    "whatif": "emulator.whatif",
}


__getattr__ = lazily(__name__, _HOMES)

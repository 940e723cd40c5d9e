"""Questions asked of the tables of episodes."""

from __future__ import annotations

from typing import Final

NAMES: Final = ("contention", "fairness", "cost", "stragglers", "log-dirty", "asynchronous", "waste", "clocks")
"""What the command line calls them, in the order in which reports answer them."""

OF_STOCK_TRACES: Final = frozenset(("log-dirty", "clocks"))
"""Those that traces without the tracepoints answer, too; each takes a pass of its own, and is asked for by name."""

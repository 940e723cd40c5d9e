"""Questions asked of the tables of episodes."""

from __future__ import annotations

from typing import Final

NAMES: Final = ("contention", "fairness", "cost", "stragglers", "log-dirty", "asynchronous", "waste")
"""What the command line calls them, in the order in which reports answer them."""

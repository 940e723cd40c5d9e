"""The host around the episodes: what its vCPUs and CPUs did, from all that xentrace records."""

from __future__ import annotations

from typing import Final

NAMES: Final = ("runstates", "cpus", "exits", "addresses", "interrupts", "pv", "memory", "power", "volume")
"""What the command line calls its parts, in the order in which reports show them."""

"""What can be chosen by name; apart from what is chosen, so that the command line knows it at once."""

from __future__ import annotations

from typing import Literal

Model = Literal["legacy", "lockless", "linux", "fifo"]
"""The four designs of calls and flushes: keys of `models.DESIGNS`."""

IpiMode = Literal["cluster", "physical"]
"""How x2APIC addresses several CPUs."""

Policy = Literal["random", "contiguous", "aligned", "fixed"]
"""How the benchmark draws masks: see `workloads.bench.Masks`."""

Records = Literal["all", "smp", "stock"]
"""Which records a trace has: all; only the tracepoints of calls and flushes; all but those."""

"""The reference emulator: one workload under several designs of Xen's cross-CPU calls, written as xentrace files.

`loop` keeps time, `machine` holds CPUs, interrupts and spinlocks, `models` the designs, `workloads` what is asked of
them, `tracepoints` what gets noted (records, and the truth beside them), `writer` the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xtrace.lazy import lazily

__all__ = ["Bench", "Costs", "Design", "Evacuate", "Host", "Idle", "Masks", "Plan"]

if TYPE_CHECKING:
    from xtrace.emulator.costs import Costs
    from xtrace.emulator.host import Host
    from xtrace.emulator.models.design import Design
    from xtrace.emulator.plan import Plan
    from xtrace.emulator.workloads.bench import Bench, Masks
    from xtrace.emulator.workloads.evacuate import Evacuate
    from xtrace.emulator.workloads.idle import Idle

_HOMES = {
    "Bench": "workloads.bench",
    "Costs": "costs",
    "Design": "models.design",
    "Evacuate": "workloads.evacuate",
    "Host": "host",
    "Idle": "workloads.idle",
    "Masks": "workloads.bench",
    "Plan": "plan",
}

__getattr__ = lazily(__name__, _HOMES)

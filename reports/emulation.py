"""What the emulator prints: what it wrote, the cover letter's table, and a prediction beside its trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.text import Text

from xtrace import units
from xtrace.reports.terminal import new_table, title

if TYPE_CHECKING:
    from xtrace.emulator.host import Emulation
    from xtrace.emulator.output import Written
    from xtrace.emulator.table import Table
    from xtrace.emulator.whatif import Line, Prediction


def emulation(out: Console, emulated: Emulation, written: Written) -> None:
    """What happened, and where it was written."""
    host = emulated.host
    out.print(
        f"{host.cpus} CPUs, {host.vendor}, {emulated.design.name}, seed {host.seed}: "
        f"{units.time(emulated.duration_ns)} emulated, {units.count(written.records)} records, "
        f"{units.count(written.lost)} lost"
    )
    rows = new_table("", "count", "mean", "p99", "max")
    for name, is_flush in (("calls", False), ("flushes", True)):
        took = np.array([one.done - one.start for one in emulated.requests if one.is_flush == is_flush and one.done])
        if len(took):
            ns = took * (1e9 / host.hz)
            figures = (float(ns.mean()), float(np.quantile(ns, 0.99)), float(ns.max()))
            rows.add_row(name, units.count(len(took)), *(units.time(one) for one in figures))
    out.print(rows)
    for what, count in sorted(emulated.counted.items()):
        out.print(f"{what}: {units.count(count)}, {units.count(count / emulated.duration_ns * 1e9)} a second")
    for label, path in (("trace", written.trace), ("truth", written.episodes), ("truth", written.deliveries)):
        out.print(Text(f"{label}: {units.printable(str(path))}"), soft_wrap=True)


def published(out: Console, found: Table) -> None:
    """All cells of the table: published, emulated and error, with the interval of the mean over the runs."""
    title(out, f"Change of a call's time, {found.after} against {found.before}, per cent")
    known = any(cell.published is not None for cell in found.cells)
    heads = ("published", "emulated", "95 % interval", "error") if known else ("emulated", "95 % interval")
    rows = new_table("CPUs in mask", "threads", *heads, left=0)
    for cell in found.cells:
        interval = "–" if np.isnan(cell.low) else f"{units.percent(cell.low)} … {units.percent(cell.high)}"
        shown = [units.percent(cell.change), interval]
        if cell.published is not None and cell.error is not None:
            shown = [units.percent(cell.published), *shown, units.percent(cell.error)]
        rows.add_row(str(cell.mask), str(cell.threads), *shown)
    out.print(rows)
    if found.rms_error is not None:
        out.print(f"root-mean-square error with 2 or more CPUs in the mask: {found.rms_error:.2f} points")


def prediction(out: Console, found: Prediction, path: str, against: str | None) -> None:
    """By phase and by cell: traced, replayed and predicted, with the spread of the replays."""
    out.print(Text(f"{units.printable(path)}: {found.traced_model}, as {found.model}"), style="bold", soft_wrap=True)
    left = f", {units.count(found.left_out)} incomplete left out" if found.left_out else ""
    out.print(f"{units.count(found.episodes)} calls and flushes replayed {found.runs} times{left}")
    heads = ["traced"]
    if any(line.replayed_ns is not None for line in found.phases.values()):
        heads.append("replayed")
    heads += ["predicted", "least … most", "change"]
    if against is not None:
        heads += ["other trace", "error"]
    title(out, "Mean by phase")
    rows = new_table("phase", *heads)
    for name, line in found.phases.items():
        rows.add_row(name, *_line(line, heads))
    out.print(rows)
    title(out, "Mean total by CPUs in the mask and callers")
    rows = new_table("mask", "callers", "count", *heads, left=0)
    for (mask, callers), line in found.cells.items():
        rows.add_row(str(mask), str(callers), units.count(line.episodes), *_line(line, heads))
    out.print(rows)
    if against is not None:
        out.print(Text(f"other trace: {units.printable(against)}"), soft_wrap=True)


def _line(line: Line, heads: list[str]) -> list[str]:
    shown = [units.time(line.traced_ns)]
    if "replayed" in heads:
        shown.append(units.time(line.replayed_ns))
    shown += [
        units.time(line.predicted_ns),
        f"{units.time(line.low_ns)} … {units.time(line.high_ns)}",
        _change(line.predicted_ns, line.traced_ns),
    ]
    if "other trace" in heads:
        other = line.against_ns
        shown += [units.time(other), "–" if other is None else _change(line.predicted_ns, other)]
    return shown


def _change(new: float, old: float) -> str:
    return f"{units.percent(100 * (new / old - 1))} %" if old > 0 else "–"

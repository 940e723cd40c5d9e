"""Interrupts between the vCPUs of an HVM guest with an emulated APIC."""

from __future__ import annotations

from typing import Final

import numpy as np

from xtrace.reports.xenalyze.guest import Vlapic
from xtrace.reports.xenalyze.host import LOST, STATES, Host, Vcpu

PAGE: Final = 0xFEE00000
COMMAND, END_OF_INTERRUPT = PAGE + 0x300, PAGE + 0xB0
SHORTHANDS: Final = ("dest_field", "self", "all-inc", "all-exc")
ALL_OTHERS: Final = 3
PENDING_BIT: Final = 1 << 12
MARGIN: Final = " " * 14


def access(host: Host, vcpu: Vcpu, gpa: int, data: int, now: int, *, write: bool) -> list[str]:
    """The lines behind an access to the APIC's page."""
    if gpa == END_OF_INTERRUPT:
        return [f"{MARGIN}[vla] {vcpu.name} eoi"]
    if gpa != COMMAND:
        return []
    if not write:
        return [f"{MARGIN}[vla] {vcpu.name} icr status {'pending' if data & PENDING_BIT else 'idle'}"]
    vector, shorthand = data & 0xFF, data >> 18 & 3
    lines = [f"{MARGIN}[vla] {vcpu.name} icr vec {vector} {SHORTHANDS[shorthand]}"]
    if shorthand == ALL_OTHERS:
        for _, other in sorted(host.domains.get(vcpu.domain, {}).items()):
            if other is not vcpu:
                lines += _send(other, vector, now)
    return lines


def _send(vcpu: Vcpu, vector: int, now: int) -> list[str]:
    if vcpu.state == LOST:
        return []
    pending = _of(vcpu).find(vector)
    if pending is None:
        return []
    pending.since = pending.since or now
    lines = [" [vla] Pre-injection"] if pending.injected and not pending.count else []
    pending.count += 1
    lines.append(f" [vla] {vcpu.name} vec {vector} state {STATES[vcpu.state]} (outstanding ipis {pending.count})")
    return lines


def inject(vcpu: Vcpu, vector: int) -> list[str]:
    """The line behind an injection."""
    pending = _of(vcpu).find(vector)
    if pending is None:
        return []
    pending.injected = True
    return [f"  [vla] {vcpu.name} vec {vector} injecting"]


def delivers(host: Host, vcpu: Vcpu, tsc: int) -> list[str]:
    """The lines before an entry that delivers: of vectors that were sent more than once."""
    lines = []
    for pending in _of(vcpu).delivered():
        if pending.count > 1:
            cycles = max(tsc - pending.since, 0)
            seconds, ns = divmod(int(host.clock.span_ns(np.array([cycles]))[0]), 1_000_000_000)
            lines.append(
                f" [vla] {vcpu.name} vec {pending.vector} ipis {pending.count}, latency {cycles} ({seconds}.{ns:09d} s)"
            )
    return lines


def _of(vcpu: Vcpu) -> Vlapic:
    if vcpu.vlapic is None:
        vcpu.vlapic = Vlapic()
    return vcpu.vlapic

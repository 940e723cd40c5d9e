"""Which vCPU a record of a PV or HVM guest is about."""

from __future__ import annotations

from collections.abc import Sequence

from xtrace.context import IDLE_DOMAIN
from xtrace.reports.xenalyze.guest import Guest
from xtrace.reports.xenalyze.host import Pcpu, Vcpu
from xtrace.reports.xenalyze.line import unknown


def hvm_guest(cpu: Pcpu) -> Vcpu | None:
    """The vCPU on this CPU, if it can be an HVM guest's, which it is from now on."""
    vcpu = cpu.current
    if vcpu is None or vcpu.pv or vcpu.domain == IDLE_DOMAIN:
        return None
    if vcpu.hvm is None:
        vcpu.hvm = Guest()
    return vcpu


def pv_guest(cpu: Pcpu) -> Vcpu | None:
    """The same of a PV guest."""
    vcpu = cpu.current
    if vcpu is None or vcpu.hvm is not None or vcpu.domain == IDLE_DOMAIN:
        return None
    vcpu.pv = True
    return vcpu


def unexpected(prefix: str, event_id: int, numbers: Sequence[int]) -> str:
    """The line of a record that cannot be about whoever is on its CPU."""
    return f"]{prefix[1:]}{unknown(event_id, numbers)}"

"""What runstate records do: who runs where, and which interrupts an HVM guest was awake for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xtrace.context import IDLE_DOMAIN
from xtrace.reports.xenalyze.host import BLOCKED, INIT, LOST, OFFLINE, QUEUED, RUNNABLE, RUNNING, Host, Pcpu, Vcpu

if TYPE_CHECKING:
    from xtrace.reports.xenalyze.guest import Guest


def continues(host: Host, cpu: Pcpu, prefix: str, text: str, record: tuple[Any, ...]) -> str:
    """A vCPU goes on running."""
    _, tsc, _, domain, number = record
    vcpu = host.vcpu(domain, number)
    nested: list[str] = []
    if _stays(host, cpu, vcpu, RUNNING, RUNNING, tsc, nested):
        if vcpu.state != RUNNING or vcpu.cpu is not cpu:
            if cpu.current is not None:
                host.leaves(cpu, cpu.current, LOST)
            host.arrives(cpu, vcpu)
        vcpu.state = RUNNING
    return "\n".join([prefix + text, *nested])


def changes(host: Host, cpu: Pcpu, prefix: str, text: str, record: tuple[Any, ...]) -> str:
    """A vCPU leaves one state for another."""
    _, tsc, _, domain, number, old, new = record
    vcpu = host.vcpu(domain, number)
    nested: list[str] = []
    if _stays(host, cpu, vcpu, old, new, tsc, nested):
        if RUNNING in (old, vcpu.state):
            host.leaves(cpu if old == RUNNING or vcpu.cpu is None else vcpu.cpu, vcpu, new)
            if vcpu.domain != IDLE_DOMAIN and host.losing:
                nested += host.loses(vcpu)
        elif new == RUNNING:
            host.arrives(cpu, vcpu)
        else:
            vcpu.state = new
    return "\n".join([prefix + text, *nested])


def _stays(host: Host, cpu: Pcpu, vcpu: Vcpu, old: int, new: int, tsc: int, nested: list[str]) -> bool:
    """Whether the change is to be believed; all that it brings about beside the change itself is done here."""
    mismatch, vcpu.mismatch = vcpu.mismatch, None
    if vcpu.state == INIT:
        _first_seen(host, cpu, vcpu, old, new)
        return False
    if vcpu.hvm is not None:
        if new == RUNNABLE:
            vcpu.hvm.close()
        if vcpu.state != LOST:
            nested += _waking(vcpu.hvm, vcpu.name, old, new, tsc)
    if vcpu.state == old:
        return True
    if vcpu.state == LOST:
        return new == RUNNING
    if mismatch == (new, old):
        # Two CPUs whose clocks differ told of the same two changes in the wrong order.
        return False
    vcpu.mismatch = (old, vcpu.state)
    return vcpu.state != RUNNING


def _first_seen(host: Host, cpu: Pcpu, vcpu: Vcpu, old: int, new: int) -> None:
    """A vCPU is not followed until it is seen running; one that ran before says that the stand-in was it."""
    if old == RUNNING and cpu.current is not None:
        cpu.current.state = QUEUED
        cpu.current = None
    if new == RUNNING:
        vcpu.state, vcpu.cpu, cpu.current = RUNNING, cpu, vcpu
    host.draw(cpu)


def _waking(guest: Guest, name: str, old: int, new: int, tsc: int) -> list[str]:
    if (old, new) == (BLOCKED, RUNNABLE):
        guest.waking = True
        return [f" [w2h] {name} Setting waking"]
    if old == RUNNING and new != OFFLINE:
        guest.waking = False
    if (old, new) == (RUNNING, BLOCKED):
        return guest.halt(tsc)
    return []

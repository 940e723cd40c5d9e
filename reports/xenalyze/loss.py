"""What lost records do: the marker counts twice, where the loss begins and where it ends."""

from __future__ import annotations

from typing import Any, Final

from xtrace.reports.xenalyze.host import LOST, RUNNING, STAND_IN_DOMAIN, Host, Pcpu

MARGIN: Final = " " * 15


def begins(host: Host, cpu: Pcpu, prefix: str, text: str, record: tuple[Any, ...]) -> str:
    """At the time of the first lost record: nobody is known any more on this CPU, nor any vCPU that is not running."""
    *_, there, number, first_tsc = record
    current = cpu.current
    who = "X" if current is None else current.name
    lines = [f"{prefix}{text} (cur {who}) first_tsc {first_tsc}"]
    if current is not None:
        current.vlapic = None
        if current.hvm is not None:
            current.hvm.exited, current.hvm.cr3 = False, 0
        host.leaves(cpu, current, LOST)
    host.losing += cpu.lost is None
    cpu.lost = there, number
    host.draw(cpu)
    for domain, vcpus in sorted(host.domains.items()):
        for _, vcpu in sorted(vcpus.items()):
            if vcpu.state != RUNNING and domain != STAND_IN_DOMAIN:
                lines += host.loses(vcpu)
    return "\n".join(lines)


def ends(host: Host, cpu: Pcpu, _prefix: str, _text: str, _record: tuple[Any, ...]) -> str | None:
    """At the time of the marker: it names the vCPU then there."""
    if cpu.lost is None:
        return None
    vcpu = host.vcpu(*cpu.lost)
    place = f"{MARGIN}{host.map_on(cpu)} lost_records end"
    cpu.lost = None
    host.losing -= 1
    host.arrives(cpu, vcpu)
    return f"{place} ---\n{place} {vcpu.name}---"

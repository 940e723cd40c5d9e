"""Lines of HVM events: exits, entries, and what is in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from xtrace.decode import Group
from xtrace.reports.xenalyze import vlapic
from xtrace.reports.xenalyze.guest import CR3, GUEST_VECTORS, Guest
from xtrace.reports.xenalyze.host import FIRST_LEVELS, Host, Pcpu, Vcpu
from xtrace.reports.xenalyze.kinds import hvm_guest, unexpected
from xtrace.reports.xenalyze.line import Line, Values, each, unknown, words, yes
from xtrace.reports.xenalyze.names import HANDLERS, HYPERCALLS, INTERRUPT_SOURCES, TRAPS, exit_namer, vector_namer
from xtrace.reports.xenalyze.paging import LONG_MODE_LEVELS, linear

if TYPE_CHECKING:
    from xtrace.trace import Trace

HANDLER_EVENTS: Final = 0x82000
WIDE: Final = 0x100
"""Bit of an event id: the 64-bit form."""
NESTED: Final = 0x400
WRITE: Final = 0x600
SLOW_CYCLES: Final = 10_000
"""Exits that took longer get an exclamation mark."""

Record = tuple[Any, ...]


def handler_text(event_id: int, numbers: Iterable[int]) -> str:
    """What follows the vCPU in the line of a handler event whose fields are not told."""
    number = event_id - HANDLER_EVENTS & ~WIDE
    name = HANDLERS.get(number, f"hvm_handler {number}").replace("_handler)", " handler)")
    return f" {name}{'64' if event_id & WIDE else ''}{words(numbers)}"


def _exits(_host: Host, cpu: Pcpu, prefix: str, text: str, record: Record) -> str:
    event_id, tsc, numbers, reason = record
    vcpu = hvm_guest(cpu)
    if vcpu is None or vcpu.hvm is None:
        return unexpected(prefix, event_id, numbers)
    if event_id & WIDE:
        vcpu.levels = LONG_MODE_LEVELS
    elif vcpu.levels == LONG_MODE_LEVELS:
        vcpu.levels = FIRST_LEVELS
    vcpu.hvm.exit(reason, tsc)
    return prefix + text


def _enters(host: Host, cpu: Pcpu, prefix: str, text: str, record: Record) -> str:
    event_id, tsc, numbers = record
    vcpu = hvm_guest(cpu)
    if vcpu is None or vcpu.hvm is None:
        return unexpected(prefix, event_id, numbers)
    guest = vcpu.hvm
    lines = [] if vcpu.vlapic is None else vlapic.delivers(host, vcpu, tsc)
    lines += guest.enter(vcpu.name, tsc)
    if guest.exited:
        cycles = tsc - guest.exit_tsc
        slow = "" if 0 <= cycles <= SLOW_CYCLES else "!"
        lines.append(f"{prefix}{text} cycles {cycles} {slow}")
        guest.close()
    else:
        lines.append(f"!{prefix[1:]}{text}")
    return "\n".join(lines) if len(lines) > 1 else lines[0]


Told = Callable[[Host, Vcpu, Guest, str, str, Record], str]
"""The line of a handler event in an exit that was seen."""


def _in_exit(told: Told) -> Callable[[Host, Pcpu, str, str, Record], str]:
    """A handler event that belongs to an exit; where that was not seen, its words are shown."""

    def handle(host: Host, cpu: Pcpu, prefix: str, text: str, record: Record) -> str:
        vcpu = hvm_guest(cpu)
        if vcpu is None or vcpu.hvm is None:
            return unexpected(prefix, record[0], record[2])
        if not vcpu.hvm.exited:
            return f"!{prefix[1:]}{handler_text(record[0], record[2])}"
        return told(host, vcpu, vcpu.hvm, prefix, text, record)

    return handle


def _claims(_host: Host, _vcpu: Vcpu, guest: Guest, prefix: str, text: str, _record: Record) -> str:
    guest.claim()
    return prefix + text


def _plain(_host: Host, _vcpu: Vcpu, _guest: Guest, prefix: str, text: str, _record: Record) -> str:
    return prefix + text


def _interrupted(_host: Host, _vcpu: Vcpu, guest: Guest, prefix: str, text: str, _record: Record) -> str:
    guest.about, guest.cr3_written = "", None
    return prefix + text


def _writes_cr(_host: Host, _vcpu: Vcpu, guest: Guest, prefix: str, text: str, record: Record) -> str:
    *_, register, value = record
    guest.write_cr(register, value)
    old = guest.cr3
    if register != CR3 or not old:
        return prefix + text
    return f"]{prefix[1:]} cr_write cr3 val {value:x} oval {old:x} {'flush' if old == value else 'switch'}"


def _reads_tsc(_host: Host, _vcpu: Vcpu, guest: Guest, prefix: str, text: str, record: Record) -> str:
    value = record[3]
    backwards = "BACKWARDS" if guest.rdtsc > value else ""
    guest.rdtsc = value
    return f"{prefix}{text} {backwards}"


def _accesses(host: Host, vcpu: Vcpu, guest: Guest, prefix: str, text: str, record: Record) -> str:
    event_id, tsc, _, gpa, data, _ = record
    guest.about, guest.mmio_data = guest.about or "other", True
    return "\n".join([prefix + text, *vlapic.access(host, vcpu, gpa, data, tsc, write=bool(event_id & WRITE))])


def _faults(_host: Host, vcpu: Vcpu, guest: Guest, prefix: str, _text: str, record: Record) -> str:
    *_, va, error = record
    place = linear(va, 0 if guest.mmio_data else vcpu.levels)
    guest.claim()
    indices = " ".join(map(str, place.indices))
    if place.level and not guest.mmio_data:
        how = f"pf_xen:emulate va {va:x} ec {error:x} level {place.level} corr {place.entry_of:x}"
    else:
        how = f"pf_xen va {va:x} ec {error:x}"
    return f"{prefix} {how} e->pt_index[{indices}]"


def _injects(_host: Host, cpu: Pcpu, prefix: str, text: str, record: Record) -> str:
    event_id, _, numbers, vector = record
    vcpu = hvm_guest(cpu)
    if vcpu is None or vcpu.hvm is None:
        return unexpected(prefix, event_id, numbers)
    lines = [prefix + text]
    if vector < GUEST_VECTORS:
        lines += vcpu.hvm.inject(vcpu.name, vector)
    lines += vlapic.inject(vcpu, vector)
    return "\n".join(lines)


def _anytime(_host: Host, cpu: Pcpu, prefix: str, text: str, record: Record) -> str:
    """A handler event that needs no exit."""
    return prefix + text if hvm_guest(cpu) else unexpected(prefix, record[0], record[2])


def _without_vcpu(host: Host, cpu: Pcpu, prefix: str, text: str, record: Record) -> str:
    """As `_anytime`, in a line that has no vCPU, and a time even where none is known."""
    if hvm_guest(cpu) is None:
        return unexpected(prefix, record[0], record[2])
    when = prefix[: -len(host.head(cpu)) - 1]
    return f"{when if when.strip() else '   0.000000000'} {host.map_on(cpu)}{text}"


def _exit_name(field: str) -> Values:
    def names(group: Group, trace: Trace) -> list[str]:
        name, codes = exit_namer(trace), group.columns[field].tolist()
        known = {code: name(code) for code in set(codes)}
        return [known[code] for code in codes]

    return names


def _vector(group: Group, trace: Trace) -> Iterable[str]:
    return map(vector_namer(trace), group.columns["vector"].tolist())


def _handler_words(group: Group, _: Trace) -> Iterable[str]:
    return [handler_text(group.event.event_id, numbers) for numbers in group.payload.tolist()]


def _hypercall(number: int) -> str:
    name = HYPERCALLS.get(number)
    return f"{number:2x} ({name})" if name else f"{number:2x}"


def _exit_line(event: str, code: str, address: str) -> Line:
    text = f"] vmexit exit_reason %(reason)s eip %({address})x"
    return Line(event, text, {"reason": _exit_name(code)}, _exits, (code,))


def _port(event: str, verb: str) -> tuple[Line, Line]:
    claims = _in_exit(_claims)
    return (
        Line(event, f"  io {verb} port %(port)x val %(data)x", handler=claims),
        Line(event, f"  io {verb} port %(port)x val -", handler=claims),
    )


def _mmio(event: str, verb: str) -> tuple[Line, Line]:
    return (
        Line(
            event,
            f"] mmio_assist {verb} gpa %(gpa)x data %(low)x",
            {"low": each("data", lambda data: data & 0xFFFFFFFF)},
            _in_exit(_accesses),
            ("gpa", "low", "data"),
        ),
        Line(event, f"] mmio_assist {verb} gpa %(gpa)x (no data)", handler=_in_exit(_claims)),
    )


LINES: Final = (
    _exit_line("TRC_HVM_VMEXIT", "exit_reason", "eip"),
    _exit_line("TRC_HVM_VMEXIT64", "exit_reason", "rip"),
    _exit_line("TRC_HVM_VMX_EXIT", "exit_reason", "eip"),
    _exit_line("TRC_HVM_VMX_EXIT64", "exit_reason", "rip"),
    _exit_line("TRC_HVM_SVM_EXIT", "exit_code", "eip"),
    _exit_line("TRC_HVM_SVM_EXIT64", "exit_code", "rip"),
    Line("TRC_HVM_VMENTRY", "] vmentry", handler=_enters),
    *(
        Line(event, "] pf_xen", handler=_in_exit(_faults), needs=("va", "error_code"))
        for event in ("TRC_HVM_PF_XEN", "TRC_HVM_PF_XEN64")
    ),
    Line(
        "TRC_HVM_PF_INJECT64",
        "  pf_inject64 guest_cr2 %(cr2)x  guest_ec %(error_code)x",
        handler=_without_vcpu,
    ),
    Line(
        "TRC_HVM_INJ_EXC",
        "  inj_exc trap %(trap)s ec %(code)x",
        {
            "trap": each("vector", lambda vector: TRAPS[vector] if vector < len(TRAPS) else vector),
            "code": each("error_code", lambda code: code & 0xFFFFFFFF),
        },
        _without_vcpu,
    ),
    Line(
        "TRC_HVM_INJ_VIRQ",
        "  inj_virq vec %(vector)u  %(fake)s",
        {"fake": yes("fake", "fake", "real")},
        _injects,
        ("vector",),
    ),
    Line(
        "TRC_HVM_INTR_WINDOW",
        "  intr_window vec %(vector)u src %(source)u(%(name)s) intr %(pending)s",
        {
            "name": each("source", lambda source: INTERRUPT_SOURCES[source] if source < 6 else "?"),
            "pending": each("pending_vector", lambda vector: f"{vector:x}" if vector > 0 else "#"),
        },
        _anytime,
    ),
    Line("TRC_HVM_INTR", "  intr vec %(name)s", {"name": _vector}, _in_exit(_interrupted), ("vector",)),
    Line("TRC_HVM_INTR", "  intr vec -", handler=_in_exit(_interrupted)),
    *_port("TRC_HVM_IOPORT_READ", "read"),
    *_port("TRC_HVM_IOPORT_WRITE", "write"),
    *_mmio("TRC_HVM_IOMEM_READ", "r"),
    *_mmio("TRC_HVM_IOMEM_WRITE", "w"),
    Line(
        "TRC_HVM_CR_WRITE64",
        "  cr_write cr%(cr)d val %(value)x",
        handler=_in_exit(_writes_cr),
        needs=("cr", "value"),
    ),
    Line("TRC_HVM_MSR_READ", "  msr_read addr %(msr)x val %(value)x", handler=_in_exit(_claims)),
    Line("TRC_HVM_MSR_WRITE", "  msr_write addr %(msr)x val %(value)x", handler=_in_exit(_claims)),
    Line("TRC_HVM_VMMCALL", "  vmcall %(call)s", {"call": each("eax", _hypercall)}, _in_exit(_claims)),
    Line("TRC_HVM_NPF", "  npf gpa %(gpa)x q %(qualification)x mfn %(mfn)x t %(p2mt)d", handler=_in_exit(_plain)),
    Line(
        "TRC_HVM_RDTSC",
        "  rdtsc %(guest_tsc)x %(guest_tsc)d",
        handler=_in_exit(_reads_tsc),
        needs=("guest_tsc",),
    ),
)


def _unknown_words(group: Group, _: Trace) -> Iterable[str]:
    return [unknown(group.event.event_id, numbers) for numbers in group.payload.tolist()]


HANDLER: Final = Line("", "]%(words)s", {"words": _handler_words}, _in_exit(_plain))
"""Any other handler event."""

OTHER: Final = Line("", "]%(words)s", {"words": _unknown_words}, _anytime)
"""Events that xenalyze does not know; whoever has them is taken for an HVM guest even so."""

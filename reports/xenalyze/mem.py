"""Lines of memory events: grants, p2m changes, populate-on-demand; and of the toolstack's and the buffer's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from xtrace.reports.xenalyze import loss
from xtrace.reports.xenalyze.line import Line

if TYPE_CHECKING:
    from xtrace.reports.xenalyze.host import Host, Pcpu

CONTEXTS: Final = {
    "vmx": {0x00: "fault", 0x30: "fault", 0x12: "balloon"},
    "svm": {0x4E: "fault", 0x400: "fault", 0x81: "balloon"},
}
"""Why a page is reclaimed, by the exit that the guest is in: page fault, violation of the nested table; hypercall."""


def _reclaimed(host: Host, cpu: Pcpu, prefix: str, text: str, _: tuple[Any, ...]) -> str:
    guest = cpu.current.hvm if cpu.current else None
    reason = guest.reason if guest and guest.exited else -1
    context = CONTEXTS[host.vendor or "vmx"].get(reason, "unknown")
    return f"{prefix}{text} ctx {context}"


MAPPED: Final = "d%(domid)d o%(order)d g %(gfn)x m %(mfn)x"

LINES: Final = (
    Line("TRC_MEM_PAGE_GRANT_MAP", "  grant-map domain %(domid)u"),
    Line("TRC_MEM_PAGE_GRANT_UNMAP", "  grant-unmap domain %(domid)u"),
    Line("TRC_MEM_PAGE_GRANT_TRANSFER", "  grant-transfer domain %(domid)u"),
    Line("TRC_MEM_SET_P2M_ENTRY", "  set_p2m_entry d%(domid)u o%(order)u t %(p2mt)u g %(gfn)x m %(mfn)x"),
    Line("TRC_MEM_DECREASE_RESERVATION", "  decrease_reservation d%(domid)d o%(order)d g %(gfn)x"),
    Line("TRC_MEM_POD_POPULATE", f"  pod_populate {MAPPED}"),
    Line("TRC_MEM_POD_ZERO_RECLAIM", f"  pod_zero_reclaim {MAPPED}", handler=_reclaimed),
    Line("TRC_MEM_POD_SUPERPAGE_SPLINTER", "  pod_spage_splinter d%(domid)d g %(gfn)x"),
    Line("TRC_DOM0_DOM_ADD", "  creating domain d%(domid)u"),
    Line("TRC_DOM0_DOM_REM", "  destroying domain d%(domid)u"),
    Line(
        "TRC_LOST_RECORDS",
        "  lost_records count %(lost)u d%(domid)uv%(vcpuid)u",
        handler=loss.begins,
        needs=("domid", "vcpuid", "first_tsc"),
    ),
)

SILENT: Final = ("TRC_TRACE_WRAP_BUFFER", "TRC_TRACE_CPU_CHANGE")
"""Records without a line."""

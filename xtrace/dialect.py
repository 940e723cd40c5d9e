"""Who wrote a trace: the CPU vendor and the Xen release, as far as its records tell (they are not in the file)."""

from __future__ import annotations

from typing import Final

from xtrace.context import header_of
from xtrace.parsers.registry import EVENTS, Dialect
from xtrace.parsers.vendor import Vendor
from xtrace.survey import Survey

RUNQ_LOAD: Final = next(header_of(event) for event in EVENTS if event.name == "TRC_CSCHED2_UPDATE_RUNQ_LOAD")
_SVM_EXITS: Final = [header_of(event) for event in EVENTS if event.name in {"TRC_HVM_SVM_EXIT", "TRC_HVM_SVM_EXIT64"}]
_INTR: Final = {event.vendor: header_of(event) for event in EVENTS if event.name == "TRC_HVM_INTR"}
DIALECT_SAMPLES_PER_BLOCK: Final = 16
"""Few of the RUNQ_LOAD records tell enough."""


def recognise_dialect(found: Survey) -> Dialect:
    """Vendor and release by the evidence that records give; None for what they leave open.

    An exit id of its own for AMD came with 4.19; stack garbage behind credit2's load record ended with 4.17; an
    interrupt record names its vector on VMX only (xen/arch/x86/hvm, xen/common/sched/credit2.c).
    """
    if any(found.counts[header] for header in _SVM_EXITS):
        return Dialect("svm", 19)
    vendor: Vendor | None = None
    if found.counts[_INTR["svm"]]:
        vendor = "svm"
    elif found.counts[_INTR["vmx"]]:
        vendor = "vmx"
    release = 17 if (found.records(RUNQ_LOAD).payload[:, 5] != 0).any() else None
    return Dialect(vendor, release)

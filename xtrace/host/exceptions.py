"""What x86 calls its exceptions (Intel SDM volume 3 chapter 6, AMD APM volume 2 chapter 8)."""

from __future__ import annotations

from typing import Final

EXCEPTIONS: Final = {
    0: "#DE divide error",
    1: "#DB debug",
    2: "NMI",
    3: "#BP breakpoint",
    4: "#OF overflow",
    5: "#BR bound range",
    6: "#UD invalid opcode",
    7: "#NM device not available",
    8: "#DF double fault",
    9: "coprocessor overrun",
    10: "#TS invalid TSS",
    11: "#NP segment not present",
    12: "#SS stack fault",
    13: "#GP general protection",
    14: "#PF page fault",
    16: "#MF x87 floating point",
    17: "#AC alignment check",
    18: "#MC machine check",
    19: "#XM SIMD floating point",
    20: "#VE virtualization",
    21: "#CP control protection",
    28: "#HV hypervisor injection",
    29: "#VC VMM communication",
    30: "#SX security",
}
"""By number."""


def exception_name(number: int) -> str:
    """Mnemonic and name; `exception 31` for one without."""
    return EXCEPTIONS.get(number, f"exception {number}")

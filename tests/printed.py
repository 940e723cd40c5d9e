"""What the hypervisors of the pair bench8-* measured themselves, with their own clock in their own loop."""

from __future__ import annotations

from typing import Final

HZ: Final = 60_000_000

PRINTED_NS: Final = {
    (1, 1): (542_466, 534_304),
    (1, 2): (1_061_008, 602_790),
    (1, 4): (2_119_167, 727_440),
    (2, 1): (543_075, 534_099),
    (2, 2): (1_060_023, 745_423),
    (2, 4): (2_119_170, 1_037_573),
    (4, 1): (543_124, 534_663),
    (4, 2): (1_051_767, 907_822),
    (4, 4): (2_104_278, 1_493_673),
}
"""CPUs in the mask, callers → mean time of a call in ns, legacy and lockless."""

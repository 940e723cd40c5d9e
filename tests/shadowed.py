"""A guest under shadow paging, whose exits are of all kinds: no real trace here has one.

It uses PAE: of guests with four levels of page tables xenalyze stops at the first record of shadow paging.
"""

from __future__ import annotations

from typing import Final

SHADOWED: Final = """
    0 cpu0 RUNSTATE_CHANGE domid=32767 vcpuid=0 old_state=running new_state=runnable
    10 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    1000 cpu0 VMEXIT exit_reason=28 eip=0x81000010
    - cpu0 CR_WRITE64 cr=3 value=0x5000
    2000 cpu0 VMENTRY
    5000 cpu0 VMEXIT exit_reason=0 eip=0x401000
    - cpu0 SHADOW_EMULATE paging_levels=3 va=0xc0603018 flags=0x2020
    5700 cpu0 VMENTRY
    6000 cpu0 VMEXIT exit_reason=0 eip=0x401000
    - cpu0 SHADOW_EMULATE paging_levels=3 va=0x7000 flags=0x200
    6100 cpu0 VMENTRY
    7000 cpu0 VMEXIT exit_reason=0 eip=0x81000020
    - cpu0 SHADOW_PREALLOC_UNPIN gfn=7
    - cpu0 SHADOW_FIXUP paging_levels=3 va=0x8000 flags=0x40000
    - cpu0 SHADOW_RESYNC_ONLY gfn=9
    7300 cpu0 VMENTRY
    8000 cpu0 VMEXIT exit_reason=0 eip=0x81000020
    - cpu0 SHADOW_MMIO paging_levels=3 va=0x82000000
    - cpu0 IOMEM_WRITE gpa=0xfed00000 data=5
    8400 cpu0 VMENTRY
    9000 cpu0 VMEXIT exit_reason=0 eip=0x81000020
    - cpu0 SHADOW_NOT_SHADOW paging_levels=3 va=0x1234 flags=0
    9500 cpu0 VMENTRY
    10000 cpu0 VMEXIT exit_reason=1 eip=0x401008
    - cpu0 INTR vector=0xfb
    10600 cpu0 VMENTRY
    11000 cpu0 VMEXIT exit_reason=48 eip=0x401008
    - cpu0 NPF gpa=0xe0000000 mfn=0 p2mt=4
    - cpu0 IOMEM_READ gpa=0xe0000000 data=5
    11700 cpu0 VMENTRY
    12000 cpu0 VMEXIT exit_reason=28 eip=0x81000010
    - cpu0 SHADOW_RESYNC_FULL gfn=1
    - cpu0 CR_WRITE64 cr=3 value=0x6000
    12800 cpu0 VMENTRY
    13000 cpu0 VMEXIT exit_reason=28 eip=0x81000010
    - cpu0 CR_WRITE64 cr=3 value=0x6000
    13900 cpu0 VMENTRY
    14000 cpu0 VMEXIT exit_reason=28 eip=0x81000010
    - cpu0 CR_WRITE64 cr=3 value=0x5000
    14950 cpu0 VMENTRY
    15000 cpu0 VMEXIT exit_reason=12 eip=0x81000011
    - cpu0 HLT runnable=0
    15100 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
    15300 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=blocked new_state=runnable
    15400 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=runnable new_state=running
    15500 cpu0 VMENTRY
    16000 cpu0 VMEXIT exit_reason=30 eip=0x81000012
    - cpu0 IOPORT_WRITE port=0x3f8 data=1
    16600 cpu0 VMENTRY
    17000 cpu0 VMEXIT exit_reason=28 eip=0x81000010
    - cpu0 CR_WRITE64 cr=3 value=0x6000
    17100 cpu0 VMENTRY
    18000 cpu0 RUNSTATE_CHANGE domid=1 vcpuid=0 old_state=running new_state=blocked
"""

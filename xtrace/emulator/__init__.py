"""The reference emulator: one workload under several designs of Xen's cross-CPU calls, written as xentrace files.

`loop` keeps time, `machine` holds CPUs, interrupts and spinlocks, `models` the designs, `workloads` what is asked of
them, `tracepoints` what gets noted (records, and the truth beside them), `writer` the file.
"""

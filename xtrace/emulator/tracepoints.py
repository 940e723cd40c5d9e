"""The TRC_HW_SMP tracepoints of the emulated hypervisor (docs/tracepoints.md), and the truth noted beside them."""

from __future__ import annotations

from typing import Final

from xtrace.emulator.log import Layout, Log
from xtrace.emulator.machine import Activity, Cpu
from xtrace.emulator.requests import Request, Served
from xtrace.parsers import smp

_LAYOUTS: Final = {event.event_id: Layout.of(event) for event in smp.EVENTS}
_CALL: Final = tuple(
    _LAYOUTS[one] for one in (smp.CALL_START, smp.CALL_SEND, smp.CALL_DONE, smp.CALL_ENTER, smp.CALL_EXIT)
)
_FLUSH: Final = tuple(
    _LAYOUTS[one] for one in (smp.FLUSH_START, smp.FLUSH_SEND, smp.FLUSH_DONE, smp.FLUSH_ENTER, smp.FLUSH_EXIT)
)
_START, _SEND, _DONE, _ENTER, _EXIT = range(5)

SEQ_END: Final = 1 << 32
WORD_CPUS: Final = 64


class Tracepoints:
    """Notes each step of a request: a record in `log`, and the truth in the request; `requests` holds all of them.

    takes      cycles that noting a step takes, with interrupts off; that of ENTER counts as the function's
    first_seq  where every CPU's counts begin
    """

    def __init__(self, log: Log, takes: int, first_seq: int) -> None:
        self.requests: list[Request] = []
        self._log = log
        self._takes = takes
        self._first = first_seq
        self._next: dict[tuple[int, bool], int] = {}

    def start(self, cpu: Cpu, request: Request) -> Activity:
        """`on_selected_cpus()` or `flush_area_mask()` is entered."""
        key = (cpu.number, request.is_flush)
        request.seq = self._next.get(key, self._first)
        self._next[key] = (request.seq + 1) % SEQ_END
        request.start = cpu.now
        request.found = cpu.situation()
        cpu.calling += 1
        self.requests.append(request)
        if request.is_flush:
            self._note(cpu, request, _START, request.seq, request.va, request.flush_flags)
        else:
            self._note(cpu, request, _START, request.seq, request.func, int(request.wait), len(request.targets))
        yield from self._noted(cpu)

    def send(self, cpu: Cpu, request: Request) -> Activity:
        """IPIs are about to go out: a record for each word of the mask."""
        request.send = cpu.now
        words: dict[int, int] = {}
        for one in request.targets:
            words[one // WORD_CPUS] = words.get(one // WORD_CPUS, 0) | 1 << one % WORD_CPUS
        for word, mask in words.items():
            self._note(cpu, request, _SEND, request.seq, word * WORD_CPUS, mask)
        yield from self._noted(cpu)

    def done(self, cpu: Cpu, request: Request) -> Activity:
        """The caller stops waiting."""
        request.done = cpu.now
        cpu.calling -= 1
        self._note(cpu, request, _DONE, request.seq)
        yield from self._noted(cpu)

    def enter(self, cpu: Cpu, request: Request) -> None:
        """A target is about to run the function."""
        request.served[cpu.number] = Served(cpu.now, cpu.situation())
        self._note(cpu, request, _ENTER, request.initiator, request.seq)

    def exit(self, cpu: Cpu, request: Request) -> Activity:
        """A target ran the function."""
        request.served[cpu.number].left = cpu.now
        self._note(cpu, request, _EXIT, request.initiator, request.seq)
        yield from self._noted(cpu)

    def _note(self, cpu: Cpu, request: Request, step: int, *fields: int) -> None:
        layout = (_FLUSH if request.is_flush else _CALL)[step]
        request.rows.append(self._log.add(cpu.number, cpu.now, layout, *fields))

    def _noted(self, cpu: Cpu) -> Activity:
        if self._takes:
            enabled, cpu.interrupts = cpu.interrupts, False
            yield self._takes
            cpu.interrupts = enabled

"""Hypothesis strategies: records, windows and whole captures, built through the declarations in parsers/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from construct import Array
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from xtrace.parsers.container import CPU_CHANGE_HEADER, MAX_CPU, CpuChange, RecordHeader
from xtrace.parsers.event import CLASSES, Event
from xtrace.parsers.fields import u32, u64
from xtrace.parsers.pv import Packed
from xtrace.parsers.registry import EVENTS

MAX_WORDS = 7
DECLARED = [event for event in EVENTS if event.event_id != CPU_CHANGE_HEADER & 0xFFFFFFF]
"""Every event a hypervisor writes: all but the window header, which is xentrace's own."""

words32 = st.integers(0, 0xFFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Record:
    """One record: `tsc` None where it has no cycle count."""

    event_id: int
    payload: tuple[int, ...] = ()
    tsc: int | None = None

    @property
    def header(self) -> int:
        """Its header word."""
        return int(u32.parse(self.build()[:4]))

    def build(self) -> bytes:
        """Its bytes."""
        header = {"event_id": self.event_id, "words": len(self.payload), "timestamped": self.tsc is not None}
        cycles = b"" if self.tsc is None else u64.build(self.tsc)
        return RecordHeader.build(header) + cycles + build_words(self.payload)


@dataclass(frozen=True, slots=True)
class Window:
    """The records one CPU had to give in one round."""

    cpu: int
    records: tuple[Record, ...] = ()

    def build(self) -> bytes:
        """Its bytes, CPU_CHANGE header first."""
        return build_window(self.cpu, b"".join(record.build() for record in self.records))


def build_words(words: Sequence[int]) -> bytes:
    """32-bit words as bytes."""
    return bytes(Array(len(words), u32).build(list(words)))


def build_window(cpu: int, body: bytes, size: int | None = None) -> bytes:
    """A window header, with a size other than its body's where one is given, and the body."""
    change = {"cpu": cpu, "window_size": len(body) if size is None else size}
    return bytes(u32.build(CPU_CHANGE_HEADER) + CpuChange.build(change) + body)


def build_capture(windows: Sequence[Window]) -> bytes:
    """What xentrace would have written."""
    return b"".join(window.build() for window in windows)


def payload_words(event: Event) -> SearchStrategy[tuple[int, ...]]:
    """Payload words an event of this declaration may have: any values, and any number where it is open."""
    if event.words is not None:
        free = st.tuples(*[words32] * event.words)
    elif event.payload is Packed:
        free = packed_words()
    else:
        free = st.lists(words32, max_size=MAX_WORDS).map(tuple)
    if event.first_word is None:
        return free
    mask, value = event.first_word
    return free.map(lambda words: (words[0] & ~mask & 0xFFFF_FFFF | value, *words[1:]))


@st.composite
def packed_words(draw: Any) -> tuple[int, ...]:
    """A hypercall's op word and arguments: mostly as many words as it promises, sometimes not."""
    sizes = draw(st.lists(st.integers(0, 3), min_size=6, max_size=6))
    op = draw(st.integers(0, 0xFFFFF)) | sum(size << 20 + 2 * index for index, size in enumerate(sizes))
    promised = min(sum(size for size in sizes if size < 3), MAX_WORDS - 1)
    count = draw(st.one_of(st.just(promised), st.integers(0, MAX_WORDS - 1)))
    return (op, *draw(st.lists(words32, min_size=count, max_size=count)))


@st.composite
def records(draw: Any, events: Sequence[Event] = DECLARED) -> Record:
    """A record of a declared event; its cycle count, where it has one, is small: see `captures`."""
    event = draw(st.sampled_from(events))
    event_id = draw(st.integers(event.event_id, event.last_id))
    tsc = draw(st.integers(0, 1 << 20)) if event.timestamped else None
    return Record(event_id, draw(payload_words(event)), tsc)


@st.composite
def undeclared_records(draw: Any) -> Record:
    """A record no declaration knows the meaning of, of any class: guest, several class bits, unknown bits."""
    known = st.sampled_from(sorted(CLASSES))
    trace_class = draw(st.one_of(st.integers(1, 0xFFF), known))
    event_id = trace_class << 16 | draw(st.integers(0, 0xFFFF))
    if event_id == CPU_CHANGE_HEADER & 0xFFFFFFF:
        event_id ^= 1
    payload = tuple(draw(st.lists(words32, max_size=MAX_WORDS)))
    return Record(event_id, payload, draw(st.none() | st.integers(0, 1 << 20)))


cpus = st.one_of(st.integers(0, 7), st.integers(0, MAX_CPU))


@st.composite
def captures(
    draw: Any, record: SearchStrategy[Record] | None = None, max_windows: int = 12, max_records: int = 12
) -> list[Window]:
    """Windows as xentrace writes them: the cycle counts of each CPU never go back."""
    if record is None:
        record = st.one_of(records(), records(), undeclared_records())
    drawn = draw(st.lists(st.tuples(cpus, st.lists(record, max_size=max_records)), min_size=1, max_size=max_windows))
    clock: dict[int, int] = {}
    windows = []
    for cpu, inside in drawn:
        stamped = []
        for one in inside:
            if one.tsc is None:
                stamped.append(one)
                continue
            clock[cpu] = clock.get(cpu, 1 << 40) + one.tsc
            stamped.append(Record(one.event_id, one.payload, clock[cpu]))
        windows.append(Window(cpu, tuple(stamped)))
    return windows


@st.composite
def word_streams(draw: Any, max_chunks: int = 30) -> bytes:
    """Runs of words to walk: good captures, hostile words, long runs of the same, and any mix of them."""
    chunk = st.one_of(
        captures(max_windows=3).map(build_capture),
        st.lists(words32, max_size=40).map(build_words),
        st.tuples(words32, st.integers(1, 300)).map(lambda run: build_words([run[0]] * run[1])),
        records().map(Record.build),
        st.integers(0, 15).map(lambda top: build_words([top << 28])),
    )
    return b"".join(draw(st.lists(chunk, max_size=max_chunks)))

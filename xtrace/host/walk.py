"""Records of chosen events, of all CPUs in one order of time, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from xtrace.states import TRACK_BITS, cpu_of
from xtrace.words import Words

if TYPE_CHECKING:
    from xtrace.decode import Batch
    from xtrace.parsers.event import Event
    from xtrace.trace import Trace

Ints = NDArray[np.int64]

MAX_WORDS: Final = 7
"""Payload words of a record (xen/include/public/trace.h, TRACE_EXTRA_MAX)."""
NOT_WANTED: Final = -1


@dataclass(slots=True)
class Chunk:
    """Records of one capture, in order of time (`Trace.order`).

    capture       int64
    header        uint32
    ns            int64   since the trace's first timestamp; 0 where its CPU had none yet
    cpu           int32
    domain, vcpu  int32   who was on its CPU when it was written, of a record that switches vCPUs who ran before it;
                          NOBODY where not known
    words         uint32 (n, MAX_WORDS), the payload, zeros behind its end
    """

    capture: Ints
    header: Words
    ns: Ints
    cpu: NDArray[np.int32]
    domain: NDArray[np.int32]
    vcpu: NDArray[np.int32]
    words: Words

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """All of it, in order."""
        return self.capture, self.header, self.ns, self.cpu, self.domain, self.vcpu, self.words

    def take(self, rows: Ints | NDArray[np.bool_] | slice) -> Chunk:
        """Some of the records."""
        return Chunk(*(column[rows] for column in self.columns))

    def payload(self, rows: Ints, header: int) -> Words:
        """uint32 (rows, payload words) of records that bear `header`; with it `decode.groups` takes a chunk."""
        return self.words[rows, : header >> 28 & 7]

    @classmethod
    def of(cls, trace: Trace, batch: Batch, rows: Ints) -> Chunk:
        """Some of the records of a batch, in its order."""
        part = batch.take(rows)
        words = np.zeros((len(rows), MAX_WORDS), np.uint32)
        size = part.header >> np.uint32(28) & np.uint32(7)
        first = part.starts + 1 + 2 * (part.header >> np.uint32(31)).astype(np.int64)
        for word in range(MAX_WORDS):
            there = np.flatnonzero(size > word)
            words[there, word] = part.words.take(first[there] + word)
        ns = np.where(part.tsc == 0, 0, trace.clock.to_ns(part.tsc))
        capture = part.track.astype(np.int64) >> TRACK_BITS
        return cls(capture, part.header, ns, cpu_of(part.track), part.domain, part.vcpu, words)


def joined(chunks: list[Chunk]) -> Chunk:
    """One behind the other."""
    return Chunk(*map(np.concatenate, zip(*(chunk.columns for chunk in chunks), strict=True)))


def in_time(
    trace: Trace,
    wanted: Callable[[Event], bool],
    read: Callable[[Batch], None] | None = None,
    finish: Callable[[], None] | None = None,
) -> Iterator[Chunk]:
    """The records of the events wanted, by a pass over the trace; each chunk is of one capture.

    read: told each batch, as it comes, before the records of it that are wanted. finish: told when a capture ends.
    """
    capture: int | None = None
    for chunk in _chunks(trace, wanted, read):
        now = int(chunk.capture[0])
        if finish is not None and capture not in (None, now):
            finish()
        capture = now
        yield chunk
    if finish is not None:
        finish()


def _chunks(trace: Trace, wanted: Callable[[Event], bool], read: Callable[[Batch], None] | None) -> Iterator[Chunk]:
    order = trace.order()
    known: dict[int, bool] = {}
    held: list[Chunk] = []
    numbers: list[Ints] = []
    base = 0

    def ready(turn: Ints) -> Iterator[Chunk]:
        nonlocal held, numbers
        if not len(turn):
            return
        waiting, number = joined(held), np.concatenate(numbers)
        rows = np.searchsorted(number, turn)
        left = np.ones(len(number), np.bool_)
        left[rows] = False
        held, numbers = [waiting.take(left)], [number[left]]
        yield from by_capture(waiting.take(rows))

    for batch, _ in trace.batches():
        if read is not None:
            read(batch)
        headers, kind = np.unique(batch.header, return_inverse=True)
        for header in set(headers.tolist()) - known.keys():
            known[header] = wanted(trace.event_of(header))
        rows = np.flatnonzero(np.array([known[header] for header in headers.tolist()], np.bool_)[kind])
        items = np.full(len(batch.header), NOT_WANTED)
        items[rows] = base + np.arange(len(rows))
        held.append(Chunk.of(trace, batch, rows))
        numbers.append(items[rows])
        base += len(rows)
        yield from ready(order.feed(batch, items).astype(np.int64))
    yield from ready(order.finish().astype(np.int64))


def by_capture(chunk: Chunk) -> Iterator[Chunk]:
    """A chunk cut where another capture begins."""
    cuts = np.flatnonzero(np.diff(chunk.capture)) + 1
    for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(chunk.ns)], strict=True):
        yield chunk.take(slice(begin, end))

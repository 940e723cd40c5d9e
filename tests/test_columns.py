"""One declaration, two engines: what Construct parses one by one equals what columns.py cuts at once."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from conftest import Sample
from construct import Container, ListContainer
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import payload_words

from xtrace.columns import Columns, decode, dtype_of
from xtrace.parsers.event import Event
from xtrace.parsers.pv import Packed
from xtrace.parsers.registry import EVENTS, Dialect, needs_first_word, resolve
from xtrace.scan import record_starts
from xtrace.words import RECORD_WORDS

Fields = dict[str, Any]


def flat(parsed: Container[Any]) -> Fields:
    """A parsed payload with bit ranges under their own names, as plain values."""
    fields: Fields = {}
    for name, value in parsed.items():
        if name == "_io":
            continue
        if isinstance(value, Container):
            fields.update(value)
        else:
            fields[name] = list(value) if isinstance(value, ListContainer) else value
    return fields


def rows(columns: Columns, count: int) -> list[Fields]:
    """Columns as one mapping a record; what is masked is None, and left out of a repeating field."""
    lists = []
    for column in columns.values():
        assert len(column) == count
        values = column.tolist()
        if column.ndim > 1 and isinstance(column, np.ma.MaskedArray):
            values = [[one for one in value if one is not None] for value in values]
        lists.append(values)
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)] or [{}] * count


def assert_equal(event: Event, words: NDArray[np.uint32]) -> None:
    """Both engines give the same names, values and order for these payloads."""
    columnar = rows(decode(event, words), len(words))
    data, size = words.astype("<u4").tobytes(), words.shape[1] * 4
    for index, fields in enumerate(columnar):
        expected = flat(event.payload.parse(data[index * size : (index + 1) * size]))
        assert list(fields.items()) == list(expected.items()), f"{event.name}, {event.variant}"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.event_id:07x}-{event.variant}")
@given(data=st.data())
def test_any_payload(event: Event, data: st.DataObject) -> None:
    payloads = data.draw(st.lists(payload_words(event), min_size=1, max_size=5))
    # One call decodes records of one length.
    for length in {len(payload) for payload in payloads}:
        same = [payload for payload in payloads if len(payload) == length]
        assert_equal(event, np.array(same, np.uint32).reshape(len(same), length))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.event_id:07x}-{event.variant}")
def test_no_records(event: Event) -> None:
    columns = decode(event, np.zeros((0, event.words or 3), np.uint32))
    assert all(len(column) == 0 for column in columns.values())


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.event_id:07x}-{event.variant}")
def test_dtype_has_the_size_of_its_payload(event: Event) -> None:
    kind = dtype_of(event.payload)
    assert (kind is None) == (event.words is None)
    if kind is not None and event.words:
        assert kind.itemsize == event.words * 4


def test_a_hypercall_without_a_word() -> None:
    """Xen writes none, damage may."""
    event = resolve(0x020100D, 0, timestamped=True)
    assert rows(decode(event, np.zeros((3, 0), np.uint32)), 3) == [{}] * 3


def test_packed_hypercall_by_hand() -> None:
    op_word = 1 | 1 << 20 | 2 << 22 | 1 << 28
    event = next(event for event in EVENTS if event.payload is Packed)
    words = np.array([[op_word, 7, 8, 9, 10, 11], [2, 1, 2, 3, 4, 5]], np.uint32)
    first, second = rows(decode(event, words), 2)
    assert (first["op"], first["arg0"], first["arg1"], first["arg2"]) == (1, 7, 8 | 9 << 32, None)
    assert (first["arg4"], first["rest"]) == (10, [11])
    assert (second["op"], second["arg0"], second["rest"]) == (2, None, [1, 2, 3, 4, 5])


@cache
def payloads_of(path: str) -> dict[int, NDArray[np.uint32]]:
    """All payloads of a trace by header word."""
    words = np.fromfile(path, "<u4")
    starts = record_starts(words)
    headers = words[starts]
    found = {}
    for header in np.unique(headers).tolist():
        at = starts[headers == header] + 1 + 2 * (header >> 31)
        length = RECORD_WORDS[header >> 28] - 1 - 2 * (header >> 31)
        found[header] = words[at[:, None] + np.arange(length)]
    return found


def by_event(header: int, payloads: NDArray[np.uint32], dialect: Dialect) -> list[tuple[Event, Any]]:
    """The payloads of one header word, by the declaration that fits them."""
    event_id, length, stamped = header & 0xFFF_FFFF, header >> 28 & 7, bool(header >> 31)
    if not needs_first_word(event_id, length):
        return [(resolve(event_id, length, stamped, dialect=dialect), payloads)]
    return [
        (resolve(event_id, length, stamped, first, dialect), payloads[payloads[:, 0] == first])
        for first in np.unique(payloads[:, 0]).tolist()
    ]


def test_every_record_of_the_real_traces(trace_name: str, sample: Sample) -> None:
    """All decode as columns; each distinct payload is parsed by Construct as well."""
    dialect = Dialect("vmx" if trace_name.startswith("vmx") else "svm", 17)
    decoded = 0
    for header, payloads in payloads_of(str(sample(trace_name))).items():
        for event, words in by_event(header, payloads, dialect):
            assert event.variant != "undeclared", f"{event.name} with {words.shape[1]} words"
            columns = decode(event, words)
            assert all(len(column) == len(words) for column in columns.values())
            decoded += len(words)
            # The engines look at nothing but the payload, so each distinct one need be compared only once.
            assert_equal(event, np.unique(words, axis=0) if words.shape[1] else words[:1])
    assert decoded == sum(len(payloads) for payloads in payloads_of(str(sample(trace_name))).values())

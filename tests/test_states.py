"""Values that last, carried from window to window of each CPU: arrays against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xtrace.states import STATE, TRACK_BITS, Carry, Tracks, cpu_of, states

Rows = list[tuple[int, int]]
"""By window: its CPU and the value that it sets, 0 for none."""

blocks = st.lists(st.lists(st.tuples(st.sampled_from([0, 1, 5, 16_383]), st.integers(0, 9)), max_size=12), max_size=5)


@given(blocks, st.data())
def test_carry(parts: list[Rows], data: st.DataObject) -> None:
    """The value before a window is the last that an earlier one of its CPU set, in this block or any before."""
    carry = Carry(np.uint64)
    known: dict[int, int] = {}
    for part in parts:
        if data.draw(st.booleans()):
            carry.clear()
            known.clear()
        track = np.array([cpu for cpu, _ in part], np.int32)
        value = np.array([value for _, value in part], np.uint64)
        expected = []
        for cpu, new in part:
            expected.append(known.get(cpu, 0))
            if new:
                known[cpu] = new
        asked = sorted(data.draw(st.sets(st.sampled_from(range(len(part)))))) if part else []
        found = carry.before(Tracks(track), value, value > 0, np.array(asked, np.int64))
        assert found.dtype == np.uint64
        assert found.tolist() == [expected[row] for row in asked]


@given(blocks)
def test_another_capture_knows_nothing(parts: list[Rows]) -> None:
    """What a CPU did in one capture tells nothing about the same CPU in the next."""
    carry = Carry(np.uint32, 2)
    for capture, part in enumerate(parts):
        track = np.array([capture << TRACK_BITS | cpu for cpu, _ in part], np.int64)
        assert cpu_of(track).tolist() == [cpu for cpu, _ in part]
        value = np.array([(value, 7) for _, value in part], np.uint32).reshape(-1, 2)
        found = carry.before(Tracks(track), value, value[:, 0] > 0, np.arange(len(part)))
        first = {cpu: index for index, (cpu, _) in reversed(list(enumerate(part)))}
        assert all(found[index].tolist() == [0, 0] for index in first.values())


def test_states_are_the_words() -> None:
    words = np.arange(20, dtype=np.uint32).reshape(2, 2, 5)
    view = states(words)
    assert view.dtype == STATE
    assert view.shape == (2, 2)
    assert view[1, 0].tolist() == (10, 11, 12, 13 | 14 << 32)
    # A selection of channels is not contiguous.
    assert states(words[:, 1:])["second"].tolist() == [[7], [17]]

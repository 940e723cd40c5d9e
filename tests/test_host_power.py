"""How CPUs slept: the sums of a real trace, and small captures for what it does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from conftest import Opened, Sample
from host_parts import followed

import xtrace
from xtrace.host.power import FrequencyChange, Power, PowerAccount
from xtrace.reports import terminal
from xtrace.reports.sections import power as paint
from xtrace.selection import Selection


def test_a_real_trace(sample: Sample) -> None:
    """Sums over pairs of entries and wake-ups, added up one by one from the events' table."""
    with xtrace.open(sample("vmx-legacy"), cpu_hz=60_000_000) as trace:
        found = followed(trace, PowerAccount).found(0)
        tables = [trace.df_events(name) for name in ("TRC_PM_IDLE_ENTRY", "TRC_PM_IDLE_EXIT")]
    expected: dict[tuple[int, int], list[int]] = {}
    vectors: dict[int, int] = {}
    shorter = 0
    for cpu in (0, 1):
        rows = sorted(
            (row["ns"], row["event"], row) for table in tables for row in table[table["cpu"] == cpu].to_dict("records")
        )
        entry = None
        for _, event, row in rows:
            if event == "TRC_PM_IDLE_EXIT" and entry is not None and entry["cx_index"] == row["cx_index"]:
                held = expected.setdefault((cpu, row["cx_index"]), [])
                held.append(row["tick"] - entry["tick"])
                shorter += held[-1] < 1000 * entry["predicted_us"]
            if event == "TRC_PM_IDLE_EXIT":
                for vector in {row[f"vec{place}"] for place in range(4)} - {0}:
                    vectors[vector] = vectors.get(vector, 0) + 1
            entry = row if event == "TRC_PM_IDLE_ENTRY" else None
    assert sum(map(len, expected.values())) == 84
    assert {
        (one.cpu, one.c_state): (one.sleeps, one.residency and one.residency.total_ns) for one in found.c_states
    } == {key: (len(ticks), sum(ticks)) for key, ticks in expected.items()}
    assert sum(one.shorter for one in found.c_states) == shorter == 2
    assert {one.vector: one.count for one in found.wake_ups} == vectors
    assert [(one.name, one.count) for one in found.wake_ups] == [("LOCAL_TIMER", 83), ("CALL_FUNCTION", 2)]
    assert (found.lengths, found.unlisted, found.frequency) == ("ticks", 0, ())
    spread = found.c_states[-1].residency
    assert spread is not None
    assert sorted(expected[1, 4])[68 // 2] == spread.p50_ns
    assert not spread.weighted


TICKS: Final = """
    0 cpu0 PM_IDLE_ENTRY cx_index=2 tick={a} expected_us=50 predicted_us=30
    40000 cpu0 PM_IDLE_EXIT cx_index=2 tick={b} vec0=0x31 vec1=0xfb
    60000 cpu0 PM_IDLE_ENTRY cx_index=2 tick={c} expected_us=50 predicted_us=30
    80000 cpu0 PM_IDLE_EXIT cx_index=2 tick={d}
"""


@pytest.mark.parametrize(
    ("ticks", "lengths", "total"),
    [
        # The counter passes 2^32 within the first sleep.
        ((4_294_966_296, 38_000, 60_000, 80_000), "ticks", 39_000 + 20_000),
        # 143 and 71 ticks of 279.36 ns, the first over 2^24.
        ((16_777_200, 127, 1000, 1071), "pm timer", 39_949 + 19_834),
        ((5, 5, 5, 5), "records", 60_000),
    ],
)
def test_what_the_ticks_count(ticks: tuple[int, ...], lengths: str, total: int, opened: Opened) -> None:
    with opened(TICKS.format(**dict(zip("abcd", ticks, strict=True)))) as trace:
        found = followed(trace, PowerAccount).found(0)
    (one,) = found.c_states
    assert found.lengths == lengths
    assert one.residency is not None
    assert (one.sleeps, one.residency.total_ns) == (2, total)
    assert (one.expected.mean_ns, one.predicted.mean_ns, one.shorter) == (50_000, 30_000, 1)
    assert [(wake.name, wake.vector, wake.count) for wake in found.wake_ups] == [
        ("DYNAMIC_0x31", 0x31, 1),
        ("CALL_FUNCTION", 0xFB, 1),
    ]
    assert found.unlisted == 1


def test_a_long_sleep(opened: Opened) -> None:
    """Longer than the counter can tell: the records say how often it began again."""
    text = """
        0 cpu0 PM_IDLE_ENTRY cx_index=1 tick=100
        9000000000 cpu0 PM_IDLE_EXIT cx_index=1 tick=409999000
    """
    with opened(text) as trace:
        found = followed(trace, PowerAccount, Selection(from_ns=1_000_000_000, to_ns=3_000_000_000)).found(0)
        whole = followed(trace, PowerAccount).found(0)
    assert whole.c_states[0].residency is not None
    assert whole.c_states[0].residency.total_ns == 409_998_900 + 2 * (1 << 32)
    # It neither begins nor ends in the span.
    (one,) = found.c_states
    assert (one.sleeps, one.share, one.expected.mean_ns, one.shorter) == (0, 1.0, None, 0)
    assert "–" in {cell.text for cell in paint.section(found).tables[0].rows[0]}


def test_what_is_no_sleep(opened: Opened) -> None:
    """Another state at the end, a loss between, an end without a begin, a CPU that is not selected."""
    text = """
        0 cpu0 PM_IDLE_EXIT cx_index=1 tick=1
        10 cpu0 PM_IDLE_ENTRY cx_index=1 tick=10
        20 cpu0 PM_IDLE_EXIT cx_index=2 tick=20
        25 cpu0 PM_IDLE_ENTRY cx_index=0 tick=25
        30 cpu0 PM_IDLE_ENTRY cx_index=0 tick=30
        50 cpu0 LOST_RECORDS lost=2 domid=32767 vcpuid=0 first_tsc=35
        60 cpu0 PM_IDLE_EXIT cx_index=0 tick=60
        70 cpu0 PM_IDLE_ENTRY cx_index=1 tick=70
        75 cpu1 PM_IDLE_ENTRY cx_index=1 tick=75
        85 cpu0 PM_IDLE_EXIT cx_index=1 tick=85
        99 cpu1 PM_IDLE_EXIT cx_index=1 tick=99
    """
    with opened(text) as trace:
        for piece in (None, 1, 2):
            found = followed(trace, PowerAccount, Selection(cpus=frozenset({0})), piece=piece).found(0)
            assert [(one.cpu, one.sleeps) for one in found.c_states] == [(0, 1)]
            assert found.c_states[0].residency is not None
            assert found.c_states[0].residency.total_ns == 15
            assert found.unlisted == 4


def test_frequencies(opened: Opened, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
        10 cpu1 PM_FREQ_CHANGE old_mhz=2600 new_mhz=800
        20 cpu1 PM_FREQ_CHANGE old_mhz=800 new_mhz=2600
        30 cpu1 PM_FREQ_CHANGE old_mhz=2600 new_mhz=800
        40 cpu0 PM_FREQ_CHANGE old_mhz=2600 new_mhz=800
    """
    with opened(text) as trace:
        found = followed(trace, PowerAccount).found(0)
    assert found.frequency == (
        FrequencyChange(0, 2600, 800, 1),
        FrequencyChange(1, 800, 2600, 1),
        FrequencyChange(1, 2600, 800, 2),
    )
    assert found.lengths is None
    terminal.chapter(terminal.console(110), paint.section(found))
    shown = capsys.readouterr().out
    assert "Frequencies changed 4 times." in shown
    assert "   1      2,600      800        2" in shown


def test_a_stored_trace_tells_the_same(sample: Sample, tmp_path: Path) -> None:
    with xtrace.open(sample("vmx-legacy"), cpu_hz=60_000_000) as trace:
        expected = followed(trace, PowerAccount).found(0)
        written = xtrace.store(trace, tmp_path / "set")
        for piece in (1, 13):
            assert followed(trace, PowerAccount, piece=piece).found(0) == expected
    with xtrace.open(written.folder) as stored:
        assert followed(stored, PowerAccount).found(0) == expected


def test_frame_and_screen(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    with xtrace.open(sample("vmx-legacy"), cpu_hz=60_000_000) as trace:
        found = followed(trace, PowerAccount).found(0)
    assert found.df_c_states()["sleeps"].sum() == 84
    terminal.chapter(terminal.console(110), paint.section(found))
    shown = capsys.readouterr().out
    assert "2 CPUs slept 84 times, 3.77 s together" in shown
    assert max(map(len, shown.splitlines())) <= 110
    assert [picture.title for picture in paint.pictures(found)] == ["How CPUs slept"]


def test_nothing_to_tell(opened: Opened) -> None:
    with opened("1 cpu0 CSCHED2_TICKLE") as trace:
        found = followed(trace, PowerAccount).found(0)
    assert found == Power(None, (), (), 0, ())
    assert paint.section(found).text == (paint.NONE,)
    assert paint.pictures(found) == ()

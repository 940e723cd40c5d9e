"""`xtrace check` on small traces: one thing at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from captures import record
from checked import counts
from conftest import Opened
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Window, build_capture

from xtrace.episodes.relations import Model
from xtrace.protocol import check
from xtrace.trace_file import TraceFile

MODELS: Final[tuple[Model | None, ...]] = (None, "legacy", "lockless", "unknown")


class TestSmallTraces:
    """One thing at a time."""

    def found(self, opened: Opened, text: str, model: Any = None) -> dict[str, int]:
        with opened(text) as source:
            return counts(check(source, model))

    CARRIED = """
        0 cpu0 FLUSH_START seq=1
       10 cpu0 FLUSH_SEND seq=1 mask=1
       20 cpu0 CALL_START seq=7 n_cpus=1 wait=1
       30 cpu0 CALL_SEND seq=7 mask=1
      100 cpu1 CALL_ENTER initiator_cpu=0 seq=7
      110 cpu1 FLUSH_ENTER initiator_cpu=0 seq=1
      120 cpu1 FLUSH_EXIT initiator_cpu=0 seq=1
      130 cpu1 CALL_EXIT initiator_cpu=0 seq=7
      200 cpu0 CALL_DONE seq=7
      210 cpu0 FLUSH_DONE seq=1
      """

    def test_a_flush_rides_on_a_call_under_lockless_only(self, opened: Opened) -> None:
        assert self.found(opened, self.CARRIED) == {}
        assert self.found(opened, self.CARRIED, "unknown") == {}
        assert self.found(opened, self.CARRIED, "legacy") == {"by-itself": 1, "nesting": 1}

    def test_another_mask_than_that_of_the_flush(self, opened: Opened) -> None:
        other = self.CARRIED.replace("CALL_SEND seq=7 mask=1", "CALL_SEND seq=7 mask=1,2").replace(
            "n_cpus=1", "n_cpus=2"
        )
        assert self.found(opened, other) == {"mask": 1}

    @pytest.mark.parametrize("at", [125, 105])
    def test_a_target_flushes_outside_of_the_call(self, opened: Opened, at: int) -> None:
        moved = {125: ("130 cpu1 CALL_EXIT", "115 cpu1 CALL_EXIT"), 105: ("100 cpu1 CALL_ENTER", "115 cpu1 CALL_ENTER")}
        assert self.found(opened, self.CARRIED.replace(*moved[at])) == {"carried": 1} | (
            {"nesting": 1} if at > 110 else {}
        )

    LATER = """
        0 cpu0 CALL_START seq=1 n_cpus=1 wait=0
       10 cpu0 CALL_SEND seq=1 mask=1
       20 cpu0 CALL_DONE seq=1
      100 cpu0 CALL_START seq=2 n_cpus=1 wait=0
      200 cpu0 CALL_SEND seq=2 mask=1
      210 cpu0 CALL_DONE seq=2
      {at} cpu1 VMENTRY
      400 cpu1 CALL_ENTER initiator_cpu=0 seq=1
      500 cpu1 CALL_EXIT initiator_cpu=0 seq=1
      """

    def test_a_descriptor_used_again_before_a_check_in(self, opened: Opened) -> None:
        assert self.found(opened, self.LATER.format(at=300), "lockless") == {"descriptor": 1}

    def test_enter_is_noted_some_time_after_the_check_in(self, opened: Opened) -> None:
        assert self.found(opened, self.LATER.format(at=150), "lockless") == {}

    def test_a_design_with_a_descriptor_for_each_target(self, opened: Opened) -> None:
        text = self.LATER.format(at=300).replace("CALL_SEND seq=2 mask=1", "CALL_SEND seq=2 mask=2")
        assert self.found(opened, text, "lockless") == {}

    @pytest.mark.parametrize(("at", "expected"), [(300, {"answers": 1}), (150, {})])
    def test_done_before_a_check_in(self, opened: Opened, at: int, expected: dict[str, int]) -> None:
        text = self.LATER.format(at=at).replace("      100 cpu0 CALL_START seq=2", "     1000 cpu0 CALL_START seq=2")
        text = text.replace("200 cpu0 CALL_SEND", "1010 cpu0 CALL_SEND").replace(
            "210 cpu0 CALL_DONE", "1020 cpu0 CALL_DONE"
        )
        text = text.replace("20 cpu0 CALL_DONE seq=1", "250 cpu0 CALL_DONE seq=1")
        assert self.found(opened, text, "legacy") == expected
        assert self.found(opened, text, "lockless") == {}

    def test_what_xen_does_without_a_start_or_a_send(self, opened: Opened) -> None:
        """Number 0 has no START where the mask was empty at first, and none is sent where it is empty then."""
        text = """
            0 cpu0 FLUSH_START seq=1
           10 cpu0 FLUSH_DONE seq=1
           20 cpu0 FLUSH_START seq=2
           30 cpu0 FLUSH_DONE seq=2
           35 cpu0 CALL_START seq=4
           36 cpu0 CALL_DONE seq=4
           40 cpu0 CALL_SEND seq=0 mask=1
           50 cpu1 CALL_ENTER initiator_cpu=0 seq=0
           60 cpu1 CALL_EXIT initiator_cpu=0 seq=0
           70 cpu0 CALL_DONE seq=0
           80 cpu0 CALL_SEND seq=0 mask=1
           90 cpu1 CALL_ENTER initiator_cpu=0 seq=0
          100 cpu1 CALL_EXIT initiator_cpu=0 seq=0
          110 cpu0 CALL_DONE seq=0
          """
        for model in ("legacy", "unknown"):
            assert self.found(opened, text, model) == {}
        assert self.found(opened, text.replace("10 cpu0 FLUSH_DONE", "10 cpu0 FLUSH_START")) != {}

    def test_a_cpu_that_was_offline_counts_anew(self, opened: Opened) -> None:
        call = """
          {0}00 cpu0 CALL_START seq={1} n_cpus=1 wait=1
          {0}10 cpu0 CALL_SEND seq={1} mask=1
          {0}20 cpu1 CALL_ENTER initiator_cpu=0 seq={1}
          {0}30 cpu1 CALL_EXIT initiator_cpu=0 seq={1}
          {0}40 cpu0 CALL_DONE seq={1}"""
        numbers = ((1, 1), (2, 2), (3, 3), (4, 1), (5, 2), (6, 3), (7, 4))
        with opened("".join(call.format(*one) for one in numbers)) as source:
            found = check(source)
        assert (found.calls, counts(found), found.not_judged) == (6, {}, {"with records of their CPU missing": 1})

    LOST = """
        0 cpu0 CALL_START seq=1 n_cpus=1 wait=1
       10 cpu0 CALL_SEND seq=1 mask=1
       20 cpu1 CALL_ENTER initiator_cpu=0 seq=1
       {what}
       40 cpu0 CALL_DONE seq=1
       50 cpu0 CALL_START seq=2 n_cpus=1 wait=1
       60 cpu0 CALL_SEND seq=2 mask=1
       70 cpu1 CALL_ENTER initiator_cpu=0 seq=2
       80 cpu1 CALL_EXIT initiator_cpu=0 seq=2
       90 cpu0 CALL_DONE seq=2
       """

    def test_what_was_lost_is_not_missing(self, opened: Opened) -> None:
        assert self.found(opened, self.LOST.format(what="")) == {"enter-exit": 1}
        with opened(self.LOST.format(what="65 cpu1 LOST_RECORDS lost=1 first_tsc=30")) as source:
            found = check(source)
        assert counts(found) == {}
        assert (found.calls, found.not_judged) == (1, {"with a target whose records do not show it": 1})
        with opened(self.LOST.format(what="30 cpu1 CALL_EXIT initiator_cpu=0 seq=1")) as source:
            assert check(source).calls == 2

    def test_a_cpu_that_runs_a_guest_has_left_what_it_entered(self, opened: Opened) -> None:
        text = """
            0 cpu0 CALL_START seq=1 n_cpus=1 wait=1
           10 cpu0 CALL_SEND seq=1 mask=1
           20 cpu1 CALL_ENTER initiator_cpu=0 seq=1
           30 cpu{cpu} VMENTRY
           """
        assert self.found(opened, text.format(cpu=1)) == {"enter-exit": 1}
        assert self.found(opened, text.format(cpu=0)) == {"ends": 1}
        assert self.found(opened, text.format(cpu=2)) == {}

    ANSWERED: Final = "220200 cpu1 CALL_EXIT initiator_cpu=0 seq=220"
    BUSY: Final = """
        220250 cpu0 CALL_ENTER initiator_cpu=2 seq=1
        221900 cpu0 CALL_EXIT initiator_cpu=2 seq=1"""

    @pytest.mark.parametrize(
        ("after", "what", "expected"),
        [
            (900, ANSWERED, {}),
            (2_000, ANSWERED, {"ends": 1}),
            (2_000, "", {}),
            (2_000, ANSWERED + BUSY, {}),
            (4_000, ANSWERED + BUSY, {"ends": 1}),
        ],
    )
    def test_a_caller_that_all_have_answered_and_that_waits_on(
        self, opened: Opened, after: int, what: str, expected: dict[str, int]
    ) -> None:
        call = """
          {0}000 cpu0 CALL_START seq={0} n_cpus=1 wait=1
          {0}010 cpu0 CALL_SEND seq={0} mask=1
          {0}100 cpu1 CALL_ENTER initiator_cpu=0 seq={0}"""
        rest = """
          {0}200 cpu1 CALL_EXIT initiator_cpu=0 seq={0}
          {0}300 cpu0 CALL_DONE seq={0}"""
        calls = "".join((call + rest).format(number) for number in range(100, 220))
        text = f"{calls}{call.format(220)}\n{what}\n{220_200 + after + 10_000} cpu0 TRC_SCHED_WAKE\n"
        assert self.found(opened, text) == expected

    def test_a_mask_of_which_a_part_was_lost(self, opened: Opened) -> None:
        text = """
            0 cpu0 CALL_START seq=1 n_cpus=2 wait=1
           10 cpu0 CALL_SEND seq=1 mask=1
           {what}
           20 cpu1 CALL_ENTER initiator_cpu=0 seq=1
           21 cpu64 CALL_ENTER initiator_cpu=0 seq=1
           30 cpu1 CALL_EXIT initiator_cpu=0 seq=1
           31 cpu64 CALL_EXIT initiator_cpu=0 seq=1
           40 cpu0 CALL_DONE seq=1
           """
        assert self.found(opened, text.format(what="11 cpu0 CALL_SEND seq=1 first_cpu=64 mask=0")) == {}
        assert self.found(opened, text.format(what="12 cpu0 LOST_RECORDS lost=1 first_tsc=11")) == {}
        assert self.found(opened, text.format(what="")) == {"in-mask": 1, "mask": 1}

    def test_a_flush_within_a_call_of_a_cpu_that_was_not_traced(self, opened: Opened) -> None:
        steps = """
          100 cpu1 CALL_ENTER initiator_cpu=0 seq=7
          110 cpu1 FLUSH_ENTER initiator_cpu=0 seq=1
          120 cpu1 FLUSH_EXIT initiator_cpu=0 seq=1
          130 cpu1 CALL_EXIT initiator_cpu=0 seq=7
          """.strip().splitlines()
        for begin in range(4):
            for end in range(begin + 1, 5):
                assert self.found(opened, "\n".join(steps[begin:end]), "lockless") == {}
        assert self.found(opened, "\n".join(steps[place] for place in (0, 1, 3, 2)), "lockless") == {"nesting": 1}

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    (
                        "CALL_START",
                        "CALL_SEND",
                        "CALL_DONE",
                        "CALL_ENTER",
                        "CALL_EXIT",
                        "LOST_RECORDS",
                        "FLUSH_START",
                        "FLUSH_SEND",
                        "FLUSH_DONE",
                        "FLUSH_ENTER",
                        "FLUSH_EXIT",
                        "VMENTRY",
                    )
                ),
                st.integers(0, 3),
                st.sampled_from((0, 1, 1, 2, 2**32 - 1)),
                st.sampled_from((0, 1, 2, 16_382, 16_383, 2**32 - 1)),
                st.sampled_from((0, 1, 5, 2_000, 2**62, 2**64 - 2**41)),
            ),
            max_size=30,
        )
    )
    @settings(max_examples=150)
    def test_whatever_records_say(self, scratch: Path, rows: list[tuple[str, int, int, int, int]]) -> None:
        clock = 1 << 40
        windows = [Window(0, (record("VMENTRY", {}, clock),))]
        for event, cpu, seq, other, step in rows:
            clock = min(clock + step, 2**64 - 1)
            fields = {
                "START": {"seq": seq, "n_cpus": other & 0xFFFF, "wait": seq & 1} if "CALL" in event else {"seq": seq},
                "SEND": {"seq": seq, "first_cpu": other, "mask": 3},
                "DONE": {"seq": seq},
                "ENTER": {"seq": seq, "initiator_cpu": other},
                "EXIT": {"seq": seq, "initiator_cpu": other},
                "RECORDS": {"lost": seq},
                "VMENTRY": {},
            }[event.rpartition("_")[2]]
            # Numbers as texts, a mask as its bits.
            texts = {name: hex(value) for name, value in fields.items()}
            windows.append(Window(cpu, (record(event, texts, clock),)))
        scratch.write_bytes(build_capture(windows))
        with TraceFile(scratch, cpu_hz=10**9) as source:
            totals = set()
            for model in MODELS:
                found = check(source, model)
                totals.add(found.calls + found.flushes + sum(found.not_judged.values()))
                json.dumps([one.violations[0].records[0].fields for one in found.rules if one.count])
                found.df_violations()
            assert len(totals) == 1

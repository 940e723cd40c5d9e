"""Lines of the scheduler's events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xtrace.decode import Group
from xtrace.parsers.vectors import RUNSTATES
from xtrace.reports.xenalyze import runstate
from xtrace.reports.xenalyze.line import Line, Values, each, micro, yes

if TYPE_CHECKING:
    from xtrace.trace import Trace

INT_MIN: Final = -(1 << 31)

VCPU: Final = "d%(domid)uv%(vcpuid)u"
UNIT: Final = "d%(domid)uv%(unit)u"


def _state(which: str) -> Values:
    def names(group: Group, _: Trace) -> list[Any]:
        return [str(group.event.constants[which])] * len(group.rows)

    return names


def _state_number(which: str) -> Values:
    def numbers(group: Group, _: Trace) -> list[Any]:
        return [RUNSTATES.index(str(group.event.constants[which]))] * len(group.rows)

    return numbers


def _load(name: str) -> Values:
    """A fixed-point load as a percentage."""

    def percent(group: Group, _: Trace) -> Iterable[Any]:
        shift = group.columns["shift"].astype(np.int64) & 63
        shown: list[float] = np.ldexp(group.columns[name].astype(np.float64) * 100.0, -shift).tolist()
        return shown

    return percent


def _smt(group: Group, _: Trace) -> Iterable[str]:
    idle, smt = group.columns["idle"].tolist(), group.columns["smt_idle"].tolist()
    return [(", SMT idle" if two else ", SMT busy") if one else "" for one, two in zip(idle, smt, strict=True)]


def _owner(group: Group, _: Trace) -> Iterable[str]:
    pairs = zip(group.columns["domid"].tolist(), group.columns["unit"].tolist(), strict=True)
    return [", no vcpu" if unit == -1 else f", vcpu d{domid & 0xFFFFFFFF}v{unit}" for domid, unit in pairs]


TASKLET: Final = yes("tasklet", ", tasklet scheduled")
IDLE: Final = yes("idle", ", idle", ", busy")
TICKLED: Final = yes("tickled", ", tickled", ", not tickled")
SLICE: Final = each("slice_ns", lambda ns: f", next slice {ns // 1000}.{ns % 1000}us" if ns > 0 else "")

CORE: Final = (
    Line(
        "TRC_SCHED_RUNSTATE_CHANGE",
        f"  runstate_change {VCPU} %(old_state)s->%(new_state)s",
        {
            "old_state": _state("old_state"),
            "new_state": _state("new_state"),
            "old": _state_number("old_state"),
            "new": _state_number("new_state"),
        },
        runstate.changes,
        ("domid", "vcpuid", "old", "new"),
    ),
    Line(
        "TRC_SCHED_CONTINUE_RUNNING",
        f"  runstate_continue {VCPU} running->running",
        handler=runstate.continues,
        needs=("domid", "vcpuid"),
    ),
    Line("TRC_SCHED_DOM_ADD", "  sched_init_domain d%(domid)u"),
    Line("TRC_SCHED_DOM_REM", "  sched_destroy_domain d%(domid)u"),
    Line("TRC_SCHED_SLEEP", f"  vcpu_sleep {VCPU}"),
    Line("TRC_SCHED_WAKE", f"  vcpu_wake {VCPU}"),
    Line("TRC_SCHED_YIELD", f"  vcpu_yield {VCPU}"),
    Line("TRC_SCHED_BLOCK", f"  vcpu_block {VCPU}"),
    Line("TRC_SCHED_SHUTDOWN", f"  sched_shutdown {VCPU}, reason = %(reason)u"),
    Line("TRC_SCHED_SHUTDOWN_CODE", f"  sched_shutdown_code {VCPU}, reason = %(reason)u"),
    Line("TRC_SCHED_ADJDOM", "  sched_adjust d%(domid)u"),
    Line("TRC_SCHED_SWITCH", "  sched_switch prev d%(prev_domid)uv%(prev_unit)u next d%(next_domid)uv%(next_unit)u"),
    Line("TRC_SCHED_SWITCH_INFPREV", f"  sched_switch prev {UNIT}, run for %(ran)sus", {"ran": micro("ran_ns")}),
    Line(
        "TRC_SCHED_SWITCH_INFNEXT",
        f"  sched_switch next {UNIT}%(waited)s%(slice)s",
        {
            "waited": each("waited_ns", lambda ns: f", was runnable for {ns // 1000}.{ns % 1000}us" if ns else ""),
            "slice": SLICE,
        },
    ),
    Line(
        "TRC_SCHED_SWITCH_INFCONT",
        f"  sched_switch continue {UNIT}, run for %(ran)sus%(slice)s",
        {"ran": micro("ran_ns"), "slice": SLICE},
    ),
)

SILENT: Final = (
    "TRC_SCHED_CTL",
    "TRC_SCHED_S_TIMER_FN",
    "TRC_SCHED_T_TIMER_FN",
    "TRC_SCHED_DOM_TIMER_FN",
    "TRC_CSCHED2_TICK",
    "TRC_CSCHED2_CREDIT_ADD",
)
"""Events without a line."""

CREDIT: Final = (
    Line("TRC_CSCHED_SCHED_TASKLET", "  csched:sched_tasklet"),
    Line("TRC_CSCHED_ACCOUNT_START", f"  csched:acct_start {UNIT}, active_vcpus %(active_units)u"),
    Line("TRC_CSCHED_ACCOUNT_STOP", f"  csched:acct_stop {UNIT}, active_vcpus %(active_units)u"),
    Line("TRC_CSCHED_STOLEN_UNIT", f"  csched:stolen_vcpu {UNIT} from cpu %(from_cpu)u"),
    Line("TRC_CSCHED_PICKED_CPU", f"  csched:pick_cpu %(cpu)u for {UNIT}"),
    Line("TRC_CSCHED_TICKLE", "  csched:runq_tickle, cpu %(cpu)u"),
    Line("TRC_CSCHED_BOOST_START", f"  csched: {UNIT} boosted"),
    Line("TRC_CSCHED_BOOST_END", f"  csched: {UNIT} unboosted"),
    Line(
        "TRC_CSCHED_SCHEDULE",
        "  csched:schedule cpu %(cpu)u%(work)s%(busy)s",
        {"work": TASKLET, "busy": IDLE},
    ),
    Line("TRC_CSCHED_RATELIMIT", f"  csched:ratelimit, {UNIT} run only %(ran)sus", {"ran": micro("runtime_ns")}),
    Line(
        "TRC_CSCHED_STEAL_CHECK",
        "  csched:load_balance %(check)s %(peer_cpu)u",
        {"check": yes("checked", "checking", "skipping")},
    ),
)

CREDIT2: Final = (
    Line("TRC_CSCHED2_RUNQ_POS", f"  csched2:runq_insert {UNIT}, position %(pos)u"),
    Line(
        "TRC_CSCHED2_CREDIT_BURN",
        f"  csched2:burn_credits {UNIT}, credit = %(credit)d, %(cap)sdelta = %(delta)d",
        {"cap": each("budget", lambda budget: "" if budget == INT_MIN else f"budget = {budget}, ")},
    ),
    # The empty line behind it is xenalyze's.
    Line("TRC_CSCHED2_TICKLE_CHECK", f"  csched2:tickle_check {UNIT}, credit = %(credit)d, score = %(score)d\n"),
    Line("TRC_CSCHED2_TICKLE", "  csched2:runq_tickle cpu %(cpu)u"),
    Line(
        "TRC_CSCHED2_CREDIT_RESET",
        f"  csched2:reset_credits {UNIT}, credit_start = %(credit_start)d, credit_end = %(credit_end)d",
    ),
    Line("TRC_CSCHED2_SCHED_TASKLET", "  csched2:sched_tasklet"),
    Line("TRC_CSCHED2_UPDATE_LOAD", "  csched2:update_load"),
    Line("TRC_CSCHED2_RUNQ_ASSIGN", f"  csched2:runq_assign {UNIT} on rq# %(rq_id)u"),
    Line(
        "TRC_CSCHED2_UPDATE_UNIT_LOAD",
        f"  csched2:update_vcpu_load {UNIT}, vcpu_load = %(load)4.3f%% (%(avgload)u)",
        {"load": _load("avgload")},
    ),
    Line(
        "TRC_CSCHED2_UPDATE_RUNQ_LOAD",
        "  csched2:update_rq_load rq# %(rq_id)u, load = %(rq_load)u, avgload = %(load)4.3f%% (%(rq_avgload)u), "
        "b_avgload = %(b_load)4.3f%% (%(b_avgload)u)",
        {"load": _load("rq_avgload"), "b_load": _load("b_avgload")},
    ),
    Line("TRC_CSCHED2_TICKLE_NEW", f"  csched2:runq_tickle_new {UNIT}, processor = %(cpu)u, credit = %(credit)d"),
    Line("TRC_CSCHED2_RUNQ_MAX_WEIGHT", "  csched2:update_max_weight rq# %(rq_id)u, max_weight = %(max_weight)u"),
    Line("TRC_CSCHED2_MIGRATE", f"  csched2:migrate {UNIT} rq# %(from_rq)u --> rq# %(to_rq)u"),
    Line(
        "TRC_CSCHED2_LOAD_CHECK",
        "  csched2:load_balance_check lrq# %(local_rq)u, orq# %(other_rq)u, delta = %(load_delta)u",
    ),
    Line(
        "TRC_CSCHED2_LOAD_BALANCE",
        "  csched2:load_balance_begin lrq# %(local_rq)u, avg_load = %(local_avgload)u -- "
        "orq# %(other_rq)u, avg_load = %(other_avgload)u",
    ),
    Line("TRC_CSCHED2_PICKED_CPU", f"  csched2:picked_cpu {UNIT}, rq# %(rq_id)u, cpu %(cpu)u"),
    Line(
        "TRC_CSCHED2_RUNQ_CANDIDATE",
        f"  csched2:runq_candidate {UNIT}, credit = %(credit)d, %(who)s was tickled",
        {"who": each("tickled_cpu", lambda cpu: "no cpu" if cpu == -1 else f"cpu {cpu & 0xFFFFFFFF}")},
    ),
    Line(
        "TRC_CSCHED2_SCHEDULE",
        "  csched2:schedule cpu %(cpu)u, rq# %(rq_id)u%(work)s%(busy)s%(smt)s%(tickle)s",
        {"work": TASKLET, "busy": IDLE, "smt": _smt, "tickle": TICKLED},
    ),
    Line("TRC_CSCHED2_RATELIMIT", f"  csched2:ratelimit, {UNIT} run only %(ran)sus", {"ran": micro("runtime_ns")}),
    Line("TRC_CSCHED2_RUNQ_CAND_CHECK", f"  csched2:runq_cand_check {UNIT}"),
)

RTDS: Final = (
    Line("TRC_RTDS_TICKLE", "  rtds:runq_tickle cpu %(cpu)u"),
    Line("TRC_RTDS_RUNQ_PICK", f"  rtds:runq_pick {UNIT}, deadline = %(deadline)u, budget = %(budget)u"),
    Line(
        "TRC_RTDS_BUDGET_BURN",
        f"  rtds:burn_budget {UNIT}, budget = %(budget)u, delta = %(delta)d",
        {"delta": lambda group, _: group.columns["delta_ns"].astype(np.int32).tolist()},
    ),
    Line("TRC_RTDS_BUDGET_REPLENISH", f"  rtds:repl_budget {UNIT}, deadline = %(deadline)u, budget = %(budget)u"),
    Line("TRC_RTDS_SCHED_TASKLET", "  rtds:sched_tasklet"),
    Line(
        "TRC_RTDS_SCHEDULE",
        "  rtds:schedule cpu %(cpu)u, %(work)s%(busy)s%(tickle)s",
        {"work": TASKLET, "busy": IDLE, "tickle": TICKLED},
    ),
)

NULL: Final = (
    Line("TRC_SNULL_PICKED_CPU", f"  null:picked_cpu {UNIT}, cpu %(cpu)u"),
    Line("TRC_SNULL_UNIT_ASSIGN", f"  null:vcpu_assign {UNIT} to cpu %(cpu)u"),
    Line("TRC_SNULL_UNIT_DEASSIGN", f"  null:vcpu_deassign {UNIT} from cpu %(cpu)u"),
    Line("TRC_SNULL_MIGRATE", f"  null:migrate {UNIT}, cpu %(cpu)u, new_cpu %(new_cpu)u"),
    Line("TRC_SNULL_SCHEDULE", "  null:schedule cpu %(cpu)u%(work)s%(owner)s", {"work": TASKLET, "owner": _owner}),
    Line("TRC_SNULL_TASKLET", "  null:sched_tasklet"),
)

LINES: Final = CORE + CREDIT + CREDIT2 + RTDS + NULL

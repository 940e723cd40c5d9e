"""TRC_SCHED: runstates, the common scheduler and each scheduler's own events (xen/common/sched).

A `unit` is what the scheduler moves about, named by its first vCPU; with sched-gran=cpu it is the vCPU.
Events in SCHED_MIN and of most schedulers pack it with the domain in one word, unit in the low half; those in
SCHED_VERBOSE and of credit give each a word.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from xtrace.parsers.event import Event
from xtrace.parsers.fields import EMPTY, Array, Bits, Struct, i16, i32, u8, u16, u32, u64
from xtrace.parsers.vectors import RUNSTATES

RunstateChange = Struct("vcpuid" / u16, "domid" / u16)

Domain = Struct("domid" / u32)
Vcpu = Struct("domid" / u32, "vcpuid" / u32)
Shutdown = Struct("domid" / u32, "vcpuid" / u32, "reason" / u32)
Switch = Struct("prev_domid" / u32, "prev_unit" / u32, "next_domid" / u32, "next_unit" / u32)
SwitchInfprev = Struct("domid" / u32, "unit" / u32, "ran_ns" / u32)
SwitchInfnext = Struct("domid" / u32, "unit" / u32, "waited_ns" / u32, "slice_ns" / i32)
SwitchInfcont = Struct("domid" / u32, "unit" / u32, "ran_ns" / u32, "slice_ns" / i32)

Unit = Struct("domid" / u32, "unit" / u32)
Account = Struct("domid" / u32, "unit" / u32, "active_units" / u32)
StolenUnit = Struct("from_cpu" / u32, "domid" / u32, "unit" / u32)
CreditPickedCpu = Struct("domid" / u32, "unit" / u32, "cpu" / u32)
CreditTickle = Struct("cpu" / u32)
CreditSchedule = Struct("cpu" / u16, "tasklet" / u8, "idle" / u8)
StealCheck = Struct("peer_cpu" / u32, "checked" / u32)

PackedUnit = Struct("unit" / u16, "domid" / u16)
Ratelimit = Struct("unit" / u16, "domid" / u16, "runtime_ns" / u32)
RunqPos = Struct("unit" / u16, "domid" / u16, "pos" / u32)
CreditBurn = Struct("unit" / u16, "domid" / u16, "credit" / i32, "budget" / i32, "delta" / i32)
TickleCheck = Struct("unit" / u16, "domid" / u16, "credit" / i32, "score" / i32)
Tickle = Struct("cpu" / u16, "pad" / u16)
CreditReset = Struct("unit" / u16, "domid" / u16, "credit_start" / i32, "credit_end" / i32)
RunqAssign = Struct("unit" / u16, "domid" / u16, "rq_id" / u16, "pad" / u16)
UpdateUnitLoad = Struct("avgload" / u64, "unit" / u16, "domid" / u16, "shift" / u32)
UpdateRunqLoad = Struct("rq_avgload" / u64, "b_avgload" / u64, "rq_load" / u16, "rq_id" / u8, "shift" / u8, "pad" / u32)
TickleNew = Struct("unit" / u16, "domid" / u16, "cpu" / u32, "credit" / i32)
RunqMaxWeight = Struct("rq_id" / u16, "max_weight" / u16)
Credit2Migrate = Struct("unit" / u16, "domid" / u16, "from_rq" / u16, "to_rq" / u16)
LoadCheck = Struct("local_rq" / u16, "other_rq" / u16, "load_delta" / u32)
LoadBalance = Struct("local_avgload" / u64, "other_avgload" / u64, "local_rq" / u16, "other_rq" / u16, "pad" / u32)
Credit2PickedCpu = Struct("b_avgload" / u64, "unit" / u16, "domid" / u16, "rq_id" / u16, "cpu" / u16)
RunqCandidate = Struct("unit" / u16, "domid" / u16, "tickled_cpu" / i32, "credit" / i32)
Credit2Schedule = Struct("cpu" / u16, "rq_id" / u16, "tasklet" / u8, "idle" / u8, "smt_idle" / u8, "tickled" / u8)

RunqPick = Struct("unit" / u16, "domid" / u16, "deadline" / u64, "budget" / u64)
BudgetBurn417 = Struct(
    "unit" / u16,
    "domid" / u16,
    "budget" / u64,
    "delta_ns" / i32,
    "priority" / u32,
    "has_extratime" / u8,
    "pad" / Array(3, u8),
)
BudgetBurn = Struct(
    "unit" / u16,
    "domid" / u16,
    "budget" / u64,
    "delta_ns" / u32,
    "priority" / u32,
    "has_extratime" / u32,
)
BudgetReplenish = Struct("unit" / u16, "domid" / u16, "priority" / u32, "deadline" / u64, "budget" / u64)
RtdsSchedule = Struct("cpu" / u16, "tasklet" / u8, "tickled_idle" / Bits(u8, tickled=(0, 3), idle=(4, 7)))

NullUnit = Struct("unit" / u16, "domid" / u16, "cpu" / u32)
NullMigrate = Struct("unit" / u16, "domid" / u16, "cpu" / u16, "new_cpu" / u16)
NullSchedule = Struct("tasklet" / u16, "cpu" / u16, "unit" / i16, "domid" / i16)

WRAPS: Final = "32 bits, wraps every 4.29 s"
SLICE: Final = "slice_ns: negative = no limit"
LOAD: Final = "load fraction = avgload / 2^shift"
DEADLINE: Final = "deadline: ns of system time; budget: ns"

core = partial(Event, source="xen/common/sched/core.c")
credit = partial(Event, source="xen/common/sched/credit.c")
credit2 = partial(Event, source="xen/common/sched/credit2.c")
rtds = partial(Event, source="xen/common/sched/rt.c")
null = partial(Event, source="xen/common/sched/null.c")
unused = partial(Event, variant="n/a", emitted=False)

MIN = (
    *(
        core(
            0x0021001 | old << 8 | new << 4,
            "TRC_SCHED_RUNSTATE_CHANGE",
            RunstateChange,
            variant=f"{old_state}->{new_state}",
            constants={"old_state": old_state, "new_state": new_state},
            units="on the CPU that makes the change, before it is stored",
        )
        for old, old_state in enumerate(RUNSTATES)
        for new, new_state in enumerate(RUNSTATES)
        if old != new
    ),
    core(0x0021002, "TRC_SCHED_CONTINUE_RUNNING", RunstateChange),
)

VERBOSE = (
    core(0x0028001, "TRC_SCHED_DOM_ADD", Domain),
    core(0x0028002, "TRC_SCHED_DOM_REM", Domain),
    core(0x0028003, "TRC_SCHED_SLEEP", Vcpu, units="asked for, on the asking CPU"),
    core(0x0028004, "TRC_SCHED_WAKE", Vcpu, units="asked for, on the waking CPU"),
    core(0x0028005, "TRC_SCHED_YIELD", Vcpu),
    core(0x0028006, "TRC_SCHED_BLOCK", Vcpu),
    core(
        0x0028007,
        "TRC_SCHED_SHUTDOWN",
        Shutdown,
        source="xen/common/sched/core.c; xen/arch/x86/compat.c",
        units="reason: SHUTDOWN_*",
    ),
    unused(0x0028008, "TRC_SCHED_CTL"),
    core(0x0028009, "TRC_SCHED_ADJDOM", Domain),
    core(0x002800A, "TRC_SCHED_SWITCH", Switch),
    unused(0x002800B, "TRC_SCHED_S_TIMER_FN"),
    unused(0x002800C, "TRC_SCHED_T_TIMER_FN"),
    unused(0x002800D, "TRC_SCHED_DOM_TIMER_FN"),
    core(0x002800E, "TRC_SCHED_SWITCH_INFPREV", SwitchInfprev, units=f"ran_ns: {WRAPS}"),
    core(0x002800F, "TRC_SCHED_SWITCH_INFNEXT", SwitchInfnext, units=f"waited_ns: {WRAPS}; {SLICE}"),
    core(0x0028010, "TRC_SCHED_SHUTDOWN_CODE", Shutdown, units="reason: SHUTDOWN_*"),
    core(0x0028011, "TRC_SCHED_SWITCH_INFCONT", SwitchInfcont, units=f"ran_ns: {WRAPS}; {SLICE}"),
)

CREDIT = (
    credit(0x0022001, "TRC_CSCHED_SCHED_TASKLET", EMPTY),
    credit(0x0022002, "TRC_CSCHED_ACCOUNT_START", Account),
    credit(0x0022003, "TRC_CSCHED_ACCOUNT_STOP", Account, units="active_units: already decremented"),
    credit(0x0022004, "TRC_CSCHED_STOLEN_UNIT", StolenUnit),
    credit(0x0022005, "TRC_CSCHED_PICKED_CPU", CreditPickedCpu),
    credit(0x0022006, "TRC_CSCHED_TICKLE", CreditTickle),
    credit(0x0022007, "TRC_CSCHED_BOOST_START", Unit),
    credit(0x0022008, "TRC_CSCHED_BOOST_END", Unit),
    credit(0x0022009, "TRC_CSCHED_SCHEDULE", CreditSchedule, units="idle: the current unit is the idle unit"),
    credit(0x002200A, "TRC_CSCHED_RATELIMIT", Ratelimit),
    credit(0x002200B, "TRC_CSCHED_STEAL_CHECK", StealCheck, units="checked: 0 = peer skipped"),
)

CREDIT2 = (
    unused(0x0022201, "TRC_CSCHED2_TICK"),
    credit2(0x0022202, "TRC_CSCHED2_RUNQ_POS", RunqPos, units="pos: 0 = head of the run queue"),
    credit2(
        0x0022203,
        "TRC_CSCHED2_CREDIT_BURN",
        CreditBurn,
        units="credit: ns scaled by weight; budget: ns, INT_MIN = no cap; delta: ns, low 32 bits",
    ),
    unused(0x0022204, "TRC_CSCHED2_CREDIT_ADD"),
    credit2(
        0x0022205,
        "TRC_CSCHED2_TICKLE_CHECK",
        TickleCheck,
        units="of what runs on the examined CPU; score: above 0 = may be preempted",
    ),
    credit2(0x0022206, "TRC_CSCHED2_TICKLE", Tickle),
    credit2(0x0022207, "TRC_CSCHED2_CREDIT_RESET", CreditReset),
    credit2(0x0022208, "TRC_CSCHED2_SCHED_TASKLET", EMPTY),
    credit2(0x0022209, "TRC_CSCHED2_UPDATE_LOAD", EMPTY),
    credit2(0x002220A, "TRC_CSCHED2_RUNQ_ASSIGN", RunqAssign, variant="4.17", until=17),
    credit2(0x002220A, "TRC_CSCHED2_RUNQ_ASSIGN", RunqAssign, variant="since 4.18", since=18),
    credit2(0x002220B, "TRC_CSCHED2_UPDATE_UNIT_LOAD", UpdateUnitLoad, units=LOAD),
    credit2(0x002220C, "TRC_CSCHED2_UPDATE_RUNQ_LOAD", UpdateRunqLoad, variant="4.17", until=17, units=LOAD),
    credit2(0x002220C, "TRC_CSCHED2_UPDATE_RUNQ_LOAD", UpdateRunqLoad, variant="since 4.18", since=18, units=LOAD),
    credit2(0x002220D, "TRC_CSCHED2_TICKLE_NEW", TickleNew, units="cpu: where it last ran"),
    credit2(0x002220E, "TRC_CSCHED2_RUNQ_MAX_WEIGHT", RunqMaxWeight, units="max_weight: low 16 bits"),
    credit2(0x002220F, "TRC_CSCHED2_MIGRATE", Credit2Migrate),
    credit2(0x0022210, "TRC_CSCHED2_LOAD_CHECK", LoadCheck, units="load_delta: low 32 bits, fixed point"),
    credit2(0x0022211, "TRC_CSCHED2_LOAD_BALANCE", LoadBalance, variant="4.17", until=17),
    credit2(0x0022211, "TRC_CSCHED2_LOAD_BALANCE", LoadBalance, variant="since 4.18", since=18),
    credit2(
        0x0022213,
        "TRC_CSCHED2_PICKED_CPU",
        Credit2PickedCpu,
        units="b_avgload: of the chosen queue; rq_id: 0xffff = none evaluated",
    ),
    credit2(
        0x0022214,
        "TRC_CSCHED2_RUNQ_CANDIDATE",
        RunqCandidate,
        units="tickled_cpu: -1 = none; credit: -10000001 = the idle unit",
    ),
    credit2(0x0022215, "TRC_CSCHED2_SCHEDULE", Credit2Schedule),
    credit2(0x0022216, "TRC_CSCHED2_RATELIMIT", Ratelimit),
    credit2(0x0022217, "TRC_CSCHED2_RUNQ_CAND_CHECK", PackedUnit),
)

ARINC653 = (unused(0x0022600, "(TRC_SCHED_ARINC653 id space)", last_id=0x00227FF),)

RTDS = (
    rtds(0x0022801, "TRC_RTDS_TICKLE", Tickle),
    rtds(0x0022802, "TRC_RTDS_RUNQ_PICK", RunqPick, units=DEADLINE),
    rtds(0x0022803, "TRC_RTDS_BUDGET_BURN", BudgetBurn417, variant="4.17", until=17, units="budget: ns"),
    rtds(0x0022803, "TRC_RTDS_BUDGET_BURN", BudgetBurn, variant="since 4.18", since=18, units="budget: ns"),
    rtds(0x0022804, "TRC_RTDS_BUDGET_REPLENISH", BudgetReplenish, units=DEADLINE),
    rtds(0x0022805, "TRC_RTDS_SCHED_TASKLET", EMPTY),
    rtds(0x0022806, "TRC_RTDS_SCHEDULE", RtdsSchedule),
)

NULL = (
    null(0x0022A01, "TRC_SNULL_PICKED_CPU", NullUnit),
    null(0x0022A02, "TRC_SNULL_UNIT_ASSIGN", NullUnit),
    null(0x0022A03, "TRC_SNULL_UNIT_DEASSIGN", NullUnit),
    null(0x0022A04, "TRC_SNULL_MIGRATE", NullMigrate),
    null(0x0022A05, "TRC_SNULL_SCHEDULE", NullSchedule, units="unit, domid: -1 = none assigned"),
    null(0x0022A06, "TRC_SNULL_TASKLET", EMPTY),
)

EVENTS = MIN + VERBOSE + CREDIT + CREDIT2 + ARINC653 + RTDS + NULL

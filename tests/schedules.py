"""Made traces of vCPUs that come and go: a few records in order of time, and schedules at random."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from captures import ZERO_CYCLES, record
from strategies import Record, Window, build_capture

from xtrace.parsers.event import Event

LAST_REASON: Final = 55
"""Higher ones end xenalyze."""


class Story:
    """Records of two CPUs in order of time, each later than the one before."""

    def __init__(self) -> None:
        self.now = ZERO_CYCLES
        self.records: dict[int, list[Record]] = {}
        self.rounds: list[dict[int, list[Record]]] = [self.records]

    def tell(self, cpu: int, name: str, **fields: int | str) -> None:
        """A record by name and fields."""
        self.add(cpu, record(name, {key: str(value) for key, value in fields.items()}, self.later()))

    def change(self, cpu: int, vcpu: str, old: str, new: str) -> None:
        """A runstate change of `1v0` or the like."""
        domain, number = vcpu.split("v")
        self.tell(cpu, "RUNSTATE_CHANGE", domid=domain, vcpuid=number, old_state=old, new_state=new)

    def add(self, cpu: int, one: Record) -> None:
        """A record, at its own time."""
        self.records.setdefault(cpu, []).append(one)

    def event(self, cpu: int, event: Event, words: tuple[int, ...], event_id: int) -> None:
        """A record of an event with these words."""
        self.add(cpu, Record(event_id, words, self.later() if event.timestamped else None))

    def write(self, path: Path) -> Path:
        """As a trace."""
        windows = [Window(cpu, tuple(found)) for one in self.rounds for cpu, found in sorted(one.items())]
        path.write_bytes(build_capture(windows))
        return path

    def poll(self) -> None:
        """xentrace takes what is there."""
        self.records = {}
        self.rounds.append(self.records)

    def later(self) -> int:
        """The time of the next record."""
        self.now += 1000
        return self.now


def merged(rounds: list[dict[int, list[Record]]]) -> dict[int, list[Record]]:
    """All records in one round."""
    found: dict[int, list[Record]] = {}
    for one in rounds:
        for cpu, some in one.items():
            found.setdefault(cpu, []).extend(some)
    return found


VCPUS: Final = ("1v0", "1v1", "1v2", "2v0", "3v0")
PV_DOMAIN: Final = "3"
VECTORS: Final = (0, 32, 33, 50, 200, 349, 400)


class Schedule:
    """Some CPUs, vCPUs that come and go on them, and losses; as a healthy hypervisor tells of it."""

    def __init__(self, seed: int, steps: int) -> None:
        self.chance, self.story = random.Random(seed), Story()
        count = self.chance.randint(1, 4)
        self.idle = [f"32767v{cpu}" for cpu in range(count)]
        free = [*VCPUS]
        self.chance.shuffle(free)
        self.on = [free.pop() if self.chance.random() < 0.4 else self.idle[cpu] for cpu in range(count)]
        self.state = {vcpu: self.chance.choice(("runnable", "blocked")) for vcpu in free}
        self.lost: dict[int, int] = {}
        # Time 0 is that of the first record, in xenalyze also that of a first lost one. A CPU that comes late with
        # records without a time is another matter: merge.py.
        self.story.tell(0, "CSCHED2_UPDATE_LOAD")
        self.started = {0}
        late = self.chance.randint(0, 60) if self.chance.random() < 0.3 else 0
        for step in range(steps):
            if self.chance.random() < 0.05:
                self.story.poll()
            self.step(self.chance.randrange(count - 1 if count > 1 and step < late else count))
        for cpu in sorted(self.lost):
            self.regain(cpu)
        # xenalyze forgets who is on a CPU that has no more records; xtrace cannot know that in time.
        for cpu in range(count):
            self.story.tell(cpu, "CSCHED2_UPDATE_LOAD")

    def step(self, cpu: int) -> None:
        """Something happens on a CPU."""
        if cpu not in self.started:
            self.started.add(cpu)
            self.story.tell(cpu, "CSCHED2_UPDATE_LOAD")
        if cpu in self.lost:
            if self.chance.random() < 0.3:
                self.regain(cpu)
            return
        kind = self.chance.choices(("switch", "wake", "continue", "guest", "lose"), (4, 3, 1, 8, 0.3))[0]
        if kind == "lose":
            self.lost[cpu] = self.story.later()
        elif kind == "wake":
            self.wake(cpu)
        elif kind == "continue":
            domain, number = self.on[cpu].split("v")
            self.story.tell(cpu, "CONTINUE_RUNNING", domid=domain, vcpuid=number)
        elif kind == "switch":
            self.switch(cpu)
        elif self.on[cpu].startswith(PV_DOMAIN) and self.on[cpu] not in self.idle:
            self.story.tell(cpu, "PV_PAGE_FAULT", eip=1, addr=2)
        elif self.on[cpu] not in self.idle:
            self.guest(cpu)

    def wake(self, cpu: int) -> None:
        """A vCPU is woken from this CPU."""
        for vcpu, state in self.state.items():
            if state != "runnable" and self.chance.random() < 0.5:
                self.state[vcpu] = "runnable"
                self.story.change(cpu, vcpu, state, "runnable")
                return

    def switch(self, cpu: int) -> None:
        """Another vCPU comes; at times other records in between."""
        old = self.on[cpu]
        state = "runnable" if old in self.idle else self.chance.choice(("blocked", "blocked", "runnable", "offline"))
        ready = [vcpu for vcpu, what in self.state.items() if what == "runnable"]
        new = self.chance.choice(ready) if ready else self.idle[cpu]
        if new == old:
            return
        self.story.change(cpu, old, "running", state)
        if old not in self.idle:
            self.state[old] = state
        if self.chance.random() < 0.2:
            self.wake(cpu)
        self.put(cpu, new)
        if self.chance.random() < 0.05:
            self.lost[cpu] = self.story.later()
            return
        self.story.change(cpu, new, "runnable", "running")

    def put(self, cpu: int, vcpu: str) -> None:
        """From now on it is there."""
        self.state.pop(vcpu, None)
        self.on[cpu] = vcpu

    def regain(self, cpu: int) -> None:
        """Records come back; by now another vCPU may be there."""
        first = self.lost.pop(cpu)
        if self.chance.random() < 0.5 and self.state:
            old, new = self.on[cpu], self.chance.choice(sorted(self.state))
            self.put(cpu, new)
            if old not in self.idle:
                self.state[old] = self.chance.choice(("runnable", "blocked"))
        domain, number = self.on[cpu].split("v")
        self.story.tell(cpu, "LOST_RECORDS", lost=7, domid=domain, vcpuid=number, first_tsc=first - ZERO_CYCLES)

    def guest(self, cpu: int) -> None:
        """An exit of an HVM guest, what is done in it and the entry; at times not all of it."""
        tell, chance = self.story.tell, self.chance
        reason = chance.randint(0, LAST_REASON)
        if chance.random() < 0.7:
            tell(cpu, "VMEXIT64", exit_reason=reason, rip=0xFFFF_FFFF_8000_0000)
        elif chance.random() < 0.5:
            tell(cpu, "VMEXIT", exit_reason=reason, eip=0x1000)
        for _ in range(chance.randint(0, 4)):
            self.handler(cpu)
        if chance.random() < 0.8:
            tell(cpu, "VMENTRY")

    def handler(self, cpu: int) -> None:
        """Something that an exit is about."""
        chance = self.chance
        interrupt = {
            "gpa": chance.choice((0xFEE00300, 0xFEE00300, 0xFEE00300, 0xFEE000B0, 0xFEE00010)),
            "data": chance.choice((0xC0000, 0xC0000, 0x40000, 0)) | chance.choice(VECTORS[1:4]),
        }
        name, fields = chance.choice(
            (
                ("INJ_VIRQ", {"vector": chance.choice(VECTORS)}),
                ("INJ_VIRQ", {"vector": chance.choice(VECTORS[1:4])}),
                ("IOMEM_WRITE", interrupt),
                ("IOMEM_WRITE", interrupt),
                ("IOMEM_READ", interrupt),
                ("CR_WRITE64", {"cr": chance.choice((0, 3, 3, 3)), "value": chance.choice((0, 0x1000, 0x2000))}),
                ("MSR_WRITE", {"msr": 0x10, "value": 1}),
                ("RDTSC", {"guest_tsc": chance.randint(0, 9)}),
                ("HLT", {}),
                ("MEM_POD_ZERO_RECLAIM", {"gfn": 1, "mfn": 2, "domid": 1}),
                ("HVM_INTR", {"vector": 0x31}),
                ("PF_INJECT64", {"error_code": 2, "cr2": 0x1234}),
            )
        )
        self.untimed(cpu, name, **fields)

    def untimed(self, cpu: int, name: str, **fields: int) -> None:
        """A record without a time of its own."""
        self.story.add(cpu, record(name, {key: str(value) for key, value in fields.items()}, None))

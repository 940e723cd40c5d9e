"""What is kept of an HVM guest's vCPU: the exit it is in, and its interrupts from injection to the next halt."""

from __future__ import annotations

from typing import Final

GUEST_VECTORS: Final = 350
"""Vectors that xenalyze follows from wake to halt."""

CR3: Final = 3

VLAPIC_VECTORS: Final = 8
"""Pending vectors of a vCPU that xenalyze follows."""


class Guest:
    """An HVM guest's vCPU.

    exited      inside the hypervisor since an exit at `exit_tsc` for `reason`
    about       what the exit is about, as the first record that tells has it: "", "cr" or "other"
    cr3_written what CR3 will be when the exit ends, None where it stays
    mmio_data   an access with data was seen in this exit
    started     by vector of an injection since the last halt: when the guest went on with it, None before
    woken_by    vectors that woke it
    """

    __slots__ = (
        "about",
        "cr3",
        "cr3_written",
        "exit_tsc",
        "exited",
        "mmio_data",
        "rdtsc",
        "reason",
        "started",
        "wake_vector",
        "waking",
        "woken_by",
    )

    def __init__(self) -> None:
        self.exited = self.mmio_data = self.waking = False
        self.about = ""
        self.exit_tsc = self.reason = self.cr3 = self.rdtsc = self.wake_vector = 0
        self.cr3_written: int | None = None
        self.started: dict[int, int | None] = {}
        self.woken_by: set[int] = set()

    def exit(self, reason: int, tsc: int) -> None:
        """Control comes to the hypervisor."""
        self.exited, self.reason, self.exit_tsc = True, reason, tsc
        self.about, self.mmio_data, self.cr3_written = "", False, None

    def claim(self) -> None:
        """A record tells what the exit is about; what an earlier one told of CR3 is overwritten."""
        self.about = self.about or "other"
        self.cr3_written = None

    def write_cr(self, register: int, value: int) -> None:
        """A write to a control register, unless the exit is about something else."""
        self.about = self.about or "cr"
        if self.about == "cr":
            self.cr3_written = value if register == CR3 else None

    def close(self) -> None:
        """The exit ends, and a write to CR3 takes effect."""
        if self.exited and self.cr3_written is not None:
            self.cr3 = self.cr3_written
        self.exited, self.cr3_written = False, None

    def enter(self, name: str, tsc: int) -> list[str]:
        """Control goes back: it is awake, and goes on with what was injected."""
        lines = [f" [w2h] {name} Finishing waking"] if self.waking else []
        self.waking = False
        for vector in sorted(vector for vector, since in self.started.items() if since is None):
            self.started[vector] = tsc
            lines.append(f" [w2h] {name} Setting vec {vector} tsc to {tsc}")
        return lines

    def inject(self, name: str, vector: int) -> list[str]:
        """An interrupt is injected."""
        lines = []
        if self.waking and self.wake_vector == 0:
            lines.append(f" [w2h] {name} Setting wake_vector {vector}")
            self.wake_vector = vector
            self.woken_by.add(vector)
        if vector not in self.started:
            self.started[vector] = None
            lines.append(f" [w2h] {name} Starting vec {vector}")
        return lines

    def halt(self, tsc: int) -> list[str]:
        """It blocks: how long after each interrupt."""
        lines = []
        for vector, since in sorted(self.started.items()):
            taken = 0 if since is None else tsc - since
            lines.append(f" [w2h] Halting vec {vector} is_wake {int(vector in self.woken_by)} time {taken}")
            self.woken_by.discard(vector)
        if lines:
            self.started.clear()
            self.wake_vector = 0
        return lines

    def forget(self, name: str) -> list[str]:
        """Records were lost."""
        lines = [f" [w2h] Clearing w2h state for {name}"]
        lines += [
            f"  Interrupt {vector} clearing start_tsc {1 if since is None else since}"
            for vector, since in sorted(self.started.items())
        ]
        self.started.clear()
        self.exited = self.waking = False
        self.wake_vector = 0
        return lines


class Pending:
    """A vector that waits for delivery through the emulated APIC."""

    __slots__ = ("count", "injected", "since", "vector")

    def __init__(self, vector: int) -> None:
        self.vector, self.count, self.injected, self.since = vector, 0, False, 0


class Vlapic:
    """The vectors pending on a vCPU, in the places that they have in xenalyze's table, which its lines go by."""

    __slots__ = ("slots",)

    def __init__(self) -> None:
        self.slots: list[Pending | None] = [None] * VLAPIC_VECTORS

    def find(self, vector: int) -> Pending | None:
        """The entry of a vector, a new one if need be; None where the table is full."""
        for pending in self.slots:
            if pending is not None and pending.vector == vector:
                return pending
        for place, pending in enumerate(self.slots):
            if pending is None:
                found = self.slots[place] = Pending(vector)
                return found
        return None

    def delivered(self) -> list[Pending]:
        """Those that were injected; they are done."""
        done = []
        for place, pending in enumerate(self.slots):
            if pending is not None and pending.injected:
                done.append(pending)
                self.slots[place] = None
        return done

"""Wake-to-halt once more, record by record over the text of a capture: what the fast way is held against."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

IDLE = 32767
Who = tuple[int, int]
Stay = tuple[int, Who, int, str, int]
"""When it ends, whose it is, vector, kind, how long."""


@dataclass
class Life:
    """What is known of a vCPU since it last blocked; state None: nothing."""

    state: str | None = None
    cpu: int = -1
    seen: bool = False
    waking: bool = False
    woke: int | None = None
    starts: dict[int, int | None] = field(default_factory=dict)


def stays(text: str) -> list[Stay]:
    """All of them, by their ends; `text` is one round of windows, in order of time."""
    lives: dict[Who, Life] = {}
    current: dict[int, Who] = {}
    now: dict[int, int] = {}
    found: list[Stay] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        when, where, name, *rest = line.split()
        fields = dict(part.split("=") for part in rest)
        cpu = int(where.removeprefix("cpu"))
        now[cpu] = now.get(cpu, 0) if when == "-" else int(when)
        who = (int(fields["domid"]), int(fields["vcpuid"])) if "domid" in fields else current.get(cpu)
        if name == "LOST_RECORDS":
            for one, life in list(lives.items()):
                if life.state != "running" or life.cpu == cpu:
                    lives[one] = Life()
            assert who is not None
            current[cpu] = who
            continue
        old, new = fields.get("old_state", "running"), fields.get("new_state", "running")
        if name == "RUNSTATE_CHANGE" and "running" in (old, new):
            assert who is not None
            if new == "running":
                current[cpu] = who
            else:
                current.pop(cpu, None)
        if who is None or who[0] == IDLE:
            continue
        life = lives.setdefault(who, Life())
        if life.state is not None and (old != life.state or (old == "running" and cpu != life.cpu)):
            life = lives[who] = Life()
        found += _next(life, who, name, old, new, now[cpu], fields)
        life.state, life.cpu = new, cpu
        life.seen |= new == "running"
    return sorted(found)


def _next(life: Life, who: Who, name: str, old: str, new: str, now: int, fields: dict[str, str]) -> list[Stay]:
    if name == "INJ_VIRQ":
        vector = int(fields["vector"])
        if life.waking and life.woke is None:
            life.woke = vector
        life.starts.setdefault(vector, None)
    elif name == "VMENTRY":
        life.waking = False
        life.starts = {vector: now if start is None else start for vector, start in life.starts.items()}
    elif life.seen and (old, new) == ("blocked", "runnable"):
        life.waking = True
    elif old == "running" and name in ("RUNSTATE_CHANGE", "CONTINUE_RUNNING"):
        life.waking = False
        if life.seen and new == "blocked":
            ended = list(_ended(life, who, now))
            life.starts, life.woke = {}, None
            return ended
    return []


def _ended(life: Life, who: Who, now: int) -> list[Stay]:
    woke = "wake alone" if len(life.starts) == 1 else "wake"
    return [
        (now, who, vector, woke if vector == life.woke else "interrupt", now - start)
        for vector, start in life.starts.items()
        if start is not None and now > start
    ]


def lossy(text: str, chance: random.Random, losses: int) -> str:
    """The same with spans of some CPUs' records lost; markers name who runs when room comes back, as Xen's do."""
    lines = [line for line in text.splitlines() if line != "---"]
    for _ in range(losses):
        begin = chance.randrange(len(lines) // 10, len(lines))
        cpu = lines[begin].split()[1]
        mine = [at for at in range(begin, len(lines)) if lines[at].split()[1] == cpu][: chance.randint(1, 12)]
        behind = next((at for at in range(mine[-1] + 1, len(lines)) if lines[at].split()[1] == cpu), None)
        stamped = [at for at in mine if lines[at][0] != "-"]
        if behind is None or not stamped or lines[behind][0] == "-" or "LOST" in "".join(lines[at] for at in mine):
            continue
        who = _current(lines[: mine[-1] + 1], cpu)
        if who is None:
            continue
        last, first = (int(lines[at].split(maxsplit=1)[0]) for at in (stamped[-1], stamped[0]))
        marker = f"{last} {cpu} LOST_RECORDS lost={len(mine)} {who} first_tsc={first}"
        lines = [marker if at == mine[-1] else line for at, line in enumerate(lines) if at not in mine[:-1]]
    return "\n".join(lines)


def _current(lines: list[str], cpu: str) -> str | None:
    """`domid=… vcpuid=…` of who runs there after these lines."""
    for line in reversed(lines):
        parts = line.split()
        if parts[1] == cpu and parts[2] in ("RUNSTATE_CHANGE", "LOST_RECORDS"):
            if parts[2] == "LOST_RECORDS":
                return " ".join(parts[4:6])
            if "new_state=running" in parts:
                return " ".join(parts[3:5])
            if "old_state=running" in parts:
                return None
    return None

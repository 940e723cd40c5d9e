"""All rules, in the order in which they are told."""

from __future__ import annotations

from typing import Final

from xtrace.protocol import designs, initiators, targets
from xtrace.protocol.rule import Rule

EVERY: Final = ("legacy", "lockless", "unknown")

RULES: Final = (
    Rule(
        "lock-holders",
        ("legacy",),
        "From SEND to DONE a call holds the lock of calls, and a flush that of flushes: no two of a kind at a time.",
        designs.holders,
    ),
    Rule(
        "lock-order",
        ("legacy",),
        "A lock goes to the CPUs that wait for it in the order in which they asked.",
        designs.fifo,
    ),
    Rule(
        "descriptor",
        ("lockless",),
        "A CPU sends a call only when every target has answered its last one: with EXIT if it waited, else with ENTER.",
        designs.descriptor,
    ),
    Rule(
        "sent-first",
        ("legacy",),
        "A target enters a function after SEND.",
        designs.sent_first,
    ),
    Rule(
        "carried",
        ("lockless",),
        "A flush is carried by one call, on its initiator and on its targets, that begins after it and ends before it.",
        designs.carried,
    ),
    Rule(
        "by-itself",
        ("legacy",),
        "A flush has an interrupt vector of its own: no call carries it.",
        designs.by_itself,
    ),
    Rule(
        "answers",
        EVERY,
        "DONE comes after the EXIT of every CPU in the mask; of a call that does not wait, under legacy, after all "
        "checked in.",
        targets.answers,
    ),
    Rule(
        "enter-exit",
        EVERY,
        "A CPU that enters a function leaves it, in this order, before it does anything else.",
        targets.pairs,
    ),
    Rule(
        "in-mask",
        EVERY,
        "Only CPUs that the mask names serve a request.",
        targets.in_mask,
    ),
    Rule(
        "asked-first",
        EVERY,
        "A CPU enters a function only after the initiator's START.",
        targets.asked_first,
    ),
    Rule(
        "once",
        EVERY,
        "A CPU serves a request once.",
        targets.once,
    ),
    Rule(
        "nesting",
        EVERY,
        "A CPU runs one function at a time; only a flush runs within another, the call that carries it.",
        targets.nesting,
    ),
    Rule(
        "order",
        EVERY,
        "An initiator notes START, SEND and DONE, in this order and once each, and no START of the kind in between.",
        initiators.order,
    ),
    Rule(
        "ends",
        EVERY,
        "A request ends: DONE comes before its CPU does anything else.",
        initiators.ends,
    ),
    Rule(
        "mask",
        EVERY,
        "SEND's mask has as many CPUs as START says, and a call that carries a flush has the flush's mask.",
        initiators.mask,
    ),
)

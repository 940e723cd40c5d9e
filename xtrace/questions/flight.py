"""Which requests were in flight when: from SEND until the last target had answered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xtrace.episodes.tables import NULL
from xtrace.grouping import rows_by
from xtrace.questions.requests import Index, Requests


@dataclass(frozen=True, slots=True)
class Events:
    """Moments by capture and time, and the CPU of each."""

    capture: Index
    time: Index
    cpu: Index

    @classmethod
    def of(cls, capture: Index, time: Index, cpu: Index) -> Events:
        """In any order."""
        order = np.lexsort((time, capture))
        return cls(capture[order], time[order], cpu[order])

    def until(self, capture: Index, when: Index) -> Index:
        """How many come before these times or at them, those of earlier captures included."""
        found = np.zeros(len(when), np.int64)
        for one, rows in rows_by(capture):
            low, high = np.searchsorted(self.capture, [one, one + 1])
            found[rows] = low + np.searchsorted(self.time[low:high], when[rows], side="right")
        return found

    def of_cpus_below(self, count: Index, limit: Index) -> Index:
        """How many of the first `count` are of CPUs below `limit`.

        A wavelet matrix: bit by bit from the highest, the events are parted into those without and with it, and each
        question goes on in the part that its limit is in.
        """
        cpu = self.cpu
        bits = max(int(cpu.max(initial=0)), int(limit.max(initial=0))).bit_length()
        found, low, high = np.zeros(len(count), np.int64), np.zeros(len(count), np.int64), count
        for bit in reversed(range(bits)):
            zero = cpu >> bit & 1 == 0
            zeros = np.append(0, np.cumsum(zero))
            zeros_low, zeros_high = zeros[low], zeros[high]
            one = limit >> bit & 1 == 1
            found += np.where(one, zeros_high - zeros_low, 0)
            low = np.where(one, zeros[-1] + low - zeros_low, zeros_low)
            high = np.where(one, zeros[-1] + high - zeros_high, zeros_high)
            cpu = np.concatenate((cpu[zero], cpu[~zero]))
        return found


@dataclass(frozen=True, slots=True)
class Flight:
    """Requests of which SEND and an answer were seen."""

    sent: Events
    answered: Events

    @classmethod
    def of(cls, requests: Requests) -> Flight:
        """All of them, chosen or not."""
        services = requests.services
        answer = np.where(requests.wait[services.request], services.left, services.enter)
        last = np.full(len(requests.episode), NULL)
        np.maximum.at(last, services.request, answer)
        rows = np.flatnonzero((requests.send != NULL) & (last != NULL))
        capture, send, cpu = requests.capture[rows], requests.send[rows], requests.initiator[rows]
        return cls(Events.of(capture, send, cpu), Events.of(capture, np.maximum(last[rows], send), cpu))

    def count(self, capture: Index, when: Index) -> Index:
        """How many are in flight at these times."""
        return self.sent.until(capture, when) - self.answered.until(capture, when)

    def below(self, capture: Index, when: Index, limit: Index) -> Index:
        """Those of them whose initiator is below the limit."""
        sent, answered = (
            events.of_cpus_below(events.until(capture, when), limit) for events in (self.sent, self.answered)
        )
        return sent - answered

    def between(self, capture: Index, when: Index, low: Index, high: Index) -> Index:
        """Those of them whose initiator is above the one and below the other."""
        return self.below(capture, when, high) - self.below(capture, when, low + 1)

"""Overloads between measurements of capacity, so that a machine whose speed changes changes both: what came of them.

capacity ─► 2x ─► capacity ─► 5x ─► a quarter ─► capacity ─► ...
    └───────┬────────┘ └────────┬───────────────────┘
    share of the neighbors' mean, round by round; then the median, and the spread
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.serving.light_client import Phase

# Normal is a p99 of at most so many times that of a calm phase, over half a second.
NORMAL = 2.0
NORMAL_S = 0.5
STEP_S = 0.25


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a closed loop got: calls answered a second, none refused, and the CPU of both sides, in cores."""

    per_s: float
    server_cores: float
    client_cores: float

    @property
    def answer_us(self) -> float:
        """The server's CPU for an answer."""
        return self.server_cores * 1e6 / self.per_s


@dataclass(frozen=True, slots=True)
class Overload:
    """A phase, the CPU of both sides in it, in cores, and the capacities right before and right after it."""

    phase: Phase
    deadline_ms: float
    server_cores: float
    client_cores: float
    before: Capacity
    after: Capacity

    @property
    def capacity_per_s(self) -> float:
        """The neighbors' mean."""
        return (self.before.per_s + self.after.per_s) / 2

    @property
    def factor(self) -> float:
        """What was offered, in capacities: not what was meant where the machine's speed changed."""
        return self.phase.offered_per_s / self.capacity_per_s

    @property
    def share(self) -> float:
        """Goodput as a share of capacity."""
        return self.phase.goodput_per_s(self.deadline_ms) / self.capacity_per_s

    @property
    def refused_per_s(self) -> float:
        """Calls that ended without an answer."""
        return len(self.phase.refused_ms) / self.phase.seconds

    @property
    def hinted(self) -> float:
        """The share of the refused that heard when to ask again; NaN of none."""
        return self.phase.hinted / len(self.phase.refused_ms) if self.phase.refused_ms else float("nan")

    @property
    def refusal_us(self) -> float:
        """The server's CPU for a refusal: what answers, at what they cost beside it, leave. NaN of none."""
        if not self.refused_per_s:
            return float("nan")
        answer_us = (self.before.answer_us + self.after.answer_us) / 2
        answering_cores = len(self.phase.latency_ms) / self.phase.seconds * answer_us / 1e6
        return (self.server_cores - answering_cores) * 1e6 / self.refused_per_s

    @property
    def call_us(self) -> float:
        """The client's CPU for a call, its end included."""
        return self.client_cores * 1e6 / self.phase.offered_per_s


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some figures, the smallest and the largest."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """NaN of none."""
        if not values:
            return cls(float("nan"), float("nan"), float("nan"))
        return cls(statistics.median(values), min(values), max(values))

    def written(self, form: str) -> str:
        """`median (least to most)`, each by a format such as `{:.0%}`."""
        return f"{form.format(self.median)} ({form.format(self.least)} to {form.format(self.most)})"


def recovery_s(calm_p99_ms: float, after: Phase) -> float:
    """Seconds after an overload until the p99 is normal again, by a phase that follows at once; infinite if never."""
    at_s, latency_ms = np.array(after.answered_at_s), np.array(after.latency_ms)
    for start_s in np.arange(0.0, after.seconds, STEP_S):
        inside = latency_ms[(at_s >= start_s) & (at_s < start_s + NORMAL_S)]
        enough = len(inside) >= 0.9 * after.offered_per_s * min(NORMAL_S, after.seconds - start_s)
        if enough and np.percentile(inside, 99) <= NORMAL * calm_p99_ms:
            return float(start_s)
    return float("inf")

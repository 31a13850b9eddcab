"""What the measurement says at one moment: plain values, ready for Prometheus, a table or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stream.quality.figures import Figures
from stream.quality.records import Stream

DELAY_EDGES_S = (1.0, 60.0, 600.0, 3_600.0, 6 * 3_600.0, 86_400.0, 2 * 86_400.0, 4 * 86_400.0, 7 * 86_400.0,
    14 * 86_400.0, 30 * 86_400.0, 90 * 86_400.0)  # fmt: skip
"""Upper edges of the label delays' histogram: from a second to a season; the rest is the last bucket."""


@dataclass(frozen=True, slots=True)
class Delays:
    """How long labels took: `counts` by `DELAY_EDGES_S` and beyond, not cumulated; `late_ratio`: beyond the task's."""

    counts: tuple[int, ...]
    sum_s: float
    late_ratio: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One stream over one window.

    `examples` are settled: their label is known, or its delay has passed; `unlabeled` of those have none. `answers` are
    the newest, settled or not: what drift is measured on. NaN where there are too few.
    """

    stream: Stream
    window_us: int
    answers: int
    examples: int
    unlabeled: int
    figures: Figures
    delays: Delays | None
    score_drift: float
    input_drift: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TaskState:
    """What is held of one task: outcomes nobody asked for, and when the newest outcome was known (None: never)."""

    task: str
    label_delay_us: int
    unmatched_outcomes: int
    newest_outcome_us: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything at one watermark. `sample_ratio`: the share of keys that is held; 1 within the limits."""

    watermark_us: int
    measured: tuple[Measured, ...]
    tasks: tuple[TaskState, ...]
    rows: int
    sample_ratio: float
    taken: Mapping[str, int]
    skipped: Mapping[str, int]

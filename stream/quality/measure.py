"""From joined columns to figures: which answers are settled, which fall into a window, and how they did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.quality.config import AnswerKind, QualityTask
from stream.quality.drift import Reference
from stream.quality.figures import Figures, binary_figures, choice_figures, list_figures, number_figures
from stream.quality.list_join import Followed
from stream.quality.records import Stream
from stream.quality.report import DELAY_EDGES_S, Delays, Measured
from stream.quality.row_join import NEVER_US, Columns

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Usual:
    """What was usual of a stream when it began: of its scores, and of each input."""

    score: Reference
    inputs: Mapping[str, Reference] = field(default_factory=dict)

    @classmethod
    def of(cls, task: QualityTask, columns: Columns, chosen: Mask) -> Usual:
        """Take the chosen answers as what is usual."""
        inputs = {name: Reference.of(columns.numbers[chosen, i]) for i, name in enumerate(task.inputs)}
        return cls(Reference.of(one_score(task, columns.scores[chosen])), inputs)

    def to_dict(self) -> dict[str, Any]:
        """Return the form `from_dict` reads."""
        return {"score": self.score.to_dict(), "inputs": {n: one.to_dict() for n, one in self.inputs.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Usual:
        """Build from plain values; raises KeyError or ValueError for others."""
        inputs = {name: Reference.from_dict(one) for name, one in values["inputs"].items()}
        return cls(Reference.from_dict(values["score"]), inputs)


def one_score(task: QualityTask, scores: Floats) -> Floats:
    """Return one number [n] for each answer: the probability, that of the first choice, or the (first) median."""
    if task.kind in (AnswerKind.REGRESSION, AnswerKind.FORECAST):
        return scores[:, int(np.abs(np.asarray(task.levels) - 0.5).argmin())]
    best: Floats = scores.max(axis=1) if len(scores) else np.empty(0)
    return best


def measure_rows(
    task: QualityTask,
    stream: Stream,
    columns: Columns,
    *,
    watermark_us: int,
    window_us: int,
    usual: Usual | None,
    answers_min: int,
) -> Measured:
    """Measure a stream's answers to rows over one window.

    Settled are answers whose delay has passed by the watermark, whether their label came early or late: were those with
    an early label counted at once, positives that are reported would stand against negatives that are still waited for.
    """
    settled_us = columns.event_time_us + task.label_delay_us
    settled = _within(settled_us, watermark_us, window_us)
    has_label: Mask = np.asarray(np.isfinite(columns.label).all(axis=1))
    if task.absence_is_negative:
        label = np.where(has_label[:, None], columns.label, 0.0)
        usable = settled
    else:
        label, usable = columns.label, settled & has_label
    recent = _within(columns.event_time_us, watermark_us, window_us)
    score_drift, input_drift = math.nan, dict.fromkeys(task.inputs, math.nan)
    if usual is not None and int(recent.sum()) >= answers_min:
        score_drift = usual.score.psi(one_score(task, columns.scores[recent]))
        for place, name in enumerate(task.inputs):
            if name in usual.inputs:
                input_drift[name] = usual.inputs[name].psi(columns.numbers[recent, place])
    return Measured(
        stream=stream,
        window_us=window_us,
        answers=int(recent.sum()),
        examples=int(usable.sum()),
        unlabeled=int((settled & ~has_label).sum()),
        figures=figures_of(task, columns.scores[usable], label[usable]),
        delays=_delays(task, columns, settled),
        score_drift=score_drift,
        input_drift=input_drift,
    )


def measure_lists(
    task: QualityTask, stream: Stream, lists: Sequence[Followed], *, watermark_us: int, window_us: int
) -> Measured:
    """Measure a stream's lists over one window; those whose user did nothing count as unlabeled."""
    times = np.fromiter((one.event_time_us for one in lists), np.int64, len(lists))
    settled = _within(times + task.label_delay_us, watermark_us, window_us)
    chosen = [one for one, is_settled in zip(lists, settled.tolist(), strict=True) if is_settled]
    taken = [one for one in chosen if one.taken]
    figures = list_figures(
        [list(one.ranks) for one in taken],
        [one.length for one in taken],
        [one.taken for one in taken],
        lists=len(chosen),
    )
    answers = int(_within(times, watermark_us, window_us).sum())
    return Measured(
        stream, window_us, answers, len(taken), len(chosen) - len(taken), figures, None, math.nan, {}
    )  # fmt: skip


def figures_of(task: QualityTask, scores: Floats, label: Floats) -> Figures:
    """Return the figures of scores [n, scores] and labels [n, labels], as the task's kind has them."""
    if task.kind is AnswerKind.MULTICLASS:
        return choice_figures(scores, label[:, 0].astype(np.int64))
    if task.kind in (AnswerKind.BINARY, AnswerKind.MULTILABEL):  # each class of several is a yes or no of its own
        return binary_figures(scores.ravel(), label.ravel())
    levels = np.asarray(task.levels, dtype=np.float64)
    return number_figures(scores.reshape(-1, len(levels)), label.ravel(), levels)


def _within(time_us: NDArray[np.int64], watermark_us: int, window_us: int) -> Mask:
    found: Mask = (time_us <= watermark_us) & (time_us > watermark_us - window_us)
    return found


def _delays(task: QualityTask, columns: Columns, settled: Mask) -> Delays:
    known = settled & (columns.first_known_us != NEVER_US)
    delay_us = columns.first_known_us[known] - columns.event_time_us[known]
    counts = np.bincount(np.searchsorted(DELAY_EDGES_S, delay_us / 1e6), minlength=len(DELAY_EDGES_S) + 1)
    late = float((delay_us > task.label_delay_us).mean()) if len(delay_us) else math.nan
    return Delays(tuple(counts.tolist()), float(delay_us.sum() / 1e6), late)

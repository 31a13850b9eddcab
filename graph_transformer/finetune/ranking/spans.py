"""Which questions fit what: the towers end where the fusion's questions begin, and each is asked as the test will be.

             train                       validation        test
    ├──────────────────┤─ fusion span ─┤───────────────┤──────────┤
    towers for the fusion │             towers for validation │  the final towers

Where the test is asked of a graph that has ended, every span is: by as long before it as the test's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_transformer.errors import TaskError
from graph_transformer.finetune.query.rows import RowSource
from graph_transformer.finetune.ranking.fusion_fit import LISTS_MAX
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Ranked

SHARE_MOST = 2
"""One part in so many of the training's time may be the fusion's: the towers before it need the rest."""
UNITS_US = (86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000)
"""What a proposed span is told in, where it is at least ten of them: a person is to read it."""


@dataclass(frozen=True, slots=True)
class Span:
    """Questions of an interval, and what towers for them may learn from: what was known by `known_by_us`."""

    interval: Interval
    known_by_us: int


@dataclass(frozen=True)
class Spans:
    """The spans of a ranking's training; `lag_us` is how long before a span the graph that it is asked of ended."""

    splits: Splits
    fusion: Span
    validation: Span | None
    final_by_us: int
    lag_us: int

    @classmethod
    def of(cls, splits: Splits, fusion_span_us: int) -> Spans:
        """Lay out the spans of a task.

        Raises:
            TaskError: nothing is left to train the towers on before the fusion's span.
        """
        lag_us = lag_of(splits)
        end_us = _fusion_end_us(splits)
        fusion = Interval(end_us - fusion_span_us, end_us)
        if fusion.start_us - lag_us <= splits.train.start_us:
            raise TaskError("ranking.fusion_span", "less time than there is to train on", fusion_span_us)
        validation = splits.validation
        later = None if validation is None else Span(validation, validation.start_us - lag_us)
        final_us = splits.trained_by_us if splits.refit is not None else splits.train.end_us
        if lag_us and splits.frozen_us is not None:
            final_us = splits.frozen_us
        final_us = splits.train.end_us if final_us is None else final_us
        return cls(splits, Span(fusion, fusion.start_us - lag_us), later, final_us, lag_us)

    @property
    def refits(self) -> bool:
        """Whether the final towers learn from more than those that were validated."""
        return self.validation is None or self.final_by_us > self.validation.known_by_us

    def learned(self, questions: RankingQuestions, known_by_us: int) -> RankingQuestions:
        """Return the questions that towers learn from: of train, and of refit where there is one, known by a time."""
        splits = self.splits
        first_us = splits.train.start_us if splits.refit is None else min(splits.train.start_us, splits.refit.start_us)
        end_us = splits.train.end_us if splits.refit is None else max(splits.train.end_us, splits.refit.end_us)
        return questions.interval(Interval(first_us, end_us)).known_by(known_by_us)

    def asked(
        self, questions: RankingQuestions, interval: Interval, source: RowSource, ranked: Ranked
    ) -> RankingQuestions:
        """Return the questions of an interval, as `asked_in`."""
        return asked_in(interval, self.lag_us, questions, source, ranked)


def proposed_span_us(splits: Splits, time_us: NDArray[np.int64]) -> int | None:
    """Return how long the fusion's span should be for questions asked at int64[n]; None where there are too few.

    As long as holds the lists that a fusion can use, the newest, and at most half of the time there is to train on:
    what more lists bring is more than what the towers before them lose.
    """
    end_us = _fusion_end_us(splits)
    newest_first = np.sort(time_us[(time_us >= splits.train.start_us) & (time_us < end_us)])[::-1]
    if not len(newest_first):
        return None
    span_us = (end_us - lag_of(splits) - int(newest_first[-1])) // SHARE_MOST
    if len(newest_first) > LISTS_MAX:
        span_us = min(span_us, end_us - int(newest_first[LISTS_MAX - 1]))
    unit_us = next((unit_us for unit_us in UNITS_US if span_us >= 10 * unit_us), 1)
    return span_us // unit_us * unit_us if span_us > 0 else None


def _fusion_end_us(splits: Splits) -> int:
    return splits.train.end_us if splits.validation is None else splits.validation.start_us


def lag_of(splits: Splits) -> int:
    """Return how long before the test's start its graph ended, int64 microseconds; 0 where it goes on."""
    if splits.frozen_us is None or splits.test is None:
        return 0
    return max(0, splits.test.start_us - splits.frozen_us)


def asked_in(
    interval: Interval, lag_us: int, questions: RankingQuestions, source: RowSource, ranked: Ranked
) -> RankingQuestions:
    """Return the questions of an interval, asked of a graph that ended `lag_us` before it; 0: of one that goes on."""
    found = questions.interval(interval)
    return found if not lag_us else found.frozen(interval.start_us - lag_us, source, ranked)

"""The splits of a ranking as they are measured, and their figures as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graph_transformer.errors import TaskError
from graph_transformer.finetune.query.rows import RowSource
from graph_transformer.finetune.ranking.histories import Interactions
from graph_transformer.finetune.ranking.metrics import ListMetrics, Measured, RankingMetrics
from graph_transformer.finetune.ranking.presence import Presence
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.finetune.ranking.spans import asked_in, lag_of
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Ranked


def measured_split(
    source: RowSource,
    ranked: Ranked,
    splits: Splits,
    questions: RankingQuestions,
    interval: Interval,
    *,
    new_within_us: int,
    interactions: Interactions | None = None,
) -> Measured:
    """Return an interval of the questions with what measuring lists of it needs; asked as the test is, as in training.

    Raises:
        TaskError: it has no questions.
    """
    asked = asked_in(interval, lag_of(splits), questions, source, ranked)
    if not len(asked):
        raise TaskError("splits", "intervals in which users are asked", "one without a question")
    interactions = Interactions.of(source, ranked) if interactions is None else interactions
    return Measured.of(
        asked, interactions, Presence(source, ranked.items), cold_from_us=interval.start_us, new_within_us=new_within_us
    )


def table_of_metrics(metrics: Mapping[str, RankingMetrics]) -> list[dict[str, Any]]:
    """Return a row for each ranker: its figures over all questions."""
    return [{"ranker": name, **_own(each)} for name, each in metrics.items()]


def table_of_parts(metrics: Mapping[str, RankingMetrics]) -> list[dict[str, Any]]:
    """Return a row for each part (repeats, new, cold ones) and ranker."""
    names = list(dict.fromkeys(part for each in metrics.values() for part in each.parts))
    return [
        {"part": part, "ranker": name, **each.parts[part].figures()}
        for part in names
        for name, each in metrics.items()
        if part in each.parts and each.parts[part].count
    ]


def _own(metrics: RankingMetrics) -> dict[str, str]:
    shares = metrics.figures()
    return {**ListMetrics.figures(metrics), **{name: shares[name] for name in ("coverage", "new items", "unseen")}}

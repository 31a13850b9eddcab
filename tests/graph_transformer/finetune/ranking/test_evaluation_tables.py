"""Splits as they are measured, and the tables people see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graph_transformer.errors import TaskError
from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.ranking.evaluation_tables import (
    measured_split,
    table_of_metrics,
    table_of_parts,
)
from graph_transformer.finetune.ranking.questions import questions_before
from graph_transformer.finetune.ranking.spans import Spans
from graph_transformer.finetune.task_file import Anchors
from graph_transformer.splits import Interval, Splits

from .conftest import Shop

Bind = Callable[[str], BoundQuery]
S = 1_000_000
NEXT = "PREDICT LIST_DISTINCT(orders.item_id, 0, 1, seconds) RANK TOP 3 FOR EACH users.user_id"
SPLITS = Splits(Interval(0, 20 * S), Interval(20 * S, 30 * S), test=Interval(30 * S, 40 * S), frozen_us=20 * S)


def test_a_split_is_measured_as_the_test_is_asked(opened: Shop, bound: Bind) -> None:
    """The test's graph ends where the task says, the validation's as long before it, as training has it."""
    view, query = opened([(7, 0, 10 * S), (7, 1, 15 * S), (7, 2, 25 * S), (7, 3, 35 * S)]), bound(NEXT)
    ranked = query.target("next").ranked
    assert ranked is not None
    questions = questions_before(view, query, Anchors(before="orders", last_us=50 * S))
    assert SPLITS.validation is not None
    assert SPLITS.test is not None
    spans = Spans.of(SPLITS, 5 * S)
    for interval, cutoffs in ((SPLITS.validation, [10 * S]), (SPLITS.test, [20 * S])):
        asked = measured_split(view, ranked, SPLITS, questions, interval, new_within_us=S).questions
        assert asked.cutoff_time_us.tolist() == cutoffs
        assert asked.sessions is not None
        assert len(asked.sessions.item) == 1
        trained = spans.asked(questions, interval, view, ranked)
        assert trained.cutoff_time_us.tolist() == cutoffs
    part = measured_split(view, ranked, SPLITS, questions, SPLITS.test, new_within_us=S)
    assert part.seen.offset.tolist() == [0, 3]
    with pytest.raises(TaskError):
        measured_split(view, ranked, SPLITS, questions, Interval(50 * S, 60 * S), new_within_us=S)


def test_tables_hold_the_whole_and_its_parts(opened: Shop, bound: Bind) -> None:
    """A row for each ranker; one for each part that has questions."""
    view, query = opened([(7, 0, 10 * S), (7, 0, 35 * S), (8, 0, 35 * S)], items=[0]), bound(NEXT)
    ranked = query.target("next").ranked
    assert ranked is not None
    assert SPLITS.test is not None
    questions = questions_before(view, query, Anchors(before="orders", last_us=50 * S))
    part = measured_split(view, ranked, Splits(SPLITS.train), questions, SPLITS.test, new_within_us=S)
    made = {"ours": part.measure(np.array([[0], [-1]]), 1)}
    assert table_of_metrics(made)[0]["NDCG@1"] == "0.5000"
    rows = {row["part"]: row for row in table_of_parts(made)}
    assert set(rows) == {"repeats", "new", "cold_users"}
    assert (rows["repeats"]["HR@1"], rows["cold_users"]["HR@1"]) == ("1.0000", "0.0000")

"""Past questions as they are scored: sessions, kept vectors, lists and recall."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from graph_transformer.config import ModelConfig
from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.ranking.asking import (
    KeptTowers,
    Recall,
    asked_of_past,
    best_items,
    found_by,
    right_ones,
    scored_parts,
)
from graph_transformer.finetune.ranking.questions import RankingQuestions, questions_before
from graph_transformer.finetune.task_file import Anchors
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.lists import Source
from graph_transformer.ranking.plans import default_plan
from graph_transformer.ranking.scoring import Scorer
from graph_transformer.splits import Interval, Splits
from graph_transformer.task import Task
from temporal_graph.view import GraphView

from .conftest import Shop

Bind = Callable[[str], BoundQuery]
S = 1_000_000
NEXT = "PREDICT LIST_DISTINCT(orders.item_id, 0, 1, seconds) RANK TOP 3 FOR EACH users.user_id"
ORDERS = [(1, 0, 10 * S), (2, 0, 20 * S), (2, 1, 30 * S), (1, 1, 40 * S), (1, 2, 50 * S)]


class Vectors:
    """Towers that count how often an item is computed, and when it is shown."""

    dimension = 1

    def __init__(self) -> None:
        self.shown: list[tuple[int, int]] = []

    def users(self, user_row: np.ndarray, *_: object, **__: object) -> np.ndarray:
        return np.ones((len(user_row), 1), dtype=np.float32)

    def items(self, row: np.ndarray, cutoff_time_us: np.ndarray) -> np.ndarray:
        self.shown += list(zip(row.tolist(), cutoff_time_us.tolist(), strict=True))
        return row[:, None].astype(np.float32)


def asked_before(opened: Shop, bound: Bind) -> tuple[GraphView, Task, RankingQuestions]:
    """The shop, a task of it, and what comes next before each order."""
    view, query = opened(ORDERS, items=[1, 1, 1]), bound(NEXT)
    target = query.target("next")
    ranking = RankingConfig(co_visit=4, far=0, popular=2, new=1, new_within="1d", half_life="1d")
    assert target.ranked is not None
    plan = default_plan(view.schema, target, ranking)
    task = Task("next", target, Splits(Interval(0, 60 * S)), plan, ModelConfig(), ranking=ranking)
    return view, task, questions_before(view, query, Anchors(before="orders", last_us=99 * S))


def test_a_frozen_graph_brings_sessions(opened: Shop, bound: Bind) -> None:
    """What the user did since comes as rows and as events alike, and ages count from the time asked."""
    view, task, questions = asked_before(opened, bound)
    ranked = task.target.ranked
    assert ranked is not None
    late = questions.interval(Interval(50 * S - 1, 60 * S)).frozen(35 * S, view, ranked)

    asked = asked_of_past(view, ranked, late, exclude_seen=True)

    assert (asked.cutoff_time_us.tolist(), asked.asked_time_us.tolist()) == ([35 * S], [50 * S - 1])
    assert asked.session.row.tolist() == view.row_index("items", [1]).tolist()
    assert asked.session_time_us.tolist() == [40 * S]
    assert len(asked.events[0]) == 1
    assert asked.exclude_seen.tolist() == [True]
    plain = asked_of_past(view, ranked, questions, exclude_seen=False)
    assert not any(plain.events)


def test_an_item_is_computed_once_and_never_later_than_asked() -> None:
    """Vectors are kept as of the split's begin, those of items that come later as of their arrival."""
    towers, first_us = Vectors(), np.array([0, 0, 70])
    kept = KeptTowers(towers, lambda row: first_us[row], 50)

    once = kept.items(np.array([2, 0, 2]), np.array([90, 60, 95]))
    kept.items(np.array([0, 1]), np.array([99, 99]))

    assert once[:, 0].tolist() == [2.0, 0.0, 2.0]
    assert sorted(towers.shown) == [(0, 50), (1, 50), (2, 70)]


def test_recall_is_told_by_source(opened: Shop, bound: Bind) -> None:
    """An answer that only others' orders lead to counts for the walk and the union, not for the history."""
    view, task, questions = asked_before(opened, bound)
    ranked = task.target.ranked
    assert ranked is not None
    last = questions.interval(Interval(40 * S - 1, 60 * S))
    recall = Recall()
    scorer = Scorer(view, replace(task, ranking=replace(task.ranking, popular=0, new=0)))

    for places, scored in scored_parts(scorer, asked_of_past(view, ranked, last, exclude_seen=False)):
        part = last.select(places)
        recall.take(part, scored.found)
        assert right_ones(part, scored.found).sum() == 1

    shares = recall.shares()
    assert (shares["co_visit"], shares["union"], shares["history"]) == (0.5, 0.5, 0.0)
    assert shares["candidates"] > 0


def test_the_best_items_of_each_question() -> None:
    """Falling by score, ties by row, filled up with -1."""
    found = best_items(np.array([0, 3, 3, 4]), np.array([7, 5, 6, 1]), np.array([1.0, 2.0, 2.0, 0.5]), 2)

    assert found.tolist() == [[5, 6], [-1, -1], [1, -1]]


def test_candidates_are_told_by_who_found_them(opened: Shop, bound: Bind) -> None:
    """One source alone can be left out: an item that another source found as well stays; or asked for alone."""
    view, task, questions = asked_before(opened, bound)
    ranked = task.target.ranked
    assert ranked is not None
    asked = asked_of_past(view, ranked, questions.interval(Interval(50 * S - 1, 60 * S)), exclude_seen=False)
    ((_, scored),) = scored_parts(Scorer(view, task), asked)

    offset, item, kept = found_by(scored, ~Source.NEW)
    _, new, _ = found_by(scored, Source.NEW)

    alone = scored.found.source == int(Source.NEW)
    assert np.array_equal(kept, ~alone)
    assert item.tolist() == scored.found.item[~alone].tolist()
    assert offset.tolist() == [0, len(item)]
    assert set(new.tolist()) | set(item.tolist()) == set(scored.found.item.tolist())

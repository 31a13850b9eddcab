"""A ranking asked about the past: lists of its parts, what a fusion learns from, and what judges it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from graph_transformer.config import ModelConfig
from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.ranking import evaluation
from graph_transformer.finetune.ranking.evaluation import (
    ALL_BUT,
    GRAPH,
    ONLY,
    SEQUENCE,
    WALK,
    Judged,
    answers,
    fusion_lists,
    graph_columns,
    graph_lists,
    wide_recall,
)
from graph_transformer.finetune.ranking.questions import RankingQuestions, questions_before
from graph_transformer.finetune.ranking.result import OURS
from graph_transformer.finetune.task_file import Anchors
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.features import feature_names
from graph_transformer.ranking.fusion import Fusion, FusionConfig
from graph_transformer.ranking.plans import default_plan
from graph_transformer.ranking.scoring import Scorer
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Ranked
from graph_transformer.task import Task
from temporal_graph.view import GraphView

from .conftest import Shop

Bind = Callable[[str], BoundQuery]
S = 1_000_000
NEXT = "PREDICT LIST_DISTINCT(orders.item_id, 0, 1, seconds) RANK TOP 2 FOR EACH users.user_id"
ORDERS = [(user, (user + place) % 4, (10 + 10 * place) * S + user) for place in range(4) for user in range(5)]


class Towers:
    """Vectors of one number: the larger the row, the better the item, for everybody."""

    dimension = 1

    def users(self, user_row: np.ndarray, *_: object, **__: object) -> np.ndarray:
        return np.ones((len(user_row), 1), dtype=np.float32)

    def items(self, row: np.ndarray, cutoff_time_us: np.ndarray) -> np.ndarray:
        return row[:, None].astype(np.float32)


Asked = tuple[GraphView, Ranked, Task, RankingQuestions]


@pytest.fixture
def asked(opened: Shop, bound: Bind) -> Asked:
    """A shop where each user goes around the items, asked before each order but the first."""
    view, query = opened(ORDERS, items=[1, 1, 1, 1]), bound(NEXT)
    target = query.target("next")
    ranking = RankingConfig(co_visit=4, far=0, popular=4, new=0, nearest=4, half_life="1d")
    assert target.ranked is not None
    plan = default_plan(view.schema, target, ranking)
    task = Task("next", target, Splits(Interval(0, 60 * S)), plan, ModelConfig(), ranking=ranking)
    questions = questions_before(view, query, Anchors(before="orders", first_us=20 * S - 1, last_us=99 * S))
    return view, target.ranked, task, questions


def fusion(*, towers: bool, feature: str, sign: float) -> Fusion:
    """Scores by one feature."""
    names = feature_names(towers=towers)
    made = Fusion(FusionConfig(names, (0.0,) * len(names), (1.0,) * len(names), width=2, members=1))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        made.line[0, names.index(feature), 0] = sign
    return made.eval()


def test_every_part_has_lists_of_its_own(asked: Asked) -> None:
    """The towers alone rank by their products, the graph alone by its fusion, the walk by its score."""
    view, ranked, task, questions = asked
    scorer = Scorer(view, task, towers=Towers(), fusion=fusion(towers=True, feature="tower", sign=-1.0))

    found = answers(
        view, ranked, scorer, questions, graph=fusion(towers=False, feature="item_count", sign=1.0), width=3
    )

    assert {OURS, GRAPH, SEQUENCE, WALK} < set(found.lists)
    rows = view.row_index("items", [0, 1, 2, 3])
    assert (found.lists[SEQUENCE] == np.sort(rows)[::-1][:3]).all()
    assert (found.lists[OURS] == np.sort(rows)[:3]).all()
    assert all(lists.shape == (len(questions), 3) for lists in found.lists.values())
    assert found.recall["nearest"] == found.recall["union"] == 1.0


def test_each_source_of_candidates_is_measured_by_itself(asked: Asked) -> None:
    """In the whole's order: what one source found, and what is left without it; a source of nothing is left out."""
    view, ranked, task, questions = asked
    task = replace(task, ranking=replace(task.ranking, co_visit=1, popular=0))
    scorer = Scorer(view, task, towers=Towers(), fusion=fusion(towers=True, feature="tower", sign=1.0))

    lists = answers(view, ranked, scorer, questions, graph=None, width=4).lists

    parts = {form.format(name) for form in (ONLY, ALL_BUT) for name in ("co_visit", "nearest", "history")}
    assert set(lists) == {OURS, SEQUENCE, WALK} | parts
    assert ((lists[ONLY.format("co_visit")] >= 0).sum(axis=1) <= 1).all()
    assert np.array_equal(lists[ONLY.format("nearest")], lists[OURS])
    missed = lists[ALL_BUT.format("nearest")]
    assert (missed < 0).any()
    for without, whole in zip(missed, lists[OURS], strict=True):
        assert [row for row in whole if row in without] == [row for row in without if row >= 0]


def test_what_is_learned_from_has_the_answers_marked(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each list has its question's items as right ones; of too many questions some are drawn."""
    view, ranked, task, questions = asked
    scorer = Scorer(view, task, towers=Towers())

    lists = fusion_lists(view, ranked, scorer, questions, seed=0)
    monkeypatch.setattr(evaluation, "LISTS_MAX", 4)
    fewer = fusion_lists(view, ranked, scorer, questions, seed=0)

    assert lists.names == feature_names(towers=True)
    assert len(lists) == len(questions)
    assert lists.right.sum() == len(questions.item)
    assert len(fewer) == 4
    graph = graph_lists(lists)
    assert graph.features.shape[1] == len(graph.names) == len(feature_names(towers=False))
    columns = graph_columns(lists.names, lists.features.astype(np.float32))
    assert np.array_equal(columns.astype(np.float16), graph.features)


def test_a_fusion_is_judged_by_where_the_answers_stand(asked: Asked) -> None:
    """NDCG is that of the order that the fusion gives; one without towers reads the graph's features alone."""
    view, ranked, task, questions = asked
    judged = Judged(view, ranked, Scorer(view, task, towers=Towers()), questions, top=2, seed=0)

    first = judged.ndcg(fusion(towers=True, feature="tower", sign=1.0))
    last = judged.ndcg(fusion(towers=True, feature="tower", sign=-1.0))
    place = {row: at for at, row in enumerate(np.sort(view.row_index("items", [0, 1, 2, 3]))[::-1].tolist())}
    gains = [1 / np.log2(place[row] + 2) if place[row] < 2 else 0.0 for row in questions.item.tolist()]

    assert first == pytest.approx(np.mean(gains))
    assert last != pytest.approx(first)
    assert 0.0 <= judged.ndcg(fusion(towers=False, feature="item_count", sign=1.0)) <= 1.0


def test_recall_needs_no_scores(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """All items near, all answers are found; none near and no walks, only what is popular is."""
    view, ranked, task, questions = asked
    few = replace(task, ranking=replace(task.ranking, co_visit=0, popular=1, nearest=0))
    monkeypatch.setattr(evaluation, "RECALL_MAX", 5)

    every = wide_recall(view, ranked, Scorer(view, task, towers=Towers()), questions, seed=0)
    some = wide_recall(view, ranked, Scorer(view, few, towers=Towers()), questions, seed=0)

    assert every == 1.0
    assert some < 1.0

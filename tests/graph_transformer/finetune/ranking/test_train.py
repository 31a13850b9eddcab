"""A ranking is trained whole: a shop's rule is found, every part is measured, and what serves says the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graph_transformer.config import ModelConfig
from graph_transformer.finetune.ranking import asking, evaluation
from graph_transformer.finetune.ranking.evaluation import GRAPH, SEQUENCE, WALK
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.finetune.ranking.result import OURS, RankingResult
from graph_transformer.finetune.ranking.time_budget import FUSIONS, JUDGED, LISTS, TOWERS
from graph_transformer.finetune.ranking.train import train
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.lists import RankQuestion, Source
from graph_transformer.ranking.plans import default_plan
from graph_transformer.ranking.ranker import Ranker
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Kind, Ranked, Target
from graph_transformer.task import Task, Training
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema
from temporal_graph.view import GraphView

from .conftest import item_event, order_event

TARGET = Target(
    Kind.RANKING, "users", event_level=False, horizon_us=10, ranked=Ranked("orders", "user_id", "item_id", "items", 3)
)
USERS, ITEMS, ORDERS = 60, 24, 12
START_US = 10**12
HOUR_US = 3_600_000_000


@pytest.fixture(scope="module")
def graph(shop: Schema) -> Iterator[TemporalGraph]:
    """After item i each user buys item i + 1, from a start of their own; one order an hour."""
    with TemporalGraph.create(shop, arena_bytes=64 << 20) as made:
        events = [item_event(item, 1) for item in range(ITEMS)]
        events += [
            order_event(user * ORDERS + place, user, (user * 7 + place) % ITEMS, START_US + place * HOUR_US)
            for place in range(ORDERS)
            for user in range(USERS)
        ]
        assert made.apply(events, backfill=True).rejected == ()
        yield made


def questions(view: GraphView) -> RankingQuestions:
    """What each user buys after the first order, asked one microsecond before."""
    place, user = (grid.reshape(-1) for grid in np.meshgrid(np.arange(1, ORDERS), np.arange(USERS), indexing="ij"))
    times = START_US + place * HOUR_US
    item = view.row_index("items", (user * 7 + place) % ITEMS)
    return RankingQuestions(view.row_index("users", user), times - 1, times - 1, times, np.arange(len(user) + 1), item)


def at(place: int) -> int:
    """A time just before the orders of a place."""
    return START_US + place * HOUR_US - 1_000


def task_of(view: GraphView, splits: Splits) -> Task:
    """A small ranking of the shop."""
    ranking = RankingConfig(
        dimension=16, history=4, negatives=20, co_visit=12, far=4, popular=6, new=2, nearest=8,
        fusion_span="2h", fusion_steps=60, fusion_width=16, half_life="1d",
    )  # fmt: skip
    model = ModelConfig(width=16, heads=4, sums=0, dropout=0.0, token_dropout=0.0)
    training = Training(steps=40, batch=64, learning_rate=1e-2, weight_decay=0.0, ema=0.9, evaluate_every=40)
    return Task("next", TARGET, splits, default_plan(view.schema, TARGET, ranking), model, training, ranking=ranking)


@pytest.fixture(scope="module")
def trained(graph: TemporalGraph, shop: Schema, tmp_path_factory: pytest.TempPathFactory) -> RankingResult:
    """A training with validation, refit and test."""
    splits = Splits(
        train=Interval(0, at(9)),
        validation=Interval(at(9), at(10)),
        refit=Interval(0, at(11)),
        test=Interval(at(11), at(12)),
    )
    view = graph.view()
    return train(
        view, shop, task_of(view, splits), tmp_path_factory.mktemp("ranking") / "model", questions=questions(view)
    )


def test_the_rule_is_found_and_every_part_is_measured(trained: RankingResult) -> None:
    """On both splits: the whole is nearly always right, its parts and the floors stand beside it."""
    for split in ("validation", "test"):
        figures = trained.metrics[split]
        assert {OURS, GRAPH, SEQUENCE, WALK, "popular", "ease"} <= set(figures)
        assert figures[OURS].count == USERS
        assert figures[OURS].ndcg > 0.9
        assert figures[OURS].ndcg > figures["popular"].ndcg
        assert trained.recall[split]["union"] >= trained.recall[split]["co_visit"] > 0.9
        assert trained.recall[split]["new"] < 0.5
        assert trained.recall[split]["union, 500 of each"] == 1.0


def test_what_was_saved_ranks_the_same(trained: RankingResult, graph: TemporalGraph) -> None:
    """Loaded on the graph, the ranker puts the next item on top for most users, as the figures say."""
    view = graph.view()
    ranker = Ranker.load(trained.folder, view)
    assert ranker.version == trained.version
    asked = [RankQuestion(user, (), at(11) + 999, limit=3) for user in range(USERS)]
    lists = ranker.rank(asked).lists
    right = [found.key[0] == (user * 7 + 11) % ITEMS for user, found in enumerate(lists)]
    assert np.mean(right) > 0.8
    assert all(found.source[0] & (Source.CO_VISIT | Source.NEAREST) for found in lists)


def test_a_budget_cuts_steps_and_lists_and_says_so(
    graph: TemporalGraph, shop: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any time each phase does the least it can; what is left out is told, and the model serves."""
    monkeypatch.setattr(asking, "TOGETHER", 16)
    splits = Splits(
        train=Interval(0, at(9)),
        validation=Interval(at(9), at(10)),
        refit=Interval(0, at(11)),
        test=Interval(at(11), at(12)),
    )
    view, folder = graph.view(), tmp_path / "model"
    task = task_of(view, splits)
    task = replace(task, training=replace(task.training, steps=4_000))
    result = train(view, shop, task, folder, questions=questions(view), budget_s=1e-3)
    cut = {each.phase: (each.done, each.wanted) for each in result.cuts}
    assert cut[TOWERS][0] < 200
    assert cut[TOWERS][1] == 4_000
    assert cut[LISTS] == (16, 2 * USERS)
    assert cut[JUDGED] == (16, USERS)
    assert cut[FUSIONS] == (1, 60)
    assert {OURS, "popular", "ease"} <= set(result.metrics["test"])
    assert "ease" not in result.metrics["validation"]
    assert Ranker.load(folder, view).rank([RankQuestion(0, (), at(11) + 999, limit=3)]).lists[0].key


def test_a_budget_that_suffices_cuts_nothing(graph: TemporalGraph, shop: Schema, tmp_path: Path) -> None:
    """Steps and lists are those of a training without one."""
    splits = Splits(train=Interval(0, at(9)), validation=Interval(at(9), at(10)), test=Interval(at(10), at(11)))
    view = graph.view()
    result = train(
        view, shop, task_of(view, splits), tmp_path / "m", questions=questions(view), budget_s=3600.0, floors=False
    )
    assert result.cuts == ()
    assert result.metrics["test"][OURS].ndcg > 0.9


def test_a_frozen_test_is_asked_with_sessions(
    graph: TemporalGraph, shop: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the graph of the test has ended, what the user did since comes as a session, and the rule still holds."""
    monkeypatch.setattr(evaluation, "LISTS_MAX", 60)
    splits = Splits(
        train=Interval(0, at(10)),
        validation=Interval(at(10), at(11)),
        test=Interval(at(11), at(12)),
        frozen_us=at(10),
    )
    view = graph.view()
    result = train(view, shop, task_of(view, splits), tmp_path / "model", questions=questions(view), floors=False)
    assert result.metrics["test"][OURS].ndcg > 0.8
    assert "popular" not in result.metrics["test"]

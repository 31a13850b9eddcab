"""Towers measured alone: every item that exists is ranked, as of the cut-off, and the best come first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from graph_transformer.finetune.ranking.histories import Interactions
from graph_transformer.finetune.ranking.presence import Presence
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.finetune.ranking.tower_feed import ItemPool
from graph_transformer.finetune.ranking.tower_score import TowerScorer, tower_validator
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.model import RankingModel
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Kind, Ranked, Target
from graph_transformer.task import Task
from online_sampler.plan import SamplingPlan
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.view import GraphView

SINCE = [10, 10, 10, 40]
TARGET = Target(
    Kind.RANKING, "users", event_level=False, horizon_us=10, ranked=Ranked("orders", "user_id", "item_id", "items", 2)
)


class Known(RankingModel):
    """Every user likes item 3 best, then 2, 1 and 0."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.dimension = 1

    def users(self, batch: Any) -> torch.Tensor:
        """One number, the same for all."""
        return torch.ones(len(batch.row), 1)

    def items(self, batch: Any) -> torch.Tensor:
        """The item's row."""
        return torch.from_numpy(batch.row.astype(np.float32))[:, None]


class Rows:
    """Batches that are nothing but rows and cut-offs; no item is read before it existed."""

    def __init__(self, since: list[int]) -> None:
        self.since = np.array(since)
        self.sessions: list[list[bytes]] = []

    def sampled_users(self, row: Any, cutoff: Any, sessions: Any = None, *, asked_time_us: Any = None) -> Any:
        """The rows."""
        self.sessions += [] if sessions is None else [list(session) for session in sessions]
        return _Batch(row)

    def sampled_items(self, row: Any, cutoff: Any) -> Any:
        """The rows, which were all there."""
        assert (cutoff >= self.since[row]).all()
        return _Batch(row)

    def users(self, found: Any, asked: Any) -> Any:
        """What was sampled."""
        return found

    def items(self, found: Any) -> Any:
        """What was sampled."""
        return found


class _Batch:
    def __init__(self, row: Any) -> None:
        self.row = row

    def to(self, device: str) -> _Batch:
        return self


def scorer_of(view: GraphView, *, exclude_seen: bool) -> TowerScorer:
    """A scorer of the shop with orders by users 0 and 1."""
    presence = Presence(view, "items")
    questions = asked([(0, 5, 0)])
    plan = SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 0}}]})
    task = Task("next", TARGET, Splits(Interval(0, 9)), plan, ranking=RankingConfig(exclude_seen=exclude_seen))
    interactions = Interactions.of(view, TARGET.ranked)  # type: ignore[arg-type]
    return TowerScorer(task, Rows(SINCE), interactions, presence, ItemPool.of(presence.first_us, questions))  # type: ignore[arg-type]


def asked(rows: list[tuple[int, int, int]]) -> RankingQuestions:
    """Questions of (user, cut-off, item)."""
    user, cutoff, item = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    return RankingQuestions(user, cutoff, cutoff, cutoff, np.arange(len(rows) + 1), item)


def test_items_are_ranked_that_existed(opened: Callable[..., GraphView]) -> None:
    """Item 3 leads from the microsecond it appears; lists that could be longer end with -1."""
    view = opened([(0, 2, 30), (1, 0, 30)], SINCE)
    scorer = scorer_of(view, exclude_seen=False)
    best = scorer.best(Known(), asked([(0, 50, 1), (1, 39, 1), (0, 40, 1), (1, 9, 1)]), 4)
    assert best.tolist() == [[3, 2, 1, 0], [2, 1, 0, -1], [3, 2, 1, 0], [-1, -1, -1, -1]]


def test_what_the_user_had_is_left_out_where_the_task_says_so(opened: Callable[..., GraphView]) -> None:
    """From the order's own time on, and for that user alone."""
    view = opened([(0, 2, 30), (1, 0, 30)], SINCE)
    scorer = scorer_of(view, exclude_seen=True)
    best = scorer.best(Known(), asked([(0, 29, 1), (0, 30, 1), (1, 30, 1)]), 2)
    assert best.tolist() == [[2, 1], [1, 0], [2, 1]]


def test_the_validator_gives_ndcg(opened: Callable[..., GraphView]) -> None:
    """Items at the first and the second place, of two: 1 and 1 / log2(3); with a part asked, of that part."""
    view = opened([(0, 2, 30), (1, 0, 30)], SINCE)
    scorer = scorer_of(view, exclude_seen=False)
    questions = asked([(0, 50, 3), (1, 50, 2)])
    judge = tower_validator(scorer, view, questions, seed=0)
    assert judge.metric == "NDCG@2"
    assert judge.higher_is_better
    np.testing.assert_allclose(judge.measure(Known()), (1.0 + 1.0 / np.log2(3.0)) / 2.0)
    fewer = replace(scorer.task, training=replace(scorer.task.training, validation_examples=1))
    one = tower_validator(replace(scorer, task=fewer), view, questions, seed=0).measure(Known())
    assert min(abs(one - 1.0), abs(one - 1.0 / np.log2(3.0))) < 1e-9


def test_questions_of_a_frozen_graph_bring_their_sessions(opened: Callable[..., GraphView]) -> None:
    """What users did after the graph ended is read with them, each their own, and is no answer to them."""
    view = opened([(0, 2, 30), (1, 0, 30), (1, 1, 35)], SINCE)
    ranked = TARGET.ranked
    assert ranked is not None
    scorer = scorer_of(view, exclude_seen=True)
    questions = asked([(1, 45, 2), (0, 45, 1)]).frozen(20, view, ranked)
    tower_validator(scorer, view, questions, seed=0).measure(Known())
    rows = scorer.batches
    assert isinstance(rows, Rows)
    events = [[row_event_pb2.RowEvent.FromString(event) for event in session] for session in rows.sessions]
    assert [[event.event_time_us for event in session] for session in events] == [[30, 35], [30]]
    assert scorer.best(Known(), questions, 2).tolist() == [[2, -1], [1, 0]]

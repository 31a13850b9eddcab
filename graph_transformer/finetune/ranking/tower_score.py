"""The towers alone, measured: every item that exists ranked by the dot product with the user's vector.

questions ─► user vectors ─┐
items as of the cut-offs ──┴─► scores, what the user had left out if the task says so ─► the best ─► NDCG
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from graph_transformer.finetune.choice import Validator
from graph_transformer.finetune.query.rows import RowSource
from graph_transformer.finetune.ranking.histories import Interactions
from graph_transformer.finetune.ranking.metrics import Measured
from graph_transformer.finetune.ranking.presence import Presence
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.finetune.ranking.session_events import session_events
from graph_transformer.finetune.ranking.tower_feed import ItemPool
from graph_transformer.ranking.model import RankingModel
from graph_transformer.ranking.towers import TowerBatches, vectors_of_items, vectors_of_users
from graph_transformer.task import Task

Int64 = NDArray[np.int64]
QUESTIONS = 512
"""Questions ranked together: their scores of 12,000 items are 25 MB."""
SHOWN = 16
"""Times at which items are read for one measurement: of each question's cut-off the latest before it."""


@dataclass(frozen=True)
class TowerScorer:
    """Ranks all items for questions; `pool` has the items and when they were first visible."""

    task: Task
    batches: TowerBatches
    interactions: Interactions
    presence: Presence
    pool: ItemPool
    device: str = "cpu"

    def best(
        self,
        model: RankingModel,
        questions: RankingQuestions,
        count: int,
        sessions: Sequence[Sequence[bytes]] | None = None,
    ) -> Int64:
        """Return int64 [n, count]: the best item rows of each question, -1 where there are fewer.

        `sessions` are the events of the questions' own, as `session_events` makes them.
        """
        order = np.argsort(questions.cutoff_time_us, kind="stable")
        out = np.full((len(questions), count), -1, dtype=np.int64)
        for part in np.array_split(order, min(SHOWN, len(order))):
            asked_us = questions.cutoff_time_us[part]
            first_us, newest_us = int(asked_us.min()), int(asked_us.max())
            there = int(np.searchsorted(self.pool.first_us, newest_us, side="right"))
            row, seen_us = self.pool.row[:there], self.pool.first_us[:there]
            shown_us = np.maximum(seen_us, first_us)
            items = torch.from_numpy(vectors_of_items(model, self.batches, row, shown_us, device=self.device))
            for start in range(0, len(part), QUESTIONS):
                chosen = part[start : start + QUESTIONS]
                events = None if sessions is None else [sessions[at] for at in chosen.tolist()]
                score = self._scores(model, questions.select(chosen), events, (items, row))
                value, place = torch.topk(score, min(count, there), dim=1)
                out[chosen, : value.shape[1]] = np.where(torch.isfinite(value).numpy(), row[place.numpy()], -1)
        return out

    def _scores(
        self,
        model: RankingModel,
        asked: RankingQuestions,
        sessions: Sequence[Sequence[bytes]] | None,
        shown: tuple[torch.Tensor, Int64],
    ) -> torch.Tensor:
        """Return float32[n, m] of m items shown (vectors, rows), minus infinity of those not there for a question."""
        (items, row), cutoff_us = shown, asked.cutoff_time_us
        users = vectors_of_users(
            model,
            self.batches,
            asked.user,
            cutoff_us,
            device=self.device,
            asked_time_us=asked.time_us,
            sessions=sessions,
        )
        score = torch.from_numpy(users) @ items.T
        first_us = self.pool.first_us[: len(row)]
        score.masked_fill_(torch.from_numpy(first_us[None, :] > cutoff_us[:, None]), -torch.inf)
        if self.task.ranking.exclude_seen:
            column = np.full(len(self.presence.first_us), -1, dtype=np.int64)
            column[row] = np.arange(len(row))
            had = self.interactions.histories(asked)
            at, there = column[had.item], column[had.item] >= 0
            score[torch.from_numpy(had.question[there]), torch.from_numpy(at[there])] = -torch.inf
        return score


def tower_validator(scorer: TowerScorer, source: RowSource, questions: RankingQuestions, *, seed: int) -> Validator:
    """Return what judges towers: NDCG on later questions, or on a fixed part of them drawn at random.

    `source` is the graph, from which the events of the questions' sessions are made.
    """
    ranked, most = scorer.task.target.ranked, scorer.task.training.validation_examples
    assert ranked is not None
    top = ranked.top
    part = questions.drawn(most, np.random.default_rng(seed))
    events = None if part.sessions is None else session_events(source, ranked, part.sessions)
    judge = Measured.of(
        part,
        scorer.interactions,
        scorer.presence,
        cold_from_us=int(part.time_us.min()),
        new_within_us=scorer.task.ranking.new_within_us,
    )

    def measured(model: nn.Module) -> float:
        assert isinstance(model, RankingModel)
        return judge.measure(scorer.best(model, part, top, events), top).ndcg

    return Validator(f"NDCG@{top}", True, measured)

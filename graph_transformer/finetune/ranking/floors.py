"""What costs nothing to know, measured on the same questions with the same cut-offs as the model.

    own history, popularity:  as of each question
    item-kNN, co-visitation, EASE:  fitted on what was visible when the split began, read with the history as of each

What a floor has no score for is filled up with what is popular. Half-lives are chosen on validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.ranking.floors_counts import HALF_LIVES_US, Columns, Popular, Repeat, Scores
from graph_transformer.finetune.ranking.floors_items import co_visitation, ease, item_neighbors
from graph_transformer.finetune.ranking.histories import Histories
from graph_transformer.finetune.ranking.metrics import LISTED, Measured, RankingMetrics
from graph_transformer.finetune.ranking.questions import RankingQuestions

Int64 = NDArray[np.int64]

CHUNK_SCORES = 4_000_000
"""Scores made at a time: some tens of megabytes."""
FLOORS = ("popular", "repeat", "item_knn", "co_visitation", "ease")


class Floor(Protocol):
    """Scores for the items of its columns; 0 and below say nothing of an item."""

    @property
    def columns(self) -> Columns:
        """The items it can list."""

    def scores(self, questions: RankingQuestions, histories: Histories) -> Scores:
        """Return float32 [n, columns]."""


@dataclass(frozen=True)
class Lister:
    """Makes lists of a floor's scores: only items that exist at the cut-off, the popular ones at the end."""

    split: Measured
    popular: Popular
    exclude_seen: bool
    width: int = LISTED

    def lists(self, floor: Floor) -> Int64:
        """Return int64 [n, width]: item rows, the best first, -1 where there is no more."""
        step = max(1, CHUNK_SCORES // max(len(self.popular.columns), 1))
        questions = self.split.questions
        parts = [
            self._part(floor, np.arange(low, min(low + step, len(questions)))) for low in range(0, len(questions), step)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.width), dtype=np.int64)

    def _part(self, floor: Floor, chosen: Int64) -> Int64:
        questions, histories = self.split.questions.select(chosen), self.split.seen.select(chosen)
        columns = floor.columns
        score = floor.scores(questions, histories)
        if floor is not self.popular:
            # float64: what is added would round the order of small scores away.
            best = np.maximum(score.max(axis=1, initial=0.0, keepdims=True), 1e-30).astype(np.float64)
            filling = self.popular.scores(questions, histories) * 0.5  # its best is 1
            score = np.where(score > 0.0, score / best + 1.0, filling)
        if not self.split.presence.always:
            there = self.split.presence.at(columns.item[None, :], questions.cutoff_time_us[:, None])
            score = np.where(there, score, 0.0)
        if self.exclude_seen:
            score[histories.question, columns.of(histories.item)] = 0.0
        width = min(self.width, score.shape[1])
        top = np.argpartition(-score, width - 1, axis=1)[:, :width] if width else np.zeros((len(chosen), 0), dtype=int)
        value = np.take_along_axis(score, top, axis=1)
        order = np.lexsort((top, -value))
        top, value = np.take_along_axis(top, order, axis=1), np.take_along_axis(value, order, axis=1)
        found = np.full((len(chosen), self.width), -1, dtype=np.int64)
        found[:, :width] = np.where(value > 0.0, columns.item[top], -1)
        return found


def measure_floors(
    split: Measured, *, k: int, exclude_seen: bool, validation: Measured | None = None, names: tuple[str, ...] = FLOORS
) -> dict[str, RankingMetrics]:
    """Return the metrics of each floor on a split.

    What is chosen is chosen by NDCG@k on `validation`, else not at all: half-lives are then the longest.
    """
    half_life_us = HALF_LIVES_US[-1] if validation is None else _chosen(validation, "popular", k, exclude_seen)
    found = {}
    for name in names:
        own_us = half_life_us
        if name == "repeat" and validation is not None:
            own_us = _chosen(validation, name, k, exclude_seen)
        lister, floor = _made(split, name, own_us, half_life_us, exclude_seen)
        found[name] = split.measure(lister.lists(floor), k)
    return found


def _chosen(validation: Measured, name: str, k: int, exclude_seen: bool) -> int:
    """Return the half-life that validates best."""

    def ndcg(half_life_us: int) -> float:
        lister, floor = _made(validation, name, half_life_us, HALF_LIVES_US[-1], exclude_seen)
        return validation.measure(lister.lists(floor), k).ndcg

    return max(HALF_LIVES_US, key=ndcg) if len(validation.questions) else HALF_LIVES_US[-1]


def _made(split: Measured, name: str, half_life_us: int, filling_us: int, exclude_seen: bool) -> tuple[Lister, Floor]:
    interactions, columns = split.interactions, Columns(split.interactions)
    if name == "popular":
        filling_us = half_life_us
    popular = Popular.fitted(columns, interactions, filling_us)
    lister = Lister(split, popular, exclude_seen)
    if name == "popular":
        return lister, popular
    if name == "repeat":
        return lister, Repeat(columns, half_life_us)
    fitted: Mapping[str, Callable[..., Floor]] = {
        "item_knn": item_neighbors,
        "co_visitation": co_visitation,
        "ease": ease,
    }
    # Of a graph that has ended no question sees the split's start, nor may what is fitted.
    start_us = min(split.cold_from_us, int(split.questions.cutoff_time_us.max()))
    return lister, fitted[name](columns, interactions.visible(start_us))

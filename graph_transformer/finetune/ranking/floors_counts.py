"""Floors that count: what is popular with everybody, and what this user has had before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.ranking.histories import Histories, Interactions
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.ranking.asked import distinct
from graph_transformer.ranking.popularity import SNAPSHOT_ITEMS, Popularity

Int64 = NDArray[np.int64]
Scores = NDArray[np.float32]

DAY_US = 86_400_000_000
HALF_LIVES_US: Sequence[int] = (3 * DAY_US, 14 * DAY_US, 60 * DAY_US, 120 * DAY_US, 3_650 * DAY_US)
"""Tried on validation; the last counts all alike."""


class Columns:
    """The items that a floor can list, numbered without gaps: those of any interaction."""

    def __init__(self, interactions: Interactions) -> None:
        self.item: Int64 = distinct(interactions.item)

    def __len__(self) -> int:
        """The number of items."""
        return len(self.item)

    def of(self, item: Int64) -> Int64:
        """Return the column of each item, which must be among them."""
        return np.searchsorted(self.item, item)


@dataclass(frozen=True)
class Popular:
    """Items by their decayed count as of each question, of everybody, unknown users too."""

    columns: Columns
    popularity: Popularity

    @classmethod
    def fitted(cls, columns: Columns, interactions: Interactions, half_life_us: int) -> Popular:
        """Count all interactions; each question sees those of its own past."""
        popularity = Popularity(half_life_us)
        popularity.take(*interactions.arrived)
        return cls(columns, popularity)

    def scores(self, questions: RankingQuestions, _: Histories) -> Scores:
        """Return float32 [n, columns]: the counts of the most popular, 0 of others."""
        times, asked = np.unique(questions.cutoff_time_us, return_inverse=True)
        of_time = np.zeros((len(times), len(self.columns)), dtype=np.float32)
        for line, time_us in zip(of_time, times.tolist(), strict=True):
            item, score = self.popularity.top(time_us, SNAPSHOT_ITEMS)
            line[self.columns.of(item)] = score / max(score.max(initial=0.0), 1e-300)  # old counts alone are tiny
        scores: Scores = of_time[asked]
        return scores


@dataclass(frozen=True)
class Repeat:
    """The user's own items, by how often and how recently he had them."""

    columns: Columns
    half_life_us: int

    def scores(self, questions: RankingQuestions, histories: Histories) -> Scores:
        """Return float32 [n, columns]: the sum of 2^(-age / half-life) over the user's interactions with each item."""
        found = np.zeros((len(questions), len(self.columns)), dtype=np.float32)
        owner = histories.question
        age_us = questions.time_us[owner] - histories.event_time_us
        weight = np.maximum(np.exp2(-age_us / self.half_life_us), 1e-30).astype(np.float32)
        np.add.at(found, (owner, self.columns.of(histories.item)), weight)
        return found

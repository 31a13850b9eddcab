"""How good lists are: hits and their places over all questions, and over repeats, new items and cold ones apart.

    lists + questions with their items ─► relevant[question, place] ─► figures of the whole and of each part

An item is relevant or not. DCG discounts place p (from 0) by log2(p + 2); NDCG divides by the best that the question's
items allow; average precision divides by as many as could be found among k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.metrics.base import Metrics, shown
from graph_transformer.finetune.ranking.histories import Histories, Interactions
from graph_transformer.finetune.ranking.presence import Presence
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.ranking.asked import among, distinct

Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

LISTED = 100
"""Items of a list that is measured: enough for the first ten among repeats, or among new ones."""


@dataclass(frozen=True, slots=True)
class ListMetrics(Metrics):
    """Means over `count` questions of their first `k` items; ndcg_error is the standard error of ndcg.

    recall is the share of a question's items that are found, mrr of the first one's place.
    """

    k: int
    hit_rate: float
    ndcg: float
    ndcg_error: float
    mrr: float
    map: float
    recall: float

    def figures(self) -> dict[str, str]:
        """Return what a person is shown, by short name."""
        k = self.k
        return {
            "questions": f"{self.count:,}",
            f"HR@{k}": shown(self.hit_rate, 4),
            f"NDCG@{k}": shown(self.ndcg, 4),
            "±": shown(self.ndcg_error, 4),
            f"MRR@{k}": shown(self.mrr, 4),
            f"MAP@{k}": shown(self.map, 4),
            f"recall@{k}": shown(self.recall, 4),
        }


@dataclass(frozen=True, slots=True)
class RankingMetrics(ListMetrics):
    """Those of the whole, and of its parts by name.

    coverage: items in any of the lists, as a share of those that exist. new_items: the share of listed items that
    became visible shortly before the question; NaN of items without time. unseen: the share that the user never had.
    Parts: `repeats`, `new` (see `measure_lists`), `cold_users`, `cold_items`.
    """

    coverage: float = np.nan
    new_items: float = np.nan
    unseen: float = np.nan
    parts: Mapping[str, ListMetrics] = field(default_factory=dict)

    def figures(self) -> dict[str, str]:
        """Return the figures of the whole and each part's NDCG."""
        own = ListMetrics.figures(self)
        own |= {"coverage": shown(self.coverage), "new items": shown(self.new_items), "unseen": shown(self.unseen)}
        return own | {f"{name} NDCG@{self.k}": shown(part.ndcg, 4) for name, part in self.parts.items()}


@dataclass(frozen=True, slots=True)
class Measured:
    """What measuring needs beside the lists, made once for all rankers of one split.

    questions; what each user had at the cut-off; which items exist when; from when users and items are cold: the start
    of the split; new_within_us: how long after it became visible an item counts as new.
    """

    questions: RankingQuestions
    seen: Histories
    presence: Presence
    interactions: Interactions
    cold_from_us: int
    new_within_us: int

    @classmethod
    def of(
        cls,
        questions: RankingQuestions,
        interactions: Interactions,
        presence: Presence,
        *,
        cold_from_us: int,
        new_within_us: int,
    ) -> Measured:
        """Return what measuring lists of these questions needs."""
        return cls(questions, interactions.histories(questions), presence, interactions, cold_from_us, new_within_us)

    def measure(self, lists: Int64, k: int) -> RankingMetrics:
        """Return the metrics of lists, int64 [n, at least k] of item rows, the best first, -1 where there is no more.

        `repeats` and `new` rank and count only the items that the user had, or had not, among all that is listed: give
        lists longer than k, so that a part's first k are there. Cold are users and items without any interaction
        before the split; of cold items the lists stay as they are.

        Raises:
            ValueError: the lists are too short, of other questions, or name an item twice.
        """
        questions = self.questions
        _check(lists, len(questions), k)
        asked = np.arange(len(questions))[:, None]
        found = among(asked, lists, questions.question, questions.item)
        had = among(asked, lists, self.seen.question, self.seen.item)
        repeated = among(questions.question, questions.item, self.seen.question, self.seen.item)
        wanted = np.diff(questions.item_offset)
        parts = {
            "repeats": self._part(lists, found, had, repeated, k),
            "new": self._part(lists, found, ~had, ~repeated, k),
        }
        cold = self._is_cold("user", questions.user)
        parts["cold_users"] = _means(found[cold, :k], wanted[cold], k)
        cold = self._is_cold("item", questions.item)
        some = np.bincount(questions.question[cold], minlength=len(questions))
        cold_listed = found & self._is_cold("item", lists)
        parts["cold_items"] = _means(cold_listed[some > 0, :k], some[some > 0], k)
        whole, top = _means(found[:, :k], wanted, k), lists[:, :k]
        listed = top >= 0
        unseen = float((listed & ~had[:, :k]).sum() / listed.sum()) if listed.any() else np.nan
        own: dict[str, Any] = {each.name: getattr(whole, each.name) for each in fields(ListMetrics)}
        return RankingMetrics(**own, coverage=self._coverage(top), new_items=self._new(top), unseen=unseen, parts=parts)

    def _part(self, lists: Int64, found: Mask, kept: Mask, wanted: Mask, k: int) -> ListMetrics:
        """Return the figures of a part of the items, ranked among themselves, over questions that want some."""
        count = np.bincount(self.questions.question[wanted], minlength=len(self.questions))
        asked = count > 0
        order = np.argsort(~(kept & (lists >= 0))[asked], axis=1, kind="stable")[:, :k]
        return _means(np.take_along_axis((found & kept)[asked], order, axis=1), count[asked], k)

    def _is_cold(self, name: str, row: Int64) -> Mask:
        """Return which users or items had no interaction by the start of the split; -1 is not cold, nor anything."""
        first_us = np.append(self.interactions.first_us[name], np.iinfo(np.int64).max)
        cold: Mask = (row >= 0) & (first_us[np.minimum(row, len(first_us) - 1)] >= self.cold_from_us)
        return cold

    def _coverage(self, lists: Int64) -> float:
        rows = len(self.presence.first_us)
        last_us = int(self.questions.cutoff_time_us.max(initial=0))
        exist = int(self.presence.at(np.arange(rows), np.full(1, last_us)).sum())
        return len(distinct(lists[lists >= 0])) / exist if exist else np.nan

    def _new(self, lists: Int64) -> float:
        if self.presence.timeless or not (lists >= 0).any():
            return np.nan
        since_us = self.questions.cutoff_time_us[:, None] - self.new_within_us
        fresh = (lists >= 0) & (self.presence.first_us[lists] > since_us)
        return float(fresh.sum() / (lists >= 0).sum())


def _check(lists: Int64, questions: int, k: int) -> None:
    if lists.ndim != 2 or lists.shape[0] != questions or lists.shape[1] < k:
        raise ValueError(f"lists: expected {questions} of at least {k} items, found the shape {lists.shape}")
    ordered = np.sort(lists, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ValueError("lists: an item stands twice in one of them")


def ndcg_of(found: Mask, wanted: Int64, k: int) -> Floats:
    """Return float64[n]: NDCG of lists with `found` bool [n, at most k] by place, of which `wanted` could be found."""
    gain = 1.0 / np.log2(np.arange(k) + 2.0)
    ideal = np.cumsum(gain)[np.clip(wanted, 1, k) - 1]
    ndcg: Floats = found @ gain[: found.shape[1]] / ideal
    return ndcg


def _means(found: Mask, wanted: Int64, k: int) -> ListMetrics:
    """Return the figures of `found` bool [n, at most k] by place, of questions that want so many items."""
    count = len(found)
    if not count:
        return ListMetrics(0, k, *[np.nan] * 6)
    place = np.arange(found.shape[1])
    possible = np.minimum(wanted, k)
    ndcg = ndcg_of(found, wanted, k)
    first = np.where(found.any(axis=1), 1.0 / (found.argmax(axis=1) + 1.0), 0.0) if found.shape[1] else np.zeros(count)
    precision = (np.cumsum(found, axis=1) / (place + 1.0) * found).sum(axis=1) / possible
    return ListMetrics(
        count=count,
        k=k,
        hit_rate=float(found.any(axis=1).mean()),
        ndcg=float(ndcg.mean()),
        ndcg_error=float(ndcg.std() / np.sqrt(count)),
        mrr=float(first.mean()),
        map=float(precision.mean()),
        recall=float((found.sum(axis=1) / wanted).mean()),
    )

"""Questions as rows to scored candidates: what serving, fitting and measuring have in common.

Asked ─► user vectors ─► nearest ─► Retriever ─► filter ─► item vectors, live ─► Features ─► Fusion ─► Scored
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.errors import TaskError
from graph_transformer.ranking.asked import Asked, Ragged
from graph_transformer.ranking.candidates import WIDER, Retrieved, Retriever
from graph_transformer.ranking.catalog import Catalog
from graph_transformer.ranking.changes import ItemChanges
from graph_transformer.ranking.features import Features, feature_names
from graph_transformer.ranking.fusion import Fusion
from graph_transformer.ranking.index import ItemIndex
from graph_transformer.task import Task
from online_sampler.co_visits import CoVisitWalk
from temporal_graph.time_rule import TIME_MAX_US
from temporal_graph.view import GraphView

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Keep = Callable[[Int64, Int64], Mask]
"""Which candidates stay, of their questions and items int64[n] each."""

CHANGES_MAX = 256
"""States of changed items that are read in one refresh, in about the time of one; others wait for the next."""
UNTRAINED = "walk_mixed"
"""The feature that ranks where there is no fusion: the walk's score with what contents add."""


class Towers(Protocol):
    """What is asked of the two towers; `BoundTowers` is them."""

    @property
    def dimension(self) -> int:
        """Numbers of a vector."""

    def users(
        self,
        user_row: Int64,
        cutoff_time_us: Int64,
        sessions: Sequence[Sequence[bytes]] | None = None,
        *,
        asked_time_us: Int64 | None = None,
    ) -> Float32:
        """Return float32[B, d] of users as of their cut-offs."""

    def items(self, row: Int64, cutoff_time_us: Int64) -> Float32:
        """Return float32[n, d] of items as of cut-offs."""


@dataclass(frozen=True, slots=True)
class Scored:
    """N candidates with features float32[N, F] and scores float32[N]; what finding and scoring them took, together."""

    found: Retrieved
    features: Float32
    score: Float32
    retrieve_us: int
    forward_us: int


class Scorer:
    """Finds and scores candidates on one graph. One thread at a time; `refresh` to see new rows."""

    def __init__(
        self,
        view: GraphView,
        task: Task,
        *,
        towers: Towers | None = None,
        fusion: Fusion | None = None,
        as_of_us: int | None = None,
    ) -> None:
        """`as_of_us`: when the index reads items that were there before; by default the graph's watermark.

        Raises:
            TaskError: the task is no ranking, or the fusion reads towers that are not there.
        """
        ranked = task.target.ranked
        if ranked is None:
            raise TaskError("kind", "ranking", task.target.kind.value)
        if fusion is not None and fusion.config.features != feature_names(towers=towers is not None):
            raise TaskError("ranking.fusion", "a fusion of the features of this version", fusion.config.features)
        self.task, self.towers, self.fusion = task, towers, fusion
        self.catalog = Catalog(view, ranked, task.ranking)
        walk = CoVisitWalk(view, ranked.interactions, ranked.user_link, ranked.item_link)
        self._retriever = Retriever(walk, self.catalog, task.ranking)
        self._features = Features(self.catalog, task.ranking)
        self._index = None if towers is None else ItemIndex(towers.dimension)
        self._as_of_us = view.watermark_us if as_of_us is None else as_of_us
        after_us = self._as_of_us if as_of_us is None else None
        self._changes = None if towers is None else ItemChanges(view, ranked.items, after_us=after_us)
        self.feature_names = feature_names(towers=towers is not None)

    def refresh(self) -> None:
        """Take in what is new in the graph: popularity, counts, new items, vectors of these and of changed ones."""
        if self._changes is not None:
            self._changes.refresh()
        row = self.catalog.refresh()
        if self._index is None or self.towers is None or self._changes is None:
            return
        if len(row):
            first_us = self.catalog.first_us(row)
            seen = first_us < TIME_MAX_US
            row, first_us = row[seen], first_us[seen]
            read_us = np.maximum(first_us, self._as_of_us)
            self._index.put(row, self.towers.items(row, read_us), first_us, read_us)
        if len(self._changes):
            self._read_again(self.towers, self._index, *self._changes.take(CHANGES_MAX), new=row)

    def _read_again(self, towers: Towers, index: ItemIndex, row: Int64, changed_us: Int64, *, new: Int64) -> None:
        """Replace vectors of items as of when each changed; those that are `new` were read a moment ago."""
        last_us = index.read_us(row)
        kept = (last_us < TIME_MAX_US) & ((changed_us > last_us) | ~np.isin(row, new))
        row, read_us = row[kept], np.maximum(changed_us, last_us)[kept]
        if not len(row):
            return
        vector = towers.items(row, read_us)
        again = np.append(False, row[1:] == row[:-1])
        for each in (~again, again):  # an item has two states at most, the earlier one first
            index.change(row[each], vector[each], read_us[each])

    def scored(self, asked: Asked, keep: Keep | None = None, filtered: Mask | None = None) -> Scored:
        """Return scored candidates; `keep` filters those of the questions bool[B] `filtered`."""
        start_s = time.perf_counter()
        found, user = self._found(asked, filtered)
        if keep is not None:
            found = found.select(keep(found.question, found.item))
        found_s = time.perf_counter()
        features = self._features.of(asked, found, self._products(asked, found, user))
        score = self._score(features)
        ended_s = time.perf_counter()
        return Scored(found, features, score, round((found_s - start_s) * 1e6), round((ended_s - found_s) * 1e6))

    def retrieved(self, asked: Asked) -> Retrieved:
        """Return the candidates alone."""
        return self._found(asked, None)[0]

    def _found(self, asked: Asked, filtered: Mask | None) -> tuple[Retrieved, Float32 | None]:
        user, near = self._near(asked, filtered)
        return self._retriever.retrieve(asked, near, filtered), user

    def _near(self, asked: Asked, filtered: Mask | None) -> tuple[Float32 | None, Ragged]:
        if self.towers is None or self._index is None:
            return None, Ragged.none(len(asked))
        events = asked.events if any(asked.events) else None
        user = self.towers.users(asked.user, asked.cutoff_time_us, events, asked_time_us=asked.asked_time_us)
        most = np.where(asked.is_given, 0, self.task.ranking.nearest)
        if filtered is not None:
            most = np.where(filtered, most * WIDER, most)
        return user, self._index.nearest(user, asked.cutoff_time_us, most)

    def _products(self, asked: Asked, found: Retrieved, user: Float32 | None) -> Float32 | None:
        """Return float32[N] of the vectors' dot products, those of items computed now from the graph's rows."""
        if self.towers is None or user is None:
            return None
        item = self.towers.items(found.item, asked.cutoff_time_us[found.question])
        products: Float32 = np.einsum("nd,nd->n", user[found.question], item)
        return products

    @torch.inference_mode()
    def _score(self, features: Float32) -> Float32:
        if self.fusion is None:
            return features[:, self.feature_names.index(UNTRAINED)]
        score: Float32 = self.fusion(torch.from_numpy(features)).numpy()
        return score

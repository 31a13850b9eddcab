"""What a server of lists does with the questions of one batch, on the engine's worker thread.

questions -> ListRanker.rank -> ranked items -> categories, where a rule needs them -> rules -> one Listed each
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_transformer.errors import RankQuestionError
from graph_transformer.ranking.lists import RankedList, RankQuestion
from model_server.errors import InvalidRequestError
from model_server.generation import RankServing
from model_server.item_columns import ItemColumns
from model_server.ranking_metrics import RankMetrics
from model_server.rules import Effect, Order, Pool, Rules, apply_rules
from temporal_graph.time_rule import ALWAYS_US
from temporal_graph.view import GraphPosition


@dataclass(frozen=True, slots=True)
class ListQuestion:
    """A list of k items by the rules; nobody listens after `deadline_s` (time.monotonic)."""

    question: RankQuestion
    k: int
    rules: Rules
    deadline_s: float


@dataclass(frozen=True, slots=True)
class RankStages:
    """Where a list's time went; retrieve and forward are those of the batch it was made in."""

    queue_us: int
    retrieve_us: int
    forward_us: int
    rules_us: int


@dataclass(frozen=True, slots=True)
class Listed:
    """An answer: `order` are the places of `ranked` that are shown; `is_new` bool[n] is of all that were ranked."""

    ranked: RankedList
    is_new: NDArray[np.bool_]
    order: Order
    effects: tuple[Effect, ...]
    position: GraphPosition
    model_version: str
    stages: RankStages


class RankWorker:
    """Answers batches with what is served when they begin: an `engine.Answerer`."""

    def __init__(self, serving: Callable[[], RankServing], metrics: RankMetrics) -> None:
        self._serving = serving
        self._metrics = metrics

    def __call__(self, questions: Sequence[ListQuestion], queue_us: Sequence[int]) -> list[Listed]:
        """Ranks the questions together. Raises InvalidRequestError where the ranker refuses one."""
        serving = self._serving()
        try:
            found = serving.ranker.rank([asked.question for asked in questions])
        except RankQuestionError as error:  # without what was found: it may be private
            raise InvalidRequestError(error.path, f"{error.expected} expected") from None
        stages = self._metrics.stages
        for waited_us in queue_us:
            stages["queue"].observe(waited_us / 1e6)
        stages["retrieve"].observe(found.retrieve_us / 1e6)
        stages["forward"].observe(found.forward_us / 1e6)
        new_within_us = serving.ranker.task.ranking.new_within_us
        answers: list[Listed] = []
        for asked, ranked, waited_us in zip(questions, found.lists, queue_us, strict=True):
            start_s = time.perf_counter()
            is_new = new_items(ranked, asked.question.cutoff_time_us, new_within_us)
            order, effects = _shown(asked, ranked, is_new, serving.columns)
            rules_s = time.perf_counter() - start_s
            stages["rules"].observe(rules_s)
            answers.append(
                Listed(
                    ranked=ranked,
                    is_new=is_new,
                    order=order,
                    effects=effects,
                    position=found.position,
                    model_version=serving.ranker.version,
                    stages=RankStages(waited_us, found.retrieve_us, found.forward_us, round(rules_s * 1e6)),
                )
            )
        return answers


def new_items(ranked: RankedList, cutoff_time_us: int, new_within_us: int) -> NDArray[np.bool_]:
    """bool[n]: items that became visible within so long before the cut-off; none of a table without time."""
    timed = ranked.first_seen_us != ALWAYS_US
    is_new: NDArray[np.bool_] = timed & (ranked.first_seen_us > cutoff_time_us - new_within_us)
    return is_new


def _shown(
    asked: ListQuestion, ranked: RankedList, is_new: NDArray[np.bool_], columns: ItemColumns
) -> tuple[Order, tuple[Effect, ...]]:
    if not asked.rules:
        return tuple(range(min(asked.k, len(ranked)))), ()
    cutoff_time_us = asked.question.cutoff_time_us
    pool = Pool(
        key=ranked.key,
        score=ranked.score.tolist(),
        is_new=is_new.tolist(),
        categories={name: columns.categories(name, ranked.item, cutoff_time_us) for name in asked.rules.columns},
    )
    return apply_rules(pool, asked.rules, asked.k)

"""A ranking asked about the past: lists of the whole and of its parts, its candidates, what its fusion learns from.

questions ─► Scorer, some at a time ─┬─► best items of each ranker, recall by source
                                     └─► FusionLists
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.finetune.query.rows import RowSource
from graph_transformer.finetune.ranking.asking import (
    SOURCES,
    Recall,
    asked_of_past,
    best_items,
    found_by,
    right_ones,
    scored_parts,
    together,
)
from graph_transformer.finetune.ranking.fusion_fit import LISTS_MAX, FusionLists, Told, learned_lists, untold
from graph_transformer.finetune.ranking.metrics import ndcg_of
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.finetune.ranking.result import OURS
from graph_transformer.ranking.features import feature_names
from graph_transformer.ranking.fusion import Fusion
from graph_transformer.ranking.lists import Source
from graph_transformer.ranking.scoring import UNTRAINED, Scored, Scorer
from graph_transformer.target import Ranked

Int64 = NDArray[np.int64]
FloatT = TypeVar("FloatT", np.float16, np.float32)

GRAPH, SEQUENCE, WALK = "graph alone", "sequence alone", "walk alone"
"""Parts of a ranking: a fusion that knows no towers, the towers' products, and the walk's score as it is."""
ONLY, ALL_BUT = "{} candidates", "without {}"
"""The whole's order of the candidates that one source found, and of those that any other did."""
RECALL_MAX = 5_000
"""Questions that the recall of many candidates is measured on."""
CHOICE_MAX = 4_000
"""Questions that choose the fusion's step: with more, the error of NDCG is below what a step changes."""


@dataclass(frozen=True)
class Answers:
    """Lists by ranker, int64[n, width] rows of items, -1 where there is no more; recall by source of candidates."""

    lists: Mapping[str, Int64]
    recall: Mapping[str, float]


def answers(
    source: RowSource,
    ranked: Ranked,
    scorer: Scorer,
    questions: RankingQuestions,
    *,
    graph: Fusion | None,
    width: int,
) -> Answers:
    """Return the lists of a scorer, of its parts and of its sources of candidates; `graph` knows no towers."""
    asked = asked_of_past(source, ranked, questions, exclude_seen=scorer.task.ranking.exclude_seen)
    found: dict[str, list[Int64]] = {}
    recall = Recall()
    for places, scored in scored_parts(scorer, asked):
        recall.take(questions.select(places), scored.found)
        for name, listed in _lists(scorer, scored, graph, width).items():
            found.setdefault(name, []).append(listed)
    lists = {name: np.concatenate(parts) for name, parts in found.items()}
    for name in SOURCES:
        if not (lists[ONLY.format(name)] >= 0).any():
            del lists[ONLY.format(name)], lists[ALL_BUT.format(name)]
    return Answers(lists, recall.shares())


def wide_recall(source: RowSource, ranked: Ranked, scorer: Scorer, questions: RankingQuestions, *, seed: int) -> float:
    """Return the recall of all candidates of a scorer together, over RECALL_MAX questions at most; scores nothing."""
    questions = questions.drawn(RECALL_MAX, np.random.default_rng(seed))
    asked = asked_of_past(source, ranked, questions, exclude_seen=scorer.task.ranking.exclude_seen)
    recall = Recall()
    scorer.refresh()
    for places in together(len(asked)):
        recall.take(questions.select(places), scorer.retrieved(asked.select(places)))
    return recall.shares()["union"]


def _lists(scorer: Scorer, scored: Scored, graph: Fusion | None, width: int) -> dict[str, Int64]:
    found, names = scored.found, scorer.feature_names
    lists = {OURS: best_items(found.offset, found.item, scored.score, width)}
    offset, item, kept = found_by(scored, ~Source.NEAREST)
    if graph is not None and scorer.towers is not None:
        with torch.inference_mode():
            score = graph(torch.from_numpy(graph_columns(names, scored.features[kept]))).numpy()
        lists[GRAPH] = best_items(offset, item, score, width)
    lists[WALK] = best_items(offset, item, scored.features[kept, names.index(UNTRAINED)], width)
    if scorer.towers is not None:
        lists[SEQUENCE] = best_items(found.offset, found.item, scored.features[:, names.index("tower")], width)
    return lists | _by_source(scored, width)


def _by_source(scored: Scored, width: int) -> dict[str, Int64]:
    """Return the whole's lists of the candidates of each source alone, and without those that it alone found."""
    lists = {}
    for name, source in SOURCES.items():
        for title, sources in ((ONLY, source), (ALL_BUT, ~source)):
            offset, item, kept = found_by(scored, sources)
            lists[title.format(name)] = best_items(offset, item, scored.score[kept], width)
    return lists


def graph_columns(names: tuple[str, ...], features: NDArray[FloatT]) -> NDArray[FloatT]:
    """Return the columns of features that know no towers, as a matrix of their own."""
    return np.ascontiguousarray(features[:, [names.index(name) for name in feature_names(towers=False)]])


def fusion_lists(
    source: RowSource,
    ranked: Ranked,
    scorer: Scorer,
    questions: RankingQuestions,
    *,
    seed: int,
    most_s: float | None = None,
    told: Told = untold,
) -> FusionLists:
    """Return what a fusion learns from questions: of LISTS_MAX of them at most, drawn at random.

    Of fewer where `most_s` seconds do not suffice; `told` hears how many, and of how many.
    """
    random = np.random.default_rng(seed)
    questions = questions.drawn(LISTS_MAX, random)
    parts = [
        learned_lists(scorer.feature_names, scored.found.offset, scored.features, right, random)
        for _, scored, right in _with_answers(source, ranked, scorer, questions, most_s=most_s, told=told)
    ]
    return FusionLists.joined(parts)


def _with_answers(
    source: RowSource,
    ranked: Ranked,
    scorer: Scorer,
    questions: RankingQuestions,
    *,
    most_s: float | None,
    told: Told,
) -> Iterator[tuple[RankingQuestions, Scored, NDArray[np.bool_]]]:
    """Yield questions in parts, with their scored candidates and which of these are right, as `scored_parts`.

    `told` hears in the end how many there was time for, and of how many.
    """
    asked, done = asked_of_past(source, ranked, questions, exclude_seen=scorer.task.ranking.exclude_seen), 0
    for places, scored in scored_parts(scorer, asked, most_s=most_s):
        part = questions.select(places)
        yield part, scored, right_ones(part, scored.found)
        done += len(places)
    told(done, len(questions))


def graph_lists(lists: FusionLists) -> FusionLists:
    """Return the lists as a fusion sees them that knows no towers."""
    features = graph_columns(lists.names, lists.features)
    return FusionLists(feature_names(towers=False), lists.offset, features, lists.right)


class Judged:
    """Questions whose scored candidates are kept, to judge fusions by: NDCG of their first `top`."""

    def __init__(
        self,
        source: RowSource,
        ranked: Ranked,
        scorer: Scorer,
        questions: RankingQuestions,
        *,
        top: int,
        seed: int,
        most_s: float | None = None,
        told: Told = untold,
    ) -> None:
        """Score CHOICE_MAX questions at most, fewer where `most_s` seconds do not suffice; `told` as `fusion_lists`."""
        questions = questions.drawn(CHOICE_MAX, np.random.default_rng(seed))
        self._parts = [
            (scored.found.offset, scored.features.astype(np.float16), right, np.diff(part.item_offset))
            for part, scored, right in _with_answers(source, ranked, scorer, questions, most_s=most_s, told=told)
        ]
        self._top = top

    @torch.inference_mode()
    def ndcg(self, fusion: Fusion) -> float:
        """Return the mean NDCG of a fusion's order; one without towers reads the graph's features alone."""
        total, count = 0.0, 0
        columns = slice(0, len(fusion.config.features))  # those of towers come last
        for offset, features, right, wanted in self._parts:
            score = fusion(torch.from_numpy(features[:, columns].astype(np.float32))).numpy()
            place = best_items(offset, np.arange(len(score)), score, self._top)
            total += float(ndcg_of(np.append(right, False)[place], wanted, self._top).sum())
            count += len(wanted)
        return total / max(1, count)

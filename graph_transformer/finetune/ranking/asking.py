"""Past questions through the path that serves: what they ask as rows, and their candidates scored part by part.

RankingQuestions ─► Asked ─► Scorer, some at a time ─► lists, recall by source, what the fusion learns from
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.query.rows import RowSource
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.finetune.ranking.session_events import session_events
from graph_transformer.ranking.asked import Asked, Ragged, among, distinct, longer, offsets, owners
from graph_transformer.ranking.candidates import Retrieved
from graph_transformer.ranking.evidence import largest
from graph_transformer.ranking.lists import Source
from graph_transformer.ranking.scoring import Scored, Scorer, Towers
from graph_transformer.target import Ranked

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

TOGETHER = 64
"""Questions scored at a time: some ten thousand candidates."""
SOURCES = {
    "co_visit": Source.CO_VISIT,
    "popular": Source.POPULAR,
    "new": Source.NEW,
    "nearest": Source.NEAREST,
    "history": Source.HISTORY,
}


def asked_of_past(source: RowSource, ranked: Ranked, questions: RankingQuestions, *, exclude_seen: bool) -> Asked:
    """Return past questions as they are asked of a scorer, sessions as rows and as the events a request would bring."""
    asked = Asked.plain(questions.user, questions.cutoff_time_us, questions.time_us, exclude_seen=exclude_seen)
    sessions = questions.sessions
    if sessions is None or not len(sessions.item):
        return asked
    events = session_events(source, ranked, sessions)
    return asked.with_sessions(Ragged(sessions.offset, sessions.item), sessions.event_time_us, events)


class KeptTowers:
    """Towers that compute an item's vector once, as of a time or when it came if later: for many questions of a split.

    Serving reads items as of each question. Here no question sees an item later than its cut-off, but a change of its
    cells within the split is not seen.
    """

    def __init__(self, towers: Towers, first_us: Callable[[Int64], Int64], as_of_us: int) -> None:
        self._towers, self._first_us, self._as_of_us = towers, first_us, as_of_us
        self._vector: Float32 = np.zeros((0, towers.dimension), dtype=np.float32)
        self._known: Mask = np.zeros(0, dtype=bool)
        self.dimension = towers.dimension
        self.users = towers.users

    def items(self, row: Int64, cutoff_time_us: Int64) -> Float32:  # noqa: ARG002  # the form of towers
        """Return float32[n, d]; the cut-offs say nothing here."""
        top = int(row.max(initial=-1)) + 1
        if top > len(self._known):
            more = top - len(self._known)
            self._vector, self._known = longer(self._vector, more), longer(self._known, more)
        missing = distinct(row[~self._known[row]])
        if len(missing):
            shown_us = np.maximum(self._first_us(missing), self._as_of_us)
            self._vector[missing] = self._towers.items(missing, shown_us)
            self._known[missing] = True
        found: Float32 = self._vector[row]
        return found


def together(count: int) -> Iterator[Int64]:
    """Yield the positions of so many questions, TOGETHER at a time."""
    for start in range(0, count, TOGETHER):
        yield np.arange(start, min(start + TOGETHER, count))


def scored_parts(scorer: Scorer, asked: Asked, *, most_s: float | None = None) -> Iterator[tuple[Int64, Scored]]:
    """Yield (positions of questions, their scored candidates), TOGETHER at a time.

    With `most_s` those questions at first, drawn alike, that so many seconds suffice for; at least once TOGETHER.
    """
    ends_s = None if most_s is None else time.monotonic() + most_s
    scorer.refresh()
    order = np.arange(len(asked)) if ends_s is None else np.random.default_rng(0).permutation(len(asked))
    for places in together(len(asked)):
        yield order[places], scorer.scored(asked.select(order[places]))
        if ends_s is not None and time.monotonic() >= ends_s:
            return


def right_ones(part: RankingQuestions, found: Retrieved) -> Mask:
    """Return bool[N]: which candidates answer their question."""
    return among(found.question, found.item, part.question, part.item)


@dataclass
class Recall:
    """Counts how much of what is wanted is among the candidates of each source, and of all together."""

    questions: int = 0

    def __post_init__(self) -> None:
        self._sum = dict.fromkeys((*SOURCES, "union"), 0.0)
        self._candidates = 0

    def take(self, part: RankingQuestions, found: Retrieved) -> None:
        """Count the candidates of some questions."""
        right = right_ones(part, found)
        wanted = np.diff(part.item_offset)
        self.questions += len(part)
        self._candidates += len(found)
        for name, flag in (*SOURCES.items(), ("union", ~0)):
            mine = right & ((found.source & int(flag)) != 0)
            self._sum[name] += float((np.bincount(found.question[mine], minlength=len(part)) / wanted).sum())

    def shares(self) -> dict[str, float]:
        """Return the mean share of a question's items by source; `candidates`: how many a question has."""
        count = max(1, self.questions)
        return {name: value / count for name, value in self._sum.items()} | {"candidates": self._candidates / count}


def best_items(offset: Int64, item: Int64, score: Float32, width: int) -> Int64:
    """Return int64[n, width]: each question's items of the largest scores, ties by row, -1 where there is no more."""
    question = owners(offset)
    best = largest(question, score, item, np.full(len(offset) - 1, width))
    question = question[best]
    rank = np.arange(len(best)) - np.searchsorted(question, question)
    listed = np.full((len(offset) - 1, width), -1, dtype=np.int64)
    listed[question, rank] = item[best]
    return listed


def found_by(scored: Scored, sources: Source) -> tuple[Int64, Int64, Mask]:
    """Return (offset, item, bool[N] kept) of the candidates that one of these sources found."""
    kept = (scored.found.source & int(sources)) != 0
    count = np.bincount(scored.found.question[kept], minlength=len(scored.found.offset) - 1)
    return offsets(count), scored.found.item[kept], kept

"""A checkpoint that ranks on a live graph: questions with keys and events in, lists with keys out.

RankQuestion ─► rows, session's items ─► Scorer ─► the best, ties by key ─► RankedList
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from graph_transformer.checkpoint import Checkpoint
from graph_transformer.device import CPU
from graph_transformer.errors import CheckpointMismatch, RankQuestionError
from graph_transformer.kernels import use_kernels_for_any_shape
from graph_transformer.ranking.asked import Asked, Ragged
from graph_transformer.ranking.filters import Filters
from graph_transformer.ranking.fusion import Fusion
from graph_transformer.ranking.lists import LIMIT_MAX, RankedList, RankedLists, RankQuestion
from graph_transformer.ranking.scoring import Scored, Scorer
from graph_transformer.ranking.sessions import SessionItems
from graph_transformer.ranking.towers import BoundTowers
from graph_transformer.task import Task
from online_sampler.errors import SeedError
from temporal_graph.view import GraphView, Key

Int64 = NDArray[np.int64]


class Ranker:
    """Ranks for a checkpoint's task on one graph: a `ListRanker`. One thread at a time."""

    def __init__(
        self, checkpoint: Checkpoint, view: GraphView, *, as_of_us: int | None = None, device: str = CPU
    ) -> None:
        """`as_of_us`: when the index of vectors reads the items there are; by default now, as of the graph's watermark.

        To ask about the past, give a time that is no later than any question's: else changes of items that came later
        could decide which of them become candidates. The towers compute on the device, all else on the processor. Sets
        which kernels PyTorch uses, in the whole process (`kernels`).

        Raises:
            CheckpointMismatch: the checkpoint is not of a ranking on this schema.
            DeviceUnavailable: the device is not there.
        """
        ranked = checkpoint.task.target.ranked
        if ranked is None or checkpoint.ranking is None:
            kind = checkpoint.task.target.kind.value
            raise CheckpointMismatch(f"the checkpoint is of a {kind} task, not of a ranking")
        use_kernels_for_any_shape()
        towers = BoundTowers.load(checkpoint, view, device=device)
        fusion = towers.model.fusion
        assert fusion is None or isinstance(fusion, Fusion)
        self._view, self._ranked = view, ranked
        self._scorer = Scorer(view, checkpoint.task, towers=towers, fusion=fusion, as_of_us=as_of_us)
        self._filters = Filters(view, ranked.items)
        self._sessions = SessionItems(view, checkpoint.task)
        self._task, self._version = checkpoint.task, checkpoint.version
        self.metrics = checkpoint.metrics
        self._scorer.refresh()

    @classmethod
    def load(cls, folder: Path, view: GraphView, *, as_of_us: int | None = None) -> Self:
        """Load a checkpoint for a graph; raises as `Checkpoint.load`."""
        return cls(Checkpoint.load(folder, view.schema), view, as_of_us=as_of_us)

    @property
    def task(self) -> Task:
        """The checkpoint's task."""
        return self._task

    @property
    def version(self) -> str:
        """The checkpoint's version."""
        return self._version

    def rank(self, questions: Sequence[RankQuestion]) -> RankedLists:
        """Answer the questions, each at its own cut-off, on the graph as it is now; none for none.

        Raises:
            RankQuestionError: a question can not be answered as it is asked: which one, and its field.
        """
        start_s = time.perf_counter()
        position = self._view.position()
        if not questions:
            return RankedLists((), position, 0, 0)
        for number, question in enumerate(questions):
            self._check(number, question)
        self._scorer.refresh()
        asked = self._asked(questions)
        filtered = np.array([bool(question.filters) for question in questions])

        def keep(of: Int64, item: Int64) -> NDArray[np.bool_]:
            kept = np.ones(len(item), dtype=bool)
            for number in np.flatnonzero(filtered).tolist():
                mine = of == number
                question = questions[number]
                kept[mine] = self._filters.keep(item[mine], question.cutoff_time_us, question.filters)
            return kept

        rows_us = round((time.perf_counter() - start_s) * 1e6)
        scored = self._scorer.scored(asked, keep if filtered.any() else None, filtered)
        lists = tuple(self._list(scored, asked, number, question.limit) for number, question in enumerate(questions))
        return RankedLists(lists, position, rows_us + scored.retrieve_us, scored.forward_us)

    def _check(self, number: int, question: RankQuestion) -> None:
        if not 1 <= question.limit <= LIMIT_MAX:
            raise RankQuestionError(number, "limit", f"1 to {LIMIT_MAX}", question.limit)
        self._filters.check(number, question.filters)

    def _asked(self, questions: Sequence[RankQuestion]) -> Asked:
        cutoff_us = np.array([question.cutoff_time_us for question in questions], dtype=np.int64)
        asked_us = [
            question.cutoff_time_us if question.asked_time_us is None else question.asked_time_us
            for question in questions
        ]
        users = [() if question.user is None else (question.user,) for question in questions]
        found = self._rows(self._task.target.table, users)
        user = np.array([row[0] if row else -1 for row in found], dtype=np.int64)
        given = [question.candidates or () for question in questions]
        without = [question.exclude for question in questions]
        count = len(questions)
        asked = Asked(
            user=user,
            cutoff_time_us=cutoff_us,
            asked_time_us=np.array(asked_us, dtype=np.int64),
            session=Ragged.none(count),
            session_time_us=np.zeros(0, dtype=np.int64),
            events=((),) * count,
            given=Ragged.of(self._rows(self._ranked.items, given)),
            is_given=np.array([question.candidates is not None for question in questions]),
            without=Ragged.of(self._rows(self._ranked.items, without)),
            exclude_seen=np.array([question.exclude_seen for question in questions]),
        )
        sessions = tuple(question.session for question in questions)
        return asked if not any(sessions) else self._with_sessions(asked, sessions)

    def _rows(self, table: str, keys: Sequence[Sequence[Key]]) -> list[list[int]]:
        """Return the rows of keys, those left out that the graph or the catalog does not know (yet)."""
        known = len(self._scorer.catalog) if table == self._ranked.items else self._view.row_count(table)
        every = self._view.row_index(table, [key for each in keys for key in each]).tolist()
        found, start = [], 0
        for each in keys:
            found.append([row for row in every[start : start + len(each)] if 0 <= row < known])
            start += len(each)
        return found

    def _with_sessions(self, asked: Asked, sessions: tuple[tuple[bytes, ...], ...]) -> Asked:
        try:
            return self._sessions.read(asked, sessions)
        except SeedError:
            for number, session in enumerate(sessions):
                try:
                    self._sessions.read(asked.select(np.array([number])), (session,))
                except SeedError as error:
                    raise RankQuestionError(number, "session", str(error), "another") from None
            raise

    def _list(self, scored: Scored, asked: Asked, number: int, limit: int) -> RankedList:
        found = scored.found
        mine = np.arange(found.offset[number], found.offset[number + 1])
        score = scored.score[mine].astype(np.float64)
        order = mine[np.lexsort((found.item[mine], -score))]
        order = self._ties(order, scored, limit)
        keys = self._view.keys(self._ranked.items, found.item[order])
        order = order[[key is not None for key in keys]]  # one may have been erased since it was found
        item = found.item[order]
        own = slice(found.own.offset[number], found.own.offset[number + 1])
        sessions = int(found.session_count[number])
        graph = own.stop - own.start - sessions
        newest_us = int(found.own.event_time_us[own].max()) if own.stop > own.start else None
        return RankedList(
            item=item,
            key=[key for key in keys if key is not None],
            score=scored.score[order].astype(np.float64),
            source=found.source[order],
            first_seen_us=self._scorer.catalog.first_us(item),
            history_count=int(graph),
            session_count=sessions,
            newest_age_us=None if newest_us is None else int(asked.asked_time_us[number]) - newest_us,
            candidate_count=len(mine),
        )

    def _ties(self, order: Int64, scored: Scored, limit: int) -> Int64:
        """Return the first `limit` positions of `order`, where equal scores stand in the order of their keys."""
        score = scored.score[order]
        if not len(order):
            return order
        shown = order[score >= score[min(limit, len(order)) - 1]]
        score = score[: len(shown)]
        if not (score[1:] == score[:-1]).any():
            first: Int64 = shown[:limit]
            return first
        keys = self._view.keys(self._ranked.items, scored.found.item[shown])
        known = [place for place in range(len(shown)) if keys[place] is not None]
        places = sorted(known, key=lambda place: (-score[place], keys[place]))
        sorted_out: Int64 = shown[np.array(places[:limit], dtype=np.int64)]
        return sorted_out

"""Which items are ranked for a question: what the graph reaches, what is popular or new, near, or was had before.

    users, sessions ─► histories ─► walk ─► evidence ─► the best, and from the best of them a second walk ─┐
    popular, new, nearest, had before ────────────────────────────────────────────────────────────────────┴─► Retrieved

Only what was visible at the question's cut-off becomes a candidate, and nothing the question leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graph_transformer.ranking.asked import Asked, Ragged, among, offsets, owners
from graph_transformer.ranking.catalog import Catalog
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.contents import ItemTokens
from graph_transformer.ranking.evidence import EVEN, Entries, Evidence, damped, gathered, largest, second_histories
from graph_transformer.ranking.lists import Source
from graph_transformer.ranking.popularity import SNAPSHOT_ITEMS
from online_sampler.co_visits import CoVisitWalk, Histories

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

OWN_MAX = 4096
"""Most interactions of a user that are looked at for what he had before; walks start from the newest of them."""
SECOND_VISITS = 64
"""Interactions followed per item of the second walk: it starts from many."""
WIDER = 4
"""How many times as many candidates a question with filters gets of each source: most of them will not pass."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """N candidates of B questions, by question: offset int64[B + 1], question, item, source int64[N], tokens of each.

    own are the histories as far as they are looked at, entries the part that walks start from; evidence and second what
    both walks say; session_count int64[B].
    """

    offset: Int64
    question: Int64
    item: Int64
    source: Int64
    tokens: ItemTokens
    own: Histories
    entries: Entries
    evidence: Evidence
    second: Evidence
    session_count: Int64

    def __len__(self) -> int:
        """The number of candidates."""
        return len(self.item)

    def select(self, kept: Mask) -> Retrieved:
        """Return the candidates where bool[N] is true."""
        places = np.flatnonzero(kept)
        count = np.bincount(self.question[places], minlength=len(self.offset) - 1)
        return Retrieved(
            offsets(count),
            self.question[places],
            self.item[places],
            self.source[places],
            self.tokens.select(places),
            self.own,
            self.entries,
            self.evidence,
            self.second,
            self.session_count,
        )


class Retriever:
    """Finds candidates on one graph. One thread at a time."""

    def __init__(self, walk: CoVisitWalk, catalog: Catalog, config: RankingConfig) -> None:
        self._walk, self._catalog, self._config = walk, catalog, config

    def retrieve(self, asked: Asked, nearest: Ragged, wider: Mask | None = None) -> Retrieved:
        """Return the candidates of questions; `nearest` are items near each user's vector, best first.

        `wider` bool[B]: questions that get more of each source, as most will be filtered out.
        """
        config, count = self._config, len(asked)
        most = np.where(np.zeros(count, bool) if wider is None else wider, WIDER, 1)
        own = self._walk.histories(asked.user, asked.cutoff_time_us, OWN_MAX)
        sessions = np.diff(asked.session.offset)
        if len(asked.session.row):
            own = own.with_sessions(asked.session.offset, asked.session.row, asked.session_time_us)
        # The graph may have grown since the catalog looked: what it does not know yet is left for the next call.
        if int(own.item.max(initial=-1)) >= len(self._catalog):
            own = replace(own, item=np.where(own.item < len(self._catalog), own.item, -1))
        recent = newest(own, config.history)
        entries = Entries.of(recent, config.decay)
        span = len(self._catalog) + 1
        evidence = self._walked(asked, recent, entries, span)
        score = self._damped(asked, evidence, 0)
        best = largest(evidence.question, score, evidence.item, config.co_visit * most)
        second = self._second(asked, evidence, score, best, span)
        far_score = self._damped(asked, second, EVEN)
        far_score = np.where(evidence.lines(second.question, second.item) < len(evidence.key), 0.0, far_score)
        far = largest(second.question, far_score, second.item, config.far * most)
        far = far[far_score[far] > 0]
        found = [
            (evidence.question[best], evidence.item[best], Source.CO_VISIT),
            (second.question[far], second.item[far], Source.CO_VISIT),
            (nearest.question, nearest.row, Source.NEAREST),
            (owners(own.offset), own.item, Source.HISTORY),
            *self._listed(asked, most),
        ]
        question, item, source = self._allowed(asked, *_joined(found, asked, span), own)
        bare = self._catalog.bare(item)
        tokens = self._catalog.contents.read(item, asked.cutoff_time_us[question], bare)
        offset = np.searchsorted(question, np.arange(count + 1)).astype(np.int64)
        all_found = Retrieved(offset, question, item, source, tokens, own, entries, evidence, second, sessions)
        return all_found if tokens.there.all() else all_found.select(tokens.there)

    def _walked(
        self, asked: Asked, histories: Histories, entries: Entries, span: int, *, second: bool = False
    ) -> Evidence:
        config = self._config
        pairs = self._walk.walk(
            histories,
            asked.user,
            asked.cutoff_time_us,
            visits=min(SECOND_VISITS, config.visits) if second else config.visits,
            window=config.window,
            exponent=config.exponent,
        )
        if int(pairs.item.max(initial=-1)) >= len(self._catalog):
            known = pairs.item < len(self._catalog)
            pairs = replace(pairs, history=pairs.history[known], item=pairs.item[known], weight=pairs.weight[known])
        return gathered(pairs, entries, span, even_only=second)

    def _damped(self, asked: Asked, evidence: Evidence, column: int) -> Float32:
        question, item = np.divmod(evidence.key, evidence.span)
        return damped(evidence.sums[:, column], self._catalog.visited.counts(item, asked.cutoff_time_us[question]))

    def _second(self, asked: Asked, evidence: Evidence, score: Float32, best: Int64, span: int) -> Evidence:
        """Walk on from the best of the first walk, as far as the task wants candidates of it."""
        if not self._config.far:
            best = best[:0]
        rank = np.arange(len(best)) - np.searchsorted(evidence.question[best], evidence.question[best])
        start = best[rank < self._config.far_from]
        histories, entries = second_histories(evidence.question[start], evidence.item[start], score[start], len(asked))
        return self._walked(asked, histories, entries, span, second=True)

    def _listed(self, asked: Asked, most: Int64) -> list[tuple[Int64, Int64, Source]]:
        """Return what is popular and new at each cut-off."""
        catalog, config = self._catalog, self._config
        popular: list[Int64] = []
        new: list[Int64] = []
        for cutoff_us, times in zip(asked.cutoff_time_us.tolist(), most.tolist(), strict=True):
            popular.append(catalog.popularity.top(cutoff_us, min(config.popular * times, SNAPSHOT_ITEMS))[0])
            arrived = catalog.newest.newest(cutoff_us, config.new * times)
            new.append(arrived[catalog.first_us(arrived) > cutoff_us - config.new_within_us])
        return [(*_with_questions(popular), Source.POPULAR), (*_with_questions(new), Source.NEW)]

    def _allowed(
        self, asked: Asked, question: Int64, item: Int64, source: Int64, own: Histories
    ) -> tuple[Int64, Int64, Int64]:
        """Leave out what the question leaves out and what had not arrived by its cut-off."""
        kept = ~among(question, item, asked.without.question, asked.without.row)
        if asked.exclude_seen.any():
            kept &= ~(among(question, item, owners(own.offset), own.item) & asked.exclude_seen[question])
        kept &= self._catalog.first_us(item) <= asked.cutoff_time_us[question]
        return question[kept], item[kept], source[kept]


def newest(histories: Histories, limit: int) -> Histories:
    """Return the newest `limit` entries of each history whose item the graph knows."""
    question = owners(histories.offset)
    known = histories.item >= 0
    before: Int64 = np.cumsum(known) - known
    starts = np.append(before, before[-1] if len(before) else 0)[np.minimum(histories.offset[:-1], len(before))]
    kept = np.flatnonzero(known & (before - starts[question] < limit))
    return Histories(
        offsets(np.bincount(question[kept], minlength=len(histories))),
        histories.interaction[kept],
        histories.item[kept],
        histories.event_time_us[kept],
        histories.visible_time_us[kept],
    )


def _with_questions(lists: list[Int64]) -> tuple[Int64, Int64]:
    count = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    return np.repeat(np.arange(len(lists)), count), np.concatenate([*lists, np.zeros(0, np.int64)])


def _joined(found: list[tuple[Int64, Int64, Source]], asked: Asked, span: int) -> tuple[Int64, Int64, Int64]:
    """Return each pair of question and item once, by both, with all its sources; given items alone where they are."""
    question = np.concatenate([each[0] for each in found])
    item = np.concatenate([each[1] for each in found])
    flag = np.repeat([int(each[2]) for each in found], [len(each[1]) for each in found])
    if asked.is_given.any():
        given = among(question, item, asked.given.question, asked.given.row)
        kept = given | ~asked.is_given[question]
        question = np.concatenate([question[kept], asked.given.question])
        flag = np.concatenate([flag[kept], np.full(len(asked.given.row), int(Source.GIVEN))])
        item = np.concatenate([item[kept], asked.given.row])
    known = item >= 0
    key = question[known] * np.int64(span) + item[known]
    order = np.argsort(key, kind="stable")
    key, flag = key[order], flag[known][order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    source = np.bitwise_or.reduceat(flag, starts) if len(starts) else flag
    return key[starts] // span, key[starts] % span, source

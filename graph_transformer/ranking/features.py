"""What the fusion reads of each candidate: walks, contents, the user's own history, popularity, age, the two towers.

    Retrieved (+ dot products) ─► sums over pairs, cosines, counts ─► float32[N, F], one column per name

Sums and counts go in as logarithms; scores also by their rank among the question's candidates and as a share of the
best, which stay comparable when a graph grows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_transformer.ranking.asked import Asked, distinct, owners
from graph_transformer.ranking.candidates import Retrieved
from graph_transformer.ranking.catalog import Catalog
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.evidence import EVEN, PLAIN, damped, places
from temporal_graph.time_rule import ALWAYS_US

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
DAY_US = 86_400_000_000
HALF_LIVES_US = (14 * DAY_US, 90 * DAY_US)
"""By which what the user had before fades: one for habits of weeks, one for those of months."""

SMALL, SMALL_MIXED = 0.01, 0.03
"""What is added before logarithms: about the weight of one faint pair."""
CONTENT_SHARE = 0.1
"""What the cosine of contents adds to the walk's score where no walk arrives."""
UNDAMPED = ("entries", "raw")
"""Sums of the walk that go in as they are."""
RANK_FEATURES = ("rank_walk", "rank_far", "rank_content")
SHARES = ("share_best", "share_all")
WALK = tuple(f"walk_{name}" for name in PLAIN)
CONTENT_WALK = ("walk_content", "walk_content_last", "walk_content_even", "walk_mixed")
CONTENT = ("content", "content_last", "content_even", "content_best")
OWN = ("own_count", "own_place", "own_age", "own_due", "own_share", "own_weeks", "own_months")
ITEM = ("item_count", "item_recent", "item_age", "item_idle", "item_known")
USER = ("user_count", "user_idle", "user_repeats", "user_together")
TOWER = ("tower", "tower_share", "rank_tower")


def feature_names(*, towers: bool) -> tuple[str, ...]:
    """Return the names of the columns, with those of the two towers or without."""
    graph = (*WALK, "walk_far", *CONTENT_WALK, *CONTENT, *OWN, *ITEM, *USER, *RANK_FEATURES, *SHARES)
    return (*graph, *TOWER) if towers else graph


@dataclass(frozen=True, slots=True)
class _Cosines:
    """Cosines with the history: of each candidate by place, float32[N], and of each pair of the walk, float32[p]."""

    decayed: Float32
    last: Float32
    even: Float32
    best: Float32
    pair: Float32


class Features:
    """Computes features on one graph. One thread at a time."""

    def __init__(self, catalog: Catalog, config: RankingConfig) -> None:
        self._catalog, self._config = catalog, config

    def of(self, asked: Asked, found: Retrieved, tower: Float32 | None = None) -> Float32:
        """Return float32[N, F] of candidates, by `feature_names`; `tower` float32[N] are the vectors' products."""
        columns: list[Float32] = []
        line = found.evidence.lines(found.question, found.item)
        sums = np.append(found.evidence.sums, np.zeros((1, len(PLAIN)), dtype=np.float32), axis=0)[line]
        counts = self._catalog.visited.counts(found.item, asked.cutoff_time_us[found.question])
        for name, each in zip(PLAIN, sums.T, strict=True):
            columns.append(np.log1p(each) if name in UNDAMPED else _log(damped(each, counts)))
        second = found.second.lines(found.question, found.item)
        far: Float32 = damped(np.append(found.second.sums[:, EVEN], np.float32(0.0)).astype(np.float32)[second], counts)
        columns.append(_log(far))
        target = _targets(found, line)
        cosine = self._cosines(asked, found, target)
        mixed, of_walk = _content_walk(found, target, cosine, counts)
        columns += of_walk
        columns += [cosine.decayed, cosine.last, cosine.even, cosine.best]
        columns += self._own(asked, found)
        columns += self._items(asked, found, counts)
        columns += _users(asked, found)
        columns += [_ranks(found, score) for score in (mixed, far, cosine.decayed)]
        best, total = _by_question(found, mixed, np.maximum), _by_question(found, mixed, np.add)
        columns += [mixed / (best + np.float32(1e-3)), mixed / (total + np.float32(1e-3)) * np.float32(20.0)]
        if tower is not None:
            columns += _towers(found, tower)
        made: Float32 = np.stack(columns, axis=1).astype(np.float32, copy=False)
        return made

    def _cosines(self, asked: Asked, found: Retrieved, target: Int64) -> _Cosines:
        """Compare each question's candidates with its history, as of its cut-off; `target` as `_targets` says."""
        contents, entries = self._catalog.contents, found.entries
        count = len(found)
        by_place = np.zeros((4, count), dtype=np.float32)
        pair = np.zeros(len(found.evidence.pair_entry), dtype=np.float32)
        cutoff_us = asked.cutoff_time_us[entries.question]
        tokens = contents.read(entries.item, cutoff_us, self._catalog.bare(entries.item))
        entry_at = np.searchsorted(entries.question, np.arange(len(asked) + 1))
        pair_at = np.searchsorted(found.evidence.pair_entry, entry_at)
        for question in np.flatnonzero((np.diff(entry_at) > 0) & (np.diff(found.offset) > 0)).tolist():
            mine = slice(entry_at[question], entry_at[question + 1])
            low, high = int(found.offset[question]), int(found.offset[question + 1])
            cosine = contents.cosines(
                tokens.select(np.arange(mine.start, mine.stop)),
                found.tokens.select(np.arange(low, high)),
                int(asked.cutoff_time_us[question]),
            )
            place = entries.place[mine]
            by_place[0, low:high] = entries.weight[mine] @ cosine
            by_place[1, low:high] = cosine[place == 0].max(axis=0)
            by_place[2, low:high] = cosine.mean(axis=0)
            by_place[3, low:high] = cosine.max(axis=0)
            pairs = slice(pair_at[question], pair_at[question + 1])
            at = target[pairs]
            pair[pairs] = cosine[found.evidence.pair_entry[pairs] - mine.start, np.maximum(at - low, 0)]
        return _Cosines(by_place[0], by_place[1], by_place[2], by_place[3], pair)

    def _own(self, asked: Asked, found: Retrieved) -> list[Float32]:
        """Return what the user's own history says of each candidate: the signs of a repeat."""
        own, question = found.own, owners(found.own.offset)
        span = np.int64(found.evidence.span)
        known = np.flatnonzero(own.item >= 0)
        if not len(known):
            return [np.zeros(len(found), dtype=np.float32)] * len(OWN)
        key = question[known] * span + own.item[known]
        order = np.argsort(key, kind="stable")  # newest first within a key
        known, key = known[order], key[order]
        time_us = own.event_time_us[known]
        starts = np.flatnonzero(np.diff(key, prepend=-1))
        ends = np.append(starts[1:], len(key))
        distinct = np.ones(len(key), dtype=np.int64)
        distinct[1:] = (key[1:] != key[:-1]) | (time_us[1:] != time_us[:-1])
        wanted = found.question * span + found.item
        at = np.searchsorted(key[starts], wanted)
        had = np.append(key[starts], -1)[at] == wanted
        at = np.where(had, at, 0)
        newest_us, oldest_us = time_us[starts][at], time_us[ends - 1][at]
        often = np.where(had, np.add.reduceat(distinct, starts)[at], 0)
        age = _days(asked.asked_time_us[found.question] - newest_us)
        gap = _days(newest_us - oldest_us) / np.maximum(often - 1, 1)
        place = places(own.offset, own.event_time_us)[known][starts][at]
        moments = _distinct_times(own.event_time_us, question, len(asked))[found.question]
        since_us = np.maximum(asked.asked_time_us[question[known]] - time_us, 0)
        faded = [np.add.reduceat(np.exp2(-since_us / each) * distinct, starts)[at] for each in HALF_LIVES_US]
        columns = [
            np.log1p(often),
            1.0 / (1.0 + place),
            np.log1p(age),
            np.where(often > 1, np.log((age + 1.0) / (gap + 1.0)), 0.0),
            often / np.maximum(moments, 1),
            *(np.log(each + SMALL) - np.log(SMALL) for each in faded),
        ]
        return [np.where(had, column, 0.0).astype(np.float32) for column in columns]

    def _items(self, asked: Asked, found: Retrieved, counts: Int64) -> list[Float32]:
        """Return how often and when each candidate was taken by anybody, and since when it is there."""
        visited, cutoff_us = self._catalog.visited, asked.cutoff_time_us[found.question]
        asked_us = asked.asked_time_us[found.question]
        before = visited.counts(found.item, cutoff_us - self._config.half_life_us)
        first_us = np.minimum(visited.first_us(found.item), cutoff_us)
        last_us = visited.last_us(found.item, cutoff_us)
        known_us = self._catalog.first_us(found.item)
        known = np.where(known_us == ALWAYS_US, 0.0, np.log1p(_days(cutoff_us - np.maximum(known_us, 0))))
        idle = np.where(last_us == ALWAYS_US, 0.0, np.log1p(_days(asked_us - np.maximum(last_us, 0))))
        return [
            np.log1p(counts).astype(np.float32),
            np.log1p(counts - before).astype(np.float32),
            np.log1p(_days(asked_us - first_us)).astype(np.float32),
            idle.astype(np.float32),
            known.astype(np.float32),
        ]


def _targets(found: Retrieved, line: Int64) -> Int64:
    """Return int64[p]: the candidate that each pair of the walk leads to, -1 for those that are none.

    `line` int64[N] are the candidates' own of the evidence.
    """
    candidate = np.full(len(found.evidence.key) + 1, -1, dtype=np.int64)
    candidate[line] = np.arange(len(found))
    candidate[-1] = -1
    return candidate[found.evidence.pair_group]


def _content_walk(found: Retrieved, target: Int64, cosine: _Cosines, counts: Int64) -> tuple[Float32, list[Float32]]:
    """Return the walk's score with what contents add, and its parts as features: pairs weigh 1 + their cosine."""
    inside = target >= 0
    entry, at = found.evidence.pair_entry[inside], target[inside]
    edge = found.evidence.pair_weight[inside] * (1.0 + cosine.pair[inside])
    weights = (edge * found.entries.weight[entry], edge * (found.entries.place[entry] == 0), edge)
    sums = [damped(np.bincount(at, each, minlength=len(found)).astype(np.float32), counts) for each in weights]
    mixed: Float32 = sums[0] + np.float32(CONTENT_SHARE) * cosine.decayed
    return mixed, [*map(_log, sums), _log(mixed, SMALL_MIXED)]


def _users(asked: Asked, found: Retrieved) -> list[Float32]:
    """Return what is known of the user, the same for all candidates of a question."""
    own = found.own
    question = owners(own.offset)
    count = _distinct_times(own.event_time_us, question, len(asked))
    idle = np.zeros(len(asked))
    entries = np.diff(own.offset)
    some = entries > 0
    newest_us = own.event_time_us[own.offset[:-1][some]]
    idle[some] = np.log1p(_days(asked.asked_time_us[some] - newest_us))
    items = distinct(question * np.int64(found.evidence.span + 1) + own.item + 1)
    different = np.bincount(items // (found.evidence.span + 1), minlength=len(asked))
    columns = [
        np.log1p(count),
        idle,
        1.0 - different / np.maximum(entries, 1),
        np.log1p(entries / np.maximum(count, 1)),
    ]
    columns[2][~some] = 0.0
    return [column[found.question].astype(np.float32) for column in columns]


def _towers(found: Retrieved, tower: Float32) -> list[Float32]:
    """Return the dot products as logarithms of a softmax over the candidates, as shares of the best, and by rank."""
    best = _by_question(found, tower, np.maximum)
    share = np.exp(tower - best)
    total = _by_question(found, share, np.add)
    return [np.log(share / total + 1e-9).astype(np.float32), share, _ranks(found, tower)]


def _by_question(found: Retrieved, score: Float32, reduce: Callable[..., Float32] | np.ufunc) -> Float32:
    """Return float32[N]: a reduction over all candidates of each candidate's question."""
    starts = found.offset[:-1][np.diff(found.offset) > 0]
    if not len(starts):
        return score
    reduced: Float32 = reduce.reduceat(score, starts)  # type: ignore[union-attr]
    return np.repeat(reduced, np.diff(found.offset)[np.diff(found.offset) > 0])


def _ranks(found: Retrieved, score: Float32) -> Float32:
    """Return float32[N]: the logarithm of 1 + the rank of each score among its question's, ties by row."""
    order = np.lexsort((found.item, -score, found.question))
    rank = np.empty(len(score), dtype=np.int64)
    rank[order] = np.arange(len(score)) - found.offset[found.question[order]]
    return np.log1p(rank).astype(np.float32)


def _distinct_times(time_us: Int64, question: Int64, questions: int) -> Int64:
    """Return int64[B]: how many different times stand in each history."""
    if not len(time_us):
        return np.zeros(questions, dtype=np.int64)
    new = np.ones(len(time_us), dtype=np.int64)
    new[1:] = (time_us[1:] != time_us[:-1]) | (question[1:] != question[:-1])
    found: Int64 = np.bincount(question, new, minlength=questions).astype(np.int64)
    return found


def _log(score: Float32, small: float = SMALL) -> Float32:
    found: Float32 = np.log(score + np.float32(small))
    return found


def _days(span_us: Int64) -> NDArray[np.float64]:
    """Return spans in days, none below 0."""
    found: NDArray[np.float64] = np.maximum(span_us, 0) / DAY_US
    return found

"""What the walks over co-visitation say of items: sums over the history, one line for each question and item.

    Histories ─► entries (place, weight) ─┐
    CoVisits (pairs of entry and item) ───┴─► Evidence: key (question, item), sums float32[m, PLAIN]

A pair weighs what was taken after the entry's item, and a part of what was taken before it or with it, damped by how
much the entry's item has around it in all: a full division by that was the largest single mistake of a plain count.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from graph_transformer.ranking.asked import offsets, owners
from online_sampler.co_visits import CoVisits, Histories

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

BACKWARD, SAME = 0.3, 0.5
"""What a weight before the entry's item, and one at its very time, count beside one after it."""
ROW_ADD, ROW_DAMPING = 3.0, 0.35
COUNT_ADD, COUNT_DAMPING = 10.0, 0.15
"""The damping of an entry's total and of an item's count, each (add + number) ** -damping."""

PLAIN = ("decayed", "last", "even", "forward", "backward", "same", "last_forward", "entries", "raw")
"""Sums without regard to contents: decayed by place, of the newest place alone, of all places alike; parts of the
first; number of entries; the first without damping."""
EVEN = PLAIN.index("even")
DENSE = 16
"""Keys up to so many times their number are told apart by counting, which is faster than sorting them."""
SORTED = 4
"""Scores up to so many times those that are wanted are sorted as they are: leaving some out first is no faster."""


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of B histories, H in all: question, place (0: the newest time, counted by distinct times), item
    int64[H]; weight float32[H], its decay.
    """

    question: Int64
    place: Int64
    item: Int64
    weight: Float32

    @classmethod
    def of(cls, histories: Histories, decay: float) -> Entries:
        """Return the entries with the decay of their places."""
        question = owners(histories.offset)
        place = places(histories.offset, histories.event_time_us)
        return cls(question, place, histories.item, (decay**place).astype(np.float32))


def places(offset: Int64, time_us: Int64) -> Int64:
    """Return int64[h]: how many distinct times came after each, of lists sorted newest first."""
    steps = np.ones(len(time_us), dtype=np.int64)
    steps[1:] = time_us[1:] != time_us[:-1]
    starts = offset[:-1][np.diff(offset) > 0]
    place = np.cumsum(steps) - 1
    found: Int64 = place - np.repeat(place[starts], np.diff(offset)[np.diff(offset) > 0])
    return found


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of m pairs of question and item, by question and item: key int64[m] (question * span + item), sums float32[m, 9].

    pair_entry, pair_group int64[p], pair_weight float32[p]: the pairs of the walk, with the line each adds to and what
    it weighs before the decay of its place.
    """

    span: int
    key: Int64
    sums: Float32
    pair_entry: Int64
    pair_group: Int64
    pair_weight: Float32

    @property
    def question(self) -> Int64:
        """int64[m]."""
        return self.key // self.span

    @property
    def item(self) -> Int64:
        """int64[m]."""
        return self.key % self.span

    def lines(self, question: Int64, item: Int64) -> Int64:
        """Return int64[n]: the line of each pair, m (one past the last) where there is none."""
        key = question * np.int64(self.span) + item
        line = np.searchsorted(self.key, key)
        found = np.append(self.key, -1)[line] == key
        return np.where(found, line, len(self.key))


def gathered(found: CoVisits, entries: Entries, span: int, *, even_only: bool = False) -> Evidence:
    """Return the sums of a walk's pairs; `span` is more than any item's row, `even_only` leaves the other sums 0."""
    total = found.total @ np.array([1.0, BACKWARD, SAME], dtype=np.float32)
    damping = (total + ROW_ADD) ** np.float32(-ROW_DAMPING)
    entry = found.history
    parts = found.weight * damping[entry, None]
    edge = parts @ np.array([1.0, BACKWARD, SAME], dtype=np.float32)
    weight = entries.weight[entry]
    if even_only:
        edge = edge * weight
    key, group = _groups(entries.question[entry] * np.int64(span) + found.item)
    sums = np.zeros((len(key), len(PLAIN)), dtype=np.float32)
    if even_only:
        sums[:, EVEN] = np.bincount(group, edge, minlength=len(key))
        return Evidence(span, key, sums, entry, group, edge)
    newest = entries.place[entry] == 0
    columns = (
        edge * weight,
        edge * newest,
        edge,
        parts[:, 0] * weight,
        parts[:, 1] * weight,
        parts[:, 2] * weight,
        parts[:, 0] * newest,
        None,
        edge * weight / damping[entry],
    )
    for at, column in enumerate(columns):
        sums[:, at] = np.bincount(group, column, minlength=len(key))
    return Evidence(span, key, sums, entry, group, edge)


def _groups(key: Int64) -> tuple[Int64, Int64]:
    """Return (distinct keys, rising, and where each stands among them) of keys int64[p]."""
    top = int(key.max(initial=-1)) + 1
    if top > DENSE * (len(key) + DENSE):
        found, place = np.unique(key, return_inverse=True)
        return found, place
    there = np.zeros(top, dtype=bool)
    there[key] = True
    place = np.cumsum(there) - 1
    return np.flatnonzero(there), place[key]


def second_histories(question: Int64, item: Int64, score: Float32, questions: int) -> tuple[Histories, Entries]:
    """Return items as histories to walk on from, by question: each weighs its share of its question's score."""
    order = np.argsort(question, kind="stable")
    question, item, score = question[order], item[order], score[order]
    total = np.bincount(question, score, minlength=questions)
    weight = (score / np.maximum(total[question], 1e-9)).astype(np.float32)
    none = np.full(len(item), -1, dtype=np.int64)
    histories = Histories(offsets(np.bincount(question, minlength=questions)), none, item, none, none)
    return histories, Entries(question, np.zeros(len(item), dtype=np.int64), item, weight)


def damped(score: Float32, count: Int64) -> Float32:
    """Return scores damped by how often their items were taken: int64[n]."""
    found: Float32 = score * (count + COUNT_ADD).astype(np.float32) ** np.float32(-COUNT_DAMPING)
    return found


def largest(question: Int64, score: Float32, tie: Int64, most: Int64) -> Int64:
    """Return positions of the largest scores, most[b] of question b, by question and then falling; ties by `tie`.

    `question` rises.
    """
    found = _upper(question, score, most)
    question = question[found]
    order = np.lexsort((tie[found], -score[found], question))
    starts = np.flatnonzero(np.diff(question, prepend=-1))
    counts = np.diff(np.append(starts, len(question)))
    rank = np.arange(len(question)) - np.repeat(starts, counts)
    return found[order[rank < most[question]]]


def _upper(question: Int64, score: Float32, most: Int64) -> Int64:
    """Return the positions, rising, of scores that can be among the largest of their questions.

    A walk reaches thousands and hundreds are wanted: those below the last of them need no sorting.
    """
    starts = np.flatnonzero(np.diff(question, prepend=-1)).tolist()
    kept = [np.zeros(0, dtype=np.int64)]
    for start, end in pairwise([*starts, len(question)]):
        part, wanted = score[start:end], int(most[question[start]])
        if len(part) <= wanted * SORTED:
            kept.append(np.arange(start, end))
        elif wanted:
            least = np.partition(part, len(part) - wanted)[len(part) - wanted]
            kept.append(start + np.flatnonzero(part >= least))
    return np.concatenate(kept)

"""Vectors of all items, kept to find those near a user's: they retrieve, and never rank.

    items that arrived ─► BoundTowers.items ─► a line each ─► the largest dot products, of items there at the cut-off
    items that changed ─► BoundTowers.items ─► the line    ─► what it was goes to the past, for earlier cut-offs

The search compares with every vector: exact, .2 ms for 12,000 items and 1.6 ms for 100,000 of 64 numbers, and an item
is added in microseconds. docs/adr/0010 says what was weighed.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.ranking.asked import Ragged, longer, offsets
from temporal_graph.time_rule import TIME_MAX_US

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

GROWTH = 1.5
"""How much room is made when there is none: copies stay rare, memory is not twice what is needed."""
PAST_MIN = 4096
"""Vectors that are kept of what items were, or as many as there are items: then an old one goes for the next."""


class ItemIndex:
    """Vectors by row of the items' table. One thread at a time."""

    def __init__(self, dimension: int) -> None:
        self._vector: Float32 = np.zeros((0, dimension), dtype=np.float32)
        self._row: Int64 = np.zeros(0, dtype=np.int64)
        self._from_us: Int64 = np.zeros(0, dtype=np.int64)
        self._read_us: Int64 = np.zeros(0, dtype=np.int64)
        self._line: Int64 = np.zeros(0, dtype=np.int64)
        self._size = 0
        self._past = _Past(dimension)

    def __len__(self) -> int:
        """The number of items."""
        return self._size

    def put(self, row: Int64, vector: Float32, first_us: Int64, read_us: Int64 | None = None) -> None:
        """Add or replace items: rows int64[n], each once, vectors float32[n, d], and since when they are there.

        `read_us` int64[n]: as of when their cells were read, by default since they are there.
        """
        top = int(row.max(initial=-1)) + 1
        if top > len(self._line):
            grown = np.full(max(top, int(len(self._line) * GROWTH)), -1, dtype=np.int64)
            grown[: len(self._line)] = self._line
            self._line = grown
        new = row[self._line[row] < 0]
        need = self._size + len(new)
        if need > len(self._row):
            room = max(need, int(len(self._row) * GROWTH)) - len(self._row)
            self._vector = longer(self._vector, room)
            self._row, self._from_us, self._read_us = (
                longer(each, room) for each in (self._row, self._from_us, self._read_us)
            )
        self._line[new] = np.arange(self._size, need)
        self._size = need
        line = self._line[row]
        self._vector[line], self._row[line], self._from_us[line] = vector, row, first_us
        self._read_us[line] = first_us if read_us is None else read_us

    def read_us(self, row: Int64) -> Int64:
        """Return int64[n]: as of when the cells of items were read; TIME_MAX_US for those that the index has not."""
        found = np.full(len(row), TIME_MAX_US)
        known = row < len(self._line)
        known[known] = self._line[row[known]] >= 0
        found[known] = self._read_us[self._line[row[known]]]
        return found

    def change(self, row: Int64, vector: Float32, read_us: Int64) -> None:
        """Replace vectors of items of the index: rows int64[n], each once, as of times no earlier than `read_us(row)`.

        Where the time is later, a question as of before it still finds the item by what it was.
        """
        line = self._line[row]
        later = read_us > self._read_us[line]
        old, since_us = line[later], read_us[later]
        self._past.add(self._vector[old], self._row[old], self._from_us[old], since_us, max(PAST_MIN, self._size))
        self._from_us[old], self._read_us[old] = since_us, since_us
        self._vector[line] = vector

    def nearest(self, user: Float32, cutoff_time_us: Int64, most: Int64) -> Ragged:
        """Return, best first, the most[b] items whose vectors have the largest dot product with user float32[B, d]."""
        if not self._size or not most.max(initial=0):
            return Ragged.none(len(user))
        scores = user @ self._vector[: self._size].T
        from_us = self._from_us[: self._size]
        newest_us = int(from_us.max())
        found = []
        for question, (cutoff_us, count) in enumerate(zip(cutoff_time_us.tolist(), most.tolist(), strict=True)):
            score, row = scores[question], self._row
            if cutoff_us < newest_us:
                score[from_us > cutoff_us] = -np.inf
                past, past_row = self._past.scores(user[question], cutoff_us)
                if len(past):
                    score, row = np.concatenate([score, past]), np.concatenate([row[: self._size], past_row])
            place = torch.topk(torch.from_numpy(score), min(count, len(score)), sorted=False).indices.numpy()
            place = place[np.lexsort((row[place], -score[place]))]
            found.append(row[place[np.isfinite(score[place])]])
        return Ragged(offsets(np.fromiter(map(len, found), np.int64, len(found))), np.concatenate(found))


class _Past:
    """What items were before they changed, each from a time to another: so many at most, then an old one goes."""

    def __init__(self, dimension: int) -> None:
        self._vector: Float32 = np.zeros((0, dimension), dtype=np.float32)
        self._row: Int64 = np.zeros(0, dtype=np.int64)
        self._from_us: Int64 = np.zeros(0, dtype=np.int64)
        self._to_us: Int64 = np.zeros(0, dtype=np.int64)
        self._next = 0

    def add(self, vector: Float32, row: Int64, from_us: Int64, to_us: Int64, most: int) -> None:
        """Keep n vectors, no more than `most` in all."""
        start = max(0, len(row) - most)
        count = len(row) - start
        if not count:
            return
        room = min(most, max(self._next + count, int(len(self._row) * GROWTH)))
        if self._next + count > len(self._row) and room > len(self._row):
            more = room - len(self._row)
            self._vector = longer(self._vector, more)
            self._row, self._from_us, self._to_us = (
                longer(each, more) for each in (self._row, self._from_us, self._to_us)
            )
        line = (self._next + np.arange(count)) % len(self._row)
        self._vector[line], self._row[line] = vector[start:], row[start:]
        self._from_us[line], self._to_us[line] = from_us[start:], to_us[start:]
        self._next = int(line[-1]) + 1

    def scores(self, user: Float32, cutoff_us: int) -> tuple[Float32, Int64]:
        """Return (products float32[m] with user float32[d], rows int64[m]) of what held at a cut-off."""
        line = np.flatnonzero((self._from_us <= cutoff_us) & (cutoff_us < self._to_us))
        scores: Float32 = self._vector[line] @ user
        return scores, self._row[line]

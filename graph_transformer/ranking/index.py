"""Vectors of all items, kept to find those near a user's: they retrieve, and never rank.

    items that arrived ─► BoundTowers.items ─► a line each ─► the largest dot products, of items there at the cut-off

The search compares with every vector: exact, .2 ms for 12,000 items and 1.6 ms for 100,000 of 64 numbers, and an item
is added in microseconds. docs/adr/0010 says what was weighed.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.ranking.asked import Ragged, offsets

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

GROWTH = 1.5
"""How much room is made when there is none: copies stay rare, memory is not twice what is needed."""


class ItemIndex:
    """Vectors by row of the items' table. One thread at a time."""

    def __init__(self, dimension: int) -> None:
        self._vector: Float32 = np.zeros((0, dimension), dtype=np.float32)
        self._row: Int64 = np.zeros(0, dtype=np.int64)
        self._first_us: Int64 = np.zeros(0, dtype=np.int64)
        self._line: Int64 = np.zeros(0, dtype=np.int64)
        self._size = 0

    def __len__(self) -> int:
        """The number of items."""
        return self._size

    def put(self, row: Int64, vector: Float32, first_us: Int64) -> None:
        """Add or replace items: rows int64[n], each once, vectors float32[n, d], and since when they are there."""
        top = int(row.max(initial=-1)) + 1
        if top > len(self._line):
            grown = np.full(max(top, int(len(self._line) * GROWTH)), -1, dtype=np.int64)
            grown[: len(self._line)] = self._line
            self._line = grown
        new = row[self._line[row] < 0]
        need = self._size + len(new)
        if need > len(self._row):
            room = max(need, int(len(self._row) * GROWTH)) - len(self._row)
            self._vector = np.concatenate([self._vector, np.zeros((room, self._vector.shape[1]), dtype=np.float32)])
            self._row, self._first_us = (
                np.append(each, np.zeros(room, np.int64)) for each in (self._row, self._first_us)
            )
        self._line[new] = np.arange(self._size, need)
        self._size = need
        line = self._line[row]
        self._vector[line], self._row[line], self._first_us[line] = vector, row, first_us

    def nearest(self, user: Float32, cutoff_time_us: Int64, most: Int64) -> Ragged:
        """Return, best first, the most[b] items whose vectors have the largest dot product with user float32[B, d]."""
        if not self._size or not most.max(initial=0):
            return Ragged.none(len(user))
        score = user @ self._vector[: self._size].T
        first_us = self._first_us[: self._size]
        newest_us = int(first_us.max())
        found = []
        for line, cutoff_us, count in zip(score, cutoff_time_us.tolist(), most.tolist(), strict=True):
            if cutoff_us < newest_us:
                line[first_us > cutoff_us] = -np.inf
            place = torch.topk(torch.from_numpy(line), min(count, len(line)), sorted=False).indices.numpy()
            place = place[np.lexsort((self._row[place], -line[place]))]
            found.append(self._row[place[np.isfinite(line[place])]])
        return Ragged(offsets(np.fromiter(map(len, found), np.int64, len(found))), np.concatenate(found))

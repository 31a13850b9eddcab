"""What items are, as tokens: values of their categorical, multicategorical and text cells, and rows they point to.

    rows, cut-offs ─► Sampler (own cells, parents) ─► codes ─► tokens ─► ItemTokens ─► cosines between items

Each row is read as of its own cut-off. How rare a token is, is counted over the items that had arrived by then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.statistics import ELEMENT_SEPARATOR
from graph_transformer.ranking.asked import distinct, offsets, owners, taken
from online_sampler.plan import SamplingPlan
from online_sampler.sampler import Sampler
from temporal_graph.schema import ColumnKind
from temporal_graph.view import GraphView

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

RARITY = 0.5
"""Exponent of the log of how rare a token is; 1 and 0 were both worse by a few percent of a training-free score."""
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class ItemTokens:
    """n items as of their cut-offs: the tokens of item i are token[offset[i] : offset[i + 1]], distinct and rising.

    offset int64[n + 1]; token int64[m]; there bool[n], whether the item's row was visible (a bare row: always has a
    table without time).
    """

    offset: Int64
    token: Int64
    there: Mask

    @property
    def owner(self) -> Int64:
        """int64[m]: which item each token is of."""
        return owners(self.offset)

    def select(self, places: Int64) -> ItemTokens:
        """Return the items at these places."""
        count, at = taken(self.offset, places)
        return ItemTokens(offsets(count), self.token[at], self.there[places])


class _Codes:
    """The tokens of every code of one column's dictionary, looked up as codes are met. Code 0 (null) has none."""

    def __init__(self, view: GraphView, table: str, column: str, kind: ColumnKind, tokens: dict[object, int]) -> None:
        self._view, self._table, self._column, self._kind = view, table, column, kind
        self._tokens = tokens
        self._offset: Int64 = np.zeros(2, dtype=np.int64)
        self._token: Int64 = np.zeros(0, dtype=np.int64)

    def of(self, code: NDArray[np.int32]) -> tuple[Int64, Int64]:
        """Return (counts int64[n], tokens int64[m]) of codes int32[n]."""
        if int(code.max(initial=0)) >= len(self._offset) - 1:
            self._grow()
        count, at = taken(self._offset, np.maximum(code, 0).astype(np.int64))
        return count, self._token[at]

    def _grow(self) -> None:
        first, end = len(self._offset) - 1, self._view.dictionary_size(self._table, self._column)
        texts = self._view.strings(self._table, self._column, np.arange(first, end, dtype=np.int32))
        found = [sorted({self._known(part) for part in self._parts(text)}) for text in texts]
        count = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        self._offset = np.concatenate([self._offset, self._offset[-1] + np.cumsum(count)])
        self._token = np.concatenate([self._token, np.array([t for each in found for t in each], dtype=np.int64)])

    def _parts(self, text: str | None) -> Sequence[str]:
        if not text:
            return ()
        if self._kind is ColumnKind.MULTICATEGORICAL:
            return text.split(ELEMENT_SEPARATOR)
        return _WORD.findall(text.lower()) if self._kind is ColumnKind.TEXT else (text,)

    def _known(self, part: str) -> int:
        return self._tokens.setdefault((self._column, part), len(self._tokens))


class ItemContents:
    """Reads items of one graph as tokens. One thread at a time; `take` what arrives, so that rarity stays true."""

    def __init__(self, view: GraphView, table: str) -> None:
        self._table = view.schema.table(table)
        self._timeless = self._table.time_column is None
        hop = {"default": 0, **{link.forward: 1 for link in self._table.links}}
        self._sampler = Sampler(view, SamplingPlan.from_dict({"num_neighbors": [{"hop1": hop}]}))
        self._tokens: dict[object, int] = {}
        coded = (ColumnKind.CATEGORICAL, ColumnKind.MULTICATEGORICAL, ColumnKind.TEXT)
        self.columns = tuple(column for column in self._table.columns if column.kind in coded)
        self._codes = [_Codes(view, table, column.name, column.kind, self._tokens) for column in self.columns]
        self._items_us: Int64 = np.zeros(0, dtype=np.int64)
        self._arrivals: dict[str, Int64] = {"token": np.zeros(0, np.int64), "time": np.zeros(0, np.int64)}
        self._newest_us = np.iinfo(np.int64).min
        self._often: Int64 = np.zeros(0, dtype=np.int64)
        self._place: Int64 | None = None

    def read(self, row: Int64, cutoff_time_us: Int64, bare: Mask | None = None) -> ItemTokens:
        """Return items int64[n] as of cut-offs int64[n]; `bare` bool[n] says which rows no event has inserted yet."""
        count = len(row)
        if not count:
            return ItemTokens(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))
        sample = self._sampler.sample_rows(self._table.name, row, cutoff_time_us, as_of=True)
        seed = sample.seed_offset[:-1]
        there = sample.version[seed] >= 0
        if self._timeless and bare is not None:
            there = there | bare
        owners, tokens = [], []
        columns = sample.columns[self._table.name]
        # Another item may be a parent: only the seeds' own cells are theirs.
        line = np.searchsorted(seed, columns.node)
        own = (line < count) & (seed[np.minimum(line, count - 1)] == columns.node)
        for at, codes in enumerate(self._codes):
            found, token = codes.of(columns.coded[own, at])
            owners.append(np.repeat(line[own], found))
            tokens.append(token)
        owner, token = self._parents(sample.edge_source, sample.edge_target, sample.edge_link, sample.row, seed)
        return _grouped(np.concatenate([*owners, owner]), np.concatenate([*tokens, token]), there)

    def _parents(
        self,
        source: NDArray[np.int32],
        target: NDArray[np.int32],
        link: NDArray[np.int16],
        row: Int64,
        seed: Int64,
    ) -> tuple[Int64, Int64]:
        """Return (owner, token) of the rows that items point to, one a link."""
        if not len(source):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        keys = zip(link.tolist(), row[target].tolist(), strict=True)
        token = np.fromiter((self._tokens.setdefault(key, len(self._tokens)) for key in keys), np.int64, len(source))
        return np.searchsorted(seed, source), token

    def take(self, row: Int64, visible_time_us: Int64) -> None:
        """Count the tokens of items that arrived: rows and when each became visible, int64[n] each; every row once."""
        if not len(row):
            return
        found = self.read(row, visible_time_us)
        self._items_us = np.sort(np.concatenate([self._items_us, visible_time_us]))
        self._arrivals = {
            "token": np.concatenate([self._arrivals["token"], found.token]),
            "time": np.concatenate([self._arrivals["time"], visible_time_us[found.owner]]),
        }
        self._often = np.bincount(self._arrivals["token"], minlength=len(self._tokens))
        self._newest_us = int(self._items_us[-1])
        self._place = None

    def rarity(self, token: Int64, cutoff_time_us: int) -> Float32:
        """Return float32[n]: the weight of tokens int64[n] among the items that had arrived by the cut-off."""
        if cutoff_time_us >= self._newest_us:
            often, items = np.append(self._often, 0)[np.minimum(token, len(self._often))], len(self._items_us)
        else:
            items = int(np.searchsorted(self._items_us, cutoff_time_us, side="right"))
            often = self._often_by(token, items)
        weight: Float32 = np.log((items + 1.0) / (np.minimum(often, items) + 1.0)).astype(np.float32) ** RARITY
        return weight

    def _often_by(self, token: Int64, items: int) -> Int64:
        """Return how many of the first `items` items to arrive have each token."""
        width = np.int64(len(self._items_us) + 1)
        if self._place is None:
            rank = np.searchsorted(self._items_us, self._arrivals["time"], side="left")
            self._place = np.sort(self._arrivals["token"] * width + rank)
        return np.searchsorted(self._place, token * width + items) - np.searchsorted(self._place, token * width)

    def cosines(self, left: ItemTokens, right: ItemTokens, cutoff_time_us: int) -> Float32:
        """Return float32[l, r]: the cosine of each of l items with each of r, of tokens weighted by rarity."""
        vocabulary = distinct(left.token)
        if not len(vocabulary):
            return np.zeros((len(left.there), len(right.there)), dtype=np.float32)
        return self._dense(left, vocabulary, cutoff_time_us) @ self._dense(right, vocabulary, cutoff_time_us).T

    def _dense(self, items: ItemTokens, vocabulary: Int64, cutoff_time_us: int) -> Float32:
        """Return float32[n, v] of unit vectors, as far as they lie in the vocabulary."""
        weight, owner = self.rarity(items.token, cutoff_time_us), items.owner
        length = np.sqrt(np.bincount(owner, weight * weight, minlength=len(items.there)))
        place = np.minimum(np.searchsorted(vocabulary, items.token), len(vocabulary) - 1)
        inside = vocabulary[place] == items.token
        dense = np.zeros((len(items.there), len(vocabulary)), dtype=np.float32)
        dense[owner[inside], place[inside]] = weight[inside] / np.maximum(length[owner[inside]], 1e-6)
        return dense


def _grouped(owner: Int64, token: Int64, there: Mask) -> ItemTokens:
    """Return tokens by owner, each once."""
    span = np.int64(token.max(initial=0) + 1)
    pair = np.sort(owner * span + token)
    if len(pair):
        pair = pair[np.concatenate([[True], pair[1:] != pair[:-1]])]
    owner, token = np.divmod(pair, span)
    offset = np.searchsorted(owner, np.arange(len(there) + 1)).astype(np.int64)
    return ItemTokens(offset, token, there)

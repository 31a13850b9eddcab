"""What a ranker keeps of a graph and brings up to date at every call: items, how often and when they were taken.

    GraphView.rows_from(items)        ─► ItemContents, NewItems, when each item was first visible
    GraphView.rows_from(interactions) ─► Popularity, Visited (counts as of any cut-off)

All of it is asked as of a cut-off and answers by what was visible then.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.contents import ItemContents
from graph_transformer.ranking.popularity import NewItems, Popularity
from graph_transformer.ranking.visited import Visited
from graph_transformer.target import Ranked
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US
from temporal_graph.view import GraphView

Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

BARE_MAX = 4096
"""Rows named before they were inserted that are looked at again, the newest: they are few where items come first."""


class Catalog:
    """The items of one graph and what was done with them. One thread at a time; `refresh` takes in what is new."""

    def __init__(self, view: GraphView, ranked: Ranked, config: RankingConfig) -> None:
        self._view, self._ranked = view, ranked
        table = view.schema.table(ranked.interactions)
        self._item_link = table.links.index(table.link(ranked.item_link))
        self._timeless = view.schema.table(ranked.items).time_column is None
        self.contents = ItemContents(view, ranked.items)
        self.popularity, self.newest, self.visited = Popularity(config.half_life_us), NewItems(), Visited()
        self._first_us: Int64 = np.zeros(0, dtype=np.int64)
        self._bare: Mask = np.zeros(0, dtype=bool)
        self._interactions = 0
        self._sequence = -1
        self._erasures = 0

    def __len__(self) -> int:
        """The number of rows of the items' table, taken in so far."""
        return len(self._first_us)

    def refresh(self) -> Int64:
        """Take in the rows that are new since the last call; return rows of items that became visible, int64[n]."""
        position = self._view.position()
        if position.sequence == self._sequence:
            return np.zeros(0, dtype=np.int64)
        self._sequence = position.sequence
        # Items are read last: what interactions name is then among them, however the graph grows meanwhile.
        tail = self._view.rows_from(self._ranked.interactions, self._interactions)
        items = self._take_items()
        self._forget()
        if len(tail):
            self._interactions += len(tail)
            seen = ~tail.bare
            item, visible_us = tail.parents[seen, self._item_link], tail.visible_time_us[seen]
            self.popularity.take(item, visible_us)
            self.visited.take(item, visible_us)
        return items

    def _take_items(self) -> Int64:
        again = np.flatnonzero(self._bare)[-BARE_MAX:]
        arrived = self._view.rows_at(self._ranked.items, again)
        tail = self._view.rows_from(self._ranked.items, len(self._first_us))
        row = np.concatenate([again[~arrived.bare], tail.row[~tail.bare]])
        visible_us = np.concatenate([arrived.visible_time_us[~arrived.bare], tail.visible_time_us[~tail.bare]])
        absent = ALWAYS_US if self._timeless else TIME_MAX_US
        self._first_us = np.concatenate([self._first_us, np.full(len(tail), absent)])
        self._bare = np.concatenate([self._bare, tail.bare])
        self._first_us[row], self._bare[row] = visible_us, False
        self.newest.take(row, visible_us)
        self.contents.take(row, visible_us)
        return np.concatenate([row, tail.row[tail.bare]]) if self._timeless else row

    def _forget(self) -> None:
        """An item that was erased is as one that was never visible: nothing puts it on a list."""
        if self._view.erasures == self._erasures:
            return
        self._erasures = self._view.erasures
        erased = self._view.erased_rows(self._ranked.items)
        erased = erased[erased < len(self)]
        self._first_us[erased], self._bare[erased] = TIME_MAX_US, False

    def first_us(self, item: Int64) -> Int64:
        """Return int64[n]: when items were first visible; TIME_MAX_US: not yet, ALWAYS_US in a table without time."""
        return self._first_us[item]

    def bare(self, item: Int64) -> Mask:
        """Return bool[n]: which items no event has inserted; in a table without time they count all the same."""
        return self._bare[item]

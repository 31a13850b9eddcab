"""How often items were taken by any cut-off: the visible times of interactions, sorted by item.

take(item, visible time) ─► a short tail ─► now and then sorted in
counts, last, first      ─► a search in the sorted times, and a look at the tail
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US

Int64 = NDArray[np.int64]

TAIL_MAX = 4096
"""Interactions beside the sorted ones: to sort all anew takes milliseconds,
to compare with these microseconds."""


class Visited:
    """How often each item was taken by a cut-off, and when first and last. One thread at a time.

    Interactions count as they arrived: for the item they named then, whatever becomes of them.
    """

    def __init__(self) -> None:
        self._item: Int64 = np.zeros(0, dtype=np.int64)
        self._time_us: Int64 = np.zeros(0, dtype=np.int64)
        self._start: Int64 = np.zeros(1, dtype=np.int64)
        self._times: Int64 = np.zeros(0, dtype=np.int64)
        self._place: Int64 = np.zeros(0, dtype=np.int64)
        self._tail_item: Int64 = np.zeros(0, dtype=np.int64)
        self._tail_us: Int64 = np.zeros(0, dtype=np.int64)

    def take(self, item: Int64, visible_time_us: Int64) -> None:
        """Take interactions in: rows of their items (below 0: none) and when each became visible, int64[n] each."""
        named = item >= 0
        self._tail_item = np.concatenate([self._tail_item, item[named]])
        self._tail_us = np.concatenate([self._tail_us, visible_time_us[named]])
        if len(self._tail_item) > TAIL_MAX:
            self._sort_in()

    def counts(self, item: Int64, cutoff_time_us: Int64) -> Int64:
        """Return int64[n]: how often each item int64[n] was taken by its cut-off int64[n]."""
        return self._by(item, cutoff_time_us) + self._of_tail(item, cutoff_time_us)

    def last_us(self, item: Int64, cutoff_time_us: Int64) -> Int64:
        """Return int64[n]: when each item was last taken by its cut-off; ALWAYS_US where never."""
        count, start = self._by(item, cutoff_time_us), self._starts(item)
        last = np.append(self._time_us, ALWAYS_US)[np.where(count > 0, start + count - 1, -1)]
        low, high, order = self._tail_bounds(item)
        for at in np.flatnonzero(high > low):
            times = self._tail_us[order[low[at] : high[at]]]
            last[at] = max(last[at], times[times <= cutoff_time_us[at]].max(initial=ALWAYS_US))
        return last

    def first_us(self, item: Int64) -> Int64:
        """Return int64[n]: when each item was first taken at all, whatever a cut-off; TIME_MAX_US where never."""
        start = self._starts(item)
        some = (start < len(self._item)) & (np.append(self._item, -1)[np.minimum(start, len(self._item))] == item)
        first = np.where(some, np.append(self._time_us, 0)[np.minimum(start, len(self._item))], TIME_MAX_US)
        low, high, order = self._tail_bounds(item)
        for at in np.flatnonzero(high > low):
            first[at] = min(first[at], self._tail_us[order[low[at] : high[at]]].min())
        return first

    def _sort_in(self) -> None:
        item = np.concatenate([self._item, self._tail_item])
        time_us = np.concatenate([self._time_us, self._tail_us])
        order = np.lexsort((time_us, item))
        self._item, self._time_us = item[order], time_us[order]
        self._start = np.searchsorted(self._item, np.arange(int(item.max(initial=-1)) + 2)).astype(np.int64)
        self._times = np.unique(self._time_us)
        self._place = self._item * np.int64(len(self._times) + 1) + np.searchsorted(self._times, self._time_us)
        self._tail_item, self._tail_us = self._tail_item[:0], self._tail_us[:0]

    def _starts(self, item: Int64) -> Int64:
        return self._start[np.clip(item, 0, len(self._start) - 1)]

    def _by(self, item: Int64, cutoff_time_us: Int64) -> Int64:
        start = self._starts(item)
        if len(self._times) and cutoff_time_us.min(initial=TIME_MAX_US) >= self._times[-1]:
            return self._start[np.clip(item + 1, 0, len(self._start) - 1)] - start
        rank = np.searchsorted(self._times, cutoff_time_us, side="right")
        return np.searchsorted(self._place, item * np.int64(len(self._times) + 1) + rank) - start

    def _tail_bounds(self, item: Int64) -> tuple[Int64, Int64, Int64]:
        order = np.argsort(self._tail_item, kind="stable")
        low = np.searchsorted(self._tail_item[order], item, side="left")
        return low, np.searchsorted(self._tail_item[order], item, side="right"), order

    def _of_tail(self, item: Int64, cutoff_time_us: Int64) -> Int64:
        count = np.zeros(len(item), dtype=np.int64)
        if not len(self._tail_item):
            return count
        low, high, order = self._tail_bounds(item)
        for at in np.flatnonzero(high > low):
            count[at] = (self._tail_us[order[low[at] : high[at]]] <= cutoff_time_us[at]).sum()
        return count

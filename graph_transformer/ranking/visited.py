"""How often items were taken by any cut-off: the visible times of interactions, sorted by item.

take(item, visible time) ─► a short sorted tail ─► now and then merged into the rest
counts, last, first      ─► a search in both
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US

Int64 = NDArray[np.int64]

TAIL_MAX = 4096
"""Interactions beside the others before they are merged: sorting these takes a fraction of a millisecond."""
TAIL_SHARE = 256
"""One part in so many of all interactions may wait beside them: merging copies all, and is not to be felt."""


@dataclass(frozen=True, slots=True)
class _Times:
    """Visible times by item and time: item, time_us int64[m]; `newest_us` is the latest of them."""

    item: Int64
    time_us: Int64
    newest_us: int

    @classmethod
    def of(cls, item: Int64, time_us: Int64) -> _Times:
        """Sort interactions in any order."""
        order = np.lexsort((time_us, item))
        return cls(item[order], time_us[order], int(time_us.max(initial=ALWAYS_US)))

    def merged(self, other: _Times) -> _Times:
        """Return both, in time linear in the larger one."""
        at = self.bounds(other.item, other.time_us)[1]
        newest_us = max(self.newest_us, other.newest_us)
        return _Times(np.insert(self.item, at, other.item), np.insert(self.time_us, at, other.time_us), newest_us)

    def bounds(self, item: Int64, cutoff_time_us: Int64) -> tuple[Int64, Int64]:
        """Return (first, end) int64[n]: where the times of items by their cut-offs stand."""
        first = np.searchsorted(self.item, item, side="left")
        end = np.searchsorted(self.item, item, side="right")
        if not len(item) or int(cutoff_time_us.min()) >= self.newest_us:
            return first, end
        low = first.copy()
        # Halving for all items at once, as often as the longest needs it.
        for _ in range(int((end - low).max(initial=0)).bit_length()):
            middle = (low + end) // 2
            later = self.time_us[np.minimum(middle, len(self.time_us) - 1)] > cutoff_time_us
            open_ = low < end
            end = np.where(open_ & later, middle, end)
            low = np.where(open_ & ~later, middle + 1, low)
        return first, low


class Visited:
    """How often each item was taken by a cut-off, and when first and last. One thread at a time.

    Interactions count as they arrived: for the item they named then, whatever becomes of them.
    """

    def __init__(self) -> None:
        none = np.zeros(0, dtype=np.int64)
        self._parts = (_Times.of(none, none), _Times.of(none, none))

    def take(self, item: Int64, visible_time_us: Int64) -> None:
        """Take interactions in: rows of their items (below 0: none) and when each became visible, int64[n] each."""
        named = item >= 0
        if not named.any():
            return
        settled, tail = self._parts
        tail = _Times.of(
            np.concatenate([tail.item, item[named]]), np.concatenate([tail.time_us, visible_time_us[named]])
        )
        if len(tail.item) > max(TAIL_MAX, len(settled.item) // TAIL_SHARE):
            settled, tail = settled.merged(tail), _Times.of(tail.item[:0], tail.time_us[:0])
        self._parts = (settled, tail)

    def counts(self, item: Int64, cutoff_time_us: Int64) -> Int64:
        """Return int64[n]: how often each item int64[n] was taken by its cut-off int64[n]."""
        (first, end), (tail_first, tail_end) = (part.bounds(item, cutoff_time_us) for part in self._parts)
        found: Int64 = end - first + tail_end - tail_first
        return found

    def last_us(self, item: Int64, cutoff_time_us: Int64) -> Int64:
        """Return int64[n]: when each item was last taken by its cut-off; ALWAYS_US where never."""
        last = np.full(len(item), ALWAYS_US)
        for part in self._parts:
            first, end = part.bounds(item, cutoff_time_us)
            some = end > first
            last[some] = np.maximum(last[some], part.time_us[end[some] - 1])
        return last

    def first_us(self, item: Int64) -> Int64:
        """Return int64[n]: when each item was first taken at all, whatever a cut-off; TIME_MAX_US where never."""
        earliest = np.full(len(item), TIME_MAX_US)
        for part in self._parts:
            first, end = part.bounds(item, np.full(len(item), TIME_MAX_US))
            some = end > first
            earliest[some] = np.minimum(earliest[some], part.time_us[first[some]])
        return earliest

"""What is popular, and what is new, as of any cut-off: kept up to date as interactions and items arrive.

    take(item, visible time) ─► waits until a bucket of time is over ─► decayed counts ─► a snapshot of the top items
    top(cut-off)             ─► the newest snapshot that holds nothing later than the cut-off

The decayed count of an item is the sum of 2^(-age / half-life) over its interactions.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from temporal_graph.time_rule import ALWAYS_US

Int64 = NDArray[np.int64]
Floats = NDArray[np.float64]

BUCKETS_PER_HALF_LIFE = 256
"""A snapshot is stale by less than this part of a half-life, in which counts lose 0.3 %."""
BUCKET_MAX_US = 86_400_000_000
"""The longest bucket, a day: of a half-life of years a part would be weeks."""
SNAPSHOT_ITEMS = 1_000
"""Items a snapshot keeps: the longest list that may be asked for."""
SNAPSHOTS_MAX = 4_096
"""Snapshots kept (about 50 MB); beyond, every second one of the older half goes: past answers get staler, not wrong."""
EXPONENT_MAX = 500
"""Half-lives that counts may lie above their unit before they are rescaled; float64 bears about 1,000."""


class Popularity:
    """Decayed counts of interactions by item. One thread at a time."""

    def __init__(self, half_life_us: int) -> None:
        if half_life_us < 1:
            raise ValueError(f"half_life_us: expected a positive number of microseconds, found {half_life_us}")
        self._half_life_us = half_life_us
        self._bucket_us = min(max(1, half_life_us // BUCKETS_PER_HALF_LIFE), BUCKET_MAX_US)
        self._waiting = _ByTime()
        self._count: Floats = np.zeros(0)
        self._unit_us = 0  # counts are told as of this time
        self._ends: list[int] = []
        self._snapshots: list[tuple[Int64, Floats]] = []

    def take(self, item: Int64, visible_time_us: Int64) -> None:
        """Take interactions in: rows of their items and when each became visible, int64 [n] each, in any order.

        Items below 0 (none) are left out. One that became visible in a bucket whose snapshot was already made counts
        from the newest snapshot on.
        """
        known = item >= 0
        self._waiting.add(item[known], visible_time_us[known])

    def top(self, cutoff_time_us: int, k: int) -> tuple[Int64, Floats]:
        """Return the k most popular items (int64 [<= k]) and their decayed counts (float64), falling; ties by row.

        All of it was visible at the cut-off; what became visible in the newest bucket before it may be missing.

        Raises:
            ValueError: k is more than `SNAPSHOT_ITEMS`.
        """
        if not 0 <= k <= SNAPSHOT_ITEMS:
            raise ValueError(f"k: expected 0 to {SNAPSHOT_ITEMS}, found {k}")
        end_us = cutoff_time_us // self._bucket_us * self._bucket_us
        item, time_us = self._waiting.taken(end_us)
        if len(item):
            self._settle(item, time_us)
        place = bisect_right(self._ends, end_us) - 1
        if place < 0:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        item, score = self._snapshots[place]
        return item[:k], score[:k] * self._decay(self._ends[place], cutoff_time_us)

    def _settle(self, item: Int64, time_us: Int64) -> None:
        """Count interactions, in order of time, and keep a snapshot of each bucket that brought something."""
        ends_us = -(-time_us // self._bucket_us) * self._bucket_us  # the first boundary at which each is visible
        if self._ends:
            ends_us = np.maximum(ends_us, self._ends[-1])
        if len(self._count) <= item.max():
            self._count = np.append(self._count, np.zeros(max(int(item.max()) + 1, len(self._count))))
        starts = np.flatnonzero(np.diff(ends_us, prepend=ends_us[0] - 1)).tolist()
        for low, high in zip(starts, [*starts[1:], len(item)], strict=True):
            self._add(item[low:high], time_us[low:high], int(ends_us[low]))

    def _add(self, item: Int64, time_us: Int64, end_us: int) -> None:
        exponent = (end_us - self._unit_us) / self._half_life_us
        if abs(exponent) > EXPONENT_MAX:
            # Past 1,074 half-lives the factor is 0, as the counts then are.
            self._count *= self._decay(self._unit_us, end_us) if self._ends else 0.0
            self._unit_us = end_us
        np.add.at(self._count, item, np.exp2((time_us - self._unit_us) / self._half_life_us))
        top = _largest(self._count, SNAPSHOT_ITEMS)
        snapshot = (top, self._count[top] * self._decay(self._unit_us, end_us))
        if self._ends and self._ends[-1] == end_us:
            self._snapshots[-1] = snapshot
            return
        self._ends.append(end_us)
        self._snapshots.append(snapshot)
        if len(self._ends) > SNAPSHOTS_MAX:
            half = SNAPSHOTS_MAX // 2
            self._ends = self._ends[:half:2] + self._ends[half:]
            self._snapshots = self._snapshots[:half:2] + self._snapshots[half:]

    def _decay(self, from_us: int, to_us: int) -> float:
        return float(np.exp2((from_us - to_us) / self._half_life_us))


def _largest(count: Floats, k: int) -> Int64:
    """Return the places of the k largest counts above 0, falling; equal ones in order of place."""
    place = np.flatnonzero(count > 0)
    if len(place) > k:
        lowest = np.partition(count[place], len(place) - k)[len(place) - k]
        above, equal = place[count[place] > lowest], place[count[place] == lowest]
        place = np.sort(np.concatenate([above, equal[: k - len(above)]]))
    found: Int64 = place[np.argsort(-count[place], kind="stable")]
    return found


class NewItems:
    """Items by when they became visible. One thread at a time."""

    def __init__(self) -> None:
        self._items = _ByTime()

    def take(self, item: Int64, visible_time_us: Int64) -> None:
        """Take items in: rows and when each became visible, int64 [n] each, in any order.

        Items that are always visible are not new at any time and are left out.
        """
        timed = visible_time_us != ALWAYS_US
        self._items.add(item[timed], visible_time_us[timed])

    def newest(self, cutoff_time_us: int, k: int) -> Int64:
        """Return int64 [<= k]: the items that became visible last as of the cut-off, the newest first."""
        return self._items.last(cutoff_time_us, k)


class _ByTime:
    """Rows with a time each, in order of time; they come in any order and leave from the front."""

    def __init__(self) -> None:
        self._item: Int64 = np.zeros(0, dtype=np.int64)
        self._time_us: Int64 = np.zeros(0, dtype=np.int64)
        self._start = 0
        self._arrived: list[tuple[Int64, Int64]] = []

    def add(self, item: Int64, time_us: Int64) -> None:
        if len(item):
            self._arrived.append((item, time_us))

    def taken(self, time_us: int) -> tuple[Int64, Int64]:
        """Take out what lies at or before a time."""
        self._sort()
        start = self._start
        self._start = end = start + int(np.searchsorted(self._time_us[start:], time_us, side="right"))
        return self._item[start:end], self._time_us[start:end]

    def last(self, time_us: int, k: int) -> Int64:
        """Return the items of the k newest at or before a time, the newest first."""
        self._sort()
        end = int(np.searchsorted(self._time_us, time_us, side="right"))
        return self._item[max(0, end - k) : end][::-1]

    def _sort(self) -> None:
        """Put what arrived into its place: few into many by copying, never by sorting all."""
        if not self._arrived:
            return
        item = np.concatenate([each for each, _ in self._arrived])
        time_us = np.concatenate([each for _, each in self._arrived])
        self._arrived = []
        order = np.lexsort((-item, time_us))
        item, time_us = item[order], time_us[order]
        left_item, left_us, self._start = self._item[self._start :], self._time_us[self._start :], 0
        place = np.searchsorted(left_us, time_us, side="right")
        self._item, self._time_us = np.insert(left_item, place, item), np.insert(left_us, place, time_us)

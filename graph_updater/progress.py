"""How far the log was read, as a time: what retention may count back from.

Rows are forgotten by their age, and a change of a row keeps it. While partitions are read at different speeds (at a
start, in a backlog) one may run days ahead of the change that another still holds: counted back from the newest row,
the row would be forgotten before its change is read, and the graph would depend on the order. So age counts from the
partition that is furthest behind, until all have come to their end.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from stream.batch import Batch
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US

Place = tuple[str, int]


class Progress:
    """The newest time that was read of each partition; files are read in order of time, as one."""

    def __init__(self) -> None:
        self._newest_us: dict[Place, int] = {}
        self._history_us: int | None = None

    def read(self, batch: Batch) -> None:
        """Take note of a batch that was applied."""
        times_us = None if batch.decoded is None else batch.decoded.event_time_us
        self._history_us = None if times_us is None else int(times_us.max(initial=ALWAYS_US))
        if times_us is not None:
            return
        for partition in np.unique(batch.partition).tolist():
            newest_us = int(batch.timestamp_us[batch.partition == partition].max())  # without one: the least time
            place = batch.topic, partition
            self._newest_us[place] = max(newest_us, self._newest_us.get(place, ALWAYS_US))

    def as_of_us(self, waiting: Iterable[Place]) -> int:
        """Return the time that everything before it was read of, int64 microseconds.

        `waiting` are the partitions that have records which were not applied; without any there is no bound.
        """
        if self._history_us is not None:  # history comes first, and what waits on the log comes after it
            return self._history_us
        return min((self._newest_us.get(place, ALWAYS_US) for place in waiting), default=TIME_MAX_US)

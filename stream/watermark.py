"""How far event time has come: the newest of each partition, and the oldest of those over all partitions."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from temporal_graph.time_rule import ALWAYS_US


class Watermark:
    """The newest event time of each partition that was named or seen, in int64 microseconds.

    A partition that was named but has given nothing holds the watermark back at `ALWAYS_US`: what it will bring is not
    known. It never goes back, whatever arrives late.
    """

    def __init__(self, partitions: Iterable[tuple[str, int]] = ()) -> None:
        self._newest_us = dict.fromkeys(partitions, ALWAYS_US)

    def observe(self, topic: str, partition: NDArray[np.int32], event_time_us: NDArray[np.int64]) -> None:
        """Take the event times of some records: both arrays [N], of one topic."""
        for number in np.unique(partition).tolist():
            newest_us = int(event_time_us[partition == number].max())
            place = (topic, number)
            self._newest_us[place] = max(newest_us, self._newest_us.get(place, ALWAYS_US))

    def forget(self, topic: str, partition: int) -> None:
        """Stop waiting for a partition: one that is known to be idle or was taken away."""
        self._newest_us.pop((topic, partition), None)

    @property
    def partitions_us(self) -> dict[tuple[str, int], int]:
        """The newest event time of each partition."""
        return dict(self._newest_us)

    @property
    def watermark_us(self) -> int:
        """The event time up to which every partition has come; `ALWAYS_US` before all of them gave something."""
        return min(self._newest_us.values(), default=ALWAYS_US)

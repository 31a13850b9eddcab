"""Progress: age counts from the partition that is furthest behind, until all have come to their end."""

from __future__ import annotations

import numpy as np

from graph_updater.progress import Progress
from stream.batch import NO_TIMESTAMP_US, Batch, Decoded
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US


def batch_of(topic: str, *records: tuple[int, int], decoded: Decoded | None = None) -> Batch:
    """Records by (partition, timestamp)."""
    parts, times = [part for part, _ in records], [time for _, time in records]
    none = [None] * len(records)
    return Batch(
        topic,
        np.array(parts, np.int32),
        np.arange(len(records)),
        np.array(times, np.int64),
        none,
        none,
        decoded=decoded,
    )


def test_the_partition_that_is_furthest_behind_counts() -> None:
    """Of those that wait, the oldest; one that was never read holds everything back; one at its end nothing."""
    progress = Progress()
    progress.read(batch_of("a", (0, 50), (1, 20), (0, 40)))
    progress.read(batch_of("b", (0, 30)))
    assert progress.as_of_us([("a", 0), ("a", 1), ("b", 0)]) == 20
    assert progress.as_of_us([("a", 0), ("b", 0)]) == 30
    assert progress.as_of_us([("a", 0), ("c", 0)]) == ALWAYS_US
    assert progress.as_of_us([]) == TIME_MAX_US


def test_records_without_a_timestamp_do_not_move_it() -> None:
    """They say nothing, and an older record takes nothing back."""
    progress = Progress()
    progress.read(batch_of("a", (0, 50)))
    progress.read(batch_of("a", (0, NO_TIMESTAMP_US), (0, 10)))
    assert progress.as_of_us([("a", 0)]) == 50


def test_history_is_read_in_order_of_time_before_the_log() -> None:
    """Its own time counts while it is read, whatever waits on the log; then the log's."""
    progress = Progress()
    events = Decoded([b"", b""], np.arange(2, dtype=np.int32), np.zeros(2, np.int64), event_time_us=np.array([7, 9]))
    progress.read(batch_of("file:h", (0, 0), (0, 0), decoded=events))
    assert progress.as_of_us([("a", 0)]) == 9
    progress.read(batch_of("a", (0, 50)))
    assert progress.as_of_us([("a", 0)]) == 50

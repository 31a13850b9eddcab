from __future__ import annotations

import numpy as np

from stream.watermark import Watermark
from temporal_graph.time_rule import ALWAYS_US


def observe(watermark: Watermark, partitions: list[int], times_us: list[int]) -> None:
    """Shows the watermark some records of topic t."""
    watermark.observe("t", np.array(partitions, np.int32), np.array(times_us, np.int64))


def test_the_watermark_is_the_oldest_of_the_newest() -> None:
    """Each partition counts with its newest event time, the watermark is the smallest of them."""
    watermark = Watermark()
    observe(watermark, [0, 1, 0], [5, 9, 7])
    assert watermark.partitions_us == {("t", 0): 7, ("t", 1): 9}
    assert watermark.watermark_us == 7


def test_late_events_do_not_move_it_back() -> None:
    """An event from long ago changes nothing; the next newer one does."""
    watermark = Watermark()
    observe(watermark, [0], [10])
    observe(watermark, [0], [3])
    assert watermark.watermark_us == 10
    observe(watermark, [0], [11])
    assert watermark.watermark_us == 11


def test_a_silent_partition_holds_it_back_until_it_is_forgotten() -> None:
    """A partition that has given nothing may still bring anything, so nothing counts as complete before it."""
    watermark = Watermark([("t", 0), ("t", 1)])
    observe(watermark, [0], [10])
    assert watermark.watermark_us == ALWAYS_US
    watermark.forget("t", 1)
    assert watermark.watermark_us == 10
    assert Watermark().watermark_us == ALWAYS_US

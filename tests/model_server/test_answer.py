from __future__ import annotations

from typing import Any

import numpy as np

from model_server.answer import History, history_of, position_of
from online_sampler.sampler import Sampler
from temporal_graph.view import GraphPosition


def test_history_counts_timed_rows_and_finds_the_newest(world: Any) -> None:
    """Per seed: neighbors without the seed, those with a time, and the newest event time; nobody's seed counts."""
    view = world.graph.view()
    sampler = Sampler(view, world.predictor(view).plan)
    minute_us = 60_000_000
    time_us = world.start_us + 50 * minute_us
    events = [
        world.event(900, time_us, customer=3, terminal=999),  # 3, 23 and 43 minutes before
        world.event(901, time_us, customer=998, terminal=999),  # nobody knows them
    ]
    found = sampler.sample_events(events, np.array([time_us - 1, time_us - 1]))
    known, unknown = history_of(found)
    assert known.history_count == 3
    assert known.newest_event_time_us == world.start_us + 43 * minute_us
    assert known.neighbor_count >= 3
    assert unknown == History(unknown.neighbor_count, 0, None)
    assert history_of(sampler.sample_events([], np.array([], dtype=np.int64))) == []


def test_positions_are_told_in_a_stable_order() -> None:
    """The same position is the same message, however the offsets were ordered."""
    one = position_of(GraphPosition(2, 7, {("b", 0): 3, ("a", 1): 2, ("a", 0): 1}))
    two = position_of(GraphPosition(2, 7, {("a", 0): 1, ("a", 1): 2, ("b", 0): 3}))
    assert one.SerializeToString() == two.SerializeToString()
    assert [(part.topic, part.partition, part.next_offset) for part in one.partitions] == [
        ("a", 0, 1),
        ("a", 1, 2),
        ("b", 0, 3),
    ]

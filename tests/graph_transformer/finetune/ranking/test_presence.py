"""Rows are there from their visible time until they are deleted."""

from __future__ import annotations

import numpy as np

from graph_transformer.finetune.ranking.presence import Presence
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US

from .conftest import Shop


def _deleted(key: int, at_us: int) -> bytes:
    event = pb.RowEvent(table="items", operation=pb.OPERATION_DELETE, event_time_us=at_us, known_time_us=at_us)
    event.key.parts.add(integer=key)
    return event.SerializeToString()


def test_a_row_is_there_until_it_is_deleted(opened: Shop) -> None:
    """Both sides of its first and of its last microsecond; a row that others name alone is not there."""
    view = opened([(1, 2, 50)], items=[10, 20], more=[_deleted(1, 40)])
    presence = Presence(view, "items")
    rows = view.row_index("items", [0, 0, 1, 1, 1, 1, 2])
    times = np.array([9, 10, 19, 20, 39, 40, 100])
    assert presence.at(rows, times).tolist() == [False, True, False, True, True, False, False]
    assert presence.first_us[rows[[0, 2, 6]]].tolist() == [10, 20, TIME_MAX_US]


def test_rows_without_time_are_always_there(opened: Shop) -> None:
    """Users named by orders alone are there at every time."""
    view = opened([(1, 0, 50)])
    presence = Presence(view, "users")
    assert presence.at(np.array([0]), np.array([ALWAYS_US])).tolist() == [True]
    assert presence.first_us.tolist() == [ALWAYS_US]

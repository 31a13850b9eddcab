"""A past session on the wire is the rows that happened."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.ranking.questions import Sessions, questions_before
from graph_transformer.finetune.ranking.session_events import session_events
from graph_transformer.finetune.task_file import Anchors
from graph_transformer.target import Ranked
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema

from .conftest import Shop

S = 1_000_000
NEXT = "PREDICT LIST_DISTINCT(orders.item_id, 0, 1, seconds) RANK TOP 3 FOR EACH users.user_id"
WIDE = """
version: 1
name: wide
tables:
  users: {primary_key: {user: string}}
  items: {primary_key: {shop: integer, item: string}}
  clicks:
    time_column: at
    known_time: {column: seen}
    columns:
      seconds: numerical
      device: categorical
      words: multicategorical
      paid: boolean
      due: timestamp
      note: text
      place: {kind: embedding, dim: 2}
      face: {kind: embedding, dim: 1}
    links:
      user: users
      shown: {table: items, columns: [shop, item]}
"""


def test_a_session_is_the_users_own_rows(opened: Shop, bound: Callable[[str], BoundQuery]) -> None:
    """Oldest first, with key, time, cells and links; a question without a session has no events."""
    view, query = opened([(7, 0, 10 * S), (7, 1, 12 * S), (8, 3, 13 * S), (7, 2, 14 * S)]), bound(NEXT)
    ranked = query.target("next").ranked
    assert ranked is not None
    found = questions_before(view, query, Anchors(before="orders", last_us=20 * S)).frozen(11 * S, view, ranked)
    assert found.sessions is not None
    events = session_events(view, ranked, found.sessions)
    assert [len(each) for each in events] == [0, 0, 0, 1]
    event = pb.RowEvent.FromString(events[3][0])
    assert (event.table, event.key.parts[0].integer, event.event_time_us) == ("orders", 1, 12 * S)
    assert {cell.column: cell.integer for cell in event.cells} == {"user_id": 7, "item_id": 1}
    nothing = np.zeros(0, dtype=np.int64)
    assert session_events(view, ranked, Sessions(np.zeros(3, dtype=np.int64), *[nothing] * 3)) == ((), ())


def test_every_kind_of_cell_comes_back() -> None:
    """An event that was applied, and the event of its row, say the same; nulls are left out."""
    event = pb.RowEvent(table="clicks", operation=pb.OPERATION_INSERT, event_time_us=5, known_time_us=9, event_id="1")
    event.cells.add(column="seconds", number=1.5)
    event.cells.add(column="device", text="phone")
    event.cells.add(column="words").texts.values.extend(["a", "b"])
    event.cells.add(column="paid", boolean=True)
    event.cells.add(column="due", timestamp_us=77)
    event.cells.add(column="note", text="hello")
    event.cells.add(column="place").vector.values.extend([1.0, 2.0])
    event.cells.add(column="face").vector.values.extend([3.0])
    event.cells.add(column="user", text="u")
    link = event.cells.add(column="shop+item")
    link.key.parts.add(integer=4)
    link.key.parts.add(text="x")
    bare = pb.RowEvent(table="clicks", operation=pb.OPERATION_INSERT, event_time_us=6, known_time_us=6, event_id="2")
    with TemporalGraph.create(parse_schema(WIDE), arena_bytes=64 << 20) as graph:
        assert graph.apply([each.SerializeToString() for each in (event, bare)], backfill=True).rejected == ()
        sessions = Sessions(np.array([0, 2]), np.array([0, 1]), np.zeros(2, dtype=np.int64), np.array([5, 6]))
        ((whole, empty),) = session_events(graph.view(), Ranked("clicks", "user", "shop+item", "items", 3), sessions)
    found = pb.RowEvent.FromString(whole)
    by_name = lambda each: {cell.column: cell for cell in each.cells}  # noqa: E731
    assert by_name(found) == by_name(event)
    assert (found.event_time_us, found.known_time_us) == (5, 9)
    assert not pb.RowEvent.FromString(empty).cells

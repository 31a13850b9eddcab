from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest

from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.floors.columns import calendar_parts, seed_columns
from graph_transformer.target import Kind, Target
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema
from temporal_graph.time_rule import ALWAYS_US, time_us_from_datetime
from temporal_graph.view import GraphView

SCHEMA = """
version: 1
name: shop
tables:
  shops:
    primary_key: {shop_id: integer}
    columns: {city: categorical}
  orders:
    primary_key: {order_id: integer}
    time_column: ordered_at
    columns:
      first: {kind: embedding, dim: 2}
      price: numerical
      gift: boolean
      due_at: timestamp
      size: categorical
      note: text
      second: {kind: embedding, dim: 3}
      late: {kind: boolean, outcome: true}
    links: {shop_id: shops}
"""
ORDERED_US = time_us_from_datetime(datetime(2024, 2, 29, 18, 30, tzinfo=UTC))
DUE_US = time_us_from_datetime(datetime(2024, 3, 3, 6, 0, tzinfo=UTC))
HOUR_US = 3_600_000_000


@pytest.fixture(scope="module")
def view() -> Iterator[GraphView]:
    """Two orders: the first has all its cells, and a new price and its outcome an hour later; the second has none."""
    graph = TemporalGraph.create(parse_schema(SCHEMA), arena_bytes=16 << 20)
    first = row_event_pb2.RowEvent(
        table="orders", operation=row_event_pb2.OPERATION_INSERT, event_time_us=ORDERED_US, known_time_us=ORDERED_US
    )
    first.key.parts.add(integer=1)
    first.cells.add(column="price", number=10.0)
    first.cells.add(column="gift", boolean=True)
    first.cells.add(column="due_at", timestamp_us=DUE_US)
    first.cells.add(column="size", text="small")
    first.cells.add(column="note", text="by the door")
    first.cells.add(column="shop_id", integer=5)
    first.cells.add(column="first").vector.values.extend([1.0, 2.0])
    first.cells.add(column="second").vector.values.extend([3.0, 4.0, 5.0])
    second = row_event_pb2.RowEvent(
        table="orders", operation=row_event_pb2.OPERATION_INSERT, event_time_us=ORDERED_US, known_time_us=ORDERED_US
    )
    second.key.parts.add(integer=2)
    change = row_event_pb2.RowEvent(
        table="orders",
        operation=row_event_pb2.OPERATION_UPSERT,
        event_time_us=ORDERED_US + HOUR_US,
        known_time_us=ORDERED_US + HOUR_US,
    )
    change.key.parts.add(integer=1)
    change.cells.add(column="price", number=20.0)
    change.cells.add(column="late", boolean=True)
    assert graph.apply([event.SerializeToString() for event in (first, second, change)]).rejected == ()
    yield graph.view()
    graph.close()


def asked(rows: list[int], cutoff: list[int]) -> Examples:
    """Questions about rows at cut-offs."""
    row, cutoff_time_us = np.array(rows, np.int64), np.array(cutoff, np.int64)
    return Examples(row, cutoff_time_us, cutoff_time_us, cutoff_time_us, np.zeros(len(row), np.float32))


AT_EVENT = Target(Kind.BINARY, "orders", event_level=True, column="late")
AS_OF = Target(Kind.BINARY, "orders", event_level=False)


def test_an_event_has_its_own_cells_and_not_what_is_predicted(view: GraphView) -> None:
    """Numbers, booleans, embeddings, categories by code and times in parts; no key, link, text or outcome."""
    found = seed_columns(view, AT_EVENT, asked([0, 1], [ORDERED_US - 1] * 2))
    line = dict(zip(found.names, found.matrix[0].tolist(), strict=True))
    due = {"due_at hour": 6.0, "due_at weekday": 6.0, "due_at day": 3.0, "due_at month": 3.0}
    assert line.items() >= due.items()
    assert line["due_at age"] == pytest.approx(-(DUE_US - ORDERED_US + 1) / 86_400e6)
    assert (line["price"], line["gift"]) == (10.0, 1.0)
    assert [line[name] for name in ("first 0", "first 1", "second 0", "second 1", "second 2")] == [1, 2, 3, 4, 5]
    assert [found.names[position] for position in found.categorical] == ["size"]
    assert line["cut-off weekday"] == 3.0
    assert not {"late", "note", "shop_id", "order_id", "row age"} & set(found.names)
    nulls = dict(zip(found.names, found.matrix[1].tolist(), strict=True))
    assert all(np.isnan(value) for name, value in nulls.items() if not name.startswith("cut-off"))


def test_an_entity_stands_as_it_stood_at_its_cut_off(view: GraphView) -> None:
    """The new price and the outcome are there from the microsecond they are known, and not one before."""
    later = ORDERED_US + HOUR_US
    found = seed_columns(view, AS_OF, asked([0, 0], [later - 1, later]))
    price, late = (found.matrix[:, found.names.index(name)] for name in ("price", "late"))
    assert price.tolist() == [10.0, 20.0]
    assert np.isnan(late[0])
    assert late[1] == 1.0
    assert found.matrix[1, found.names.index("row age")] == pytest.approx(1 / 24)


def test_a_row_that_has_not_happened_shows_nothing(view: GraphView) -> None:
    """One microsecond before it is visible a row has neither cells nor a time; at that time it has both."""
    found = seed_columns(view, AS_OF, asked([0, 0], [ORDERED_US - 1, ORDERED_US]))
    own = [index for index, name in enumerate(found.names) if not name.startswith("cut-off")]
    assert bool(np.isnan(found.matrix[0, own]).all())
    assert found.matrix[1, found.names.index("row age")] == 0.0


def test_a_frozen_graph_is_read_no_later(view: GraphView) -> None:
    """With a latest time to read at, the cells are of then; the calendar stays the question's."""
    later = ORDERED_US + 2 * HOUR_US
    frozen = seed_columns(view, AS_OF, asked([0], [later]), read_until_us=ORDERED_US)
    assert frozen.matrix[0, frozen.names.index("price")] == 10.0
    assert frozen.matrix[0, frozen.names.index("cut-off hour")] == 20.5


def test_no_examples_have_no_lines(view: GraphView) -> None:
    """The columns are there, without lines."""
    found = seed_columns(view, AS_OF, asked([], []))
    assert found.matrix.shape == (0, len(found.names))


def test_calendar_parts_are_those_of_python() -> None:
    """Hour, weekday, day and month agree with datetime's before and after the epoch; a row without time has none."""
    times = [datetime(1969, 7, 20, 20, 17, tzinfo=UTC), datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)]
    found = calendar_parts(np.array([*map(time_us_from_datetime, times), ALWAYS_US], dtype=np.int64))
    for line, time in zip(found, times, strict=False):
        assert line[0] == pytest.approx(time.hour + time.minute / 60 + time.second / 3600)
        assert line[1:].tolist() == [time.weekday(), time.day, time.month]
    assert bool(np.isnan(found[2]).all())

"""A shop small enough to draw: users, items that appear over time, and orders that tie them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from graph_transformer.finetune.query import BoundQuery, bind_query, parse_query
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema
from temporal_graph.view import GraphView

SHOP = """
version: 1
name: shop
tables:
  users: {primary_key: {user_id: integer}}
  items: {primary_key: {item_id: integer}, time_column: since}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    columns: {amount: numerical}
    links: {user_id: users, item_id: items}
"""
Shop = Callable[..., GraphView]


@pytest.fixture(scope="session")
def shop() -> Schema:
    """Users without time, items with one, orders."""
    return parse_schema(SHOP)


@pytest.fixture(scope="session")
def bound(shop: Schema) -> Callable[[str], BoundQuery]:
    """Parses and binds a query to the shop."""
    return lambda text: bind_query(parse_query(text), shop)


def order_event(key: int, user: int | None, item: int | None, at_us: int, known_us: int | None = None) -> bytes:
    """An order; without an item it is taken back."""
    operation = pb.OPERATION_DELETE if item is None else pb.OPERATION_UPSERT
    event = pb.RowEvent(table="orders", operation=operation, event_time_us=at_us)
    event.known_time_us = at_us if known_us is None else known_us
    event.key.parts.add(integer=key)
    if item is not None:
        event.cells.add(column="item_id", integer=item)
        if user is not None:
            event.cells.add(column="user_id", integer=user)
    return event.SerializeToString()


def item_event(key: int, since_us: int) -> bytes:
    """An item that appears."""
    event = pb.RowEvent(table="items", operation=pb.OPERATION_UPSERT, event_time_us=since_us, known_time_us=since_us)
    event.key.parts.add(integer=key)
    return event.SerializeToString()


@pytest.fixture
def opened(shop: Schema) -> Iterator[Shop]:
    """Makes a view of a graph from (user, item, time) of orders and (item, time) of items; keys of items are rows."""
    graphs: list[TemporalGraph] = []

    def build(
        orders: Sequence[tuple[int | None, int, int]], items: Sequence[int] = (), *, more: Sequence[bytes] = ()
    ) -> GraphView:
        graph = TemporalGraph.create(shop, arena_bytes=64 << 20)
        graphs.append(graph)
        events = [item_event(key, since_us) for key, since_us in enumerate(items)]
        events += [order_event(key, *order) for key, order in enumerate(orders)]
        assert graph.apply([*events, *more], backfill=True).rejected == ()
        return graph.view()

    yield build
    for graph in graphs:
        graph.close()

"""A store with items of many kinds of cells, for tests of what is ranked: events by hand, a graph and a view of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema

STORE = """
version: 1
name: store
tables:
  makers: {primary_key: {maker: string}}
  users: {primary_key: {user_id: integer}}
  items:
    primary_key: {item_id: string}
    time_column: since
    columns: {color: categorical, tags: multicategorical, title: text, price: numerical, in_stock: boolean}
    links: {maker: makers}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    links: {user_id: users, item_id: items}
"""
S = 1_000_000
START_US = 1_700_000_000 * S


def at(seconds: float) -> int:
    """A time of the store, in seconds from its first day on."""
    return START_US + round(seconds * S)


def event(table: str, key: int | str, time_us: int, operation: int = pb.OPERATION_UPSERT, **cells: Any) -> bytes:
    """A row event with cells of any kind."""
    made = pb.RowEvent(table=table, operation=operation, event_time_us=time_us, known_time_us=time_us)  # type: ignore[arg-type]
    part = made.key.parts.add()
    if isinstance(key, str):
        part.text = key
    else:
        part.integer = key
    for column, value in cells.items():
        if isinstance(value, bool):
            made.cells.add(column=column, boolean=value)
        elif isinstance(value, int):
            made.cells.add(column=column, integer=value)
        elif isinstance(value, float):
            made.cells.add(column=column, number=value)
        elif isinstance(value, str):
            made.cells.add(column=column, text=value)
        else:
            made.cells.add(column=column).texts.values.extend(value)
    return made.SerializeToString()


def item(key: str, seconds: float = 0.0, **cells: Any) -> bytes:
    """An item that arrives, or changes."""
    return event("items", key, at(seconds), **cells)


def order(key: int, user: int, name: str, seconds: float) -> bytes:
    """A user takes an item."""
    return event("orders", key, at(seconds), user_id=user, item_id=name)


def orders(found: Sequence[tuple[int, str, float]], first: int = 0) -> list[bytes]:
    """Orders of (user, item, seconds), numbered from `first` on."""
    return [order(first + key, *each) for key, each in enumerate(found)]


def store_schema() -> Schema:
    """The store's schema."""
    return parse_schema(STORE)


def opened(events: Iterable[bytes]) -> TemporalGraph:
    """A graph of events; to be closed."""
    graph = TemporalGraph.create(store_schema(), arena_bytes=64 << 20)
    assert graph.apply(list(events), backfill=True).rejected == ()
    return graph

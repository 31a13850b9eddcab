"""A shop small enough to draw, as events that go to the real graph and to its plain twin alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from graph_transformer.finetune.query import BoundQuery, bind_query, parse_query
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import ReferenceEvent
from temporal_graph.schema import ColumnKind, Schema, parse_schema

SHOP = """
version: 1
name: shop
tables:
  users:
    primary_key: {user_id: integer}
    columns:
      age: numerical
      country: categorical
      joined: timestamp
      vip: {kind: boolean, outcome: true}
  items:
    primary_key: {item_id: string}
    columns: {tags: multicategorical}
  cards:
    primary_key: {card_id: integer}
    time_column: issued
    links: {user_id: users}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    known_time: {column: reported}
    columns:
      price: numerical
      status: categorical
      labels: multicategorical
      paid: boolean
      due: timestamp
      note: text
      place: {kind: embedding, dim: 2}
      fraud: {kind: boolean, outcome: true}
    links: {user_id: users, item_id: items, card_id: cards}
  transfers:
    time_column: at
    columns: {amount: numerical}
    links: {from_id: users, to_id: users}
  facts:
    primary_key: {fact_id: integer}
    columns: {weight: numerical}
    links: {user_id: users}
"""
Grown = Callable[[Sequence[ReferenceEvent]], TemporalGraph]
Make = Callable[..., ReferenceEvent]


@pytest.fixture(scope="session")
def shop() -> Schema:
    """Users and items without time, cards and orders with one, transfers between two users, and timeless facts."""
    return parse_schema(SHOP)


@pytest.fixture(scope="session")
def bound(shop: Schema) -> Callable[[str], BoundQuery]:
    """Parses and binds a query to the shop."""
    return lambda text: bind_query(parse_query(text), shop)


@pytest.fixture(scope="session")
def order() -> Make:
    """Makes an event of an order; `user`, `item` and `card` are keys of its links."""
    links = {"user": "user_id", "item": "item_id", "card": "card_id"}

    def make(
        key: int, at_us: int, known_us: int | None = None, *, operation: Any = "insert", **cells: Any
    ) -> ReferenceEvent:
        named = {name: value for name, value in cells.items() if name not in links}
        named |= {column: (cells[name],) for name, column in links.items() if name in cells}
        return ReferenceEvent("orders", operation, (key,), at_us, known_us, named)

    return make


@pytest.fixture(scope="session")
def user() -> Make:
    """Makes an event of a user; with a time it is a change."""

    def make(key: int, at_us: int | None = None, *, operation: Any = "upsert", **cells: Any) -> ReferenceEvent:
        if at_us is None:
            return ReferenceEvent("users", "insert", (key,), cells=cells)
        return ReferenceEvent("users", operation, (key,), at_us, at_us, cells)

    return make


def _wire(schema: Schema, event: ReferenceEvent) -> bytes:
    """The event as a serialized RowEvent."""
    table = schema.table(event.table)
    operation = pb.Operation.Value(f"OPERATION_{event.operation.upper()}")
    timeless = table.time_column is None and event.operation == "insert"
    message = pb.RowEvent(table=event.table, operation=operation)
    if not timeless:
        known_us = event.event_time_us if event.known_time_us is None else event.known_time_us
        message.event_time_us, message.known_time_us = event.event_time_us, known_us
    for part in event.key:
        message.key.parts.add(**_key_part(part))
    kinds = {column.name: column.kind for column in table.columns}
    for name, value in event.cells.items():
        cell = message.cells.add(column=name)
        if value is None:
            cell.null = pb.NULL_VALUE_UNSPECIFIED
        elif isinstance(value, tuple):
            setattr(cell, *next(iter(_key_part(value[0]).items())))
        else:
            _fill(cell, kinds[name], value)
    return message.SerializeToString()


def _key_part(part: int | str) -> dict[str, Any]:
    return {"integer": part} if isinstance(part, int) else {"text": part}


def _fill(cell: Any, kind: ColumnKind, value: Any) -> None:
    if kind is ColumnKind.MULTICATEGORICAL:
        cell.texts.values.extend(value)
        cell.texts.SetInParent()
    elif kind is ColumnKind.EMBEDDING:
        cell.vector.values.extend(value)
    elif kind is ColumnKind.NUMERICAL:
        cell.number = value
    elif kind is ColumnKind.BOOLEAN:
        cell.boolean = value
    elif kind is ColumnKind.TIMESTAMP:
        cell.timestamp_us = value
    else:
        cell.text = value


@pytest.fixture(scope="session")
def wire() -> Callable[[Schema, ReferenceEvent], bytes]:
    """Writes an event as a serialized RowEvent."""
    return _wire


@pytest.fixture(scope="session")
def grown(shop: Schema) -> Grown:
    """Makes a graph of the shop from events, a backfill; who asks for it closes it."""

    def build(events: Sequence[ReferenceEvent]) -> TemporalGraph:
        graph = TemporalGraph.create(shop, arena_bytes=64 << 20)
        assert graph.apply([_wire(shop, event) for event in events], backfill=True).rejected == ()
        return graph

    return build

"""What the sampler's tests share: a small schema with every kind of column and link, and events of it as bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import ColumnKind, Schema, parse_schema

SHOP = """
version: 1
name: shop
tables:
  users:
    primary_key: {user_id: integer}
    columns: {country: categorical}
  shops:
    primary_key: {shop_id: string}
    time_column: opened
    columns: {score: numerical}
  pays:
    primary_key: {pay_id: integer}
    time_column: at
    known_time: {column: known}
    columns:
      amount: numerical
      card: categorical
      tags: multicategorical
      online: boolean
      due: timestamp
      note: text
      place: {kind: embedding, dim: 2}
      fraud: {kind: boolean, outcome: true}
    links: {user_id: users, shop_id: shops}
  notes:
    primary_key: {region: string, number: integer}
    time_column: at
    links:
      pay_id: pays
      answers: {table: notes, columns: [answers_region, answers_number]}
"""

Encode = Callable[..., bytes]
_OPERATIONS = {"insert": 1, "upsert": 2, "delete": 3, "erase": 4}


@pytest.fixture(scope="session")
def shop() -> Schema:
    """Users, shops, payments of a user at a shop, and notes on payments that answer one another."""
    return parse_schema(SHOP)


@pytest.fixture
def graph(shop: Schema) -> Iterator[TemporalGraph]:
    """An empty graph of the shop."""
    with TemporalGraph.create(shop, arena_bytes=1 << 28) as graph:
        yield graph


@pytest.fixture
def cluster(redis_stores: Any, shared_redis_cluster: Callable[[], str], shop: Schema) -> Any:
    """An empty graph of the shop in a Redis Cluster."""
    return redis_stores(shared_redis_cluster(), shop)


@pytest.fixture(scope="session")
def encode(shop: Schema) -> Encode:
    """Writes an event of the shop as a RowEvent's bytes; keys and foreign keys are tuples of parts."""

    def encode(
        table: str,
        key: tuple[int | str, ...],
        event_time_us: int | None = None,
        known_time_us: int | None = None,
        *,
        operation: str = "insert",
        **cells: Any,
    ) -> bytes:
        event = row_event_pb2.RowEvent(table=table, operation=_OPERATIONS[operation])  # type: ignore[arg-type]
        _fill_key(event.key, key)
        if event_time_us is not None:
            event.event_time_us = event_time_us
        if known_time_us is not None:
            event.known_time_us = known_time_us
        _fill_cells(event, shop, cells)
        return event.SerializeToString()

    return encode


def _fill_key(to: row_event_pb2.Key, key: tuple[int | str, ...]) -> None:
    for value in key:
        if isinstance(value, int):
            to.parts.add().integer = value
        else:
            to.parts.add().text = value


def _fill_cells(event: row_event_pb2.RowEvent, schema: Schema, cells: Mapping[str, Any]) -> None:
    kinds = {column.name: column.kind for column in schema.table(event.table).columns}
    for name, value in cells.items():
        cell = event.cells.add(column=name)
        match None if value is None else kinds.get(name, "link"):
            case None:
                cell.null = row_event_pb2.NULL_VALUE_UNSPECIFIED
            case "link" if len(value) == 1 and isinstance(value[0], int):
                cell.integer = value[0]
            case "link" if len(value) == 1:
                cell.text = value[0]
            case "link":
                _fill_key(cell.key, value)
            case ColumnKind.NUMERICAL:
                cell.number = value
            case ColumnKind.BOOLEAN:
                cell.boolean = value
            case ColumnKind.TIMESTAMP:
                cell.timestamp_us = value
            case ColumnKind.MULTICATEGORICAL:
                cell.texts.values.extend(value)
                cell.texts.SetInParent()
            case ColumnKind.EMBEDDING:
                cell.vector.values.extend(value)
            case _:
                cell.text = value

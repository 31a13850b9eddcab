"""A schema that has one of everything the stream treats differently, for the tests of this folder."""

from __future__ import annotations

import pytest

from temporal_graph.schema import Schema, parse_schema

SCHEMA = """
version: 1
name: shop
tables:
  customers:
    primary_key: {customer_id: integer}
    columns:
      email: {kind: text, private: true}
      city: categorical
      rating: numerical
      joined: timestamp
  stores:
    primary_key: {region: string, number: integer}
  orders:
    primary_key: {order_id: integer}
    time_column: ordered_at
    columns:
      amount: numerical
      status: categorical
      tags: multicategorical
      note: text
      paid: {kind: boolean, outcome: true}
      due: timestamp
      taste: {kind: embedding, dim: 3}
    links:
      customer_id: customers
      store: {table: stores, columns: [store_region, store_number]}
  cards:
    primary_key: {card: string}
    columns:
      kinds: {kind: multicategorical, private: true}
    private: [card]
  payments:
    primary_key: {payment_id: integer}
    time_column: paid_at
    known_time: {column: reported_at}
    columns:
      amount: numerical
    links:
      card: cards
  visits:
    time_column: at
    known_time: broker
    columns:
      page: categorical
sources:
  - {topic: orders, table: orders, format: json}
  - topic: order_changes
    table: orders
    format: json
    operation: upsert
    event_time: changed_at
    known_time: changed_at
  - {topic: cancelled, table: orders, format: json, operation: delete, event_time: changed_at}
  - {topic: payments, table: payments, format: json}
  - {topic: visits, table: visits, format: json}
  - {topic: shop.events, table: orders, format: protobuf}
  - {topic: shop.public.orders, table: orders, format: debezium}
  - {topic: shop.public.customers, table: customers, format: debezium}
  - {topic: shop.public.payments, table: payments, format: debezium}
  - {topic: shop.public.visits, table: visits, format: debezium}
"""

SECRET = b"a secret of sixteen bytes or more"


@pytest.fixture(scope="session")
def schema() -> Schema:
    """Tables with every kind of key, link, column, clock and privacy."""
    return parse_schema(SCHEMA)


@pytest.fixture(scope="session")
def secret() -> bytes:
    """What the tests hash private values with."""
    return SECRET

"""The schema, the settings and small builders that the server's tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from model_server.metrics import Metrics
from model_server.request import RequestReader
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.privacy import Privacy
from temporal_graph.schema import Schema, parse_schema

NOW_US = 1_700_000_000_000_000
SECRET = b"a secret of the tests, long enough"

SCHEMA = """
version: 1
name: payments
tables:
  customers:
    primary_key: {customer_id: integer}
    columns:
      city: categorical
  terminals:
    primary_key: {terminal_id: integer}
  shops:
    primary_key: {region: string, number: integer}
  transactions:
    primary_key: {transaction_id: integer}
    time_column: tx_datetime
    future: 5m
    columns:
      tx_amount: numerical
      tx_fraud: {kind: boolean, outcome: true}
      channel: categorical
      tags: multicategorical
      note: text
      seen_at: timestamp
      online: boolean
      face: {kind: embedding, dim: 2}
      card_number: {kind: categorical, private: true}
    links:
      customer_id: customers
      terminal_id: terminals
      shop: {table: shops, columns: [shop_region, shop_number]}
    private: [customer_id]
sources:
  - {topic: transactions, table: transactions, format: json}
  - {topic: transaction_events, table: transactions, format: protobuf}
"""


@pytest.fixture
def settings() -> ServerSettings:
    """Free ports, and limits small enough to reach."""
    return ServerSettings(port=0, metrics_port=0, cells_limit=16, row_bytes_limit=4096, id_bytes_limit=64)


@pytest.fixture(scope="session")
def schema() -> Schema:
    """Payments with every kind of column, a composite key, and private parts."""
    return parse_schema(SCHEMA)


@pytest.fixture
def metrics() -> Metrics:
    """A registry of the test's own."""
    return Metrics()


@pytest.fixture(scope="session")
def privacy(schema: Schema) -> Privacy:
    """Hashes with the tests' secret."""
    return Privacy(schema, SECRET)


@pytest.fixture
def reader(schema: Schema, settings: ServerSettings, privacy: Privacy) -> RequestReader:
    """Reads requests of the fraud task, at a clock that stands still."""
    return RequestReader(
        schema,
        settings,
        task="fraud",
        table="transactions",
        outcome="tx_fraud",
        privacy=privacy,
        clock_us=lambda: NOW_US,
    )


@pytest.fixture
def payment() -> Callable[[], service_pb2.ScoreRequest]:
    """Builds a valid request with a cell of every kind; each call gives a new one to spoil."""

    def build() -> service_pb2.ScoreRequest:
        request = service_pb2.ScoreRequest(task="fraud", request_id="r1")
        row = request.row
        row.table = "transactions"
        row.operation = row_event_pb2.OPERATION_INSERT
        row.key.parts.add(integer=7)
        row.event_time_us = NOW_US - 1_000_000
        row.cells.add(column="tx_amount", number=12.5)
        row.cells.add(column="channel", text="web")
        row.cells.add(column="tags", texts=row_event_pb2.TextList(values=["b", "a"]))
        row.cells.add(column="note", text="hello")
        row.cells.add(column="seen_at", timestamp_us=NOW_US)
        row.cells.add(column="online", boolean=True)
        row.cells.add(column="face", vector=row_event_pb2.Vector(values=[0.5, 1.0]))
        row.cells.add(column="card_number", text="4000-1234")
        row.cells.add(column="customer_id", integer=42)
        row.cells.add(column="terminal_id", integer=3)
        shop = row_event_pb2.Key(parts=[row_event_pb2.KeyPart(text="eu"), row_event_pb2.KeyPart(integer=1)])
        row.cells.add(column="shop_region+shop_number", key=shop)
        return request

    return build

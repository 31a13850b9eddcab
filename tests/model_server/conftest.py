"""The schema, the settings and small builders that the server's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from graph_transformer.target import Kind, Target
from model_server.background import BackgroundServer
from model_server.metrics import Metrics
from model_server.request import RequestReader
from model_server.settings import ServerSettings
from nowgraph.client import Client
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.privacy import Privacy
from temporal_graph.schema import Schema

NOW_US = 1_700_000_000_000_000
FRAUD = Target(Kind.BINARY, "transactions", event_level=True, column="tx_fraud")


@pytest.fixture
def settings() -> ServerSettings:
    """Free ports, limits small enough to reach, and a deadline that a loaded machine can hold."""
    return ServerSettings(
        port=0, metrics_port=0, cells_limit=16, row_bytes_limit=4096, id_bytes_limit=64, deadline_default_ms=20_000
    )


@pytest.fixture(scope="session")
def schema(served_schema: Schema) -> Schema:
    """The world's."""
    return served_schema


@pytest.fixture
def metrics() -> Metrics:
    """A registry of the test's own."""
    return Metrics()


@pytest.fixture(scope="session")
def privacy(served_privacy: Privacy) -> Privacy:
    """The world's."""
    return served_privacy


@pytest.fixture
def reader(schema: Schema, settings: ServerSettings, privacy: Privacy) -> RequestReader:
    """Reads requests of the fraud task, at a clock that stands still."""
    return RequestReader(
        schema,
        settings,
        task="fraud",
        target=FRAUD,
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


@pytest.fixture
def running(world: Any, settings: ServerSettings) -> Iterator[BackgroundServer]:
    """A server over the world, without Kafka."""
    with BackgroundServer(lambda: world.server(settings)) as server:
        yield server


@pytest.fixture
def client(running: BackgroundServer) -> Iterator[Client]:
    """A client of it, with a deadline that a loaded machine can hold."""
    with Client(running.target, timeout_s=10.0) as client:
        yield client

"""The schema, the settings and small builders that the server's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph_transformer.calibration import Calibration
from graph_transformer.checkpoint import Checkpoint
from graph_transformer.encoding.collate import Encoding
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.model import GraphTransformer
from graph_transformer.predictor import Predictor
from graph_transformer.task import parse_task
from model_server.background import BackgroundServer
from model_server.metrics import Metrics
from model_server.request import RequestReader
from model_server.server import Server, build_server
from model_server.settings import ServerSettings
from nowgraph.client import Client
from online_sampler.sampler import Sampler
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.privacy import Privacy
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema
from temporal_graph.view import GraphView

ARENA_BYTES = 64 << 20
START_US = 1_672_531_200_000_000  # 2023-01-01
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
    """Free ports, limits small enough to reach, and a deadline that a loaded machine can hold."""
    return ServerSettings(
        port=0, metrics_port=0, cells_limit=16, row_bytes_limit=4096, id_bytes_limit=64, deadline_default_ms=20_000
    )


@pytest.fixture(scope="session")
def schema_text() -> str:
    """The schema as its file says it."""
    return SCHEMA


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


@dataclass
class World:
    """A live graph of payments, and a model for it with random weights: small, and real in every part."""

    schema: Schema
    graph: TemporalGraph
    privacy: Privacy
    checkpoint: Path
    start_us: int = START_US
    secret: str = SECRET.decode()
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)

    def event(self, transaction_id: int, time_us: int, *, customer: int = 1, terminal: int = 1, **more: float) -> bytes:
        """A payment as it enters the graph: hashed."""
        row = row_event_pb2.RowEvent(table="transactions", operation=row_event_pb2.OPERATION_INSERT)
        row.key.parts.add(integer=transaction_id)
        row.event_time_us = time_us
        row.cells.add(column="tx_amount", number=more.get("amount", 10.0))
        row.cells.add(column="channel", text="web" if transaction_id % 2 else "shop")
        row.cells.add(column="tags", texts=row_event_pb2.TextList(values=["b", "a"]))
        row.cells.add(column="card_number", text=f"4000-{customer:04d}")
        row.cells.add(column="customer_id", integer=customer)
        row.cells.add(column="terminal_id", integer=terminal)
        self.privacy.protect(row)
        return row.SerializeToString()

    def apply(self, events: Sequence[bytes], *, topic: str = "history", partition: int = 0) -> int:
        """Applies events as if they had come from a log of their own; returns the first offset that is not applied."""
        next_offset = self.offsets.get((topic, partition), 0) + len(events)
        self.offsets[topic, partition] = next_offset
        applied = self.graph.apply(list(events), backfill=True, positions=self.offsets)
        assert applied.rejected == ()
        return next_offset

    def predictor(self, view: GraphView, **options: bool) -> Predictor:
        """The model over a view of the graph."""
        return Predictor.load(self.checkpoint, view, threads=1, **options)

    def server(self, settings: ServerSettings, **options: Any) -> Server:
        """A server over the graph, not started."""
        view = self.graph.view()
        return build_server(view, self.predictor(view), settings=settings, privacy=self.privacy, **options)


TASK = """
version: 1
name: fraud
table: transactions
outcome: tx_fraud
kind: binary
splits:
  train: {start: 2023-01-01, end: 2023-02-01}
sampling_plan:
  num_neighbors:
    - hop1: {default: 4}
    - hop2: {default: 8}
  strategy: most_recent
model: {width: 16, layers: 1, heads: 4}
"""


def grow(world: World, payments: int) -> None:
    """Fills the graph: payments of 20 customers at 10 terminals, a minute apart."""
    minute_us = 60_000_000
    rows = [
        world.event(
            number,
            world.start_us + number * minute_us,
            customer=number % 20,
            terminal=number % 10,
            amount=5.0 + number % 7,
        )
        for number in range(payments)
    ]
    world.apply(rows)


def save_model(world: World) -> None:
    """Fits statistics on the graph's own neighborhoods and saves a model with random weights."""
    task = parse_task(TASK)
    view = world.graph.view()
    rows = np.arange(view.row_count("transactions"), dtype=np.int64)
    cutoff_time_us = view.times("transactions")[0] - 1
    sampled = Sampler(view, task.sampling_plan).sample_rows("transactions", rows, cutoff_time_us)
    statistics = fit_statistics([sampled], world.schema, view.strings, seed_table=task.table, outcome=task.outcome)
    torch.manual_seed(7)
    model = GraphTransformer(Encoding(statistics, world.schema, view.strings).layout(), task.model)
    checkpoint = Checkpoint(
        task=task,
        fingerprint=world.schema.fingerprint(statistics.tables()),
        statistics=statistics,
        model=task.model,
        calibration=Calibration(),
        weights=model.state_dict(),
    )
    checkpoint.save(world.checkpoint)


@pytest.fixture(scope="session")
def checkpoint(schema: Schema, privacy: Privacy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder that every world's graph can use."""
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as graph:
        world = World(schema, graph, privacy, folder)
        grow(world, 200)
        save_model(world)
    return folder


@pytest.fixture
def world(schema: Schema, privacy: Privacy, checkpoint: Path) -> Iterator[World]:
    """A graph of the test's own with 100 payments, and the model."""
    with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as graph:
        world = World(schema, graph, privacy, checkpoint)
        grow(world, 100)
        yield world


@pytest.fixture
def running(world: World, settings: ServerSettings) -> Iterator[BackgroundServer]:
    """A server over the world, without Kafka."""
    with BackgroundServer(lambda: world.server(settings)) as server:
        yield server


@pytest.fixture
def client(running: BackgroundServer) -> Iterator[Client]:
    """A client of it, with a deadline that a loaded machine can hold."""
    with Client(running.target, timeout_s=10.0) as client:
        yield client

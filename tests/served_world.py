"""A small world to serve, real in every part: a schema with every kind of column, a live graph, a random model.

Heavy packages are imported where they are used: this file is loaded for every test run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from graph_transformer.predictor import Predictor
    from model_server.server import Server
    from model_server.settings import ServerSettings
    from online_sampler.sampler import Sampler
    from stream.privacy import Privacy
    from temporal_graph.graph import TemporalGraph
    from temporal_graph.schema import Schema
    from temporal_graph.view import GraphView

ARENA_BYTES = 64 << 20
START_US = 1_672_531_200_000_000  # 2023-01-01
SECRET = "a secret of the tests, long enough"

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


class World:
    """A live graph of payments, and a model for it with random weights: small, and real in every part."""

    start_us = START_US
    secret = SECRET
    schema_text = SCHEMA

    def __init__(self, schema: Schema, graph: TemporalGraph, privacy: Privacy, checkpoint: Path) -> None:
        self.schema = schema
        self.graph = graph
        self.privacy = privacy
        self.checkpoint = checkpoint
        self.offsets: dict[tuple[str, int], int] = {}

    def event(self, transaction_id: int, time_us: int, *, customer: int = 1, terminal: int = 1, **more: float) -> bytes:
        """A payment as it enters the graph: hashed."""
        from protos.nowgraph.v1 import row_event_pb2

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

    @cached_property
    def sampler(self) -> Sampler:
        """A sampler by the model's plan."""
        from graph_transformer.task import parse_task
        from online_sampler.sampler import Sampler

        return Sampler(self.graph.view(), parse_task(TASK).sampling_plan)

    def predictor(self, view: GraphView, **options: bool) -> Predictor:
        """The model over a view of the graph."""
        from graph_transformer.predictor import Predictor

        return Predictor.load(self.checkpoint, view, threads=1, **options)

    def server(self, settings: ServerSettings, **options: Any) -> Server:
        """A server over the graph, not started."""
        from model_server.server import build_server

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
    import torch

    from graph_transformer.calibration import Calibration
    from graph_transformer.checkpoint import Checkpoint
    from graph_transformer.encoding.collate import Encoding
    from graph_transformer.encoding.statistics import fit_statistics
    from graph_transformer.model import GraphTransformer
    from graph_transformer.task import parse_task
    from online_sampler.sampler import Sampler

    task = parse_task(TASK)
    view = world.graph.view()
    rows = np.arange(view.row_count("transactions"), dtype=np.int64)
    cutoff_time_us = view.times("transactions")[0] - 1
    sampled = Sampler(view, task.sampling_plan).sample_rows("transactions", rows, cutoff_time_us)
    statistics = fit_statistics([sampled], world.schema, view.strings, target=task.target)
    torch.manual_seed(7)
    model = GraphTransformer(Encoding(statistics, world.schema, view.strings).layout(), task.model, task.target.outputs)
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
def served_schema() -> Schema:
    """Payments with every kind of column, a composite key, and private parts."""
    from temporal_graph.schema import parse_schema

    return parse_schema(SCHEMA)


@pytest.fixture(scope="session")
def served_privacy(served_schema: Schema) -> Privacy:
    """Hashes with the tests' secret."""
    from stream.privacy import Privacy

    return Privacy(served_schema, SECRET.encode())


@pytest.fixture(scope="session")
def served_checkpoint(served_schema: Schema, served_privacy: Privacy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder that every world's graph can use."""
    from temporal_graph.graph import TemporalGraph

    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    with TemporalGraph.create(served_schema, arena_bytes=ARENA_BYTES) as graph:
        world = World(served_schema, graph, served_privacy, folder)
        grow(world, 200)
        save_model(world)
    return folder


@pytest.fixture
def world(served_schema: Schema, served_privacy: Privacy, served_checkpoint: Path) -> Iterator[World]:
    """A graph of the test's own with 100 payments, and the model."""
    from temporal_graph.graph import TemporalGraph

    with TemporalGraph.create(served_schema, arena_bytes=ARENA_BYTES) as graph:
        world = World(served_schema, graph, served_privacy, served_checkpoint)
        grow(world, 100)
        yield world

"""A small world to serve, real in every part: a schema with every kind of column, a live graph, a random model.

Heavy packages are imported where they are used: this file is loaded for every test run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache, cached_property
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
  spend:
    primary_key: {customer_id: integer, anchor_time_us: integer}
    time_column: anchor_time
    known_time: {column: known_at}
    columns:
      label: {kind: numerical, outcome: true}
    links:
      customer_id: customers
sources:
  - {topic: transactions, table: transactions, format: json}
  - {topic: transaction_events, table: transactions, format: protobuf}
"""


class World:
    """A live graph of payments, and a model for it with random weights: small, and real in every part."""

    start_us = START_US
    secret = SECRET
    schema_text = SCHEMA

    @staticmethod
    def task_text_of(name: str) -> str:
        """The YAML of a task by name."""
        return task_text(name)

    def __init__(
        self, schema: Schema, graph: TemporalGraph, privacy: Privacy, checkpoint: Path, *, task: str = "fraud"
    ) -> None:
        self.schema = schema
        self.graph = graph
        self.privacy = privacy
        self.checkpoint = checkpoint
        self.task_text = task_text(task)
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

    def past_label(self, customer: int, anchor_us: int, known_us: int, label: float) -> bytes:
        """What a customer spent after an anchor, known from the end of its window on."""
        from protos.nowgraph.v1 import row_event_pb2

        row = row_event_pb2.RowEvent(table="spend", operation=row_event_pb2.OPERATION_INSERT)
        row.key.parts.add(integer=customer)
        row.key.parts.add(integer=anchor_us)
        row.event_time_us, row.known_time_us = anchor_us, known_us
        row.cells.add(column="label", number=label)
        row.cells.add(column="customer_id", integer=customer)
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

        return Sampler(self.graph.view(), parse_task(self.task_text).sampling_plan)

    def predictor(self, view: GraphView, **options: bool) -> Predictor:
        """The model over a view of the graph."""
        from graph_transformer.predictor import Predictor

        return Predictor.load(self.checkpoint, view, threads=1, **options)

    def server(self, settings: ServerSettings, **options: Any) -> Server:
        """A server over the graph, not started."""
        from model_server.server import build_server

        view = self.graph.view()
        predictor = self.predictor(view, fixed_shape=settings.fixed_shape)
        return build_server(view, predictor, settings=settings, privacy=self.privacy, **options)


TARGETS = {
    "fraud": "{table: transactions, outcome: tx_fraud, kind: binary}",
    "spend": "{table: customers, level: entity, kind: regression, horizon: 30m, task_table: spend}",
    "channel": "{table: customers, level: entity, kind: multiclass, classes: [web, shop, phone], horizon: 30m}",
    "tags": "{table: customers, level: entity, kind: multilabel, classes: [a, b], horizon: 30m}",
    "hours": "{table: customers, level: entity, kind: forecast, steps: 3, horizon: 3h}",
}
"""Tasks of every kind by name, each with a model of random weights: about payments, and about customers."""

TASK = """
version: 1
splits:
  train: {start: 2023-01-01, end: 2023-02-01}
sampling_plan:
  num_neighbors:
    - hop1: {default: 4}
    - hop2: {default: 8}
  strategy: most_recent
model: {width: 16, layers: 1, heads: 4}
"""


def task_text(name: str) -> str:
    """The YAML of a task."""
    import yaml

    return yaml.safe_dump({**yaml.safe_load(TASK), "name": name, **yaml.safe_load(TARGETS[name])})


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


def grow_labels(world: World) -> None:
    """Adds what each customer spent in the half hours after two anchors, known at their ends."""
    hour_us = 3_600_000_000
    anchors = [world.start_us + hour_us // 2, world.start_us + hour_us]
    world.apply(
        [
            world.past_label(customer, anchor_us, anchor_us + hour_us // 2, 5.0 + customer)
            for anchor_us in anchors
            for customer in range(20)
        ],
        topic="labels",
    )


def save_model(world: World) -> None:
    """Fits statistics on the graph's own neighborhoods and saves a model with random weights."""
    import torch

    from graph_transformer.calibration import Calibration
    from graph_transformer.checkpoint import Checkpoint
    from graph_transformer.encoding.collate import Encoding
    from graph_transformer.encoding.statistics import fit_statistics
    from graph_transformer.heads import Unit
    from graph_transformer.model import build_model
    from graph_transformer.task import parse_task
    from online_sampler.sampler import Sampler

    task = parse_task(world.task_text)
    target, view = task.target, world.graph.view()
    sampler = Sampler(view, task.sampling_plan)
    rows = np.arange(view.row_count(target.table), dtype=np.int64)
    if target.event_level:
        sampled = sampler.sample_rows(target.table, rows, view.times(target.table)[0] - 1)
    else:
        keys = [key for key in view.keys(target.table, rows) if key is not None]
        sampled = sampler.sample_keys(target.table, keys, np.full(len(keys), view.watermark_us))
    statistics = fit_statistics([sampled], world.schema, view.strings, target=target)
    torch.manual_seed(7)
    model = build_model(Encoding(statistics, world.schema, view.strings).layout(), task.model, target.outputs)
    checkpoint = Checkpoint(
        task=task,
        fingerprint=world.schema.fingerprint(statistics.tables()),
        statistics=statistics,
        model=task.model,
        unit=Unit(signed_log=True, center=3.0, scale=1.5) if target.is_number else Unit(),
        calibration=Calibration.of(target),
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
def served_checkpoints(
    served_schema: Schema, served_privacy: Privacy, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Gives the checkpoint folder of a task, which every world's graph can use."""
    from temporal_graph.graph import TemporalGraph

    @cache
    def checkpoint_of(task: str) -> Path:
        folder = tmp_path_factory.mktemp("model") / "checkpoint"
        with TemporalGraph.create(served_schema, arena_bytes=ARENA_BYTES) as graph:
            world = World(served_schema, graph, served_privacy, folder, task=task)
            grow(world, 200)
            grow_labels(world)
            save_model(world)
        return folder

    return checkpoint_of


@pytest.fixture
def world_of(
    served_schema: Schema, served_privacy: Privacy, served_checkpoints: Callable[[str], Path]
) -> Iterator[Callable[[str], World]]:
    """Gives a graph of the test's own with 100 payments, and the model of a task."""
    from temporal_graph.graph import TemporalGraph

    with ExitStack() as stack:

        def make(task: str) -> World:
            graph = stack.enter_context(TemporalGraph.create(served_schema, arena_bytes=ARENA_BYTES))
            world = World(served_schema, graph, served_privacy, served_checkpoints(task), task=task)
            grow(world, 100)
            return world

        yield make


@pytest.fixture
def world(world_of: Callable[[str], World]) -> World:
    """A graph of the test's own with 100 payments, and the model that looks for fraud."""
    return world_of("fraud")


@pytest.fixture
def world_labels() -> Callable[[World], None]:
    """Adds past labels of the spend task to a world's graph."""
    return grow_labels

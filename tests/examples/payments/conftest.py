"""A small graph of payments, and the way a model of one's own goes: trained, saved, loaded and asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph_transformer.calibration import Calibration
from graph_transformer.checkpoint import Checkpoint
from graph_transformer.config import ModelConfig
from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.heads import Unit
from graph_transformer.model import build_model
from graph_transformer.predictor import Predictor
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Kind, Target
from graph_transformer.task import Task
from model_server.background import BackgroundServer
from model_server.server import build_server
from model_server.settings import ServerSettings
from nowgraph.client import Client
from online_sampler.plan import SamplingPlan
from online_sampler.sampler import Sampler
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema
from temporal_graph.view import GraphView

TARGET = Target(Kind.BINARY, "transactions", event_level=True, column="tx_fraud")
PLAN = {"num_neighbors": [{"hop1": {"default": 1}}, {"hop2": {"default": 8}}]}
MINUTE_US = 60_000_000
PAYMENTS = 400


def cells_of(number: int) -> dict[str, float | int]:
    """What a payment says."""
    return {"tx_amount": float(number % 17), "customer_id": number % 20, "terminal_id": number % 7}


def payment(number: int) -> bytes:
    """A payment, a minute after the one before."""
    row = row_event_pb2.RowEvent(table="transactions", operation=row_event_pb2.OPERATION_INSERT)
    row.key.parts.add(integer=number)
    row.event_time_us = number * MINUTE_US
    row.cells.add(column="tx_amount", number=float(number % 17))
    row.cells.add(column="customer_id", integer=number % 20)
    row.cells.add(column="terminal_id", integer=number % 7)
    return row.SerializeToString()


@pytest.fixture
def view(repository: Path) -> Iterator[GraphView]:
    """A graph of 400 payments."""
    schema = load_schema(repository / "examples" / "payments" / "schema.yaml")
    with TemporalGraph.create(schema, arena_bytes=1 << 26) as graph:
        graph.apply([payment(number) for number in range(PAYMENTS)])
        yield graph.view()


@pytest.fixture
def served(
    view: GraphView, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[ModelConfig], Predictor]:
    """Trains a model a few steps to tell small amounts from large ones, saves it, and loads it as a server does."""
    monkeypatch.syspath_prepend(str(repository / "examples" / "payments"))

    def serve(config: ModelConfig) -> Predictor:
        sampler = Sampler(view, SamplingPlan.from_dict(PLAN))
        rows = np.arange(PAYMENTS, dtype=np.int64)
        sampled = sampler.sample_rows("transactions", rows, rows * MINUTE_US - 1)
        statistics = fit_statistics([sampled], view.schema, view.strings, target=TARGET)
        encoding = Encoding(statistics, view.schema, view.strings)
        torch.manual_seed(0)
        model = build_model(encoding.layout(), config, TARGET.outputs)
        train(model, collate(sampled, encoding), torch.from_numpy((rows % 17 > 8).astype(np.float32)))
        saved(model, statistics, config, view).save(tmp_path / "checkpoint")
        return Predictor.load(tmp_path / "checkpoint", view)

    return serve


@pytest.fixture
def over_grpc(view: GraphView, tmp_path: Path) -> Callable[[np.ndarray], list[float]]:
    """Serves the saved checkpoint, and gives the logits that a client gets for payments of those numbers."""

    def ask(numbers: np.ndarray) -> list[float]:
        settings = ServerSettings(port=0, metrics_port=0, deadline_default_ms=60_000)
        checkpoint = tmp_path / "checkpoint"
        with (
            BackgroundServer(
                lambda: build_server(view, Predictor.load(checkpoint, view, threads=1), settings=settings)
            ) as server,
            Client(server.target, timeout_s=60) as client,
        ):
            scores = [
                client.score("transactions", number, cells_of(number), event_time=number * MINUTE_US)
                for number in numbers.tolist()
            ]
        return [score.logit for score in scores if score.logit is not None]

    return ask


def train(model: torch.nn.Module, batch: Any, label: torch.Tensor) -> None:
    """Some steps; raises where the loss does not fall by half."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(batch)[:, 0], label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


def saved(model: torch.nn.Module, statistics: Any, config: ModelConfig, view: GraphView) -> Checkpoint:
    """The checkpoint of a model."""
    plan = SamplingPlan.from_dict(PLAN)
    return Checkpoint(
        task=replace(Task("payments", TARGET, Splits(Interval(0, 1)), plan), model=config),
        fingerprint=view.schema.fingerprint(statistics.tables()),
        statistics=statistics,
        model=config,
        unit=Unit(),
        calibration=Calibration.of(TARGET),
        weights=model.state_dict(),
    )

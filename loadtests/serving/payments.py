"""The bench's world: synthetic payments as RowEvents, and a model of the payments task's shape with random weights.

How fast a model answers depends on its shape and on the neighborhoods, not on what its weights have learned.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from graph_transformer.calibration import Calibration
from graph_transformer.checkpoint import Checkpoint
from graph_transformer.encoding.collate import Encoding
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.finetune.question import written_task
from graph_transformer.heads import Unit
from graph_transformer.model import GraphTransformer
from graph_transformer.task import Task
from online_sampler.sampler import Sampler
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema

START_US = 1_700_000_000_000_000
CUSTOMERS = 5_000
TERMINALS = 10_000
FIT_ROWS = 2_000


def row_of(number: int, time_us: int, random: np.random.Generator) -> row_event_pb2.RowEvent:
    """A payment of a random customer at a random terminal."""
    row = row_event_pb2.RowEvent(table="transactions", operation=row_event_pb2.OPERATION_INSERT, event_time_us=time_us)
    row.key.parts.add(integer=number)
    row.cells.add(column="tx_amount", number=float(random.exponential(50.0)))
    row.cells.add(column="customer_id", integer=int(random.integers(CUSTOMERS)))
    row.cells.add(column="terminal_id", integer=int(random.integers(TERMINALS)))
    return row


def requests(count: int, after: int) -> list[service_pb2.ScoreRequest]:
    """Score requests of payments that happen once `after` payments are there."""
    random = np.random.default_rng(1)
    return [
        service_pb2.ScoreRequest(row=row_of(10**12 + number, START_US + after * 1_000, random))
        for number in range(count)
    ]


def save_model(graph: TemporalGraph, schema: Schema, task_path: Path, folder: Path) -> Task:
    """Fits statistics on the newest rows' neighborhoods and saves a model of the task's shape."""
    task = written_task(task_path, schema)
    task = replace(task, model=replace(task.model, members=1))  # the size that scores in about 2 ms
    view = graph.view()
    count = view.row_count("transactions")
    rows = np.arange(max(0, count - FIT_ROWS), count, dtype=np.int64)
    cutoff_time_us = view.times("transactions")[0][rows] - 1
    sampled = Sampler(view, task.sampling_plan).sample_rows("transactions", rows, cutoff_time_us)
    reads = {"tallies": task.model.tallies, "comparisons": task.model.comparisons}
    statistics = fit_statistics([sampled], schema, view.strings, target=task.target, **reads)
    torch.manual_seed(0)
    model = GraphTransformer(Encoding(statistics, schema, view.strings).layout(), task.model, task.target.outputs)
    Checkpoint(
        task=task,
        fingerprint=schema.fingerprint(statistics.tables()),
        statistics=statistics,
        model=task.model,
        unit=Unit(),
        calibration=Calibration(),
        weights=model.state_dict(),
    ).save(folder)
    return task

"""The demo's task trains on the past alone, and its payments carry no label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from graph_transformer.finetune.question import written_task
from graph_transformer.finetune.train import own_columns
from nowgraph.client_values import row_to_wire
from nowgraph.demo.data import demo_data
from nowgraph.demo.settings import DemoSettings
from nowgraph.demo.training import demo_task, payment_row, scores_alone, train_both
from nowgraph.loading import load_files
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema

SETTINGS = DemoSettings.quick()


def test_only_labels_known_when_the_live_stretch_begins_are_learned_from(example: Path) -> None:
    """Interval and model end where the live stretch begins; the baseline sees no neighbors."""
    task = demo_task(written_task(example / "task.yaml", load_schema(example / "schema.yaml")), SETTINGS, steps=7)
    assert task.splits.train.end_us == SETTINGS.live_us
    assert task.splits.trained_by_us == SETTINGS.live_us
    assert (task.splits.validation, task.splits.test, task.training.steps) == (None, None, 7)
    plan = own_columns(task).sampling_plan
    assert [hop.default for hop in plan.num_neighbors] == [0]


def test_a_payment_is_asked_about_without_its_label(example: Path) -> None:
    """Key, time, links and amount; never tx_fraud."""
    data = demo_data(SETTINGS, real=False)
    wire = row_to_wire(payment_row(data.live, 3)).row
    assert {cell.column for cell in wire.cells} == {"customer_id", "terminal_id", "tx_amount"}
    assert wire.event_time_us == data.live.event_time_us[3]
    assert wire.key.parts[0].integer == data.live.transaction_id[3]


def test_both_models_are_trained_and_the_payment_alone_is_scored(example: Path, tmp_path: Path) -> None:
    """Two checkpoints; the scores are probabilities, equal for payments that differ only in what is not their own."""
    settings = replace(DemoSettings.quick().into(tmp_path), steps=3, alone_steps=3)
    data = demo_data(settings, real=False)
    steps = []
    with TemporalGraph.create(load_schema(example / "schema.yaml"), arena_bytes=1 << 28) as graph:
        load_files(graph, data.write_history(tmp_path, live_us=settings.live_us), quiet=True)
        folders = train_both(
            graph,
            written_task(example / "task.yaml", graph.schema),
            settings,
            lambda done, total, loss: steps.append((done, total)),
        )
        live = data.live.where(np.arange(20))
        scores = scores_alone(graph, folders[1], live)
        later = live.where(np.zeros(2, dtype=np.int64))
        again = scores_alone(graph, folders[1], later)
    assert steps == [(number, 6) for number in range(1, 7)]
    assert ((scores > 0) & (scores < 1)).all()
    assert np.allclose(again, scores[0], atol=1e-6)
    assert all((folder).is_dir() for folder in folders)

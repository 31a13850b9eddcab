"""`nowgraph evaluate` measures a checkpoint on what is known by now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graph_transformer.finetune.query.label_table import LabelTable
from graph_transformer.finetune.query.task_table import write_labels
from graph_transformer.target import Target
from graph_transformer.task import parse_task

MINUTE_US = 60_000_000


def options(folder: Path) -> list[object]:
    """The options of an evaluation from the folder that training left."""
    history = [word for path in sorted((folder / "history").iterdir()) for word in ("--history", path)]
    return ["evaluate", "--checkpoint", folder, *history]


@pytest.fixture
def labels(world: Any) -> Callable[[Target, Path], Path]:
    """Writes labels of the world's customers at two anchors, as training does."""

    def write(target: Target, path: Path) -> Path:
        row = np.tile(np.arange(5), 2)
        anchor_us = world.start_us + np.repeat([20, 40], 5) * MINUTE_US
        table = LabelTable(target, row, anchor_us, anchor_us + 30 * MINUTE_US, 20.0 + row)
        write_labels(table, path, world.graph.view())
        return path

    return write


@pytest.mark.integration
def test_labels_of_entities_are_those_of_the_training(
    run_json: Callable[..., Any],
    run_command: Callable[..., Any],
    trained: Callable[[str], Path],
    labels: Callable[[Target, Path], Path],
    world: Any,
    tmp_path: Path,
) -> None:
    """From the folder or given; over the times that are asked for; figures and pictures of a number."""
    folder = trained("spend")
    target = parse_task(world.task_text_of("spend")).target
    given = labels(target, tmp_path / "later.parquet")
    document = run_json(*options(folder), "--labels", given, "--start", "2023-01-01", "-o", tmp_path / "pictures")
    assert (document["task"], document["kind"], document["metrics"]["count"]) == ("spend", "regression", 10)
    assert document["metrics"]["mae"] > 0
    assert all(Path(path).is_file() and Path(path).parent == tmp_path / "pictures" for path in document["pictures"])
    labels(target, folder / "spend.parquet")
    later = ("--start", "2023-01-01T00:30:00", "--end", "2023-01-01T00:41:00")
    assert run_json(*options(folder), *later)["metrics"]["count"] == 5
    shown = run_command(*options(folder), *later).stdout
    assert "MAE" in shown
    assert str(folder / "evaluation") in shown


@pytest.mark.integration
def test_labels_of_events_are_in_the_graph(run_json: Callable[..., Any], trained: Callable[[str], Path]) -> None:
    """Outcomes in the history are enough."""
    folder = trained("fraud")
    payments = pq.read_table(folder / "history" / "transactions.parquet")
    fraud = pa.array([n % 4 == 0 for n in range(len(payments))])
    pq.write_table(payments.append_column("tx_fraud", fraud), folder / "history" / "transactions.parquet")
    document = run_json(*options(folder), "--start", "2023-01-01T00:20:00")
    assert document["measured_on"] == "from 2023-01-01T00:20:00+00:00"
    assert document["metrics"]["count"] == 40
    assert 0 <= document["metrics"]["average_precision"] <= 1


def test_what_is_missing_is_said(
    run_command: Callable[..., Any], trained: Callable[[str], Path], tmp_path: Path
) -> None:
    """No times, an end before the start, no label file, labels where the graph has them: one line, exit code 2."""
    spend, fraud = trained("spend"), trained("fraud")
    assert "--start and --end" in run_command(*options(spend), exit_code=2).stderr
    backwards = ("--start", "2023-01-02", "--end", "2023-01-01")
    assert "--end 2023-01-01" in run_command(*options(spend), *backwards, exit_code=2).stderr
    some = ("--start", "2023-01-01")
    refused = run_command(*options(spend), *some, exit_code=2).stderr
    assert "spend.parquet: no such file" in refused
    assert "--labels" in refused
    refused = run_command(*options(fraud), *some, "--labels", tmp_path / "x.parquet", exit_code=2).stderr
    assert "in the graph" in refused
    assert "--start" in run_command(*options(spend), "--start", "yesterday", exit_code=2).stderr

"""`nowgraph train` makes a checkpoint from files, or from the graph of a running updater."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nowgraph.client_values import Row, row_to_wire
from temporal_graph.schema import load_schema
from temporal_graph.view import GraphView

TASK = """
version: 1
name: fraud
table: transactions
outcome: tx_fraud
kind: binary
entity: customer_id
splits:
  train: {start: 2018-04-01, end: 2018-04-15}
  test: {start: 2018-04-23, end: 2018-04-28}
sampling_plan:
  num_neighbors: [{hop1: {default: 1}}, {hop2: {default: 8}}]
model: {width: 16, layers: 1, heads: 4}
training: {steps: 5, batch: 32, evaluate_every: 5}
"""
SMALL = """
sampling_plan: {num_neighbors: [{hop1: {default: 4}}]}
model: {width: 16, layers: 1, heads: 4}
training: {steps: 4, batch: 32, evaluate_every: 4}
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task on the town's month."""
    (tmp_path / "task.yaml").write_text(TASK)
    return tmp_path / "task.yaml"


def test_a_checkpoint_from_files_answers(
    run_json: Callable, example: Path, town: tuple[Path, Path], task: Path, tmp_path: Path
) -> None:
    """Figures for the test split; the checkpoint loads and gives a probability for a payment nobody has seen."""
    from graph_transformer.predictor import Predictor
    from online_sampler.sampler import Sampler

    schema, arena = example / "schema.yaml", tmp_path / "arena"
    run_json("replay", *town, "--schema", schema, "--arena", arena, "--quiet")
    options = ("--schema", schema, "--task", task, "--quiet")
    from_files = run_json("train", *options, "--output", tmp_path / "a", "--history", town[0], "--history", town[1])
    assert from_files["steps"] == 5
    assert 0 <= from_files["metrics"]["test"]["average_precision"] <= 1
    from_arena = run_json("train", *options, "--output", tmp_path / "b", "--arena", arena)
    assert from_arena["metrics"]["test"]["positives"] == from_files["metrics"]["test"]["positives"]

    view = GraphView.attach(load_schema(schema), arena)
    predictor = Predictor.load(tmp_path / "a", view)
    row = Row("transactions", 10**9, {"customer_id": 1, "terminal_id": 2, "tx_amount": 10.0}, 1_524_900_000_000_000)
    event = row_to_wire(row).row.SerializeToString()
    import numpy as np

    neighborhood = Sampler(view, predictor.plan).sample_events([event], np.asarray([1_524_899_999_999_999]))
    assert 0 < predictor.predict(neighborhood).probability[0] < 1


def test_what_to_train_on_must_be_said_once(
    run_command: Callable, example: Path, town: tuple[Path, Path], task: Path, tmp_path: Path
) -> None:
    """Neither files nor an arena, or both; an arena that nobody serves: one line each."""
    options = ("train", "--schema", example / "schema.yaml", "--task", task, "--output", tmp_path / "out", "--quiet")
    assert "either" in run_command(*options, exit_code=2).stderr
    assert "either" in run_command(*options, "--history", town[0], "--arena", tmp_path, exit_code=2).stderr
    assert "no graph is served" in run_command(*options, "--arena", tmp_path, exit_code=2).stderr


QUERY = "PREDICT COUNT(transactions.*, 0, 3, days) > 2 FOR EACH customers.customer_id"


def test_a_query_is_all_it_takes(
    run_json: Callable, example: Path, town: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence over raw tables: labels, splits and plan are found; the output holds all that serving needs."""
    monkeypatch.setattr("graph_transformer.training.Training.__post_init__", _few_steps, raising=True)
    out = tmp_path / "out"
    options = ("--schema", example / "schema.yaml", "--query", QUERY, "--history", town[0], "--quiet", "-o", out)
    found = run_json("train", *options)
    assert found["task"] == "question"
    assert set(found["metrics"]) >= {"validation", "test", "test, constant", "test, last value"}
    assert {path.name for path in out.iterdir()} >= {
        "checkpoint.json",
        "weights.safetensors",
        "schema.yaml",
        "plan.yaml",
        "question.parquet",
        "precision_recall.png",
        "learning.png",
    }
    assert load_schema(out / "schema.yaml").table("question").links[0].parent == "customers"


@pytest.mark.faults
def test_a_killed_training_is_resumed_by_its_own_command(
    run_command: Callable, run_json: Callable, example: Path, town: tuple[Path, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    """Ended at its third step and started again with --resume: the model of a training that nothing ended."""
    from graph_transformer.finetune.loop import Progress

    plan = tmp_path / "plan.yaml"
    plan.write_text(SMALL.replace("evaluate_every: 4", "evaluate_every: 2"))
    options = ("train", "--schema", example / "schema.yaml", "--query", QUERY, "--history", town[0], "--plan", plan)
    options = (*options, "--no-floors", "--quiet", "--output")
    steps: list[int] = []

    def killed(progress: Progress) -> None:
        if progress.phase == "refit":
            return
        steps.append(progress.step)
        if steps == [1, 2, 3]:
            raise KeyboardInterrupt

    monkeypatch.setattr("graph_transformer.finetune.loop.silent", killed)
    run_command(*options, tmp_path / "a", exit_code=130)
    resumed = run_json(*options, tmp_path / "a", "--resume")
    assert steps == [1, 2, 3, 3, 4]
    assert resumed["version"] == run_json(*options, tmp_path / "b")["version"]


RANKING = "PREDICT LIST_DISTINCT(transactions.terminal_id, 0, 3, days) RANK TOP 3 FOR EACH customers.customer_id"


def test_what_several_processes_can_not_do_together_is_refused(
    run_command: Callable, example: Path, town: tuple[Path, Path], task: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """A search goes by the clock, which no two share, and a ranking has one writer: each says so under torchrun."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    options = (
        "train",
        "--schema",
        example / "schema.yaml",
        "--history",
        town[0],
        "--output",
        tmp_path / "o",
        "--quiet",
    )
    found = run_command(*options, "--task", task, "--search", "--budget", "1m", exit_code=2).stderr
    assert "--search is for one process" in found
    assert "--plan" in found
    assert "a ranking is fitted by one process" in run_command(*options, "--query", RANKING, exit_code=2).stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.faults
def test_torchrun_starts_one_training_of_several_processes(
    example: Path, town: tuple[Path, Path], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """Two ranks compute the same labels at once and fit one model; the first alone writes and reports, once."""
    out, small = tmp_path / "out", tmp_path / "small.yaml"
    small.write_text(SMALL)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", free_port(), "--no-python"]
    command = [sys.executable, "-P", "-m", "nowgraph.cli", "train", "--query", QUERY, "--history", town[0]]
    options = ["--schema", example / "schema.yaml", "--plan", small, "--no-floors", "-o", out, "--quiet", "--json"]
    done = subprocess.run(
        [sys.executable, "-P", *map(str, [*launcher, *command, *options])],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    assert {"checkpoint.json", "schema.yaml", "plan.yaml", "question.parquet"} <= {path.name for path in out.iterdir()}


def test_a_search_ends_within_its_budget_and_leaves_its_plan(
    run_json: Callable, example: Path, town: tuple[Path, Path], task: Path, tmp_path: Path
) -> None:
    """`--search --budget`: plans are tried around the task's own, and the best one is what is fitted and written."""
    from graph_transformer.plan import load_plan

    out = tmp_path / "out"
    options = ("--schema", example / "schema.yaml", "--task", task, "--no-floors", "--quiet", "--output", out)
    # Reports come a week later: each split's must be there when the next one begins.
    early = TASK.replace("end: 2018-04-15}", "end: 2018-04-12}\n  validation: {start: 2018-04-13, end: 2018-04-18}")
    task.write_text(early.replace("start: 2018-04-23", "start: 2018-04-26").replace("steps: 5", "steps: 3"))
    found = run_json("train", *options, "--history", town[0], "--history", town[1], "--search", "--budget", "1s")
    plan = load_plan(out / "plan.yaml")
    assert 0 < found["steps"] <= plan.training.steps
    assert json.loads((out / "checkpoint.json").read_text())["model"]["width"] == plan.model.width


KINDS = {
    "multiclass": ("LAST(orders.status, 0, 5, days)", {"accuracy", "log_loss"}),
    "multilabel": ("LIST_DISTINCT(orders.status, 0, 5, days) CLASSIFY", {"macro_average_precision"}),
    "forecast": ("SUM(orders.amount, 0, 5, days) FORECAST 2 TIMEFRAMES", {"mae", "coverage_90"}),
}
ORDERS = """
version: 1
name: shop
tables:
  customers: {primary_key: {customer_id: integer}}
  orders:
    primary_key: {order_id: integer}
    time_column: ordered_at
    columns: {amount: numerical, status: categorical}
    links: {customer_id: customers}
"""


@pytest.mark.parametrize("kind", KINDS)
def test_every_other_kind_is_trained_by_one_sentence(kind: str, run_json: Callable, tmp_path: Path) -> None:
    """Classes, several at once, numbers ahead: labels, splits, floors, figures and pictures of their own kind."""
    import duckdb

    target, figures = KINDS[kind]
    (tmp_path / "schema.yaml").write_text(ORDERS)
    (tmp_path / "plan.yaml").write_text(SMALL)
    with duckdb.connect() as database:
        database.execute(f"""
            copy (select n as order_id, hash(n) % 30 as customer_id, 5.0 + n % 90 as amount,
                ['sent', 'lost', 'kept'][1 + n % 3] as status, timestamp '2026-01-01' + to_hours(n) as ordered_at
              from range(1500) orders(n)) to '{tmp_path}/orders.parquet' (format parquet)""")
    options = ("--schema", tmp_path / "schema.yaml", "--history", tmp_path / "orders.parquet", "--quiet")
    options = (*options, "--plan", tmp_path / "plan.yaml", "--output", tmp_path / "out")
    found = run_json("train", *options, "--query", f"PREDICT {target} FOR EACH customers.customer_id")
    assert json.loads((tmp_path / "out" / "checkpoint.json").read_text())["task"]["kind"] == kind
    for name in ("validation", "test", "test, constant", "test, last value", "test, LightGBM, own columns"):
        assert figures <= {figure for figure, value in found["metrics"][name].items() if value is not None}
    assert all(Path(picture).read_bytes().startswith(b"\x89PNG") for picture in found["pictures"])
    assert len(found["pictures"]) > 1


def _few_steps(training: object) -> None:
    object.__setattr__(training, "steps", min(training.steps, 3))  # type: ignore[attr-defined]

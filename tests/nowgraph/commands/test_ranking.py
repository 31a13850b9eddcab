"""Commands of a ranking task: what they take, what they refuse, and the table of its questions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from nowgraph.cli import app
from nowgraph.commands.ranking import refuse_options
from nowgraph.errors import UsageError

NEXT = "PREDICT LIST_DISTINCT(transactions.terminal_id, 0, 1, minutes) RANK TOP 5 FOR EACH customers.customer_id"
TASK = f"version: 1\nname: next_terminal\nquery: {NEXT}\nanchors: {{before: transactions}}\n"


def test_labels_of_a_ranking_are_lists(
    run_json: Callable, example: Path, town: tuple[Path, Path], tmp_path: Path
) -> None:
    """A question before each payment, with the terminals that followed, in splits by time."""
    (tmp_path / "task.yaml").write_text(TASK)
    options = ("--schema", example / "schema.yaml", "--history", town[0], "--quiet", "--task", tmp_path / "task.yaml")
    found = run_json("labels", *options, "--output", tmp_path / "lists.parquet")
    assert found["kind"] == "ranking"
    assert [row["split"] for row in found["rows"][:3]] == ["train", "validation", "test"]
    lists = pq.read_table(tmp_path / "lists.parquet").column("label").to_pylist()
    assert len(lists) == found["labels"]
    assert all(lists)


def test_a_ranking_is_understood(run_json: Callable, example: Path) -> None:
    """What is listed, how many, and that no table of past labels is needed."""
    found = run_json("query", NEXT, "--schema", example / "schema.yaml")
    assert (found["kind"], found["items"], found["past labels"]) == ("ranking", 5, "as what users did")


def test_options_of_other_trainings_are_refused(
    run_command: Callable, example: Path, town: tuple[Path, Path], tmp_path: Path
) -> None:
    """What would be ignored is named; what was not given is not."""
    (tmp_path / "task.yaml").write_text(TASK)
    options = ("--schema", example / "schema.yaml", "--history", town[0], "--task", tmp_path / "task.yaml")
    given = ("--search", "--budget", "3m", "--device", "cuda", "--samplers", 2, "--size", "gpu")
    error = run_command("train", *options, "-o", tmp_path / "out", *given, exit_code=2).stderr
    assert all(name in error for name in ("--search", "--device", "--samplers", "--size"))
    assert "--budget" not in error
    assert "--baseline" not in error
    assert "ranking" in run_command("plan", *options, exit_code=2).stderr
    refuse_options("x", budget=None, search=False)
    with pytest.raises(UsageError, match="--resume is not"):
        refuse_options("x", resume=True)


SHOP = """
version: 1
name: shop
tables:
  users: {primary_key: {user_id: integer}}
  items: {primary_key: {sku: string}}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    links: {user_id: users, sku: items}
"""
SHOP_TASK = """
version: 1
name: next_order
query: PREDICT LIST_DISTINCT(orders.sku, 0, 1, minutes) RANK TOP 3 FOR EACH users.user_id
anchors: {before: orders, last: 2024-03-01}
splits:
  train: {start: 2024-01-01, end: 2024-02-10}
  validation: {start: 2024-02-10, end: 2024-02-15}
  refit: {start: 2024-01-01, end: 2024-02-15}
  test: {start: 2024-02-15, end: 2024-03-01}
model: {width: 16, heads: 4}
training: {steps: 6, batch: 32, evaluate_every: 6}
ranking: {dimension: 8, history: 8, negatives: 8, fusion_steps: 20, fusion_span: 10d}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A schema, a task, and fifty days of orders: a user goes round a circle of twelve items, with detours."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "schema.yaml").write_text(SHOP)
    (folder / "task.yaml").write_text(SHOP_TASK)
    day, user = (each.ravel() for each in np.meshgrid(np.arange(50), np.arange(20), indexing="ij"))
    at = np.datetime64("2024-01-01", "us") + day * np.timedelta64(1, "D") + user * np.timedelta64(1, "m")
    random = np.random.default_rng(3)
    item = np.where(random.random(len(day)) < 0.4, random.integers(0, 12, len(day)), (day + user) % 12)
    sku = [f"s{each:02}" for each in item.tolist()]
    orders = {"order_id": np.arange(len(day)), "user_id": user, "sku": sku, "at": at}
    pq.write_table(pa.table(orders), folder / "orders.parquet")
    return folder


@pytest.fixture(scope="module")
def made(shop: Path) -> Any:
    """What `nowgraph train` says of that task."""
    options = ("--schema", shop / "schema.yaml", "--task", shop / "task.yaml", "--history", shop / "orders.parquet")
    arguments = ["train", *options, "--output", shop / "out", "--quiet", "--json"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.stderr, result.exception)
    return json.loads(result.stdout)


def test_a_ranking_is_trained_and_measured_with_its_floors(made: Any, shop: Path) -> None:
    """Its parts and the floors stand beside it on the same questions; the output holds what serving needs."""
    assert {"nowgraph", "popular", "repeat", "item_knn", "co_visitation", "ease"} <= set(made["metrics"]["test"])
    assert made["recall"]["test"]["union"] > 0.5
    files = {path.name for path in (shop / "out").iterdir()}
    assert files >= {"checkpoint.json", "weights.safetensors", "schema.yaml", "plan.yaml", "next_order.parquet"}


def test_a_budget_is_kept_and_what_it_cut_is_said(shop: Path, tmp_path: Path) -> None:
    """With hardly any time the steps are cut and the ranking is measured all the same; a person reads what was cut."""
    options = ["--schema", shop / "schema.yaml", "--task", shop / "task.yaml", "--history", shop / "orders.parquet"]
    arguments = ["train", *options, "--output", tmp_path / "out", "--budget", "0.001", "--no-floors"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.stderr, result.exception)
    assert "Cut to the budget: " in result.stderr
    assert re.search(r"towers: [1-5]\s+of\s+6\s+steps", result.stderr)
    assert "nowgraph" in result.stdout
    assert (tmp_path / "out" / "checkpoint.json").is_file()


def test_the_ranker_that_serves_is_as_good_as_it_was_measured(made: Any, shop: Path, run_json: Callable) -> None:
    """Asked one by one through the path of requests, the test split gives the training's own figures."""
    options = ("--checkpoint", shop / "out", "--history", shop / "orders.parquet", "--quiet")
    found = run_json("evaluate", *options)
    assert (found["kind"], found["measured_on"], found["task"]) == ("ranking", "test", "next_order")
    own = made["metrics"]["test"]["nowgraph"]
    assert found["metrics"]["count"] == own["count"]
    assert 0.2 < own["ndcg"] < 0.9
    assert found["metrics"]["ndcg"] == pytest.approx(own["ndcg"], abs=1e-3)
    later = run_json("evaluate", *options, "--start", "2024-02-18")
    assert 0 < later["metrics"]["count"] < own["count"]


def test_users_of_a_file_get_lists(made: Any, shop: Path, run_json: Callable, tmp_path: Path) -> None:
    """Three items each, by key, for users the graph knows and for one it does not."""
    pq.write_table(pa.table({"user_id": [3, 999]}), tmp_path / "in.parquet")
    options = ("--checkpoint", shop / "out", "--history", shop / "orders.parquet", "--quiet")
    found = run_json("predict", *options, "--input", tmp_path / "in.parquet", "--output", tmp_path / "out.parquet")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (found["rows"], found["model_version"]) == (2, made["version"])
    for row in rows:
        assert len(set(row["items"])) == 3
        assert row["scores"] == sorted(row["scores"], reverse=True)
    assert [row["history_count"] > 0 for row in rows] == [True, False]

"""`nowgraph pretrain` learns a graph's rows without labels; `nowgraph train` begins with what it learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

TASK = """
version: 1
name: fraud
table: transactions
outcome: tx_fraud
kind: binary
splits:
  train: {start: 2018-04-01, end: 2018-04-06}
  validation: {start: 2018-04-13, end: 2018-04-16}
  test: {start: 2018-04-23, end: 2018-04-28}
sampling_plan:
  num_neighbors: [{hop1: {default: 1}}, {hop2: {default: 8}}]
model: {width: 16, layers: 1, heads: 4}
training: {steps: 4, batch: 32, evaluate_every: 4}
"""


@pytest.fixture
def options(example: Path, town: tuple[Path, Path]) -> tuple[object, ...]:
    """Where the town's history is."""
    return ("--schema", example / "schema.yaml", "--history", town[0], "--history", town[1], "--quiet")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task on the town's month."""
    (tmp_path / "task.yaml").write_text(TASK)
    return tmp_path / "task.yaml"


def test_a_training_begins_with_what_was_learned(
    run_json: Callable, options: tuple[object, ...], task: Path, tmp_path: Path
) -> None:
    """The rows' amounts and next payments are asked; the folder is all that `train --pretrained` needs."""
    found = run_json("pretrain", *options, "--task", task, "--output", tmp_path / "pre", "--steps", 6)
    assert found["steps"] <= 6
    names = {line["question"].rpartition(" ")[2] for line in found["learned"]}
    assert "transactions.tx_amount" in names
    assert any(line["question"].startswith("next ") for line in found["learned"])
    arguments = ("--task", task, "--output", tmp_path / "model", "--pretrained", tmp_path / "pre", "--no-floors")
    trained = run_json("train", *options, *arguments, "--plan", tmp_path / "pre" / "plan.yaml")
    assert trained["metrics"]["test"]["count"] > 0


def test_a_curve_is_measured_where_it_is_asked_for(
    run_json: Callable, options: tuple[object, ...], task: Path, tmp_path: Path
) -> None:
    """With and without the weights, on those shares of the labels that hold both kinds; pictures lie beside."""
    found = run_json("pretrain", *options, "--task", task, "--output", tmp_path / "pre", "--curve", 1)
    assert {line["begun"] for line in found["curve"]} == {"from nothing", "pre-trained"}
    assert all(Path(path).is_file() for path in found["pictures"])


def test_without_a_task_a_time_says_what_may_be_seen(
    run_json: Callable, run_command: Callable, options: tuple[object, ...], task: Path, tmp_path: Path
) -> None:
    """A table and an end are enough; without an end, with a task beside, or with a curve, one line says why."""
    out = ("--output", tmp_path / "pre", "--steps", 2)
    found = run_json("pretrain", *options, *out, "--until", "2018-04-13")
    assert Path(found["pretrained"], "plan.yaml").is_file()
    assert "--until" in run_command("pretrain", *options, *out, exit_code=2).stderr
    both = run_command("pretrain", *options, *out, "--task", task, "--until", "2018-04-13", exit_code=2)
    assert "without a task" in both.stderr
    curve = run_command("pretrain", *options, *out, "--until", "2018-04-13", "--curve", 1, exit_code=2)
    assert "--curve" in curve.stderr
    table = run_command("pretrain", *options, *out, "--until", "2018-04-13", "--table", "customers", exit_code=2)
    assert "time column" in table.stderr


def test_what_training_may_not_begin_with_is_refused(
    run_json: Callable, run_command: Callable, options: tuple[object, ...], task: Path, tmp_path: Path
) -> None:
    """Weights that have seen the task's validation, and a folder without any, end with a line."""
    run_json("pretrain", *options, "--output", tmp_path / "late", "--until", "2018-04-25", "--steps", 2)
    arguments = ("train", *options, "--task", task, "--output", tmp_path / "model", "--no-floors", "--pretrained")
    assert "pre-training saw rows until" in run_command(*arguments, tmp_path / "late", exit_code=2).stderr
    assert "holds no pre-trained model" in run_command(*arguments, tmp_path, exit_code=2).stderr

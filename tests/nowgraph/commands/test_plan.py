"""`nowgraph plan` proposes a plan from files: a table with reasons, YAML to edit, nothing overwritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from graph_transformer.plan import load_plan

TASK = """
version: 1
name: fraud
table: transactions
outcome: tx_fraud
splits:
  train: {start: 2018-04-01, end: 2018-04-15}
  test: {start: 2018-04-23, end: 2018-04-28}
"""
OF_TERMINAL = "terminals.terminal_id->transactions.terminal_id"


@pytest.fixture
def options(example: Path, town: tuple[Path, Path], tmp_path: Path) -> tuple[object, ...]:
    """The town's month and a task without a plan."""
    (tmp_path / "task.yaml").write_text(TASK)
    given = ("--schema", example / "schema.yaml", "--task", tmp_path / "task.yaml", "--quiet")
    return *given, "--history", town[0], "--history", town[1]


def test_a_proposal_is_shown_and_written(run_json: Callable, options: tuple, tmp_path: Path) -> None:
    """The document has a line per link with degrees and reason; the file holds the same plan."""
    found = run_json("plan", *options, "--output", tmp_path / "plan.yaml")
    links = {(row["hop"], row["link"]): row for row in found["links"]}
    assert links[2, OF_TERMINAL]["fan-out"] > 0
    assert links[2, OF_TERMINAL]["median"] <= links[2, OF_TERMINAL]["p95"]
    assert found["rows"]["mean"] <= 160
    plan = load_plan(tmp_path / "plan.yaml")
    assert plan.to_dict() == found["plan"]
    assert plan.sampling_plan.num_neighbors[1].of(OF_TERMINAL) == links[2, OF_TERMINAL]["fan-out"]
    assert "# history; median" in (tmp_path / "plan.yaml").read_text()


def test_people_get_a_table_and_the_plan(run_command: Callable, options: tuple) -> None:
    """Without an output the YAML follows the table."""
    shown = run_command("plan", *options, "--size", "gpu").stdout
    assert "fan-out" in shown
    assert OF_TERMINAL in shown
    assert "sampling_plan:" in shown
    assert "for a GPU" in shown


def test_mistakes_are_one_line(run_command: Callable, options: tuple, tmp_path: Path) -> None:
    """A size that is none, a file that is there already, and no history."""
    assert "--size: expected cpu or gpu" in run_command("plan", *options, "--size", "tpu", exit_code=2).stderr
    (tmp_path / "there.yaml").write_text("")
    there = run_command("plan", *options, "--output", tmp_path / "there.yaml", exit_code=2).stderr
    assert "overwrites nothing" in there
    assert "either --history" in run_command("plan", *options[:5], exit_code=2).stderr

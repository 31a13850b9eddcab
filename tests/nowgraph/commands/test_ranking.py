"""Commands of a ranking task: what they take, what they refuse, and the table of its questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

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
    error = run_command("train", *options, "-o", tmp_path / "out", "--baseline", "--budget", "3m", exit_code=2).stderr
    assert "--baseline" in error
    assert "--budget" in error
    assert "--search" not in error
    assert "ranking" in run_command("plan", *options, exit_code=2).stderr
    refuse_options("x", budget=None, search=False)
    with pytest.raises(UsageError, match="--resume is not"):
        refuse_options("x", resume=True)

"""`nowgraph labels` makes the training table of a query; `nowgraph query` says how one is understood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

SPENT = "PREDICT SUM(transactions.tx_amount, 0, 3, days) > 100 FOR EACH customers.customer_id"
FRAUD = "PREDICT transactions.tx_fraud FOR EACH transactions.transaction_id"


def test_a_query_makes_its_training_table(
    run_json: Callable, run_command: Callable, example: Path, town: tuple[Path, Path], tmp_path: Path
) -> None:
    """A label for each customer and anchor, in splits by time; the file is history of the task's table."""
    options = ("--schema", example / "schema.yaml", "--history", town[0], "--quiet", "--query", SPENT)
    found = run_json("labels", *options, "--output", tmp_path / "question.parquet")
    assert (found["kind"], [row["split"] for row in found["rows"][:3]]) == ("binary", ["train", "validation", "test"])
    assert found["labels"] == sum(row["labels"] for row in found["rows"])
    assert all(0 < row["positive"] < 1 for row in found["rows"][:3])
    table = pq.read_table(tmp_path / "question.parquet")
    assert table.column_names == ["customer_id", "anchor_time", "anchor_time_us", "known_time", "label"]
    shown = run_command("labels", *options, "--output", tmp_path / "question.parquet").stdout
    assert "validation" in shown
    assert "positive" in shown


def test_a_query_may_be_a_file_or_a_task(
    run_json: Callable, example: Path, town: tuple[Path, Path], tmp_path: Path
) -> None:
    """The same labels from a file with the query and from a task that has it; a row is its own question."""
    (tmp_path / "fraud.pql").write_text(FRAUD)
    (tmp_path / "task.yaml").write_text(f"version: 1\nname: fraud\nquery: {FRAUD}\n")
    schema = ("--schema", example / "schema.yaml", "--quiet")
    history = ("--history", town[0], "--history", town[1], "--output", tmp_path / "out.parquet")
    of_file = run_json("labels", *schema, *history, "--query", tmp_path / "fraud.pql")
    of_task = run_json("labels", *schema, *history, "--task", tmp_path / "task.yaml")
    assert of_file["rows"] == of_task["rows"]
    assert of_file["labels"] == pq.read_metadata(town[0]).num_rows


def test_query_shows_what_was_understood(run_json: Callable, run_command: Callable, example: Path) -> None:
    """Kind, entity, link and window, for people and for machines."""
    found = run_json("query", SPENT, "--schema", example / "schema.yaml")
    assert (found["kind"], found["asked"]) == ("binary", "each row of customers, as of a time")
    (aggregation,) = found["aggregations"]
    assert aggregation["window"] == "(t+0, t+3] days"
    assert aggregation["by link"] == "transactions.customer_id->customers.customer_id"
    shown = run_command("query", FRAUD, "--schema", example / "schema.yaml").stdout
    assert "just before it happens" in shown


def test_rank_top_of_values_is_explained(run_json: Callable, example: Path, tmp_path: Path) -> None:
    """Who asks for a list of a column's values reads that it is a task of classes; of another query nothing is said."""
    text = "PREDICT transactions.tx_fraud RANK TOP 3 FOR EACH transactions.transaction_id"
    (tmp_path / "schema.yaml").write_text(
        (example / "schema.yaml")
        .read_text()
        .replace("{kind: boolean, outcome: true}", "{kind: categorical, outcome: true}")
    )
    found = run_json("query", text, "--schema", tmp_path / "schema.yaml")
    assert "the task is multiclass" in found["note"]
    assert "note" not in run_json("query", FRAUD, "--schema", tmp_path / "schema.yaml")


def test_an_error_shows_its_place(run_command: Callable, example: Path) -> None:
    """The query's line with a mark under what is wrong, and the nearest name."""
    text = SPENT.replace("tx_amount", "tx_amont")
    error = run_command("query", text, "--schema", example / "schema.yaml", exit_code=2).stderr
    assert "did you mean tx_amount?" in error
    _, line, mark = error.rstrip().split("\n")
    assert line[mark.index("^") :].startswith("tx_amont")

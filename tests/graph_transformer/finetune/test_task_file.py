"""What a person writes down of a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from graph_transformer.errors import TaskError
from graph_transformer.finetune.task_file import load_task_file, task_file_from_dict
from graph_transformer.splits import NEVER
from graph_transformer.target import Kind

FOLDER = Path("somewhere")
QUERY = """
version: 1
name: churn
query: PREDICT COUNT(orders.*, 0, 30, days) = 0 FOR EACH customers.customer_id
anchors: {first: 2024-01-01, step: 7d}
splits:
  train: {start: 2024-01-01, end: 2024-06-01}
  test: {start: 2024-07-01, end: 2024-08-01}
training: {steps: 5}
entity: customer_id
"""
LABELS = """
version: 1
name: dnf
labels: {table: drivers, kind: binary, key: driver, time: date, value: y, window: 30d, files: {train: a.parquet}}
"""


def _of(text: str, **changes: Any) -> Any:
    values = yaml.safe_load(text)
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = values
        for name in parents:
            at = at[name]
        at[last] = value
    return task_file_from_dict(values, folder=FOLDER)


def test_a_query_comes_with_as_much_of_a_plan_as_was_written() -> None:
    """Query, anchors, splits, options and the given parts of a plan are kept apart; what is missing stays missing."""
    found = _of(QUERY)
    assert found.query is not None
    assert found.query.startswith("PREDICT COUNT")
    assert found.anchors.step_us == 7 * 86_400_000_000
    assert found.anchors.last_us is None
    assert found.splits is not None
    assert found.splits.validation is None
    assert dict(found.plan) == {"training": {"steps": 5}}
    assert dict(found.options) == {"entity": "customer_id"}


def test_entities_may_be_known_since_a_time_of_its_own() -> None:
    """The time stands in the task as microseconds, and travels with it."""
    options = _of(QUERY, exclude_known_entities=True, exclude_known_since="2024-03-01").options
    assert options["exclude_known_since_us"] == 1_709_251_200_000_000
    with pytest.raises(TaskError) as error:
        _of(QUERY, exclude_known_since="spring")
    assert error.value.path == "exclude_known_since"


def test_labels_lie_beside_the_task_or_where_one_says(tmp_path: Path) -> None:
    """Files of labels are looked for beside the task file, or in the folder given."""
    path = tmp_path / "dnf.yaml"
    path.write_text(LABELS, encoding="utf-8")
    beside, elsewhere = load_task_file(path), load_task_file(path, labels=FOLDER)
    assert beside.label_files is not None
    assert elsewhere.label_files is not None
    assert beside.label_files.files == {"train": tmp_path / "a.parquet"}
    assert elsewhere.label_files.files == {"train": FOLDER / "a.parquet"}
    assert beside.label_files.key == ("driver",)
    assert beside.label_files.kind is Kind.BINARY
    assert beside.label_files.window_us == 30 * 86_400_000_000


def test_splits_beside_files_of_labels_need_no_intervals() -> None:
    """The files say what trains and measures; the task may still say until when the graph is read."""
    splits = _of(LABELS, splits={"frozen": "2010-01-01"}).splits
    assert splits.train == NEVER
    assert splits.frozen_us is not None


def test_a_column_is_a_target_too() -> None:
    """A table with its outcome says the same as a query for each row of it."""
    found = task_file_from_dict({"version": 1, "name": "fraud", "table": "payments", "outcome": "fraud"}, folder=FOLDER)
    assert found.target is not None
    assert found.target.event_level
    assert found.target.column == "fraud"


@pytest.mark.parametrize(
    ("text", "changes", "path"),
    [
        (QUERY, {"version": 2}, "version"),
        (QUERY, {"name": "my churn"}, "name"),
        (QUERY, {"query": None}, "query"),
        (QUERY, {"labels": {}}, "query"),
        (QUERY, {"query": 5}, "query"),
        (QUERY, {"extra": 1}, "task.extra"),
        (QUERY, {"anchors__step": "a week"}, "anchors.step"),
        (QUERY, {"anchors__first": "soon"}, "anchors.first"),
        (QUERY, {"anchors__before": 3}, "anchors.before"),
        (QUERY, {"anchors__after": "orders"}, "anchors.after"),
        (QUERY, {"splits__train": None}, "splits.train"),
        (LABELS, {"labels__kind": "ranking"}, "labels.kind"),
        (LABELS, {"labels__files": {}}, "labels.files.train"),
        (LABELS, {"labels__files": {"later": "b"}}, "labels.files.later"),
        (LABELS, {"labels__window": None}, "labels.window"),
        (LABELS, {"labels__key": 3}, "labels.key"),
        (LABELS, {"labels__time": None}, "labels.time"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(text: str, changes: dict[str, Any], path: str) -> None:
    """The error says which key is wrong."""
    with pytest.raises(TaskError) as error:
        _of(text, **changes)
    assert error.value.path == path

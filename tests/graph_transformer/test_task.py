from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from graph_transformer.errors import TaskError
from graph_transformer.finetune.question import written_task
from graph_transformer.target import Ranked
from graph_transformer.task import parse_task, task_from_dict
from temporal_graph.errors import SchemaError
from temporal_graph.schema import Schema, load_schema
from temporal_graph.time_rule import time_us_from_datetime

TASK = """
version: 1
name: fraud
table: transactions
outcome: fraud
kind: binary
entity: customer_id
splits:
  train: {start: 2018-07-11, end: 2018-07-18T12:00:00}
  validation: {start: 2018-07-25, end: 2018-08-01}
  refit: {start: 2018-07-25, end: 2018-08-01}
  test: {start: 2018-08-08, end: 2018-08-15}
sampling_plan:
  num_neighbors:
    - hop1: {default: 1}
    - hop2: {default: 8}
training: {steps: 5}
"""


def test_times_are_utc_microseconds() -> None:
    """Dates and date-times of the file are the instants they say, in UTC."""
    splits = parse_task(TASK).splits
    assert splits.train.start_us == time_us_from_datetime(datetime(2018, 7, 11, tzinfo=UTC))
    assert splits.train.end_us == time_us_from_datetime(datetime(2018, 7, 18, 12, tzinfo=UTC))


def test_labels_count_as_known_by_the_start_of_the_test() -> None:
    """Unless the file says otherwise, the finished model stands for the start of the test split."""
    splits = parse_task(TASK).splits
    assert splits.test is not None
    assert splits.trained_by_us == splits.test.start_us


def test_a_task_travels_as_plain_values() -> None:
    """A task read back from a checkpoint's values is the same."""
    task = parse_task(TASK + "exclude_known_since: 2018-07-25\n")
    assert task.exclude_known_since_us == time_us_from_datetime(datetime(2018, 7, 25, tzinfo=UTC))
    assert task_from_dict(task.to_dict()) == task
    assert task_from_dict(yaml.safe_load(yaml.safe_dump(task.to_dict()))) == task


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("version: 1", "version: 2", "version"),
        ("kind: binary", "kind: order", "kind"),
        ("table: transactions", "table: 3", "table"),
        ("end: 2018-08-15", "end: 2018-08-01", "splits.test.end"),
        ("start: 2018-08-08", "start: 2018-07-30", "splits.test.start"),
        ("start: 2018-07-11", "start: soon", "splits.train.start"),
        ("training: {steps: 5}", "training: {steps: 0}", "training.steps"),
        ("training: {steps: 5}", "training: {epochs: 5}", "training.epochs"),
        ("  validation: {start: 2018-07-25, end: 2018-08-01}\n", "", "splits.refit"),
        ("  refit: {start: 2018-07-25, end: 2018-08-01}", "  refit: {start: 2018-07-25, end: 2018-08-09}",
         "splits.refit.end"),
        ("training:", "known_by: 1\ntraining:", "task.known_by"),
    ],
)  # fmt: skip
def test_a_task_that_does_not_fit_is_refused_with_the_key(old: str, new: str, path: str) -> None:
    """Every entry that can not be followed is named."""
    assert old in TASK
    with pytest.raises(TaskError) as refused:
        parse_task(TASK.replace(old, new))
    assert refused.value.path == path


def test_a_task_is_checked_against_the_schema(payments_schema: Schema) -> None:
    """A task whose columns exist passes; one that predicts a number, or names no link, is refused."""
    parse_task(TASK).check(payments_schema)
    with pytest.raises(TaskError, match="marks as the table"):
        parse_task(TASK.replace("outcome: fraud", "outcome: amount")).check(payments_schema)
    with pytest.raises(SchemaError):
        parse_task(TASK.replace("entity: customer_id", "entity: card_id")).check(payments_schema)
    with pytest.raises(SchemaError):
        parse_task(TASK.replace("table: transactions", "table: payments")).check(payments_schema)


RANKING = """
version: 1
name: terminals
table: customers
level: entity
kind: ranking
horizon: 7d
ranked: {interactions: transactions, user_link: customer_id, item_link: terminal_id, items: terminals, top: 10}
splits:
  train: {start: 2018-07-11, end: 2018-07-18}
sampling_plan:
  num_neighbors:
    - hop1: {default: 8}
ranking: {}
"""


def test_a_ranking_travels_as_plain_values() -> None:
    """What is ranked, by which links, and how many, comes back from a checkpoint's values; other kinds have no such."""
    task = parse_task(RANKING)
    assert task.target.ranked == Ranked("transactions", "customer_id", "terminal_id", "terminals", top=10)
    assert task_from_dict(yaml.safe_load(yaml.safe_dump(task.to_dict()))) == task
    assert not {"ranked", "ranking"} & set(parse_task(TASK).to_dict())


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("level: entity", "level: event\noutcome: fraud", "level"),
        ("top: 10", "top: 0", "ranked.top"),
        ("items: terminals, ", "", "ranked.items"),
        ("top: 10", "top: 10, k: 3", "ranked.k"),
        ("kind: ranking", "kind: binary", "ranked"),
        ("ranking: {}", "ranking: {depth: 3}", "ranking.depth"),
    ],
)
def test_a_ranking_that_does_not_fit_is_refused_with_the_key(old: str, new: str, path: str) -> None:
    """A ranking is asked of entities, says all that it orders, and nothing else does."""
    assert old in RANKING
    with pytest.raises(TaskError) as refused:
        parse_task(RANKING.replace(old, new))
    assert refused.value.path == path


def test_a_ranking_is_checked_against_the_schema(payments_schema: Schema) -> None:
    """Its links tie interactions with a time to users and to items."""
    parse_task(RANKING).check(payments_schema)
    with pytest.raises(SchemaError):
        parse_task(RANKING.replace("item_link: terminal_id", "item_link: shop_id")).check(payments_schema)
    with pytest.raises(TaskError, match="item_link"):
        parse_task(RANKING.replace("item_link: terminal_id", "item_link: customer_id")).check(payments_schema)
    with pytest.raises(TaskError, match="user_link"):
        parse_task(RANKING.replace("user_link: customer_id", "user_link: terminal_id")).check(payments_schema)
    for name in ("tallies", "comparisons"):
        with pytest.raises(TaskError, match=f"model.{name}"):
            parse_task(f"{RANKING}model: {{{name}: true}}\n").check(payments_schema)


def test_the_example_fits_its_schema(repository: Path) -> None:
    """The task of the payments example is one for the schema beside it."""
    folder = repository / "examples" / "payments"
    schema = load_schema(folder / "schema.yaml")
    written_task(folder / "task.yaml", schema).check(schema)

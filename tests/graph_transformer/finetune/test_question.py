"""From what a person writes to a task: binding, labels, splits and plan."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph_transformer.errors import QueryError, TaskError
from graph_transformer.finetune.question import Question, ask, question_of, written_task
from graph_transformer.finetune.task_file import task_file_from_dict
from graph_transformer.splits import Interval
from graph_transformer.target import Kind
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema

DAY_US = 86_400_000_000
START_US = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
SHOP = """
version: 1
name: shop
tables:
  customers:
    primary_key: {customer_id: integer}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    columns:
      total: numerical
      returned: {kind: boolean, outcome: true}
    links:
      customer_id: customers
"""
CHURN = "PREDICT COUNT(orders.*, 0, 5, days) = 0 FOR EACH customers.customer_id"


@pytest.fixture(scope="module")
def shop() -> Schema:
    """Customers and their orders."""
    return parse_schema(SHOP)


def _question(schema: Schema, **values: Any) -> Question:
    return ask(task_file_from_dict({"version": 1, "name": "churn", **values}, folder=Path()), schema)


@pytest.fixture
def graph(shop: Schema) -> Iterator[TemporalGraph]:
    """Customer 1 orders every day for sixty days, customer 2 for thirty; every third order is returned a day later."""
    events = []
    for day in range(60):
        for customer in (1, 2) if day < 30 else (1,):
            key = day * 10 + customer
            events.append(
                _event(row_event_pb2.OPERATION_INSERT, key, START_US + day * DAY_US, customer, total=float(day))
            )
            if day % 3 == 0:
                known_us = START_US + (day + 1) * DAY_US
                events.append(_event(row_event_pb2.OPERATION_UPSERT, key, known_us, None, returned=True))
            else:
                events.append(
                    _event(row_event_pb2.OPERATION_UPSERT, key, START_US + (day + 1) * DAY_US, None, returned=False)
                )
    with TemporalGraph.create(_question(shop, query=CHURN).schema, arena_bytes=1 << 26) as made:
        made.apply(sorted(events, key=_time_of))
        yield made


def _time_of(event: bytes) -> int:
    return row_event_pb2.RowEvent.FromString(event).event_time_us


def _event(operation: int, key: int, time_us: int, customer: int | None, **cells: Any) -> bytes:
    event = row_event_pb2.RowEvent(table="orders", operation=operation, event_time_us=time_us, known_time_us=time_us)
    event.key.parts.add(integer=key)
    if customer is not None:
        event.cells.add(column="customer_id", integer=customer)
    for name, value in cells.items():
        if isinstance(value, bool):
            event.cells.add(column=name, boolean=value)
        else:
            event.cells.add(column=name, number=value)
    return event.SerializeToString()


def test_an_entity_question_brings_its_task_table(shop: Schema) -> None:
    """Past labels have a table of the task's name in the question's schema, linked to the entity."""
    question = _question(shop, query=CHURN)
    table = question.schema.table("churn")
    assert question.target.kind is Kind.BINARY
    assert not question.target.event_level
    assert question.target.task_table == "churn"
    assert [link.parent for link in table.links] == ["customers"]


def test_an_event_question_needs_no_table(shop: Schema) -> None:
    """What is known of rows is in their own table: the schema stays."""
    question = _question(shop, query="PREDICT orders.returned FOR EACH orders.order_id")
    assert question.target.event_level
    assert question.target.column == "returned"
    assert question.schema == shop


def test_labels_and_splits_come_from_the_graph(shop: Schema, graph: TemporalGraph) -> None:
    """A customer who stops is a positive from then on; every split's labels are known before the next one begins."""
    question, view = _question(shop, query=CHURN), graph.view()
    found = question.label_table(view)
    assert found is not None
    task, labels = question.task(view, found)
    examples = labels.known(None)
    stopped = examples.row == view.row_index("customers", [2])[0]
    late = examples.time_us >= START_US + 30 * DAY_US
    assert examples.label[stopped & late].all()
    assert not examples.label[~stopped].any()
    assert task.splits.validation is not None
    assert task.splits.test is not None
    train = examples.select(examples.time_us < task.splits.train.end_us)
    assert (train.visible_time_us <= task.splits.validation.start_us).all()
    assert task.splits.validation.end_us + 4 * DAY_US <= task.splits.test.start_us
    assert task.splits.refit == Interval(task.splits.train.start_us, task.splits.validation.end_us)
    assert task.query == CHURN


def test_a_long_history_is_asked_where_most_times_ask_nobody(
    shop: Schema, graph: TemporalGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest thousand hours hold few orders, so that older ones are asked too; unless they are enough, or many."""
    query = (
        "PREDICT COUNT(orders.*, 0, 1, hours) FOR EACH customers.customer_id WHERE COUNT(orders.*, -1, 0, hours) > 0"
    )
    question, view = _question(shop, query=query), graph.view()

    def first_us() -> int:
        found = question.label_table(view)
        assert found is not None
        return int(found[0].anchor_time_us.min())

    newest_us, hours_us = START_US + 59 * DAY_US, 1_000 * DAY_US // 24
    assert first_us() == START_US + DAY_US
    for name, least in (("LABELS_ENOUGH", 10), ("ASKED_MAX", 1_000)):
        with monkeypatch.context() as patch:
            patch.setattr(f"graph_transformer.finetune.question.{name}", least)
            assert newest_us - hours_us <= first_us() < newest_us - hours_us + DAY_US


def test_only_labels_known_by_a_time_are_given(shop: Schema, graph: TemporalGraph) -> None:
    """A label counts at the microsecond at which it is known and not before, of entities and of events."""
    view = graph.view()
    for question in (
        _question(shop, query=CHURN),
        _question(shop, query="PREDICT orders.returned FOR EACH orders.order_id"),
    ):
        _, labels = question.task(view, question.label_table(view))
        times_us = np.sort(labels.known(None).visible_time_us)
        known_us = int(times_us[len(times_us) // 2])
        before, then = labels.known(known_us - 1), labels.known(known_us)
        assert (then.visible_time_us <= known_us).all()
        assert len(before) < len(then)


def test_what_a_task_file_says_of_a_plan_lies_over_a_proposal(shop: Schema, graph: TemporalGraph) -> None:
    """Options that are written down win; the others are the proposal's."""
    question = _question(shop, query=CHURN, training={"steps": 7})
    task, _ = question.task(graph.view(), question.label_table(graph.view()))
    assert not question.has_plan
    over = question.over(task)
    assert over.training.steps == 7
    assert over.model == task.model


def test_labels_of_files_may_be_refitted_and_measured_on_a_frozen_graph(
    shop: Schema, graph: TemporalGraph, tmp_path: Path
) -> None:
    """The files give the splits, the task until when the graph may be read for the test, and what is fitted last.

    Without a word of the task all that trains and chooses is fitted last; splits that say nothing of it have no refit.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split, day in (("train", 10), ("validation", 25), ("test", 40)):
        times = pa.array([datetime.fromtimestamp(START_US / 1e6 + day * 86_400, UTC)] * 2)
        pq.write_table(pa.table({"who": [1, 2], "at": times, "y": [0, 1]}), tmp_path / f"{split}.parquet")
    values = {
        "version": 1,
        "name": "given",
        "labels": {
            "table": "customers",
            "kind": "binary",
            "key": "who",
            "time": "at",
            "value": "y",
            "window": "5d",
            "files": {split: f"{split}.parquet" for split in ("train", "validation", "test")},
        },
        "splits": {"frozen": "2024-01-30", "refit": {"start": "2024-01-01", "end": "2024-02-01"}},
    }
    question = ask(task_file_from_dict(values, folder=tmp_path), shop)
    table = question.label_table(graph.view())
    task, labels = question.task(graph.view(), table)
    assert task.splits.frozen_us == START_US + 29 * DAY_US
    assert task.splits.refit == Interval(START_US, START_US + 31 * DAY_US)
    assert task.splits.train.start_us == START_US + 10 * DAY_US
    assert labels.known(None).label.tolist() == [0.0, 1.0] * 3
    for said, refit in ((None, Interval(START_US + 10 * DAY_US, START_US + 25 * DAY_US + 1)), ({}, None)):
        asked = ask(task_file_from_dict({**values, "splits": said}, folder=tmp_path), shop)
        assert asked.task(graph.view(), table)[0].splits.refit == refit
    values["splits"] = {"refit": {"start": "2024-01-01", "end": "2024-03-01"}}
    with pytest.raises(TaskError) as refused:
        ask(task_file_from_dict(values, folder=tmp_path), shop).task(graph.view(), table)
    assert refused.value.path == "splits.refit.end"


def test_a_task_and_a_query_are_two_ways_to_ask_one_question(shop: Schema, tmp_path: Path) -> None:
    """One of the two is given; a query alone is a question too."""
    assert question_of(shop, query=CHURN).target.task_table == "question"
    with pytest.raises(TaskError):
        question_of(shop)
    with pytest.raises(TaskError):
        question_of(shop, query=CHURN, task=tmp_path / "task.yaml")


def test_a_query_that_does_not_fit_is_refused_where_it_fails(shop: Schema) -> None:
    """The error knows the place in the query and the nearest valid name."""
    with pytest.raises(QueryError, match="customers"):
        _question(shop, query="PREDICT COUNT(orders.*, 0, 5, days) FOR EACH costumers.customer_id")


def test_a_ranking_is_a_question_of_the_schema_as_it_is(shop: Schema) -> None:
    """What users did is in the graph: no task table; the options of the ranking are the file's."""
    question = _question(
        shop, query="PREDICT LIST_DISTINCT(orders.customer_id, 0, 5, days) RANK TOP 3 FOR EACH customers.customer_id"
    )
    assert question.schema == shop
    assert question.target.kind is Kind.RANKING
    assert question.target.ranked is not None
    assert question.target.ranked.items == "customers"


NEXT = "PREDICT LIST_DISTINCT(orders.customer_id, 0, 5, days) RANK TOP 3 FOR EACH customers.customer_id"


def test_a_ranking_is_asked_at_anchors_or_before_each_row(shop: Schema, graph: TemporalGraph) -> None:
    """At fixed times all that order in the window, before each order just who orders; no window of splits overlaps."""
    view = graph.view()
    fixed, splits = _question(shop, query=NEXT).ranking(view)
    assert len(np.unique(fixed.time_us)) < 60
    assert (np.diff(np.unique(fixed.time_us)) == DAY_US).all()
    before, found = _question(shop, query=NEXT, anchors={"before": "orders"}).ranking(view)
    assert set((before.time_us + 1).tolist()) == {START_US + day * DAY_US for day in range(55)}
    assert (before.known_time_us == before.time_us + 5 * DAY_US).all()
    for each, questions in ((splits, fixed), (found, before)):
        assert each.validation is not None
        train = questions.interval(each.train)
        assert len(train)
        assert (train.known_time_us <= each.validation.start_us).all()


def test_only_a_ranking_is_asked_before_rows(shop: Schema) -> None:
    """Labels of other kinds are of anchors; a ranking is always a query's."""
    with pytest.raises(TaskError) as refused:
        _question(shop, query=CHURN, anchors={"before": "orders"})
    assert refused.value.path == "anchors.before"
    ranked = {
        "interactions": "orders",
        "user_link": "customer_id",
        "item_link": "customer_id",
        "items": "customers",
        "top": 3,
    }
    with pytest.raises(TaskError) as refused:
        _question(shop, table="customers", level="entity", kind="ranking", ranked=ranked)
    assert refused.value.path == "query"


def test_a_task_that_is_decided_needs_no_graph(shop: Schema, tmp_path: Path) -> None:
    """With splits written down the task is there at once; without them they are asked for."""
    path = tmp_path / "task.yaml"
    path.write_text("version: 1\nname: churn\nquery: " + CHURN + "\n", encoding="utf-8")
    with pytest.raises(TaskError, match="splits"):
        written_task(path, shop)
    path.write_text(path.read_text() + "splits: {train: {start: 2024-01-01, end: 2024-02-01}}\n", encoding="utf-8")
    assert written_task(path, shop).name == "churn"

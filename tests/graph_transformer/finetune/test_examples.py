from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graph_transformer.errors import NotEnoughExamples
from graph_transformer.finetune.examples import (
    Examples,
    OutcomeLabels,
    TableLabels,
    both_kinds,
    examples_of,
    labeled_rows,
    linked_rows,
    without_known_entities,
)
from graph_transformer.target import Kind, Target
from graph_transformer.task import Interval, Task
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema
from temporal_graph.view import GraphView, Outcomes

DAY_US = 86_400_000_000
NOON_US = 1_534_000_000_000_000

PARCELS = """
version: 1
name: parcels
tables:
  parcels:
    primary_key: {parcel_id: integer}
    time_column: sent
    columns:
      {column}: {kind: KIND, outcome: true}
"""


def told(key: int, column: str, value: Any, event_us: int, known_us: int, *, insert: bool) -> bytes:
    """A parcel, or what became known of one, as a serialized event."""
    operation = row_event_pb2.OPERATION_INSERT if insert else row_event_pb2.OPERATION_UPSERT
    event = row_event_pb2.RowEvent(table="parcels", operation=operation, event_time_us=event_us, known_time_us=known_us)
    event.key.parts.add(integer=key)
    if isinstance(value, float):
        event.cells.add(column=column, number=value)
    elif value is not None:
        event.cells.add(column=column, text=value)
    return event.SerializeToString()


def parcels(kind: str, column: str, values: list[Any]) -> TemporalGraph:
    """Parcels a day apart whose outcome becomes known two days later; None never does."""
    schema = parse_schema(PARCELS.replace("{column}", column).replace("KIND", kind))
    graph = TemporalGraph.create(schema, arena_bytes=16 << 20)
    sent = [NOON_US + DAY_US * key for key in range(len(values))]
    events = [told(key, column, None, at, at, insert=True) for key, at in enumerate(sent)]
    events += [
        told(key, column, value, at + 2 * DAY_US, at + 2 * DAY_US, insert=False)
        for key, (at, value) in enumerate(zip(sent, values, strict=True))
        if value is not None
    ]
    assert graph.apply(events).rejected == ()
    return graph


@pytest.fixture
def view_of() -> Iterator[Any]:
    """Builds a graph of parcels and gives its view; closes it afterwards."""
    open_graphs: list[TemporalGraph] = []

    def build(kind: str, column: str, values: list[Any]) -> GraphView:
        open_graphs.append(parcels(kind, column, values))
        return open_graphs[-1].view()

    yield build
    for graph in open_graphs:
        graph.close()


def test_labels_are_those_known_by_then(world: Any, task: Task) -> None:
    """A report that becomes known at t is an example at t and none one microsecond before."""
    by = int(world.event_time_us[3000]) + DAY_US
    known = labeled_rows(world.view, task.target, known_by_us=by)
    assert int(known.visible_time_us.max()) == by
    before = labeled_rows(world.view, task.target, known_by_us=by - 1)
    assert len(before) < len(known) < len(labeled_rows(world.view, task.target))


def test_labels_are_the_truth_and_in_the_order_of_time(world: Any, task: Task) -> None:
    """Every row has its own label and event time; the question is asked one microsecond before the event."""
    found = labeled_rows(world.view, task.target)
    keys = np.array(world.view.keys("transactions", found.row))
    assert np.array_equal(found.label, world.fraud[keys].astype(np.float32))
    assert np.array_equal(found.time_us, world.event_time_us[keys])
    assert np.array_equal(found.cutoff_time_us, found.time_us - 1)
    assert bool((np.diff(found.time_us) >= 0).all())


def test_classes_are_places_in_the_targets_list(view_of: Any) -> None:
    """A categorical outcome becomes its class's index; one that is no class of the target is no example."""
    view = view_of("categorical", "state", ["lost", "late", None, "late", "burnt"])
    target = Target(Kind.MULTICLASS, "parcels", event_level=True, column="state", classes=("late", "lost"))
    found = labeled_rows(view, target)
    assert found.label.tolist() == [1.0, 0.0, 0.0]
    assert found.label.dtype == np.float32
    assert view.keys("parcels", found.row) == [0, 1, 3]


class Told:
    """What a view would say of a multicategorical outcome; schemas do not allow one yet."""

    texts = (None, "wet", "open\x1fwet", "burnt")

    def outcomes(self, table: str, column: str) -> Outcomes:
        """Four rows, the third without a report."""
        row = np.array([0, 1, 3])
        return Outcomes(row, NOON_US + row, np.array([1.0, 2.0, 3.0]), NOON_US + row + DAY_US)

    def strings(self, table: str, column: str, codes: np.ndarray[Any, Any]) -> list[str | None]:
        """Elements joined as the graph joins them."""
        return [self.texts[code] for code in codes.tolist()]


def test_several_classes_are_a_row_of_marks() -> None:
    """A multicategorical outcome marks each of its classes; none and unknown ones mark nothing."""
    target = Target(Kind.MULTILABEL, "parcels", event_level=True, column="faults", classes=("open", "wet"))
    found = labeled_rows(Told(), target)  # type: ignore[arg-type]  # all that is asked of a view
    assert found.label.tolist() == [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    assert found.row.tolist() == [0, 1, 3]
    assert found.select(np.array([1])).label.tolist() == [[1.0, 1.0]]


def test_numbers_are_themselves(view_of: Any) -> None:
    """A numerical outcome is the label, from the moment it is known and not before."""
    view = view_of("numerical", "damage", [2.5, None, -7.0])
    target = Target(Kind.REGRESSION, "parcels", event_level=True, column="damage")
    assert labeled_rows(view, target).label.tolist() == [2.5, -7.0]
    known_us = NOON_US + 2 * DAY_US
    assert labeled_rows(view, target, known_by_us=known_us).label.tolist() == [2.5]
    assert len(labeled_rows(view, target, known_by_us=known_us - 1)) == 0


def test_of_several_reports_the_one_known_last_counts(world: Any, view_of: Any) -> None:
    """A correction replaces the first report from the moment it is known."""
    graph = parcels("numerical", "damage", [1.0])
    try:
        at = NOON_US + 5 * DAY_US
        assert graph.apply([told(0, "damage", 4.0, at, at, insert=False)]).rejected == ()
        target = Target(Kind.REGRESSION, "parcels", event_level=True, column="damage")
        assert labeled_rows(graph.view(), target).label.tolist() == [4.0]
        assert labeled_rows(graph.view(), target, known_by_us=at - 1).label.tolist() == [1.0]
    finally:
        graph.close()


def test_an_interval_holds_its_start_and_not_its_end(world: Any, task: Task) -> None:
    """A row at the start is in, one at the end is not."""
    start, end = int(world.event_time_us[2000]), int(world.event_time_us[3000])
    labels = OutcomeLabels(world.view, task.target)
    times = examples_of(labels, task.target, Interval(start, end), known_by_us=None).time_us
    assert int(times.min()) == start
    assert int(times.max()) < end


def test_a_table_of_labels_tells_what_is_known_by_then() -> None:
    """A computed label is an example from the end of its window and not one microsecond before."""
    times = np.arange(4, dtype=np.int64) * 10
    label = np.array([0, 1, 0, 1], dtype=np.float32)
    labels = TableLabels(Examples(np.arange(4), times, times, times + 30, label))
    assert labels.known(40).row.tolist() == [0, 1]
    assert labels.known(39).row.tolist() == [0]
    assert labels.known(None).row.tolist() == [0, 1, 2, 3]


def test_labels_of_one_kind_are_refused(world: Any, task: Task) -> None:
    """Without any label, or with those of one class only, there is nothing to train on; equal numbers are allowed."""
    with pytest.raises(NotEnoughExamples, match=r"from 1970-01-01 00:00 until .*: no labels"):
        examples_of(world.labels(task), task.target, Interval(0, 10), known_by_us=None)
    found = labeled_rows(world.view, task.target)
    only = found.select(found.label > 0.5)
    with pytest.raises(NotEnoughExamples, match="both kinds"):
        both_kinds(task.target, only, task.splits.train)
    number = replace(task.target, kind=Kind.REGRESSION)
    assert both_kinds(number, only, task.splits.train) is only


def test_links_lead_to_the_parent(world: Any, task: Task) -> None:
    """The linked row of a payment is its customer's."""
    found = labeled_rows(world.view, task.target).select(np.arange(100, 200))
    rows = linked_rows(world.view, "transactions", "customer_id", found.row, found.cutoff_time_us)
    keys = np.array(world.view.keys("transactions", found.row))
    assert world.view.keys("customers", rows) == world.customer[keys].tolist()


def test_known_entities_leave_the_test(world: Any, task: Task) -> None:
    """A customer's payments leave from the day after a fraud of it was known; frauds before `since` do not count."""
    since = int(world.event_time_us[0]) + 18 * DAY_US
    interval = Interval(since + DAY_US, since + 5 * DAY_US)
    examples = examples_of(world.labels(task), task.target, interval, known_by_us=None)
    left = without_known_entities(world.view, task, examples, since_us=since)
    keys = np.array(world.view.keys("transactions", examples.row))
    stays = []
    for key in keys.tolist():
        day_start = world.event_time_us[key] // DAY_US * DAY_US
        same = (world.customer == world.customer[key]) & world.fraud & (world.event_time_us >= since)
        stays.append(not (same & (world.event_time_us + DAY_US < day_start)).any())
    assert left.row.tolist() == examples.row[np.array(stays)].tolist()
    assert 0 < len(left) < len(examples)
    assert without_known_entities(world.view, replace(task, entity=None), examples, since_us=since) is examples

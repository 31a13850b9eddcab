"""Labels that are columns of the row itself."""

from __future__ import annotations

from collections.abc import Callable

from graph_transformer.finetune.examples import labeled_rows
from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.query.event_labels import event_labels
from graph_transformer.target import Kind, Target
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import ReferenceEvent

Make = Callable[..., ReferenceEvent]
Bind = Callable[[str], BoundQuery]
Grown = Callable[..., TemporalGraph]
FRAUD = "PREDICT orders.fraud FOR EACH orders.order_id"


def test_the_last_report_counts_from_its_own_time(grown: Grown, bound: Bind, order: Make) -> None:
    """A report taken back is the label only while it stands; a report repeated does not delay it."""
    events = [
        order(1, 10, price=1.0),
        order(1, 20, operation="upsert", fraud=True),
        order(1, 30, operation="upsert", fraud=True, price=2.0),
        order(1, 40, operation="upsert", fraud=False),
    ]
    with grown(events) as graph:
        found = {t: event_labels(graph.view(), bound(FRAUD), known_by_us=t) for t in (19, 20, 39, 40)}
    assert [(each.values.data.tolist(), each.known_time_us.tolist()) for each in found.values()] == [
        ([], []), ([1.0], [20]), ([1.0], [20]), ([0.0], [40]),
    ]  # fmt: skip


def test_deleted_rows_and_rows_without_time_have_no_label(grown: Grown, bound: Bind, order: Make) -> None:
    """A deletion takes the label away from its own time on."""
    with grown([order(1, 10, fraud=True), order(1, 20, operation="delete")]) as graph:
        assert len(event_labels(graph.view(), bound(FRAUD)).row) == 0
        assert len(event_labels(graph.view(), bound(FRAUD), known_by_us=19).row) == 1


def test_a_condition_on_the_column_is_the_label(grown: Grown, bound: Bind, order: Make) -> None:
    """True or false by the condition; where a null leaves it open there is no label."""
    query = bound("PREDICT orders.price > 5 FOR EACH orders.order_id")
    with grown([order(1, 10, price=6.0), order(2, 11, price=5.0), order(3, 12)]) as graph:
        found = event_labels(graph.view(), query)
        assert graph.view().keys("orders", found.row) == [1, 2]
    assert found.values.data.tolist() == [1.0, 0.0]


def test_labels_are_those_of_the_outcomes(grown: Grown, bound: Bind, order: Make) -> None:
    """Rows, times and labels are what `labeled_rows` finds among the outcomes of the graph."""
    events = [order(key, 10 + key % 3, fraud=key % 2 == 0) for key in range(1, 6)]
    events += [order(9, 11), order(9, 40, operation="upsert", fraud=True)]
    target = Target(Kind.BINARY, "orders", event_level=True, column="fraud")
    with grown(events) as graph:
        view = graph.view()
        for known_by_us in (10, 39, 40, None):
            found, outcomes = event_labels(view, bound(FRAUD), known_by_us=known_by_us), labeled_rows(
                view, target, known_by_us=known_by_us
            )  # fmt: skip
            assert found.row.tolist() == outcomes.row.tolist()
            assert found.time_us.tolist() == outcomes.time_us.tolist()
            assert found.known_time_us.tolist() == outcomes.visible_time_us.tolist()
            assert found.values.data.tolist() == outcomes.label.tolist()

from collections.abc import Iterator

import numpy as np
import pytest

from graph_transformer.ranking.changes import ItemChanges, children_plan, newest_states, tables_of
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema

from .store import at, event, item, opened, order

CATALOG = """
version: 1
name: catalog
tables:
  groups: {primary_key: {group: string}, columns: {label: text}}
  kinds: {primary_key: {kind: string}, links: {group: groups}}
  items: {primary_key: {item_id: integer}, time_column: at, links: {kind: kinds, base: items}}
  reviews: {primary_key: {review_id: integer}, links: {item: items}}
"""


@pytest.fixture
def graph() -> Iterator[TemporalGraph]:
    """Three items, two of one maker."""
    with opened([item("car", 0, maker="acme"), item("doll", 0, maker="acme"), item("kite", 0, maker="blow")]) as made:
        yield made


def taken(changes: ItemChanges, most: int = 99) -> list[tuple[int, int]]:
    """Everything that waits after a refresh, as pairs."""
    changes.refresh()
    row, time_us = changes.take(most)
    return list(zip(row.tolist(), time_us.tolist(), strict=True))


def test_an_item_that_changed_waits_once(graph: TemporalGraph) -> None:
    """From the time on at which it shows something else; what was there before, and orders, are no change."""
    changes = ItemChanges(graph.view(), "items")
    assert taken(changes) == []

    graph.apply([item("doll", 30, price=2.0), order(1, 1, "car", 40)])

    assert taken(changes) == [(1, at(30))]
    assert taken(changes) == []


def test_the_first_that_came_are_taken_first(graph: TemporalGraph) -> None:
    """A few at a time: the others wait, and a change that comes meanwhile stands behind them, an item in one place."""
    changes = ItemChanges(graph.view(), "items")
    for name, second in (("kite", 10), ("doll", 20), ("car", 30)):
        graph.apply([item(name, second, price=1.0)])
        changes.refresh()
    graph.apply([item("kite", 40, price=2.0)])

    assert taken(changes, 1) == [(2, at(10))]
    assert len(changes) == 3
    graph.apply([item("kite", 50, price=3.0)])
    assert taken(changes) == [(2, at(40)), (2, at(50)), (1, at(20)), (0, at(30))]


def test_of_an_item_that_never_rests_two_states_wait(graph: TemporalGraph) -> None:
    """However often it changes between two lists: the one that holds, and the one that may be known to come."""
    changes = ItemChanges(graph.view(), "items")
    for second in range(1, 200):
        graph.apply([item("car", second, price=float(second))])
        changes.refresh()

    assert len(changes) == 2
    assert taken(changes) == [(0, at(198)), (0, at(199))]


def test_a_row_that_items_point_to_changes_all_of_them(graph: TemporalGraph) -> None:
    """Those that point to it now: not one that pointed elsewhere before, and not one that left."""
    changes = ItemChanges(graph.view(), "items")
    graph.apply([item("kite", 10, maker="acme"), item("car", 20, maker="blow")])
    assert sorted(taken(changes)) == [(0, at(20)), (2, at(10))]

    graph.apply([event("makers", "acme", at(50))])

    assert sorted(taken(changes)) == [(1, at(50)), (2, at(50))]


def test_a_row_that_no_item_points_to_changes_none(graph: TemporalGraph) -> None:
    """It came by itself, or its items left."""
    changes = ItemChanges(graph.view(), "items")
    graph.apply([event("makers", "nobody", at(50))])
    assert taken(changes) == []


def test_what_the_graph_has_waits_where_it_is_still_to_come() -> None:
    """States that become visible after the given time only; one that comes later waits whatever its time."""
    with opened([item("car", 0), item("doll", 0), item("doll", 60, price=3.0)]) as graph:
        changes = ItemChanges(graph.view(), "items", after_us=at(20))
        graph.apply([item("car", 10, price=1.0)])
        assert taken(changes) == [(1, at(60)), (0, at(10))]
        assert taken(ItemChanges(graph.view(), "items")) == []


def test_a_group_two_links_away_changes_its_items() -> None:
    """An item's vector is made of the rows two links away; of those that point to it, nothing."""
    schema = parse_schema(CATALOG)
    assert tables_of(schema, "items") == ("items", "kinds", "groups")

    def row(table: str, key: int | str, time_us: int, **cells: int | str) -> bytes:
        return event(table, key, time_us, **cells)

    with TemporalGraph.create(schema, arena_bytes=64 << 20) as graph:
        graph.apply([row("kinds", "toy", 1, group="play"), row("kinds", "pen", 1, group="work")], backfill=True)
        graph.apply([row("items", 1, 2, kind="toy"), row("items", 2, 3, kind="pen"), row("items", 3, 4, base=2)])
        changes = ItemChanges(graph.view(), "items")

        graph.apply([row("groups", "play", 9, label="fun"), row("reviews", 5, 9, item=2)])
        assert taken(changes) == [(0, 9)]
        graph.apply([row("kinds", "pen", 10, group="play")])
        assert sorted(taken(changes)) == [(1, 10), (2, 10)]  # the second, and the third by way of it
        graph.apply([row("items", 2, 11)])
        assert sorted(taken(changes)) == [(1, 11), (2, 11)]


def test_a_table_that_no_item_reaches_has_no_plan() -> None:
    """Only rows that a vector is made of lead to items."""
    schema = parse_schema(CATALOG)
    assert children_plan(schema, "items", "reviews") is None
    plan = children_plan(schema, "items", "groups")
    assert plan is not None
    assert plan.hops == 2
    assert children_plan(schema, "kinds", "kinds") is None


def test_states_are_kept_by_item() -> None:
    """The latest two of each, each once, ascending, items in the order of their first."""
    row, time_us = newest_states(np.array([7, 3, 7, 7, 3, 7]), np.array([5, 9, 1, 8, 9, 5]))
    assert list(zip(row.tolist(), time_us.tolist(), strict=True)) == [(7, 5), (7, 8), (3, 9)]
    assert [len(each) for each in newest_states(row[:0], time_us[:0])] == [0, 0]


def test_an_erased_item_does_not_wait(graph: TemporalGraph) -> None:
    """Nothing is left of it that could be read."""
    changes = ItemChanges(graph.view(), "items")
    graph.apply([item("car", 10, price=1.0), event("items", "car", at(20), pb.OPERATION_ERASE)])
    assert taken(changes) == []

from collections.abc import Iterator

import numpy as np
import pytest

from graph_transformer.ranking.catalog import Catalog
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.target import Ranked
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.time_rule import TIME_MAX_US
from temporal_graph.versions import RowTail

from .store import at, event, item, opened, order, orders

RANKED = Ranked("orders", "user_id", "item_id", "items", 3)


@pytest.fixture
def graph() -> Iterator[TemporalGraph]:
    """A car that was taken twice, and a doll that is named before it arrives."""
    with opened([item("car", 0), *orders([(1, "car", 10), (2, "car", 20), (1, "doll", 30)])]) as made:
        yield made


def test_what_arrives_is_taken_in_once(graph: TemporalGraph) -> None:
    """Each refresh brings what is new since the last: items, counts, popularity; nothing new brings nothing."""
    view = graph.view()
    catalog = Catalog(view, RANKED, RankingConfig(half_life="1d"))
    car, doll = view.row_index("items", ["car", "doll"]).tolist()

    assert catalog.refresh().tolist() == [car]
    assert catalog.refresh().tolist() == []
    assert catalog.first_us(np.array([car, doll])).tolist() == [at(0), TIME_MAX_US]
    assert catalog.bare(np.array([car, doll])).tolist() == [False, True]

    graph.apply([item("doll", 40), order(9, 2, "doll", 50)])

    assert catalog.refresh().tolist() == [doll]
    assert catalog.first_us(np.array([doll])).tolist() == [at(40)]
    assert catalog.newest.newest(at(60), 5).tolist() == [doll, car]
    assert catalog.newest.newest(at(40) - 1, 5).tolist() == [car]
    assert catalog.visited.counts(np.array([car, doll, doll]), np.array([at(60), at(60), at(49)])).tolist() == [2, 2, 1]
    assert len(catalog) == 2


def test_an_item_that_was_erased_is_as_one_that_never_came(graph: TemporalGraph) -> None:
    """Nothing that lists items by the catalog finds it, in the refresh after it went; the others stay."""
    view = graph.view()
    catalog = Catalog(view, RANKED, RankingConfig(half_life="1d"))
    car, doll = view.row_index("items", ["car", "doll"]).tolist()
    catalog.refresh()
    graph.apply([event("items", "car", at(60), pb.OPERATION_ERASE), item("doll", 70)])
    catalog.refresh()
    assert view.keys("items", np.array([car, doll])) == [None, "doll"]
    assert view.erased_rows("items").tolist() == [car]
    assert catalog.first_us(np.array([car, doll])).tolist() == [TIME_MAX_US, at(70)]


def test_a_graph_that_grows_while_it_is_read(graph: TemporalGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is popular is always an item that the catalog knows, even if it came between the two looks at the graph."""
    view = graph.view()
    catalog = Catalog(view, RANKED, RankingConfig(half_life="1d"))
    catalog.refresh()
    looked = view.rows_from

    def looked_and_grown(table: str, first: int) -> RowTail:
        found = looked(table, first)
        graph.apply([item(f"new {table}", 40), order(100 + len(table), 2, f"new {table}", 50)])
        return found

    monkeypatch.setattr(view, "rows_from", looked_and_grown)
    graph.apply([order(9, 2, "car", 45)])
    catalog.refresh()

    popular, _ = catalog.popularity.top(at(10**6), 10)
    assert popular.max() < len(catalog)

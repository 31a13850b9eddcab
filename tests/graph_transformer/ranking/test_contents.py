from collections.abc import Iterator

import numpy as np
import pytest

from graph_transformer.ranking.contents import ItemContents
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.view import GraphView

from .store import at, event, item, opened

NAMES = ["car", "train", "doll", "bare"]


@pytest.fixture
def graph() -> Iterator[TemporalGraph]:
    """A car and a train that share things, a doll that was painted and is gone, and an item that others only name."""
    events = [
        item("car", 0, color="red", tags=["toy", "wheels"], title="A fast Car", maker="ida"),
        item("train", 0, color="red", tags=["toy", "rails"], title="a slow train", maker="ida"),
        item("doll", 0, color="blue", tags=["toy"], title="Doll"),
        item("doll", 10, color="red"),
        event("items", "doll", at(20), pb.OPERATION_DELETE),
        event("orders", 1, at(1), user_id=1, item_id="bare"),
    ]
    with opened(events) as made:
        yield made


def rows(view: GraphView, *names: str) -> np.ndarray:
    return view.row_index("items", list(names))


def times(count: int, seconds: float) -> np.ndarray:
    return np.full(count, at(seconds))


def test_what_items_share_is_their_cosine(graph: TemporalGraph) -> None:
    """An item is equal to itself, nearer to one that shares color, maker and a rare word than to one that does not."""
    view = graph.view()
    contents = ItemContents(view, "items")
    row = rows(view, "car", "train", "doll")
    contents.take(row, times(3, 0))
    read = contents.read(row, times(3, 5))

    found = contents.cosines(read, read, at(5))

    assert np.allclose(np.diag(found), 1.0)
    assert np.allclose(found, found.T)
    assert found[0, 1] > 0.2 > found[0, 2] >= 0.0


def test_cells_are_those_of_the_cut_off(graph: TemporalGraph) -> None:
    """The doll is blue until the microsecond it is painted, then as red as the car; deleted it is not there."""
    view = graph.view()
    contents = ItemContents(view, "items")
    doll = rows(view, "doll", "doll", "doll")
    read = contents.read(doll, np.array([at(10) - 1, at(10), at(20)]))
    car = contents.read(rows(view, "car"), times(1, 5))
    colors = set(car.token.tolist())

    assert read.there.tolist() == [True, True, False]
    before, after = (set(read.select(np.array([one])).token.tolist()) for one in (0, 1))
    assert len(after & colors) == len(before & colors) + 1
    assert read.select(np.array([2])).token.tolist() == []


def test_a_row_that_others_name_is_there_only_without_time(graph: TemporalGraph) -> None:
    """A named row of a table with time is not there before it is inserted."""
    view = graph.view()
    contents = ItemContents(view, "items")

    read = contents.read(rows(view, "bare"), times(1, 5), np.array([True]))

    assert read.there.tolist() == [False]


def test_rarity_counts_what_had_arrived(graph: TemporalGraph) -> None:
    """A token of all is worth nothing, a rare one more; as of a time before an item came it does not count."""
    view = graph.view()
    contents = ItemContents(view, "items")
    car, doll = rows(view, "car"), rows(view, "train")
    contents.take(car, times(1, 0))
    contents.take(doll, times(1, 7))
    token = contents.read(car, times(1, 5)).token

    early, exact, late = (contents.rarity(token, at(seconds)) for seconds in (6.9, 7, 99))

    assert np.allclose(early, 0.0)
    assert np.allclose(exact, late)
    assert (late > 0).any()
    assert (late == 0).any()

import time

import numpy as np

from graph_transformer.ranking.index import PAST_MIN, ItemIndex
from temporal_graph.time_rule import TIME_MAX_US


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def filled() -> ItemIndex:
    """Four items on a line, each there from its own time on."""
    index = ItemIndex(2)
    vectors = np.array([[1, 0], [2, 0], [3, 0], [3, 0]], dtype=np.float32)
    index.put(ints(7, 3, 9, 5), vectors, ints(0, 0, 50, 0))
    return index


def test_the_largest_products_come_first() -> None:
    """Best first, ties by row, as many as each question wants and no more than there are."""
    user = np.array([[1, 0], [-1, 0], [1, 0]], dtype=np.float32)

    found = filled().nearest(user, ints(99, 99, 99), ints(2, 9, 0))

    assert found.row[:2].tolist() == [5, 9]
    assert found.row[2:].tolist() == [7, 3, 5, 9]
    assert found.offset.tolist() == [0, 2, 6, 6]


def test_items_of_the_future_are_not_near() -> None:
    """An item is found from the microsecond on at which it was first visible."""
    user = np.ones((2, 2), dtype=np.float32)

    found = filled().nearest(user, ints(49, 50), ints(4, 4))

    assert 9 not in found.row[: found.offset[1]].tolist()
    assert 9 in found.row[found.offset[1] :].tolist()


def test_a_replaced_item_stands_once() -> None:
    """A new vector of a known row takes the place of the old one."""
    index = filled()
    index.put(ints(7), np.array([[9, 0]], dtype=np.float32), ints(0))

    found = index.nearest(np.array([[1, 0]], dtype=np.float32), ints(99), ints(9))

    assert len(index) == 4
    assert found.row.tolist() == [7, 5, 9, 3]


def test_an_empty_index_finds_nothing() -> None:
    """Before any item there are no neighbors, for any number of questions."""
    assert ItemIndex(4).nearest(np.zeros((2, 4), dtype=np.float32), ints(1, 1), ints(5, 5)).row.tolist() == []


def test_adding_an_item_takes_less_than_a_millisecond() -> None:
    """Beside twenty thousand others, with a search after each; the median, as the machine has other work too."""
    random = np.random.default_rng(0)
    index = ItemIndex(64)
    index.put(np.arange(20_000), random.normal(size=(20_000, 64)).astype(np.float32), np.zeros(20_000, np.int64))
    took = []
    for row in range(20_000, 20_050):
        vector = random.normal(size=(1, 64)).astype(np.float32)
        start = time.perf_counter()
        index.put(ints(row), vector, ints(0))
        took.append(time.perf_counter() - start)
        assert row in index.nearest(vector, ints(1), ints(10)).row.tolist()
    assert np.median(took) < 1e-3


def test_an_item_that_changed_is_found_by_what_it_was_before() -> None:
    """From the microsecond of the change on by its new vector, until then by the old one; always once."""
    index = filled()
    index.change(ints(7, 3), np.array([[5, 0], [0, 0]], dtype=np.float32), ints(40, 45))
    user = np.array([[1, 0]], dtype=np.float32)

    def near(cutoff_us: int) -> list[int]:
        return index.nearest(user, ints(cutoff_us), ints(9)).row.tolist()

    assert near(39) == [5, 3, 7]
    assert near(40) == near(44) == [7, 5, 3]
    assert near(45) == [7, 5, 3]
    assert near(50) == [7, 5, 9, 3]
    assert index.nearest(user, ints(44), ints(2)).row.tolist() == [7, 5]
    assert len(index) == 4
    assert index.read_us(ints(7, 9, 3, 8, 99)).tolist() == [40, 50, 45, TIME_MAX_US, TIME_MAX_US]


def test_a_change_of_what_was_read_already_leaves_no_past() -> None:
    """News of an earlier time replaces the vector as of when its cells were read: since when it is there stays."""
    index = ItemIndex(2)
    index.put(ints(7), np.array([[1, 0]], dtype=np.float32), ints(10), ints(60))
    index.change(ints(7), np.array([[3, 0]], dtype=np.float32), ints(60))
    user = np.array([[1, 0]], dtype=np.float32)

    assert index.nearest(user, ints(9, 10)[:1], ints(1)).row.tolist() == []
    assert index.nearest(user, ints(10), ints(1)).row.tolist() == [7]
    assert index.read_us(ints(7)).tolist() == [60]
    assert len(index._past._row) == 0


def test_an_index_whose_items_change_for_ever_stops_growing() -> None:
    """It keeps so many vectors of the past and no more; an item whose past was given up is found by no later vector."""
    index = ItemIndex(2)
    index.put(np.arange(100), np.zeros((100, 2), dtype=np.float32), np.zeros(100, np.int64))
    sizes = []
    for time_us in range(1, 201):
        index.change(np.arange(100), np.full((100, 2), time_us, dtype=np.float32), np.full(100, time_us))
        sizes.append(len(index._past._row))
    user = np.ones((1, 2), dtype=np.float32)

    assert sizes[-1] == sizes[60] == PAST_MIN
    assert len(index) == 100
    assert len(index.nearest(user, ints(200), ints(200)).row) == 100
    assert len(index.nearest(user, ints(199), ints(200)).row) == 100
    assert len(index.nearest(user, ints(0), ints(200)).row) == 0
    kept = [len(index.nearest(user, ints(time_us), ints(200)).row) for time_us in range(201)]
    assert kept == sorted(kept)
    assert sum(kept[:-1]) == PAST_MIN

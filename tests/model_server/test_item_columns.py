from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_server.item_columns import ItemColumns
from temporal_graph.errors import SchemaError


def rows_of(shop: Any, *keys: int) -> np.ndarray:
    """The rows of items by key."""
    return shop.graph.view().row_index("items", list(keys))


def test_categories_are_those_of_each_item(shop: Any) -> None:
    """One of a categorical column, any number of a multicategorical one, none of a null; an item may come twice."""
    shop.apply([shop.item(30, shop.start_us, color=None)])
    columns = ItemColumns(shop.graph.view(), "items")
    at_us = shop.start_us + 40 * shop.day_us
    item = rows_of(shop, 1, 30, 5, 1)
    assert columns.categories("color", item, at_us) == [{"green"}, set(), {"blue"}, {"green"}]
    assert columns.categories("tags", rows_of(shop, 0, 7, 2), at_us) == [set(), {"a", "b", "c"}, {"b"}]
    assert columns.categories("tags", np.array([], dtype=np.int64), at_us) == []


def test_categories_are_those_of_the_cut_off(shop: Any) -> None:
    """A change counts from its own microsecond on."""
    change_us = shop.start_us + 40 * shop.day_us
    shop.apply([shop.item(1, change_us, color="gold")])
    columns = ItemColumns(shop.graph.view(), "items")
    assert columns.categories("color", rows_of(shop, 1), change_us - 1) == [{"green"}]
    assert columns.categories("color", rows_of(shop, 1), change_us) == [{"gold"}]


def test_an_item_that_nobody_described_has_no_categories(shop: Any) -> None:
    """A bare row, known from a click alone, has no cells."""
    shop.apply([shop.click(1, 99, shop.start_us)])
    columns = ItemColumns(shop.graph.view(), "items")
    assert columns.categories("color", rows_of(shop, 99, 2), shop.start_us + 40 * shop.day_us) == [set(), {"blue"}]


def test_a_column_that_is_not_there_is_refused(shop: Any) -> None:
    """By name."""
    columns = ItemColumns(shop.graph.view(), "items")
    with pytest.raises(SchemaError, match="size"):
        columns.categories("size", rows_of(shop, 1), shop.start_us)

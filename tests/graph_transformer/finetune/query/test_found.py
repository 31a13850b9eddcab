"""Labels of several anchors joined, and encoded as numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.query.found import Found, encoded, joined
from graph_transformer.finetune.query.values import Values

Bind = Callable[[str], BoundQuery]

TEXTS = [None, "b", "a", "c\x1fa"]


def found(codes: list[int], *, time_us: int = 0, is_set: bool = False, lists: list[int] | None = None) -> Found:
    """Labels of the rows 0, 1, ... at one time; `lists` are the lengths of their lists of codes."""
    rows = len(codes) if lists is None else len(lists)
    values = Values(np.array(codes[:rows]), np.zeros(rows, dtype=bool), texts=TEXTS, is_set=is_set)
    offset = None if lists is None else np.concatenate([[0], np.cumsum(lists)])
    item = None if lists is None else np.array(codes)
    return Found(np.arange(rows), np.full(rows, time_us), np.full(rows, time_us + 5), values, offset, item)


def test_parts_are_joined_in_their_order() -> None:
    """Columns one after the other; lists keep their items."""
    both = joined([found([1, 2, 1], lists=[2, 1]), found([3], time_us=9, lists=[1])])
    assert (both.row.tolist(), both.time_us.tolist()) == ([0, 1, 0], [0, 0, 9])
    assert both.offset is not None
    assert both.item is not None
    assert (both.offset.tolist(), both.item.tolist()) == ([0, 2, 3, 4], [1, 2, 1, 3])


def test_classes_are_texts_in_order(bound: Bind) -> None:
    """Those that occur; of given ones the index, and labels of no class go."""
    query = bound("PREDICT LAST(orders.status, 0, 1) FOR EACH users.user_id")
    table = encoded(query, "t", found([1, 2, 1]), None)
    assert (table.target.classes, table.label.tolist()) == (("a", "b"), [1, 0, 1])
    table = encoded(query, "t", found([1, 2, 1]), ["b"])
    assert (table.target.classes, table.row.tolist(), table.label.tolist()) == (("b",), [0, 2], [0, 0])


@pytest.mark.parametrize("lists", [None, [2, 1]])
def test_several_classes_at_once(bound: Bind, lists: list[int] | None) -> None:
    """Elements of a set, or of all sets of a list."""
    query = bound("PREDICT LIST_DISTINCT(orders.labels, 0, 1) FOR EACH users.user_id")
    table = encoded(query, "t", found([1, 3, 2], is_set=True, lists=lists), None)
    assert table.target.classes == ("a", "b", "c")
    expected = [[0, 1, 0], [1, 0, 1], [1, 0, 0]] if lists is None else [[1, 1, 1], [1, 0, 0]]
    assert table.label.tolist() == expected


def test_what_stood_at_first_has_the_same_classes(bound: Bind) -> None:
    """A class that only occurs among first labels is one of both."""
    from dataclasses import replace

    query = bound("PREDICT LAST(orders.status, 0, 1) FOR EACH users.user_id")
    table = encoded(query, "t", replace(found([2]), first=found([1])), None)
    assert table.first is not None
    assert table.target == table.first.target
    assert (table.label.tolist(), table.first.label.tolist()) == ([0], [1])

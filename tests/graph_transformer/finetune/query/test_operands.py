"""Which comparisons and functions fit which columns."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graph_transformer.errors import QueryError
from graph_transformer.finetune.query import BoundQuery

Bind = Callable[[str], BoundQuery]

FIT = [
    "orders.price >= 1.5",
    "orders.price IN (1, 2.5)",
    "orders.paid = TRUE",
    "orders.paid != 0",
    "orders.status LIKE 'a%'",
    "orders.note NOT CONTAINS 'x'",
    "orders.labels CONTAINS 'x'",
    "orders.due < '2024-01-31 10:00'",
    "orders.at >= 2024-01-31",
    "orders.item_id IN ('a', 'b')",
    "orders.user_id IS NULL",
    "orders.order_id > 5",
]
UNFIT = [
    "orders.price LIKE 'a'",
    "orders.price = TRUE",
    "orders.paid > 0",
    "orders.paid = 2",
    "orders.labels = 'x'",
    "orders.due = 'soon'",
    "orders.item_id > 'a'",
    "orders.item_id = 3",
    "orders.user_id = 1.5",
    "orders.order_id LIKE '1%'",
    "orders.place IS NULL",
    "orders.status = 3",
]


@pytest.mark.parametrize("condition", FIT)
def test_comparisons_that_fit(bound: Bind, condition: str) -> None:
    """Each kind of column has its operators and constants."""
    assert bound(f"PREDICT COUNT(orders.* WHERE {condition}, 0, 1) FOR EACH users.user_id")


@pytest.mark.parametrize("condition", UNFIT)
def test_comparisons_that_do_not(bound: Bind, condition: str) -> None:
    """What could only be false, or an accident of codes, is refused with what would fit."""
    with pytest.raises(QueryError, match="expected"):
        bound(f"PREDICT COUNT(orders.* WHERE {condition}, 0, 1) FOR EACH users.user_id")


@pytest.mark.parametrize("function", ["SUM", "AVG", "MIN", "MAX", "LIST_DISTINCT", "FIRST"])
def test_functions_on_an_embedding(bound: Bind, function: str) -> None:
    """Nothing but its presence can be aggregated."""
    assert bound("PREDICT COUNT(orders.place, 0, 1) FOR EACH users.user_id")
    with pytest.raises(QueryError):
        bound(f"PREDICT {function}(orders.place, 0, 1) > 1 FOR EACH users.user_id")


def test_aggregated_values_compare_as_what_they_are(bound: Bind) -> None:
    """LAST of a text is a text, MAX of a time a time, COUNT_DISTINCT a number, of a link LAST a key."""
    for condition in (
        "LAST(orders.status, -9, 0) = 'sent'",
        "MAX(orders.due, -9, 0) > 2024-01-01",
        "COUNT_DISTINCT(orders.status, -9, 0) > 2",
        "LAST(orders.item_id, -9, 0) = 'a'",
    ):
        assert bound(f"PREDICT COUNT(orders.*, 0, 1) FOR EACH users.user_id WHERE {condition}")
    with pytest.raises(QueryError, match="a text beside LAST"):
        bound("PREDICT COUNT(orders.*, 0, 1) FOR EACH users.user_id WHERE LAST(orders.status, -9, 0) = 3")

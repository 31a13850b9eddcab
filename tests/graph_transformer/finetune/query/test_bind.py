"""What a query means under a schema, and why some mean nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graph_transformer.errors import QueryError
from graph_transformer.finetune.query import BoundQuery
from graph_transformer.target import Kind

Bind = Callable[[str], BoundQuery]
USERS = "FOR EACH users.user_id"

KINDS = [
    (f"PREDICT COUNT(orders.*, 0, 30) = 0 {USERS}", Kind.BINARY, False),
    (f"PREDICT NOT (SUM(orders.price, 0, 3) > 1 OR COUNT(orders.*, 0, 9) = 0) {USERS}", Kind.BINARY, False),
    (f"PREDICT COUNT(orders.*, 0, 30) {USERS}", Kind.REGRESSION, False),
    (f"PREDICT COUNT_DISTINCT(orders.item_id, 0, 30) {USERS}", Kind.REGRESSION, False),
    (f"PREDICT LAST(orders.price, 0, 30) {USERS}", Kind.REGRESSION, False),
    (f"PREDICT MAX(orders.paid, 0, 30) {USERS}", Kind.BINARY, False),
    (f"PREDICT FIRST(orders.status, 0, 30) {USERS}", Kind.MULTICLASS, False),
    (f"PREDICT LIST_DISTINCT(orders.status, 0, 30) CLASSIFY {USERS}", Kind.MULTILABEL, False),
    (f"PREDICT LIST_DISTINCT(orders.labels, 0, 30) {USERS}", Kind.MULTILABEL, False),
    (f"PREDICT LIST_DISTINCT(orders.item_id, 0, 30) RANK TOP 5 {USERS}", Kind.RANKING, False),
    (f"PREDICT SUM(orders.price, 0, 1, months) FORECAST 3 TIMEFRAMES {USERS}", Kind.FORECAST, False),
    (f"PREDICT users.vip {USERS}", Kind.BINARY, False),
    ("PREDICT orders.fraud FOR EACH orders.order_id", Kind.BINARY, True),
    ("PREDICT orders.price FOR EACH orders.*", Kind.REGRESSION, True),
    ("PREDICT orders.price > 5 OR orders.price IS NULL FOR EACH orders.order_id", Kind.BINARY, True),
    ("PREDICT orders.status FOR EACH orders.order_id", Kind.MULTICLASS, True),
    ("PREDICT transfers.amount FOR EACH transfers.*", Kind.REGRESSION, True),
    ("PREDICT COUNT(orders.*, 0, 1) FOR EACH cards.card_id WHERE cards.issued < 2024-01-01", Kind.REGRESSION, False),
]


@pytest.mark.parametrize(("text", "kind", "event_level"), KINDS)
def test_the_kind_follows_from_the_target(bound: Bind, text: str, kind: Kind, event_level: bool) -> None:
    """A condition is binary, a number a regression, classes are classes; a column of a row with a time is its event."""
    found = bound(text)
    assert (found.kind, found.event_level) == (kind, event_level)


ERRORS = [
    # names
    ("PREDICT COUNT(ordrs.*, 0, 1) FOR EACH users.user_id", "ordrs", "a table of the schema", "orders"),
    (f"PREDICT SUM(orders.prise, 0, 1) {USERS}", "prise", "a column of orders", "price"),
    ("PREDICT COUNT(orders.*, 0, 1) FOR EACH users.age", "age", "the key of users (user_id)", None),
    ("PREDICT COUNT(orders.*, 0, 1) FOR EACH transfers.x", "x", "the key of transfers (it has none: write *)", None),
    (f"PREDICT COUNT(orders.* WHERE users.age > 1, 0, 1) {USERS}", "users", "a column of orders in inner WHERE", None),
    (
        f"PREDICT COUNT(orders.*, 0, 1) {USERS} WHERE orders.price > 1",
        "orders.price",
        "a column of users in WHERE",
        None,
    ),
    (f"PREDICT COUNT(orders.* WHERE orders.reported > 2024-01-01, 0, 1) {USERS}", "reported", "no clock", None),
    # links
    (f"PREDICT COUNT(users.*, 0, 1) {USERS}", "users.*", "a table with a link to users", None),
    (f"PREDICT COUNT(transfers.*, 0, 1) {USERS}", "transfers.*", "VIA from_id or VIA to_id", None),
    (f"PREDICT COUNT(transfers.* VIA too_id, 0, 1) {USERS}", "too_id", "a link of transfers to users", "to_id"),
    # windows
    (f"PREDICT COUNT(orders.*) {USERS}", "COUNT", "a window", None),
    (f"PREDICT COUNT(orders.*, -1, 1) {USERS}", "-1", "from 0 or later", None),
    (f"PREDICT COUNT(orders.*, -INF, 1) {USERS}", "-INF", "from 0 or later", None),
    (f"PREDICT COUNT(orders.*, 2, 2) {USERS}", "2, 2", "ends after it starts", None),
    (f"PREDICT COUNT(orders.*, 0, 1) {USERS} WHERE COUNT(orders.*, -1, 1) > 0", "-1", "ends at 0 or before", None),
    (f"PREDICT COUNT(orders.*, 0, 1) {USERS} ASSUMING COUNT(orders.*, -1, 0) > 0", "-1", "from 0 or later", None),
    (f"PREDICT COUNT(facts.*, 0, 1) {USERS}", "0, 1) FOR", "no window: table facts has no time column", None),
    (f"PREDICT COUNT(orders.*, 0, 9999999, days) {USERS}", "0, 9999999", "within 100000 days", None),
    # types
    (f"PREDICT SUM(orders.status, 0, 1) {USERS}", "status", "a numerical or boolean column in SUM", None),
    (f"PREDICT MIN(orders.due, 0, 1) {USERS}", "due", "a numerical, boolean or categorical column", None),
    (f"PREDICT SUM(orders.*, 0, 1) {USERS}", "*, 0", "only COUNT takes *", None),
    (f"PREDICT LIST_DISTINCT(orders.price, 0, 1) {USERS}", "price", "a link, or a categorical", None),
    (f"PREDICT COUNT(orders.* WHERE orders.status > 'a', 0, 1) {USERS}", "status", "orders.status (categorical)", None),
    (f"PREDICT COUNT(orders.* WHERE orders.price = 'a', 0, 1) {USERS}", "'a'", "a number beside orders.price", None),
    (f"PREDICT COUNT(orders.* WHERE orders.due > 3, 0, 1) {USERS}", "3", "a date beside orders.due", None),
    (
        f"PREDICT COUNT(orders.* WHERE COUNT(orders.*, 0, 1) > 0, 0, 1) {USERS}",
        "COUNT(orders.*, 0",
        "no aggregation",
        None,
    ),
    (f"PREDICT SUM(orders.price, 0, 1) IS NULL {USERS}", "SUM", "SUM of nothing is 0", None),
    ("PREDICT orders.note FOR EACH orders.order_id", "note", "boolean, numerical or categorical", None),
    ("PREDICT orders.labels FOR EACH orders.order_id", "labels", "boolean, numerical or categorical", None),
    ("PREDICT orders.user_id FOR EACH orders.order_id", "user_id", "a typed column", None),
    # meaning
    (f"PREDICT users.age {USERS}", "users.age", "always visible", None),
    (f"PREDICT users.age > 3 AND COUNT(orders.*, 0, 1) > 0 {USERS}", "users.age", "aggregations only", None),
    ("PREDICT orders.fraud = TRUE AND orders.price > 1 FOR EACH orders.order_id", "price", "one column", None),
    ("PREDICT orders.price FOR EACH orders.order_id WHERE orders.fraud = TRUE", "fraud", "known before the row", None),
    ("PREDICT orders.price FOR EACH orders.order_id ASSUMING orders.paid = TRUE", "ASSUMING", "no ASSUMING", None),
    (f"PREDICT LIST_DISTINCT(orders.item_id, 0, 1) {USERS}", "LIST", "RANK TOP k", None),
    (f"PREDICT COUNT(orders.*, 0, 1) RANK TOP 3 {USERS}", "PREDICT", "LIST_DISTINCT or classes", None),
    (f"PREDICT COUNT(orders.*, 0, 1) CLASSIFY {USERS}", "COUNT", "classes where CLASSIFY", None),
    (f"PREDICT COUNT(orders.*, 0, 1) > 0 FORECAST 2 TIMEFRAMES {USERS}", "PREDICT", "a numerical aggregation", None),
    (f"PREDICT COUNT(orders.*, 1, 2) FORECAST 2 TIMEFRAMES {USERS}", "1, 2", "a window from 0", None),
    (f"PREDICT COUNT(orders.*, 0, 2) FORECAST 999 TIMEFRAMES {USERS}", "PREDICT", "at most 366", None),
    (f"PREDICT LIST_DISTINCT(orders.item_id, 0, 1) RANK TOP 9999 {USERS}", "PREDICT", "at most RANK TOP 1000", None),
]


def test_a_table_that_is_none_is_answered_with_those_there_are(bound: Bind) -> None:
    """Where no name is near, the names say what can be asked about."""
    with pytest.raises(QueryError, match=r"a table of the schema \(.*orders.*users.*\), found 'households'"):
        bound("PREDICT COUNT(orders.*, 0, 1) FOR EACH households.id")


@pytest.mark.parametrize(("text", "place", "expected", "nearest"), ERRORS)
def test_what_means_nothing_is_refused_at_its_place(
    bound: Bind, text: str, place: str, expected: str, nearest: str | None
) -> None:
    """The error stands at the first character of what is wrong, says what was expected, and the nearest name."""
    with pytest.raises(QueryError) as caught:
        bound(text)
    assert expected in caught.value.expected
    assert text[caught.value.column - 1 :].startswith(place)
    assert caught.value.nearest == nearest

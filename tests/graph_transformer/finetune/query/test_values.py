"""Comparisons of values with constants, nulls included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graph_transformer.finetune.query.parse import parse_query
from graph_transformer.finetune.query.syntax import Comparison
from graph_transformer.finetune.query.values import Truth, Values, compare, truth_of

TEXTS = Values(np.array([1, 2, 3, 0]), np.array([False, False, False, True]), texts=[None, "red", "reed", "50%"])
SETS = Values(np.array([1, 2, 0]), np.array([False, False, True]), texts=[None, "a\x1fb", "ab"], is_set=True)
NUMBERS = Values(np.array([1.0, 2.5, np.nan]), np.array([False, False, True]))
TIMES = Values(np.array([0, 1, -(2**63)]), np.array([False, False, True]))


class Keys:
    """A graph whose users 7 and 9 are the rows 0 and 1."""

    def row_index(self, _: str, keys: Any) -> np.ndarray:
        """The row of each key."""
        return np.array([{7: 0, 9: 1}.get(key, -1) for key in keys])


def judged(values: Values, condition: str) -> list[bool | None]:
    """What a condition on the column x says of each value: None for neither."""
    query = parse_query(f"PREDICT t.x FOR EACH t.id WHERE {condition}")
    assert query.where is not None

    def one(comparison: Comparison) -> Truth:
        return compare(values, comparison.operator, comparison.values, Keys())  # type: ignore[arg-type]

    truth = truth_of(query.where, one)
    assert not (truth.true & truth.false).any()
    return [True if true else False if false else None for true, false in zip(truth.true, truth.false, strict=True)]


@pytest.mark.parametrize(
    ("values", "condition", "expected"),
    [
        (TEXTS, "t.x = 'red'", [True, False, False, None]),
        (TEXTS, "t.x != 'red'", [False, True, True, None]),
        (TEXTS, "NOT t.x = 'red'", [False, True, True, None]),
        (TEXTS, "t.x IN ('red', 'blue')", [True, False, False, None]),
        (TEXTS, "t.x LIKE 're_'", [True, False, False, None]),
        (TEXTS, "t.x LIKE 'r%d'", [True, True, False, None]),
        (TEXTS, "t.x NOT LIKE '%'", [False, False, False, None]),
        (TEXTS, "t.x CONTAINS 'ee'", [False, True, False, None]),
        (TEXTS, "t.x ENDS WITH '%'", [False, False, True, None]),
        (TEXTS, "t.x NOT STARTS WITH 're'", [False, False, True, None]),
        (TEXTS, "t.x IS NULL", [False, False, False, True]),
        (TEXTS, "t.x IS NULL OR t.x = 'red'", [True, False, False, True]),
        (TEXTS, "t.x = 'red' AND t.x IS NOT NULL", [True, False, False, False]),
        (TEXTS, "NOT (t.x = 'red' OR t.x = 'reed')", [False, False, True, None]),
        (SETS, "t.x CONTAINS 'a'", [True, False, None]),
        (SETS, "t.x NOT CONTAINS 'a'", [False, True, None]),
        (NUMBERS, "t.x > 1", [False, True, None]),
        (NUMBERS, "t.x <= 1", [True, False, None]),
        (NUMBERS, "t.x IN (2.5, 7)", [False, True, None]),
        (TIMES, "t.x >= 1970-01-01T00:00:00.000001", [False, True, None]),
        (TIMES, "t.x < '1970-01-01 00:00:00.000001'", [True, False, None]),
    ],
)
def test_every_operator_on_its_values(values: Values, condition: str, expected: list[bool | None]) -> None:
    """As SQL: of a null comes neither true nor false, through NOT, AND and OR."""
    assert judged(values, condition) == expected


def test_links_compare_by_key() -> None:
    """A key that no row has equals nothing, a null link least of all."""
    values = Values(np.array([0, 1, -1]), np.array([False, False, True]), parent="users")
    assert judged(values, "t.x = 9") == [False, True, None]
    assert judged(values, "t.x != 8") == [True, True, None]
    assert judged(values, "t.x IN (7, 8)") == [True, False, None]


def test_values_are_taken_at_places() -> None:
    """-1 is null, also where there are no values at all."""
    found = NUMBERS.taken(np.array([1, -1]))
    assert (found.data[0], found.null.tolist()) == (2.5, [False, True])
    assert Values(np.zeros(0), np.zeros(0, dtype=bool)).taken(np.array([-1])).null.tolist() == [True]


def test_no_texts_at_all() -> None:
    """A column without any value is null everywhere, whatever is asked."""
    values = Values(np.zeros(2, dtype=np.int32), np.ones(2, dtype=bool), texts=[])
    assert judged(values, "t.x = 'a'") == [None, None]

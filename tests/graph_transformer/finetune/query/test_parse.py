"""The language, as people write it, and what they are told where they err."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from graph_transformer.errors import QueryError
from graph_transformer.finetune.query import parse_query
from graph_transformer.finetune.query.parse import QUERY_LENGTH_MAX
from graph_transformer.finetune.query.syntax import Aggregation, Column, Comparison, Operator, Unit, Window


def test_keywords_in_any_case_and_lines() -> None:
    """A query over several lines, in lower case, with a comment, is the same as in one line of capitals."""
    written = """
    predict sum(orders.price where orders.status = 'sent', 0, 30)  -- thirty days
      for each users.user_id
      where count(orders.*, -inf, 0, day) > 0 and not users.country in ('de', 'fr')
      assuming count(orders.*, 0, 7) > 0
    """
    canonical = (
        "PREDICT SUM(orders.price WHERE orders.status = 'sent', 0, 30, days) FOR EACH users.user_id "
        "WHERE COUNT(orders.*, -INF, 0, days) > 0 AND NOT users.country IN ('de', 'fr') "
        "ASSUMING COUNT(orders.*, 0, 7, days) > 0"
    )
    assert str(parse_query(written)) == canonical


@pytest.mark.parametrize(
    ("written", "operator", "values"),
    [
        ("== 3", Operator.EQUAL, (3,)),
        ("<> -3.5", Operator.UNEQUAL, (-3.5,)),
        (">= 2024-02-29", Operator.AT_LEAST, (datetime(2024, 2, 29, tzinfo=UTC),)),
        ("< 2024-01-01T10:00:00.000001+02:00", Operator.LESS, (datetime(2024, 1, 1, 8, 0, 0, 1, tzinfo=UTC),)),
        ("= TRUE", Operator.EQUAL, (True,)),
        ('= "it"', Operator.EQUAL, ("it",)),
        ("IS IN (1, 2)", Operator.IN, (1, 2)),
        ("IS NOT IN (1)", Operator.NOT_IN, (1,)),
        ("NOT IN ('a')", Operator.NOT_IN, ("a",)),
        ("IS NULL", Operator.NULL, ()),
        ("is not null", Operator.NOT_NULL, ()),
        ("NOT LIKE 'a%'", Operator.NOT_LIKE, ("a%",)),
        ("CONTAINS 'x'", Operator.CONTAINS, ("x",)),
        ("STARTS WITH 'x'", Operator.STARTS, ("x",)),
        ("NOT ENDS WITH 'x'", Operator.NOT_ENDS, ("x",)),
    ],
)
def test_every_comparison(written: str, operator: Operator, values: tuple[object, ...]) -> None:
    """Each operator with its constants."""
    assert parse_query(f"PREDICT a.b {written} FOR EACH a.id").target == Comparison(Column("a", "b"), operator, values)


@pytest.mark.parametrize("unit", [*Unit, *(each.removesuffix("s") for each in Unit)])
def test_every_unit(unit: str) -> None:
    """Singular and plural; days where none is said."""
    target = parse_query(f"PREDICT COUNT(a.*, 0, 2, {unit}) FOR EACH b.id").target
    assert isinstance(target, Aggregation)
    assert target.window == Window(0, 2, Unit(unit if unit.endswith("s") else unit + "s"))


def test_answers_and_forecasts() -> None:
    """RANK TOP, CLASSIFY and FORECAST stand after the target."""
    assert parse_query("PREDICT LIST_DISTINCT(a.b, 0, 7) RANK TOP 12 FOR EACH c.id").top == 12
    assert parse_query("PREDICT LIST_DISTINCT(a.b, 0, 7) CLASSIFY FOR EACH c.id").classify
    assert parse_query("PREDICT SUM(a.b, 0, 7) FORECAST 4 TIMEFRAMES FOR EACH c.id").timeframes == 4


def test_keywords_are_names_after_a_dot() -> None:
    """A column may be called rank, or first; a table too where no function could stand."""
    query = parse_query("PREDICT results.rank FOR EACH each.where")
    assert (query.target, query.entity) == (Column("results", "rank"), Column("each", "where"))


ERRORS = [
    ("PREDCIT a.b FOR EACH a.b", 1, 1, "PREDICT", "'PREDCIT'", "PREDICT"),
    ("PREDICT a.b\nFOR EAHC a.b", 2, 5, "EACH", "'EAHC'", "EACH"),
    ("PREDICT SUMM(a.b, 0, 1) FOR EACH a.b", 1, 9, "SUM", "'SUMM'", "SUM"),
    ("PREDICT SUM(a.b, 0, 1, dais) FOR EACH a.b", 1, 24, "a unit such as days", "'dais'", "DAYS"),
    ("PREDICT SUM(a.b, 0, 1, dayz) FOR EACH a.b", 1, 24, "a unit such as days", "'dayz'", "DAY"),
    ("PREDICTS a.b FOR EACH a.b", 1, 1, "PREDICT", "'PREDICTS'", "PREDICT"),
    ("PREDICT a.b FORR EACH a.b", 1, 13, "FOR", "'FORR'", "FOR"),
    ("PREDICT a.b FOR EACH a.b WHEREVER a.b = 1", 1, 26, "WHERE", "'WHEREVER'", "WHERE"),
    ("PREDICT SUM(a.b, 0, 1)", 1, 23, "FOR", "the end", None),
    ("PREDICT a.b = ? FOR EACH a.b", 1, 15, "a constant", "'?'", None),
    ("PREDICT a.b = 2024-02-30 FOR EACH a.b", 1, 15, "a date of the calendar", "2024-02-30", None),
    ("PREDICT a.b = 99999999999999999999 FOR EACH a.b", 1, 15, "a whole number of at most", "9999", None),
    ("PREDICT a.b = 1e999 FOR EACH a.b", 1, 15, "a number", "1e999", None),
    ("PREDICT SUM(a.b, 0, 1) FORECAST 0 TIMEFRAMES FOR EACH a.b", 1, 33, "1 or more", "0", None),
    ("", 1, 1, "PREDICT", "the end", None),
    ("PREDICT 'a FOR EACH a.b", 1, 9, "a name", '"\'"', None),
]


@pytest.mark.parametrize(("text", "line", "column", "expected", "found", "nearest"), ERRORS)
def test_errors_name_the_place(
    text: str, line: int, column: int, expected: str, found: str, nearest: str | None
) -> None:
    """Line, column, what was expected, what stands there, and the nearest word; the mark stands under the place."""
    with pytest.raises(QueryError) as caught:
        parse_query(text)
    error = caught.value
    assert (error.line, error.column, error.nearest) == (line, column, nearest)
    assert expected in error.expected
    assert found in error.found
    _, shown, mark = str(error).split("\n")
    assert shown == "  " + text.split("\n")[line - 1]
    assert mark == " " * (column + 1) + "^"


def test_a_query_has_a_length() -> None:
    """More than a person writes is refused before it is parsed."""
    with pytest.raises(QueryError, match="characters"):
        parse_query("PREDICT " + " " * QUERY_LENGTH_MAX)

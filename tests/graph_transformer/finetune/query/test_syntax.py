"""The canonical text of a query parses back to an equal query."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_transformer.finetune.query import Query, parse_query
from graph_transformer.finetune.query.syntax import (
    KEYWORDS,
    Aggregation,
    And,
    Column,
    Comparison,
    Function,
    Not,
    Operator,
    Or,
    Unit,
    Window,
    comparisons_of,
    constant_text,
    operands_of,
    quoted_name,
)

NAMES = st.one_of(
    st.sampled_from(["orders", "price", "count", "IN", "top", 'a"b', "two words", "ü", "x.y", "*a", ""]),
    st.text(min_size=1, max_size=6),
)
COLUMNS = st.builds(Column, NAMES.filter(lambda name: name != "*"), NAMES.filter(lambda name: name != "*"))
CONSTANTS = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)).map(lambda at: at.replace(tzinfo=UTC)),
)
ONE = [each for each in Operator if each not in (Operator.IN, Operator.NOT_IN, Operator.NULL, Operator.NOT_NULL)]
ANY_CONSTANT = [Operator.EQUAL, Operator.UNEQUAL, Operator.LESS, Operator.AT_MOST, Operator.MORE, Operator.AT_LEAST]
TEXT_ONLY = [each for each in ONE if each not in ANY_CONSTANT]
WINDOWS = st.builds(Window, st.none() | st.integers(-400, 400), st.integers(-400, 400), st.sampled_from(Unit))


def comparisons(operands: st.SearchStrategy) -> st.SearchStrategy:
    """Comparisons of these operands, of every operator with constants it can be written with."""
    return st.one_of(
        st.builds(Comparison, operands, st.sampled_from(ANY_CONSTANT), st.tuples(CONSTANTS)),
        st.builds(Comparison, operands, st.sampled_from(TEXT_ONLY), st.tuples(st.text(max_size=5))),
        st.builds(
            Comparison,
            operands,
            st.sampled_from([Operator.IN, Operator.NOT_IN]),
            st.lists(CONSTANTS, min_size=1, max_size=3).map(tuple),
        ),
        st.builds(Comparison, operands, st.sampled_from([Operator.NULL, Operator.NOT_NULL])),
    )


def conditions(operands: st.SearchStrategy) -> st.SearchStrategy:
    """Conditions of any depth over these operands."""
    return st.recursive(
        comparisons(operands),
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
            st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        ),
        max_leaves=5,
    )


STARS = st.builds(Column, NAMES.filter(lambda name: name != "*"), st.just("*"))
AGGREGATIONS = st.builds(
    Aggregation,
    st.sampled_from(Function),
    COLUMNS | STARS,
    st.none() | WINDOWS,
    st.none() | conditions(COLUMNS),
    st.none() | NAMES.filter(lambda name: name != "*"),
)
ANSWERS = st.sampled_from([{}, {"top": 3}, {"classify": True}])


@st.composite
def queries(draw: st.DrawFn) -> Query:
    """A query of any form, whether or not it would mean something."""
    operands = COLUMNS | AGGREGATIONS
    return Query(
        target=draw(operands | conditions(operands)),
        entity=draw(COLUMNS | STARS),
        where=draw(st.none() | conditions(operands)),
        assuming=draw(st.none() | conditions(operands)),
        timeframes=draw(st.none() | st.integers(1, 9)),
        **draw(ANSWERS),
    )


@settings(max_examples=100, deadline=None)
@given(queries())
def test_the_canonical_text_parses_back(query: Query) -> None:
    """Whatever names, constants and brackets: `parse_query(str(query)) == query`, and its text is the same again."""
    again = parse_query(str(query))
    assert again == query
    assert str(again) == str(query)


@pytest.mark.parametrize("keyword", sorted(KEYWORDS))
def test_a_keyword_can_be_a_name_in_quotes(keyword: str) -> None:
    """Every keyword, in any case, is quoted where it is a name."""
    assert quoted_name(keyword.lower()) == f'"{keyword.lower()}"'


def test_constants_as_a_query_writes_them() -> None:
    """Texts double their quotes, a midnight is a date, a time keeps its microseconds in UTC."""
    assert constant_text("it's") == "'it''s'"
    assert constant_text(datetime(2024, 1, 31, tzinfo=UTC)) == "2024-01-31"
    assert constant_text(datetime(2024, 1, 31, 5, 0, 0, 1, tzinfo=UTC)) == "2024-01-31T05:00:00.000001"
    assert (constant_text(True), constant_text(-3), constant_text(0.5)) == ("TRUE", "-3", "0.5")


def test_comparisons_and_operands_in_the_order_written() -> None:
    """What a condition rests on, from left to right, through every NOT, AND and OR."""
    query = parse_query("PREDICT NOT (a.x = 1 OR a.y IS NULL) AND COUNT(b.*, 0, 1) > 0 FOR EACH a.id")
    assert not isinstance(query.target, Column | Aggregation)
    assert [str(each.operand) for each in comparisons_of(query.target)] == ["a.x", "a.y", "COUNT(b.*, 0, 1, days)"]
    assert [str(each) for each in operands_of(query.target)] == ["a.x", "a.y", "COUNT(b.*, 0, 1, days)"]

"""Which comparisons and functions fit which kinds of columns."""

from __future__ import annotations

from datetime import datetime

from graph_transformer.errors import QueryError
from graph_transformer.finetune.query.bound import BoundColumn, Role
from graph_transformer.finetune.query.syntax import Aggregation, Column, Comparison, Function, Operator, Query, Scalar
from graph_transformer.splits import parse_time
from temporal_graph.schema import ColumnKind, KeyType, Schema

_NULLS = {Operator.NULL, Operator.NOT_NULL}
_EQUALITY = {Operator.EQUAL, Operator.UNEQUAL, Operator.IN, Operator.NOT_IN}
_ORDER = {Operator.LESS, Operator.AT_MOST, Operator.MORE, Operator.AT_LEAST}
_TEXTS = {
    Operator.LIKE,
    Operator.NOT_LIKE,
    Operator.CONTAINS,
    Operator.NOT_CONTAINS,
    Operator.STARTS,
    Operator.NOT_STARTS,
    Operator.ENDS,
    Operator.NOT_ENDS,
}
_OPERATORS = {
    ColumnKind.NUMERICAL: _NULLS | _EQUALITY | _ORDER,
    ColumnKind.TIMESTAMP: _NULLS | _EQUALITY | _ORDER,
    ColumnKind.BOOLEAN: _NULLS | _EQUALITY,
    ColumnKind.CATEGORICAL: _NULLS | _EQUALITY | _TEXTS,
    ColumnKind.TEXT: _NULLS | _EQUALITY | _TEXTS,
    ColumnKind.MULTICATEGORICAL: _NULLS | {Operator.CONTAINS, Operator.NOT_CONTAINS},
    ColumnKind.EMBEDDING: set[Operator](),
}
_CODED = (ColumnKind.CATEGORICAL, ColumnKind.MULTICATEGORICAL, ColumnKind.TEXT)
_NUMBERS = (ColumnKind.NUMERICAL, ColumnKind.BOOLEAN)


def check_comparison(query: Query, comparison: Comparison, bound: BoundColumn, schema: Schema) -> None:
    """Raise QueryError where an operator or a constant does not fit the column."""
    operators, constant = _expected(bound, schema)
    operand = comparison.operand
    at = operand.name_at if isinstance(operand, Column) else operand.at
    if comparison.operator not in operators:
        what = f"{operand} ({bound.kind.value if bound.kind is not None else bound.role.value})"
        allowed = ", ".join(sorted(operator.value for operator in operators)) or "nothing to compare it with"
        raise QueryError(query.text, at, expected=f"{allowed} with {what}", found=comparison.operator.value)
    for value, place in zip(comparison.values, comparison.values_at, strict=True):
        if not _fits(value, constant):
            raise QueryError(query.text, place, expected=f"{constant} beside {operand}", found=_described(value))


def check_function(query: Query, aggregation: Aggregation, column: BoundColumn) -> None:
    """Raise QueryError where a function does not fit what it aggregates."""
    function, at = aggregation.function, aggregation.column.name_at
    if column.role is Role.STAR:
        if function is not Function.COUNT:
            raise QueryError(query.text, at, expected=f"a column in {function.value} (only COUNT takes *)", found="*")
        return
    kind = column.kind
    expected = ""
    if function in (Function.SUM, Function.AVG) and kind not in _NUMBERS:
        expected = "a numerical or boolean column"
    elif function in (Function.MIN, Function.MAX) and kind not in (*_NUMBERS, ColumnKind.TIMESTAMP):
        expected = "a numerical, boolean or timestamp column"
    elif function is Function.LIST_DISTINCT and not (column.role is Role.LINK or kind in _CODED[:2]):
        expected = "a link, or a categorical or multicategorical column"
    elif kind is ColumnKind.EMBEDDING and function is not Function.COUNT:
        expected = "a column that is no embedding"
    if expected:
        what = kind.value if kind is not None else column.role.value
        found = f"{aggregation.column} ({what})"
        raise QueryError(query.text, at, expected=f"{expected} in {function.value}", found=found)


def _expected(bound: BoundColumn, schema: Schema) -> tuple[set[Operator], str]:
    """Return the operators that fit, and what their constants must be."""
    if bound.role is Role.STAR or (bound.role is Role.RESULT and bound.column is None):
        return set(), "nothing"
    if bound.role is Role.LINK:
        assert bound.link is not None
        return _NULLS | _EQUALITY, _key_constant(schema.link_key_types(bound.link)[0])
    if bound.role is Role.KEY:
        integer = bound.key_type is KeyType.INTEGER
        return _EQUALITY | (_ORDER if integer else _TEXTS), _key_constant(bound.key_type)
    assert bound.kind is not None
    constant = {
        ColumnKind.NUMERICAL: "a number",
        ColumnKind.TIMESTAMP: "a date",
        ColumnKind.BOOLEAN: "TRUE or FALSE",
    }.get(bound.kind, "a text")
    return _OPERATORS[bound.kind], constant


def _key_constant(key_type: KeyType | None) -> str:
    return "a whole number" if key_type is KeyType.INTEGER else "a text"


def _fits(value: Scalar, constant: str) -> bool:
    if constant == "a date":
        return isinstance(value, datetime) or (isinstance(value, str) and _is_date(value))
    if constant == "TRUE or FALSE":
        return isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))
    if constant == "a text":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return constant == "a number" or isinstance(value, int)


def _is_date(text: str) -> bool:
    from graph_transformer.errors import TaskError

    try:
        parse_time("date", text)
    except TaskError:
        return False
    return True


def _described(value: Scalar) -> str:
    return repr(value) if isinstance(value, str | int | float) else str(value)

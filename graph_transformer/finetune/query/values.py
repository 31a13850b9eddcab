"""Values of rows and of aggregations, and what comparisons say of them: true, false or, of a null, neither."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.query.syntax import And, Comparison, Condition, Not, Operator, Or, Scalar
from graph_transformer.splits import parse_time
from temporal_graph.time_rule import time_us_from_datetime

if TYPE_CHECKING:
    from graph_transformer.finetune.query.rows import RowSource

ELEMENT_SEPARATOR = "\x1f"
Mask = NDArray[np.bool_]

_NEGATED = {
    Operator.UNEQUAL: Operator.EQUAL,
    Operator.NOT_IN: Operator.IN,
    Operator.NOT_LIKE: Operator.LIKE,
    Operator.NOT_CONTAINS: Operator.CONTAINS,
    Operator.NOT_STARTS: Operator.STARTS,
    Operator.NOT_ENDS: Operator.ENDS,
}


@dataclass(frozen=True, slots=True)
class Values:
    """One value for each row: `data` [n] and where it is null, bool [n].

    Numbers and booleans are float64, times int64 microseconds. With `texts` the data are codes into that list (of a
    set the elements are joined by U+001F); with `parent` they are rows of that table.
    """

    data: NDArray[Any]
    null: Mask
    texts: Sequence[str | None] | None = None
    parent: str | None = None
    is_set: bool = False

    def taken(self, places: NDArray[np.int64]) -> Values:
        """Return the values at these places, null at -1."""
        if not len(self.data):
            data = np.zeros(len(places), dtype=self.data.dtype)
            return Values(data, np.ones(len(places), dtype=bool), self.texts, self.parent, self.is_set)
        null = self.null[places] | (places < 0)
        return Values(self.data[places], null, self.texts, self.parent, self.is_set)


@dataclass(frozen=True, slots=True)
class Truth:
    """What a condition is for each row: bool [n] each; neither where a null leaves it open."""

    true: Mask
    false: Mask

    @property
    def known(self) -> Mask:
        """Where it is one or the other."""
        return self.true | self.false


def truth_of(condition: Condition, compared: Callable[[Comparison], Truth]) -> Truth:
    """Combine the comparisons of a condition as SQL does: of a null comes neither true nor false."""
    if isinstance(condition, Comparison):
        return compared(condition)
    if isinstance(condition, Not):
        inner = truth_of(condition.condition, compared)
        return Truth(inner.false, inner.true)
    assert isinstance(condition, And | Or)
    parts = [truth_of(part, compared) for part in condition.conditions]
    trues, falses = [part.true for part in parts], [part.false for part in parts]
    if isinstance(condition, And):
        return Truth(np.logical_and.reduce(trues), np.logical_or.reduce(falses))
    return Truth(np.logical_or.reduce(trues), np.logical_and.reduce(falses))


def compare(values: Values, operator: Operator, constants: Sequence[Scalar], source: RowSource) -> Truth:
    """Compare each value with the constants, whose types `operands.check_comparison` has checked."""
    if operator is Operator.NULL:
        return Truth(values.null, ~values.null)
    if operator is Operator.NOT_NULL:
        return Truth(~values.null, values.null)
    asked = _NEGATED.get(operator, operator)
    if values.texts is not None:
        found = _among_texts(values, asked, constants)
    else:
        found = _among_numbers(values, asked, _numbers(values, constants, source))
    true, false = found & ~values.null, ~found & ~values.null
    return Truth(false, true) if asked is not operator else Truth(true, false)


def _among_texts(values: Values, operator: Operator, constants: Sequence[Scalar]) -> Mask:
    """Each text of the dictionary is judged once, whatever the number of rows."""
    assert values.texts is not None
    judge = _text_judge(operator, [str(constant) for constant in constants], is_set=values.is_set)
    fits = np.array([text is not None and judge(text) for text in values.texts], dtype=bool)
    if not len(fits):
        return np.zeros(len(values.data), dtype=bool)
    found: Mask = fits[np.where(values.null, 0, values.data)]
    return found


def _text_judge(operator: Operator, constants: list[str], *, is_set: bool) -> Callable[[str], bool]:
    first = constants[0]
    if is_set:
        return lambda text: first in text.split(ELEMENT_SEPARATOR)
    if operator in (Operator.EQUAL, Operator.IN):
        return set(constants).__contains__
    if operator is Operator.LIKE:
        pattern = "".join({"%": ".*", "_": "."}.get(letter) or re.escape(letter) for letter in first)
        fits = re.compile(pattern, re.DOTALL).fullmatch
        return lambda text: fits(text) is not None
    if operator is Operator.CONTAINS:
        return lambda text: first in text
    return (lambda text: text.startswith(first)) if operator is Operator.STARTS else (lambda text: text.endswith(first))


def _numbers(values: Values, constants: Sequence[Scalar], source: RowSource) -> list[int | float]:
    if values.parent is not None:
        keys: list[Any] = list(constants)
        # A key that no row has compares equal to nothing: -1 is null among rows.
        return [int(row) for row in source.row_index(values.parent, keys)]
    return [_number(constant) for constant in constants]


def _number(constant: Scalar) -> int | float:
    if isinstance(constant, datetime):
        return time_us_from_datetime(constant)
    if isinstance(constant, str):
        return parse_time("date", constant)
    return constant


def _among_numbers(values: Values, operator: Operator, constants: list[int | float]) -> Mask:
    data, first = values.data, constants[0]
    found: Mask
    if operator in (Operator.EQUAL, Operator.IN):
        found = np.zeros(len(data), dtype=bool)
        for constant in constants:
            found |= data == constant
        return found
    comparisons = {
        Operator.LESS: np.less,
        Operator.AT_MOST: np.less_equal,
        Operator.MORE: np.greater,
        Operator.AT_LEAST: np.greater_equal,
    }
    with np.errstate(invalid="ignore"):
        found = comparisons[operator](data, first)
    return found

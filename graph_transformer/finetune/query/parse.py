"""The text of a predictive query -> its frozen form, by the grammar in `predictive_query.lark`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from graph_transformer.errors import QueryError
from graph_transformer.finetune.query.syntax import (
    KEYWORDS,
    Aggregation,
    And,
    Column,
    Comparison,
    Condition,
    Function,
    Not,
    Operator,
    Or,
    Query,
    Scalar,
    Unit,
    Window,
)

if TYPE_CHECKING:
    from lark import Lark, Token
    from lark.exceptions import UnexpectedInput

QUERY_LENGTH_MAX = 20_000
"""Characters of a query: no person writes more."""
INTEGER_MAX = 2**53
"""Beyond it a number of a query would not be exact among the graph's float64 cells."""

_READABLE = {
    "NAME": "a name",
    "QUOTED": 'a "quoted" name or text',
    "TEXT": "a 'text'",
    "INT": "a whole number",
    "FLOAT": "a number",
    "DATETIME": "a date",
    "MINUS_INFINITY": "-INF",
    "DOT": "'.'",
    "COMMA": "','",
    "LPAR": "'('",
    "RPAR": "')'",
    "STAR": "'*'",
    "EQUAL": "=",
    "UNEQUAL": "!=",
    "AT_LEAST": ">=",
    "AT_MOST": "<=",
    "LESS": "<",
    "MORE": ">",
    "$END": "the end",
}
_PLURAL_UNITS = {unit.value.removesuffix("s"): unit for unit in Unit} | {unit.value: unit for unit in Unit}
_GROUPS = (
    ({"IN", "IS", "LIKE", "CONTAINS", "STARTS", "ENDS", "NOT", "=", "!=", ">=", "<=", "<", ">"}, "a comparison"),
    ({"FALSE", "TRUE", "a date", "a number", "a whole number", _READABLE["TEXT"], _READABLE["QUOTED"]}, "a constant"),
    ({function.value for function in Function}, "an aggregation such as COUNT"),
    ({name.upper() for name in _PLURAL_UNITS}, "a unit such as days"),
)
_COMPARATORS = {"==": Operator.EQUAL, "<>": Operator.UNEQUAL}


def parse_query(text: str) -> Query:
    """Parse a predictive query.

    Raises:
        QueryError: the text is none; it says where, what stands there and what was expected.
    """
    from lark.exceptions import UnexpectedInput

    if len(text) > QUERY_LENGTH_MAX:
        raise QueryError(text, QUERY_LENGTH_MAX, expected=f"at most {QUERY_LENGTH_MAX} characters", found="more")
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise _syntax_error(text, error) from None
    return _Reader(text).query(tree)


@cache
def _parser() -> Lark:
    from lark import Lark

    grammar = files(__package__).joinpath("predictive_query.lark").read_text(encoding="utf-8")
    return Lark(grammar, start="query", parser="lalr", maybe_placeholders=True, propagate_positions=True)


def _syntax_error(text: str, error: UnexpectedInput) -> QueryError:
    from lark.exceptions import UnexpectedToken

    at = error.pos_in_stream or 0
    read = getattr(error, "token_history", None) or ()
    for place in [token.start_pos or 0 for token in read[-1:] if token is not None] + [at]:
        if (longer := _longer_word(text, place)) is not None:
            return longer
    if not isinstance(error, UnexpectedToken):  # a character that begins no word of the language
        return QueryError(text, at, expected=_expected(getattr(error, "allowed", None)), found=repr(text[at : at + 1]))
    token, before = error.token, error.token_history[-1] if error.token_history else None
    if token.type == "LPAR" and before is not None and before.type == "NAME":
        names = [function.value for function in Function]
        expected, found = f"one of {', '.join(names)}", repr(str(before))
        return QueryError(text, before.start_pos or 0, expected=expected, found=found, word=before, names=names)
    wanted = error.accepts or error.expected
    keywords = sorted(name for name in wanted if name in KEYWORDS)
    if token.type == "$END":
        return QueryError(text, len(text.rstrip()), expected=_expected(wanted), found="the end")
    found = repr(str(token))
    return QueryError(text, token.start_pos or 0, expected=_expected(wanted), found=found, word=token, names=keywords)


def _longer_word(text: str, at: int) -> QueryError | None:
    """Return the error of a word that begins with a keyword, such as `dayz`, if that is why parsing ended within it."""
    from lark.exceptions import UnexpectedInput, UnexpectedToken

    words = re.finditer(r"(?<!\w)[^\W\d]\w*", text)
    word = next((found for found in words if found.start() < at < found.end()), None)
    if word is None:
        return None
    # No keyword begins with an underscore: what may stand in the word's place is what is wanted in this one's.
    try:
        _parser().parse(text[: word.start()] + "_" * len(word[0]) + text[word.end() :])
    except UnexpectedInput as error:
        if not isinstance(error, UnexpectedToken) or error.token.start_pos != word.start():
            return None
        wanted = error.accepts or error.expected
        names = sorted(name for name in wanted if name in KEYWORDS)
        expected = _expected(wanted)
        return QueryError(text, word.start(), expected=expected, found=repr(word[0]), word=word[0], names=names)
    return None


def _expected(wanted: Iterable[str] | None) -> str:
    """Return what may stand there, with one word for all comparisons, constants, functions or units."""
    names = sorted(wanted or ())
    choices = [name for name in names if name in KEYWORDS] + [_READABLE[name] for name in names if name in _READABLE]
    for group, word in _GROUPS:
        if group <= set(choices):
            choices = [choice for choice in choices if choice not in group] + [word]
    return " or ".join(choices) or "nothing"


class _Reader:
    """Walks the parsed tree; places are offsets into the text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def query(self, tree: Any) -> Query:
        target, forecast, answer, entity, where, assuming = tree.children
        answer_name = answer.data if answer is not None else ""
        return Query(
            target=self._target(target.children[0]),
            entity=self._column(entity),
            where=self._condition(where) if where is not None else None,
            assuming=self._condition(assuming) if assuming is not None else None,
            timeframes=self._positive(forecast.children[0]) if forecast is not None else None,
            top=self._positive(answer.children[0]) if answer_name == "rank" else None,
            classify=answer_name == "classify",
            text=self._text,
        )

    def _target(self, node: Any) -> Column | Aggregation | Condition:
        return self._operand(node) if node.data in ("column", "aggregation") else self._condition(node)

    def _condition(self, node: Any) -> Condition:
        if node.data == "disjunction":
            return Or(tuple(self._condition(child) for child in node.children))
        if node.data == "conjunction":
            return And(tuple(self._condition(child) for child in node.children))
        if node.data == "negated":
            return Not(self._condition(node.children[0]))
        return self._comparison(node)

    def _comparison(self, node: Any) -> Comparison:
        operand, *rest = node.children
        kind = str(node.data)
        negated = kind == "listed_is_not"
        if kind in ("listed", "nullness", "like", "contains", "starts", "ends"):
            negated, rest = rest[0] is not None, rest[1:]
        if kind == "compared":
            sign, rest = str(rest[0].children[0]), rest[1:]
            operator = _COMPARATORS.get(sign) or Operator(sign)
        elif kind.startswith("listed"):
            operator = Operator.NOT_IN if negated else Operator.IN
        else:
            word = {"nullness": "NULL"}.get(kind, kind.upper())
            operator = Operator[f"NOT_{word}" if negated else word]
        constants = [self._constant(child.children[0]) for child in rest]
        places = tuple(int(child.children[0].start_pos) for child in rest)
        return Comparison(self._operand(operand), operator, tuple(constants), places)

    def _operand(self, node: Any) -> Column | Aggregation:
        return self._column(node) if node.data == "column" else self._aggregation(node)

    def _column(self, node: Any) -> Column:
        table, column = node.children
        return Column(self._name(table), self._name(column), _place(table), _place(column))

    def _aggregation(self, node: Any) -> Aggregation:
        function, table, column, via, where, window = node.children
        return Aggregation(
            Function(str(function.children[0]).upper()),
            Column(self._name(table), self._name(column), _place(table), _place(column)),
            self._window(window) if window is not None else None,
            self._condition(where) if where is not None else None,
            self._name(via) if via is not None else None,
            at=_place(function),
            via_at=_place(via) if via is not None else 0,
            window_at=_place(window.children[0]) if window is not None else 0,
        )

    def _window(self, node: Any) -> Window:
        start, end, unit = node.children
        first = start.children[0]
        return Window(
            None if first.type == "MINUS_INFINITY" else self._integer(first),
            self._integer(end),
            _PLURAL_UNITS[str(unit.children[0]).lower()] if unit is not None else Unit.DAYS,
        )

    @staticmethod
    def _name(node: Any) -> str:
        if node.data == "star":
            return "*"
        token = node.children[0]
        return str(token)[1:-1].replace('""', '"') if token.type == "QUOTED" else str(token)

    def _constant(self, token: Token) -> Scalar:
        text = str(token)
        if token.type in ("TEXT", "QUOTED"):
            return text[1:-1].replace(text[0] * 2, text[0])
        if token.type in ("TRUE", "FALSE"):
            return token.type == "TRUE"
        if token.type == "INT":
            return self._integer(token)
        if token.type == "FLOAT":
            number = float(text)
            if number in (float("inf"), float("-inf")):
                raise self._error(token, "a number that float64 can hold")
            return number
        return self._datetime(token)

    def _datetime(self, token: Token) -> datetime:
        try:
            found = datetime.fromisoformat(str(token))
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            raise self._error(token, "a date of the calendar, as 2024-01-31 or 2024-01-31T12:00:00") from None

    def _integer(self, token: Token) -> int:
        number = int(token) if len(token) <= len(str(INTEGER_MAX)) + 1 else INTEGER_MAX + 1
        if abs(number) > INTEGER_MAX:
            raise self._error(token, f"a whole number of at most {INTEGER_MAX}")
        return number

    def _positive(self, token: Token) -> int:
        number = self._integer(token)
        if number < 1:
            raise self._error(token, "a whole number of 1 or more")
        return number

    def _error(self, token: Token, expected: str) -> QueryError:
        return QueryError(self._text, token.start_pos or 0, expected=expected, found=str(token))


def _place(node: Any) -> int:
    start = node.meta.start_pos if not node.meta.empty else 0
    return int(start)

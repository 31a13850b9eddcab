"""A predictive query as frozen values, and the canonical text of each: `str(query)` parses back to an equal query."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

KEYWORDS = frozenset(
    """
    PREDICT FORECAST TIMEFRAMES RANK TOP CLASSIFY FOR EACH WHERE ASSUMING OR AND NOT IN IS NULL LIKE CONTAINS STARTS
    ENDS WITH VIA TRUE FALSE SUM AVG MIN MAX COUNT COUNT_DISTINCT FIRST LAST LIST_DISTINCT SECONDS MINUTES HOURS DAYS
    WEEKS MONTHS SECOND MINUTE HOUR DAY WEEK MONTH
    """.split()  # noqa: SIM905  # a page of quoted words says less
)
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Scalar = bool | int | float | str | datetime
"""A constant of a query; a datetime has its zone."""


class Function(StrEnum):
    """What an aggregation makes of the rows in its window."""

    SUM = "SUM"
    AVG = "AVG"
    MIN = "MIN"
    MAX = "MAX"
    COUNT = "COUNT"
    COUNT_DISTINCT = "COUNT_DISTINCT"
    FIRST = "FIRST"
    LAST = "LAST"
    LIST_DISTINCT = "LIST_DISTINCT"


class Unit(StrEnum):
    """The unit of a window's ends; a month is a calendar month, the others are fixed."""

    SECONDS = "seconds"
    MINUTES = "minutes"
    HOURS = "hours"
    DAYS = "days"
    WEEKS = "weeks"
    MONTHS = "months"


class Operator(StrEnum):
    """How a comparison compares, as canonical text."""

    EQUAL = "="
    UNEQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="
    IN = "IN"
    NOT_IN = "NOT IN"
    NULL = "IS NULL"
    NOT_NULL = "IS NOT NULL"
    LIKE = "LIKE"
    NOT_LIKE = "NOT LIKE"
    CONTAINS = "CONTAINS"
    NOT_CONTAINS = "NOT CONTAINS"
    STARTS = "STARTS WITH"
    NOT_STARTS = "NOT STARTS WITH"
    ENDS = "ENDS WITH"
    NOT_ENDS = "NOT ENDS WITH"


def quoted_name(name: str) -> str:
    """Return a name as a query writes it: in double quotes where it would read as something else."""
    if name == "*" or (_PLAIN_NAME.fullmatch(name) and name.upper() not in KEYWORDS):
        return name
    return '"' + name.replace('"', '""') + '"'


def constant_text(value: Scalar) -> str:
    """Return a constant as a query writes it."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        utc = value.astimezone(UTC)
        midnight = (utc.hour, utc.minute, utc.second, utc.microsecond) == (0, 0, 0, 0)
        # isoformat pads the year to the four digits that the grammar wants.
        return utc.date().isoformat() if midnight else utc.replace(tzinfo=None).isoformat()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, or all of it (`*`). `at` is where the query names it: the offset of the table's name."""

    table: str
    name: str
    at: int = field(default=0, compare=False, repr=False)
    name_at: int = field(default=0, compare=False, repr=False)

    @property
    def is_star(self) -> bool:
        """Whether this is the whole row, not a cell of it."""
        return self.name == "*"

    def __str__(self) -> str:
        return f"{quoted_name(self.table)}.{quoted_name(self.name)}"


@dataclass(frozen=True, slots=True)
class Window:
    """The times (t + start, t + end], in whole units; a start of None is the beginning of time."""

    start: int | None
    end: int
    unit: Unit = Unit.DAYS

    def __str__(self) -> str:
        return f"{'-INF' if self.start is None else self.start}, {self.end}, {self.unit.value}"


@dataclass(frozen=True, slots=True)
class Aggregation:
    """A function of the linked rows in a window; `via` names the link where the table has several to the entity."""

    function: Function
    column: Column
    window: Window | None = None
    where: Condition | None = None
    via: str | None = None
    at: int = field(default=0, compare=False, repr=False)
    via_at: int = field(default=0, compare=False, repr=False)
    window_at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        via = f" VIA {quoted_name(self.via)}" if self.via is not None else ""
        where = f" WHERE {self.where}" if self.where is not None else ""
        window = f", {self.window}" if self.window is not None else ""
        return f"{self.function.value}({self.column}{via}{where}{window})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column or an aggregation compared with constants: one, several (IN), or none (IS NULL)."""

    operand: Column | Aggregation
    operator: Operator
    values: tuple[Scalar, ...] = ()
    values_at: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        if self.operator in (Operator.NULL, Operator.NOT_NULL):
            return f"{self.operand} {self.operator.value}"
        texts = [constant_text(value) for value in self.values]
        listed = self.operator in (Operator.IN, Operator.NOT_IN)
        return f"{self.operand} {self.operator.value} {'(' + ', '.join(texts) + ')' if listed else texts[0]}"


@dataclass(frozen=True, slots=True)
class Not:
    """True where the condition is false; neither where it is unknown."""

    condition: Condition

    def __str__(self) -> str:
        return f"NOT {_inside(self.condition, And, Or)}"


@dataclass(frozen=True, slots=True)
class And:
    """True where all are true."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " AND ".join(_inside(condition, And, Or) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Or:
    """True where any is true."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " OR ".join(_inside(condition, Or) for condition in self.conditions)


Condition = Comparison | Not | And | Or


def _inside(condition: Condition, *bracketed: type) -> str:
    return f"({condition})" if isinstance(condition, bracketed) else str(condition)


@dataclass(frozen=True, slots=True)
class Query:
    """A predictive query as written; `text` is its source, for messages about it."""

    target: Column | Aggregation | Condition
    entity: Column
    where: Condition | None = None
    assuming: Condition | None = None
    timeframes: int | None = None
    top: int | None = None
    classify: bool = False
    text: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        parts = [f"PREDICT {self.target}"]
        if self.timeframes is not None:
            parts.append(f"FORECAST {self.timeframes} TIMEFRAMES")
        if self.top is not None:
            parts.append(f"RANK TOP {self.top}")
        if self.classify:
            parts.append("CLASSIFY")
        parts.append(f"FOR EACH {self.entity}")
        if self.where is not None:
            parts.append(f"WHERE {self.where}")
        if self.assuming is not None:
            parts.append(f"ASSUMING {self.assuming}")
        return " ".join(parts)


def comparisons_of(condition: Condition) -> list[Comparison]:
    """Return the comparisons of a condition in the order written."""
    if isinstance(condition, Comparison):
        return [condition]
    if isinstance(condition, Not):
        return comparisons_of(condition.condition)
    assert isinstance(condition, And | Or)
    return [found for part in condition.conditions for found in comparisons_of(part)]


def operands_of(target: Column | Aggregation | Condition) -> list[Column | Aggregation]:
    """Return the columns and aggregations of a target or a condition, in the order written."""
    if isinstance(target, Column | Aggregation):
        return [target]
    return [comparison.operand for comparison in comparisons_of(target)]

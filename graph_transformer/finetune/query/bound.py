"""A query bound to a schema: which columns, links and windows its words mean, and the target that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from graph_transformer.finetune.query.calendar import horizon_bound_us
from graph_transformer.finetune.query.syntax import (
    Aggregation,
    Column,
    Function,
    Query,
    Window,
    operands_of,
    quoted_name,
)
from graph_transformer.target import Kind, Ranked, Target
from temporal_graph.schema import Column as SchemaColumn
from temporal_graph.schema import ColumnKind, KeyType, Link, Schema


class Role(StrEnum):
    """Where the value of a name stands in a row."""

    CELL = "cell"
    KEY = "key"
    LINK = "link"
    TIME = "time"
    STAR = "star"
    RESULT = "result"


@dataclass(frozen=True, slots=True)
class BoundColumn:
    """A name of a query, found in the schema; RESULT is what an aggregation gives, with the kind of its cells."""

    table: str
    name: str
    role: Role
    column: SchemaColumn | None = None
    link: Link | None = None
    key_part: int = 0
    key_type: KeyType | None = None

    @property
    def kind(self) -> ColumnKind | None:
        """The kind of the cells; a time is a timestamp; None for keys, links and whole rows."""
        if self.role is Role.TIME:
            return ColumnKind.TIMESTAMP
        return self.column.kind if self.column is not None else None


@dataclass(frozen=True, slots=True)
class BoundAggregation:
    """An aggregation over the rows of `table` that `link` ties to the entity."""

    written: Aggregation
    table: str
    link: Link
    column: BoundColumn

    @property
    def function(self) -> Function:
        """What it makes of the rows."""
        return self.written.function

    @property
    def window(self) -> Window | None:
        """When they happened, as seen from t; None for all that are visible."""
        return self.written.window

    @property
    def result(self) -> BoundColumn:
        """Its value, as a comparison sees it."""
        name = str(self.written)
        if self.function in (Function.FIRST, Function.LAST):
            return BoundColumn(
                self.table, name, self.column.role, self.column.column, self.column.link, self.column.key_part
            )
        if self.function in (Function.MIN, Function.MAX) and self.column.kind is ColumnKind.TIMESTAMP:
            return BoundColumn(self.table, name, Role.RESULT, SchemaColumn(name, ColumnKind.TIMESTAMP))
        if self.function is Function.LIST_DISTINCT:
            return BoundColumn(self.table, name, Role.RESULT)
        return BoundColumn(self.table, name, Role.RESULT, SchemaColumn(name, ColumnKind.NUMERICAL))


@dataclass(frozen=True)
class BoundQuery:
    """What a query asks: of rows of `entity`, just before they happen (event level) or as of a time.

    `columns` and `aggregations` hold the meaning of every name and aggregation in the query.
    """

    query: Query
    schema: Schema
    kind: Kind
    event_level: bool
    entity: str
    columns: dict[Column, BoundColumn]
    aggregations: dict[Aggregation, BoundAggregation]

    @property
    def outcome(self) -> str | None:
        """The column that is predicted, where the target is a column of the entity."""
        found = [column for column in self._target_operands() if isinstance(column, Column)]
        return found[0].name if found else None

    @property
    def steps(self) -> int:
        """Consecutive windows of a forecast; 1 for everything else."""
        return self.query.timeframes or 1

    @property
    def windows(self) -> tuple[Window, ...]:
        """The windows of the target and of ASSUMING that a label waits for; a forecast's are all told as one."""
        windows = [
            Window(each.window.start, each.window.end * self.steps, each.window.unit)
            for each in self._target_operands()
            if isinstance(each, Aggregation) and each.window is not None
        ]
        assumed = operands_of(self.query.assuming) if self.query.assuming is not None else []
        windows += [each.window for each in assumed if isinstance(each, Aggregation) and each.window is not None]
        return tuple(windows)

    @property
    def horizon_us(self) -> int:
        """Where the last window ends after t; of calendar months the longest they can be."""
        return max((horizon_bound_us(window) for window in self.windows), default=0)

    @property
    def top_note(self) -> str | None:
        """What RANK TOP k comes to where values are listed, not linked rows; None where it ranks rows or is not there.

        A list of a column's values is a task of classes, as it is elsewhere in this language.
        """
        top, target = self.query.top, self.query.target
        if top is None or self.kind is Kind.RANKING:
            return None
        bound = self.aggregations[target] if isinstance(target, Aggregation) else None
        column = target.column if isinstance(target, Aggregation) else target
        note = (
            f"RANK TOP {top}: {column} is no link, so the task is {self.kind.value}: every value gets a probability, "
            f"and the {top} largest are the caller's to take."
        )
        links = self.schema.table(bound.table).links if bound is not None else ()
        others = [link.name for link in links if bound is not None and link.name != bound.link.name]
        if bound is None or not others:
            return note
        return f"{note} Rows are ranked by LIST_DISTINCT({quoted_name(bound.table)}.{quoted_name(others[0])}, ...)."

    def target(self, task_name: str, classes: Sequence[str] = ()) -> Target:
        """Return the target of a task of this name; `classes` where the kind has some."""
        return Target(
            kind=self.kind,
            table=self.entity,
            event_level=self.event_level,
            column=self.outcome,
            classes=tuple(classes),
            horizon_us=self.horizon_us,
            steps=self.steps,
            task_table=None if self.event_level or self.kind is Kind.RANKING else task_name,
            ranked=self._ranked() if self.kind is Kind.RANKING else None,
        )

    def _ranked(self) -> Ranked:
        listed = self.query.target
        assert isinstance(listed, Aggregation)
        assert self.query.top is not None
        bound = self.aggregations[listed]
        assert bound.column.link is not None
        return Ranked(bound.table, bound.link.name, bound.column.link.name, bound.column.link.parent, self.query.top)

    def _target_operands(self) -> list[Column | Aggregation]:
        return operands_of(self.query.target)

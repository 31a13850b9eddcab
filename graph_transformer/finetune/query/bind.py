"""A parsed query and a schema -> what is asked of which rows, checked: names, types, one hop, and windows in time.

    parse_query(text) ─► bind_query(query, schema) ─► BoundQuery ─► target, labels, task table

Rules of windows: those of the target lie after t, those of WHERE at or before it, those of ASSUMING after it.
"""

from __future__ import annotations

from typing import Literal

from graph_transformer.errors import QueryError
from graph_transformer.finetune.query.bound import BoundAggregation, BoundColumn, BoundQuery, Role
from graph_transformer.finetune.query.calendar import DAY_US, horizon_bound_us
from graph_transformer.finetune.query.operands import check_comparison, check_function
from graph_transformer.finetune.query.syntax import (
    Aggregation,
    Column,
    Condition,
    Function,
    Operator,
    Query,
    Window,
    comparisons_of,
    operands_of,
)
from graph_transformer.target import Kind
from temporal_graph.duration import DURATION_MAX_US
from temporal_graph.schema import Column as SchemaColumn
from temporal_graph.schema import ColumnKind, Link, Schema, Table

TABLES_NAMED_MAX = 12
"""Tables that an error names, where the one that was asked about is none of them."""
TOP_MAX = 1_000
"""Ranked items a question may ask for."""
TIMEFRAMES_MAX = 366
"""Windows a forecast may have: a year of days."""

_Place = Literal["target", "WHERE", "ASSUMING", "inner WHERE"]
_KIND_OF_COLUMN = {
    ColumnKind.BOOLEAN: Kind.BINARY,
    ColumnKind.NUMERICAL: Kind.REGRESSION,
    ColumnKind.CATEGORICAL: Kind.MULTICLASS,
    ColumnKind.MULTICATEGORICAL: Kind.MULTILABEL,
}


def bind_query(query: Query, schema: Schema) -> BoundQuery:
    """Resolve a query's names in a schema and infer what kind of task it is.

    Raises:
        QueryError: a name does not exist, a type or a window does not fit, or no label could come of it.
    """
    return _Binder(query, schema).bind()


class _Binder:
    def __init__(self, query: Query, schema: Schema) -> None:
        self._query, self._schema = query, schema
        self._entity = self._table(query.entity)
        self._columns: dict[Column, BoundColumn] = {}
        self._aggregations: dict[Aggregation, BoundAggregation] = {}

    def bind(self) -> BoundQuery:
        query = self._query
        self._bind_entity()
        operands = operands_of(query.target)
        columns = [operand for operand in operands if isinstance(operand, Column)]
        if columns and len(columns) == len(operands):
            kind, event_level = self._bind_column_target(columns)
        elif columns:
            expected = "aggregations only: a column is what holds as of a time and belongs into WHERE"
            raise self._error(columns[0].at, expected, str(columns[0]))
        else:
            kind, event_level = self._bind_aggregated_target(), False
        self._bind_answer(kind)
        if query.where is not None:
            self._bind_condition(query.where, "WHERE", event_level=event_level)
        if query.assuming is not None:
            if event_level:
                at = query.text.upper().find("ASSUMING")
                raise self._error(max(at, 0), "no ASSUMING for a row that is asked just before it happens", "ASSUMING")
            self._bind_condition(query.assuming, "ASSUMING", event_level=False)
        return BoundQuery(
            query=query,
            schema=self._schema,
            kind=kind,
            event_level=event_level,
            entity=self._entity.name,
            columns=dict(self._columns),
            aggregations=dict(self._aggregations),
        )

    def _bind_entity(self) -> None:
        entity = self._query.entity
        keys = [part.name for part in self._entity.primary_key]
        if entity.is_star or entity.name in keys:
            return
        expected = f"the key of {entity.table}" + (f" ({', '.join(keys)})" if keys else " (it has none: write *)")
        raise self._error(entity.name_at, expected, entity.name, keys)

    def _bind_column_target(self, columns: list[Column]) -> tuple[Kind, bool]:
        """A column of the entity itself: of a row that is about to happen, or an outcome that is not known yet."""
        first = columns[0]
        bound = [self._bind_column(column, self._entity.name, "target") for column in columns]
        other = next((column for column in columns if column.name != first.name), None)
        if other is not None:
            raise self._error(other.name_at, f"one column, {first}, in all of the target", str(other))
        cells = bound[0].column
        if cells is None:
            raise self._error(first.name_at, "a typed column: keys, times and links are not predicted", str(first))
        event_level = self._entity.time_column is not None
        if not event_level and not cells.outcome:
            expected = (
                f"an aggregation over a window, or the outcome of {self._entity.name}: a column of a table without "
                "time is always visible, so there is nothing to predict"
            )
            raise self._error(first.at, expected, str(first))
        if isinstance(self._query.target, Column):
            return self._kind_of_column(first, cells), event_level
        assert not isinstance(self._query.target, Aggregation)
        self._check_condition(self._query.target)
        return Kind.BINARY, event_level

    def _kind_of_column(self, column: Column, cells: SchemaColumn) -> Kind:
        kind = _KIND_OF_COLUMN.get(cells.kind)
        if kind is None or kind is Kind.MULTILABEL:  # what a schema's outcome can be
            expected = "a column that is boolean, numerical or categorical"
            raise self._error(column.name_at, expected, f"{column} ({cells.kind.value})")
        return kind

    def _bind_aggregated_target(self) -> Kind:
        target = self._query.target
        if not isinstance(target, Aggregation):
            assert not isinstance(target, Column)
            self._bind_condition(target, "target", event_level=False)
            return Kind.BINARY
        bound = self._bind_aggregation(target, "target")
        if target.function is Function.LIST_DISTINCT:
            return Kind.RANKING if bound.column.role is Role.LINK else Kind.MULTILABEL
        if target.function in (Function.FIRST, Function.LAST, Function.MIN, Function.MAX):
            cells = bound.column.column
            if cells is None or cells.kind not in _KIND_OF_COLUMN or cells.kind is ColumnKind.MULTICATEGORICAL:
                expected = "a numerical, boolean or categorical column (of a link, LIST_DISTINCT with RANK TOP k)"
                raise self._error(target.column.name_at, expected, str(target.column))
            return _KIND_OF_COLUMN[cells.kind]
        return Kind.REGRESSION if self._query.timeframes is None else Kind.FORECAST

    def _bind_answer(self, kind: Kind) -> None:
        query = self._query
        if query.timeframes is not None:
            target = query.target
            if kind is not Kind.FORECAST:
                raise self._error(0, "a numerical aggregation where FORECAST is asked", f"a {kind.value} target")
            assert isinstance(target, Aggregation)
            assert target.window is not None
            if target.window.start != 0:
                raise self._error(target.window_at, "a window from 0, which FORECAST repeats", str(target.window.start))
            if query.timeframes > TIMEFRAMES_MAX:
                raise self._error(0, f"at most {TIMEFRAMES_MAX} TIMEFRAMES", str(query.timeframes))
        if query.top is not None:
            if kind not in (Kind.RANKING, Kind.MULTILABEL, Kind.MULTICLASS):
                raise self._error(0, "LIST_DISTINCT or classes where RANK TOP is asked", f"a {kind.value} target")
            if query.top > TOP_MAX:
                raise self._error(0, f"at most RANK TOP {TOP_MAX}", str(query.top))
        elif kind is Kind.RANKING:
            raise self._error(self._target_at(), "RANK TOP k after a list of linked rows", "none")
        if query.classify and kind not in (Kind.BINARY, Kind.MULTICLASS, Kind.MULTILABEL):
            raise self._error(self._target_at(), "classes where CLASSIFY is asked", f"a {kind.value} target")

    def _target_at(self) -> int:
        target = self._query.target
        return target.at if isinstance(target, Column | Aggregation) else 0

    def _bind_condition(self, condition: Condition, place: _Place, *, event_level: bool) -> None:
        for operand in operands_of(condition):
            if isinstance(operand, Column):
                bound = self._bind_column(operand, self._entity.name, place)
                if event_level and bound.column is not None and bound.column.outcome:
                    expected = "a column that is known before the row happens, which an outcome is not"
                    raise self._error(operand.name_at, expected, str(operand))
            elif event_level:
                expected = "columns of the row: nothing is linked to it before it happens"
                raise self._error(operand.at, expected, str(operand))
            else:
                self._bind_aggregation(operand, place)
        self._check_condition(condition)

    def _check_condition(self, condition: Condition) -> None:
        for comparison in comparisons_of(condition):
            operand = comparison.operand
            if isinstance(operand, Column):
                check_comparison(self._query, comparison, self._columns[operand], self._schema)
            else:
                bound = self._aggregations[operand]
                check_comparison(self._query, comparison, bound.result, self._schema)
                nothing_is_zero = operand.function in (Function.COUNT, Function.COUNT_DISTINCT, Function.SUM)
                if nothing_is_zero and comparison.operator in (Operator.NULL, Operator.NOT_NULL):
                    expected = f"a number: {operand.function.value} of nothing is 0, never null"
                    raise self._error(operand.at, expected, comparison.operator.value)

    def _bind_aggregation(self, aggregation: Aggregation, place: _Place) -> BoundAggregation:
        table = self._table(aggregation.column)
        link = self._hop(aggregation, table)
        column = self._bind_column(aggregation.column, table.name, place)
        if aggregation.where is not None:
            for operand in operands_of(aggregation.where):
                if isinstance(operand, Aggregation):
                    raise self._error(
                        operand.at, f"columns of {table.name}: no aggregation inside another", str(operand)
                    )
                self._bind_column(operand, table.name, "inner WHERE")
            self._check_condition(aggregation.where)
        check_function(self._query, aggregation, column)
        self._check_window(aggregation, table, place)
        bound = BoundAggregation(aggregation, table.name, link, column)
        self._aggregations[aggregation] = bound
        return bound

    def _hop(self, aggregation: Aggregation, table: Table) -> Link:
        """The one link from the aggregated table to the entity's."""
        links = {link.name: link for link in table.links if link.parent == self._entity.name}
        if aggregation.via is not None:
            if aggregation.via not in links:
                expected = f"a link of {table.name} to {self._entity.name} ({', '.join(links) or 'it has none'})"
                raise self._error(aggregation.via_at, expected, aggregation.via, links)
            return links[aggregation.via]
        if not links:
            near = sorted({link.child for link in self._schema.links if link.parent == self._entity.name})
            expected = f"a table with a link to {self._entity.name} ({', '.join(near) or 'the schema has none'})"
            raise self._error(aggregation.column.at, expected, table.name)
        if len(links) > 1:
            names = " or ".join(f"VIA {name}" for name in links)
            raise self._error(aggregation.column.at, f"{names}, as {table.name} has several links", "neither")
        return next(iter(links.values()))

    def _check_window(self, aggregation: Aggregation, table: Table, place: _Place) -> None:
        window, at = aggregation.window, aggregation.window_at
        if window is None:
            if place != "WHERE":
                raise self._error(aggregation.at, f"a window, such as (…, 0, 30, days), in {place}", "none")
            return
        if table.time_column is None:
            raise self._error(at, f"no window: table {table.name} has no time column", str(window))
        if window.start is not None and window.start >= window.end:
            raise self._error(at, "a window that ends after it starts", str(window))
        longest = max(abs(window.start or 0), abs(window.end)) * self._query_steps(place)
        if horizon_bound_us(Window(0, longest, window.unit)) > DURATION_MAX_US:
            raise self._error(at, f"a window within {DURATION_MAX_US // DAY_US} days of t", str(window))
        if place == "WHERE":
            if window.end > 0:
                raise self._error(at, "a window that ends at 0 or before: WHERE is judged as of t", str(window))
        elif window.start is None or window.start < 0:
            expected = f"a window from 0 or later: {place} is about what comes after t"
            raise self._error(at, expected, str(window))

    def _query_steps(self, place: _Place) -> int:
        return (self._query.timeframes or 1) if place == "target" else 1

    def _bind_column(self, column: Column, table_name: str, place: _Place) -> BoundColumn:
        if column.table != table_name:
            self._table(column)
            raise self._error(column.at, f"a column of {table_name} in {place}", str(column))
        if column not in self._columns:
            self._columns[column] = self._resolve(self._schema.table(table_name), column)
        return self._columns[column]

    def _resolve(self, table: Table, column: Column) -> BoundColumn:
        if column.is_star:
            return BoundColumn(table.name, "*", Role.STAR)
        for index, cells in enumerate(table.columns):
            if cells.name == column.name:
                return BoundColumn(table.name, column.name, Role.CELL, column=table.columns[index])
        if column.name == table.time_column:
            return BoundColumn(table.name, column.name, Role.TIME)
        link = next((link for link in table.links if link.name == column.name), None)
        if link is not None and len(link.columns) == 1:
            return BoundColumn(table.name, column.name, Role.LINK, link=link)
        for part, key in enumerate(table.primary_key):
            if key.name == column.name:
                return BoundColumn(table.name, column.name, Role.KEY, key_part=part, key_type=key.type)
        names = [cells.name for cells in table.columns] + [key.name for key in table.primary_key]
        names += [link.name for link in table.links] + ([table.time_column] if table.time_column else [])
        if column.name == table.known_time.column:
            raise self._error(
                column.name_at, "a column that is no clock: known time rules what is visible", column.name
            )
        raise self._error(column.name_at, f"a column of {table.name}", repr(column.name), names, word=column.name)

    def _table(self, column: Column) -> Table:
        tables = {table.name: table for table in self._schema.tables}
        if column.table not in tables:
            found, names = repr(column.table), ", ".join(sorted(tables)[:TABLES_NAMED_MAX])
            raise self._error(column.at, f"a table of the schema ({names})", found, tables, word=column.table)
        return tables[column.table]

    def _error(self, at: int, expected: str, found: str, names: object = (), *, word: str | None = None) -> QueryError:
        choices = [str(name) for name in names] if isinstance(names, list | dict | tuple) else []
        return QueryError(self._query.text, at, expected=expected, found=found, word=word, names=choices)

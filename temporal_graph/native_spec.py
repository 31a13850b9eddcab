"""A schema as the native core takes it: plain values, one translation in one place."""

from __future__ import annotations

from dataclasses import dataclass

from temporal_graph.schema import Column, ColumnKind, KeyType, Schema, Table

NO_BOUND_US = 2**63 - 1
NO_BOUND_COUNT = 2**32 - 1

# The native kinds: categorical, multicategorical and text are all codes of a dictionary.
_KINDS = {
    ColumnKind.NUMERICAL: 0,
    ColumnKind.TIMESTAMP: 1,
    ColumnKind.CATEGORICAL: 2,
    ColumnKind.MULTICATEGORICAL: 2,
    ColumnKind.TEXT: 2,
    ColumnKind.EMBEDDING: 3,
    ColumnKind.BOOLEAN: 4,
}
_KNOWN_TIMES = {"event_time": 0, "broker": 1, "column": 2}


@dataclass(frozen=True, slots=True)
class NativeTable:
    """What `_native.Graph` reads of a table; bounds in microseconds, `NO_BOUND_*` where there is none."""

    name: str
    key_parts_are_text: list[bool]
    has_time: bool
    known_time: int
    lateness_us: int
    future_us: int
    retention_age_us: int
    retention_degree: int
    columns_on_disk: bool
    columns: list[tuple[str, int, bool, bool, int]]


def native_tables(schema: Schema) -> list[NativeTable]:
    """Return the tables of the schema, in its order."""
    return [_native_table(table) for table in schema.tables]


def native_links(schema: Schema) -> list[tuple[str, int, int, bool]]:
    """Return (name, child index, parent index, whether it erases) of every link, in the schema's order."""
    index = schema.table_index
    return [(link.name, index(link.child), index(link.parent), link.erases) for link in schema.links]


def _native_table(table: Table) -> NativeTable:
    age_us, degree = table.retention.age_us, table.retention.degree
    return NativeTable(
        name=table.name,
        key_parts_are_text=[part.type is KeyType.STRING for part in table.primary_key],
        has_time=table.time_column is not None,
        known_time=_KNOWN_TIMES[table.known_time.kind],
        lateness_us=NO_BOUND_US if table.lateness_us is None else table.lateness_us,
        future_us=table.future_us,
        retention_age_us=NO_BOUND_US if age_us is None else age_us,
        retention_degree=NO_BOUND_COUNT if degree is None else degree,
        columns_on_disk=table.on_disk,
        columns=[_native_column(column) for column in table.columns],
    )


def _native_column(column: Column) -> tuple[str, int, bool, bool, int]:
    joined = column.kind is ColumnKind.MULTICATEGORICAL
    return column.name, _KINDS[column.kind], joined, column.outcome, column.dim

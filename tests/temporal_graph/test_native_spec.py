"""A schema reaches the native core whole and in its own order."""

from __future__ import annotations

from temporal_graph.native_spec import NO_BOUND_COUNT, NO_BOUND_US, native_links, native_tables
from temporal_graph.schema import Schema, parse_schema


def test_tables_links_and_bounds_are_said_in_native_terms(schema: Schema) -> None:
    """Kinds become the native ones, absent bounds the largest number, links their table indices."""
    customers, payments, visits = native_tables(schema)
    assert (customers.name, customers.has_time, customers.key_parts_are_text) == ("customers", False, [False])
    assert (payments.lateness_us, payments.future_us, payments.known_time) == (3_600_000_000, 60_000_000, 1)
    assert payments.columns == [
        ("amount", 0, False, False, 0),
        ("fraud", 4, False, True, 0),
        ("tags", 2, True, False, 0),
    ]
    assert (visits.key_parts_are_text, visits.lateness_us) == ([], NO_BOUND_US)
    assert (visits.retention_age_us, visits.retention_degree) == (NO_BOUND_US, NO_BOUND_COUNT)
    assert native_links(schema) == [("customer_id", 1, 0, False), ("customer_id", 2, 0, False)]


def test_retention_and_storage_are_carried() -> None:
    """Age in microseconds and degree as they are written, and where the cells lie."""
    options = "retention: {age: 2s, degree: 4}, storage: disk, columns: {a: text}"
    table_text = f"{{primary_key: {{id: string}}, time_column: t, {options}}}"
    (table,) = native_tables(parse_schema(f"{{version: 1, name: n, tables: {{b: {table_text}}}}}"))
    assert (table.retention_age_us, table.retention_degree, table.key_parts_are_text) == (2_000_000, 4, [True])
    assert table.columns_on_disk

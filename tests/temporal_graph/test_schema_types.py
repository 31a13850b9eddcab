"""Tables, links and the fingerprint."""

from __future__ import annotations

import pytest

from temporal_graph.errors import SchemaError
from temporal_graph.schema_parse import parse_schema
from temporal_graph.schema_types import KeyType, Schema

TEXT = """
version: 1
name: shop
tables:
  customers:
    primary_key: {customer_id: integer}
  stores:
    primary_key: {region: string, store_no: integer}
    columns: {area: numerical}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    known_time: {column: reported_at}
    lateness: 7d
    retention: {age: 365d}
    columns:
      amount: numerical
      fraud: {kind: boolean, outcome: true}
      card: {kind: categorical, private: true}
      vector: {kind: embedding, dim: 4}
    links:
      customer_id: customers
      store: {table: stores, columns: [region, store_no]}
sources:
  - {topic: orders, table: orders, format: json}
"""
FINGERPRINT = "b443cf22f2445e2417d459b61367198cd6ef08594b52827579e6e0334cf4d05c"


@pytest.fixture(scope="module")
def schema() -> Schema:
    """Customers and stores with orders between them."""
    return parse_schema(TEXT)


def test_edge_types_go_both_ways(schema: Schema) -> None:
    """Link i gives edge type 2i from child to parent and 2i + 1 back, composite keys joined by a plus."""
    assert schema.edge_types == (
        "orders.customer_id->customers.customer_id",
        "customers.customer_id->orders.customer_id",
        "orders.region+store_no->stores.region+store_no",
        "stores.region+store_no->orders.region+store_no",
    )
    assert [link.name for link in schema.links] == ["customer_id", "region+store_no"]


def test_look_ups_by_name(schema: Schema) -> None:
    """Tables, columns and links are found by name; the outcome is a table's one."""
    orders = schema.table("orders")
    assert schema.table_index("orders") == 2
    assert orders.column("vector").dim == 4
    assert orders.outcome == orders.column("fraud")
    assert schema.table("customers").outcome is None
    assert schema.link_key_types(orders.link("region+store_no")) == (KeyType.STRING, KeyType.INTEGER)


def test_look_ups_that_fail_say_what_there_is(schema: Schema) -> None:
    """A wrong name raises with the place and the nearest right one."""
    with pytest.raises(SchemaError, match=r"tables: .*'order'; did you mean 'orders'"):
        schema.table("order")
    with pytest.raises(SchemaError, match=r"tables\.orders\.columns: .*did you mean 'amount'"):
        schema.table("orders").column("amont")
    with pytest.raises(SchemaError, match=r"tables\.orders\.links: .*did you mean 'customer_id'"):
        schema.table("orders").link("customer")


def test_fingerprint_is_stable(schema: Schema) -> None:
    """The fingerprint of this schema is the same in every version of the code: snapshots and checkpoints carry it."""
    assert schema.fingerprint() == FINGERPRINT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: shop", "name: mall"),
        ("lateness: 7d", "lateness: 9d"),
        ("retention: {age: 365d}", "retention: {degree: 10}"),
        ("retention: {age: 365d}", "storage: disk"),
        ("  - {topic: orders, table: orders, format: json}", "  - {topic: o, table: orders, format: protobuf}"),
    ],
)
def test_fingerprint_ignores_operation(schema: Schema, old: str, new: str) -> None:
    """Names of the schema, bounds, retention and sources change without breaking a snapshot or a model."""
    assert old in TEXT
    assert parse_schema(TEXT.replace(old, new)).fingerprint() == schema.fingerprint()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("customer_id: integer", "customer_id: string"),
        ("time_column: at", "time_column: on_"),
        ("known_time: {column: reported_at}", "known_time: {column: known_at}"),
        ("known_time: {column: reported_at}", "known_time: broker"),
        ("amount: numerical", "amount: categorical"),
        ("amount: numerical", "sum: numerical"),
        ("outcome: true", "outcome: false"),
        ("private: true", "private: false"),
        ("dim: 4", "dim: 5"),
        ("      customer_id: customers\n", ""),
        ("    time_column: at\n", "    time_column: at\n    private: [customer_id]\n"),
        ("      amount: numerical\n", "      amount: numerical\n      more: text\n"),
    ],
)
def test_fingerprint_covers_meaning(schema: Schema, old: str, new: str) -> None:
    """Whatever changes what a cell, a key, a link or a clock means changes the fingerprint."""
    assert old in TEXT
    assert parse_schema(TEXT.replace(old, new)).fingerprint() != schema.fingerprint()


def test_fingerprint_of_some_tables(schema: Schema) -> None:
    """Adding a table, and a link to it, leaves the fingerprint of the tables that were used as it was."""
    used = ["orders", "customers"]
    before = schema.fingerprint(used)
    grown = TEXT.replace("  orders:\n", "  couriers:\n    primary_key: {courier_id: integer}\n  orders:\n").replace(
        "      customer_id: customers\n", "      courier_id: couriers\n      customer_id: customers\n"
    )
    assert parse_schema(grown).fingerprint(used) == before
    assert parse_schema(grown).fingerprint() != schema.fingerprint()
    assert schema.fingerprint(["customers"]) != before
    assert schema.fingerprint(reversed(used)) == before


def test_fingerprint_of_some_columns(schema: Schema) -> None:
    """A column that was not used may come, change and go; one that was used may not."""
    used = {"customers": [], "orders": ["amount", "fraud"]}
    before = schema.fingerprint(used)
    assert parse_schema(TEXT.replace("dim: 4", "dim: 5")).fingerprint(used) == before
    assert parse_schema(TEXT.replace("amount: numerical", "amount: text")).fingerprint(used) != before


def test_fingerprint_of_unknown_names(schema: Schema) -> None:
    """A table or column that does not exist raises instead of fingerprinting nothing."""
    with pytest.raises(SchemaError):
        schema.fingerprint(["order"])
    with pytest.raises(SchemaError):
        schema.fingerprint({"orders": ["amont"]})

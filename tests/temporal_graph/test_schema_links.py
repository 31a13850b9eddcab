"""Links across tables, and privacy carried along them."""

from __future__ import annotations

import pytest

from temporal_graph.errors import SchemaError
from temporal_graph.schema_parse import parse_schema
from temporal_graph.schema_types import KeyType, Link, Schema

BASE = """
version: 1
name: shop
tables:
  customers: {primary_key: {customer_id: integer}}
  orders:
    primary_key: {order_id: integer, region: string}
    links: {customer_id: customers}
  lines:
    primary_key: {order_id: integer, region: string, line: integer}
    links:
      order: {table: orders, columns: [order_id, region]}
      replaces: {table: lines, columns: [old_order, old_region, old_line]}
"""


def with_private(**private: str) -> Schema:
    """The base schema with private keys given by table."""
    text = BASE
    for table, names in private.items():
        text = text.replace(f"  {table}:\n", f"  {table}:\n    private: [{names}]\n")
    return parse_schema(text.replace("customers: {", "customers: {private: [], "))


def test_composite_links_match_part_by_part() -> None:
    """A composite link names its columns in the order of the parent's key; a table may link to itself."""
    lines = parse_schema(BASE).table("lines")
    assert lines.links == (
        Link("order_id+region", ("order_id", "region"), "lines", "orders", ("order_id", "region")),
        Link(
            "old_order+old_region+old_line",
            ("old_order", "old_region", "old_line"),
            "lines",
            "lines",
            ("order_id", "region", "line"),
        ),
    )


def test_a_key_may_be_a_link() -> None:
    """A column that is primary key and link at once is both: a row of the child for each parent."""
    text = BASE + "  profiles:\n    primary_key: {customer_id: integer}\n    links: {customer_id: customers}\n"
    profiles = parse_schema(text).table("profiles")
    assert profiles.primary_key[0].name == profiles.links[0].name == "customer_id"


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("order: orders", "2 column(s), one for each part of the key of 'orders' (order_id, region)"),
        ("order: {table: orders, columns: [a, b, c]}", "2 column(s)"),
        ("c: custmers", "did you mean 'customers'"),
        ("c: {table: nowhere, columns: [c]}", "a table of the schema, found 'nowhere'"),
        ("c: keyless", "a parent with a primary_key"),
        ("order: {table: orders, columns: [a, a]}", "each once"),
    ],
)
def test_links_that_lead_nowhere(written: str, says: str) -> None:
    """A link needs a parent that exists, has a key, and has as many parts as the link has columns."""
    with pytest.raises(SchemaError) as caught:
        parse_schema(BASE + f"  keyless:\n  more:\n    links: {{{written}}}\n")
    assert caught.value.path.startswith("tables.more.links.")
    assert says in str(caught.value)


def test_one_link_on_the_same_columns() -> None:
    """Two links on the same columns would have one name, and are refused."""
    text = BASE + "  more:\n    links: {a: customers, b: {table: customers, columns: [a]}}\n"
    with pytest.raises(SchemaError, match=r"tables\.more\.links\.b: expected one link on the same columns"):
        parse_schema(text)


@pytest.mark.parametrize(
    "entries",
    [
        "primary_key: {a: string}\n    links: {a: customers}",
        "links: {a: customers, b: {table: orders, columns: [b, a]}}",
    ],
)
def test_a_column_has_one_type(entries: str) -> None:
    """A column cannot be an integer as one key and a string as another."""
    with pytest.raises(SchemaError, match=r"expected column 'a' to be"):
        parse_schema(BASE + f"  more:\n    {entries}\n")


def test_long_composite_names() -> None:
    """The joined name of a composite link has to fit the core's room for a name."""
    columns = ", ".join("c" * 60 + str(i) for i in range(2))
    with pytest.raises(SchemaError, match="at most 119 characters together"):
        parse_schema(BASE + f"  more:\n    links: {{order: {{table: orders, columns: [{columns}]}}}}\n")


def test_nothing_private() -> None:
    """Without a private word, keys keep their types."""
    schema = with_private()
    assert all(not table.private_keys for table in schema.tables)
    assert schema.table("customers").primary_key[0].type is KeyType.INTEGER


def test_a_private_link_makes_its_key_private() -> None:
    """A private foreign key makes the parent's key private too: hashed on one side only, they would never meet."""
    schema = with_private(orders="customer_id")
    assert schema.table("orders").private_keys == {"customer_id"}
    assert schema.table("customers").private_keys == {"customer_id"}
    assert schema.table("customers").primary_key[0].type is KeyType.STRING
    assert schema.link_key_types(schema.table("orders").link("customer_id")) == (KeyType.STRING,)


@pytest.mark.parametrize("table", ["orders", "lines"])
def test_privacy_goes_along_chains(table: str) -> None:
    """One private part spreads through keys that are links, and through links of a table to itself, and no further."""
    schema = with_private(**{table: "order_id"})
    assert schema.table("orders").private_keys == {"order_id"}
    assert schema.table("lines").private_keys == {"order_id", "old_order"}
    assert not schema.table("customers").private_keys
    types = [part.type for part in schema.table("lines").primary_key]
    assert types == [KeyType.STRING, KeyType.STRING, KeyType.INTEGER]


def test_private_names_exist() -> None:
    """A private name that is neither key nor link is refused, and a typed column is told where its word goes."""
    with pytest.raises(SchemaError, match=r"tables\.orders\.private\[0\].*\{kind: \.\.\., private: true\}"):
        with_private(orders="amount")

"""Schemas as people write them, right and wrong."""

from __future__ import annotations

import pytest

from temporal_graph.errors import SchemaError
from temporal_graph.schema_parse import COLUMNS_MAX, LINKS_MAX, TABLES_MAX, parse_schema
from temporal_graph.schema_types import (
    FUTURE_DEFAULT_US,
    Column,
    ColumnKind,
    KeyColumn,
    KeyType,
    KnownTime,
    Retention,
    Source,
    Table,
)

DAY_US = 86_400_000_000

PAYMENTS = """
version: 1
name: payments
tables:
  customers:
    primary_key: {customer_id: integer}
  terminals:
    primary_key: {terminal_id: integer}
  transactions:
    primary_key: {transaction_id: integer}
    time_column: tx_datetime
    known_time: event_time
    lateness: 7d
    future: 10m
    retention: {age: 365d, degree: 10000}
    storage: disk
    columns:
      tx_amount: numerical
      tx_fraud: {kind: boolean, outcome: true}
      card_number: {kind: categorical, private: true}
    links:
      customer_id: customers
      terminal_id: terminals
    private: [customer_id]
sources:
  - {topic: transactions, table: transactions, format: json, operation: insert}
  - topic: fraud_reports
    table: transactions
    format: json
    operation: upsert
    event_time: known_at
    known_time: known_at
"""


def test_payments() -> None:
    """Every word of the payments schema arrives in its place."""
    schema = parse_schema(PAYMENTS)
    assert schema.name == "payments"
    assert [table.name for table in schema.tables] == ["customers", "terminals", "transactions"]
    table = schema.table("transactions")
    assert table.primary_key == (KeyColumn("transaction_id", KeyType.INTEGER),)
    assert (table.time_column, table.known_time) == ("tx_datetime", KnownTime())
    assert (table.lateness_us, table.future_us) == (7 * DAY_US, 600_000_000)
    assert table.retention == Retention(365 * DAY_US, 10_000)
    assert [each.storage for each in schema.tables] == ["memory", "memory", "disk"]
    assert table.columns == (
        Column("tx_amount", ColumnKind.NUMERICAL),
        Column("tx_fraud", ColumnKind.BOOLEAN, outcome=True),
        Column("card_number", ColumnKind.CATEGORICAL, private=True),
    )
    assert [(link.name, link.parent) for link in table.links] == [
        ("customer_id", "customers"),
        ("terminal_id", "terminals"),
    ]
    assert table.private_keys == {"customer_id"}
    assert schema.sources == (
        Source("transactions", "transactions", "json", "insert"),
        Source("fraud_reports", "transactions", "json", "upsert", "known_at", "known_at"),
    )


def one_table(body: str = "") -> str:
    """A schema with tables `parents` (integer key) and `t`, whose entries are `body`, indented by 4."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"version: 1\nname: x\ntables:\n  parents: {{primary_key: {{p: integer}}}}\n  t:\n{lines}"


def parse_table(body: str) -> Table:
    """The table `t` of `one_table`."""
    return parse_schema(one_table(body)).table("t")


def test_a_table_may_be_empty() -> None:
    """A table with nothing said has no key, no time and the default bounds."""
    assert parse_table("") == Table("t", future_us=FUTURE_DEFAULT_US)
    assert FUTURE_DEFAULT_US == 300_000_000


def test_every_kind_of_column() -> None:
    """All seven kinds are read, short and long."""
    body = "columns:\n" + "".join(f"  {kind}_: {kind}\n" for kind in ColumnKind if kind is not ColumnKind.EMBEDDING)
    body += "  embedding_: {kind: embedding, dim: 8}\n  long: {kind: text}\n"
    columns = parse_table(body).columns
    assert {column.kind for column in columns} == set(ColumnKind)
    assert columns[-2] == Column("embedding_", ColumnKind.EMBEDDING, dim=8)
    assert columns[-1] == Column("long", ColumnKind.TEXT)


@pytest.mark.parametrize(
    ("written", "known_time"),
    [
        ("", KnownTime()),
        ("known_time: event_time", KnownTime()),
        ("known_time: broker", KnownTime("broker")),
        ("known_time: {column: reported}", KnownTime("column", "reported")),
    ],
)
def test_known_times(written: str, known_time: KnownTime) -> None:
    """The known time comes from the event time unless the table names the broker or a column."""
    assert parse_table(f"time_column: at\n{written}").known_time == known_time


def test_composite_keys_keep_their_order() -> None:
    """The parts of a key stand in the order written, each with its type."""
    key = parse_table("primary_key: {b: string, a: integer}").primary_key
    assert key == (KeyColumn("b", KeyType.STRING), KeyColumn("a", KeyType.INTEGER))


@pytest.mark.parametrize("written", ["protobuf", "row_event_json"])
def test_row_events_name_their_table(written: str) -> None:
    """Records that are row events name their table, so their topic may be listed once for each table."""
    topic = "".join(f"  - {{topic: all, table: {table}, format: {written}}}\n" for table in ("parents", "t"))
    schema = parse_schema(one_table() + "sources:\n" + topic)
    assert [source.table for source in schema.sources] == ["parents", "t"]


WRONG_TABLES = [
    # what is written in table t, the path of the error after tables.t, what the message must say
    ("colums: {}", "colums", "did you mean 'columns'"),
    ("primary_key: id", "primary_key", "a mapping"),
    ("primary_key: {}", "primary_key", "1 to 16 key columns"),
    ("primary_key: {id: int}", "primary_key.id", "one of integer, string, found 'int'"),
    ("primary_key: {id: float}", "primary_key.id", "one of integer, string"),
    ("primary_key: {my id: integer}", "primary_key.my id", "a name of letters"),
    ("time_column: [at]", "time_column", "a name of letters"),
    ("time_column:", "time_column", "a name of letters"),
    ("known_time: event\ntime_column: at", "known_time", "event_time, broker or {column: NAME}"),
    ("known_time: {colum: x}\ntime_column: at", "known_time.colum", "did you mean 'column'"),
    ("known_time: {}\ntime_column: at", "known_time.column", "required key"),
    ("known_time: {column: at}\ntime_column: at", "known_time.column", "event_time, if both clocks are one column"),
    ("known_time: broker", "time_column", "a time column, as tables.t.known_time is given"),
    ("known_time: {column: r}", "time_column", "a time column, as tables.t.known_time is given"),
    ("lateness: 7d", "time_column", "a time column, as tables.t.lateness is given"),
    ("future: 7d", "time_column", "a time column, as tables.t.future is given"),
    ("retention: {age: 7d}", "time_column", "a time column, as tables.t.retention.age is given"),
    ("lateness: week\ntime_column: at", "lateness", "a duration such as"),
    ("lateness: 7\ntime_column: at", "lateness", "a duration such as"),
    ("retention: 7d\ntime_column: at", "retention", "a mapping with the keys age, degree"),
    ("retention: {degree: 0}", "retention.degree", "a whole number from 1"),
    ("retention: {degree: 1.5}", "retention.degree", "a whole number from 1"),
    ("storage: ssd\ncolumns: {a: text}", "storage", "memory or disk, where the cells of the table's rows lie"),
    ("storage: disk", "storage", "memory, as a table without columns has no cells"),
    ("retention: {ages: 7d}", "retention.ages", "did you mean 'age'"),
    ("columns: [a]", "columns", "a mapping"),
    ("columns: {a: numeric}", "columns.a", "did you mean 'numerical'"),
    ("columns: {a: {}}", "columns.a.kind", "required key"),
    ("columns: {a: {kind: txt}}", "columns.a.kind", "did you mean 'text'"),
    ("columns: {a: {kind: text, size: 3}}", "columns.a.size", "one of the keys kind, dim, outcome, private"),
    ("columns: {a: embedding}", "columns.a", "{kind: embedding, dim: N}"),
    ("columns: {a: {kind: embedding}}", "columns.a.dim", "required key"),
    ("columns: {a: {kind: embedding, dim: 0}}", "columns.a.dim", "a whole number from 1"),
    ("columns: {a: {kind: text, dim: 3}}", "columns.a.dim", "no dim, which only an embedding has"),
    ("columns: {a: {kind: boolean, outcome: yes please}}", "columns.a.outcome", "true or false"),
    ("columns: {a: {kind: text, outcome: true}}", "columns.a.outcome", "boolean, numerical, categorical"),
    (
        "columns: {a: {kind: boolean, outcome: true}, b: {kind: boolean, outcome: true}}",
        "columns.b.outcome",
        "at most one outcome in a table, found 'a and b'",
    ),
    ("columns: {a: {kind: numerical, private: true}}", "columns.a.private", "categorical, multicategorical, text"),
    ("columns: {a: {kind: categorical, private: true, outcome: true}}", "columns.a.private", "cannot be predicted"),
    ("columns: {a: text}\ntime_column: a", "columns.a", "no clock"),
    ("columns: {a: text}\ntime_column: at\nknown_time: {column: a}", "columns.a", "no clock"),
    ("columns: {a: text}\nprimary_key: {a: string}", "columns.a", "neither primary key nor link"),
    ("columns: {a: text}\nlinks: {a: parents}", "columns.a", "neither primary key nor link"),
    ("time_column: a\nlinks: {a: parents}", "time_column", "neither key nor link"),
    ("time_column: a\nprimary_key: {a: integer}", "time_column", "neither key nor link"),
    ("time_column: at\nknown_time: {column: a}\nlinks: {a: parents}", "known_time.column", "neither key nor link"),
    ("links: [a]", "links", "a mapping"),
    ("links: {a-b: parents}", "links.a-b", "a name of letters"),
    ("links: {a: {columns: [b]}}", "links.a.table", "required key"),
    ("links: {a: {table: parents, erase: 1}}", "links.a.erase", "true or false"),
    ("links: {a: {table: parents, columns: []}}", "links.a.columns", "the link's columns, each once"),
    ("links: {a: {table: parents, columns: [b, b]}}", "links.a.columns", "the link's columns, each once"),
    ("links: {a: {table: parents, column: b}}", "links.a.column", "did you mean 'columns'"),
    ("private: a", "private", "a list"),
    ("private: [7]", "private[0]", "a name of letters"),
]


@pytest.mark.parametrize(("body", "path", "says"), WRONG_TABLES)
def test_wrong_tables(body: str, path: str, says: str) -> None:
    """Each mistake in a table is refused at its own key path, with what was expected instead."""
    with pytest.raises(SchemaError) as caught:
        parse_table(body)
    assert caught.value.path == f"tables.t.{path}"
    assert says in str(caught.value)


WRONG_SCHEMAS = [
    ("", "", "a mapping"),
    ("[1]", "", "a mapping with the keys version, name, tables, sources"),
    ("name: x\ntables: {t: }", "version", "required key"),
    ("version: 2\nname: x\ntables: {t: }", "version", "1, the version of this format, found the integer 2"),
    ("version: true\nname: x\ntables: {t: }", "version", "1, the version of this format"),
    ("version: 1\ntables: {t: }", "name", "required key"),
    ("version: 1\nname: my shop\ntables: {t: }", "name", "a name of letters"),
    ("version: 1\nname: x", "tables", "required key"),
    ("version: 1\nname: x\ntables:", "tables", "a mapping, found nothing"),
    ("version: 1\nname: x\ntables: {}", "tables", "1 to 64 tables"),
    ("version: 1\nname: x\ntables: {default: }", "tables.default", "not reserved"),
    ("version: 1\nname: x\ntables: {links: }", "tables.links", "not reserved"),
    ("version: 1\nname: x\ntables: {a b: }", "tables.a b", "a name of letters"),
    ("version: 1\nname: x\ntable: {t: }", "table", "did you mean 'tables'"),
    ("version: 1\nname: x\ntables: {t: , t: }", "line 3", "each key once"),
    ("version: 1\nname: x\ntables: {t: text}", "tables.t", "a mapping"),
]


@pytest.mark.parametrize(("text", "path", "says"), WRONG_SCHEMAS)
def test_wrong_schemas(text: str, path: str, says: str) -> None:
    """Each mistake at the root is refused at its own key path."""
    with pytest.raises(SchemaError) as caught:
        parse_schema(text)
    assert caught.value.path == path
    assert says in str(caught.value)


WRONG_SOURCES = [
    ("{topic: a, table: t}", "sources[0].format", "required key"),
    ("{topic: a b, table: t, format: json}", "sources[0].topic", "a Kafka topic"),
    ("{topic: 7, table: t, format: json}", "sources[0].topic", "a Kafka topic"),
    ("{topic: a, table: parent, format: json}", "sources[0].table", "did you mean 'parents'"),
    ("{topic: a, table: t, format: avro}", "sources[0].format", "one of json, protobuf, debezium"),
    ("{topic: a, table: t, format: json, operation: update}", "sources[0].operation", "insert, upsert, delete"),
    ("{topic: a, table: t, format: json, event_time: x}", "sources[0].event_time", "table 't' has no time_column"),
    ("{topic: a, table: t, format: json, known_time: x}", "sources[0].known_time", "table 't' has no time_column"),
    ("{topic: a, table: t, format: json, key: x}", "sources[0].key", "one of the keys topic"),
    (
        "{topic: a, table: t, format: json}\n  - {topic: a, table: parents, format: json}",
        "sources[1].topic",
        "each topic once",
    ),
    ("{topic: a, table: t, format: protobuf}\n  - {topic: a, table: t, format: protobuf}", "sources[1].topic", "once"),
]


@pytest.mark.parametrize(("source", "path", "says"), WRONG_SOURCES)
def test_wrong_sources(source: str, path: str, says: str) -> None:
    """Each mistake in a source is refused at its position in the list."""
    with pytest.raises(SchemaError) as caught:
        parse_schema(one_table() + f"sources:\n  - {source}\n")
    assert caught.value.path == path
    assert says in str(caught.value)


def test_limits() -> None:
    """As many tables, columns and links as the native core has room for, and not one more."""

    def tables(count: int) -> str:
        return "version: 1\nname: x\ntables:\n" + "".join(f"  t{i}:\n" for i in range(count))

    def columns(count: int) -> str:
        return "columns:\n" + "".join(f"  c{i}: text\n" for i in range(count))

    def links(count: int) -> str:
        return "links:\n" + "".join(f"  c{i}: parents\n" for i in range(count))

    assert len(parse_schema(tables(TABLES_MAX)).tables) == TABLES_MAX
    assert len(parse_table(columns(COLUMNS_MAX)).columns) == COLUMNS_MAX
    assert len(parse_table(links(LINKS_MAX)).links) == LINKS_MAX
    for text in (tables(TABLES_MAX + 1), one_table(columns(COLUMNS_MAX + 1)), one_table(links(LINKS_MAX + 1))):
        with pytest.raises(SchemaError, match=r"at most|1 to 64"):
            parse_schema(text)

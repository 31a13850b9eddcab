"""From YAML to a Schema, strictly: an unknown key, a link to nowhere, a clock without a column are errors with a path.

text ─► read_yaml ─► tables, one by one ─► links across tables ─► privacy across links ─► sources ─► Schema
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from temporal_graph.errors import SchemaError
from temporal_graph.schema_links import LinkDraft, TableDraft, resolve_links
from temporal_graph.schema_types import (
    FUTURE_DEFAULT_US,
    Column,
    ColumnKind,
    KeyColumn,
    KeyType,
    KnownTime,
    Retention,
    Schema,
    Source,
    Table,
)
from temporal_graph.schema_yaml import Cursor, checked_name, read_yaml

VERSION = 1
TABLES_MAX = 64
COLUMNS_MAX = 1024
LINKS_MAX = 128
"""Of the whole schema. These three are the native core's room in the arena's header."""
KEY_PARTS_MAX = 16
EMBEDDING_DIM_MAX = 65_536
DEGREE_MAX = 2**31 - 1

RESERVED_TABLES = ("default", "links")
"""`default` is a word of the sampling plan, `links` of the graph's dump."""

_ROOT_KEYS = ("version", "name", "tables", "sources")
_TABLE_KEYS = (
    "primary_key", "time_column", "known_time", "lateness", "future", "retention", "storage", "columns", "links",
    "private",
)  # fmt: skip
_COLUMN_KEYS = ("kind", "dim", "outcome", "private")
_LINK_KEYS = ("table", "columns", "erase")
_SOURCE_KEYS = ("topic", "table", "format", "operation", "event_time", "known_time")
_FORMATS = ("json", "protobuf", "debezium", "row_event_json")
_FORMATS_NAMING_TABLES = ("protobuf", "row_event_json")
_OPERATIONS = ("insert", "upsert", "delete", "erase")
_OUTCOME_KINDS = (ColumnKind.BOOLEAN, ColumnKind.NUMERICAL, ColumnKind.CATEGORICAL)
_PRIVATE_KINDS = (ColumnKind.CATEGORICAL, ColumnKind.MULTICATEGORICAL, ColumnKind.TEXT)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def load_schema(path: Path | str) -> Schema:
    """Read and check a schema file.

    Raises:
        OSError: the file cannot be read.
        SchemaError: it is not a schema.
    """
    return parse_schema(Path(path).read_text(encoding="utf-8"))


def parse_schema(text: str) -> Schema:
    """Read and check a schema written in YAML; the first thing wrong raises SchemaError with its key path."""
    root = read_yaml(text).mapping(_ROOT_KEYS, required=("version", "name", "tables"))
    if root.at("version").value != VERSION or isinstance(root.at("version").value, bool):
        raise root.at("version").error(f"{VERSION}, the version of this format")
    name = root.at("name").name()
    drafts = [_parse_table(table, cursor) for table, cursor in root.at("tables").mapping().entries()]
    if not 1 <= len(drafts) <= TABLES_MAX:
        raise SchemaError("tables", f"1 to {TABLES_MAX} tables", len(drafts))
    tables = resolve_links(drafts)
    links_count = sum(len(table.links) for table in tables)
    if links_count > LINKS_MAX:
        raise SchemaError("tables", f"at most {LINKS_MAX} links", links_count)
    return Schema(name=name, tables=tables, sources=_parse_sources(root.at("sources"), tables))


def _parse_table(name: str, cursor: Cursor) -> TableDraft:
    checked_name(cursor.path, name)
    if name in RESERVED_TABLES:
        raise SchemaError(cursor.path, f"a name that is not reserved ({', '.join(RESERVED_TABLES)})", name)
    if cursor.value is None:
        cursor = Cursor(cursor.path, {})
    cursor.mapping(_TABLE_KEYS)
    time_column = cursor.at("time_column").name() if cursor.has("time_column") else None
    known_time = _parse_known_time(cursor.at("known_time")) if cursor.has("known_time") else KnownTime()
    retention = _parse_retention(cursor.at("retention"))
    table = Table(
        name=name,
        primary_key=_parse_primary_key(cursor.at("primary_key")),
        time_column=time_column,
        known_time=known_time,
        lateness_us=cursor.at("lateness").duration_us() if cursor.has("lateness") else None,
        future_us=cursor.at("future").duration_us() if cursor.has("future") else FUTURE_DEFAULT_US,
        columns=_parse_columns(cursor.at("columns")),
        retention=retention,
        storage=_parse_storage(cursor),
    )
    _require_time_column(cursor, table)
    links = tuple(_parse_link(label, entry) for label, entry in cursor.at("links").entries())
    private = {element.path: element.name() for element in cursor.at("private").elements()}
    draft = TableDraft(cursor.path, table, links, private)
    _require_disjoint_names(draft)
    return draft


def _parse_primary_key(cursor: Cursor) -> tuple[KeyColumn, ...]:
    types = [key_type.value for key_type in KeyType]
    parts = []
    for name, entry in cursor.entries():
        parts.append(KeyColumn(checked_name(entry.path, name), KeyType(entry.choice(types))))
    if cursor.value is not None and not 1 <= len(parts) <= KEY_PARTS_MAX:
        raise cursor.error(f"1 to {KEY_PARTS_MAX} key columns (leave primary_key out for a table without key)")
    return tuple(parts)


def _parse_known_time(cursor: Cursor) -> KnownTime:
    expected = "event_time, broker or {column: NAME}"
    if isinstance(cursor.value, dict):
        return KnownTime("column", cursor.mapping(("column",), required=("column",)).at("column").name())
    word = cursor.choice(("event_time", "broker"), expected)
    return KnownTime("broker") if word == "broker" else KnownTime()


def _parse_retention(cursor: Cursor) -> Retention:
    if cursor.value is None:
        return Retention()
    cursor.mapping(("age", "degree"))
    return Retention(
        age_us=cursor.at("age").duration_us() if cursor.has("age") else None,
        degree=cursor.at("degree").whole_number(1, DEGREE_MAX) if cursor.has("degree") else None,
    )


def _parse_storage(cursor: Cursor) -> Literal["memory", "disk"]:
    if not cursor.has("storage"):
        return "memory"
    word = cursor.at("storage").choice(("memory", "disk"), "memory or disk, where the cells of the table's rows lie")
    if word == "disk" and not cursor.has("columns"):
        raise cursor.at("storage").error("memory, as a table without columns has no cells")
    return "disk" if word == "disk" else "memory"


def _parse_columns(cursor: Cursor) -> tuple[Column, ...]:
    columns: list[Column] = []
    for name, entry in cursor.entries():
        column = _parse_column(name, entry)
        earlier = next((other.name for other in columns if other.outcome), None)
        if column.outcome and earlier is not None:
            raise SchemaError(f"{entry.path}.outcome", "at most one outcome in a table", f"{earlier} and {name}")
        columns.append(column)
    if len(columns) > COLUMNS_MAX:
        raise SchemaError(cursor.path, f"at most {COLUMNS_MAX} columns", len(columns))
    return tuple(columns)


def _parse_column(name: str, cursor: Cursor) -> Column:
    checked_name(cursor.path, name)
    kinds = [kind.value for kind in ColumnKind]
    if not isinstance(cursor.value, dict):
        kind = ColumnKind(cursor.choice(kinds, f"one of {', '.join(kinds)}, or a mapping with kind"))
        if kind is ColumnKind.EMBEDDING:
            raise cursor.error("{kind: embedding, dim: N}, as an embedding has a length")
        return Column(name, kind)
    cursor.mapping(_COLUMN_KEYS, required=("kind",))
    kind = ColumnKind(cursor.at("kind").choice(kinds))
    if kind is ColumnKind.EMBEDDING:
        cursor.mapping(_COLUMN_KEYS, required=("dim",))
    elif cursor.has("dim"):
        raise SchemaError(f"{cursor.path}.dim", "no dim, which only an embedding has", cursor.at("dim").value)
    outcome, private = cursor.at("outcome").boolean(), cursor.at("private").boolean()
    if outcome and kind not in _OUTCOME_KINDS:
        raise SchemaError(f"{cursor.path}.outcome", f"an outcome to be {', '.join(_OUTCOME_KINDS)}", kind.value)
    if private and kind not in _PRIVATE_KINDS:
        raise SchemaError(f"{cursor.path}.private", f"a private column to be {', '.join(_PRIVATE_KINDS)}", kind.value)
    if private and outcome:
        raise SchemaError(f"{cursor.path}.private", "an outcome in the clear: a hash cannot be predicted", private)
    dim = cursor.at("dim").whole_number(1, EMBEDDING_DIM_MAX) if kind is ColumnKind.EMBEDDING else 0
    return Column(name, kind, dim, outcome, private)


def _parse_link(label: str, cursor: Cursor) -> LinkDraft:
    if isinstance(cursor.value, str):
        return LinkDraft(cursor.path, (checked_name(cursor.path, label),), cursor.name())
    cursor.mapping(_LINK_KEYS, required=("table",))
    columns: tuple[str, ...] = (label,)
    if cursor.has("columns"):
        columns = tuple(element.name() for element in cursor.at("columns").elements())
        if not columns or len(set(columns)) < len(columns):
            raise cursor.at("columns").error("the link's columns, each once, in the order of the parent's primary key")
    else:
        checked_name(cursor.path, label)
    erases = cursor.at("erase").boolean()
    return LinkDraft(cursor.path, columns, cursor.at("table").name(), erases)


def _require_time_column(cursor: Cursor, table: Table) -> None:
    if table.time_column is not None:
        if table.known_time.column == table.time_column:
            path = f"{cursor.path}.known_time.column"
            raise SchemaError(path, "known_time: event_time, if both clocks are one column", table.time_column)
        return
    for key, needs in (
        ("known_time", table.known_time.kind != "event_time"),
        ("lateness", table.lateness_us is not None),
        ("future", cursor.has("future")),
        ("retention.age", table.retention.age_us is not None),
    ):
        if needs:
            raise SchemaError(f"{cursor.path}.time_column", f"a time column, as {cursor.path}.{key} is given", None)


def _require_disjoint_names(draft: TableDraft) -> None:
    """A key, a clock and a link are not cells: none of them may be a typed column too, nor a clock a key."""
    table = draft.table
    keys = {part.name for part in table.primary_key} | {name for link in draft.links for name in link.columns}
    for role, name in (("time_column", table.time_column), ("known_time.column", table.known_time.column)):
        if name is not None and name in keys:
            raise SchemaError(f"{draft.path}.{role}", "a column that is neither key nor link", name)
    clocks = {name for name in (table.time_column, table.known_time.column) if name is not None}
    for column in table.columns:
        path = f"{draft.path}.columns.{column.name}"
        if column.name in keys:
            raise SchemaError(path, "a column that is neither primary key nor link (those are no cells)", column.name)
        if column.name in clocks:
            raise SchemaError(path, "a column that is no clock (time_column and known_time are no cells)", column.name)


def _parse_sources(cursor: Cursor, tables: tuple[Table, ...]) -> tuple[Source, ...]:
    by_name = {table.name: table for table in tables}
    sources: list[Source] = []
    for entry in cursor.elements():
        entry.mapping(_SOURCE_KEYS, required=("topic", "table", "format"))
        topic = entry.at("topic").text("a Kafka topic")
        if not _TOPIC.fullmatch(topic):
            raise entry.at("topic").error("a Kafka topic (letters, digits, dot, underscore, hyphen; at most 249)")
        table = by_name[entry.at("table").choice(list(by_name), "a table of the schema")]
        event_time = entry.at("event_time").name() if entry.has("event_time") else None
        known_time = entry.at("known_time").name() if entry.has("known_time") else None
        if table.time_column is None and (event_time or known_time):
            key = "event_time" if event_time else "known_time"
            raise entry.at(key).error(f"no time, as table {table.name!r} has no time_column")
        source = Source(
            topic=topic,
            table=table.name,
            format=entry.at("format").choice(_FORMATS),  # type: ignore[arg-type]
            operation=entry.at("operation").choice(_OPERATIONS) if entry.has("operation") else "insert",  # type: ignore[arg-type]
            event_time=event_time,
            known_time=known_time,
        )
        _require_one_reading(entry, source, sources)
        sources.append(source)
    return tuple(sources)


def _require_one_reading(entry: Cursor, source: Source, earlier: list[Source]) -> None:
    """A record of a topic must have one reading; only those of some formats name their table themselves."""
    for other in earlier:
        if other.topic != source.topic:
            continue
        if other.table == source.table or other.format != source.format or source.format not in _FORMATS_NAMING_TABLES:
            expected = f"each topic once ({' and '.join(_FORMATS_NAMING_TABLES)} may carry several tables, each once)"
            raise SchemaError(f"{entry.path}.topic", expected, source.topic)

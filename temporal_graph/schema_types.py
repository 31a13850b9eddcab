"""What a schema says: tables, keys, typed columns, links and sources, as frozen values.

`schema.py` is where they are imported from; `schema_parse.py` builds them from YAML and guarantees what is stated here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from temporal_graph.errors import SchemaError

FUTURE_DEFAULT_US = 5 * 60 * 1_000_000
"""How far an event may lie in the future of its known time before it is a dead letter, unless the table says."""

_FINGERPRINT_DOMAIN = "nowgraph schema fingerprint 1"


class ColumnKind(StrEnum):
    """What the cells of a column are."""

    NUMERICAL = "numerical"
    CATEGORICAL = "categorical"
    MULTICATEGORICAL = "multicategorical"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    TEXT = "text"
    EMBEDDING = "embedding"


class KeyType(StrEnum):
    """What one part of a key is: an int64, or a text ordered by its UTF-8 bytes."""

    INTEGER = "integer"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One part of a primary key. A private part is hashed at the door, so its type is string."""

    name: str
    type: KeyType


@dataclass(frozen=True, slots=True)
class Column:
    """A typed column. `dim` is the length of an embedding and 0 for other kinds."""

    name: str
    kind: ColumnKind
    dim: int = 0
    outcome: bool = False
    private: bool = False


@dataclass(frozen=True, slots=True)
class KnownTime:
    """Where a row's known time comes from: its event time, a column of it, or the broker's append time."""

    kind: Literal["event_time", "column", "broker"] = "event_time"
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A foreign key: the `columns` of `child` hold the primary key of `parent`, part by part.

    `name` is the column's name, or the names joined by "+" for a composite key; it names the link's cell in an event.
    Rows of a link that `erases` are their parent's own and are erased with it; of others only the link is.
    """

    name: str
    columns: tuple[str, ...]
    child: str
    parent: str
    parent_key: tuple[str, ...]
    erases: bool = False

    @property
    def forward(self) -> str:
        """The edge type from a child to its parent: `child.column->parent.key`."""
        return f"{self.child}.{self.name}->{self.parent}.{'+'.join(self.parent_key)}"

    @property
    def backward(self) -> str:
        """The edge type from a parent to its children: `parent.key->child.column`."""
        return f"{self.parent}.{'+'.join(self.parent_key)}->{self.child}.{self.name}"


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: rows up to `age_us` behind the watermark, `degree` children of each parent; None keeps all."""

    age_us: int | None = None
    degree: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its key (none: the source position is the key), clocks, columns, links and bounds in microseconds.

    `storage` is where the cells of its rows lie; keys, clocks and links are in memory always. `private_keys` names the
    key and link columns that are hashed at the door; their values are strings.
    """

    name: str
    primary_key: tuple[KeyColumn, ...] = ()
    time_column: str | None = None
    known_time: KnownTime = KnownTime()
    lateness_us: int | None = None
    future_us: int = FUTURE_DEFAULT_US
    columns: tuple[Column, ...] = ()
    links: tuple[Link, ...] = ()
    retention: Retention = Retention()
    storage: Literal["memory", "disk"] = "memory"
    private_keys: frozenset[str] = frozenset()

    @property
    def on_disk(self) -> bool:
        """Whether there are cells, and they lie on disk."""
        return self.storage == "disk" and bool(self.columns)

    @property
    def outcome(self) -> Column | None:
        """The column that is predicted, where there is one."""
        return next((column for column in self.columns if column.outcome), None)

    def column(self, name: str) -> Column:
        """Return the column of this name.

        Raises:
            SchemaError: the table has no such column.
        """
        for column in self.columns:
            if column.name == name:
                return column
        names = [column.name for column in self.columns]
        raise SchemaError(f"tables.{self.name}.columns", f"a column of {self.name!r}", name, choices=names)

    def link(self, name: str) -> Link:
        """Return the link of this name (its column, or its columns joined by "+").

        Raises:
            SchemaError: the table has no such link.
        """
        for link in self.links:
            if link.name == name:
                return link
        names = [link.name for link in self.links]
        raise SchemaError(f"tables.{self.name}.links", f"a link of {self.name!r}", name, choices=names)


@dataclass(frozen=True, slots=True)
class Source:
    """How the records of a topic become events of a table; the two time fields override the table's columns."""

    topic: str
    table: str
    format: Literal["json", "protobuf", "debezium", "row_event_json"]
    operation: Literal["insert", "upsert", "delete", "erase"] = "insert"
    event_time: str | None = None
    known_time: str | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """All tables and sources. The position of a table, and of an edge type, is its index everywhere else."""

    name: str
    tables: tuple[Table, ...]
    sources: tuple[Source, ...] = ()
    links: tuple[Link, ...] = field(init=False, repr=False, compare=False)
    edge_types: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        links = tuple(link for table in self.tables for link in table.links)
        object.__setattr__(self, "links", links)
        edge_types = tuple(name for link in links for name in (link.forward, link.backward))
        object.__setattr__(self, "edge_types", edge_types)

    def table(self, name: str) -> Table:
        """Return the table of this name.

        Raises:
            SchemaError: there is no such table.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise SchemaError("tables", "a table of the schema", name, choices=[table.name for table in self.tables])

    def table_index(self, name: str) -> int:
        """Return the position of the table in `tables`; raises SchemaError as `table` does."""
        return self.tables.index(self.table(name))

    @property
    def tables_on_disk(self) -> tuple[str, ...]:
        """The names of the tables whose columns lie on disk."""
        return tuple(table.name for table in self.tables if table.on_disk)

    def link_key_types(self, link: Link) -> tuple[KeyType, ...]:
        """Return the types of the parts of a link's foreign key: those of the parent's primary key."""
        return tuple(part.type for part in self.table(link.parent).primary_key)

    def fingerprint(self, tables: Iterable[str] | Mapping[str, Iterable[str]] | None = None) -> str:
        """Return the SHA-256 (hex) of what the graph and a model rest on.

        Covers names, key types, column kinds, outcomes, privacy, links and clocks, in the schema's order; not sources,
        retention, lateness, what erases, storage or the schema's name. `tables` limits it to some tables and the links
        among them, and as a mapping from table to column names also to some columns, so that adding others leaves it
        the same.

        Raises:
            SchemaError: a named table or column does not exist.
        """
        chosen = {name: self.table(name) for name in (tables if tables is not None else (t.name for t in self.tables))}
        columns: dict[str, set[str]] = {}
        if isinstance(tables, Mapping):
            columns = {name: {chosen[name].column(column).name for column in used} for name, used in tables.items()}
        canonical = {
            "domain": _FINGERPRINT_DOMAIN,
            "tables": [
                _canonical_table(table, columns.get(table.name), chosen)
                for table in self.tables
                if table.name in chosen
            ],
        }
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical_table(table: Table, columns: set[str] | None, tables: Mapping[str, Table]) -> dict[str, Any]:
    links = [link for link in table.links if link.parent in tables]
    present = {part.name for part in table.primary_key} | {column for link in links for column in link.columns}
    return {
        "name": table.name,
        "primary_key": [[part.name, part.type.value] for part in table.primary_key],
        "time_column": table.time_column,
        "known_time": [table.known_time.kind, table.known_time.column],
        "columns": [
            [column.name, column.kind.value, column.dim, column.outcome, column.private]
            for column in table.columns
            if columns is None or column.name in columns
        ],
        "links": [[list(link.columns), link.parent, list(link.parent_key)] for link in links],
        "private": sorted(table.private_keys & present),
    }

"""Links across tables: parents found, keys matched part by part, and privacy carried along them.

A private key is hashed at the door, wherever it appears: were the payment's customer hashed and the customer's own key
not, the two would never meet. So privacy spreads from any column to all columns that hold the same key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from temporal_graph.errors import SchemaError
from temporal_graph.schema_types import KeyColumn, KeyType, Link, Table
from temporal_graph.schema_yaml import NAME_LENGTH_MAX

_Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class LinkDraft:
    """A link as written: where, its columns, and its parent's name."""

    path: str
    columns: tuple[str, ...]
    parent: str
    erases: bool = False


@dataclass(frozen=True, slots=True)
class TableDraft:
    """A table whose links and privacy are still as written; `private` maps the path of a name to the name."""

    path: str
    table: Table
    links: tuple[LinkDraft, ...]
    private: dict[str, str]


def resolve_links(drafts: Sequence[TableDraft]) -> tuple[Table, ...]:
    """Return the tables with their links, key types and private keys settled.

    Raises:
        SchemaError: an unknown parent, a parent without key, a wrong number of columns, two links on the same columns,
            a column that would need two types, or a private name that is neither key nor link.
    """
    by_name = {draft.table.name: draft.table for draft in drafts}
    tables = [replace(draft.table, links=_links(draft, by_name)) for draft in drafts]
    _require_one_type(drafts, tables, by_name)
    private = _private_places(drafts, tables)
    return tuple(_with_privacy(table, private) for table in tables)


def _links(draft: TableDraft, tables: dict[str, Table]) -> tuple[Link, ...]:
    links: dict[str, Link] = {}
    for link in draft.links:
        parent = tables.get(link.parent)
        if parent is None:
            raise SchemaError(link.path, "a table of the schema", link.parent, choices=tables)
        if not parent.primary_key:
            expected = f"a parent with a primary_key, which table {parent.name!r} has not"
            raise SchemaError(link.path, expected, link.parent)
        key = tuple(part.name for part in parent.primary_key)
        if len(key) != len(link.columns):
            expected = f"{len(key)} column(s), one for each part of the key of {parent.name!r} ({', '.join(key)})"
            raise SchemaError(link.path, expected, list(link.columns))
        name = "+".join(link.columns)
        if len(name) > NAME_LENGTH_MAX:
            raise SchemaError(link.path, f"column names of at most {NAME_LENGTH_MAX} characters together", name)
        if name in links:
            raise SchemaError(link.path, "one link on the same columns", f"{name} a second time")
        links[name] = Link(name, link.columns, draft.table.name, parent.name, key, link.erases)
    return tuple(links.values())


def _require_one_type(drafts: Sequence[TableDraft], tables: Sequence[Table], by_name: dict[str, Table]) -> None:
    """A column may be key and link, or in two links, if every one of them gives it the same type."""
    for draft, table in zip(drafts, tables, strict=True):
        types = {part.name: (part.type, "the primary key") for part in table.primary_key}
        for written, link in zip(draft.links, table.links, strict=True):
            for column, part in zip(link.columns, by_name[link.parent].primary_key, strict=True):
                known, role = types.setdefault(column, (part.type, f"the link to {link.parent}"))
                if known is not part.type:
                    expected = f"column {column!r} to be {known.value} as in {role}"
                    raise SchemaError(written.path, expected, f"{part.type.value}, the key of {link.parent}")


def _private_places(drafts: Sequence[TableDraft], tables: Sequence[Table]) -> set[_Place]:
    """Return every (table, column) that holds a private key: those written, and all that share values with them."""
    private: set[_Place] = set()
    for draft, table in zip(drafts, tables, strict=True):
        names = {part.name for part in table.primary_key} | {column for link in table.links for column in link.columns}
        for path, name in draft.private.items():
            if name not in names:
                expected = "a key or link column (a typed column takes {kind: ..., private: true})"
                raise SchemaError(path, expected, name, choices=names)
            private.add((table.name, name))
    pairs = list(_shared_places(tables))
    spreading = True
    while spreading:
        spreading = False
        for one, other in pairs:
            if (one in private) != (other in private):
                private |= {one, other}
                spreading = True
    return private


def _shared_places(tables: Iterable[Table]) -> Iterable[tuple[_Place, _Place]]:
    for table in tables:
        for link in table.links:
            for column, key in zip(link.columns, link.parent_key, strict=True):
                yield (table.name, column), (link.parent, key)


def _with_privacy(table: Table, private: set[_Place]) -> Table:
    return replace(
        table,
        primary_key=tuple(
            KeyColumn(part.name, KeyType.STRING) if (table.name, part.name) in private else part
            for part in table.primary_key
        ),
        private_keys=frozenset(name for place, name in private if place == table.name),
    )

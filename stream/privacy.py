"""Privacy at the door: private values become keyed hashes before anything keeps, counts or logs them.

    value ─► its text ─► blake2b(key = secret, 16 bytes) ─► 32 hex digits

The same value gives the same hash wherever it stands, so that links still meet; without the secret nobody can test a
guess. A hash cannot be turned back, and another secret is another world: change it only with an empty graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

from protos.nowgraph.v1 import row_event_pb2
from stream.errors import ConfigurationError
from temporal_graph.schema import Schema, Table

DIGEST_BYTES = 16
"""128 bits: two of a billion values share a hash with probability 1e-21."""
SECRET_BYTES_MIN = 16
HASHED_HEADER = ("nowgraph-private", b"hashed")
"""The header of a record whose private values were hashed before it was published; a second hash would break links."""
HASHED_METADATA = {b"nowgraph.private": b"hashed"}
"""The same of a Parquet file that was written from a graph: its metadata."""


class Privacy:
    """Hashes the private keys and columns of a schema. Holds the secret; its repr does not show it."""

    def __init__(self, schema: Schema, secret: bytes) -> None:
        if len(secret) < SECRET_BYTES_MIN:
            raise ConfigurationError(f"the privacy secret: expected at least {SECRET_BYTES_MIN} bytes")
        # blake2b takes keys of up to 64 bytes: a longer secret counts in full.
        self._key = secret if len(secret) <= blake2b.MAX_KEY_SIZE else blake2b(secret).digest()
        self._tables = {table.name: _PrivateTable(table) for table in schema.tables if is_private(table)}

    def hash(self, value: str | int) -> str:
        """Return the 32 hex digits that stand for a private value; an integer counts as its decimal text."""
        return blake2b(str(value).encode(), key=self._key, digest_size=DIGEST_BYTES).hexdigest()

    def touches(self, table: str) -> bool:
        """Whether the table has private keys or columns."""
        return table in self._tables

    def protect(self, event: row_event_pb2.RowEvent) -> bool:
        """Replace the private values of an event in place; returns whether its table has any.

        Values of an unexpected kind are hashed like any other: what does not fit the schema is refused later, in the
        open, but never with a private value in it.
        """
        table = self._tables.get(event.table)
        if table is None:
            return False
        for part, private in zip(event.key.parts, table.key, strict=False):
            if private:
                self._protect_part(part)
        for cell in event.cells:
            parts = table.links.get(cell.column)
            if parts is not None and cell.WhichOneof("value") == "key":
                for part, private in zip(cell.key.parts, parts, strict=False):
                    if private:
                        self._protect_part(part)
            elif cell.column in table.columns:
                self._protect_cell(cell)
        return True

    def _protect_part(self, part: row_event_pb2.KeyPart) -> None:
        kind = part.WhichOneof("part")
        if kind is not None:
            part.text = self.hash(getattr(part, kind))

    def _protect_cell(self, cell: row_event_pb2.Cell) -> None:
        kind = cell.WhichOneof("value")
        if kind is None or kind == "null":
            return
        if kind == "texts":
            cell.texts.values[:] = [self.hash(value) for value in cell.texts.values]
        elif kind in {"vector", "key"}:
            cell.text = self.hash(repr(getattr(cell, kind)))
        else:
            cell.text = self.hash(getattr(cell, kind))

    def __repr__(self) -> str:
        return f"Privacy(tables={sorted(self._tables)})"


def is_hashed(metadata: Mapping[bytes, bytes] | None) -> bool:
    """Whether a Parquet file's metadata says that its private values are hashes already."""
    return metadata is not None and HASHED_METADATA.items() <= metadata.items()


def is_private(table: Table) -> bool:
    """Whether the table has private keys, links or columns."""
    return bool(table.private_keys) or any(column.private for column in table.columns)


def privacy_for(schema: Schema, secret: bytes | None) -> Privacy | None:
    """Return what protects the schema's private values, or None where it has none.

    Raises:
        ConfigurationError: the schema has private values and there is no secret, or it is too short.
    """
    names = [table.name for table in schema.tables if is_private(table)]
    if not names:
        return None
    if secret is None:
        raise ConfigurationError(
            f"tables {', '.join(names)} have private keys or columns: set NOWGRAPH_PRIVACY_SECRET "
            f"(at least {SECRET_BYTES_MIN} bytes; the same for every process of this graph)"
        )
    return Privacy(schema, secret)


class _PrivateTable:
    """Which places of a table's events are private."""

    def __init__(self, table: Table) -> None:
        private = table.private_keys
        self.key = tuple(part.name in private for part in table.primary_key)
        self.links = {link.name: _flags(link.columns, private) for link in table.links}
        single = {link.name for link in table.links if len(link.columns) == 1 and link.name in private}
        self.columns = single | {column.name for column in table.columns if column.private}


def _flags(names: Iterable[str], private: frozenset[str]) -> tuple[bool, ...]:
    return tuple(name in private for name in names)

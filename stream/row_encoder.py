"""Rows as mappings (a JSON object, a change event's image, a file's line) to RowEvent bytes of one table.

{"transaction_id": 7, "tx_datetime": "2018-04-01T00:00:31", ...} ─► RowEncoder ─► RowEvent bytes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stream import wire
from stream.privacy import Privacy
from stream.values import Hash, RowError, cell, cell_encoder, integer_key_encoder, key_part, parse_time_us
from temporal_graph.schema import KeyType, Link, Schema, Source, Table
from temporal_graph.time_rule import ALWAYS_US

_ABSENT = object()
# Key { KeyPart { integer } } before a varint of n bytes: two lengths of one byte each.
_KEY_PREFIXES = [
    wire.EVENT_KEY + wire.varint(n + 3) + wire.KEY_PART + wire.varint(n + 1) + wire.PART_INTEGER for n in range(11)
]
Encode = Callable[[Any], bytes]


class RowEncoder:
    """Encodes rows of a source: its table, its operation and where its two times stand.

    `encode` is the hot path of JSON: everything that does not depend on the row is prepared here.
    """

    def __init__(
        self, schema: Schema, source: Source, privacy: Privacy | None = None, *, lenient_numbers: bool = False
    ) -> None:
        table = schema.table(source.table)
        self.table = table
        self.event_time_column = source.event_time or table.time_column
        self.known_time_column = source.known_time or table.known_time.column
        self._heads = {name: wire.event_head(table.name, name) for name in wire.OPERATION_NUMBERS}
        self.operation = source.operation
        self._key = [_key_part(table, part.name, part.type is KeyType.INTEGER, privacy) for part in table.primary_key]
        # The whole key field at once where it is one integer, as it mostly is.
        self._integer_key: Encode | None = None
        if len(self._key) == 1 and table.primary_key[0].type is KeyType.INTEGER:
            self._integer_key = integer_key_encoder(self._key[0][0], _KEY_PREFIXES)
        self._cells: list[tuple[str, Encode, bytes]] = []
        for column in table.columns:
            hashed = _hash(privacy) if column.private else None
            encode = cell_encoder(column, hashed, lenient_numbers=lenient_numbers)
            self._cells.append((column.name, encode, _null(column.name)))
        self._composite: list[tuple[Link, list[tuple[str, Encode]]]] = []
        for link in table.links:
            parts = [
                _key_part(table, name, kind is KeyType.INTEGER, privacy)
                for name, kind in zip(link.columns, schema.link_key_types(link), strict=True)
            ]
            if len(parts) == 1:
                integer = schema.link_key_types(link)[0] is KeyType.INTEGER
                encode = _integer_link(link.name) if integer else _text_link(link.name, parts[0][1])
                self._cells.append((link.name, encode, _null(link.name)))
            else:
                self._composite.append((link, parts))
        self.names = frozenset(
            [part.name for part in table.primary_key]
            + [name for name, _, _ in self._cells]
            + [name for link, _ in self._composite for name in link.columns]
            + [name for name in (self.event_time_column, self.known_time_column) if name is not None]
        )

    def encode(
        self,
        row: Mapping[str, Any],
        *,
        operation: str | None = None,
        event_time_us: int | None = None,
        known_time_us: int | None = None,
    ) -> tuple[bytes, int]:
        """Return the event of a row and its event time (`ALWAYS_US` for a row without time).

        Times that are given take the place of the row's own columns; a known time that neither gives is left to the
        graph (the event time, or the broker's where the schema says so).

        Raises:
            RowError: the row lacks a key or time, or a value does not fit its column.
        """
        operation = operation or self.operation
        out = [self._heads[operation]]
        if self._key:
            out.append(self._encode_key(row))
        if event_time_us is None:
            event_time_us = self._time(row, self.event_time_column)
        if known_time_us is None:
            known_time_us = self._time(row, self.known_time_column)
        if event_time_us is not None:
            out.append(wire.EVENT_TIME + wire.varint(event_time_us))
        if known_time_us is not None:
            out.append(wire.EVENT_KNOWN + wire.varint(known_time_us))
        if operation not in ("delete", "erase"):
            self._encode_cells(row, out, patch=operation == "upsert")
        return b"".join(out), ALWAYS_US if event_time_us is None else event_time_us

    def _encode_key(self, row: Mapping[str, Any]) -> bytes:
        if self._integer_key is not None:
            value = row.get(self._key[0][0])
            if value is not None:
                return self._integer_key(value)
        parts = []
        for name, encode in self._key:
            value = row.get(name)
            if value is None:
                raise RowError("missing_key", f"{name}: the primary key is absent or null")
            parts.append(encode(value))
        return wire.EVENT_KEY + wire.delimited(wire.key_message(parts))

    def _time(self, row: Mapping[str, Any], name: str | None) -> int | None:
        if name is None:
            return None
        value = row.get(name)
        if value is None:
            raise RowError("missing_time", f"{name}: the time is absent or null")
        return parse_time_us(value, name)

    def _encode_cells(self, row: Mapping[str, Any], out: list[bytes], *, patch: bool) -> None:
        get, append = row.get, out.append
        for name, encode, null in self._cells:
            value = get(name, _ABSENT)
            if value is _ABSENT:
                continue
            if value is not None:
                append(encode(value))
            elif patch:
                append(null)  # in a whole row an absent cell is null already
        for link, parts in self._composite:
            self._encode_composite(row, link, parts, out, patch=patch)

    def _encode_composite(
        self, row: Mapping[str, Any], link: Link, parts: list[tuple[str, Encode]], out: list[bytes], *, patch: bool
    ) -> None:
        values = [row.get(name, _ABSENT) for name, _ in parts]
        absent = sum(value is _ABSENT for value in values)
        if absent == len(values) or (not patch and any(value is None or value is _ABSENT for value in values)):
            return  # SQL's rule: a foreign key with a null part points nowhere
        if absent:
            raise RowError("partial_link", f"{link.name}: a patch gives all columns of a link or none")
        if any(value is None for value in values):
            out.append(_null(link.name))
            return
        key = wire.key_message([encode(value) for (_, encode), value in zip(parts, values, strict=True)])
        out.append(cell(wire.column_name(link.name) + wire.CELL_KEY + wire.delimited(key)))


def _hash(privacy: Privacy | None) -> Hash:
    assert privacy is not None, "privacy_for() refuses a private schema without a secret"
    return privacy.hash


def _key_part(table: Table, name: str, integer: bool, privacy: Privacy | None) -> tuple[str, Encode]:
    hashed = _hash(privacy) if name in table.private_keys else None
    return name, lambda value: key_part(value, name, integer=integer, hashed=hashed)


def _integer_link(name: str) -> Encode:
    head = wire.column_name(name) + wire.CELL_INTEGER
    return integer_key_encoder(name, [wire.EVENT_CELL + wire.varint(len(head) + n) + head for n in range(11)])


def _text_link(name: str, encode_part: Encode) -> Encode:
    head = wire.column_name(name) + wire.CELL_TEXT
    return lambda value: cell(head + encode_part(value).removeprefix(wire.PART_TEXT))


def _null(name: str) -> bytes:
    return cell(wire.column_name(name) + wire.CELL_NULL)

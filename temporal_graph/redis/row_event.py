"""What a RowEvent says of rows and links, for events that the native core has accepted; cells are not decoded.

RowEvent ─► Change: entity, clocks, parents ─► the event as it is stored: with the known time that it was given and
the key that its position gave it, so that the native core reads it the same anywhere
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from temporal_graph.redis.frames import DELETE, INSERT, Version
from temporal_graph.redis.keys import entity, key_bytes, key_of, text_bytes
from temporal_graph.reference_values import Key
from temporal_graph.schema import KeyType, Link, Schema
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US, visible_time_us

# Of row_event.proto: RowEvent's fields, then Cell's.
_EVENT_ID, _TABLE, _OPERATION, _KEY, _EVENT_TIME, _KNOWN_TIME, _CELL = range(1, 8)
_COLUMN, _CELL_INTEGER, _CELL_TEXT, _CELL_KEY = 1, 4, 5, 10
_NULL = b"\x10\x00"  # field 2, an enum of which this is the only value
_UINT64 = (1 << 64) - 1
_UPSERT = 2


@dataclass(frozen=True, slots=True)
class Change:
    """An accepted event: the row it is about, what it says of time and links, and its bytes to keep."""

    entity: bytes
    event_time_us: int
    version: Version
    stored: bytes


class _Table:
    def __init__(self, schema: Schema, index: int) -> None:
        table = schema.tables[index]
        self.index = index
        self.timed = table.time_column is not None
        self.from_broker = table.known_time.kind == "broker"
        self.links: dict[bytes, tuple[int, Link]] = {
            link.name.encode(): (number, link) for number, link in enumerate(schema.links) if link.child == table.name
        }


@dataclass(slots=True)
class _Raw:
    """The fields of a RowEvent as they stand in its bytes; of one that is given twice, the last."""

    event_id: bytes = b""
    table: bytes = b""
    operation: int = 0
    key: bytes = b""
    event_time_us: int | None = None
    known_time_us: int | None = None
    cells: list[bytes] = field(default_factory=list)


class EventReader:
    """Reads accepted events of one schema."""

    def __init__(self, schema: Schema) -> None:
        self._tables = {table.name.encode(): _Table(schema, i) for i, table in enumerate(schema.tables)}
        self._names = [_sized(_TABLE, table.name.encode()) for table in schema.tables]
        self._keyed = [bool(table.primary_key) for table in schema.tables]
        self._schema = schema
        self._naming = {schema.table_index(link.parent): link for link in schema.links}

    def read(
        self,
        event: bytes,
        *,
        place: tuple[str, int, int] | None = None,
        broker_time_us: int = ALWAYS_US,
        backfill: bool = False,
    ) -> Change:
        """Return what an event says.

        Args:
            event: a serialized RowEvent that the native core has accepted.
            place: topic, partition and offset, the key of a row of a table without one; None: its event id is.
            broker_time_us: the known time of tables that take the broker's; ALWAYS_US: it is not known.
            backfill: whether the known time is the event time where the event does not say.
        """
        raw = _raw(event)
        table, operation = self._tables[raw.table], raw.operation
        clocks = _clocks(table, raw, ALWAYS_US if backfill else broker_time_us)
        if self._keyed[table.index]:
            ordered = _ordered(raw.key)
            named = _sized(_KEY, raw.key)
        else:
            text = raw.event_id if place is None else "{}/{}/{}".format(*place).encode()
            ordered = text_bytes(text)
            named = _sized(_EVENT_ID, text)
        stored = named + _number(_OPERATION, operation)
        happened, known = clocks or (ALWAYS_US, ALWAYS_US)
        if clocks is not None:
            stored += _number(_EVENT_TIME, happened)
            stored += _number(_KNOWN_TIME, known) if known != happened else b""  # read back, it is the event time
        cells = [] if operation == DELETE else raw.cells  # those of a delete say nothing
        stored += b"".join([_sized(_CELL, cell) for cell in cells])
        version = Version(visible_time_us(happened, known), operation, self._links(table, cells))
        return Change(entity(table.index, ordered), happened, version, stored)

    def _links(self, table: _Table, cells: list[bytes]) -> tuple[tuple[int, bytes], ...]:
        if not table.links:
            return ()
        said = []
        for cell in cells:
            column, parent = b"", b""
            for number, value in _fields(cell):
                if number == _COLUMN and isinstance(value, bytes):
                    column = value
                elif number == _CELL_INTEGER and isinstance(value, int):
                    parent = key_bytes((_signed(value),))
                elif number == _CELL_TEXT and isinstance(value, bytes):
                    parent = text_bytes(value)
                elif number == _CELL_KEY and isinstance(value, bytes):
                    parent = _ordered(value)
                else:
                    parent = b""
            found = table.links.get(column)
            if found is not None:
                said.append((found[0], parent))
        return tuple(sorted(said))

    def event(self, table_index: int, stored: bytes) -> bytes:
        """Return a stored event as a whole RowEvent again."""
        return self._names[table_index] + stored

    def cut(self, version: Version, stored: bytes, links: Collection[int]) -> tuple[Version, bytes]:
        """Return a version and its stored event as if it had set these links to null."""
        columns = {self._schema.links[link].name.encode() for link in links}
        said = tuple((link, b"" if link in links else key) for link, key in version.links)
        parts = []
        for number, value in _fields(stored):
            if isinstance(value, int):
                parts.append(_number(number, value))
                continue
            column = next((name for field, name in _fields(value) if field == _COLUMN), b"") if number == _CELL else b""
            cut = isinstance(column, bytes) and column in columns
            parts.append(_sized(number, _sized(_COLUMN, bytes(column)) + _NULL if cut else value))
        return replace(version, links=tuple(sorted(said))), b"".join(parts)

    def unseen(self, table_index: int, ordered_key: bytes) -> bytes:
        """Return a RowEvent of a row that has versions, none of them visible: it is known, from the last instant on."""
        named = self._named(table_index, key_of(ordered_key))
        return self.event(table_index, named + _number(_OPERATION, DELETE) + _NEVER)

    def naming(self, table_index: int, ordered_key: bytes, number: int) -> bytes:
        """Return a RowEvent that names a row at the last instant, in another that exists only to do so.

        `number` tells those others apart; their keys are ones that nobody uses.
        """
        link = self._naming[table_index]
        child = self._schema.table_index(link.child)
        key = tuple(
            ALWAYS_US + number if part.type is KeyType.INTEGER else f"\0{number}"
            for part in self._schema.tables[child].primary_key
        )
        cell = _sized(_COLUMN, link.name.encode()) + _sized(_CELL_KEY, _key_message(key_of(ordered_key)))
        named = self._named(child, key or (f"\0{number}",))
        return self.event(child, named + _number(_OPERATION, _UPSERT) + _NEVER + _sized(_CELL, cell))

    def _named(self, table_index: int, key: Key) -> bytes:
        if self._keyed[table_index]:
            return _sized(_KEY, _key_message(key))
        return _sized(_EVENT_ID, str(key[0]).encode())


def happened_us(stored: bytes) -> int:
    """Return when a stored event happened; ALWAYS_US: it has no time."""
    for number, value in _fields(stored):
        if number == _EVENT_TIME and isinstance(value, int):
            return _signed(value)
        if number == _CELL:
            break
    return ALWAYS_US


def _raw(event: bytes) -> _Raw:
    raw = _Raw()
    for number, value in _fields(event):
        if isinstance(value, int):
            if number == _OPERATION:
                raw.operation = value
            elif number == _EVENT_TIME:
                raw.event_time_us = _signed(value)
            elif number == _KNOWN_TIME:
                raw.known_time_us = _signed(value)
        elif number == _CELL:
            raw.cells.append(value)
        elif number == _KEY:
            raw.key = value
        elif number == _TABLE:
            raw.table = value
        elif number == _EVENT_ID:
            raw.event_id = value
    return raw


def _clocks(table: _Table, raw: _Raw, broker_time_us: int) -> tuple[int, int] | None:
    """Both clocks, as the native core takes them; None for what has no time."""
    event_time_us, known_time_us = raw.event_time_us, raw.known_time_us
    if event_time_us is None or (not table.timed and raw.operation == INSERT):
        return None
    if known_time_us is None:
        from_broker = table.from_broker and broker_time_us != ALWAYS_US
        known_time_us = broker_time_us if from_broker else event_time_us
    return event_time_us, known_time_us


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a well-formed message: integers of varints, bytes of all else."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            number, at = _varint(message, at)
            yield tag >> 3, number
            continue
        if kind == 2:
            size, at = _varint(message, at)
        else:
            size = 8 if kind == 1 else 4
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    byte = message[at]
    if byte < 128:
        return byte, at + 1
    number, shift = byte & 127, 7
    while True:
        at += 1
        byte = message[at]
        number |= (byte & 127) << shift
        if byte < 128:
            return number & _UINT64, at + 1
        shift += 7


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _ordered(message: bytes) -> bytes:
    """The ordered bytes of a serialized Key."""
    ordered = b""
    for _, part in _fields(message):
        assert isinstance(part, bytes)
        for number, value in _fields(part):
            ordered += (
                key_bytes((_signed(value),)) if number == 1 and isinstance(value, int) else text_bytes(bytes(value))
            )
    return ordered


def _key_message(key: Key) -> bytes:
    parts = [_number(1, part) if isinstance(part, int) else _sized(2, part.encode()) for part in key]
    return b"".join([_sized(1, part) for part in parts])


def _number(field: int, value: int) -> bytes:
    value &= _UINT64
    out = bytearray((field << 3,))
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _sized(field: int, content: bytes) -> bytes:
    size = len(content)
    out = bytearray((field << 3 | 2,))
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out) + content


_NEVER = _number(_EVENT_TIME, TIME_MAX_US) + _number(_KNOWN_TIME, TIME_MAX_US)

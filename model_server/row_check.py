"""Whether a RowEvent fits its table: keys, cells, sizes and times; the first misfit is named by its path."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from model_server.errors import InvalidRequestError
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.schema import ColumnKind, KeyType, Link, Schema, Table
from temporal_graph.time_rule import ALWAYS_US

# The last microsecond of the year 9999: later is a unit mistaken (nanoseconds) and not a time.
TIME_MAX_US = 253_402_300_799_999_999

# The graph's word for a row that is known only by a foreign key; it and the value below it are no times.
BARE_US = ALWAYS_US + 1

# What the graph joins the elements of a multicategorical cell with.
ELEMENT_SEPARATOR = "\x1f"

VALUES_OF_KIND: Mapping[ColumnKind, frozenset[str]] = {
    ColumnKind.NUMERICAL: frozenset({"number", "integer"}),
    ColumnKind.CATEGORICAL: frozenset({"text", "integer"}),
    ColumnKind.MULTICATEGORICAL: frozenset({"texts"}),
    ColumnKind.BOOLEAN: frozenset({"boolean"}),
    ColumnKind.TIMESTAMP: frozenset({"timestamp_us"}),
    ColumnKind.TEXT: frozenset({"text"}),
    ColumnKind.EMBEDDING: frozenset({"vector"}),
}
PART_OF_KEY: Mapping[KeyType, str] = {KeyType.INTEGER: "integer", KeyType.STRING: "text"}
# Values of which the kind says all; a number must also be finite, which is asked where it is read.
_PLAIN = frozenset({"number", "integer", "text", "boolean"})
_NOTHING: frozenset[str] = frozenset()
OPERATIONS = (row_event_pb2.OPERATION_INSERT, row_event_pb2.OPERATION_UPSERT, row_event_pb2.OPERATION_DELETE)


class RowCheck:
    """The checks of one table. Private columns and keys are checked as they come in, before they are hashed."""

    def __init__(self, schema: Schema, table: Table, settings: ServerSettings) -> None:
        self._table = table
        self._settings = settings
        self._columns = {column.name: column for column in table.columns}
        # What each part may be, of a link's key and of the row's own.
        self._links: dict[str, tuple[Link, tuple[frozenset[str], ...]]] = {}
        for link in table.links:
            private = not table.private_keys.isdisjoint(link.columns)
            types = schema.link_key_types(link)
            self._links[link.name] = link, tuple(_values_of_part(kind, private=private) for kind in types)
        self._key_values = tuple(
            _values_of_part(column.type, private=column.name in table.private_keys) for column in table.primary_key
        )
        self._plain_values = self._plain()

    def _plain(self) -> dict[str, frozenset[str]]:
        """By column, the values that need no closer look; what is not among them goes through `_check_cell`."""
        found = {name: VALUES_OF_KIND[column.kind] & _PLAIN for name, column in self._columns.items()}
        for name, (_, expected) in self._links.items():
            found[name] = expected[0] if len(expected) == 1 else _NOTHING
        return {name: values | {"null"} for name, values in found.items()}

    def check(self, event: row_event_pb2.RowEvent, path: str) -> set[str]:
        """Checks size, id, key and cells, and returns the columns that have one.

        Raises InvalidRequestError; `path` is the event's own, such as `row`.
        """
        limits = self._settings
        if event.ByteSize() > limits.row_bytes_limit:
            raise InvalidRequestError(path, f"larger than {limits.row_bytes_limit} bytes")
        if len(event.event_id.encode()) > limits.id_bytes_limit:
            raise InvalidRequestError(f"{path}.event_id", f"longer than {limits.id_bytes_limit} bytes")
        cells = event.cells
        if len(cells) > limits.cells_limit:
            raise InvalidRequestError(f"{path}.cells", f"more than {limits.cells_limit} cells")
        self.check_key(event.key, f"{path}.key")
        seen: set[str] = set()
        plain = self._plain_values
        for index, cell in enumerate(cells):
            column, value = cell.column, cell.WhichOneof("value")
            if column in seen:
                raise InvalidRequestError(f"{path}.cells[{index}].column", f"{column!r} comes twice")
            seen.add(column)
            if value not in plain.get(column, _NOTHING) or (value == "number" and not math.isfinite(cell.number)):
                self._check_cell(cell, value, f"{path}.cells[{index}]")
        return seen

    def check_operation(self, event: row_event_pb2.RowEvent, path: str) -> None:
        """An event for the log must say what it does. Raises InvalidRequestError."""
        if event.operation not in OPERATIONS:
            raise InvalidRequestError(f"{path}.operation", "insert, upsert or delete expected")

    def check_times(self, event: row_event_pb2.RowEvent, path: str, now_us: int) -> None:
        """An event of a table with time has an event time, and neither clock lies beyond the skew bound."""
        if event.HasField("event_time_us"):
            self.check_event_time(event.event_time_us, f"{path}.event_time_us", now_us)
        elif self._table.time_column is not None:
            raise InvalidRequestError(f"{path}.event_time_us", f"missing: {self._table.name!r} has a time column")
        if event.HasField("known_time_us"):
            self.check_event_time(event.known_time_us, f"{path}.known_time_us", now_us)
        if event.HasField("event_time_us"):
            self._check_delay(event, path, now_us)

    def _check_delay(self, event: row_event_pb2.RowEvent, path: str, now_us: int) -> None:
        """As the graph will judge it: what it refuses must not be told that it is in the log, with a token."""
        table = self._table
        if table.time_column is None and event.operation == row_event_pb2.OPERATION_INSERT:
            return  # always visible, whatever its times
        if event.HasField("known_time_us"):
            delay_us = event.known_time_us - event.event_time_us
        else:
            delay_us = now_us - event.event_time_us if table.known_time.kind == "broker" else 0
        if table.lateness_us is not None and delay_us > table.lateness_us:
            late = f"known {delay_us} us after it happened, {table.lateness_us} us are allowed"
            raise InvalidRequestError(f"{path}.event_time_us", late)
        if -delay_us > table.future_us:
            ahead = f"{-delay_us} us before it happens, {table.future_us} us are allowed"
            raise InvalidRequestError(f"{path}.known_time_us", ahead)

    def check_event_time(self, time_us: int, path: str, now_us: int) -> None:
        """A time is one that can be scored and not further ahead of the server's clock than the table allows."""
        if time_us <= BARE_US or time_us > TIME_MAX_US:
            raise InvalidRequestError(path, "not a time in microseconds since the epoch")
        if time_us > now_us + self._table.future_us:
            ahead_us = time_us - now_us
            raise InvalidRequestError(
                path, f"{ahead_us} us ahead of the server's clock, {self._table.future_us} us are allowed"
            )

    def check_key(self, key: row_event_pb2.Key, path: str) -> None:
        """A key has the table's parts, each of its type. Raises InvalidRequestError."""
        parts, expected = key.parts, self._key_values
        if len(parts) != len(expected):
            names = ", ".join(column.name for column in self._table.primary_key) or "no key"
            raise InvalidRequestError(f"{path}.parts", f"{len(expected)} parts expected ({names}), found {len(parts)}")
        _check_parts(parts, expected, f"{path}.parts")

    def _check_cell(self, cell: row_event_pb2.Cell, value: str | None, path: str) -> None:
        if value is None:
            raise InvalidRequestError(
                path, f"no value for {cell.column!r}: send an explicit null, or leave the cell out"
            )
        if cell.column in self._links:
            if value != "null":
                self._check_link(cell, value, path)
            return
        column = self._columns.get(cell.column)
        if column is None:
            raise InvalidRequestError(f"{path}.column", f"{self._table.name!r} has no column {cell.column!r}")
        if value == "null":
            return
        if value not in VALUES_OF_KIND[column.kind]:
            wanted = " or ".join(sorted(VALUES_OF_KIND[column.kind]))
            raise InvalidRequestError(f"{path}.{value}", f"{cell.column!r} is {column.kind}: {wanted} expected")
        if value == "number" and not math.isfinite(cell.number):
            raise InvalidRequestError(
                f"{path}.number", f"{cell.column!r} is not finite: send null for a missing number"
            )
        if value == "timestamp_us" and (cell.timestamp_us == ALWAYS_US or cell.timestamp_us > TIME_MAX_US):
            raise InvalidRequestError(f"{path}.timestamp_us", "not a time in microseconds since the epoch")
        if value == "vector":
            _check_vector(cell.vector, column.dim, path)
        if value == "texts":
            _check_texts(cell.texts, path)

    def _check_link(self, cell: row_event_pb2.Cell, value: str, path: str) -> None:
        link, expected = self._links[cell.column]
        if len(expected) > 1 or value == "key":
            if value != "key":
                raise InvalidRequestError(
                    f"{path}.{value}", f"{cell.column!r} refers to a key of {len(expected)} parts"
                )
            if len(cell.key.parts) != len(expected):
                raise InvalidRequestError(
                    f"{path}.key.parts", f"{len(expected)} parts expected, found {len(cell.key.parts)}"
                )
            _check_parts(cell.key.parts, expected, f"{path}.key.parts")
        elif value not in expected[0]:
            wanted = " or ".join(sorted(expected[0]))
            raise InvalidRequestError(
                f"{path}.{value}", f"{cell.column!r} refers to {link.parent!r}: {wanted} expected"
            )


def _values_of_part(kind: KeyType, *, private: bool) -> frozenset[str]:
    """What a part may be; a private one is a string once it is hashed, and may be either as it comes in."""
    return frozenset({"integer", "text"} if private else {PART_OF_KEY[kind]})


def _check_parts(parts: Sequence[row_event_pb2.KeyPart], expected: Sequence[frozenset[str]], path: str) -> None:
    for index, values in enumerate(expected):
        value = parts[index].WhichOneof("part")
        if value not in values:
            at = f"{path}[{index}]"
            raise InvalidRequestError(f"{at}.{value}" if value else at, f"{' or '.join(sorted(values))} expected")


def _check_texts(texts: row_event_pb2.TextList, path: str) -> None:
    for index, text in enumerate(texts.values):
        if ELEMENT_SEPARATOR in text:
            raise InvalidRequestError(f"{path}.texts.values[{index}]", "contains the unit separator (0x1F)")


def _check_vector(vector: row_event_pb2.Vector, dim: int, path: str) -> None:
    if len(vector.values) != dim:
        raise InvalidRequestError(f"{path}.vector", f"{dim} components expected, found {len(vector.values)}")
    for index, value in enumerate(vector.values):
        if not math.isfinite(value):
            raise InvalidRequestError(f"{path}.vector.values[{index}]", "not finite")

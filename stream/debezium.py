"""Debezium change events to row events: a company's PostgreSQL or MySQL tables arrive with no code.

    r (snapshot) ─► insert, a backfill: known when it happened     c ─► insert
    u ─► upsert of the cells that changed (another key: delete and insert)     d ─► delete     tombstone ─► nothing

Times. The event time of a row that is inserted is its time column; a change or a deletion happened when the database
committed it (`source.ts_*`). It was known then too, unless the schema names a column or the broker; an inserted row
is known at its commit, so that one that was booked late is late here as well. Changes of a table without a time column
carry the commit time, the snapshot's rows none: they are always visible.

With the schema block of Debezium's JSON converter (`schemas.enable`), dates, times and decimals are exact; without it
integers are read by their size (days, seconds, milliseconds, microseconds), and decimals must be sent as
`decimal.handling.mode=string` or `double`. Two changes of one row in the same tick of `source.ts` are ordered by
content: from Debezium 2.6 on the tick is a microsecond or finer, before that a millisecond.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from stream.json_decode import parse_object
from stream.privacy import Privacy
from stream.row_encoder import RowEncoder
from stream.values import RowError, TimeUs, kind_name, parse_time_us
from temporal_graph.schema import ColumnKind, Schema, Source

UNAVAILABLE = "__debezium_unavailable_value"
"""Stands for a large PostgreSQL value that an update did not touch: it is unchanged, not this text."""
DAY_US = 86_400_000_000
_DAYS_MAX = 3_000_000  # about the year 10183; as seconds it would be the first month of 1970
_SNAPSHOT_NO = (None, False, "false")

Event = tuple[bytes, int]


class DebeziumDecoder:
    """Decodes the change events of one source, with or without the envelope's schema block."""

    def __init__(self, schema: Schema, source: Source, privacy: Privacy | None = None) -> None:
        table = schema.table(source.table)
        self._encoder = RowEncoder(schema, replace(source, operation="insert"), privacy, lenient_numbers=True)
        self._key_names = tuple(part.name for part in table.primary_key)
        self._known = "column" if self._encoder.known_time_column is not None else table.known_time.kind
        self._timed = self._encoder.event_time_column is not None
        times = [column.name for column in table.columns if column.kind is ColumnKind.TIMESTAMP]
        self._times = frozenset(
            [*times, *(n for n in (self._encoder.event_time_column, self._encoder.known_time_column) if n is not None)]
        )
        self.ignored_fields = 0

    def decode(self, value: bytes) -> list[Event]:
        """Return the events of one change event with their event times: none, one, or two for a changed key.

        Raises:
            RowError: no change event, or a row that does not fit the table.
        """
        payload, fields = _envelope(parse_object(value))
        operation = payload.get("op")
        if operation == "m":
            return []  # a logical decoding message, of no table
        if operation == "t":
            raise RowError("truncate", "the table was truncated: that is no event of a row; delete rows instead")
        commit_us = _commit_time_us(payload)
        before = self._image(payload, "before", fields)
        after = self._image(payload, "after", fields)
        if operation in ("c", "r"):
            snapshot = operation == "r" or _source(payload).get("snapshot") not in _SNAPSHOT_NO
            return [self._insert(_required(after, "after"), commit_us, snapshot=snapshot)]
        if operation == "u":
            return self._update(before, _required(after, "after"), commit_us)
        if operation == "d":
            return [self._change("delete", _required(before, "before"), commit_us)]
        raise RowError("not_a_change_event", f"op: expected c, r, u, d, t or m, found {kind_name(operation)}")

    def _insert(self, row: dict[str, Any], commit_us: int | None, *, snapshot: bool) -> Event:
        self.ignored_fields += len(row.keys() - self._encoder.names)
        if snapshot:
            # A backfill: nobody recorded when the row became known, so it counts as known when it happened.
            known_us = self._event_time(row) if self._known != "column" else None
            return self._encoder.encode(row, known_time_us=known_us)
        event_us = None if self._timed else commit_us
        return self._encoder.encode(row, event_time_us=event_us, known_time_us=self._known_time(row, commit_us))

    def _update(self, before: dict[str, Any] | None, after: dict[str, Any], commit_us: int | None) -> list[Event]:
        if before is not None and any(before.get(name) not in (None, after.get(name)) for name in self._key_names):
            # Both halves are known when the change is, so that the graph takes both or neither.
            return [self._change("delete", before, commit_us, after), self._change("insert", after, commit_us)]
        self.ignored_fields += len(after.keys() - self._encoder.names)
        patch = {name: value for name, value in after.items() if value != UNAVAILABLE}
        if before is not None:
            keep = self._changed(before, patch)
            patch = {name: value for name, value in patch.items() if name in keep}
            if not keep - set(self._key_names) - self._clocks():
                return []
        return [self._change("upsert", patch, commit_us, after)]

    def _changed(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
        names = {name for name, value in after.items() if name not in before or before[name] != value}
        for link in self._encoder.table.links:
            if names.intersection(link.columns):
                names.update(link.columns)
        return (names & self._encoder.names) | set(self._key_names)

    def _clocks(self) -> set[str]:
        return {n for n in (self._encoder.event_time_column, self._encoder.known_time_column) if n is not None}

    def _change(
        self, operation: str, row: dict[str, Any], commit_us: int | None, image: dict[str, Any] | None = None
    ) -> Event:
        if commit_us is None:
            raise RowError("missing_time", "source.ts_ms: a change without the time of its commit")
        known_us = self._known_time(image or row, commit_us, fallback=operation == "delete")
        return self._encoder.encode(row, operation=operation, event_time_us=commit_us, known_time_us=known_us)

    def _known_time(self, row: dict[str, Any], commit_us: int | None, *, fallback: bool = False) -> int | None:
        if self._known == "broker":
            return None
        if self._known == "column":
            name = self._encoder.known_time_column
            assert name is not None
            value = row.get(name)
            if value is None and fallback:
                return commit_us  # a deleted row's image may hold its key only
            if value is None:
                raise RowError("missing_time", f"{name}: the known time is absent or null")
            return parse_time_us(value, name)
        return commit_us

    def _event_time(self, row: dict[str, Any]) -> int | None:
        name = self._encoder.event_time_column
        if name is None:
            return None
        if row.get(name) is None:
            raise RowError("missing_time", f"{name}: the time is absent or null")
        return parse_time_us(row[name], name)

    def _image(self, payload: dict[str, Any], side: str, fields: dict[str, Any]) -> dict[str, Any] | None:
        row = payload.get(side)
        if row is None:
            return None
        if type(row) is not dict:
            raise RowError("not_a_change_event", f"{side}: expected an object, found {kind_name(row)}")
        types = fields.get(side, {})
        for name in row.keys() & self._encoder.names:
            value = row[name]
            if value is None or value == UNAVAILABLE:
                continue
            convert = _SEMANTIC_TYPES.get(str(types[name].get("name"))) if name in types else None
            if convert is not None:
                row[name] = convert(value, types[name], name)
            elif name in self._times and name not in types and type(value) is int and abs(value) < _DAYS_MAX:
                row[name] = TimeUs(value * DAY_US)
        return row


def _envelope(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the payload, and the types of both images' fields by side and name (empty without a schema block)."""
    if "payload" not in document:
        return _checked(document), {}
    payload = document["payload"]
    if type(payload) is not dict:
        raise RowError("not_a_change_event", f"payload: expected an object, found {kind_name(payload)}")
    schema = document.get("schema")
    sides = schema.get("fields") if type(schema) is dict else None
    types: dict[str, Any] = {}
    for side in sides if type(sides) is list else []:
        if type(side) is dict and type(side.get("fields")) is list:
            types[str(side.get("field"))] = {str(one.get("field")): one for one in side["fields"] if type(one) is dict}
    return _checked(payload), types


def _checked(payload: dict[str, Any]) -> dict[str, Any]:
    if "op" not in payload:
        raise RowError("not_a_change_event", "op: absent; expected Debezium's envelope (no unwrapping transform)")
    return payload


def _source(payload: dict[str, Any]) -> dict[str, Any]:
    source = payload.get("source")
    return source if type(source) is dict else {}


def _commit_time_us(payload: dict[str, Any]) -> int | None:
    """Return when the database committed, in the finest unit that is given."""
    for block in (_source(payload), payload):
        for name, to_us in (("ts_ns", -1000), ("ts_us", 1), ("ts_ms", 1000)):
            value = block.get(name)
            if type(value) is int and value > 0:
                return parse_time_us(TimeUs(value * to_us if to_us > 0 else value // -to_us), f"source.{name}")
    return None


def _required(row: dict[str, Any] | None, side: str) -> dict[str, Any]:
    if row is None:
        raise RowError("not_a_change_event", f"{side}: null or absent, but this operation needs it")
    return row


def _scaled(numerator: int, denominator: int = 1) -> Callable[[Any, Mapping[str, Any], str], TimeUs]:
    def convert(value: Any, _: Mapping[str, Any], name: str) -> TimeUs:
        if type(value) is not int:
            raise RowError("bad_time", f"{name}: expected an integer, found {kind_name(value)}")
        return TimeUs(value * numerator // denominator)

    return convert


def _zoned(value: Any, _: Mapping[str, Any], name: str) -> TimeUs:
    if type(value) is not str:
        raise RowError("bad_time", f"{name}: expected a string, found {kind_name(value)}")
    try:
        datetime.fromisoformat(value)
    except ValueError as error:
        raise RowError("bad_time", f"{name}: a string that is no ISO-8601 time") from error
    return TimeUs(parse_time_us(value, name))


def _decimal(value: Any, field: Mapping[str, Any], name: str) -> float:
    parameters = field.get("parameters")
    scale = parameters.get("scale", "0") if type(parameters) is dict else "0"
    try:
        digits = int(scale) if type(scale) is str else None
    except ValueError:
        digits = None
    if digits is None:
        raise RowError("bad_number", f"{name}: the schema block gives no scale for a decimal")
    return _unscaled(value, digits, name)


def _variable_decimal(value: Any, _: Mapping[str, Any], name: str) -> float:
    if type(value) is not dict or type(value.get("scale")) is not int:
        raise RowError("bad_number", f"{name}: expected a struct of scale and value, found {kind_name(value)}")
    return _unscaled(value.get("value"), value["scale"], name)


def _unscaled(value: Any, scale: int, name: str) -> float:
    if type(value) is float or type(value) is int:
        return float(value)
    try:
        number = int.from_bytes(base64.b64decode(value, validate=True), "big", signed=True)
        # Through the decimal text, so that 12.34 is the double nearest to 12.34.
        return float(f"{number}e{-scale}")
    except (TypeError, ValueError, binascii.Error) as error:
        raise RowError("bad_number", f"{name}: expected the base64 of a decimal") from error


_SEMANTIC_TYPES: dict[str, Callable[[Any, Mapping[str, Any], str], Any]] = {
    "io.debezium.time.Date": _scaled(DAY_US),
    "io.debezium.time.Timestamp": _scaled(1000),
    "io.debezium.time.MicroTimestamp": _scaled(1),
    "io.debezium.time.NanoTimestamp": _scaled(1, 1000),
    "io.debezium.time.ZonedTimestamp": _zoned,
    "io.debezium.time.IsoDate": _zoned,
    "io.debezium.time.IsoTimestamp": _zoned,
    "org.apache.kafka.connect.data.Date": _scaled(DAY_US),
    "org.apache.kafka.connect.data.Timestamp": _scaled(1000),
    "org.apache.kafka.connect.data.Decimal": _decimal,
    "io.debezium.data.VariableScaleDecimal": _variable_decimal,
}

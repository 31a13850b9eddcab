"""JSON to row events: a flat object with the table's column names, or a RowEvent in protobuf's own JSON form."""

from __future__ import annotations

from typing import Any

import orjson
from google.protobuf import json_format

from protos.nowgraph.v1 import row_event_pb2
from stream.privacy import Privacy
from stream.row_encoder import RowEncoder
from stream.values import RowError, kind_name
from temporal_graph.schema import Schema, Source
from temporal_graph.time_rule import ALWAYS_US


def parse_object(value: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        RowError: `invalid_json` (not JSON, not UTF-8, NaN), `not_an_object`.
    """
    try:
        row = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RowError("invalid_json", f"line {error.lineno} column {error.colno}: no JSON") from error
    if type(row) is not dict:
        raise RowError("not_an_object", f"expected a JSON object, found {kind_name(row)}")
    return row


class JsonDecoder:
    """Decodes the flat objects of one source. Fields that the schema does not know are counted and dropped."""

    def __init__(self, schema: Schema, source: Source, privacy: Privacy | None = None) -> None:
        self._encoder = RowEncoder(schema, source, privacy)
        self._names = self._encoder.names
        self.ignored_fields = 0

    def decode(self, value: bytes) -> tuple[bytes, int]:
        """Return the event and its event time in microseconds; raises RowError."""
        row = parse_object(value)
        event = self._encoder.encode(row)
        if not self._names.issuperset(row):
            self.ignored_fields += len(row.keys() - self._names)
        return event


class RowEventJsonDecoder:
    """Decodes protobuf's own JSON form of a RowEvent, such as gateways and humans write.

    It is about thirty times slower than a flat object: for hand-written events and low rates.
    """

    ignored_fields = 0  # a field that the proto does not have is refused

    def __init__(self, privacy: Privacy | None = None) -> None:
        self._privacy = privacy

    def decode(self, value: bytes) -> tuple[bytes, int]:
        """Return the event and its event time (`ALWAYS_US` without one).

        Raises:
            RowError: `invalid_row_event`, where a field or type is not that of the proto.
        """
        event = row_event_pb2.RowEvent()
        try:
            json_format.Parse(value, event)
        except (json_format.ParseError, ValueError, RecursionError) as error:
            raise RowError("invalid_row_event", "no RowEvent in protobuf's JSON form") from error
        if self._privacy is not None:
            self._privacy.protect(event)
        event_time_us = event.event_time_us if event.HasField("event_time_us") else ALWAYS_US
        return event.SerializeToString(), event_time_us

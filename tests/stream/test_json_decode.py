from __future__ import annotations

import orjson
import pytest
from google.protobuf import json_format

from protos.nowgraph.v1 import row_event_pb2
from stream.json_decode import JsonDecoder, RowEventJsonDecoder, parse_object
from stream.privacy import Privacy
from stream.values import RowError
from temporal_graph.schema import Schema
from temporal_graph.time_rule import ALWAYS_US


def decoder(schema: Schema, secret: bytes) -> JsonDecoder:
    """A decoder for the orders topic."""
    return JsonDecoder(schema, schema.sources[0], Privacy(schema, secret))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff\xfe\x00", "invalid_json"),
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"amount": NaN}', "invalid_json"),
        (b"[1]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"[" * 100_000, "invalid_json"),
    ],
)
def test_what_is_no_json_object_is_refused(value: bytes, reason: str) -> None:
    """Broken JSON, NaN, other JSON values and endless nesting are refused with a reason, without the text itself."""
    with pytest.raises(RowError) as caught:
        parse_object(value)
    assert caught.value.reason == reason


def test_unknown_fields_are_counted_and_dropped(schema: Schema, secret: bytes) -> None:
    """Fields that the schema does not have change nothing, and how many there were can be seen."""
    one = decoder(schema, secret)
    row = {"order_id": 1, "ordered_at": "2024-01-01", "amount": 1}
    plain = one.decode(orjson.dumps(row))
    assert one.ignored_fields == 0
    assert one.decode(orjson.dumps({**row, "color": "red", "weight": {"kg": 2}})) == plain
    assert one.ignored_fields == 2


def test_the_event_time_comes_with_the_event(schema: Schema, secret: bytes) -> None:
    """The decoder hands over the event time it has parsed, so that nobody parses the event again."""
    event, event_time_us = decoder(schema, secret).decode(b'{"order_id": 1, "ordered_at": 1704110400}')
    assert row_event_pb2.RowEvent.FromString(event).event_time_us == event_time_us == 1_704_110_400_000_000


def test_row_events_in_protobufs_json_form(schema: Schema, secret: bytes) -> None:
    """A RowEvent written as protobuf's JSON becomes the same message, private values hashed; others are refused."""
    event = row_event_pb2.RowEvent(table="cards", operation=row_event_pb2.OPERATION_INSERT)
    event.key.parts.add(text="4111")
    text = json_format.MessageToJson(event).encode()
    plain = RowEventJsonDecoder()
    assert plain.decode(text) == (event.SerializeToString(), ALWAYS_US)
    private = row_event_pb2.RowEvent.FromString(RowEventJsonDecoder(Privacy(schema, secret)).decode(text)[0])
    assert private.key.parts[0].text == Privacy(schema, secret).hash("4111")
    assert plain.decode(b'{"table": "t", "eventTimeUs": "7"}')[1] == 7
    for wrong in (b"{", b'{"tabel": "x"}', b'{"operation": "BOGUS"}', b"\xff", b"[1]", b"[" * 5_000):
        with pytest.raises(RowError, match="invalid_row_event"):
            plain.decode(wrong)

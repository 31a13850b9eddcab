from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.nowgraph.v1 import row_event_pb2
from stream.batch import Batch, Decoded
from stream.decode import Decoder
from stream.errors import ConfigurationError
from stream.privacy import HASHED_HEADER, Privacy
from stream.settings import StreamSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema

OPEN = """
version: 1
name: open
tables:
  things: {primary_key: {id: integer}, time_column: at, columns: {size: numerical, color: categorical}}
sources:
  - {topic: things, table: things, format: json}
"""
EXAMPLES = Path(__file__).parent / "debezium"


def batch(topic: str, values: Sequence[bytes | None]) -> Batch:
    """Records of partition 3 from offset 100 on."""
    count = len(values)
    return Batch(
        topic=topic,
        partition=np.full(count, 3, np.int32),
        offset=np.arange(100, 100 + count),
        timestamp_us=np.arange(count) * 1_000,
        keys=[b"k%d" % i for i in range(count)],
        values=values,
    )


@pytest.fixture
def decoder(schema: Schema, secret: bytes) -> Decoder:
    """A decoder of the whole schema, with a limit of 10 kB."""
    return Decoder(schema, Privacy(schema, secret), settings=StreamSettings(record_bytes_max=10_000))


def row_event(table: str = "orders", **times: int) -> bytes:
    """A small valid RowEvent."""
    event = row_event_pb2.RowEvent(table=table, operation=row_event_pb2.OPERATION_INSERT, **times)
    event.key.parts.add(integer=1)
    return event.SerializeToString()


def check_columns(decoded: Decoded, count: int, records: int) -> None:
    """The columns of a result agree with each other and with the batch."""
    assert len(decoded.events) == len(decoded.record_index) == len(decoded.broker_time_us) == count
    assert decoded.record_index.dtype == np.int32
    assert decoded.broker_time_us.tolist() == (decoded.record_index * 1_000).tolist()
    assert all(0 <= index < records for index in decoded.record_index)


def test_protobuf_passes_straight_through() -> None:
    """Without private tables a RowEvent's bytes are not looked at: even what is none goes on to the graph."""
    values = [row_event(), b"\xff\xff random"]
    decoded = Decoder(parse_schema(OPEN)).decode(batch("any.topic", values))
    assert all(one is other for one, other in zip(decoded.events, values, strict=True))
    check_columns(decoded, 2, 2)


def test_private_values_in_protobuf_are_rewritten(decoder: Decoder, schema: Schema, secret: bytes) -> None:
    """With private tables their events are rewritten; others keep their exact bytes; what is none is refused."""
    event = row_event_pb2.RowEvent(table="cards", operation=row_event_pb2.OPERATION_INSERT)
    event.key.parts.add(text="4111")
    public = row_event()
    decoded = decoder.decode(batch("shop.events", [event.SerializeToString(), b"\xff\xff\xff", public]))
    hashed = row_event_pb2.RowEvent.FromString(decoded.events[0])
    assert hashed.key.parts[0].text == Privacy(schema, secret).hash("4111")
    assert decoded.events[1] == public
    assert decoded.record_index.tolist() == [0, 2]
    assert [(letter.reason, letter.value, letter.offset) for letter in decoded.dead] == [
        ("invalid_protobuf", b"\xff\xff\xff", 101)
    ]


def test_what_was_hashed_before_is_not_hashed_again(decoder: Decoder) -> None:
    """A record that says so passes as it is, as a second hash would break its links; one that does not is hashed."""
    event = row_event_pb2.RowEvent(table="cards", operation=row_event_pb2.OPERATION_INSERT)
    event.key.parts.add(text="4111")
    value = event.SerializeToString()
    records = batch("shop.events", [value, value])
    marked = replace(records, headers=lambda index: [HASHED_HEADER] if index == 0 else [("other", b"hashed")])
    decoded = decoder.decode(marked)
    assert decoded.events[0] == value
    assert decoded.events[1] != value


@pytest.mark.parametrize("topic", ["orders", "shop.events", "shop.public.orders", "unlisted"])
@pytest.mark.parametrize(
    ("poison", "reason"),
    [(None, "null_value"), (b"", "empty_value"), (b"\x00" * 10_001, "too_large")],
)
def test_values_that_cannot_be_used_in_any_format(
    decoder: Decoder, topic: str, poison: bytes | None, reason: str
) -> None:
    """No value, no bytes and too many bytes are dead letters in each format; a CDC tombstone is skipped by design."""
    decoded = decoder.decode(batch(topic, [poison]))
    assert decoded.events == []
    if topic == "shop.public.orders" and poison is None:
        assert (decoded.dead, decoded.skipped) == ([], 1)
    else:
        assert [(letter.reason, letter.value) for letter in decoded.dead] == [(reason, poison)]


def test_poison_becomes_dead_letters_and_the_stream_moves_on(decoder: Decoder) -> None:
    """Each bad record keeps its exact bytes, key and place with its reason; the good ones around it are decoded."""
    good = b'{"order_id": 1, "ordered_at": "2024-01-01", "amount": 1.5}'
    poison = {
        "invalid_json": b"\x80\x81random",
        "not_an_object": b'"text"',
        "missing_key": b'{"ordered_at": "2024-01-01"}',
        "bad_key": b'{"order_id": 1.5, "ordered_at": "2024-01-01"}',
        "missing_time": b'{"order_id": 1}',
        "bad_time": b'{"order_id": 1, "ordered_at": "soon"}',
        "number_as_string": b'{"order_id": 1, "ordered_at": "2024-01-01", "amount": "1.5"}',
        "bad_vector": b'{"order_id": 1, "ordered_at": "2024-01-01", "taste": [1e39, 0, 0]}',
        "bad_boolean": b'{"order_id": 1, "ordered_at": "2024-01-01", "paid": "yes"}',
        "wrong_dim": b'{"order_id": 1, "ordered_at": "2024-01-01", "taste": [1]}',
    }
    values = [good, *[value for bad in poison.values() for value in (bad, good)]]
    decoded = decoder.decode(batch("orders", values))
    check_columns(decoded, len(poison) + 1, len(values))
    assert decoded.record_index.tolist() == list(range(0, len(values), 2))
    assert decoded.event_time_us is not None
    assert set(decoded.event_time_us.tolist()) == {1_704_067_200_000_000}
    assert [letter.reason for letter in decoded.dead] == list(poison)
    for i, (letter, value) in enumerate(zip(decoded.dead, poison.values(), strict=True)):
        place = 1 + 2 * i
        assert letter.value == value
        assert (letter.topic, letter.partition, letter.offset) == ("orders", 3, 100 + place)
        assert (letter.timestamp_us, letter.key) == (place * 1_000, b"k%d" % place)


def test_the_graph_refuses_what_protobuf_carries_past_us() -> None:
    """Random bytes, a wrong table, an unknown column and NaN pass through us; the graph refuses them, with reasons."""
    schema = parse_schema(OPEN)
    nan = row_event_pb2.RowEvent(table="things", operation=row_event_pb2.OPERATION_INSERT, event_time_us=1)
    nan.key.parts.add(integer=1)
    unknown = row_event_pb2.RowEvent.FromString(nan.SerializeToString())
    nan.cells.add(column="size", number=float("nan"))
    unknown.cells.add(column="weight", number=1.0)
    values = [b"\xffrandom", row_event("nothing", event_time_us=1), nan.SerializeToString(),
              unknown.SerializeToString(), row_event("things", event_time_us=1)]  # fmt: skip
    decoded = Decoder(schema).decode(batch("events", values))
    with TemporalGraph.create(schema) as graph:
        applied = graph.apply(decoded.events)
    assert [one.index for one in applied.rejected] == [0, 1, 2, 3]
    assert applied.applied == 1


def test_debezium_records_give_none_one_or_two_events(decoder: Decoder) -> None:
    """Events point to the record they came from, two of them where a key changed; nothing to say counts as skipped."""
    names = ["mysql_create", "mysql_update_of_the_key", "postgresql_message", "postgresql_truncate"]
    values = [json.dumps(json.loads((EXAMPLES / f"{name}.json").read_text())).encode() for name in names]
    decoded = decoder.decode(batch("shop.public.orders", [*values, None]))
    check_columns(decoded, 3, 5)
    assert decoded.record_index.tolist() == [0, 1, 1]
    assert decoded.skipped == 2
    assert [letter.reason for letter in decoded.dead] == ["truncate"]


def test_what_a_source_has_decoded_is_left_alone(decoder: Decoder) -> None:
    """Files decode as they read; the decoder returns their result as it is."""
    done = Decoded([b"x"], np.zeros(1, np.int32), np.zeros(1, np.int64))
    read = Batch("file:x", np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1, np.int64), [None], [b"x"],
                 backfill=True, decoded=done)  # fmt: skip
    assert decoder.decode(read) is done


def test_a_private_schema_needs_its_privacy(schema: Schema) -> None:
    """A decoder that would let private values through cannot be made."""
    with pytest.raises(ConfigurationError, match="private"):
        Decoder(schema)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8), st.sampled_from(["c", "u", "d", "r", "2024-01-01", "0001-01-01T00:00:00+14:00", 2**62]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["before", "after", "op", "source", "ts_ms", "snapshot", "payload", "schema", "fields", "field", "name",
                 "parameters", "order_id", "ordered_at", "amount", "due", "tags", "taste", "status", "customer_id",
                 "store_region", "store_number"]
            ),
            inner,
            max_size=6,
        ),
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(JSON, min_size=1, max_size=5), st.lists(st.binary(max_size=30), max_size=3))
def test_no_record_whatever_stops_the_stream(documents: list[Any], noise: list[bytes]) -> None:
    """Any JSON and any bytes, in any format, end as events or dead letters: nothing is raised, nothing is lost."""
    schema = parse_schema(FUZZED)
    values = [json.dumps(document).encode() for document in documents] + noise
    for topic in ("orders", "cdc", "written", "events"):
        decoded = Decoder(schema).decode(batch(topic, values))
        seen = {int(index) for index in decoded.record_index} | {letter.offset - 100 for letter in decoded.dead}
        assert len(seen) + decoded.skipped == len(values)
        assert all(letter.value == values[letter.offset - 100] for letter in decoded.dead)


FUZZED = """
version: 1
name: fuzzed
tables:
  customers: {primary_key: {customer_id: integer}}
  stores: {primary_key: {region: string, number: integer}}
  orders:
    primary_key: {order_id: integer}
    time_column: ordered_at
    columns:
      {amount: numerical, status: categorical, tags: multicategorical, due: timestamp, taste: {kind: embedding, dim: 2}}
    links: {customer_id: customers, store: {table: stores, columns: [store_region, store_number]}}
sources:
  - {topic: orders, table: orders, format: json}
  - {topic: cdc, table: orders, format: debezium}
  - {topic: written, table: orders, format: row_event_json}
"""

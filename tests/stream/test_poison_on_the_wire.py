"""The whole way of a bad record: broker, source, decoder, graph, dead letters."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protos.nowgraph.v1 import row_event_pb2
from stream.batch import DeadLetter
from stream.dead_letters import DeadLetters, list_dead_letters
from stream.decode import Decoder
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema

pytestmark = pytest.mark.integration

Topic = Callable[..., str]


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> tuple[StreamSettings, Topic, int]:
    """Both brokers, with a dead-letter topic that takes what the others take, and the bytes of a huge record."""
    if request.param == "embedded":
        # The embedded broker's partitions hold 5 MiB in all.
        return request.getfixturevalue("embedded_settings"), request.getfixturevalue("embedded_topic"), 2_000_000
    settings, topics = request.getfixturevalue("kafka_settings"), request.getfixturevalue("kafka_topic")
    letters = topics(1, max_message_bytes="33554432")

    def create(partitions: int) -> str:
        return str(topics(partitions, max_message_bytes="33554432"))

    return settings.model_copy(update={"dead_letter_topic": letters}), create, 10_000_000


def shop(json_topic: str, cdc_topic: str, event_topic: str) -> Schema:
    """One table that three topics feed, each in another form."""
    return parse_schema(f"""
version: 1
name: shop
tables:
  orders:
    primary_key: {{order_id: integer}}
    time_column: at
    lateness: 1h
    columns: {{amount: numerical, status: categorical}}
sources:
  - {{topic: {json_topic}, table: orders, format: json}}
  - {{topic: {cdc_topic}, table: orders, format: debezium}}
  - {{topic: {event_topic}, table: orders, format: protobuf}}
""")


def event(number: int, table: str = "orders", **times: int) -> row_event_pb2.RowEvent:
    """A row event that fits, unless it is changed."""
    message = row_event_pb2.RowEvent(table=table, operation=row_event_pb2.OPERATION_INSERT, **times)
    message.key.parts.add(integer=number)
    return message


def poisoned_events(huge_bytes: int) -> dict[str, bytes]:
    """RowEvents that do not fit, by the reason that is expected."""
    at = {"event_time_us": 10**15}
    nan, kind, column = event(1, **at), event(1, **at), event(1, **at)
    nan.cells.add(column="amount", number=float("nan"))
    kind.cells.add(column="amount", text="9.5")
    column.cells.add(column="weight", number=1.0)
    late = event(1, **at, known_time_us=10**15 + 3_600_000_001)
    return {
        "malformed": b"\xff\xff\xff random bytes",
        "unknown_table": event(1, "nothing", **at).SerializeToString(),
        "not_finite": nan.SerializeToString(),
        "wrong_kind": kind.SerializeToString(),
        "unknown_column": column.SerializeToString(),
        "missing_event_time": event(1).SerializeToString(),
        "late": late.SerializeToString(),
        "too_large": bytes(huge_bytes),
    }


def test_poison_of_every_kind_is_kept_and_the_stream_moves_on(broker: tuple[StreamSettings, Topic, int]) -> None:
    """Between good records of three formats, every bad one ends in the dead-letter topic with its exact bytes, place
    and reason, and every good one in the graph.
    """
    settings, topics, huge_bytes = broker
    json_topic, cdc_topic, event_topic = topics(2), topics(1), topics(2)
    schema = shop(json_topic, cdc_topic, event_topic)
    expected: dict[tuple[str, int, int], tuple[str, bytes | None]] = {}
    good = 0
    with EventProducer(settings) as producer:

        def send(topic: str, value: bytes | None, reason: str | None = None) -> None:
            place = producer.send(topic, value=value).result(20)
            if reason is not None:
                expected[place.topic, place.partition, place.offset] = (reason, value)

        for reason, value in poisoned_events(huge_bytes).items():
            send(event_topic, value, reason)
            good += 1
            send(event_topic, event(1_000 + good, event_time_us=10**15).SerializeToString())
        for reason, text in {
            "invalid_json": b"\x80{",
            "number_as_string": b'{"order_id":1,"at":1,"amount":"1"}',
        }.items():
            send(json_topic, text, reason)
            good += 1
            send(json_topic, b'{"order_id": %d, "at": 1, "amount": 2.5}' % (1_000 + good))
        send(json_topic, None, "null_value")
        send(cdc_topic, None)  # a tombstone is no poison
        send(cdc_topic, b"{}", "not_a_change_event")
        good += 1
        row = b'{"order_id": %d, "at": 1700000000000}' % (1_000 + good)
        send(cdc_topic, b'{"op": "c", "before": null, "after": %s, "source": {"ts_ms": 1700000000001}}' % row)

        source = KafkaSource([json_topic, cdc_topic, event_topic], settings=settings, gaps="error")
        decoder, letters, ends = Decoder(schema), DeadLetters(producer, settings=settings), source.end_positions()
        with TemporalGraph.create(schema) as graph:
            while any(graph.positions.get(place, 0) < end for place, end in ends.items()):
                batch = source.poll(7, 10.0)
                assert len(batch), "the stream stands still"
                decoded = decoder.decode(batch)
                applied = graph.apply(decoded.events, positions=batch.next_positions())
                refused: list[DeadLetter] = [
                    batch.dead_letter(int(decoded.record_index[one.index]), one.reason, one.detail)
                    for one in applied.rejected
                ]
                letters.append(decoded.dead + refused)
                letters.flush(20)
            assert graph.view().row_count("orders") == good
        source.close()
    found = {
        (one.letter.topic, one.letter.partition, one.letter.offset): (one.letter.reason, one.letter.value)
        for one in list_dead_letters(settings)
    }
    assert found == expected

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from protos.nowgraph.v1 import row_event_pb2
from stream.errors import ConfigurationError, DeliveryError
from stream.kafka_source import KafkaSource
from stream.producer import Delivery, EventProducer, PacedProducer, event_key
from stream.settings import StreamSettings

pytestmark = pytest.mark.integration

Topic = Callable[..., str]


def event(number: int, table: str = "orders") -> row_event_pb2.RowEvent:
    """A row event with an integer key."""
    message = row_event_pb2.RowEvent(table=table, operation=row_event_pb2.OPERATION_INSERT, event_time_us=number)
    message.key.parts.add(integer=number % 10)
    return message


def test_a_delivery_says_where_the_record_is(embedded_settings: StreamSettings, embedded_topic: Topic) -> None:
    """The future gives topic, partition and offset of exactly this record, in the order of the partition."""
    topic = embedded_topic(2)
    with EventProducer(embedded_settings) as producer:
        deliveries = [producer.send(topic, value=b"x", partition=1).result(10) for _ in range(3)]
    assert deliveries == [Delivery(topic, 1, offset) for offset in range(3)]


def test_callbacks_come_once_for_each_record(embedded_settings: StreamSettings, embedded_topic: Topic) -> None:
    """publish does not block; every record is reported once, and flush says that none is left."""
    topic = embedded_topic(1)
    seen: list[Delivery] = []
    with EventProducer(embedded_settings) as producer:
        for _ in range(100):
            producer.publish(topic, value=b"x", key=b"k", on_delivery=seen.append)
        assert producer.flush(10) == 0
        assert producer.failed == 0
    assert sorted(delivery.offset for delivery in seen) == list(range(100))
    assert {delivery.error for delivery in seen} == {None}


def test_records_without_a_listener_leave_the_collector_nothing(
    embedded_settings: StreamSettings, embedded_topic: Topic
) -> None:
    """However many are on their way, none is an object that the garbage collector would have to look through."""
    topic, count = embedded_topic(1), 5_000
    with EventProducer(embedded_settings) as producer:
        gc.disable()
        try:
            before = gc.get_count()[0]
            for _ in range(count):
                producer.publish(topic, value=b"x")
            assert gc.get_count()[0] - before < count / 10
        finally:
            gc.enable()
        assert producer.flush(10) == 0


@pytest.mark.kafka
def test_events_of_one_row_share_a_partition_in_order(kafka_settings: StreamSettings, kafka_topic: Topic) -> None:
    """Rows spread over the partitions, but all events of one row are in one, in the order they were published."""
    topic = kafka_topic(4)
    with EventProducer(kafka_settings) as producer:
        futures = [producer.publish_event(topic, event(i).SerializeToString()) for i in range(200)]
        places = [future.result(20) for future in futures]
    rows: dict[int, list[Delivery]] = {}
    for i, place in enumerate(places):
        rows.setdefault(i % 10, []).append(place)
    assert all(len({place.partition for place in row}) == 1 for row in rows.values())
    assert all([place.offset for place in row] == sorted(place.offset for place in row) for row in rows.values())
    assert len(Counter(place.partition for place in places)) > 1


def test_the_key_of_an_event_is_its_row() -> None:
    """Equal for events of one row, different between rows and tables, none for a table without key."""
    assert event_key(event(1)) == event_key(event(11))
    assert event_key(event(1)) != event_key(event(2))
    assert event_key(event(1)) != event_key(event(1, "payments"))
    assert event_key(row_event_pb2.RowEvent(table="visits")) is None


def test_a_record_that_cannot_be_delivered_fails_in_time() -> None:
    """Without a broker the future fails with DeliveryError once the delivery timeout has passed, and is counted."""
    settings = StreamSettings(kafka_bootstrap="127.0.0.1:1", delivery_timeout_s=0.5, broker_timeout_s=0.5)
    producer = EventProducer(settings)
    future = producer.send("t", value=b"x")
    with pytest.raises(DeliveryError):
        future.result(10)
    assert producer.failed == 1
    with pytest.raises(DeliveryError):
        producer.partition_count("t")
    producer.close()


def test_a_record_beyond_the_limit_is_refused(embedded_settings: StreamSettings, embedded_topic: Topic) -> None:
    """The client refuses what is larger than message_bytes_max, at once."""
    settings = embedded_settings.model_copy(update={"message_bytes_max": 1 << 20})
    with EventProducer(settings) as producer, pytest.raises(DeliveryError, match="too large"):
        producer.publish(embedded_topic(1), value=bytes(2 << 20))


@pytest.mark.kafka
def test_the_partitions_of_a_missing_topic_are_not_guessed(kafka_settings: StreamSettings) -> None:
    """A topic that does not exist has no partition count."""
    settings = kafka_settings.model_copy(update={"kafka_config": {"allow.auto.create.topics": "false"}})
    with EventProducer(settings) as producer, pytest.raises((ConfigurationError, DeliveryError)):
        producer.partition_count(f"{kafka_settings.dead_letter_topic}-missing")


def test_pacing_keeps_every_record_in_the_ring(embedded_settings: StreamSettings, embedded_topic: Topic) -> None:
    """Three times what the ring holds goes through it without a gap, because the producer waits for the reader."""
    topic = embedded_topic(1)
    settings = embedded_settings.model_copy(update={"embedded_window_bytes": 1 << 20})
    source = KafkaSource([topic], settings=settings, gaps="error")
    applied = {(topic, 0): 0}
    count = 3_000
    received: list[int] = []

    def read() -> None:
        while len(received) < count:
            batch = source.poll(100, 1.0)
            received.extend(int.from_bytes((value or b"")[:4], "big") for value in batch.values)
            applied.update(batch.next_positions())

    reader = threading.Thread(target=read)
    reader.start()
    with EventProducer(settings) as producer:
        paced = PacedProducer(producer, lambda name, partition: applied[name, partition], settings=settings)
        for i in range(count):
            paced.publish(topic, value=i.to_bytes(4, "big") + bytes(5_000))
        assert paced.wait_applied(20)
    reader.join(20)
    source.close()
    assert received == list(range(count))


def test_pacing_gives_up_when_nothing_is_applied(embedded_settings: StreamSettings, embedded_topic: Topic) -> None:
    """A graph that stopped is reported after the delivery timeout, instead of waiting for ever or losing records."""
    settings = embedded_settings.model_copy(update={"embedded_window_bytes": 64 << 10, "delivery_timeout_s": 2.0})
    with EventProducer(settings) as producer:
        paced = PacedProducer(producer, lambda _topic, _partition: 0, settings=settings)
        topic = embedded_topic(1)
        start_s = time.monotonic()
        for _ in range(60):
            paced.publish(topic, value=bytes(1_000))
        with pytest.raises(DeliveryError, match="nothing applied beyond offset 0"):
            paced.publish(topic, value=bytes(10_000))
        assert 1.5 < time.monotonic() - start_s < 10
        assert not paced.wait_applied(0.05)


def test_pacing_reports_what_was_not_delivered(embedded_settings: StreamSettings, embedded_topic: Topic) -> None:
    """A record that was lost on the way is an error of the next call, not a silent hole in the graph."""
    settings = embedded_settings.model_copy(update={"message_bytes_max": 1 << 20})
    with EventProducer(settings) as producer:
        paced = PacedProducer(producer, lambda _topic, _partition: 0, settings=settings)
        topic = embedded_topic(1)
        lost: Future[Delivery] = Future()
        lost.set_exception(DeliveryError("gone"))
        paced.publish(topic, value=b"x").result(10)
        paced._windows[topic, 0].delivered(lost, 1)
        with pytest.raises(DeliveryError, match="gone"):
            paced.publish(topic, value=b"x")
        with pytest.raises(DeliveryError, match="gone"):
            paced.wait_applied(1)

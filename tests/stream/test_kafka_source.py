from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import confluent_kafka
import numpy as np
import pytest
from confluent_kafka import admin

from stream.batch import Batch
from stream.embedded_broker import EmbeddedBroker
from stream.errors import ConfigurationError, GapError, UnreachableError
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings

pytestmark = pytest.mark.integration

Topic = Callable[..., str]


def publish(settings: StreamSettings, topic: str, values: Sequence[bytes], **options: Any) -> None:
    """Publishes values and waits until they are there."""
    with EventProducer(settings) as producer:
        for future in [producer.send(topic, value=value, **options) for value in values]:
            future.result(20)


def read(source: KafkaSource, count: int, timeout_s: float = 20.0) -> list[Batch]:
    """Polls until `count` records came."""
    batches, deadline_s = [], time.monotonic() + timeout_s
    while sum(map(len, batches)) < count and time.monotonic() < deadline_s:
        batch = source.poll(1_000, 0.5)
        if len(batch):
            batches.append(batch)
    return batches


def values(batches: Sequence[Batch]) -> list[bytes | None]:
    """The values of all batches, in order."""
    return [value for batch in batches for value in batch.values]


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> tuple[StreamSettings, Topic]:
    """Each promise is kept on the embedded broker and on Apache Kafka."""
    if request.param == "embedded":
        return request.getfixturevalue("embedded_settings"), request.getfixturevalue("embedded_topic")
    return request.getfixturevalue("kafka_settings"), request.getfixturevalue("kafka_topic")


def test_every_partition_is_read_in_order_with_exact_bytes(broker: tuple[StreamSettings, Topic]) -> None:
    """All partitions are read from the beginning; keys, values, timestamps and headers are exactly those sent."""
    settings, topics = broker
    topic = topics(3)
    with EventProducer(settings) as producer:
        for i in range(90):
            producer.send(
                topic,
                value=b"\x00\xff" + bytes([i]),
                key=b"k%d" % i if i % 2 else None,
                partition=i % 3,
                timestamp_us=1_700_000_000_000_000 + i * 1000,
                headers=[("n", b"%d" % i)],
            )
    source = KafkaSource([topic], settings=settings, gaps="error")
    batches = read(source, 90)
    ends = source.end_positions()
    lag = source.lag_records()
    source.close()
    seen = []
    for batch in batches:
        assert batch.topic == topic
        for j in range(len(batch)):
            i = batch.values[j][2]  # type: ignore[index]
            seen.append(i)
            assert batch.partition[j] == i % 3
            assert batch.offset[j] == i // 3
            assert batch.timestamp_us[j] == 1_700_000_000_000_000 + i * 1000
            assert batch.keys[j] == (b"k%d" % i if i % 2 else None)
            assert batch.headers(j) == [("n", b"%d" % i)]
    assert sorted(seen) == list(range(90))
    assert ends == source.positions == {(topic, p): 30 for p in range(3)}
    assert lag == 0


def test_reading_goes_on_at_the_positions_given(broker: tuple[StreamSettings, Topic]) -> None:
    """From given positions exactly the records from there on come: none before, none missing."""
    settings, topics = broker
    topic = topics(2)
    publish(settings, topic, [b"%d" % i for i in range(10)], partition=0)
    publish(settings, topic, [b"x%d" % i for i in range(10)], partition=1)
    source = KafkaSource([topic], positions={(topic, 0): 7, (topic, 1): 10}, settings=settings)
    batches = read(source, 3)
    more = source.poll(10, 0.3)
    source.close()
    assert values(batches) == [b"7", b"8", b"9"]
    assert len(more) == 0
    assert batches[-1].next_positions() == {(topic, 0): 10}


def test_starting_at_the_end_reads_only_what_comes_later(broker: tuple[StreamSettings, Topic]) -> None:
    """A source that starts at the end gives nothing of the past and all of the future."""
    settings, topics = broker
    topic = topics(1)
    publish(settings, topic, [b"past"])
    source = KafkaSource([topic], start="end", settings=settings)
    publish(settings, topic, [b"future"])
    batches = read(source, 1)
    source.close()
    assert values(batches) == [b"future"]


def test_a_batch_is_of_one_topic(broker: tuple[StreamSettings, Topic]) -> None:
    """Records of several topics come in batches of one topic each, none is lost, and positions are of what came."""
    settings, topics = broker
    one, other = topics(1), topics(1)
    publish(settings, one, [b"a"] * 5)
    publish(settings, other, [b"b"] * 5)
    source = KafkaSource([one, other], settings=settings)
    time.sleep(1.0)  # so that the client holds records of both when it is asked first
    batches, came = [], {(one, 0): 0, (other, 0): 0}
    deadline_s = time.monotonic() + 20.0
    while sum(map(len, batches)) < 10 and time.monotonic() < deadline_s:
        batches.append(source.poll(1_000, 0.5))
        came |= batches[-1].next_positions()
        assert source.positions == came
    source.close()
    assert sum(len(batch) for batch in batches if batch.topic == one) == 5
    assert all(set(batch.values) == {b"a" if batch.topic == one else b"b"} for batch in batches)


def test_paused_fetching_gives_nothing_and_resumes_without_loss(broker: tuple[StreamSettings, Topic]) -> None:
    """Between the two thresholds of backpressure nothing is fetched; afterwards every record comes once, in order."""
    settings, topics = broker
    topic = topics(1)
    source = KafkaSource([topic], settings=settings, gaps="error")
    publish(settings, topic, [b"%d" % i for i in range(100)])
    first = source.poll(10, 5.0)
    assert source.backpressure(settings.pause_queue_bytes) is True
    while len(first) and len(batch := source.poll(1_000, 0.3)):  # what had been handed over already
        first = Batch(
            topic, np.concatenate([first.partition, batch.partition]), np.concatenate([first.offset, batch.offset]),
            np.concatenate([first.timestamp_us, batch.timestamp_us]), [*first.keys, *batch.keys],
            [*first.values, *batch.values],
        )  # fmt: skip
    publish(settings, topic, [b"%d" % i for i in range(100, 200)])
    assert len(source.poll(1_000, 0.5)) == 0
    assert source.backpressure(settings.resume_queue_bytes + 1) is True
    assert source.backpressure(settings.resume_queue_bytes) is False
    rest = read(source, 200 - len(first))
    source.close()
    assert [*first.values, *values(rest)] == [b"%d" % i for i in range(200)]


def test_a_record_is_there_soon_after_it_was_sent(broker: tuple[StreamSettings, Topic]) -> None:
    """poll returns at the first record, long before its timeout and before the batch is full."""
    settings, topics = broker
    topic = topics(1)
    source = KafkaSource([topic], settings=settings)
    source.poll(10, 0.2)
    with EventProducer(settings) as producer:
        start_s = time.monotonic()
        producer.send(topic, value=b"now")
        batch = source.poll(1_000, 10.0)
        waited_s = time.monotonic() - start_s
    source.close()
    assert batch.values == [b"now"]
    assert waited_s < 5.0


class _Counted:
    """A client whose calls are counted."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._client, name)


def test_ends_are_asked_for_at_once(broker: tuple[StreamSettings, Topic]) -> None:
    """All partitions in one call, which waits for the broker once: no record is read meanwhile."""
    settings, make_topic = broker
    topic = make_topic(16)
    for partition in range(16):
        publish(settings, topic, [b"x"] * (partition % 3), partition=partition)
    source = KafkaSource([topic], settings=settings)
    client = source._consumer = _Counted(source._consumer)
    assert source.end_positions() == {(topic, partition): partition % 3 for partition in range(16)}
    assert client.calls == ["offsets_for_times"]
    source.close()


@pytest.mark.kafka
def test_a_topic_that_does_not_exist_is_refused(kafka_settings: StreamSettings) -> None:
    """A wrong topic name is a configuration error at the start, not an empty graph for ever."""
    with pytest.raises(ConfigurationError, match=r"no\.such\.topic"):
        KafkaSource(["no.such.topic"], settings=kafka_settings.model_copy(update={"kafka_config": {}}))


def test_no_broker_is_an_error_within_the_time_limit() -> None:
    """Without a broker the source says so in the time it was given, and that it may pass."""
    settings = StreamSettings(kafka_bootstrap="127.0.0.1:1", broker_timeout_s=0.5)
    start_s = time.monotonic()
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"):
        KafkaSource(["any"], settings=settings)
    assert time.monotonic() - start_s < 10


def test_records_pushed_out_of_the_ring_are_an_error(embedded_settings: StreamSettings, embedded_topic: Topic) -> None:
    """The embedded broker forgets old records; a reader whose position was forgotten gets a GapError, never a jump."""
    topic = embedded_topic(1)
    publish(embedded_settings, topic, [bytes(100_000)] * 100)
    low_source = KafkaSource([topic], settings=embedded_settings)
    low = low_source.positions[topic, 0]
    low_source.close()
    assert low > 0
    source = KafkaSource([topic], positions={(topic, 0): 0}, settings=embedded_settings, gaps="error")
    with pytest.raises(GapError) as caught:
        read(source, 1)
    source.close()
    assert (caught.value.topic, caught.value.partition, caught.value.expected_offset) == (topic, 0, 0)
    with pytest.raises(GapError) as unseen:
        KafkaSource([topic], settings=embedded_settings, gaps="error")
    assert (unseen.value.expected_offset, unseen.value.found_offset) == (0, low)


@pytest.mark.kafka
def test_records_deleted_by_retention_are_an_error(kafka_settings: StreamSettings, kafka_topic: Topic) -> None:
    """On Apache Kafka too, a position that retention has passed is a GapError."""
    from confluent_kafka import TopicPartition, admin

    topic = kafka_topic(1)
    publish(kafka_settings, topic, [b"%d" % i for i in range(10)])
    client = admin.AdminClient({"bootstrap.servers": kafka_settings.kafka_bootstrap})
    for future in client.delete_records([TopicPartition(topic, 0, 6)]).values():
        future.result(20)
    source = KafkaSource([topic], positions={(topic, 0): 3}, settings=kafka_settings)
    with pytest.raises(GapError) as caught:
        read(source, 1)
    source.close()
    assert caught.value.expected_offset == 3
    from_beginning = KafkaSource([topic], settings=kafka_settings)
    assert values(read(from_beginning, 4)) == [b"6", b"7", b"8", b"9"]
    from_beginning.close()


@pytest.mark.kafka
def test_a_partition_that_came_and_lost_its_beginning_is_an_error(
    kafka_settings: StreamSettings, kafka_topic: Topic
) -> None:
    """Whoever has read the topic before would miss records of it; whoever begins takes the log as it is."""
    from confluent_kafka import TopicPartition, admin

    topic = kafka_topic(2)
    publish(kafka_settings, topic, [b"%d" % i for i in range(10)], partition=1)
    client = admin.AdminClient({"bootstrap.servers": kafka_settings.kafka_bootstrap})
    KafkaSource([topic], positions={(topic, 0): 0}, settings=kafka_settings).close()
    for future in client.delete_records([TopicPartition(topic, 1, 6)]).values():
        future.result(20)
    with pytest.raises(GapError) as caught:
        KafkaSource([topic], positions={(topic, 0): 0}, settings=kafka_settings)
    assert (caught.value.partition, caught.value.expected_offset, caught.value.found_offset) == (1, 0, 6)
    KafkaSource([topic], settings=kafka_settings).close()


@pytest.mark.kafka
def test_gaps_of_transactions_are_normal_where_they_are_allowed(
    kafka_settings: StreamSettings, kafka_topic: Topic
) -> None:
    """A transaction's markers take offsets: allowed gaps pass, and a source that wants dense offsets says where."""
    import confluent_kafka

    topic = kafka_topic(1)
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": kafka_settings.kafka_bootstrap, "transactional.id": f"t-{topic}"}
    )
    producer.init_transactions(30)
    for text in (b"a", b"b"):
        producer.begin_transaction()
        producer.produce(topic, text)
        producer.commit_transaction(30)
    source = KafkaSource([topic], settings=kafka_settings)
    assert values(read(source, 2)) == [b"a", b"b"]
    source.close()
    strict = KafkaSource([topic], settings=kafka_settings, gaps="error")
    with pytest.raises(GapError) as caught:
        read(strict, 2)
    strict.close()
    assert (caught.value.expected_offset, caught.value.found_offset) == (1, 2)


@pytest.mark.kafka
def test_partitions_added_later_are_read_from_their_beginning(
    kafka_settings: StreamSettings, kafka_topic: Topic
) -> None:
    """A topic that grows while it is read loses nothing: records of new partitions come too, each once."""
    from confluent_kafka import admin

    topic = kafka_topic(1)
    settings = kafka_settings.model_copy(update={"partition_check_s": 0.5})
    source = KafkaSource([topic], settings=settings, gaps="error")
    publish(settings, topic, [b"old"], partition=0)
    assert values(read(source, 1)) == [b"old"]
    client = admin.AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    client.create_partitions([admin.NewPartitions(topic, 3)])[topic].result(20)
    time.sleep(0.5)
    publish(settings, topic, [b"new1", b"new2"], partition=2)
    publish(settings, topic, [b"old2"], partition=0)
    assert sorted(value or b"" for value in values(read(source, 3))) == [b"new1", b"new2", b"old2"]
    assert source.positions == {(topic, 0): 2, (topic, 1): 0, (topic, 2): 2}
    source.close()


@pytest.mark.kafka
def test_a_topic_that_is_made_later_is_read_from_its_beginning(
    kafka_settings: StreamSettings, kafka_topic: Topic
) -> None:
    """What was published before it was found comes too, each record once; meanwhile the other topics are read."""
    topic, later = kafka_topic(1), f"later-{uuid.uuid4().hex[:8]}"
    settings = kafka_settings.model_copy(update={"partition_check_s": 1.0})
    source = KafkaSource([topic], later=[later], settings=settings, gaps="error")
    publish(settings, topic, [b"old"])
    assert values(read(source, 1)) == [b"old"]
    made = admin.AdminClient({"bootstrap.servers": settings.kafka_bootstrap}).create_topics
    made([admin.NewTopic(later, 2, 1)])[later].result(20)
    publish(settings, later, [b"a", b"b"], partition=1)
    publish(settings, topic, [b"new"])
    publish(settings, later, [b"c"], partition=0)
    assert sorted(value or b"" for value in values(read(source, 4))) == [b"a", b"b", b"c", b"new"]
    assert source.positions == source.end_positions() == {(topic, 0): 2, (later, 0): 1, (later, 1): 2}
    source.close()


def test_reading_survives_an_outage_of_the_broker() -> None:
    """While the broker is away polls return empty and nothing is raised; when it is back, reading goes on in place."""
    with EmbeddedBroker({"t": 1}) as broker:
        settings = StreamSettings(kafka_bootstrap=broker.bootstrap, partition_check_s=0.2)
        publish(settings, "t", [b"before"])
        source = KafkaSource(["t"], settings=settings, gaps="error")
        assert values(read(source, 1)) == [b"before"]
        broker.set_down(down=True)
        assert [len(source.poll(10, 0.3)) for _ in range(3)] == [0, 0, 0]
        broker.set_down(down=False)
        publish(settings, "t", [b"after"])
        assert values(read(source, 1)) == [b"after"]
        source.close()


def test_a_position_beyond_the_end_is_a_gap(broker: tuple[StreamSettings, Topic]) -> None:
    """A topic that was deleted and made anew has other records: who was further in the old one is told, at once."""
    settings, topics = broker
    topic = topics(1)
    publish(settings, topic, [b"a"] * 3)
    source = KafkaSource([topic], positions={(topic, 0): 7}, settings=settings)
    with pytest.raises(GapError, match=r"offset 7"):
        read(source, 1)
    source.close()


@pytest.mark.kafka
def test_marks_of_transactions_are_passed(kafka_settings: StreamSettings, kafka_topic: Topic) -> None:
    """After a commit, and after what was aborted, the position is the log's end; every record comes, and once."""
    topic = kafka_topic(2)
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": kafka_settings.kafka_bootstrap, "transactional.id": topic}
    )
    producer.init_transactions(60)
    source = KafkaSource([topic], settings=kafka_settings)
    came: list[bytes | None] = []

    def read_to(end: int) -> None:
        deadline_s = time.monotonic() + 30
        while source.positions[topic, 0] < end:
            assert time.monotonic() < deadline_s, source.positions
            batch = source.poll(1_000, 0.1)
            assert batch.next_positions().items() <= source.positions.items()
            came.extend(batch.values)
            if batch.passed:
                assert not len(batch)
        assert source.end_positions() == {(topic, 0): end, (topic, 1): 0}

    for value, commit in ((b"a", True), (b"b", False), (b"c", True)):
        producer.begin_transaction()
        producer.produce(topic, value=value, partition=0)
        if commit:
            producer.commit_transaction(60)
        else:
            producer.flush(60)
            producer.abort_transaction(60)
        if value != b"b":
            read_to(2 if value == b"a" else 6)
    source.close()
    assert came == [b"a", b"c"]

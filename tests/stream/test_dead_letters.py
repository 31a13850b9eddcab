from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from stream.batch import NO_TIMESTAMP_US, DeadLetter
from stream.dead_letters import DeadLetters, list_dead_letters, redrive
from stream.errors import DeliveryError
from stream.kafka_source import KafkaSource
from stream.privacy import HASHED_HEADER
from stream.producer import Delivery, EventProducer
from stream.settings import StreamSettings

pytestmark = pytest.mark.integration

Topic = Callable[..., str]
Broker = tuple[StreamSettings, Topic]


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each promise is kept on the embedded broker and on Apache Kafka, with a dead-letter topic of the test's own."""
    if request.param == "embedded":
        return request.getfixturevalue("embedded_settings"), request.getfixturevalue("embedded_topic")
    settings, topics = request.getfixturevalue("kafka_settings"), request.getfixturevalue("kafka_topic")
    return settings.model_copy(update={"dead_letter_topic": topics(2, max_message_bytes="33554432")}), topics


def letters(topic: str) -> list[DeadLetter]:
    """Dead letters with awkward bytes: not UTF-8, without key, without value, without timestamp."""
    headers = (HASHED_HEADER, ("x", None))
    return [
        DeadLetter(topic, 1, 5, 1_700_000_000_000_000, b"\x00k", b"\xff\x00\x80", "invalid_json", "line 1: no JSON"),
        DeadLetter(topic, 0, 9, NO_TIMESTAMP_US, None, None, "null_value", "größer als nichts"),
        DeadLetter(topic, 1, 6, 1_700_000_000_001_000, b"k", b"late one", "late", "known 9 us after", headers),
    ]


def store(settings: StreamSettings, all_letters: list[DeadLetter]) -> None:
    """Writes dead letters and waits until they are safe."""
    with EventProducer(settings) as producer:
        writer = DeadLetters(producer, settings=settings)
        writer.append(all_letters)
        writer.flush(20)


def by_place(all_letters: list[DeadLetter]) -> list[DeadLetter]:
    """In the order of topic, partition and offset."""
    return sorted(all_letters, key=lambda one: (one.topic, one.partition, one.offset))


def test_dead_letters_keep_exact_bytes_and_place(broker: Broker) -> None:
    """What is listed is what was stored, byte for byte, with reason, place and time."""
    settings, topics = broker
    stored = letters(topics(2))
    store(settings, stored)
    listed = [one.letter for one in list_dead_letters(settings)]
    assert by_place(listed) == by_place(stored)


def test_dead_letters_are_filtered(broker: Broker) -> None:
    """By original topic, by reason, and to a limit."""
    settings, topics = broker
    one, other = topics(2), topics(2)
    store(settings, letters(one) + letters(other))
    assert len(list_dead_letters(settings, topic=one)) == 3
    assert [found.letter.reason for found in list_dead_letters(settings, topic=one, reason="late")] == ["late"]
    assert len(list_dead_letters(settings, reason="late")) == 2
    assert len(list_dead_letters(settings, limit=4)) == 4


def test_redriving_sends_exact_bytes_once(broker: Broker) -> None:
    """Redriven records are in their topic and partition with the same key, bytes, headers and time; again nothing."""
    settings, topics = broker
    topic = topics(2)
    stored = letters(topic)
    store(settings, stored)
    sent = []
    with EventProducer(settings) as producer:
        assert redrive(settings, producer, reason="late") == 1
        assert redrive(settings, producer, on_sent=lambda one, delivery: sent.append((one, delivery))) == 2
        assert redrive(settings, producer) == 0
    assert list_dead_letters(settings) == []
    assert {one.redriven for one in list_dead_letters(settings, include_redriven=True)} == {True}
    assert all(delivery.topic == topic and delivery.partition == one.letter.partition for one, delivery in sent)
    source = KafkaSource([topic], settings=settings)
    found = []
    while len(found) < 3:
        batch = source.poll(10, 5.0)
        assert len(batch), "a redriven record is missing"
        for i in range(len(batch)):
            place = (int(batch.partition[i]), batch.keys[i], batch.values[i], tuple(batch.headers(i)))
            found.append((*place, int(batch.timestamp_us[i])))
    source.close()
    for letter in stored:
        matching = [one for one in found if one[:4] == (letter.partition, letter.key, letter.value, letter.headers)]
        assert len(matching) == 1
        if letter.timestamp_us != NO_TIMESTAMP_US:
            assert matching[0][4] == letter.timestamp_us


def test_copies_of_a_letter_are_one(broker: Broker) -> None:
    """Two replicas and a restart write three letters of one record: it is listed and driven again once, for all."""
    settings, topics = broker
    one, other = letters(topics(2))[0], letters(topics(2))[2]
    store(settings, [one, other])
    store(settings, [one])
    store(settings, [one])
    assert by_place([found.letter for found in list_dead_letters(settings)]) == by_place([one, other])
    with EventProducer(settings) as producer:
        assert redrive(settings, producer) == 2
        store(settings, [one])
        assert redrive(settings, producer) == 0
    elsewhere = replace(one, value=b"another record at this offset of a topic that was made anew")
    store(settings, [elsewhere])
    assert [found.letter for found in list_dead_letters(settings)] == [elsewhere]


@pytest.mark.kafka
def test_a_letter_that_its_topic_does_not_take_says_what_to_raise(
    kafka_settings: StreamSettings, kafka_topic: Topic
) -> None:
    """It is not dropped: whoever flushes hears of it, with the setting of the topic."""
    settings = kafka_settings.model_copy(update={"dead_letter_topic": kafka_topic(1, max_message_bytes="1000")})
    large = DeadLetter("payments", 0, 1, NO_TIMESTAMP_US, None, bytes(2_000), "malformed", "")
    with pytest.raises(DeliveryError, match=r"max\.message\.bytes"):
        store(settings, [large])


@pytest.mark.kafka
def test_a_letter_about_an_old_record_outlives_retention(kafka_settings: StreamSettings, kafka_topic: Topic) -> None:
    """Retention counts from the time of the letter, not of its record: one of years ago is kept like any other."""
    settings = kafka_settings.model_copy(update={"dead_letter_topic": kafka_topic(1, retention_ms="3600000")})
    old = letters("payments")[0]
    store(settings, [old])
    witness = kafka_topic(1, retention_ms="3600000")
    with EventProducer(settings) as producer:
        producer.send(witness, value=b"as old", timestamp_us=old.timestamp_us).result(20)
    wait_until_deleted(settings, witness)
    assert [one.letter for one in list_dead_letters(settings)] == [old]


def wait_until_deleted(settings: StreamSettings, topic: str) -> None:
    """Returns once the broker's retention has looked at the topics and dropped the only record of this one."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        source = KafkaSource([topic], settings=settings)
        start = source.positions[topic, 0]
        source.close()
        if start == 1:
            return
        time.sleep(0.2)
    pytest.fail("retention did not come by within a minute")


def test_a_poison_of_ten_megabytes_is_kept_whole(broker: Broker) -> None:
    """A dead letter may be far larger than any record the graph would take."""
    settings, topics = broker
    poison = bytes(range(256)) * 40_000
    store(settings, [DeadLetter(topics(1), 0, 0, 0, None, poison, "too_large", "10 MB")])
    (found,) = list_dead_letters(settings)
    assert found.letter.value == poison


class _Refusing(EventProducer):
    """A broker that does not take one of the records."""

    def send(self, topic: str, *, value: bytes | None, **more: Any) -> Future[Delivery]:
        if value != b"refused":
            return super().send(topic, value=value, **more)
        future: Future[Delivery] = Future()
        future.set_exception(DeliveryError("too large"))
        return future


def test_a_record_that_is_refused_sends_no_other_twice(broker: Broker) -> None:
    """Those behind it are on their way by then: they are marked, and the next redrive sends that one alone."""
    settings, topics = broker
    topic = topics(2)
    stored = [replace(one, value=value) for one, value in zip(letters(topic), (b"a", b"refused", b"c"), strict=True)]
    store(settings, stored)
    with _Refusing(settings) as producer, pytest.raises(DeliveryError, match="too large"):
        redrive(settings, producer)
    assert [one.letter.value for one in list_dead_letters(settings)] == [b"refused"]
    with EventProducer(settings) as producer:
        assert redrive(settings, producer) == 1


def test_rows_of_files_are_listed_but_not_redriven(broker: Broker) -> None:
    """A file's row has no topic to go to: it stays listed, and redriving the others goes on."""
    settings, topics = broker
    topic = topics(1)
    from_file = DeadLetter("file:orders", 0, 3, NO_TIMESTAMP_US, None, b"{}", "missing_key", "order_id")
    store(settings, [from_file, DeadLetter(topic, 0, 1, 0, None, b"x", "late", "")])
    with EventProducer(settings) as producer:
        assert redrive(settings, producer, limit=1) == 1
    assert [one.letter for one in list_dead_letters(settings)] == [from_file]


def test_an_unconfirmed_dead_letter_stops_the_writer() -> None:
    """flush returns only when every letter is safe: without a broker it raises, so positions do not advance."""
    settings = StreamSettings(kafka_bootstrap="127.0.0.1:1", delivery_timeout_s=1.0)
    producer = EventProducer(settings)
    writer = DeadLetters(producer, settings=settings)
    writer.append(letters("t"))
    with pytest.raises(DeliveryError, match="3 dead letters were not acknowledged"):
        writer.flush(0.05)
    with pytest.raises(DeliveryError, match="3 dead letters were refused"):
        writer.flush(10)
    writer.flush(0.1)
    producer.close()


@pytest.mark.kafka
def test_no_dead_letter_topic_means_no_dead_letters(kafka_settings: StreamSettings) -> None:
    """Before the first letter the topic does not exist, and the list is empty."""
    assert list_dead_letters(kafka_settings) == []

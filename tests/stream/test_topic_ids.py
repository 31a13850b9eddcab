"""A topic that was deleted and made anew under its name is another topic, however many records it has."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from stream.errors import ReplacedTopicError, SourceError
from stream.group_source import GroupSource
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings

pytestmark = pytest.mark.integration

Topic = Callable[..., str]


def publish(settings: StreamSettings, topic: str, count: int) -> None:
    """So many records."""
    with EventProducer(settings) as producer:
        for future in [producer.send(topic, value=b"%d" % number) for number in range(count)]:
            future.result(20)


def read(source: Any, count: int) -> None:
    """Polls until so many records came."""
    deadline_s, came = time.monotonic() + 30, 0
    while came < count:
        assert time.monotonic() < deadline_s, came
        came += len(source.poll(100, 0.2))


@pytest.mark.kafka
def test_a_topic_that_was_made_anew_is_refused_although_it_reaches_beyond_the_position(
    kafka_settings: StreamSettings, kafka_topic: Topic, replace_topic: Callable[[str], None]
) -> None:
    """Its first records would count as read. By one who starts, at once and by name; a known one is read on."""
    topic = kafka_topic(1)
    publish(kafka_settings, topic, 3)
    ids: dict[str, str] = {}
    source = KafkaSource([topic], keep_id=ids.setdefault, settings=kafka_settings)
    read(source, 3)
    source.close()
    assert list(ids) == [topic]
    publish(kafka_settings, topic, 2)
    again = KafkaSource([topic], positions={(topic, 0): 3}, keep_id=ids.setdefault, settings=kafka_settings)
    read(again, 2)
    again.close()

    kept = dict(ids)
    replace_topic(topic)
    publish(kafka_settings, topic, 9)
    with pytest.raises(ReplacedTopicError, match="deleted and made anew") as caught:
        KafkaSource([topic], positions={(topic, 0): 5}, keep_id=ids.setdefault, settings=kafka_settings)
    assert (caught.value.topic, caught.value.kept_id) == (topic, kept[topic])
    assert ids == kept
    KafkaSource([topic], keep_id={}.setdefault, settings=kafka_settings).close()


def poll_on(source: Any) -> None:
    """Polls until a replaced topic is named."""
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        try:
            source.poll(100, 0.1)
        except ReplacedTopicError:
            raise
        except SourceError:  # the client may have heard that the topic was gone
            continue


@pytest.mark.kafka
@pytest.mark.parametrize("in_group", [False, True], ids=["alone", "in a group"])
def test_a_topic_that_is_made_anew_while_it_is_read_ends_the_reading(
    kafka_settings: StreamSettings, kafka_topic: Topic, replace_topic: Callable[[str], None], in_group: bool
) -> None:
    """At the next look: also if the new one is soon beyond the old one's end."""
    topic, ids = kafka_topic(1), {}
    settings = kafka_settings.model_copy(update={"partition_check_s": 0.2})
    publish(settings, topic, 3)
    options: dict[str, Any] = {"keep_id": ids.setdefault, "settings": settings}
    if in_group:
        options |= {"group": f"of-{topic}", "take": lambda places, begin_of: {one: begin_of(one) for one in places}}
    source = (GroupSource if in_group else KafkaSource)([topic], **options)
    read(source, 3)
    replace_topic(topic)
    publish(settings, topic, 9)
    with pytest.raises(ReplacedTopicError, match=topic):
        poll_on(source)
    source.close()


def test_a_broker_that_has_no_ids_is_asked_for_none(embedded_settings: StreamSettings, embedded_topic: Topic) -> None:
    """The embedded one answers no such question: nobody waits for it, and nothing is kept."""
    topic, ids, begun_s = embedded_topic(1), {}, time.monotonic()
    KafkaSource([topic], keep_id=ids.setdefault, settings=embedded_settings).close()
    assert time.monotonic() - begun_s < embedded_settings.broker_timeout_s
    assert ids == {}

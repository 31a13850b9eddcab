"""Partitions without a leader, or with another one than the client knows, while a source asks where they begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import confluent_kafka
import pytest

from stream.errors import SourceError
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings

pytestmark = pytest.mark.integration


class _Leaderless:
    """A client whose partitions have no leader at first, as those of a topic that was just made."""

    def __init__(self, client: Any, error: int) -> None:
        self._client, self._error = client, error
        self.refusals = 3

    def get_watermark_offsets(self, *asked: Any, **options: Any) -> Any:
        self.refusals -= 1
        if self.refusals >= 0:
            raise confluent_kafka.KafkaException(confluent_kafka.KafkaError(self._error))
        return self._client.get_watermark_offsets(*asked, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_partition_whose_leader_moves_is_asked_again(
    embedded_settings: StreamSettings, embedded_topic: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks while it moves waits for the new one; what does not pass is raised at once."""
    topic, consumer, error = embedded_topic(1), confluent_kafka.Consumer, confluent_kafka.KafkaError
    with EventProducer(embedded_settings) as producer:
        producer.send(topic, value=b"a").result(20)
    made: list[_Leaderless] = []

    def leaderless(code: int) -> None:
        def make(config: Any) -> _Leaderless:
            made.append(_Leaderless(consumer(config), code))
            return made[-1]

        monkeypatch.setattr(confluent_kafka, "Consumer", make)

    leaderless(error.NOT_LEADER_FOR_PARTITION)
    source = KafkaSource([topic], settings=embedded_settings)
    assert source.poll(1, 20.0).values == [b"a"]
    source.close()
    leaderless(error.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(SourceError, match="no offsets"):
        KafkaSource([topic], settings=embedded_settings)
    assert [one.refusals for one in made] == [-1, 2]

from __future__ import annotations

from collections.abc import Callable

import pytest

from stream.embedded_broker import EmbeddedBroker
from stream.errors import SilentLogError
from stream.kafka_source import KafkaSource
from stream.present import present
from stream.producer import EventProducer
from stream.settings import StreamSettings

pytestmark = pytest.mark.integration


def publish(settings: StreamSettings, topic: str, count: int) -> None:
    """Publishes records over two partitions."""
    with EventProducer(settings) as producer:
        for number in range(count):
            producer.send(topic, value=b"%d" % number, partition=number % 2).result(20)


def test_all_that_is_there_is_given_and_then_it_ends(
    embedded_settings: StreamSettings, embedded_topic: Callable[[int], str]
) -> None:
    """Of every partition, from where the source stands; an empty log ends at once, and so does who is stopped."""
    topic = embedded_topic(2)
    publish(embedded_settings, topic, 20)
    for positions, count in (({}, 20), ({(topic, 0): 7, (topic, 1): 10}, 3), ({(topic, 0): 10, (topic, 1): 10}, 0)):
        source = KafkaSource([topic], positions=positions, settings=embedded_settings)
        found = [value for batch in present(source) for value in batch.values]
        assert source.positions == {(topic, 0): 10, (topic, 1): 10}
        assert len(found) == count
        source.close()
    source = KafkaSource([topic], settings=embedded_settings)
    assert list(present(source, lambda: True)) == []
    source.close()


def test_a_log_that_does_not_give_what_it_has_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is short would pass for all there is; the error names the partition that lacks records."""
    monkeypatch.setattr("stream.present.SILENT_POLLS_MAX", 3)
    with EmbeddedBroker({"t": 2}) as broker:
        settings = StreamSettings(kafka_bootstrap=broker.bootstrap)
        publish(settings, "t", 3)
        source = KafkaSource(["t"], positions={("t", 0): 2}, settings=settings)
        batches = present(source)
        source.pause()
        with pytest.raises(SilentLogError, match=r"^t/1: "):
            list(batches)
        source.close()

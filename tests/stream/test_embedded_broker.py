from __future__ import annotations

import signal
import subprocess
import sys

import confluent_kafka
import pytest

from stream.embedded_broker import EmbeddedBroker, _parse_topic
from stream.errors import ConfigurationError, StreamError
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings

pytestmark = pytest.mark.integration


def test_a_created_topic_has_the_partitions_asked_for(embedded_broker: EmbeddedBroker) -> None:
    """Clients see exactly the topics and partition counts that were asked for, on loopback only."""
    embedded_broker.create_topic("seven", 7)
    client = confluent_kafka.Producer({"bootstrap.servers": embedded_broker.bootstrap})
    assert len(client.list_topics("seven", timeout=5).topics["seven"].partitions) == 7
    assert embedded_broker.bootstrap.startswith("127.0.0.1:")


def test_what_cannot_be_created_is_refused(embedded_broker: EmbeddedBroker) -> None:
    """A topic that exists, or with no partition, is a configuration error and not a surprise later."""
    embedded_broker.create_topic("once", 1)
    with pytest.raises(ConfigurationError, match="once"):
        embedded_broker.create_topic("once", 1)
    with pytest.raises(ConfigurationError, match="found 0"):
        embedded_broker.create_topic("none", 0)


def test_a_broker_that_is_not_running_has_no_address() -> None:
    """Asking a broker that was not started, or was closed, for its address is an error; closing twice is not."""
    broker = EmbeddedBroker()
    with pytest.raises(StreamError):
        _ = broker.bootstrap
    broker.start()
    broker.close()
    broker.close()
    with pytest.raises(StreamError):
        _ = broker.bootstrap


def test_another_process_can_be_the_broker() -> None:
    """`python -m stream.embedded_broker` prints its address first, serves other processes and ends on SIGTERM."""
    command = [sys.executable, "-m", "stream.embedded_broker", "--topic", "payments=3", "--topic", "reports"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            settings = StreamSettings(kafka_bootstrap=process.stdout.readline().strip())
            with EventProducer(settings) as producer:
                sent = producer.send("payments", value=b"one", key=b"k").result(10)
            source = KafkaSource(["payments", "reports"], settings=settings, gaps="error")
            batch = source.poll(10, 5.0)
            source.close()
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert batch.values == [b"one"]
    assert batch.partition.tolist() == [sent.partition]
    assert len(source.positions) == 4


@pytest.mark.parametrize(("text", "expected"), [("a=3", ("a", 3)), ("a", ("a", 1))])
def test_topics_on_the_command_line(text: str, expected: tuple[str, int]) -> None:
    """A topic is written NAME or NAME=PARTITIONS."""
    assert _parse_topic(text) == expected

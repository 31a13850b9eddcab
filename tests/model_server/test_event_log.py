from __future__ import annotations

import threading

import pytest

from model_server.event_log import EventLog
from stream.embedded_broker import EmbeddedBroker
from stream.producer import Delivery, EventProducer
from stream.settings import StreamSettings


@pytest.mark.integration
def test_kafkas_producer_is_an_event_log() -> None:
    """What is published is confirmed once, on another thread, with its place; then nothing is left to flush."""
    deliveries: list[tuple[Delivery, int]] = []
    with EmbeddedBroker({"predictions": 1}) as broker:
        producer = EventProducer(StreamSettings(kafka_bootstrap=broker.bootstrap))
        with producer:
            log: EventLog = producer
            for value in (b"one", b"two"):
                log.publish(
                    "predictions",
                    value=value,
                    key=b"k",
                    on_delivery=lambda delivery: deliveries.append((delivery, threading.get_ident())),
                )
            assert log.flush(10.0) == 0
    assert [(delivery.offset, delivery.error) for delivery, _ in deliveries] == [(0, None), (1, None)]

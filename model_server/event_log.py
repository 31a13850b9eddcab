"""What the server needs from Kafka: publish bytes and hear what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stream.batch import Header
from stream.producer import OnDelivery


class EventLog(Protocol):
    """The producing side of the log; `stream.producer.EventProducer` is one."""

    def publish(
        self,
        topic: str,
        *,
        value: bytes | None,
        key: bytes | None = None,
        on_delivery: OnDelivery | None = None,
        headers: Sequence[Header] = (),
    ) -> None:
        """Queues a record without blocking; `on_delivery` is called once, on another thread.

        Raises BufferError when the local buffer is full, and DeliveryError for a record that can never be sent.
        """

    def flush(self, timeout_s: float) -> int:
        """Waits until everything is confirmed or the timeout has passed; returns how many records are not."""

"""What the server needs from Kafka: publish bytes and hear what became of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where a record landed; `error` says why it did not, and then the position means nothing."""

    topic: str
    partition: int
    offset: int
    error: str | None = None


OnDelivery = Callable[[Delivery], None]


class EventLog(Protocol):
    """The producing side of the log; `stream` implements it."""

    def publish(self, topic: str, *, key: bytes, value: bytes, on_delivery: OnDelivery) -> None:
        """Queues a record without blocking; `on_delivery` is called once, on another thread.

        Raises BufferError when the local buffer is full.
        """

    def flush(self, timeout_s: float) -> int:
        """Waits until everything is confirmed or the timeout has passed; returns how many records are not."""

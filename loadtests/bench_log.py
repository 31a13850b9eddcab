"""A log that is read as fast as it goes: RowEvents as they stand in a topic, in memory or in one partition of Kafka.

events ─► RowEvent bytes ─┬► MemoryLog ──────────────────┬► the updater's own step ─► graph
                          └► publish ─► KafkaSource     ─┘
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from protos.nowgraph.v1 import row_event_pb2
from stream.batch import Batch, Positions
from stream.producer import EventProducer
from stream.settings import StreamSettings
from stream.source import Source

if TYPE_CHECKING:  # `make bench` finds its modules by their own names, the others by their package
    from loadtests.bench_graph import Events

PUBLISHED_AT_ONCE = 20_000  # what the producer's queue holds at once
TOPIC = "events"
WARM_UP = 300_000  # events of a log that are read before anything is measured: more than what a client starts with


class Sources(Protocol):
    """Gives a log from a graph's positions on."""

    def __call__(self, *, positions: Positions) -> Source:
        """A source that its caller closes."""


class MemoryLog:
    """One partition whose records lie in memory."""

    exhausted: Final = False

    def __init__(self, values: Sequence[bytes], *, positions: Positions) -> None:
        self._values = values
        self._next = positions.get((TOPIC, 0), 0)

    def poll(self, max_records: int, timeout_s: float) -> Batch:  # noqa: ARG002 - there are some at once
        """The next records, stamped with this moment."""
        values = self._values[self._next : self._next + max_records]
        if not values:
            raise RuntimeError(f"{len(self._values):,} records were too few for a snapshot")
        count, first = len(values), self._next
        self._next += count
        now_us = np.full(count, time.time_ns() // 1_000)
        return Batch(TOPIC, np.zeros(count, np.int32), np.arange(first, self._next), now_us, (None,) * count, values)

    def lag_records(self) -> int:
        """What is left."""
        return len(self._values) - self._next

    def close(self) -> None:
        """Nothing is held."""


def logged(events: Events, first: int, count: int) -> list[bytes]:
    """RowEvents of about a hundred bytes, under keys from `first` on and at later times: what `Writer` would append."""
    event = row_event_pb2.RowEvent(table="events", operation=row_event_pb2.OPERATION_INSERT)
    event.key.parts.add(integer=0)
    event.cells.add(column="user_id", integer=0)
    event.cells.add(column="merchant_id", integer=0)
    span_us = int(events.event_time_us[-1] - events.event_time_us[0]) + 1
    users, merchants, times_us = (each.tolist() for each in (events.user, events.merchant, events.event_time_us))
    values = []
    for number in range(first, first + count):
        turn, at = divmod(number, len(users))
        event.event_id = f"payment-{number:032d}"
        event.key.parts[0].integer = number
        event.event_time_us = times_us[at] + turn * span_us
        event.cells[0].integer, event.cells[1].integer = users[at], merchants[at]
        values.append(event.SerializeToString())
    return values


def publish(values: Sequence[bytes], topic: str, producer: EventProducer, settings: StreamSettings) -> None:
    """Puts them into the topic, and waits until it has them."""
    for low in range(0, len(values), PUBLISHED_AT_ONCE):
        for value in values[low : low + PUBLISHED_AT_ONCE]:
            producer.publish(topic, value=value)
        producer.flush(settings.delivery_timeout_s)

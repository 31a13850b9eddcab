"""Records out to Kafka: events, predictions and dead letters, each with the position it got.

    publish ─► librdkafka's queue (bounded) ─► acknowledged by all replicas ─► Delivery(topic, partition, offset)

A row's events share a Kafka key, so they stay in one partition and in order. `PacedProducer` feeds the embedded broker,
whose partitions are short rings: it waits for the graph before it could push out what was not applied yet.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from zlib import crc32

import confluent_kafka
from confluent_kafka import KafkaException

from protos.nowgraph.v1 import row_event_pb2
from stream.batch import Header
from stream.client_errors import ClientErrors, make_client
from stream.errors import ConfigurationError, DeliveryError
from stream.privacy import HASHED_HEADER
from stream.settings import StreamSettings


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where a record landed; `error` says why it did not, and then the position means nothing."""

    topic: str
    partition: int
    offset: int
    error: str | None = None


OnDelivery = Callable[[Delivery], None]
_ANY_PARTITION = -1


def event_key(event: row_event_pb2.RowEvent) -> bytes | None:
    """Return the Kafka key of an event: its table and primary key, or None for a table without one (any partition)."""
    if not event.key.parts:
        return None
    return event.table.encode() + b"\x00" + event.key.SerializeToString(deterministic=True)


class EventProducer:
    """Publishes to any topic; safe from several threads. A thread of its own serves the delivery reports.

    Use as a context manager, or `close` it: closing waits for what is queued. Making one raises ConfigurationError
    where the settings are none that a Kafka client takes.
    """

    def __init__(self, settings: StreamSettings | None = None) -> None:
        self._settings = settings or StreamSettings()
        self._errors = ClientErrors()
        self._producer = make_client(confluent_kafka.Producer, self._config(), self._errors)
        self._failed = 0
        self._unheard = self._count_failed  # bound once
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="nowgraph-producer", daemon=True)
        self._thread.start()

    def publish(
        self,
        topic: str,
        *,
        value: bytes | None,
        key: bytes | None = None,
        on_delivery: OnDelivery | None = None,
        partition: int | None = None,
        timestamp_us: int | None = None,
        headers: Sequence[Header] = (),
    ) -> None:
        """Queue a record without blocking; `on_delivery` is called once, on another thread.

        Raises:
            BufferError: the queue is full; what is in it goes on being sent.
            DeliveryError: the client refused the record (too large, an unknown partition).
        """
        # Of a record that nobody asks after nothing is kept: a closure for each that is on its way would have the
        # garbage collector look through the whole process, tens of milliseconds in which nothing is published.
        report = self._unheard if on_delivery is None else self._reporting(on_delivery)
        options: dict[str, Any] = {}
        if timestamp_us is not None and timestamp_us >= 0:
            options["timestamp"] = timestamp_us // 1000
        if headers:
            options["headers"] = list(headers)
        try:
            self._producer.produce(
                topic,
                value,
                key,
                partition=_ANY_PARTITION if partition is None else partition,
                on_delivery=report,
                **options,
            )
        except KafkaException as error:
            raise DeliveryError(f"{topic}: {error.args[0].str()}") from error

    def send(self, topic: str, *, value: bytes | None, key: bytes | None = None, **options: Any) -> Future[Delivery]:
        """Publish as `publish` does and return the delivery's future; it fails with DeliveryError.

        Waits while the queue is full, at most `delivery_timeout_s`; then raises DeliveryError.
        """
        future: Future[Delivery] = Future()

        def done(delivery: Delivery) -> None:
            if delivery.error is None:
                future.set_result(delivery)
            else:
                future.set_exception(DeliveryError(f"{delivery.topic}: {delivery.error}"))

        deadline_s = time.monotonic() + self._settings.delivery_timeout_s
        while True:
            try:
                self.publish(topic, value=value, key=key, on_delivery=done, **options)
            except BufferError:
                if time.monotonic() > deadline_s:
                    raise DeliveryError(f"{topic}: the queue stayed full, the broker does not take records") from None
                time.sleep(0.005)
            else:
                return future

    def publish_event(
        self, topic: str, event: bytes | row_event_pb2.RowEvent, *, hashed: bool = False
    ) -> Future[Delivery]:
        """Publish a RowEvent under its row's key; see `send`.

        `hashed` says that its private values are hashed already (it comes from a FileSource, or from a decoder).
        """
        message = event if isinstance(event, row_event_pb2.RowEvent) else row_event_pb2.RowEvent.FromString(event)
        value = event if isinstance(event, bytes) else message.SerializeToString()
        return self.send(topic, value=value, key=event_key(message), headers=(HASHED_HEADER,) if hashed else ())

    def partition_count(self, topic: str) -> int:
        """Ask the broker how many partitions a topic has.

        Raises:
            ConfigurationError: it does not exist.
            DeliveryError: the broker did not answer.
        """
        try:
            metadata = self._producer.list_topics(topic, timeout=self._settings.broker_timeout_s)
        except KafkaException as error:
            raise DeliveryError(f"{topic}: {self._errors.explain(error.args[0])}") from error
        found = metadata.topics.get(topic)
        if found is None or not found.partitions:
            raise ConfigurationError(f"topic {topic!r} does not exist at {self._settings.kafka_bootstrap}")
        return len(found.partitions)

    @property
    def failed(self) -> int:
        """How many records were not delivered so far."""
        return self._failed

    def flush(self, timeout_s: float) -> int:
        """Wait until everything is confirmed or the timeout has passed; return how many records are not."""
        return int(self._producer.flush(timeout_s))

    def close(self) -> None:
        """Send what is queued, at most for `delivery_timeout_s`, and stop."""
        self.flush(self._settings.delivery_timeout_s)
        self._closing.set()
        self._thread.join()
        # Whoever still holds this object must not keep its connections: they would look for a broker that is gone.
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _count_failed(self, error: Any, _: Any) -> None:
        if error is not None:
            self._failed += 1

    def _reporting(self, on_delivery: OnDelivery) -> Callable[[Any, Any], None]:
        def report(error: Any, message: Any) -> None:
            self._count_failed(error, message)
            place = (message.topic(), message.partition(), message.offset() if error is None else -1)
            on_delivery(Delivery(*place, error=self._errors.explain(error) if error is not None else None))

        return report

    def _serve(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(0.1)

    def _config(self) -> dict[str, Any]:
        settings = self._settings
        return {
            **settings.client_config(),
            "acks": "all",
            "enable.idempotence": True,  # a retry neither doubles nor reorders
            "linger.ms": settings.producer_linger_ms,
            "queue.buffering.max.kbytes": settings.producer_queue_bytes >> 10,
            "delivery.timeout.ms": int(settings.delivery_timeout_s * 1000),
            "message.max.bytes": settings.message_bytes_max,
            "partitioner": "murmur2_random",  # Java's, so that other producers of a key choose the same partition
            "socket.nagle.disable": True,
            "log_level": 3,
        }


class PacedProducer:
    """Publishes to the embedded broker no faster than the graph applies: never more than a window unapplied.

    `applied(topic, partition)` gives the first offset that is not in the graph, as `Updater.applied` does; it is asked
    only when a window is full. One thread publishes. Keys choose partitions by CRC-32.
    """

    def __init__(
        self, producer: EventProducer, applied: Callable[[str, int], int], *, settings: StreamSettings | None = None
    ) -> None:
        self._producer = producer
        self._applied = applied
        self._settings = settings or StreamSettings()
        self._windows: dict[tuple[str, int], _Window] = {}
        self._counts: dict[str, int] = {}

    def publish(
        self, topic: str, *, value: bytes, key: bytes | None = None, timestamp_us: int | None = None
    ) -> Future[Delivery]:
        """Publish once the partition's window has room; waits for the graph meanwhile.

        Raises:
            DeliveryError: the graph applied nothing for `delivery_timeout_s` while the window was full, or a record
                published to this partition before was not delivered.
        """
        count = self._counts.get(topic)
        if count is None:
            count = self._counts[topic] = self._producer.partition_count(topic)
        partition = crc32(key) % count if key is not None else 0
        window = self._windows.setdefault((topic, partition), _Window())
        size = len(value) + len(key or b"") + _RECORD_OVERHEAD_BYTES
        self._wait_for_room(window, topic, partition, size)
        window.sent(size)
        future = self._producer.send(topic, value=value, key=key, partition=partition, timestamp_us=timestamp_us)
        future.add_done_callback(lambda done: window.delivered(done, size))
        return future

    def wait_applied(self, timeout_s: float) -> bool:
        """Wait until all that was published is applied; returns whether it was in time.

        Raises:
            DeliveryError: a record was not delivered.
        """
        deadline_s = time.monotonic() + timeout_s
        for (topic, partition), window in self._windows.items():
            while window.release(self._applied(topic, partition)):
                if time.monotonic() > deadline_s:
                    return False
                time.sleep(_WAIT_S)
        return True

    def _wait_for_room(self, window: _Window, topic: str, partition: int, size: int) -> None:
        limit = self._settings.embedded_window_bytes
        if window.unapplied_bytes + size <= limit:
            return
        last = -1
        deadline_s = 0.0
        while True:
            applied = self._applied(topic, partition)
            unapplied = window.release(applied)
            if unapplied + size <= limit or not unapplied:
                return
            now_s = time.monotonic()
            if applied != last:
                last, deadline_s = applied, now_s + self._settings.delivery_timeout_s
            elif now_s > deadline_s:
                raise DeliveryError(
                    f"{topic}[{partition}]: nothing applied beyond offset {applied} for "
                    f"{self._settings.delivery_timeout_s} s while {unapplied} bytes wait"
                )
            time.sleep(_WAIT_S)


_WAIT_S = 0.001
_RECORD_OVERHEAD_BYTES = 80  # at worst a record is a batch of its own in the ring, with the batch's header


class _Window:
    """What one partition holds that the graph has not applied; deliveries arrive on the producer's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._delivered: deque[tuple[int, int]] = deque()
        self._error: BaseException | None = None
        self.unapplied_bytes = 0

    def sent(self, size: int) -> None:
        with self._lock:
            if self._error is not None:
                raise self._error
            self.unapplied_bytes += size

    def delivered(self, future: Future[Delivery], size: int) -> None:
        with self._lock:
            error = future.exception()
            if error is not None:
                self._error = error
            else:
                self._delivered.append((future.result().offset, size))

    def release(self, applied: int) -> int:
        """Forget what was applied; returns the bytes that were not."""
        with self._lock:
            if self._error is not None:
                raise self._error
            while self._delivered and self._delivered[0][0] < applied:
                self.unapplied_bytes -= self._delivered.popleft()[1]
            return self.unapplied_bytes

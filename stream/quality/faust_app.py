"""The shell on Faust: the same feed, with what counts kept in tables whose changelogs are Kafka topics.

    predictions topic ─► agent ─► table "answers"     ─┐
                                                       ├─► monitor ─► timer: report ─► QualityMetrics
    each events topic ─► agent ─► table "outcomes-..." ┘      ▲
                         changelogs ─── recovery ─────────────┘

One worker: a join needs both sides, and ranks need all scores. A record is acknowledged after the tables were written;
what is read again after a crash changes nothing, since records have names. The changelog topics are made here and not
by Faust, whose client takes a topic that it has just made for one without partitions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stream.batch import NO_TIMESTAMP_US, Batch
from stream.errors import ConfigurationError
from stream.quality.exposition import QualityMetrics
from stream.quality.feed import Feed
from stream.quality.report import Report
from stream.quality.stored import decode, encode, name_of, time_of
from stream.settings import StreamSettings

_DIGEST = 16  # bytes of a record's name; the partition follows, since only its own may drop it


class FaustQuality:
    """A Faust application around a feed. `app` is Faust's own: start it, or give it to `faust.Worker`.

    `partitions` of the topics to read are those of their tables' changelogs too. After `takeover_s` without a sign of
    life a worker counts as gone. `failure` is what stopped the reading of a topic: the application is to be stopped
    then, since what failed is not acknowledged and comes again to the next.
    """

    def __init__(
        self,
        feed: Feed,
        settings: StreamSettings,
        *,
        folder: Path,
        partitions: dict[str, int],
        name: str = "nowgraph-quality",
        report_every_s: float = 15.0,
        takeover_s: float = 60.0,
        on_report: Callable[[Report], object] = lambda _: None,
    ) -> None:
        """Raises ConfigurationError where faust-streaming is not installed."""
        try:
            import faust
        except ImportError as error:
            raise ConfigurationError(
                "the Faust shell needs faust-streaming: pip install 'nowgraph[quality]'"
            ) from error
        self.metrics = QualityMetrics()
        self._feed = feed
        self._on_report = on_report
        self.app: Any = faust.App(
            name,
            broker=f"kafka://{settings.kafka_bootstrap}",
            store="memory://",  # the changelog is the store; what is in memory is within the monitor's limits
            datadir=str(folder),
            key_serializer="raw",
            value_serializer="raw",
            consumer_auto_offset_reset="earliest",
            topic_allow_declare=False,
            broker_session_timeout=takeover_s,
            broker_rebalance_timeout=takeover_s,
            broker_heartbeat_interval=takeover_s / 10,
            topic_disable_leader=True,
            stream_wait_empty=False,  # a stop does not wait for what failed: it is not acknowledged, and comes again
            web_enabled=False,
        )
        self.failure: Exception | None = None
        self._settings = settings
        self._changelogs: dict[str, int] = {}
        for topic, count in partitions.items():
            table = "answers" if topic == feed.predictions_topic else f"outcomes-{topic}"
            self._changelogs[f"{name}-{table}-changelog"] = count
            self._read(topic, table, count)
        self.app.timer(report_every_s)(self.report)

    def prepare(self) -> None:
        """Create the changelog topics that are not there, compacted; to be called before the application starts.

        Raises:
            ConfigurationError: one has another number of partitions, or the broker does not create it.
        """
        client = AdminClient(self._settings.client_config())
        timeout_s = self._settings.broker_timeout_s
        try:
            found = client.list_topics(timeout=timeout_s).topics
            for name, count in self._changelogs.items():
                if name in found and len(found[name].partitions) != count:
                    there = len(found[name].partitions)
                    raise ConfigurationError(
                        f"topic {name}: expected {count} partitions, as its topic has, found {there}"
                    )
            options = {"cleanup.policy": "compact"}
            wanted = [
                NewTopic(name, count, config=options) for name, count in self._changelogs.items() if name not in found
            ]
            if wanted:
                for future in client.create_topics(wanted, operation_timeout=timeout_s).values():
                    future.result(timeout_s)
        except KafkaException as error:
            raise ConfigurationError(f"changelog topics: {error.args[0].str()}") from error

    async def report(self) -> Report:
        """Measure what was taken in so far, and show it."""
        report = self._feed.report()
        self.metrics.show(report, lag_records=self._lag_records())
        self._on_report(report)
        return report

    def _read(self, topic: str, table_name: str, partitions: int) -> None:
        """One agent and one table for a topic, changelog partition by partition."""
        table = self.app.Table(table_name, key_type=bytes, value_type=bytes, partitions=partitions)
        ages: dict[int, deque[tuple[int, bytes]]] = {}

        async def recovered() -> None:
            for name, value in sorted(table.items(), key=lambda pair: time_of(decode(pair[1]))):
                record = decode(value)
                self._feed.monitor.add(record)
                partition = int.from_bytes(name[_DIGEST:], "big")
                ages.setdefault(partition, deque()).append((time_of(record), name))

        async def read(stream: Any) -> None:
            async for event in stream.noack().events():
                message = event.message
                queue = ages.setdefault(message.partition, deque())
                try:
                    for record in self._feed.take(_batch(message, event.value)):
                        name = name_of(record) + message.partition.to_bytes(2, "big")
                        table[name] = encode(record)
                        queue.append((time_of(record), name))
                    self._expire(table, queue)
                except Exception as error:
                    self.failure = error
                    raise
                event.ack()

        table.on_recover(recovered)
        self.app.agent(self.app.topic(topic, key_type=bytes, value_type=bytes), name=f"read-{topic}")(read)

    def _expire(self, table: Any, queue: deque[tuple[int, bytes]]) -> None:
        """Drop what counts no more; within an agent, so that Faust knows the partition of the changelog."""
        horizon_us = self._feed.monitor.horizon_us
        while queue and queue[0][0] <= horizon_us:
            table.pop(queue.popleft()[1], None)

    def _lag_records(self) -> int:
        consumer = self.app.consumer
        lag = 0
        for place in consumer.assignment():
            high, read = consumer.highwater(place), consumer._read_offset.get(place)  # noqa: SLF001 - it has no other face
            lag += max(0, (high or 0) - (read or 0))
        return lag


def _batch(message: Any, value: bytes | None) -> Batch:
    """One record as the batch that a feed takes."""
    stamp_us = round(message.timestamp * 1e6) if message.timestamp and message.timestamp > 0 else NO_TIMESTAMP_US
    headers = message.headers.items() if isinstance(message.headers, dict) else message.headers or ()
    found = [(str(name), content) for name, content in headers]
    return Batch(
        topic=message.topic,
        partition=np.array([message.partition], dtype=np.int32),
        offset=np.array([message.offset], dtype=np.int64),
        timestamp_us=np.array([stamp_us], dtype=np.int64),
        keys=[message.key],
        values=[value],
        headers=lambda _: found,
    )

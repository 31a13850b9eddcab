"""From Kafka's bytes to rows that readers see: the real source, decoder and graph, the broker in a process of its own.

    broker process ◄─ published ahead
          └─► KafkaSource ─► Decoder ─► TemporalGraph.apply     CPU of all threads of this process is counted

The broker is the embedded one: what it costs is not counted, what its client costs here is. Bounded: as many records as
its rings hold. How long an event takes at a steady rate, bench_visible measures on the same broker.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench_graph import bench_schema
from bench_log import PUBLISHED_AT_ONCE, TOPIC, publish
from bench_visible import VisibleResult, bench_visible, embedded_broker

from stream.decode import Decoder
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.graph import TemporalGraph

POLL_RECORDS = 4_000
VISIBLE_RUNS = 3


@dataclass(frozen=True)
class StreamResult:
    """Records a second of this process's CPU, and how long an event takes at a steady rate.

    In order: one partition, read as it is written. Backlog: what many partitions hold is read partition by partition,
    so that most events land in the past of their lists.
    """

    in_order_per_s: float
    backlog_per_s: float
    visible: VisibleResult


def bench_stream(messages: list[bytes]) -> StreamResult:
    """Measures all of it on one broker, one after the other."""
    steady = [f"{TOPIC}-steady-{run}" for run in range(VISIBLE_RUNS)]
    with embedded_broker([f"{TOPIC}-backlog", *steady], {f"{TOPIC}-in-order": 1}) as settings:
        in_order = _throughput(f"{TOPIC}-in-order", messages, PUBLISHED_AT_ONCE, settings)
        backlog = _throughput(f"{TOPIC}-backlog", messages, len(messages), settings)
        return StreamResult(in_order, backlog, bench_visible(settings, steady))


def _throughput(topic: str, messages: list[bytes], at_once: int, settings: StreamSettings) -> float:
    """Publishes `at_once` records, reads them, and so on; only the reading is counted."""
    seconds = 0.0
    source, decoder = KafkaSource([topic], settings=settings), Decoder(bench_schema(), None)
    with TemporalGraph.create(bench_schema(), arena_bytes=2 << 30) as graph, EventProducer(settings) as producer:
        for low in range(0, len(messages), at_once):
            part = messages[low : low + at_once]
            publish(part, topic, producer, settings)
            applied, started, deadline = 0, time.process_time(), time.monotonic() + 60
            while applied < len(part):
                applied += _step(source, decoder, graph)
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{applied} of {len(part)} records arrived")
            seconds += time.process_time() - started
    source.close()
    return len(messages) / seconds


def _step(source: KafkaSource, decoder: Decoder, graph: TemporalGraph) -> int:
    batch = source.poll(POLL_RECORDS, 0.05)
    if len(batch) == 0:
        return 0
    decoded = decoder.decode(batch)
    graph.apply(decoded.events, topic=batch.topic, positions=batch.next_positions())
    return len(batch)

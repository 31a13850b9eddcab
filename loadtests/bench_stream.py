"""From Kafka's bytes to rows that readers see: the real source, decoder and graph, the broker in a process of its own.

    broker process ◄─ published ahead, or by a writer process at a steady rate
          └─► KafkaSource ─► Decoder ─► TemporalGraph.apply     CPU of all threads of this process is counted

The broker is the embedded one: what it costs is not counted, what its client costs here is. Bounded: as many records as
its rings hold, and a steady rate for a few seconds.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
from bench_graph import bench_schema

from protos.nowgraph.v1 import row_event_pb2
from stream.decode import Decoder
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.graph import TemporalGraph

TOPIC = "events"
PARTITIONS = 16
POLL_RECORDS = 4_000
PUBLISH_RECORDS = 20_000  # what the producer's queue holds at once
STEADY_PER_S = 50_000
STEADY_S = 4.0
TICK_S = 0.005
IDLE_S = 3.0


@dataclass(frozen=True)
class StreamResult:
    """Records a second of this process's CPU, and due-to-visible milliseconds at the rate that was reached.

    In order: one partition, read as it is written. Backlog: what many partitions hold is read partition by partition,
    so that most events land in the past of their lists.
    """

    in_order_per_s: float
    backlog_per_s: float
    visible_p50_ms: float
    visible_p99_ms: float
    visible_per_s: float


def bench_stream(messages: list[bytes]) -> StreamResult:
    """Measures both on one broker, one after the other."""
    topics = {f"{TOPIC}-in-order": 1, f"{TOPIC}-backlog": PARTITIONS, f"{TOPIC}-steady": PARTITIONS}
    named = [word for name, count in topics.items() for word in ("--topic", f"{name}={count}")]
    command = [sys.executable, "-P", "-m", "stream.embedded_broker", *named]
    broker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert broker.stdout is not None
        settings = StreamSettings(kafka_bootstrap=broker.stdout.readline().strip())
        in_order = _throughput(f"{TOPIC}-in-order", messages, PUBLISH_RECORDS, settings)
        backlog = _throughput(f"{TOPIC}-backlog", messages, len(messages), settings)
        return StreamResult(in_order, backlog, *_visible(settings))
    finally:
        broker.terminate()
        broker.wait()


def _throughput(topic: str, messages: list[bytes], at_once: int, settings: StreamSettings) -> float:
    """Publishes `at_once` records, reads them, and so on; only the reading is counted."""
    seconds = 0.0
    source, decoder = KafkaSource([topic], settings=settings), Decoder(bench_schema(), None)
    with TemporalGraph.create(bench_schema(), arena_bytes=2 << 30) as graph, EventProducer(settings) as producer:
        for low in range(0, len(messages), at_once):
            part = messages[low : low + at_once]
            for start in range(0, len(part), PUBLISH_RECORDS):
                for message in part[start : start + PUBLISH_RECORDS]:
                    producer.publish(topic, value=message)
                producer.flush(settings.delivery_timeout_s)
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


def _visible(settings: StreamSettings) -> tuple[float, float, float]:
    """Each record says when it was due; its wait ends when the batch it came in is published to readers."""
    writer = multiprocessing.get_context("spawn").Process(target=_publish_steadily, args=(settings.kafka_bootstrap,))
    source, decoder = KafkaSource([f"{TOPIC}-steady"], settings=settings), Decoder(bench_schema(), None)
    waits, count, quiet_since = [], 0, time.monotonic() + 10
    with TemporalGraph.create(bench_schema(), arena_bytes=2 << 30) as graph:
        writer.start()
        while time.monotonic() < quiet_since + IDLE_S:
            batch = source.poll(POLL_RECORDS, 0.05)
            if len(batch) == 0:
                continue
            decoded = decoder.decode(batch)
            graph.apply(decoded.events, topic=batch.topic, positions=batch.next_positions())
            visible_us, quiet_since = time.time_ns() // 1000, time.monotonic()
            count += len(batch)
            sampled = decoded.events[:: max(1, len(decoded.events) // 32)]
            waits += [visible_us - row_event_pb2.RowEvent.FromString(event).event_time_us for event in sampled]
    writer.join()
    source.close()
    p50, p99 = np.quantile(np.asarray(waits), [0.5, 0.99]) / 1000
    return float(p50), float(p99), count / STEADY_S


def _publish_steadily(bootstrap: str) -> None:
    """Publishes STEADY_PER_S records a second for STEADY_S seconds, each stamped with the moment it was due."""
    event = row_event_pb2.RowEvent(table="events", operation=row_event_pb2.OPERATION_INSERT)
    event.key.parts.add(integer=0)
    event.cells.add(column="user_id", integer=0)
    event.cells.add(column="merchant_id", integer=0)
    settings = StreamSettings(kafka_bootstrap=bootstrap)
    with EventProducer(settings) as producer:
        at_once = int(STEADY_PER_S * TICK_S)
        started = time.time()
        for tick in range(int(STEADY_S / TICK_S)):
            due = started + (tick + 1) * TICK_S
            time.sleep(max(0.0, due - time.time()))
            event.event_time_us = int(due * 1e6)
            for i in range(at_once):
                key = tick * at_once + i
                event.key.parts[0].integer = key
                event.cells[0].integer, event.cells[1].integer = key % 50_021, key % 10_007
                producer.publish(f"{TOPIC}-steady", value=event.SerializeToString())
        producer.flush(settings.delivery_timeout_s)

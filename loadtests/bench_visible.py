"""How long an event takes from being due to being seen: through a broker, into the graph of a running updater.

    writer process: due ─► EventProducer ─► broker process ─► KafkaSource ─► Decoder ─► graph: visible     this process

    python loadtests/bench_visible.py [--apache-kafka [HOST:PORT]] [--runs 5] [--no-history]

The loop is open: an event's time is when it was due, whether or not the producer was late. Two hundred and fifty are
due at once, every five milliseconds. Everything shares the machine: writer, broker, updater. The first second of a run
is not counted (connections are made), nor is the first run against an Apache Kafka started here (it compiles itself).
One event of sixteen is looked at, whatever batch it came in.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # after the installed packages, which are what is measured

from graph_updater.embedded import UpdaterThread
from graph_updater.tracing import ApplyTraces
from graph_updater.updater import Updater
from loadtests.bench_graph import bench_schema
from loadtests.load.report import append_history
from loadtests.load.worlds import free_ports
from protos.nowgraph.v1 import row_event_pb2
from stream.batch import Batch, DeadLetter
from stream.decode import Decoder
from stream.kafka_source import KafkaSource
from stream.patience import patiently
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.graph import TemporalGraph

TESTS = Path(__file__).resolve().parents[1] / "tests"
PARTITIONS = 16
PER_S = 50_000
TICK_S = 0.005
WARM_UP_S = 1.0
COUNTED_S = 6.0
LOOKED_AT = 16  # one of so many
PATIENCE_S = 60.0
# What Kafka's own scripts start a broker with.
KAFKA_JVM = (
    "-server", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
)  # fmt: skip


@dataclass(frozen=True)
class VisibleResult:
    """Milliseconds from due to visible, medians of the runs (and the worst run's), at the rate that was reached."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    p99_worst_ms: float
    per_s: float


def bench_visible(settings: StreamSettings, topics: Sequence[str]) -> VisibleResult:
    """Measures one run with each of these topics, which are empty."""
    runs = [_run(settings, topic) for topic in topics]
    p50, p99, p999 = np.array([np.quantile(waits_ms, (0.5, 0.99, 0.999)) for waits_ms, _ in runs]).T
    rate = statistics.median(per_s for _, per_s in runs)
    return VisibleResult(*(float(np.median(each)) for each in (p50, p99, p999)), float(p99.max()), rate)


class _Waits(ApplyTraces):
    """Hears of each batch once it is visible, and looks up when its events were due."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.due_us: list[int] = []
        self.visible_us: list[int] = []

    def applied(self, batch: Batch, *, start_ns: int, end_ns: int) -> None:  # noqa: ARG002
        first = -self.count % LOOKED_AT
        self.count += len(batch)
        for value in batch.values[first::LOOKED_AT]:
            self.due_us.append(row_event_pb2.RowEvent.FromString(value or b"").event_time_us)
            self.visible_us.append(end_ns // 1_000)


class NoDeadLetters:
    """Every event of the bench fits."""

    def append(self, letters: Sequence[DeadLetter]) -> None:
        """Ends the bench."""
        raise RuntimeError(letters[0].detail)

    def flush(self, timeout_s: float) -> None:
        """Nothing waits."""


def _run(settings: StreamSettings, topic: str) -> tuple[np.ndarray, float]:
    """The waits in milliseconds, and events a second from the first one due to the last one visible."""
    asleep = threading.Event()
    source = patiently(lambda: KafkaSource([topic], settings=settings), PATIENCE_S, asleep.wait)
    assert source is not None
    arguments = (settings.kafka_bootstrap, topic)
    writer = multiprocessing.get_context("spawn").Process(target=_publish_steadily, args=arguments)
    waits, expected = _Waits(), int((WARM_UP_S + COUNTED_S) / TICK_S) * int(PER_S * TICK_S)
    with TemporalGraph.create(bench_schema(), arena_bytes=2 << 30) as graph:
        updater = Updater(graph, [source], Decoder(bench_schema(), None), NoDeadLetters(), traces=waits)
        with UpdaterThread(updater) as running:
            writer.start()
            deadline_s = time.monotonic() + PATIENCE_S
            while waits.count < expected:
                running.check()
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"{waits.count} of {expected} events arrived")
                asleep.wait(0.1)
    writer.join()
    due_us, visible_us = np.array(waits.due_us), np.array(waits.visible_us)
    counted = due_us >= due_us.min() + int(WARM_UP_S * 1e6)
    per_s = waits.count / ((visible_us.max() - due_us.min()) / 1e6)
    return (visible_us - due_us)[counted] / 1e3, float(per_s)


def _publish_steadily(bootstrap: str, topic: str) -> None:
    """Publishes PER_S events a second of about a hundred bytes, each stamped with the moment it was due."""
    event = row_event_pb2.RowEvent(table="events", operation=row_event_pb2.OPERATION_INSERT)
    event.key.parts.add(integer=0)
    event.cells.add(column="user_id", integer=0)
    event.cells.add(column="merchant_id", integer=0)
    settings, at_once = StreamSettings(kafka_bootstrap=bootstrap), int(PER_S * TICK_S)
    with EventProducer(settings) as producer:
        started_s = time.time() + 0.5
        for tick in range(int((WARM_UP_S + COUNTED_S) / TICK_S)):
            due_s = started_s + tick * TICK_S
            time.sleep(max(0.0, due_s - time.time()))
            event.event_time_us = int(due_s * 1e6)
            for key in range(tick * at_once, (tick + 1) * at_once):
                event.event_id = f"payment-{key:032d}"
                event.key.parts[0].integer = key
                event.cells[0].integer, event.cells[1].integer = key % 50_021, key % 10_007
                producer.publish(topic, value=event.SerializeToString())
        producer.flush(settings.delivery_timeout_s)


@contextmanager
def embedded_broker(topics: Sequence[str], others: Mapping[str, int] | None = None) -> Iterator[StreamSettings]:
    """The embedded broker in a process of its own, with these topics, and others of so many partitions."""
    counts = {**dict.fromkeys(topics, PARTITIONS), **(others or {})}
    named = [word for topic, count in counts.items() for word in ("--topic", f"{topic}={count}")]
    command = [sys.executable, "-P", "-m", "stream.embedded_broker", *named]
    broker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert broker.stdout is not None
        yield StreamSettings(kafka_bootstrap=broker.stdout.readline().strip())
    finally:
        broker.terminate()
        broker.wait()


@contextmanager
def apache_kafka(topics: Sequence[str], bootstrap: str, *, partitions: int = PARTITIONS) -> Iterator[StreamSettings]:
    """That Kafka, or one that is started as the tests start theirs, with these topics until it is over."""
    from confluent_kafka.admin import AdminClient, NewTopic

    with ExitStack() as stack:
        if not bootstrap:
            sys.path.append(str(TESTS))
            kafka = importlib.import_module("kafka_fixtures").Kafka
            folder = Path(stack.enter_context(TemporaryDirectory()))
            bootstrap = stack.enter_context(kafka(folder, free_ports, jvm=KAFKA_JVM)).bootstrap
        settings = StreamSettings(kafka_bootstrap=bootstrap)
        admin = AdminClient({**settings.client_config(), "log_level": 3})
        for made in admin.create_topics([NewTopic(topic, partitions) for topic in topics]).values():
            made.result()
        try:
            yield settings
        finally:
            for gone in admin.delete_topics(list(topics)).values():
                gone.result()


def main() -> None:
    """Measures with the embedded broker, on request with an Apache Kafka too; a table, and a line of history each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apache-kafka", nargs="?", const="", metavar="HOST:PORT", help="that one, or one of its own")
    parser.add_argument("--runs", type=int, default=5, help="of which the medians are told (default 5)")
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    topics = [f"visible-{uuid.uuid4().hex[:8]}" for _ in range(options.runs)]
    print("| broker | p50 ms | p99 ms | p99.9 ms | worst run's p99 ms | events/s |\n|" + "---|" * 6)
    with embedded_broker(topics) as settings:
        _tell("embedded", bench_visible(settings, topics), keep=not options.no_history)
    if options.apache_kafka is not None:
        topics = [f"{topic}-{PER_S}" for topic in (*topics, "first")]
        with apache_kafka(topics, options.apache_kafka) as settings:
            if not options.apache_kafka:
                bench_visible(settings, [topics.pop()])
            _tell("apache", bench_visible(settings, topics[: options.runs]), keep=not options.no_history)


def _tell(broker: str, found: VisibleResult, *, keep: bool) -> None:
    cells = (found.p50_ms, found.p99_ms, found.p999_ms, found.p99_worst_ms)
    print(f"| {broker} | " + " | ".join(f"{cell:.1f}" for cell in cells) + f" | {found.per_s:,.0f} |", flush=True)
    if keep:
        append_history(f"visible {broker}", asdict(found))


if __name__ == "__main__":
    main()

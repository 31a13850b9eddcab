"""The updater against a broker: everything once, nothing lost, poison set aside, the same graph however it came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import orjson
import pytest

from graph_updater.dead_letter_file import DeadLetterFile
from graph_updater.embedded import UpdaterThread
from graph_updater.settings import UpdaterSettings
from graph_updater.snapshotter import Snapshotter
from graph_updater.updater import Updater
from stream.batch import Batch, DeadLetter, Decoded, empty_batch
from stream.dead_letters import DeadLetters, list_dead_letters
from stream.decode import Decoder
from stream.embedded_broker import EmbeddedBroker
from stream.errors import DeliveryError
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema
from temporal_graph.snapshots import Snapshots

pytestmark = pytest.mark.integration

SCHEMA = """
version: 1
name: payments
tables:
  customers: {primary_key: {customer_id: integer}}
  transactions:
    primary_key: {transaction_id: integer}
    time_column: time
    columns: {amount: numerical, fraud: {kind: boolean, outcome: true}}
    links: {customer_id: customers}
sources:
  - {topic: transactions, table: transactions, format: json, operation: insert}
  - {topic: reports, table: transactions, format: json, operation: upsert, event_time: known_at, known_time: known_at}
"""
TOPICS = ("transactions", "reports")
DAY_US = 86_400_000_000
START_US = 1_600_000_000_000_000


@pytest.fixture
def schema() -> Schema:
    """Customers, transactions, and reports that change transactions later."""
    return parse_schema(SCHEMA)


@pytest.fixture
def settings() -> Iterator[StreamSettings]:
    """An embedded broker of two partitions a topic."""
    with EmbeddedBroker({"transactions": 2, "reports": 2, "nowgraph.dead-letters": 1}) as broker:
        yield StreamSettings(kafka_bootstrap=broker.bootstrap)


@pytest.fixture
def producer(settings: StreamSettings) -> Iterator[EventProducer]:
    """Publishes to the broker."""
    with EventProducer(settings) as made:
        yield made


def payment(number: int) -> bytes:
    """A payment a second, of five customers."""
    row = {"transaction_id": number, "time": START_US + number * 1_000_000, "customer_id": number % 5, "amount": 1.5}
    return orjson.dumps(row)


def report(number: int) -> bytes:
    """What became known of a payment a day later."""
    return orjson.dumps({"transaction_id": number, "fraud": number % 3 == 0, "known_at": START_US + DAY_US + number})


def publish(producer: EventProducer, topic: str, values: Sequence[bytes]) -> None:
    """Publishes over both partitions and returns once the broker has everything."""
    for number, value in enumerate(values):
        producer.send(topic, value=value, key=str(number).encode(), partition=number % 2)
    assert producer.flush(10) == 0


def make(
    graph: TemporalGraph, schema: Schema, settings: StreamSettings, producer: EventProducer, **limits: int
) -> Updater:
    """An updater that goes on from the graph's positions."""
    source = KafkaSource(TOPICS, positions=graph.positions, gaps="error", settings=settings)
    return Updater(
        graph,
        [source],
        Decoder(schema, settings=settings),
        DeadLetters(producer, settings=settings),
        settings=UpdaterSettings(**limits),  # type: ignore[arg-type]
    )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Waits at most ten seconds for the condition."""
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        time.sleep(0.005)


def applied(updater: Updater, topic: str) -> int:
    """Records of the topic that were applied, over both partitions."""
    return sum(updater.applied(topic, partition) for partition in range(2))


def twin(schema: Schema, payments: int, reports: int) -> str:
    """The canonical hash of a graph that got the same events in one batch."""
    decoder = Decoder(schema)
    with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph:
        for topic, values in (
            ("reports", [report(number) for number in range(reports)]),
            ("transactions", [payment(number) for number in range(payments)]),
        ):
            batch = _batch(topic, values)
            graph.apply(decoder.decode(batch).events)
        return graph.canonical_hash()


class _EndsWithAMark:
    """A log whose last offset holds no record, such as the mark of a transaction."""

    exhausted = False

    def __init__(self, batch: Batch) -> None:
        self._batches = [batch, empty_batch({("transactions", 0): 4})]
        self.positions = {("transactions", 0): 0}

    def end_positions(self) -> dict[tuple[str, int], int]:
        return {("transactions", 0): 4}

    def poll(self, max_records: int, timeout_s: float) -> Batch:
        batch = self._batches.pop(0) if self._batches else empty_batch()
        self.positions |= batch.next_positions()
        return batch


def test_a_log_that_ends_without_a_record_is_caught_up_with(schema: Schema, tmp_path: Path) -> None:
    """Its end is reached and kept with the graph: a start would else wait for a record that may never come."""
    source = _EndsWithAMark(_batch("transactions", [payment(number) for number in range(3)]))
    with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph, DeadLetterFile(tmp_path / "dead") as dead:
        updater = Updater(graph, [source], Decoder(schema), dead)  # type: ignore[list-item]
        updater.step()
        assert (updater.applied("transactions", 0), updater.caught_up()) == (3, False)
        updater.step()
        assert (updater.applied("transactions", 0), updater.caught_up()) == (4, True)
        assert graph.positions == {("transactions", 0): 4}


def test_who_takes_a_place_catches_up_anew_and_makes_snapshots(
    schema: Schema, settings: StreamSettings, producer: EventProducer, tmp_path: Path
) -> None:
    """It had caught up with the log as it was at its start; what came since is asked for, and snapshots begin."""
    with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph:
        publish(producer, "transactions", [payment(number) for number in range(10)])
        updater = make(graph, schema, settings, producer)
        while not updater.caught_up():
            updater.step()
        publish(producer, "transactions", [payment(number) for number in range(10, 20)])
        limits, snapshots = UpdaterSettings(snapshot_interval_s=0.01), Snapshots(tmp_path)
        updater.take_place(Snapshotter(graph, snapshots, limits, updater.metrics))
        assert not updater.caught_up()
        while not updater.caught_up():
            updater.step()
        assert applied(updater, "transactions") == 20
        wait_for(lambda: updater.step() == 0 and bool(snapshots.inventory()[0]), "a snapshot")
        updater.close()


def _batch(topic: str, values: Sequence[bytes]) -> Batch:
    import numpy as np

    count = len(values)
    return Batch(
        topic=topic,
        partition=np.zeros(count, np.int32),
        offset=np.arange(count, dtype=np.int64),
        timestamp_us=np.full(count, START_US, np.int64),
        keys=[None] * count,
        values=list(values),
    )


def test_every_event_is_applied_once_and_the_graph_is_that_of_one_batch(
    schema: Schema, settings: StreamSettings, producer: EventProducer
) -> None:
    """Two topics over two partitions, in small batches: the graph equals one that got all of it at once."""
    with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph:
        updater = make(graph, schema, settings, producer, poll_records_max=7)
        with UpdaterThread(updater):
            publish(producer, "transactions", [payment(number) for number in range(100)])
            publish(producer, "reports", [report(number) for number in range(60)])
            wait_for(lambda: applied(updater, "transactions") == 100, "the payments")
            wait_for(lambda: applied(updater, "reports") == 60, "the reports")
        assert graph.view().row_count("transactions") == 100
        assert graph.positions == {
            (topic, part): n for topic, n in (("transactions", 50), ("reports", 30)) for part in (0, 1)
        }
        assert graph.canonical_hash() == twin(schema, 100, 60)
        registry = updater.metrics.registry
        assert registry.get_sample_value("nowgraph_events_applied_total") == 160
        assert registry.get_sample_value("nowgraph_records_total", {"topic": "reports"}) == 60
        assert registry.get_sample_value("nowgraph_event_to_visible_seconds_count") == 160
        assert registry.get_sample_value("nowgraph_rows", {"table": "transactions"}) == 100
        assert (registry.get_sample_value("nowgraph_memory_bytes", {"part": "topology"}) or 0) > 0
        newest_s = registry.get_sample_value("nowgraph_watermark_seconds")
        assert newest_s == pytest.approx((START_US + DAY_US + 59) / 1e6)


def test_poison_goes_to_the_dead_letters_and_the_stream_moves_on(
    schema: Schema, settings: StreamSettings, producer: EventProducer
) -> None:
    """Undecodable bytes and an event that does not fit: each a dead letter with its exact bytes, all others applied."""
    no_key = orjson.dumps({"time": START_US, "customer_id": 1, "amount": 2.0})
    values = [payment(0), b"\xffnot json", payment(2), no_key, payment(4)]
    with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph:
        updater = make(graph, schema, settings, producer)
        with UpdaterThread(updater):
            publish(producer, "transactions", values)
            wait_for(lambda: applied(updater, "transactions") == 5, "all five records")
        assert graph.view().row_index("transactions", [0, 2, 4]).min() >= 0
        assert graph.view().row_count("transactions") == 3
    letters = {one.letter.value: one.letter for one in list_dead_letters(settings)}
    assert set(letters) == {values[1], values[3]}
    assert letters[values[1]].reason == "invalid_json"
    assert (letters[values[1]].topic, letters[values[1]].partition, letters[values[1]].offset) == ("transactions", 1, 0)


def test_what_the_graph_refuses_is_a_dead_letter_too(
    schema: Schema, settings: StreamSettings, producer: EventProducer
) -> None:
    """An event of a table that the schema does not have passes the decoder of bytes and is refused by the graph."""
    from protos.nowgraph.v1 import row_event_pb2

    stranger = row_event_pb2.RowEvent(table="strangers", operation=row_event_pb2.OPERATION_INSERT).SerializeToString()
    with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph:
        source = KafkaSource(["raw"], gaps="error", settings=_with_topic(settings, producer, "raw", stranger))
        updater = Updater(graph, [source], Decoder(schema), DeadLetters(producer, settings=settings))
        with UpdaterThread(updater):
            wait_for(lambda: sum(updater.applied("raw", part) for part in range(4)) == 1, "the record")
        assert updater.metrics.registry.get_sample_value("nowgraph_events_applied_total") == 0
    (stored,) = list_dead_letters(settings)
    assert stored.letter.value == stranger
    assert stored.letter.reason


def _with_topic(settings: StreamSettings, producer: EventProducer, topic: str, value: bytes) -> StreamSettings:
    producer.send(topic, value=value).result(10)
    return settings


def test_a_restart_goes_on_where_the_graph_stands(
    schema: Schema, settings: StreamSettings, producer: EventProducer
) -> None:
    """Stopped and started again on the same graph: nothing is missing and nothing came twice."""
    with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph:
        for first, last in ((0, 40), (40, 90)):
            updater = make(graph, schema, settings, producer, poll_records_max=11)
            publish(producer, "transactions", [payment(number) for number in range(first, last)])
            with UpdaterThread(updater):
                wait_for(lambda: applied(updater, "transactions") == last, "the payments")  # noqa: B023
            registry = updater.metrics.registry
            assert registry.get_sample_value("nowgraph_events_applied_total") == last - first
            assert registry.get_sample_value("nowgraph_events_duplicate_total") == 0
        assert graph.canonical_hash() == twin(schema, 90, 0)


class _Breaking(Decoder):
    """Decodes like its parent until it breaks, once."""

    def __init__(self, schema: Schema, breaks_at: int) -> None:
        super().__init__(schema)
        self.left = breaks_at

    def decode(self, batch: Batch) -> Decoded:
        self.left -= len(batch)
        if self.left < 0:
            raise RuntimeError("broken")
        return super().decode(batch)


def test_a_decoder_that_breaks_loses_nothing(schema: Schema, settings: StreamSettings, producer: EventProducer) -> None:
    """The error is raised, positions are those of what was applied, and the next updater brings the rest."""
    publish(producer, "transactions", [payment(number) for number in range(50)])
    with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph:
        source = KafkaSource(TOPICS, gaps="error", settings=settings)
        letters = DeadLetters(producer, settings=settings)
        limits = UpdaterSettings(poll_records_max=6)
        broken = Updater(graph, [source], _Breaking(schema, 20), letters, settings=limits)
        with pytest.raises(RuntimeError, match="broken"):
            broken.run()
        broken.close()
        before = sum(graph.positions.values())
        assert 0 < before <= 20
        assert graph.view().row_count("transactions") == before
        updater = make(graph, schema, settings, producer)
        with UpdaterThread(updater):
            wait_for(lambda: applied(updater, "transactions") == 50, "the rest")
        assert graph.canonical_hash() == twin(schema, 50, 0)


class _Full(DeadLetterFile):
    """A place for dead letters that has no room."""

    def flush(self, timeout_s: float) -> None:
        raise DeliveryError("no room")


def test_no_position_passes_a_dead_letter_that_is_not_safe(
    schema: Schema, settings: StreamSettings, producer: EventProducer, tmp_path: Path
) -> None:
    """While dead letters cannot be kept the updater stops before the poison; with room for them it goes on."""
    producer.send("transactions", value=b"poison", partition=0).result(10)
    with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph:
        source = KafkaSource(TOPICS, gaps="error", settings=settings)
        stuck = Updater(graph, [source], Decoder(schema), _Full(tmp_path / "full"))
        with pytest.raises(DeliveryError, match="no room"):
            stuck.run()
        stuck.close()
        assert graph.positions == {(topic, part): 0 for topic in TOPICS for part in (0, 1)}
        with DeadLetterFile(tmp_path / "letters.jsonl") as letters:
            source = KafkaSource(TOPICS, positions=graph.positions, gaps="error", settings=settings)
            updater = Updater(graph, [source], Decoder(schema), letters)
            with UpdaterThread(updater):
                wait_for(lambda: updater.applied("transactions", 0) == 1, "the poison to pass")
            assert letters.count == 1


class _Refusing(DeadLetterFile):
    """Refuses the first flush and keeps everything from then on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.kept: list[DeadLetter] = []
        self._waiting: list[DeadLetter] = []
        self._refusals = 1

    def append(self, letters: Sequence[DeadLetter]) -> None:
        self._waiting += letters

    def flush(self, timeout_s: float) -> None:
        waiting, self._waiting = self._waiting, []
        if self._refusals:
            self._refusals -= 1
            raise DeliveryError("not now")
        self.kept += waiting


def test_a_letter_of_the_graph_that_failed_once_is_sent_before_anything_else(
    schema: Schema, settings: StreamSettings, producer: EventProducer, tmp_path: Path
) -> None:
    """The graph refuses an event and its letter fails: running the updater again sends that letter first."""
    stranger = b"\x12\x09strangers\x18\x01"
    producer.send("raw", value=stranger).result(10)
    with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph:
        letters = _Refusing(tmp_path / "unused")
        source = KafkaSource(["raw"], gaps="error", settings=settings)
        updater = Updater(graph, [source], Decoder(schema), letters)
        with pytest.raises(DeliveryError):
            updater.run()
        assert letters.kept == []
        producer.send("raw", value=stranger).result(10)
        with UpdaterThread(updater):
            wait_for(lambda: len(letters.kept) == 2, "both letters")


def test_stop_ends_a_run_that_waits_for_events(
    schema: Schema, settings: StreamSettings, producer: EventProducer
) -> None:
    """An idle updater notices `stop` within its poll."""
    with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph:
        updater = make(graph, schema, settings, producer)
        thread = threading.Thread(target=updater.run)
        thread.start()
        time.sleep(0.2)
        updater.stop()
        thread.join(5)
        assert not thread.is_alive()
        updater.close()


def test_an_updater_without_sources_is_refused(schema: Schema, tmp_path: Path) -> None:
    """There is nothing to run."""
    with (
        TemporalGraph.create(schema, arena_bytes=1 << 28) as graph,
        pytest.raises(ValueError, match="at least one source"),
    ):
        Updater(graph, [], Decoder(schema), DeadLetterFile(tmp_path / "letters"))

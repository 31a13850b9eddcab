"""Parts are put together as the options say, and options that make no sense are refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nowgraph.assembly import (
    EMBEDDED,
    broker_address,
    history_source,
    live_source,
    parse_positions,
    privacy_of,
    read_topics,
    schema_of,
    topics_of,
)
from nowgraph.errors import UsageError
from stream.embedded_broker import EmbeddedBroker
from stream.errors import ConfigurationError
from stream.producer import EventProducer
from stream.settings import EVENTS_TOPIC, StreamSettings
from stream.source import ChainSource
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, load_schema, parse_schema


@pytest.fixture
def schema(example: Path) -> Schema:
    """The payments example's."""
    return load_schema(example / "schema.yaml")


def test_positions_are_read_as_they_are_written() -> None:
    """Topic names may hold slashes and equals have one meaning; anything else is refused with an example."""
    assert parse_positions(["a/0=5", "b/c/12=0"]) == {("a", 0): 5, ("b/c", 12): 0}
    for wrong in ("a", "a/0", "a=0", "/0=1", "a/x=1", "a/0=-1", "a/0="):
        with pytest.raises(UsageError, match="topic/partition=offset"):
            parse_positions([wrong])


def test_topics_are_those_of_the_sources_once_each(schema: Schema) -> None:
    """In the schema's order."""
    assert topics_of(schema) == ("transactions", "fraud_reports")


@pytest.mark.integration
def test_a_schema_without_sources_is_fed_by_ingest_alone() -> None:
    """The graph reads the one topic that Ingest writes; where a broker lacks it, that is said by name."""
    bare = parse_schema("version: 1\nname: x\ntables: {a: {primary_key: {id: integer}}}\n")
    with ExitStack() as stack:
        graph = stack.enter_context(TemporalGraph.create(bare, arena_bytes=1 << 28))
        source, _ = live_source(graph, [], StreamSettings(kafka_bootstrap=broker_address(EMBEDDED, bare, stack)))
        assert {topic for topic, _ in source.positions} == {EVENTS_TOPIC}
        source.close()
        other = stack.enter_context(EmbeddedBroker({"other": 1}))
        with pytest.raises(ConfigurationError, match=EVENTS_TOPIC):
            live_source(graph, [], StreamSettings(kafka_bootstrap=other.bootstrap))


@pytest.mark.integration
def test_the_topic_of_ingest_may_be_made_later(
    schema: Schema, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    """The topics of the schema are read meanwhile, and all of it once it is there."""
    monkeypatch.setenv("NOWGRAPH_PARTITION_CHECK_S", "0.2")
    assert read_topics(schema) == (("transactions", "fraud_reports"), (EVENTS_TOPIC,))
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker({"transactions": 1, "fraud_reports": 1}))
        settings = StreamSettings(kafka_bootstrap=broker.bootstrap)
        graph = stack.enter_context(TemporalGraph.create(schema, arena_bytes=1 << 28))
        source, _ = live_source(graph, [], settings, gaps="error")
        stack.callback(source.close)
        assert set(source.positions) == {("transactions", 0), ("fraud_reports", 0)}
        broker.create_topic(EVENTS_TOPIC, 2)
        producer = stack.enter_context(EventProducer(settings))
        places = [producer.send(EVENTS_TOPIC, value=b"x", partition=number).result(20) for number in (0, 1, 1)]
        came: set[tuple[str, int, int]] = set()

        def all_came() -> bool:
            batch = source.poll(100, 0.1)
            came.update((batch.topic, number, at) for number, at in zip(batch.partition, batch.offset, strict=True))
            return len(came) == len(places)

        until(all_came, "the events of the topic that came later")
        assert came == {(place.topic, place.partition, place.offset) for place in places}


@pytest.mark.integration
def test_the_embedded_broker_is_started_only_when_it_is_asked_for(schema: Schema, town: tuple[Path, Path]) -> None:
    """An address stays as it is; `embedded` gives one on loopback with the schema's topics, history before Kafka."""
    with ExitStack() as stack:
        assert broker_address("kafka:9092", schema, stack) == "kafka:9092"
        address = broker_address(EMBEDDED, schema, stack)
        assert address.startswith("127.0.0.1:")
        settings = StreamSettings(kafka_bootstrap=address)
        graph = stack.enter_context(TemporalGraph.create(schema, arena_bytes=1 << 28))
        whole, (history, kafka) = live_source(graph, town, settings, from_positions={("transactions", 1): 0})
        assert isinstance(whole, ChainSource)
        assert sum(history.end_positions().values()) == sum(pq.read_metadata(path).num_rows for path in town)
        assert {topic for topic, _ in kafka.positions} == {"transactions", "fraud_reports", EVENTS_TOPIC}
        whole.close()
        alone, logs = live_source(graph, [], settings)
        assert logs == [alone]
        alone.close()


def test_a_history_file_must_be_there_and_of_the_schema(schema: Schema, tmp_path: Path) -> None:
    """A missing file and one of no table are named."""
    with pytest.raises(UsageError, match="no such file"):
        history_source(schema, [tmp_path / "transactions.parquet"], StreamSettings())
    (tmp_path / "strangers.jsonl").write_text("{}\n")
    with pytest.raises(ConfigurationError, match="strangers"):
        history_source(schema, [tmp_path / "strangers.jsonl"], StreamSettings())


def test_private_values_need_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema with private values does not start without NOWGRAPH_PRIVACY_SECRET."""
    monkeypatch.delenv("NOWGRAPH_PRIVACY_SECRET", raising=False)
    private = parse_schema(
        "version: 1\nname: x\ntables: {a: {primary_key: {id: integer}, "
        "columns: {card: {kind: categorical, private: true}}}}\n"
    )
    with pytest.raises(ConfigurationError, match="NOWGRAPH_PRIVACY_SECRET"):
        privacy_of(private, StreamSettings())
    monkeypatch.setenv("NOWGRAPH_PRIVACY_SECRET", "a secret of at least sixteen bytes")
    assert privacy_of(private, StreamSettings()) is not None


def test_a_checkpoint_brings_its_schema(tmp_path: Path) -> None:
    """The schema that is given counts; else the one beside the checkpoint; without either there is none."""
    given = tmp_path / "mine.yaml"
    assert schema_of(tmp_path, given) == given
    with pytest.raises(UsageError, match="--schema"):
        schema_of(tmp_path, None)
    (tmp_path / "schema.yaml").touch()
    assert schema_of(tmp_path, None) == tmp_path / "schema.yaml"
    assert schema_of(tmp_path, given) == given


def test_a_folder_stands_for_the_files_in_it(schema: Schema, town: tuple[Path, Path], tmp_path: Path) -> None:
    """Parquet and JSONL directly in it, by name; other files and deeper folders are not history; none is refused."""
    folder = tmp_path / "history"
    (folder / "labels").mkdir(parents=True)
    for path in town:
        (folder / path.name).symlink_to(path)
        (folder / "labels" / path.name).symlink_to(path)
    (folder / "README.md").write_text("not history")
    rows = sum(pq.read_metadata(path).num_rows for path in town)
    assert history_source(schema, [folder], StreamSettings()).lag_records() == rows
    with pytest.raises(UsageError, match="nor a folder with"):
        history_source(schema, [tmp_path], StreamSettings())

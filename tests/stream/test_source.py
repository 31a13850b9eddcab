from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.batch import Positions
from stream.decode import Decoder
from stream.file_rows import FileTable
from stream.file_source import FileSource
from stream.kafka_source import KafkaSource
from stream.privacy import Privacy
from stream.producer import EventProducer
from stream.settings import StreamSettings
from stream.source import ChainSource, Hysteresis
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema

Topic = Callable[..., str]


def test_the_switch_has_two_thresholds() -> None:
    """On at the high mark, off at the low one, as it was in between, from both sides."""
    switch = Hysteresis(10, 5)
    assert [switch.update(value) for value in (9, 10, 6, 5, 6, 9, 10)] == [False, True, True, False, False, False, True]
    with pytest.raises(ValueError, match="low 5, high 5"):
        Hysteresis(5, 5)


def line(number: int) -> bytes:
    """Row `number` of the history as JSON."""
    return b'{"order_id": %d, "ordered_at": %d, "amount": %d}' % (number, 1_700_000_000 + number, number)


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> tuple[StreamSettings, Topic]:
    """The bootstrap is proved on the embedded broker and on Apache Kafka."""
    if request.param == "embedded":
        return request.getfixturevalue("embedded_settings"), request.getfixturevalue("embedded_topic")
    return request.getfixturevalue("kafka_settings"), request.getfixturevalue("kafka_topic")


@pytest.mark.integration
@pytest.mark.parametrize("stop_after", [0, 130, 200, 260])
def test_the_bootstrap_misses_nothing_and_doubles_nothing(
    broker: tuple[StreamSettings, Topic], tmp_path: Path, stop_after: int
) -> None:
    """History from a file, then Kafka from the offset the file ends at, with a restart anywhere: each row is applied
    exactly once, and the graph is that of the whole log.
    """
    settings, topics = broker
    topic = topics(1)
    schema = parse_schema(
        "version: 1\nname: shop\ntables:\n"
        "  orders: {primary_key: {order_id: integer}, time_column: ordered_at, columns: {amount: numerical}}\n"
        f"sources:\n  - {{topic: {topic}, table: orders, format: json}}\n"
    )
    with EventProducer(settings) as producer:
        for i in range(300):
            producer.send(topic, value=line(i))
    path = tmp_path / "history.jsonl"
    path.write_bytes(b"\n".join(line(i) for i in range(200)))

    def chain(positions: Positions) -> ChainSource:
        # The file was written from the log's first 200 records, so Kafka starts behind them.
        starts = {(topic, 0): 200, **positions}
        file = FileSource(schema, [FileTable.of(schema, path, "orders")], positions=positions)
        return ChainSource([file, KafkaSource([topic], positions=starts, settings=settings, gaps="error")])

    decoder = Decoder(schema)
    with TemporalGraph.create(schema) as graph, TemporalGraph.create(schema) as whole:
        applied = 0
        for limit in (stop_after, 300):
            source = chain(graph.positions)
            while applied < limit:
                batch = source.poll(min(30, limit - applied), 10.0)
                assert len(batch), "a record is missing"
                decoded = decoder.decode(batch)
                result = graph.apply(decoded.events, backfill=batch.backfill, positions=batch.next_positions())
                assert result.duplicate == 0
                applied += result.applied
            assert limit == stop_after or len(source.poll(10, 0.2)) == 0
            source.close()
        assert graph.view().row_count("orders") == 300
        everything = KafkaSource([topic], settings=settings)
        while whole.positions.get((topic, 0), 0) < 300:
            batch = everything.poll(1_000, 10.0)
            whole.apply(decoder.decode(batch).events, positions=batch.next_positions())
        everything.close()
        assert graph.canonical_hash() == whole.canonical_hash()


def test_a_chain_reads_each_source_to_its_end(schema: Schema, secret: bytes, tmp_path: Path) -> None:
    """Sources follow each other in order; lag and ends are those of all that are left."""
    sources = []
    for number in (1, 2):
        path = tmp_path / f"part{number}.jsonl"
        path.write_bytes(b"\n".join(line(number * 10 + i) for i in range(5)))
        sources.append(FileSource(schema, [FileTable.of(schema, path, "orders")], privacy=Privacy(schema, secret)))
    chain = ChainSource(sources)
    assert chain.lag_records() == 10
    assert chain.end_positions() == {("file:part1", 0): 5, ("file:part2", 0): 5}
    topics = []
    while not chain.exhausted:
        batch = chain.poll(3, 0.1)
        topics += [batch.topic] * len(batch)
    assert topics == ["file:part1"] * 5 + ["file:part2"] * 5
    assert chain.lag_records() == 0
    chain.close()
    with pytest.raises(ValueError, match="at least one source"):
        ChainSource([])

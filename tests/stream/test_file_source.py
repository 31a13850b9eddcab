from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protos.nowgraph.v1 import row_event_pb2
from stream.batch import Batch
from stream.errors import ConfigurationError
from stream.file_rows import FileTable
from stream.file_source import FileSource
from stream.privacy import Privacy
from temporal_graph.schema import Schema
from temporal_graph.time_rule import ALWAYS_US


@pytest.fixture
def files(schema: Schema, tmp_path: Path) -> list[FileTable]:
    """Orders and their later changes in Parquet, customers without time in JSONL."""
    rng = np.random.default_rng(5)
    ids = np.arange(300)
    ordered_us = np.sort(rng.integers(0, 10**9, 300))
    orders = {"order_id": ids, "ordered_at": pa.array(ordered_us, pa.timestamp("us")), "amount": ids / 2}
    pq.write_table(pa.table(orders), tmp_path / "orders.parquet", row_group_size=64)
    changed_us = np.sort(ordered_us + 10**6)
    changes = {"order_id": ids, "changed_at": pa.array(changed_us, pa.timestamp("us")), "paid": ids % 2 == 0}
    pq.write_table(pa.table(changes), tmp_path / "order_changes.parquet", row_group_size=50)
    customers = b"".join(orjson.dumps({"customer_id": i, "city": "Ulm"}) + b"\n" for i in range(20))
    (tmp_path / "customers.jsonl").write_bytes(customers)
    names = ("orders.parquet", "order_changes.parquet", "customers.jsonl")
    return [FileTable.of(schema, tmp_path / name) for name in names]


def drain(source: FileSource, max_records: int = 70) -> list[Batch]:
    """Polls to the end."""
    batches = []
    while not source.exhausted:
        batch = source.poll(max_records, 1.0)
        assert len(batch) <= max_records
        if len(batch):
            batches.append(batch)
    return batches


def events(batches: list[Batch]) -> list[bytes]:
    """All events in order."""
    return [event for batch in batches for event in (batch.decoded.events if batch.decoded else [])]


def test_several_files_come_merged_by_time(schema: Schema, secret: bytes, files: list[FileTable]) -> None:
    """Every row comes once, in event time over all files, rows without time first; each batch is a backfill."""
    source = FileSource(schema, files, privacy=Privacy(schema, secret))
    assert source.lag_records() == 620
    batches = drain(source)
    times = [t for batch in batches for t in batch.decoded.event_time_us.tolist()]  # type: ignore[union-attr]
    assert times == sorted(times)
    assert times[:21].count(ALWAYS_US) == 20
    assert len(set(events(batches))) == len(times) == 620
    assert all(batch.backfill and batch.topic == "file:orders+order_changes+customers" for batch in batches)
    assert (
        source.positions
        == source.end_positions()
        == {(source.topic, 0): 300, (source.topic, 1): 300, (source.topic, 2): 20}
    )
    assert source.lag_records() == 0
    assert len(source.poll(10, 0.1)) == 0
    source.close()


@pytest.mark.parametrize("stop_after", [1, 20, 21, 333, 619, 620])
def test_a_restart_goes_on_at_the_row_it_stopped_at(
    schema: Schema, secret: bytes, files: list[FileTable], stop_after: int
) -> None:
    """From the positions of the applied batches the rest comes: nothing missing, nothing twice."""
    privacy = Privacy(schema, secret)
    everything = events(drain(FileSource(schema, files, privacy=privacy)))
    source = FileSource(schema, files, privacy=privacy)
    positions: dict[tuple[str, int], int] = {}
    seen: list[Batch] = []
    while sum(map(len, seen)) < stop_after:
        seen.append(source.poll(min(50, stop_after - sum(map(len, seen))), 1.0))
        positions.update(seen[-1].next_positions())
    source.close()
    rest = drain(FileSource(schema, files, positions=positions, privacy=privacy))
    assert sorted(events(seen) + events(rest)) == sorted(everything)
    assert events(seen) == everything[:stop_after]


def test_rows_that_do_not_fit_are_dead_letters_of_their_batch(schema: Schema, secret: bytes, tmp_path: Path) -> None:
    """They keep their place and reason among the rows around them, which are decoded."""
    lines = [b'{"order_id": %d, "ordered_at": %d}' % (i, i + 1) for i in range(10)]
    lines[3] = b"{broken"
    lines[7] = b'{"order_id": 7}'
    (tmp_path / "orders.jsonl").write_bytes(b"\n".join(lines))
    file = FileTable.of(schema, tmp_path / "orders.jsonl")
    batches = drain(FileSource(schema, [file], privacy=Privacy(schema, secret)), 4)
    dead = [letter for batch in batches for letter in (batch.decoded.dead if batch.decoded else [])]
    assert [(letter.offset, letter.reason, letter.value) for letter in dead] == [
        (3, "invalid_json", b"{broken"),
        (7, "missing_time", b'{"order_id": 7}'),
    ]
    for batch in batches:
        assert batch.decoded is not None
        for event, index in zip(batch.decoded.events, batch.decoded.record_index, strict=True):
            (part,) = row_event_pb2.RowEvent.FromString(event).key.parts
            assert part.integer == batch.offset[index]


def test_files_out_of_order_keep_their_own_order(schema: Schema, secret: bytes, tmp_path: Path) -> None:
    """A file that is not sorted by time is read as it stands, each row once."""
    for name, times in (("orders", [50, 10, 60, 20]), ("part", [30, 40])):
        lines = [b'{"order_id": %d, "ordered_at": %d}' % (t, t) for t in times]
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(lines))
    files = [FileTable.of(schema, tmp_path / "orders.jsonl"), FileTable.of(schema, tmp_path / "part.jsonl", "orders")]
    source = FileSource(schema, files, privacy=Privacy(schema, secret))
    batches = drain(source)
    keys = [row_event_pb2.RowEvent.FromString(event).key.parts[0].integer for event in events(batches)]
    assert sorted(keys) == [10, 20, 30, 40, 50, 60]
    assert [key for key in keys if key in {50, 10, 60, 20}] == [50, 10, 60, 20]


def test_pacing_keeps_the_distance_of_events(schema: Schema, secret: bytes, tmp_path: Path) -> None:
    """At 100 times real time, 30 seconds of events take 0.3 seconds: none early, and those due together, together."""
    seconds = [0, 0, 10, 20, 20, 30]
    lines = [b'{"order_id": %d, "ordered_at": %d}' % (i, 1_700_000_000 + s) for i, s in enumerate(seconds)]
    (tmp_path / "orders.jsonl").write_bytes(b"\n".join(lines))
    file = FileTable.of(schema, tmp_path / "orders.jsonl")
    source = FileSource(schema, [file], speed=100.0, privacy=Privacy(schema, secret))
    start_s = time.monotonic()
    arrived: list[tuple[int, float]] = []
    while not source.exhausted:
        batch = source.poll(100, 0.02)
        arrived += [(int(row), time.monotonic() - start_s) for row in batch.offset]
    assert [row for row, _ in arrived] == list(range(6))
    for row, at_s in arrived:
        assert at_s >= seconds[row] / 100 - 0.001
    assert arrived[-1][1] < 5


def test_a_poll_that_is_too_early_waits_no_longer_than_it_may(schema: Schema, secret: bytes, tmp_path: Path) -> None:
    """Until the next row is due, poll returns nothing after its timeout."""
    lines = b'{"order_id": 1, "ordered_at": 0}\n{"order_id": 2, "ordered_at": 3600}\n'
    (tmp_path / "orders.jsonl").write_bytes(lines)
    file = FileTable.of(schema, tmp_path / "orders.jsonl")
    source = FileSource(schema, [file], speed=1.0, privacy=Privacy(schema, secret))
    assert len(source.poll(10, 0.1)) == 1
    start_s = time.monotonic()
    assert len(source.poll(10, 0.05)) == 0
    assert time.monotonic() - start_s < 5
    assert not source.exhausted


def test_what_cannot_be_a_source_is_refused(schema: Schema, secret: bytes, files: list[FileTable]) -> None:
    """No file, a speed of nothing, and a graph that has seen more rows than the file has."""
    with pytest.raises(ConfigurationError, match="at least one file"):
        FileSource(schema, [])
    with pytest.raises(ConfigurationError, match="speed"):
        FileSource(schema, files, speed=0, privacy=Privacy(schema, secret))
    with pytest.raises(ConfigurationError, match="301 rows"):
        FileSource(schema, files[:1], positions={("file:orders", 0): 301}, privacy=Privacy(schema, secret))

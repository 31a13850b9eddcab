from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from protos.nowgraph.v1 import row_event_pb2
from stream.errors import ConfigurationError, SourceError
from stream.file_rows import FileTable, count_rows, read_rows
from stream.privacy import HASHED_METADATA, Privacy
from temporal_graph.schema import Schema
from temporal_graph.time_rule import ALWAYS_US


def write_orders(path: Path, count: int, *, row_group_size: int = 10) -> Path:
    """A Parquet file of orders, one second apart."""
    times = pa.array(np.arange(count) * 1_000_000, pa.timestamp("us"))
    table = pa.table({"order_id": np.arange(count), "ordered_at": times, "amount": np.arange(count) / 2})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


@pytest.fixture
def privacy(schema: Schema, secret: bytes) -> Privacy:
    """What hashes the private values of the test schema."""
    return Privacy(schema, secret)


def test_a_file_is_found_by_topic_then_table(schema: Schema, tmp_path: Path) -> None:
    """Its own name, or the one given, names a source's topic or a table; anything else lists what there is."""
    assert FileTable.of(schema, tmp_path / "order_changes.parquet").source.operation == "upsert"
    assert FileTable.of(schema, tmp_path / "part-1.parquet", "customers").source.table == "customers"
    assert FileTable.of(schema, tmp_path / "orders.2024.jsonl").source.topic == "orders"
    with pytest.raises(ConfigurationError, match=r"no source or table 'nothing'.*customers, .*visits"):
        FileTable.of(schema, tmp_path / "nothing.parquet")
    with pytest.raises(ConfigurationError, match="carries debezium"):
        FileTable.of(schema, tmp_path / "x.jsonl", "shop.public.orders")


@pytest.mark.parametrize("start", [0, 1, 9, 10, 11, 34, 35])
def test_parquet_can_be_entered_at_any_row(schema: Schema, privacy: Privacy, tmp_path: Path, start: int) -> None:
    """From any row, in a row group, at its border or at the end, exactly the rows from there on come."""
    path = write_orders(tmp_path / "orders.parquet", 35)
    file = FileTable.of(schema, path)
    everything = [value for rows in read_rows(schema, file, 0, privacy) for value in rows.values]
    rest = list(read_rows(schema, file, start, privacy))
    assert [value for rows in rest for value in rows.values] == everything[start:]
    assert [row for rows in rest for row in rows.row.tolist()] == list(range(start, 35))
    assert count_rows(path) == 35


def test_a_file_that_was_written_from_a_graph_is_not_hashed_again(
    schema: Schema, privacy: Privacy, tmp_path: Path
) -> None:
    """Its metadata says that private keys are hashes already; without it they are hashed, and the two files agree."""
    table = pa.table({"card": ["4000-1234"]})
    hashed = pa.table({"card": [privacy.hash("4000-1234")]}).replace_schema_metadata(HASHED_METADATA)
    keys = []
    for name, rows in (("plain", table), ("hashed", hashed)):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(rows, path)
        ((event,),) = (rows.values for rows in read_rows(schema, FileTable.of(schema, path, "cards"), 0, privacy))
        keys.append(row_event_pb2.RowEvent.FromString(event).key.parts[0].text)
    assert keys == [privacy.hash("4000-1234")] * 2


def test_jsonl_is_read_line_by_line(schema: Schema, privacy: Privacy, tmp_path: Path) -> None:
    """Every line is a row; one that is none keeps its exact bytes and its reason; a last line may lack its end."""
    path = tmp_path / "orders.jsonl"
    path.write_bytes(b'{"order_id": 1, "ordered_at": 5}\r\n{"order_id": \xff\n{"order_id": 3, "ordered_at": 7}')
    (rows,) = read_rows(schema, FileTable.of(schema, path), 0, privacy)
    assert rows.event_time_us.tolist() == [5_000_000, ALWAYS_US, 7_000_000]
    assert rows.values[1] == b'{"order_id": \xff'
    assert rows.refused[1].reason == "invalid_json"
    assert count_rows(path) == 3
    (last,) = read_rows(schema, FileTable.of(schema, path), 2, privacy)
    assert last.values == rows.values[2:]


@pytest.mark.parametrize("start", [0, 1, 34, 35])
def test_csv_gives_the_rows_that_parquet_gives(schema: Schema, privacy: Privacy, tmp_path: Path, start: int) -> None:
    """From any row on: the same events, times and row numbers."""
    parquet = write_orders(tmp_path / "orders.parquet", 35)
    csv.write_csv(pq.read_table(parquet), tmp_path / "orders.csv")
    files = [FileTable.of(schema, path) for path in (parquet, tmp_path / "orders.csv")]
    found = [
        [
            (value, at, row)
            for rows in read_rows(schema, file, start, privacy)
            for value, at, row in zip(rows.values, rows.event_time_us.tolist(), rows.row.tolist(), strict=True)
        ]
        for file in files
    ]
    assert found[0] == found[1]
    assert len(found[1]) == count_rows(tmp_path / "orders.csv") - start == 35 - start


def test_a_refused_row_of_csv_is_kept_as_it_was_written(schema: Schema, privacy: Privacy, tmp_path: Path) -> None:
    """What fits is kept as what it is, what does not as its text; the rows around it are read."""
    path = tmp_path / "orders.csv"
    path.write_text("order_id,ordered_at,amount\n1,2024-01-31,1\n2,2024-01-31,many\n3,,3\n4,2024-01-31,4\n")
    (rows,) = read_rows(schema, FileTable.of(schema, path), 0, privacy)
    assert {row: error.reason for row, error in rows.refused.items()} == {1: "bad_number", 2: "missing_time"}
    assert orjson.loads(rows.values[1]) == {"order_id": 2, "ordered_at": "2024-01-31", "amount": "many"}


def test_names_that_no_schema_can_hold(schema: Schema, privacy: Privacy, tmp_path: Path) -> None:
    """A file `order changes` with a column `Order-id` is the topic order_changes with its order_id, if it says so."""
    path = tmp_path / "order changes.parquet"
    pq.write_table(pa.table({"order-id": [1], "changed.at": [1_700_000_000], "amount": [1.5]}), path)
    file = FileTable.of(schema, path)
    (rows,) = read_rows(schema, file, 0, privacy)
    assert (file.source.topic, rows.refused) == ("order_changes", {})
    assert row_event_pb2.RowEvent.FromString(rows.values[0]).key.parts[0].integer == 1


def test_a_refused_row_of_parquet_is_kept_as_json(schema: Schema, privacy: Privacy, tmp_path: Path) -> None:
    """A row of columns has no bytes of its own; what is kept can be read and repaired."""
    path = tmp_path / "orders.parquet"
    times = pa.array([0, None], pa.timestamp("us"))
    pq.write_table(pa.table({"order_id": [1, 2], "ordered_at": times, "amount": [1.5, 2.5]}), path)
    (rows,) = read_rows(schema, FileTable.of(schema, path), 0, privacy)
    assert rows.values[1] == b'{"order_id":2,"ordered_at":null,"amount":2.5}'
    assert rows.refused[1].reason == "missing_time"


def test_a_refused_row_of_decimals_is_kept_as_numbers(schema: Schema, privacy: Privacy, tmp_path: Path) -> None:
    """Its numbers can be sent again as they are; a key that fits no integer stays visible as a text."""
    path = tmp_path / "orders.parquet"
    keys = pa.array([Decimal(2**64), Decimal(2)], pa.decimal128(38, 0))
    amounts = pa.array([Decimal("1.10"), Decimal("2.50")], pa.decimal128(10, 2))
    times = pa.array([0, None], pa.timestamp("us"))
    pq.write_table(pa.table({"order_id": keys, "ordered_at": times, "amount": amounts}), path)
    (rows,) = read_rows(schema, FileTable.of(schema, path), 0, privacy)
    assert [error.reason for _, error in sorted(rows.refused.items())] == ["bad_key", "missing_time"]
    assert orjson.loads(rows.values[0])["order_id"] == str(2**64)
    assert orjson.loads(rows.values[1]) == {"order_id": 2, "ordered_at": None, "amount": 2.5}


def test_tables_without_time_come_before_everything(schema: Schema, privacy: Privacy, tmp_path: Path) -> None:
    """Their rows have no event time and sort first."""
    path = tmp_path / "customers.jsonl"
    path.write_text('{"customer_id": 1, "city": "Ulm"}\n')
    (rows,) = read_rows(schema, FileTable.of(schema, path), 0, privacy)
    assert rows.event_time_us.tolist() == [ALWAYS_US]


def test_files_that_cannot_be_read_say_so(schema: Schema, tmp_path: Path) -> None:
    """A missing file, one that is no Parquet, and one of another kind are errors that name it."""
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    for path in (tmp_path / "missing.parquet", tmp_path / "missing.jsonl", broken):
        with pytest.raises(SourceError, match=path.name):
            count_rows(path)
    with pytest.raises(ConfigurationError, match=r"\.parquet, .*\.csv, .*\.jsonl or \.ndjson"):
        count_rows(tmp_path / "orders.xlsx")

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from protos.nowgraph.v1 import row_event_pb2
from stream.arrow_encode import ArrowEncoder
from stream.privacy import Privacy
from stream.row_encoder import RowEncoder
from temporal_graph.schema import Schema, Source

AT = datetime(2024, 1, 1, 12, tzinfo=UTC)
AT_US = 1_704_110_400_000_000


def encoders(schema: Schema, topic: str, secret: bytes) -> tuple[ArrowEncoder, RowEncoder]:
    """The columnar and the one-row encoder of a source (by topic) or a table."""
    found = [source for source in schema.sources if source.topic == topic]
    source = found[0] if found else Source(topic, topic, "json")
    return ArrowEncoder(schema, source, Privacy(schema, secret)), RowEncoder(schema, source, Privacy(schema, secret))


def orders(count: int) -> dict[str, Any]:
    """Columns of every kind, with nulls everywhere a null may be."""
    rows = range(count)
    nullable = [i if i % 3 else None for i in rows]
    return {
        "order_id": pa.array([i * 10**15 - 5 for i in rows], pa.int64()),
        "ordered_at": pa.array([AT_US + i for i in rows], pa.timestamp("us")),
        "amount": pa.array([None if i is None else i * 0.1 for i in nullable], pa.float64()),
        "status": pa.array([None if i is None else f"größe{i % 4}" for i in nullable]).dictionary_encode(),
        "tags": pa.array([None if i is None else ["a", f"b{i}"] for i in nullable], pa.list_(pa.string())),
        "note": pa.array([None if i is None else "x" * i for i in nullable], pa.large_string()),
        "paid": pa.array([None if i is None else bool(i % 2) for i in nullable], pa.bool_()),
        "due": pa.array([None if i is None else date(2024, 1, 1) for i in nullable], pa.date32()),
        "taste": pa.array([None if i is None else [0.5, 1.0, float(i)] for i in nullable], pa.list_(pa.float32())),
        "customer_id": pa.array(nullable, pa.int32()),
        "store_region": pa.array([None if i is None else f"r{i}" for i in nullable]),
        "store_number": pa.array([i if i % 5 else None for i in rows], pa.int16()),
        "changed_at": pa.array([AT_US + i for i in rows], pa.timestamp("us")),
        "unknown": pa.array(["ignored"] * count),
    }


@pytest.mark.parametrize("topic", ["orders", "order_changes", "cancelled"])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_columns_become_the_same_bytes_as_rows(schema: Schema, secret: bytes, topic: str, count: int) -> None:
    """For insert, upsert and delete, whole columns and single rows give identical events, nulls included."""
    columnar, single = encoders(schema, topic, secret)
    batch = pa.RecordBatch.from_pydict(orders(count))
    encoded = columnar.encode(batch)
    assert encoded.refused == {}
    rows = batch.to_pylist()
    if topic == "order_changes":
        # A patch gives a link whole or not at all; in columns a null part clears it.
        for row in rows:
            if row["store_region"] is None or row["store_number"] is None:
                row["store_region"] = row["store_number"] = None
    assert encoded.events == [single.encode(row)[0] for row in rows]
    assert encoded.event_time_us.tolist() == [single.encode(row)[1] for row in rows]


def test_private_columns_and_keys_are_hashed(schema: Schema, secret: bytes) -> None:
    """Integer or text, the key and the link to it get the same hash as row by row; nulls stay null."""
    cards, card = encoders(schema, "cards", secret)
    batch = pa.RecordBatch.from_pydict({"card": [4111, 4222], "kinds": pa.array([["visa"], None])})
    assert cards.encode(batch).events == [card.encode(row)[0] for row in batch.to_pylist()]
    payments, payment = encoders(schema, "payments", secret)
    times = pa.array([AT] * 3, pa.timestamp("us", "UTC"))
    links = pa.RecordBatch.from_pydict(
        {"payment_id": [1, 2, 3], "paid_at": times, "reported_at": times, "card": ["4111", None, "4111"]}
    )
    events = payments.encode(links).events
    assert events == [payment.encode(row)[0] for row in links.to_pylist()]
    assert not any(b"4111" in event for event in events)


@pytest.mark.parametrize(
    ("column", "expected_us"),
    [
        (pa.array([AT], pa.timestamp("s")), AT_US),
        (pa.array([AT], pa.timestamp("ms", "Europe/Berlin")), AT_US),
        (pa.array([-1], pa.timestamp("ns")), -1),
        (pa.array([date(2024, 1, 1)], pa.date64()), AT_US - 12 * 3_600_000_000),
        (pa.array([1_704_110_400], pa.int64()), AT_US),
        (pa.array([1_704_110_400_000], pa.uint64()), AT_US),
        (pa.array(["2024-01-01T12:00:00"]), AT_US),
    ],
)
def test_times_of_every_arrow_type(schema: Schema, secret: bytes, column: pa.Array, expected_us: int) -> None:
    """Every unit and zone, dates, epoch integers and texts give exact microseconds in UTC, below one floored."""
    columnar, _ = encoders(schema, "visits", secret)
    encoded = columnar.encode(pa.RecordBatch.from_pydict({"at": column}))
    assert encoded.event_time_us.tolist() == [expected_us]
    assert row_event_pb2.RowEvent.FromString(encoded.events[0]).event_time_us == expected_us


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("order_id", pa.array([1, None, 3]), "missing_key"),
        ("order_id", pa.array([1.0, 2.5, None]), "bad_key"),
        ("ordered_at", pa.array([AT, None, AT], pa.timestamp("us")), "missing_time"),
        ("ordered_at", pa.array(["2024-01-01", "soon", "2024-01-01"]), "bad_time"),
        ("amount", pa.array([1.0, np.inf, None]), "not_finite"),
        ("amount", pa.array(["1", "2", None]), "number_as_string"),
        ("paid", pa.array([1, 2, None]), "bad_boolean"),
        ("customer_id", pa.array(["1", "2", None]), "bad_key"),
        ("taste", pa.array([[1.0, 2.0, 3.0], [1.0], None]), "wrong_dim"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    schema: Schema, secret: bytes, column: str, values: pa.Array, reason: str
) -> None:
    """The row with the wrong value is refused with its reason; rows that fit are encoded all the same."""
    columnar, single = encoders(schema, "orders", secret)
    columns = {"order_id": pa.array([1, 2, 3]), "ordered_at": pa.array([AT] * 3, pa.timestamp("us")), column: values}
    batch = pa.RecordBatch.from_pydict(columns)
    encoded = columnar.encode(batch)
    assert encoded.refused[1].reason == reason
    for row, values_of_row in enumerate(batch.to_pylist()):
        if row not in encoded.refused:
            assert encoded.events[row] == single.encode(values_of_row)[0]


def test_decimals_are_refused_until_they_are_numbers(schema: Schema, secret: bytes) -> None:
    """An Arrow decimal is no float: the refusal says so instead of rounding silently."""
    columnar, _ = encoders(schema, "orders", secret)
    batch = pa.RecordBatch.from_pydict(
        {"order_id": [1], "ordered_at": pa.array([AT], pa.timestamp("us")), "amount": [Decimal("1.10")]}
    )
    assert columnar.encode(batch).refused[0].reason == "bad_number"


def test_nan_in_a_file_is_null(schema: Schema, secret: bytes) -> None:
    """pandas writes missing numbers as NaN: the cell is absent, not refused."""
    columnar, _ = encoders(schema, "orders", secret)
    batch = pa.RecordBatch.from_pydict(
        {"order_id": [1], "ordered_at": pa.array([AT], pa.timestamp("us")), "amount": [float("nan")]}
    )
    encoded = columnar.encode(batch)
    assert encoded.refused == {}
    assert list(row_event_pb2.RowEvent.FromString(encoded.events[0]).cells) == []


def test_a_file_without_the_key_column_is_refused_row_by_row(schema: Schema, secret: bytes) -> None:
    """Nothing is made up for a missing key or time column."""
    columnar, _ = encoders(schema, "orders", secret)
    assert columnar.encode(pa.RecordBatch.from_pydict({"amount": [1.0]})).refused[0].reason == "missing_key"


def test_sliced_batches_are_read_from_their_offset(schema: Schema, secret: bytes) -> None:
    """A slice of a batch gives the events of its rows only."""
    columnar, _ = encoders(schema, "orders", secret)
    batch = pa.RecordBatch.from_pydict(orders(20))
    assert columnar.encode(batch.slice(7, 5)).events == columnar.encode(batch).events[7:12]

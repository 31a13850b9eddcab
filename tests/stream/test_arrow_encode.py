from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
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
        (pa.array([Decimal(1_704_110_400)], pa.decimal128(38, 0)), AT_US),
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
        ("order_id", pa.array([1, 2**63, None], pa.uint64()), "bad_key"),
        ("order_id", pa.array([1, Decimal(2**63), None], pa.decimal128(38, 0)), "bad_key"),
        ("customer_id", pa.array([1.0, 2.5, None]), "bad_key"),
        ("customer_id", pa.array([1.0, np.inf, None]), "bad_key"),
        ("customer_id", pa.array([2.0**53 - 1, 2.0**53, None]), "bad_key"),
        ("customer_id", pa.array([2.0**24 - 1, 2.0**24, None], pa.float32()), "bad_key"),
        ("customer_id", pa.array([Decimal("1.00"), Decimal("1.01"), None]), "bad_key"),
        ("status", pa.array([3.0, 3.5, None]), "bad_text"),
        ("status", pa.array([True, True, None]), "bad_text"),
        ("note", pa.array([None, 3.0, None]), "bad_text"),
        ("paid", pa.array([1.0, 0.5, None]), "bad_boolean"),
        ("paid", pa.array([1.0, 2.0, None]), "bad_boolean"),
        ("due", pa.array([None, 1_704_110_400.0, None]), "bad_time"),
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
            exact = {name: int(one) if isinstance(one, Decimal) else one for name, one in values_of_row.items()}
            assert encoded.events[row] == single.encode(exact)[0]


def whole_orders(kind: pa.DataType, number: type, missing: float | None = None) -> pa.RecordBatch:
    """Three orders whose integers are all written as `kind`, one `missing` in every column that may have a null."""

    def column(*values: int | None) -> pa.Array:
        return pa.array([missing if value is None else number(value) for value in values], kind)

    return pa.RecordBatch.from_pydict(
        {
            "order_id": column(7, 0, -8),
            "ordered_at": pa.array([AT] * 3, pa.timestamp("us")),
            "changed_at": pa.array([AT] * 3, pa.timestamp("us")),
            "amount": column(12, None, -3),
            "status": column(3, None, 0),
            "paid": column(1, 0, None),
            "customer_id": column(40_000, None, -1),
            "store_region": pa.array(["a", "b", None]),
            "store_number": column(2, None, 5),
        }
    )


@pytest.mark.parametrize("topic", ["orders", "order_changes"])
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (pa.float64(), float),
        (pa.float32(), float),
        (pa.decimal128(12, 2), Decimal),
        (pa.decimal128(38, 0), Decimal),
        (pa.decimal256(50, 9), Decimal),
    ],
    ids=str,
)
def test_integers_are_the_same_however_a_file_writes_them(
    schema: Schema, secret: bytes, topic: str, kind: pa.DataType, number: type
) -> None:
    """3, 3.0 and DECIMAL 3.00 give one key, link, category, yes or no, and null: the same bytes."""
    columnar, _ = encoders(schema, topic, secret)
    encoded = columnar.encode(whole_orders(kind, number))
    assert encoded.refused == {}
    assert encoded.events == columnar.encode(whole_orders(pa.int64(), int)).events


def test_nan_is_the_null_of_every_column(schema: Schema, secret: bytes) -> None:
    """What a data frame writes where a value is missing: no cell and no link, and no key is made of it."""
    columnar, _ = encoders(schema, "orders", secret)
    nan = float("nan")
    batch = whole_orders(pa.float64(), float, missing=nan)
    for name in ("note", "due", "taste", "tags"):
        batch = batch.append_column(name, pa.array([nan] * 3))
    encoded = columnar.encode(batch)
    assert encoded.refused == {}
    assert encoded.events == columnar.encode(whole_orders(pa.int64(), int)).events
    keys = columnar.encode(pa.RecordBatch.from_pydict({"order_id": [1.0, nan], "ordered_at": [AT] * 2})).refused
    assert {row: error.reason for row, error in keys.items()} == {1: "missing_key"}


def test_a_part_of_a_key_with_a_fraction_is_refused(schema: Schema, secret: bytes) -> None:
    """In a key of several columns too, with the column's name and what is wrong with it."""
    columnar, _ = encoders(schema, "orders", secret)
    batch = whole_orders(pa.float64(), float)
    numbers = pa.array([2.0, None, 5.5])
    batch = batch.set_column(batch.schema.get_field_index("store_number"), "store_number", numbers)
    (error,) = columnar.encode(batch).refused.values()
    assert (error.reason, error.detail) == (
        "bad_key",
        "store_number: expected an integer, found a number with a fraction",
    )


def test_private_numbers_have_one_hash(schema: Schema, secret: bytes) -> None:
    """A private key is the same card as an integer, as a whole float or decimal, and as its text; a null stays null."""
    payments, _ = encoders(schema, "payments", secret)
    times = pa.array([AT] * 2, pa.timestamp("us"))
    events = [
        payments.encode(
            pa.RecordBatch.from_pydict({"payment_id": [1, 2], "paid_at": times, "reported_at": times, "card": cards})
        ).events
        for cards in (
            pa.array(["4111", None]),
            pa.array([4111, None]),
            pa.array([4111.0, float("nan")]),
            pa.array([Decimal(4111), None], pa.decimal128(38, 0)),
        )
    ]
    assert events[1:] == events[:1] * 3


@pytest.mark.parametrize(
    "kind", [pa.decimal128(38, 10), pa.decimal128(9, 2), pa.decimal256(60, 5), pa.decimal128(6, -2)], ids=str
)
def test_a_decimal_is_the_double_nearest_to_it(schema: Schema, secret: bytes, kind: pa.DataType) -> None:
    """As if it were read from its text: no neighbor of it, whatever its digits and scale."""
    columnar, _ = encoders(schema, "orders", secret)
    random = np.random.default_rng(7)
    digits = min(kind.precision, 18)
    with localcontext(prec=80):
        amounts = [Decimal(n).scaleb(-kind.scale) for n in random.integers(-(10**digits) + 1, 10**digits, 500).tolist()]
    times = pa.array([AT] * 501, pa.timestamp("us"))
    orders_of = {"order_id": pa.array(range(501)), "ordered_at": times, "amount": pa.array([*amounts, None], kind)}
    encoded = columnar.encode(pa.RecordBatch.from_pydict(orders_of))
    assert encoded.refused == {}
    cells = [list(row_event_pb2.RowEvent.FromString(event).cells) for event in encoded.events]
    assert [cell.number for (cell,) in cells[:500]] == [float(amount) for amount in amounts]
    assert cells[500] == []


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

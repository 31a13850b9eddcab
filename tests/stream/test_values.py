from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from protos.nowgraph.v1 import row_event_pb2
from stream.values import RowError, TimeUs, cell_encoder, key_part, kind_name, parse_time_us
from temporal_graph.schema import Column, ColumnKind

NOON_US = 1_704_110_400_000_000  # 2024-01-01T12:00:00Z


def encoded(column: Column, value: Any, **options: Any) -> row_event_pb2.Cell:
    """Encodes one value and reads it with the generated code."""
    event = row_event_pb2.RowEvent.FromString(cell_encoder(column, None, **options)(value))
    (cell,) = event.cells
    assert cell.column == column.name
    return cell


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-01-01T12:00:00", NOON_US),
        ("2024-01-01T12:00:00Z", NOON_US),
        ("2024-01-01 12:00:00.000001", NOON_US + 1),
        ("2024-01-01T14:00:00+02:00", NOON_US),
        ("2024-01-01", NOON_US - 12 * 3_600_000_000),
        ("1969-12-31T23:59:59.999999Z", -1),
        (1_704_110_400, NOON_US),
        (1_704_110_400_000, NOON_US),
        (1_704_110_400_000_001, NOON_US + 1),
        (-1, -1_000_000),
        (TimeUs(5), 5),
        (datetime(2024, 1, 1, 12, tzinfo=UTC), NOON_US),
        (date(2024, 1, 1), NOON_US - 12 * 3_600_000_000),
    ],
)
def test_times_are_exact_microseconds_in_utc(value: Any, expected: int) -> None:
    """ISO-8601 (UTC where it names no zone), dates and epoch integers of any unit give exact microseconds."""
    assert parse_time_us(value, "at") == expected


@pytest.mark.parametrize("value", [1704110400.5, True, "yesterday", "", [], {}, 2**70, -(2**63), "1704110400"])
def test_what_is_no_time_is_refused(value: Any) -> None:
    """Floats, booleans, free text and what does not fit int64 are no times; the refusal names the column only."""
    with pytest.raises(RowError) as caught:
        parse_time_us(value, "at")
    assert caught.value.reason == "bad_time"
    assert caught.value.detail.startswith("at: ")
    assert "1704110400" not in caught.value.detail


def test_the_unit_of_an_epoch_time_changes_at_its_limits() -> None:
    """One below the limit is seconds (or milliseconds), the limit itself is the finer unit."""
    assert parse_time_us(10**11 - 1, "at") == (10**11 - 1) * 1_000_000
    assert parse_time_us(10**11, "at") == 10**11 * 1_000
    assert parse_time_us(10**14 - 1, "at") == (10**14 - 1) * 1_000
    assert parse_time_us(10**14, "at") == 10**14


@pytest.mark.parametrize(
    ("kind", "value", "field", "expected"),
    [
        (ColumnKind.NUMERICAL, 1.5, "number", 1.5),
        (ColumnKind.NUMERICAL, -3, "number", -3.0),
        (ColumnKind.CATEGORICAL, "GOLD", "text", "GOLD"),
        (ColumnKind.CATEGORICAL, 7, "text", "7"),
        (ColumnKind.CATEGORICAL, -7.0, "text", "-7"),
        (ColumnKind.TEXT, "grüße", "text", "grüße"),
        (ColumnKind.BOOLEAN, True, "boolean", True),
        (ColumnKind.BOOLEAN, 0, "boolean", False),
        (ColumnKind.BOOLEAN, 1.0, "boolean", True),
        (ColumnKind.TIMESTAMP, "2024-01-01T12:00:00", "timestamp_us", NOON_US),
    ],
)
def test_values_become_cells_of_their_kind(kind: ColumnKind, value: Any, field: str, expected: object) -> None:
    """Each kind takes its values and what the module lists as exact, and the generated code reads them back."""
    cell = encoded(Column("c", kind), value)
    assert cell.WhichOneof("value") == field
    assert getattr(cell, field) == expected


def test_lists_become_cells_of_their_kind() -> None:
    """Multicategorical cells keep their elements, embeddings their float32 components; empty lists are kept."""
    assert list(encoded(Column("c", ColumnKind.MULTICATEGORICAL), ["b", "a", 3]).texts.values) == ["b", "a", "3"]
    assert encoded(Column("c", ColumnKind.MULTICATEGORICAL), []).WhichOneof("value") == "texts"
    assert list(encoded(Column("c", ColumnKind.EMBEDDING, dim=2), [0.5, 2]).vector.values) == [0.5, 2.0]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (Column("c", ColumnKind.NUMERICAL), "1.5", "number_as_string"),
        (Column("c", ColumnKind.NUMERICAL), True, "bad_number"),
        (Column("c", ColumnKind.NUMERICAL), float("nan"), "not_finite"),
        (Column("c", ColumnKind.NUMERICAL), float("-inf"), "not_finite"),
        (Column("c", ColumnKind.NUMERICAL), 10**400, "not_finite"),
        (Column("c", ColumnKind.BOOLEAN), 2, "bad_boolean"),
        (Column("c", ColumnKind.BOOLEAN), "true", "bad_boolean"),
        (Column("c", ColumnKind.BOOLEAN), 0.5, "bad_boolean"),
        (Column("c", ColumnKind.BOOLEAN), 2.0, "bad_boolean"),
        (Column("c", ColumnKind.CATEGORICAL), 1.5, "bad_text"),
        (Column("c", ColumnKind.CATEGORICAL), float("inf"), "bad_text"),
        (Column("c", ColumnKind.TEXT), 1.0, "bad_text"),
        (Column("c", ColumnKind.CATEGORICAL), True, "bad_text"),
        (Column("c", ColumnKind.TEXT), 5, "bad_text"),
        (Column("c", ColumnKind.TEXT), "\ud800", "bad_text"),
        (Column("c", ColumnKind.MULTICATEGORICAL), "a,b", "bad_texts"),
        (Column("c", ColumnKind.MULTICATEGORICAL), ["a", None], "bad_text"),
        (Column("c", ColumnKind.EMBEDDING, dim=2), "ab", "bad_vector"),
        (Column("c", ColumnKind.EMBEDDING, dim=2), [1.0], "wrong_dim"),
        (Column("c", ColumnKind.EMBEDDING, dim=2), [1.0, "2"], "bad_vector"),
        (Column("c", ColumnKind.EMBEDDING, dim=2), [1.0, 1e39], "bad_vector"),
    ],
)
def test_values_of_another_kind_are_refused(column: Column, value: Any, reason: str) -> None:
    """Nothing is guessed: what is not of the column's kind is refused with a reason that names column and kind."""
    with pytest.raises(RowError) as caught:
        cell_encoder(column, None)(value)
    assert caught.value.reason == reason
    assert caught.value.detail.startswith("c: ")


def test_decimal_texts_are_numbers_only_where_they_are_allowed() -> None:
    """A source that writes exact decimals as text may do so; a text that is none is refused there too."""
    column = Column("c", ColumnKind.NUMERICAL)
    assert encoded(column, "12.34", lenient_numbers=True).number == 12.34
    for wrong, reason in (("12,34", "bad_number"), ("nan", "not_finite")):
        with pytest.raises(RowError) as caught:
            cell_encoder(column, None, lenient_numbers=True)(wrong)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("value", "integer"),
    [("7", True), (7.5, True), (2.0**53, True), (True, True), (2**63, True), (7, False), (7.0, False)],
)
def test_keys_of_another_type_are_refused(value: Any, integer: bool) -> None:
    """Texts stay texts and numbers numbers: two writers of one key would otherwise make two rows."""
    with pytest.raises(RowError) as caught:
        key_part(value, "k", integer=integer, hashed=None)
    assert caught.value.reason == "bad_key"


@pytest.mark.parametrize("value", [7, -7, 0, 2**53 - 1])
def test_a_whole_float_is_the_integer_key_it_stands_for(value: int) -> None:
    """Up to the largest that no other integer was rounded to; a private key has one hash however it is written."""
    assert key_part(float(value), "k", integer=True, hashed=None) == key_part(value, "k", integer=True, hashed=None)
    assert key_part(float(value), "k", integer=False, hashed=str) == key_part(value, "k", integer=False, hashed=str)


def test_private_keys_are_hashed_whatever_their_type() -> None:
    """An integer and its decimal text are the same private key; lists are none."""

    def hashed(value: str | int) -> str:
        return f"h{value}"

    assert key_part(7, "k", integer=False, hashed=hashed) == key_part("7", "k", integer=False, hashed=hashed)
    with pytest.raises(RowError):
        key_part([7], "k", integer=False, hashed=hashed)


def test_kinds_are_named_as_json_names_them() -> None:
    """Refusals speak the sender's language."""
    assert [kind_name(v) for v in (None, True, 1, 1.0, "", [], {})] == [
        "null", "a boolean", "an integer", "a number", "a string", "an array", "an object",
    ]  # fmt: skip

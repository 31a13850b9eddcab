from __future__ import annotations

from typing import Any

import pytest

from protos.nowgraph.v1 import row_event_pb2
from stream.privacy import Privacy
from stream.row_encoder import RowEncoder
from stream.values import RowError
from temporal_graph.schema import Schema, Source

AT = "2024-01-01T12:00:00Z"
AT_US = 1_704_110_400_000_000
ORDER: dict[str, Any] = {"order_id": 1, "ordered_at": AT, "customer_id": 5, "amount": 9.5}


def encoder(schema: Schema, topic: str, secret: bytes) -> RowEncoder:
    """An encoder for the source of this topic."""
    (source,) = (source for source in schema.sources if source.topic == topic)
    return RowEncoder(schema, source, Privacy(schema, secret))


def event(schema: Schema, topic: str, row: dict[str, Any], secret: bytes) -> row_event_pb2.RowEvent:
    """Encodes a row and reads it with the generated code, which must write the same bytes again."""
    encoded, _ = encoder(schema, topic, secret).encode(row)
    message = row_event_pb2.RowEvent.FromString(encoded)
    assert message.SerializeToString() == encoded
    return message


def cells(message: row_event_pb2.RowEvent) -> dict[str, object]:
    """The cells by column; an explicit null is None."""
    found = {}
    for cell in message.cells:
        kind = cell.WhichOneof("value")
        found[cell.column] = None if kind == "null" else getattr(cell, str(kind))
    return found


def test_a_whole_row_becomes_an_insert(schema: Schema, secret: bytes) -> None:
    """Key, time and the cells that are there; absent and null columns are left out, as an insert's are null."""
    message = event(schema, "orders", {**ORDER, "status": None}, secret)
    assert message.table == "orders"
    assert message.operation == row_event_pb2.OPERATION_INSERT
    assert [part.integer for part in message.key.parts] == [1]
    assert message.event_time_us == AT_US
    assert not message.HasField("known_time_us")
    assert cells(message) == {"amount": 9.5, "customer_id": 5}


def test_a_patch_says_only_what_it_says(schema: Schema, secret: bytes) -> None:
    """In an upsert an absent column is unchanged and an explicit null clears; its clocks are the source's columns."""
    message = event(schema, "order_changes", {"order_id": 1, "changed_at": AT, "status": None, "paid": True}, secret)
    assert message.operation == row_event_pb2.OPERATION_UPSERT
    assert (message.event_time_us, message.known_time_us) == (AT_US, AT_US)
    assert cells(message) == {"status": None, "paid": True}


def test_a_deletion_has_no_cells(schema: Schema, secret: bytes) -> None:
    """A delete is its key and its time; whatever else the record carries is not looked at."""
    message = event(schema, "cancelled", {"order_id": 1, "changed_at": AT, "amount": "wrong"}, secret)
    assert message.operation == row_event_pb2.OPERATION_DELETE
    assert cells(message) == {}


def test_composite_links(schema: Schema, secret: bytes) -> None:
    """A composite foreign key is one cell; with a null part it points nowhere; a patch gives it whole or not at all."""
    whole = event(schema, "orders", {**ORDER, "store_region": "north", "store_number": 4}, secret)
    (link,) = (cell for cell in whole.cells if cell.column == "store_region+store_number")
    assert [part.WhichOneof("part") for part in link.key.parts] == ["text", "integer"]
    assert (link.key.parts[0].text, link.key.parts[1].integer) == ("north", 4)
    half = event(schema, "orders", {**ORDER, "store_region": "north", "store_number": None}, secret)
    assert "store_region+store_number" not in cells(half)
    patch = {"order_id": 1, "changed_at": AT}
    cleared = event(schema, "order_changes", {**patch, "store_region": None, "store_number": None}, secret)
    assert cells(cleared) == {"store_region+store_number": None}
    with pytest.raises(RowError, match="partial_link"):
        event(schema, "order_changes", {**patch, "store_region": "north"}, secret)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"order_id": None}, "missing_key"),
        ({"order_id": "1"}, "bad_key"),
        ({"ordered_at": None}, "missing_time"),
        ({"ordered_at": 1.5}, "bad_time"),
        ({"customer_id": "5"}, "bad_key"),
        ({"amount": "9.5"}, "number_as_string"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(schema: Schema, secret: bytes, change: dict[str, Any], reason: str) -> None:
    """A missing or wrong key, time, link or cell refuses the whole row with its reason."""
    with pytest.raises(RowError) as caught:
        event(schema, "orders", {**ORDER, **change}, secret)
    assert caught.value.reason == reason


def test_the_known_time_comes_from_where_the_schema_says(schema: Schema, secret: bytes) -> None:
    """A column gives it and must be there; the broker's is left for the graph to fill in."""
    paid = event(schema, "payments", {"payment_id": 1, "paid_at": AT, "reported_at": AT, "amount": 1}, secret)
    assert paid.known_time_us == AT_US
    with pytest.raises(RowError, match="reported_at"):
        event(schema, "payments", {"payment_id": 1, "paid_at": AT}, secret)
    assert not event(schema, "visits", {"at": AT, "page": "home"}, secret).HasField("known_time_us")


def test_a_table_without_key_has_none(schema: Schema, secret: bytes) -> None:
    """The position in the log will be the key, so the event carries none."""
    assert not event(schema, "visits", {"at": AT}, secret).HasField("key")


def test_private_values_are_hashed_the_same_in_keys_links_and_columns(schema: Schema, secret: bytes) -> None:
    """A private key meets the links to it; no private value remains in any event."""
    privacy = Privacy(schema, secret)
    card = RowEncoder(schema, Source("cards", "cards", "json"), privacy)
    message = row_event_pb2.RowEvent.FromString(card.encode({"card": "4111", "kinds": ["visa", "gold"]})[0])
    payment = event(schema, "payments", {"payment_id": 1, "paid_at": AT, "reported_at": AT, "card": "4111"}, secret)
    assert message.key.parts[0].text == cells(payment)["card"] == privacy.hash("4111")
    assert list(message.cells[0].texts.values) == [privacy.hash("visa"), privacy.hash("gold")]
    assert b"4111" not in message.SerializeToString() + payment.SerializeToString()


def test_times_that_are_given_take_the_place_of_columns(schema: Schema, secret: bytes) -> None:
    """Sources that know the clocks from elsewhere (a commit) pass them in."""
    encoded, event_time_us = encoder(schema, "orders", secret).encode(
        {"order_id": 1}, operation="delete", event_time_us=7, known_time_us=8
    )
    message = row_event_pb2.RowEvent.FromString(encoded)
    assert (message.event_time_us, message.known_time_us, event_time_us) == (7, 8, 7)

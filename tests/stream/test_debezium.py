from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from protos.nowgraph.v1 import row_event_pb2
from stream.debezium import DebeziumDecoder
from stream.privacy import Privacy
from stream.values import RowError
from temporal_graph.schema import Schema

EXAMPLES = Path(__file__).parent / "debezium"
ORDERED_US = 1_704_110_400_000_001  # the time column of the PostgreSQL examples
ORDERED_MS_US = 1_704_110_400_000_000  # of the MySQL ones, which have milliseconds
COMMIT_US = 1_704_196_800_123_456
COMMIT_MS_US = 1_704_196_800_123_000
DUE_US = 19_731 * 86_400_000_000
INSERT, UPSERT, DELETE = (
    row_event_pb2.OPERATION_INSERT,
    row_event_pb2.OPERATION_UPSERT,
    row_event_pb2.OPERATION_DELETE,
)


@pytest.fixture
def orders(schema: Schema, secret: bytes) -> DebeziumDecoder:
    """A decoder for the orders table."""
    return decoder(schema, secret, "shop.public.orders")


def decoder(schema: Schema, secret: bytes, topic: str) -> DebeziumDecoder:
    """A decoder for the source of this topic."""
    (source,) = (source for source in schema.sources if source.topic == topic)
    return DebeziumDecoder(schema, source, Privacy(schema, secret))


def example(name: str) -> dict[str, Any]:
    """One of the messages beside this file: Debezium's own form, for PostgreSQL 2.7 and MySQL 2.4."""
    document: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text())
    return document


def decode(one: DebeziumDecoder, document: str | dict[str, Any]) -> list[row_event_pb2.RowEvent]:
    """Decodes an example (by name) or a document."""
    document = example(document) if isinstance(document, str) else document
    return [row_event_pb2.RowEvent.FromString(event) for event, _ in one.decode(json.dumps(document).encode())]


def cells(message: row_event_pb2.RowEvent) -> dict[str, object]:
    """The cells by column; an explicit null is None, a composite key its parts."""
    found: dict[str, object] = {}
    for cell in message.cells:
        kind = str(cell.WhichOneof("value"))
        if kind == "key":
            found[cell.column] = tuple(part.text or part.integer for part in cell.key.parts)
        else:
            found[cell.column] = None if kind == "null" else getattr(cell, kind)
    return found


def test_a_created_row_of_postgresql(orders: DebeziumDecoder) -> None:
    """An insert at its time column's time, known at its commit; types of the schema block are exact."""
    (event,) = decode(orders, "postgresql_create")
    assert (event.operation, event.event_time_us, event.known_time_us) == (INSERT, ORDERED_US, COMMIT_US)
    assert [part.integer for part in event.key.parts] == [1004]
    assert cells(event) == {
        "amount": 12.34,
        "status": "NEW",
        "note": "leave at the door",
        "due": DUE_US,
        "customer_id": 42,
        "store_region+store_number": ("north", 4),
    }
    assert orders.ignored_fields == 1


def test_a_created_row_of_mysql_without_schema_block(orders: DebeziumDecoder) -> None:
    """Without the schema block times are read by their size, decimals as text, booleans as 0 and 1."""
    (event,) = decode(orders, "mysql_create")
    assert (event.operation, event.event_time_us, event.known_time_us) == (INSERT, ORDERED_MS_US, COMMIT_MS_US)
    assert cells(event)["amount"] == 12.34
    assert cells(event)["due"] == DUE_US
    assert cells(event)["paid"] is False


@pytest.mark.parametrize(
    ("name", "event_time_us"), [("postgresql_snapshot", ORDERED_US), ("mysql_snapshot", ORDERED_MS_US)]
)
def test_the_initial_snapshot_is_a_backfill(orders: DebeziumDecoder, name: str, event_time_us: int) -> None:
    """A row that the connector found is known when it happened: nobody recorded when it became known."""
    (event,) = decode(orders, name)
    assert (event.operation, event.event_time_us, event.known_time_us) == (INSERT, event_time_us, event_time_us)


def test_a_created_row_of_an_old_snapshot_is_a_backfill_too(orders: DebeziumDecoder) -> None:
    """The source's snapshot flag counts where the operation is c, and its text false does not."""
    document = example("mysql_create")
    for flag, known_us in (("true", ORDERED_MS_US), ("last", ORDERED_MS_US), ("false", COMMIT_MS_US)):
        document["source"]["snapshot"] = flag
        assert decode(orders, document)[0].known_time_us == known_us


def test_an_update_without_the_old_row_says_all_it_knows(orders: DebeziumDecoder) -> None:
    """With PostgreSQL's default identity all cells come; a large value that was not touched is left as it was."""
    (event,) = decode(orders, "postgresql_update_default_identity")
    assert (event.operation, event.event_time_us, event.known_time_us) == (UPSERT, COMMIT_US + 1, COMMIT_US + 1)
    assert "note" not in cells(event)
    assert cells(event)["status"] == "PAID"
    assert cells(event)["amount"] == 12.34


def test_an_update_with_the_old_row_says_what_changed(orders: DebeziumDecoder) -> None:
    """With the full identity only changed cells come, a cleared one as null."""
    (event,) = decode(orders, "postgresql_update_full_identity")
    assert cells(event) == {"status": "PAID", "paid": True, "due": None}


def test_a_changed_part_of_a_link_brings_the_whole_link(orders: DebeziumDecoder) -> None:
    """A composite foreign key is one cell: when one of its columns changes, all of it comes."""
    (event,) = decode(orders, "mysql_update")
    assert cells(event) == {"paid": True, "store_region+store_number": ("north", 5)}


def test_an_update_that_changes_nothing_we_keep_is_no_event(orders: DebeziumDecoder) -> None:
    """A change of a column that the schema does not have says nothing about the graph."""
    document = example("mysql_update")
    document["after"] = {**document["before"], "internal_code": "y"}
    assert decode(orders, document) == []


def test_a_changed_key_deletes_the_old_row_and_inserts_the_new(orders: DebeziumDecoder) -> None:
    """Both at the commit; connectors that send a delete and a create for it say the same in two messages."""
    old, new = decode(orders, "mysql_update_of_the_key")
    assert (old.operation, [part.integer for part in old.key.parts]) == (DELETE, [1004])
    assert (new.operation, [part.integer for part in new.key.parts]) == (INSERT, [1005])
    assert old.event_time_us == new.event_time_us == COMMIT_MS_US
    assert cells(new)["amount"] == 12.34


def test_both_halves_of_a_changed_key_are_known_together(schema: Schema, secret: bytes) -> None:
    """When the new row says: the graph judges whether they are late alike, and takes both or none."""
    row = {"paid_at": 1_700_000_000, "card": "4000"}
    before, after = (row | {"payment_id": number, "reported_at": 1_700_000_000 + number} for number in (1, 2))
    document = {"op": "u", "before": before, "after": after, "source": {"ts_ms": 1_700_000_009_000}}
    old, new = decode(decoder(schema, secret, "shop.public.payments"), document)
    assert (old.operation, new.operation) == (DELETE, INSERT)
    assert old.known_time_us == new.known_time_us == 1_700_000_002_000_000


@pytest.mark.parametrize(("name", "commit_us"), [("postgresql_delete", COMMIT_US + 2), ("mysql_delete", COMMIT_MS_US)])
def test_a_deleted_row(orders: DebeziumDecoder, name: str, commit_us: int) -> None:
    """A delete at its commit, whatever the time column of the old row says."""
    (event,) = decode(orders, name)
    assert (event.operation, event.event_time_us, event.known_time_us) == (DELETE, commit_us, commit_us)
    assert cells(event) == {}


def test_tables_without_time(schema: Schema, secret: bytes) -> None:
    """The snapshot's rows have no time and are always visible; a change has the time of its commit."""
    customers = decoder(schema, secret, "shop.public.customers")
    (found,) = decode(customers, "mysql_customer_snapshot")
    assert not found.HasField("event_time_us")
    assert cells(found)["joined"] == 1_701_417_600_000_000
    assert cells(found)["email"] == Privacy(schema, secret).hash("sally@example.com")
    (changed,) = decode(customers, "mysql_customer_update")
    assert (changed.event_time_us, cells(changed)) == (COMMIT_MS_US, {"city": "Bonn"})


def test_the_known_time_follows_the_schema(schema: Schema, secret: bytes) -> None:
    """A known-time column beats the commit; a table known by the broker leaves it to the graph."""
    document = example("mysql_create")
    document["after"] = {"payment_id": 1, "paid_at": 1_704_110_400_000, "reported_at": 1_704_110_500_000, "card": "4"}
    (payment,) = decode(decoder(schema, secret, "shop.public.payments"), document)
    assert payment.known_time_us == 1_704_110_500_000_000
    document["after"] = {"at": 1_704_110_400_000, "page": "home"}
    (visit,) = decode(decoder(schema, secret, "shop.public.visits"), document)
    assert not visit.HasField("known_time_us")


def test_messages_of_no_table_say_nothing(orders: DebeziumDecoder) -> None:
    """Logical decoding messages are passed over."""
    assert decode(orders, "postgresql_message") == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"op": "x"}, "not_a_change_event"),
        ({"op": None}, "not_a_change_event"),
        ({"op": "c", "after": None}, "not_a_change_event"),
        ({"op": "c", "after": [1]}, "not_a_change_event"),
        ({"op": "u", "source": {}, "ts_ms": None}, "missing_time"),
    ],
)
def test_broken_envelopes_are_refused(orders: DebeziumDecoder, change: dict[str, Any], reason: str) -> None:
    """What is no complete change event is refused with a reason."""
    with pytest.raises(RowError) as caught:
        decode(orders, {**example("mysql_update"), **change})
    assert caught.value.reason == reason


def test_a_truncate_and_a_flat_row_are_refused(orders: DebeziumDecoder) -> None:
    """A truncate is no event of a row; an unwrapped row is no change event: both say what to do instead."""
    with pytest.raises(RowError, match="delete rows instead"):
        decode(orders, "postgresql_truncate")
    with pytest.raises(RowError, match="no unwrapping transform"):
        decode(orders, example("mysql_create")["after"])


@pytest.mark.parametrize(
    ("semantic", "value", "expected_us"),
    [
        ("io.debezium.time.Timestamp", 1_704_110_400_001, 1_704_110_400_001_000),
        ("io.debezium.time.MicroTimestamp", 3, 3),
        ("io.debezium.time.NanoTimestamp", -1, -1),
        ("io.debezium.time.ZonedTimestamp", "2024-01-01T14:00:00.5+02:00", 1_704_110_400_500_000),
        ("io.debezium.time.Date", -1, -86_400_000_000),
        ("org.apache.kafka.connect.data.Timestamp", 5, 5_000),
        ("org.apache.kafka.connect.data.Date", 1, 86_400_000_000),
    ],
)
def test_times_of_every_semantic_type(orders: DebeziumDecoder, semantic: str, value: object, expected_us: int) -> None:
    """The schema block decides, not the size of the number: small and negative times are exact too."""
    document = example("postgresql_create")
    document["payload"]["after"]["due"] = value
    for side in document["schema"]["fields"][:2]:
        for field in side["fields"]:
            if field["field"] == "due":
                field["name"] = semantic
    (event,) = decode(orders, document)
    assert cells(event)["due"] == expected_us


@pytest.mark.parametrize(
    ("semantic", "value", "expected"),
    [
        ("org.apache.kafka.connect.data.Decimal", "/w==", -0.01),
        ("org.apache.kafka.connect.data.Decimal", "not base64", None),
        ("io.debezium.data.VariableScaleDecimal", {"scale": 1, "value": "ew=="}, 12.3),
        ("io.debezium.data.VariableScaleDecimal", "ew==", None),
    ],
)
def test_decimals(orders: DebeziumDecoder, semantic: str, value: object, expected: float | None) -> None:
    """Decimals as bytes are the nearest double of their decimal text; what is none is refused."""
    document = example("postgresql_create")
    document["payload"]["after"]["amount"] = value
    for side in document["schema"]["fields"][:2]:
        for field in side["fields"]:
            if field["field"] == "amount":
                field["name"] = semantic
    if expected is None:
        with pytest.raises(RowError, match="bad_number"):
            decode(orders, document)
    else:
        assert cells(decode(orders, document)[0])["amount"] == expected


@pytest.mark.parametrize("scale", ["--5", "", "-", "9" * 5_000, 2, None])
def test_a_scale_that_is_none_is_refused(orders: DebeziumDecoder, scale: object) -> None:
    """A schema block may say anything; it never stops the updater."""
    document = example("postgresql_create")
    document["payload"]["after"]["amount"] = "ew=="
    for side in document["schema"]["fields"][:2]:
        for field in side["fields"]:
            if field["field"] == "amount":
                field |= {"name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": scale}}
    with pytest.raises(RowError, match="no scale"):
        decode(orders, document)

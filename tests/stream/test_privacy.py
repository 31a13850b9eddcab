from __future__ import annotations

import logging
from hashlib import blake2b

import pytest

from protos.nowgraph.v1 import row_event_pb2
from stream.errors import ConfigurationError
from stream.privacy import HASHED_METADATA, Privacy, is_hashed, is_private, privacy_for
from stream.settings import StreamSettings
from temporal_graph.schema import Schema, parse_schema


def test_the_hash_is_keyed_blake2b(schema: Schema, secret: bytes) -> None:
    """32 hex digits of blake2b under the secret: another secret gives another hash, the same one always the same."""
    expected = blake2b(b"4111", key=secret, digest_size=16).hexdigest()
    assert Privacy(schema, secret).hash("4111") == Privacy(schema, secret).hash(4111) == expected
    assert Privacy(schema, secret + b"!").hash("4111") != expected


def test_a_long_secret_counts_in_full(schema: Schema) -> None:
    """blake2b takes 64 bytes of key; two secrets that differ after those still give different hashes."""
    one, other = Privacy(schema, b"s" * 70 + b"1"), Privacy(schema, b"s" * 70 + b"2")
    assert one.hash("x") != other.hash("x")


def test_a_private_schema_without_secret_is_refused(schema: Schema, secret: bytes) -> None:
    """The error names the tables and the setting; a secret that is too short to protect is refused too."""
    with pytest.raises(ConfigurationError, match=r"customers, cards, payments .*NOWGRAPH_PRIVACY_SECRET"):
        privacy_for(schema, None)
    with pytest.raises(ConfigurationError, match="at least 16 bytes"):
        privacy_for(schema, b"short")
    assert privacy_for(schema, secret) is not None


def test_a_schema_without_private_values_needs_no_secret() -> None:
    """Nothing private, nothing to configure."""
    open_schema = parse_schema("version: 1\nname: open\ntables: {things: {primary_key: {id: integer}}}\n")
    assert privacy_for(open_schema, None) is None
    assert not is_private(open_schema.table("things"))


def test_events_are_protected_in_every_private_place(schema: Schema, secret: bytes) -> None:
    """Private keys, links and columns become hashes; what is public stays as it was."""
    privacy = Privacy(schema, secret)
    event = row_event_pb2.RowEvent(table="customers", operation=row_event_pb2.OPERATION_INSERT)
    event.key.parts.add(integer=9)
    event.cells.add(column="email", text="a@b.example")
    event.cells.add(column="city", text="Ulm")
    assert privacy.protect(event)
    assert [cell.text for cell in event.cells] == [privacy.hash("a@b.example"), "Ulm"]
    assert event.key.parts[0].integer == 9
    payment = row_event_pb2.RowEvent(table="payments")
    payment.cells.add(column="card", text="4111")
    payment.cells.add(column="card", integer=4111)
    assert privacy.protect(payment)
    assert {cell.text for cell in payment.cells} == {privacy.hash("4111")}


def test_nulls_and_public_tables_are_left_alone(schema: Schema, secret: bytes) -> None:
    """A null says nothing private; a table without private values is not touched at all."""
    privacy = Privacy(schema, secret)
    event = row_event_pb2.RowEvent(table="customers")
    event.cells.add(column="email", null=0)  # type: ignore[arg-type]
    privacy.protect(event)
    assert event.cells[0].WhichOneof("value") == "null"
    order = row_event_pb2.RowEvent(table="orders")
    order.cells.add(column="note", text="hello")
    assert not privacy.protect(order)
    assert order.cells[0].text == "hello"


def test_private_values_of_a_wrong_kind_are_hashed_all_the_same(schema: Schema, secret: bytes) -> None:
    """Even a value that will be refused later leaves no private byte in the event."""
    privacy = Privacy(schema, secret)
    event = row_event_pb2.RowEvent(table="customers")
    event.cells.add(column="email").texts.values.append("a@b.example")
    event.cells.add(column="email", number=123456789.0)
    event.cells.add(column="email").key.parts.add(text="a@b.example")
    privacy.protect(event)
    assert b"a@b" not in event.SerializeToString()
    assert event.cells[1].WhichOneof("value") == "text"


def test_the_secret_is_never_shown(schema: Schema, caplog: pytest.LogCaptureFixture) -> None:
    """Neither repr nor a log line of what holds the secret contains it."""
    settings = StreamSettings(privacy_secret="0123456789abcdef-hidden")
    privacy = privacy_for(schema, settings.secret_bytes())
    logging.getLogger("test").warning("%r %s %r", privacy, privacy, settings)
    assert "hidden" not in caplog.text
    assert settings.secret_bytes() == b"0123456789abcdef-hidden"


def test_only_the_whole_mark_says_that_a_file_is_hashed() -> None:
    """Other metadata beside it does not matter; none, or another value, does not count."""
    assert is_hashed({**HASHED_METADATA, b"pandas": b"{}"})
    assert not is_hashed(None)
    assert not is_hashed({})
    assert not is_hashed(dict.fromkeys(HASHED_METADATA, b"no"))

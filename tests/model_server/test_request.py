from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from graph_transformer.target import Kind, Target
from model_server.errors import InvalidRequestError, UnknownTaskError
from model_server.request import RequestReader
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.privacy import Privacy
from temporal_graph.schema import FUTURE_DEFAULT_US, Schema
from temporal_graph.time_rule import ALWAYS_US

NOW_US = 1_700_000_000_000_000
FUTURE_US = 5 * 60 * 1_000_000
Payment = Callable[[], service_pb2.ScoreRequest]


def test_the_cutoff_is_one_microsecond_before_the_event(reader: RequestReader, payment: Payment) -> None:
    """A row is scored just before it happened: an event of the same microsecond is not seen."""
    asked = reader.read(payment())
    assert asked.cutoff_time_us == NOW_US - 1_000_000 - 1
    assert asked.request_id == "r1"


def test_without_an_event_time_the_servers_clock_counts(reader: RequestReader, payment: Payment) -> None:
    """No event time means now, in the cut-off and in the row that is sampled and recorded."""
    request = payment()
    request.row.ClearField("event_time_us")
    asked = reader.read(request)
    assert asked.cutoff_time_us == NOW_US - 1
    assert row_event_pb2.RowEvent.FromString(asked.event).event_time_us == NOW_US


def test_the_future_is_refused_beyond_the_tables_bound(reader: RequestReader, payment: Payment) -> None:
    """Exactly at the bound a request is answered, one microsecond beyond it names the field."""
    request = payment()
    request.row.event_time_us = NOW_US + FUTURE_US
    reader.read(request)
    request.row.event_time_us += 1
    with pytest.raises(InvalidRequestError) as error:
        reader.read(request)
    assert error.value.field == "row.event_time_us"


def test_what_the_wire_has_beside_the_message_goes_no_further(reader: RequestReader, payment: Payment) -> None:
    """A field of the wrong wire type, or of a newer client, is kept by protobuf: the graph would refuse the one, and of
    either nobody has looked for private values.
    """
    clean = payment()
    strange = payment()
    strange.row.MergeFromString(b"\x2a\x03web" + b"\xfa\x7f\x044000")  # a time as text, and field 2047
    strange.row.cells[0].MergeFromString(b"\x1a\x044000")
    assert reader.read(strange).event == reader.read(clean).event
    asked = service_pb2.IngestRequest(event=strange.row)
    asked.event.operation = row_event_pb2.OPERATION_INSERT
    assert b"\x044000" not in reader.read_event(asked).SerializeToString()


def test_private_parts_are_hashed_and_nothing_else(reader: RequestReader, payment: Payment, privacy: Privacy) -> None:
    """The sampler and the audit trail get hashes of private cells and links, and the other cells as they came."""
    asked = reader.read(payment())
    cells = {cell.column: cell for cell in row_event_pb2.RowEvent.FromString(asked.event).cells}
    assert cells["customer_id"].text == privacy.hash(42)
    assert cells["card_number"].text == privacy.hash("4000-1234")
    assert cells["terminal_id"].integer == 3
    assert b"4000-1234" not in asked.event


def test_the_callers_request_is_not_changed(reader: RequestReader, payment: Payment) -> None:
    """Hashing works on a copy: the request itself can be read again with the same result."""
    request = payment()
    first = reader.read(request)
    assert request == payment()
    assert reader.read(request).event == first.event


def test_a_row_to_score_is_not_known_yet(reader: RequestReader, payment: Payment) -> None:
    """A known time in the request is dropped, and any of insert, upsert or nothing means the same."""
    request = payment()
    plain = reader.read(request).event
    request.row.known_time_us = NOW_US
    for operation in (row_event_pb2.OPERATION_UNSPECIFIED, row_event_pb2.OPERATION_UPSERT):
        request.row.operation = operation
        assert reader.read(request).event == plain


def test_the_outcome_cannot_be_told(reader: RequestReader, payment: Payment) -> None:
    """A row that brings the answer is refused; an explicit null, or nothing, is right."""
    request = payment()
    cell = request.row.cells.add(column="tx_fraud", null=row_event_pb2.NULL_VALUE_UNSPECIFIED)
    reader.read(request)
    cell.boolean = True
    with pytest.raises(InvalidRequestError) as error:
        reader.read(request)
    assert error.value.field == "row.cells[11].boolean"


SPOILED: dict[str, tuple[str, Callable[[service_pb2.ScoreRequest], object]]] = {
    "no row": ("row", lambda request: request.ClearField("row")),
    "another table": ("row.table", lambda request: setattr(request.row, "table", "customers")),
    "no table": ("row.table", lambda request: request.row.ClearField("table")),
    "a deletion": ("row.operation", lambda request: setattr(request.row, "operation", row_event_pb2.OPERATION_DELETE)),
    "a long request id": ("request_id", lambda request: setattr(request, "request_id", "é" * 33)),
    "a token of no topic": ("freshness_token.topic", lambda request: request.freshness_token.SetInParent()),
    "a token of no partition": (
        "freshness_token.partition",
        lambda request: request.freshness_token.MergeFrom(service_pb2.FreshnessToken(topic="t", partition=-1)),
    ),
    "a token of no offset": (
        "freshness_token.offset",
        lambda request: request.freshness_token.MergeFrom(service_pb2.FreshnessToken(topic="t", offset=-1)),
    ),
    "a wrong cell": ("row.cells[0].text", lambda request: setattr(request.row.cells[0], "text", "much")),
}


@pytest.mark.parametrize("name", SPOILED)
def test_the_wrong_field_is_named(name: str, reader: RequestReader, payment: Payment) -> None:
    """Each way to spoil a valid request is refused with the path of the field that is wrong."""
    path, spoil = SPOILED[name]
    request = payment()
    spoil(request)
    with pytest.raises(InvalidRequestError) as error:
        reader.read(request)
    assert error.value.field == path


def test_another_task_or_tenant_is_not_found(reader: RequestReader, payment: Payment) -> None:
    """The task may be left out or named; one that is not served here is its own kind of error."""
    request = payment()
    request.task = ""
    reader.read(request)
    request.task = "churn"
    with pytest.raises(UnknownTaskError, match="task"):
        reader.read(request)
    request = payment()
    request.tenant = "somebody"
    with pytest.raises(UnknownTaskError, match="tenant"):
        reader.read(request)


def test_an_event_may_carry_the_outcome_and_both_clocks(reader: RequestReader, payment: Payment) -> None:
    """What is published is the whole event: outcome and known time stay, private parts are hashed."""
    event = payment().row
    event.known_time_us = NOW_US
    event.cells.add(column="tx_fraud", boolean=True)
    published = reader.read_event(service_pb2.IngestRequest(event=event))
    assert published.known_time_us == NOW_US
    assert published.cells[-1].boolean
    assert b"4000-1234" not in published.SerializeToString()


def test_an_event_of_any_table_can_be_published(reader: RequestReader) -> None:
    """Tables without time need no time; an unknown table is named."""
    event = row_event_pb2.RowEvent(table="terminals", operation=row_event_pb2.OPERATION_INSERT)
    event.key.parts.add(integer=5)
    assert reader.read_event(service_pb2.IngestRequest(event=event)) == event
    event.table = "nothing"
    with pytest.raises(InvalidRequestError, match=r"^event\.table: "):
        reader.read_event(service_pb2.IngestRequest(event=event))


@pytest.fixture
def entity_reader(schema: Schema, settings: ServerSettings, privacy: Privacy) -> RequestReader:
    """Reads requests of a task about customers, whose keys are private."""
    target = Target(Kind.REGRESSION, "customers", event_level=False)
    return RequestReader(schema, settings, task="spend", target=target, privacy=privacy, clock_us=lambda: NOW_US)


def customer(**values: Any) -> service_pb2.ScoreRequest:
    """Asks about customer 42."""
    key = row_event_pb2.Key(parts=[row_event_pb2.KeyPart(integer=42)])
    return service_pb2.ScoreRequest(row=row_event_pb2.RowEvent(table="customers", key=key, **values))


def test_an_entity_is_asked_about_as_of_the_very_time(entity_reader: RequestReader, privacy: Privacy) -> None:
    """Its cut-off is the time itself, and not one microsecond before; the key that is looked up is the hash."""
    asked = entity_reader.read(customer(event_time_us=NOW_US - 5))
    assert asked.cutoff_time_us == NOW_US - 5
    assert asked.key == privacy.hash(42)
    recorded = row_event_pb2.RowEvent.FromString(asked.event)
    assert recorded.key.parts[0].text == privacy.hash(42)
    assert (recorded.event_time_us, recorded.operation) == (NOW_US - 5, row_event_pb2.OPERATION_UNSPECIFIED)
    assert entity_reader.read(customer()).cutoff_time_us == NOW_US


ENTITIES_SPOILED: dict[str, tuple[str, Callable[[row_event_pb2.RowEvent], object]]] = {
    "cells": ("row.cells[0]", lambda row: row.cells.add(column="city", text="Ghent")),
    "another table": ("row.table", lambda row: setattr(row, "table", "transactions")),
    "no key": ("row.key.parts", lambda row: row.ClearField("key")),
    "a key of two parts": ("row.key.parts", lambda row: row.key.parts.add(integer=1)),
    "an empty part": ("row.key.parts[0]", lambda row: row.key.parts[0].ClearField("integer")),
    "a deletion": ("row.operation", lambda row: setattr(row, "operation", row_event_pb2.OPERATION_DELETE)),
    "the future": ("row.event_time_us", lambda row: setattr(row, "event_time_us", NOW_US + FUTURE_DEFAULT_US + 1)),
    "no time": ("row.event_time_us", lambda row: setattr(row, "event_time_us", ALWAYS_US)),
}


@pytest.mark.parametrize("name", ENTITIES_SPOILED)
def test_the_wrong_field_of_an_entity_is_named(name: str, entity_reader: RequestReader) -> None:
    """What would be ignored, or names nobody, is refused with the path of the field that is wrong."""
    path, spoil = ENTITIES_SPOILED[name]
    request = customer(event_time_us=NOW_US + FUTURE_DEFAULT_US)
    entity_reader.read(request)
    spoil(request.row)
    with pytest.raises(InvalidRequestError) as error:
        entity_reader.read(request)
    assert error.value.field == path


TEXT = st.text(max_size=5)
TIMES = st.one_of(*(st.integers(0, NOW_US - number) for number in range(5)), st.integers(-(2**63), 2**63 - 1))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.just(0),
    "number": st.floats(width=64),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "text": TEXT,
    "boolean": st.booleans(),
    "timestamp_us": TIMES,
    "texts": st.lists(TEXT, max_size=3).map(lambda values: row_event_pb2.TextList(values=values)),
    "vector": st.lists(st.floats(width=32), max_size=3).map(lambda values: row_event_pb2.Vector(values=values)),
}
PARTS = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(lambda value: row_event_pb2.KeyPart(integer=value)),
    TEXT.map(lambda value: row_event_pb2.KeyPart(text=value)),
    st.just(row_event_pb2.KeyPart()),
)
KEYS = st.lists(PARTS, max_size=3).map(lambda parts: row_event_pb2.Key(parts=parts))
COLUMNS = (
    *("tx_amount", "tx_fraud", "channel", "tags", "note", "seen_at", "online", "face", "card_number"),
    *("customer_id", "terminal_id", "shop_region+shop_number", "transaction_id", "nothing", ""),
)
CELLS = st.one_of(
    *(
        st.builds(
            lambda column, value, kind: row_event_pb2.Cell(column=column, **{kind: value}),
            st.sampled_from(COLUMNS),
            values,
            st.just(kind),
        )
        for kind, values in {**VALUES, "key": KEYS}.items()
    )
)
ROWS = st.builds(
    row_event_pb2.RowEvent,
    event_id=TEXT,
    table=st.sampled_from((*("transactions",) * 8, "customers", "")),
    operation=st.sampled_from((0, 3, *(1, 2) * 4)),
    key=st.one_of(*(st.just(row_event_pb2.Key(parts=[row_event_pb2.KeyPart(integer=n)])) for n in range(5)), KEYS),
    event_time_us=TIMES,
    known_time_us=st.one_of(st.none(), TIMES),
    cells=st.lists(CELLS, max_size=3),
)


@settings_of_hypothesis(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=ROWS)
def test_what_the_door_lets_in_the_sampler_takes(
    row: row_event_pb2.RowEvent, reader: RequestReader, world: Any
) -> None:
    """Any row at all is refused with its field, or sampled: the two places agree about what a row is."""
    try:
        asked = reader.read(service_pb2.ScoreRequest(row=row))
    except InvalidRequestError as error:
        event(f"refused {error.field.partition('[')[0]}")
        return
    event("sampled")
    found = world.sampler.sample_events([asked.event], np.array([asked.cutoff_time_us]))
    assert len(found) == 1


@settings_of_hypothesis(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=ROWS)
def test_what_ingest_lets_in_the_graph_takes(row: row_event_pb2.RowEvent, reader: RequestReader, world: Any) -> None:
    """Any event at all is either refused with a field, or applied by the graph: the door is no looser than the room."""
    try:
        published = reader.read_event(service_pb2.IngestRequest(event=row))
    except InvalidRequestError as error:
        event(f"refused {error.field.partition('[')[0]}")
        return
    event("applied")
    assert world.graph.apply([published.SerializeToString()], backfill=True).rejected == ()

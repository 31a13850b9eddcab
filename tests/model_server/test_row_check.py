from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from model_server.errors import InvalidRequestError
from model_server.row_check import TIME_MAX_US, RowCheck
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema
from temporal_graph.time_rule import ALWAYS_US

Payment = Callable[[], service_pb2.ScoreRequest]
Row = row_event_pb2.RowEvent


@pytest.fixture
def check(schema: Schema, settings: ServerSettings) -> RowCheck:
    """The checks of the payments' table."""
    return RowCheck(schema, schema.table("transactions"), settings)


def test_a_row_with_a_cell_of_every_kind_fits(check: RowCheck, payment: Payment) -> None:
    """Every kind of cell, a composite link and private values pass; so does each of them as an explicit null."""
    row = payment().row
    check.check(row, "row")
    for cell in row.cells:
        cell.null = row_event_pb2.NULL_VALUE_UNSPECIFIED
    check.check(row, "row")


def cell(row: Row, column: str) -> row_event_pb2.Cell:
    """The row's cell of this column."""
    return next(cell for cell in row.cells if cell.column == column)


def index(row: Row, column: str) -> int:
    """Where it stands."""
    return [cell.column for cell in row.cells].index(column)


SPOILED: dict[str, tuple[str, Callable[[Row], object]]] = {
    "no key": ("row.key.parts", lambda row: row.ClearField("key")),
    "a key of two parts": ("row.key.parts", lambda row: row.key.parts.add(integer=1)),
    "a text key": ("row.key.parts[0].text", lambda row: setattr(row.key.parts[0], "text", "7")),
    "an empty key part": ("row.key.parts[0]", lambda row: row.key.parts[0].ClearField("integer")),
    "a long event id": ("row.event_id", lambda row: setattr(row, "event_id", "x" * 65)),
    "too many cells": ("row.cells", lambda row: [row.cells.add(column=f"c{i}", number=1) for i in range(20)]),
    "too large": ("row", lambda row: setattr(cell(row, "note"), "text", "x" * 5000)),
    "an unknown column": ("row.cells[0].column", lambda row: setattr(row.cells[0], "column", "amount")),
    "a column twice": ("row.cells[11].column", lambda row: row.cells.add(column="tx_amount", number=1)),
    "the key as a cell": ("row.cells[11].column", lambda row: row.cells.add(column="transaction_id", integer=7)),
    "a cell without a value": ("row.cells[0]", lambda row: row.cells[0].ClearField("number")),
    "text for a number": ("row.cells[0].text", lambda row: setattr(row.cells[0], "text", "12.5")),
    "not a number": ("row.cells[0].number", lambda row: setattr(row.cells[0], "number", float("nan"))),
    "infinite": ("row.cells[0].number", lambda row: setattr(row.cells[0], "number", float("inf"))),
    "a number for a category": ("row.cells[1].number", lambda row: setattr(row.cells[1], "number", 1.0)),
    "a separator in a list": (
        "row.cells[2].texts.values[1]",
        lambda row: row.cells[2].texts.values.__setitem__(1, "a\x1fb"),
    ),
    "an integer for a text": ("row.cells[3].integer", lambda row: setattr(row.cells[3], "integer", 1)),
    "an integer for a time": ("row.cells[4].integer", lambda row: setattr(row.cells[4], "integer", 1)),
    "nanoseconds": ("row.cells[4].timestamp_us", lambda row: setattr(row.cells[4], "timestamp_us", TIME_MAX_US + 1)),
    "an integer for a boolean": ("row.cells[5].integer", lambda row: setattr(row.cells[5], "integer", 1)),
    "a short vector": ("row.cells[6].vector", lambda row: row.cells[6].vector.values.pop()),
    "a component not finite": (
        "row.cells[6].vector.values[1]",
        lambda row: row.cells[6].vector.values.__setitem__(1, float("nan")),
    ),
    "a number for a link": ("row.cells[9].number", lambda row: setattr(row.cells[9], "number", 3.0)),
    "text for an integer link": ("row.cells[9].text", lambda row: setattr(row.cells[9], "text", "3")),
    "one value for a composite link": ("row.cells[10].text", lambda row: setattr(row.cells[10], "text", "eu")),
    "a composite link cut short": ("row.cells[10].key.parts", lambda row: row.cells[10].key.parts.pop()),
    "a part of a wrong type": (
        "row.cells[10].key.parts[1].text",
        lambda row: setattr(row.cells[10].key.parts[1], "text", "1"),
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_misfit_is_named_by_its_path(name: str, check: RowCheck, payment: Payment) -> None:
    """Each way to spoil a valid row is refused, with the path of the field that is wrong."""
    path, spoil = SPOILED[name]
    row = payment().row
    spoil(row)
    with pytest.raises(InvalidRequestError) as error:
        check.check(row, "row")
    assert error.value.field == path


def test_the_path_begins_where_the_caller_says(check: RowCheck, payment: Payment) -> None:
    """In an event to ingest the same mistake is named `event...`."""
    row = payment().row
    row.cells[0].text = "x"
    with pytest.raises(InvalidRequestError, match=r"^event\.cells\[0\]\.text: "):
        check.check(row, "event")


def test_no_message_quotes_a_private_value(check: RowCheck, payment: Payment) -> None:
    """A private cell of a wrong kind is refused without its value in the message."""
    row = payment().row
    secret = 4_000_123_412_341_234
    cell(row, "card_number").number = secret
    with pytest.raises(InvalidRequestError) as error:
        check.check(row, "row")
    assert error.value.field == f"row.cells[{index(row, 'card_number')}].number"
    assert str(secret) not in str(error.value)


def test_a_private_link_takes_the_raw_key_in_either_form(check: RowCheck, payment: Payment) -> None:
    """What is hashed at the door may come as an integer or as text, but not as a number."""
    row = payment().row
    link = cell(row, "customer_id")
    link.text = "42"
    check.check(row, "row")
    link.number = 42.0
    with pytest.raises(InvalidRequestError):
        check.check(row, "row")


def test_the_skew_bound_holds_at_one_microsecond(check: RowCheck) -> None:
    """A time exactly at the table's future bound passes, one microsecond later does not; the sentinel is no time."""
    now_us = 1_000_000
    bound_us = now_us + 5 * 60 * 1_000_000
    check.check_event_time(bound_us, "t", now_us)
    for wrong in (bound_us + 1, TIME_MAX_US + 1, ALWAYS_US, ALWAYS_US + 1):
        with pytest.raises(InvalidRequestError, match=r"^t: "):
            check.check_event_time(wrong, "t", now_us)


def test_an_event_for_the_log_says_what_it_does_and_when(check: RowCheck, payment: Payment) -> None:
    """Without an operation, or without an event time in a table that has one, an event is refused."""
    event = payment().row
    check.check_operation(event, "event")
    check.check_times(event, "event", event.event_time_us)
    event.ClearField("operation")
    with pytest.raises(InvalidRequestError, match=r"^event\.operation: "):
        check.check_operation(event, "event")
    event.ClearField("event_time_us")
    with pytest.raises(InvalidRequestError, match=r"^event\.event_time_us: "):
        check.check_times(event, "event", 0)


BOUNDED = parse_schema("""
version: 1
name: bounded
tables:
  told: {primary_key: {id: integer}, time_column: at, lateness: 1h, future: 1m}
  heard: {primary_key: {id: integer}, time_column: at, known_time: broker, lateness: 1h, future: 1m}
  still: {primary_key: {id: integer}}
""")
HOUR_US, MINUTE_US = 3_600_000_000, 60_000_000


@pytest.mark.parametrize(
    ("table", "event_us", "known_us"),
    [
        ("told", 0, HOUR_US),
        ("told", 0, HOUR_US + 1),
        ("told", MINUTE_US, 0),
        ("told", MINUTE_US + 1, 0),
        ("told", -HOUR_US - 1, None),
        ("heard", 0, None),
        ("heard", -1, None),
        ("still", 0, 2 * HOUR_US),
    ],
)
def test_what_the_graph_will_refuse_is_not_taken(
    settings: ServerSettings, table: str, event_us: int, known_us: int | None
) -> None:
    """Late, or of the future, by its own clocks or the broker's: to the microsecond what the graph itself refuses."""
    event = row_event_pb2.RowEvent(
        table=table, operation=row_event_pb2.OPERATION_INSERT, event_time_us=10**15 + event_us
    )
    event.key.parts.add(integer=1)
    if known_us is not None:
        event.known_time_us = 10**15 + known_us
    now_us = 10**15 + HOUR_US
    with TemporalGraph.create(BOUNDED, arena_bytes=1 << 24) as graph:
        refused = graph.apply([event.SerializeToString()], broker_time_us=np.array([now_us])).rejected
    check = RowCheck(BOUNDED, BOUNDED.table(table), settings)
    asked_us = now_us if table == "heard" else now_us + HOUR_US
    if refused:
        with pytest.raises(InvalidRequestError, match=r"^event\.(event|known)_time_us: "):
            check.check_times(event, "event", asked_us)
    else:
        check.check_times(event, "event", asked_us)

"""Rows of a file become the questions that a client would ask, and what is wrong with one is named."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from graph_transformer.task import parse_task
from model_server.request import AskedRow, RequestReader
from model_server.settings import ServerSettings
from nowgraph.client import Row
from nowgraph.client_values import row_to_wire
from nowgraph.errors import UsageError
from nowgraph.parquet_questions import ParquetQuestions
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.time_rule import ALWAYS_US

MINUTE_US = 60_000_000
Questions = Callable[..., list[AskedRow]]


@pytest.fixture
def questions(world: Any) -> Questions:
    """Reads a table of columns as the questions of one of the world's tasks."""

    def read(columns: dict[str, Any], *, task: str = "fraud", time_column: str | None = None, now_us: int = 0) -> Any:
        batch = pa.record_batch(columns)
        reader = ParquetQuestions(
            world.schema,
            parse_task(world.task_text_of(task)),
            batch.schema.names,
            now_us=now_us or world.start_us,
            privacy=world.privacy,
            time_column=time_column,
        )
        return reader.read(batch, 0)

    return read


def payments(world: Any, **changed: Any) -> dict[str, Any]:
    """Two payments as a file has them, every kind of column and a composite link among them."""
    times = pa.array([world.start_us + MINUTE_US, world.start_us + 2 * MINUTE_US], pa.timestamp("us"))
    return {
        "transaction_id": [900, 901],
        "tx_datetime": times,
        "tx_amount": [12.5, None],
        "tx_fraud": [True, False],
        "channel": ["web", "new"],
        "tags": [["b", "a"], []],
        "online": [True, None],
        "face": pa.array([[0.5, 1.0], None], pa.list_(pa.float32())),
        "card_number": ["4000-1234", None],
        "customer_id": [3, 4],
        "terminal_id": [3, None],
        "shop_region": ["eu", None],
        "shop_number": [7, None],
        "unknown": ["x", "y"],
        **changed,
    }


def test_a_row_of_a_file_is_what_a_client_would_send(world: Any, questions: Questions) -> None:
    """Key, time, cells, links and cut-off are those of the same request by gRPC; the label is not read."""
    asked = questions(payments(world))
    target = parse_task(world.task_text).target
    reader = RequestReader(world.schema, ServerSettings(), task="fraud", target=target, privacy=world.privacy)
    cells = {
        "tx_amount": 12.5,
        "channel": "web",
        "tags": ["b", "a"],
        "online": True,
        "face": [0.5, 1.0],
        "card_number": "4000-1234",
        "customer_id": 3,
        "terminal_id": 3,
        "shop_region+shop_number": ("eu", 7),
    }
    sent = reader.read(row_to_wire(Row("transactions", 900, cells, world.start_us + MINUTE_US)))
    assert asked[0].cutoff_time_us == sent.cutoff_time_us == world.start_us + MINUTE_US - 1
    assert asked[0].row.key == sent.row.key
    assert {cell.column: cell for cell in asked[0].row.cells} == {cell.column: cell for cell in sent.row.cells}
    assert "4000-1234" not in str(asked)
    assert {cell.column for cell in asked[1].row.cells} == {"channel", "tags", "customer_id"}


def test_an_entity_needs_its_key_and_perhaps_a_time(world: Any, questions: Questions) -> None:
    """As of its own time, under the label tables' name or another; without one as of the graph's newest time."""
    keys = {"customer_id": [3, 77], "city": ["ignored", "ignored"]}
    newest = world.start_us + 99 * MINUTE_US
    asked = questions(keys, task="spend", now_us=newest)
    assert [one.key for one in asked] == [world.privacy.hash(3), world.privacy.hash(77)]
    assert [one.cutoff_time_us for one in asked] == [newest, newest]
    times = pa.array([datetime(2023, 1, 2, tzinfo=UTC), datetime(2023, 1, 3, tzinfo=UTC)])
    day_us = 86_400_000_000
    for name, option in (("anchor_time", None), ("asked_at", "asked_at")):
        asked = questions({**keys, name: times}, task="spend", time_column=option)
        assert [one.cutoff_time_us for one in asked] == [world.start_us + day_us, world.start_us + 2 * day_us]
        assert not asked[0].row.cells


def test_keys_that_are_hashes_already_are_not_hashed_again(world: Any) -> None:
    """A file of keys that a graph gave, such as a label table, asks about these very entities."""
    known = world.privacy.hash(3)
    batch = pa.record_batch({"customer_id": [known]})
    task = parse_task(world.task_text_of("spend"))
    names = batch.schema.names
    for hashed, key in ((True, known), (False, world.privacy.hash(known))):
        reader = ParquetQuestions(world.schema, task, names, now_us=5, privacy=world.privacy, hashed=hashed)
        assert [one.key for one in reader.read(batch, 0)] == [key]


SPOILED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a number in quotes": ("row 0: tx_amount: ", "fraud", {"tx_amount": ["12.5", "1"]}),
    "an infinite number": ("row 1: tx_amount: ", "fraud", {"tx_amount": [1.0, float("inf")]}),
    "a key of another type": ("row 0: transaction_id: ", "fraud", {"transaction_id": ["a", "b"]}),
    "no time": ("row 1: tx_datetime: ", "fraud", {"tx_datetime": pa.array([1, None], pa.timestamp("us"))}),
    "a vector too short": ("row 1: face: ", "fraud", {"face": [[0.5, 1.0], [0.5]]}),
    "a separator in a text": ("row 1: tags: ", "fraud", {"tags": [["a"], ["a\x1fb"]]}),
    "a time of nanoseconds": (
        "row 1: anchor_time: ",
        "spend",
        {"anchor_time": pa.array([5, 1_700_000_000_000_000_000], pa.timestamp("us"))},
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_the_row_and_the_column_are_named(name: str, world: Any, questions: Questions) -> None:
    """The first row that cannot be asked about stops it, with its number from 0, its column and the reason."""
    start, task, changed = SPOILED[name]
    with pytest.raises(UsageError) as error:
        questions(payments(world, **changed), task=task)
    assert str(error.value).startswith(start)
    assert len(str(error.value)) > len(start) + 10


def test_a_missing_column_is_named_before_anything_is_read(world: Any, questions: Questions) -> None:
    """Without the key, or the time that was asked for, there is no question; what the file has is told."""
    columns = payments(world)
    del columns["transaction_id"]
    with pytest.raises(UsageError, match="key column 'transaction_id' of 'transactions' is missing: found tx_datetime"):
        questions(columns)
    with pytest.raises(UsageError, match="time column 'asked_at'"):
        questions({"customer_id": [1]}, task="spend", time_column="asked_at")
    with pytest.raises(UsageError, match="'anchor_time'"):
        questions({"customer_id": [1]}, task="spend", now_us=ALWAYS_US)


def test_an_entity_is_recorded_without_cells(world: Any, questions: Questions) -> None:
    """The file's other columns, even those of the table, are no part of the question."""
    (asked,) = questions({"customer_id": [3], "city": ["Ghent"]}, task="spend")
    assert row_event_pb2.RowEvent.FromString(asked.event).cells == []

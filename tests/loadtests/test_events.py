from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loadtests.load.events import STEP_US, Events, click_events, payment_events
from loadtests.serving import shop
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema, parse_schema


@pytest.mark.parametrize("make", [payment_events, click_events])
def test_events_are_messages(make: Callable[[], Events]) -> None:
    """What was overwritten in bytes is what protobuf reads: keys and times in order, ids within their range."""
    events = make()
    first, second = events.take(300), events.take(200)
    rows = [row_event_pb2.RowEvent.FromString(event) for event in first + second]
    keys = [row.key.parts[0].integer for row in rows]
    assert keys == list(range(keys[0], keys[0] + 500))
    times_us = [row.event_time_us for row in rows]
    assert times_us == list(range(times_us[0], times_us[0] + 500 * STEP_US, STEP_US))
    for cell in rows[0].cells:
        if cell.column.endswith("_id"):
            ids = {next(c.integer for c in row.cells if c.column == cell.column) for row in rows}
            assert len(ids) > 200
            assert min(ids) >= 128
            assert max(ids) < 16_384
    assert [row.SerializeToString() for row in rows] == first + second


def test_a_graph_takes_them(repository: Path) -> None:
    """Every one is applied, none is a duplicate or refused: the writer's rate is a rate of real work."""
    schemas = [load_schema(repository / "examples/payments/schema.yaml"), parse_schema(shop.SCHEMA)]
    for schema, events in zip(schemas, (payment_events(), click_events()), strict=True):
        with TemporalGraph.create(schema, arena_bytes=64 << 20) as graph:
            applied = graph.apply(events.take(5_000), backfill=True)
            assert applied.rejected == ()
            assert graph.view().position().sequence == 5_000

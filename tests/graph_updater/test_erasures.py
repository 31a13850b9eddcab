"""What erasures removed is told once, and without a key."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from graph_updater.erasures import ErasureReport
from graph_updater.metrics import UpdaterMetrics
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema

SCHEMA = parse_schema("""
version: 1
name: people
tables:
  people: {primary_key: {name: string}}
  visits: {time_column: at, links: {person: {table: people, erase: true}}}
""")


def event(operation: int, table: str, name: str | None = None, person: str | None = None) -> bytes:
    """A row event of one microsecond after the epoch."""
    made = pb.RowEvent(event_id="1", table=table, operation=operation, event_time_us=1)  # type: ignore[arg-type]
    if name is not None:
        made.key.parts.add(text=name)
    if person is not None:
        made.cells.add(column="person", text=person)
    return made.SerializeToString()


@pytest.fixture
def lines() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged, of every level, whatever another test made of the process's logging."""
    before = structlog.get_config()
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as captured:
        yield captured
    structlog.configure(**before)


def test_each_erasure_is_told_once_and_without_a_key(lines: list[MutableMapping[str, Any]]) -> None:
    """Rows by table in the metrics, everything in one log line; nothing for a batch without one."""
    metrics = UpdaterMetrics()
    with TemporalGraph.create(SCHEMA, arena_bytes=64 << 20) as graph:
        report = ErasureReport(graph.view(), metrics)
        graph.apply([event(pb.OPERATION_INSERT, "people", "ada"), event(pb.OPERATION_INSERT, "visits", person="ada")])
        report.look()
        assert lines == []
        graph.apply([event(pb.OPERATION_ERASE, "people", "ada")])
        report.look()
        report.look()
        assert [line["event"] for line in lines] == ["erased"]
        assert lines[0]["removed"] == {
            "people": {"rows": 1, "versions": 1, "links": 0, "strings": 0},
            "visits": {"rows": 1, "versions": 1, "links": 1, "strings": 0},
        }
        assert "ada" not in str(lines)
        for table in ("people", "visits"):
            assert metrics.registry.get_sample_value("nowgraph_rows_erased_total", {"table": table}) == 1


def test_what_was_erased_before_the_start_is_not_told_again() -> None:
    """A restart on a snapshot counts from there."""
    metrics = UpdaterMetrics()
    with TemporalGraph.create(SCHEMA, arena_bytes=64 << 20) as graph:
        graph.apply([event(pb.OPERATION_INSERT, "people", "ada"), event(pb.OPERATION_ERASE, "people", "ada")])
        report = ErasureReport(graph.view(), metrics)
        graph.apply([event(pb.OPERATION_INSERT, "people", "bob"), event(pb.OPERATION_ERASE, "people", "bob")])
        report.look()
        assert metrics.registry.get_sample_value("nowgraph_rows_erased_total", {"table": "people"}) == 1

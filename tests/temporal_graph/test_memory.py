"""The account of memory: what it counts, it counts exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema

Build = Callable[..., bytes]


def test_every_part_counts_its_rows(schema: Schema, payment: Build) -> None:
    """Rows times the widths of the record's parts; a version and a string are counted where they lie."""
    with TemporalGraph.create(schema) as graph:
        empty = graph.memory()
        graph.apply([payment(key, key, customer=key % 2) for key in range(10)])
        graph.apply([payment(1, 99, fraud=True, operation="UPSERT")])
        memory = graph.memory()
    payments = next(table for table in memory.tables if table.name == "payments")
    assert payments.rows == 10
    assert payments.topology_bytes == 10 * (16 + 4)
    assert payments.key_bytes == 10 * 8
    assert payments.version_head_bytes == 10 * 4
    assert memory.adjacency_entries == 10
    assert memory.adjacency_bytes == 2 * 8 * 8
    assert memory.versions == 1
    assert memory.version_bytes == 48
    assert memory.used_bytes > empty.used_bytes


def test_topology_of_an_event_row_is_within_its_bound() -> None:
    """A row with two links and both clocks takes at most 56 bytes of topology, an adjacency entry at most 14."""
    tables = "a: {primary_key: {id: integer}}, b: {primary_key: {id: integer}}"
    events = "e: {primary_key: {id: integer}, time_column: t, links: {a_id: a, b_id: b}}"
    schema = parse_schema(f"{{version: 1, name: n, tables: {{{tables}, {events}}}}}")
    count = 200_000
    rng = np.random.default_rng(5)
    with TemporalGraph.create(schema) as graph:
        graph.append(
            "e",
            np.arange(count),
            event_time_us=np.arange(count) * 1_000,
            parents={
                "a_id": (5_000 * rng.random(count) ** 2).astype(np.int64),
                "b_id": (5_000 * rng.random(count) ** 4).astype(np.int64),
            },
        )
        memory = graph.memory()
    table = next(table for table in memory.tables if table.name == "e")
    assert memory.adjacency_bytes / memory.adjacency_entries <= 14
    assert (table.topology_bytes + memory.adjacency_bytes) / count <= 56

"""What the capacity model says is what the allocator counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from temporal_graph.capacity import CapacityError, Counts, graph_bytes, list_bytes, record_bytes
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema

Build = Callable[..., bytes]

BENCH = """
version: 1
name: bench
tables:
  users: {primary_key: {user_id: integer}}
  shops: {primary_key: {shop_id: string}, columns: {city: categorical, open: boolean}}
  events:
    primary_key: {event_id: integer}
    time_column: at
    links: {user_id: users}
  vectors:
    columns: {amount: numerical, at: timestamp, words: text, face: {kind: embedding, dim: 7}, kept: boolean}
    links: {user_id: users, shop_id: shops}
"""


@pytest.mark.parametrize("text", [None, BENCH])
def test_a_records_bytes_are_those_of_the_layout(schema: Schema, payment: Build, text: str | None) -> None:
    """Of every table: what the allocator counts a row is the model's record, padding included."""
    chosen = schema if text is None else parse_schema(text)
    with TemporalGraph.create(chosen, arena_bytes=64 << 20) as graph:
        if text is None:
            graph.apply([payment(number, number, customer=number) for number in range(50)])
        else:
            keys = np.arange(50)
            graph.append("events", keys, event_time_us=keys, parents={"user_id": keys})
        counted = {table.name: table for table in graph.memory().tables if table.rows}
    assert counted
    for name, table in counted.items():
        taken = table.topology_bytes + table.version_head_bytes + table.cell_bytes
        assert record_bytes(chosen, chosen.table(name)) == taken / table.rows


def test_cells_are_packed_and_a_parents_record_is_aligned() -> None:
    """Clocks, head and parents 28; 8 + 8 + 4 + 28 + 1 of cells, up to four; a parent's list words make it eight."""
    schema = parse_schema(BENCH)
    assert record_bytes(schema, schema.table("vectors")) == 80
    assert record_bytes(schema, schema.table("shops")) == 40
    assert record_bytes(schema, schema.table("users")) == 40


def test_cells_on_disk_leave_a_slots_number_in_the_record(schema_text: str, payment: Build) -> None:
    """The rest of the cells is in the file, and that of changes too; the arena holds neither."""
    kept = parse_schema(schema_text)
    moved = parse_schema(schema_text.replace("  payments:\n", "  payments:\n    storage: disk\n"))
    counts = Counts(dict.fromkeys((table.name for table in kept.tables), 20_000), changes={"payments": 1_000})
    assert [table.disk for table in graph_bytes(kept, counts).tables] == [0, 0, 0]
    predicted = next(table for table in graph_bytes(moved, counts).tables if table.name == "payments")
    with TemporalGraph.create(moved, arena_bytes=64 << 20) as graph:
        graph.apply([payment(number, number, customer=number, amount=1.0) for number in range(20_000)])
        graph.apply([payment(number, number, operation="UPSERT", fraud=True) for number in range(1_000)])
        memory = graph.memory()
    table = next(table for table in memory.tables if table.name == "payments")
    assert predicted.record_bytes == (table.topology_bytes + table.version_head_bytes + table.cell_bytes) / table.rows
    assert predicted.versions == memory.version_bytes
    assert predicted.disk <= memory.columns_bytes < predicted.disk + (1 << 19)  # which is taken in large pieces


def test_lists_take_a_block_and_hubs_full_blocks() -> None:
    """Of four, eight, twelve, sixteen entries and so on; beyond 1,024 whole blocks of so many, and their directory."""
    counts = np.array([1, 4, 5, 8, 9, 12, 13, 16, 17, 24, 25, 768, 769, 1_024, 1_025, 5_000])
    entries = [4, 4, 8, 8, 12, 12, 16, 16, 24, 24, 32, 768, 1_024, 1_024, 2 * 1_024 + 8, 5 * 1_024 + 16]
    assert list_bytes(counts).tolist() == [8 * each for each in entries]


@pytest.mark.parametrize("degree", [3, 20, 200])
def test_what_is_predicted_is_what_a_graph_takes(degree: int) -> None:
    """Within a tenth: the lists, and all of it, whether parents are drawn evenly or by a power law."""
    schema = parse_schema(BENCH)
    count, random = 400_000, np.random.default_rng(7)
    users = count // degree
    for power in (1, 2):
        rows = {"users": users, "shops": 0, "events": count, "vectors": 0}
        expected = graph_bytes(schema, Counts(rows, even=power == 1))
        drawn = (users * random.random(count) ** power).astype(np.int64)
        with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph:
            for low in range(0, count, 20_000):
                keys = np.arange(low, low + 20_000)
                graph.append("events", keys, event_time_us=keys, parents={"user_id": drawn[low : low + 20_000]})
            memory = graph.memory()
        events = next(table for table in expected.tables if table.name == "events")
        assert memory.adjacency_bytes == pytest.approx(events.lists, rel=0.1)
        assert memory.used_bytes == pytest.approx(expected.total, rel=0.1)


def test_versions_keys_and_strings_are_counted(schema: Schema, payment: Build) -> None:
    """Each change is a version of whole units; text keys and strings lie beside the rows, found by maps."""
    few = graph_bytes(schema, Counts(dict.fromkeys((table.name for table in schema.tables), 1_000)))
    more = graph_bytes(
        schema,
        Counts(dict.fromkeys((table.name for table in schema.tables), 1_000), changes={"payments": 500}),
    )
    with TemporalGraph.create(schema, arena_bytes=64 << 20) as graph:
        graph.apply([payment(number, number) for number in range(500)])
        graph.apply([payment(number, number, operation="UPSERT", fraud=True) for number in range(500)])
        memory = graph.memory()
    assert more.total - few.total == pytest.approx(memory.version_bytes, abs=0)
    texts = parse_schema(BENCH)
    rows = {"users": 0, "shops": 1_000, "events": 0, "vectors": 0}
    plain = graph_bytes(texts, Counts(rows))
    long = graph_bytes(texts, Counts(rows, text_bytes=36))
    assert long.total - plain.total == 1_000 * 20
    named = graph_bytes(texts, Counts(rows, strings={"shops.city": 100}))
    assert named.total > plain.total


def test_counts_that_no_arena_holds_are_refused(schema: Schema) -> None:
    """By name: a table or column that is not there, one without a count, more rows than are numbered."""
    rows = dict.fromkeys((table.name for table in schema.tables), 10)
    for counts, named in (
        (Counts(rows | {"nothing": 1}), "nothing"),
        (Counts(rows, changes={"nothing": 1}), "nothing"),
        (Counts(rows, strings={"payments.nothing": 1}), "payments.nothing"),
        (Counts({}), "how many rows"),
        (Counts(rows | {"payments": 5 * 10**9}), "5,000,000,000 rows"),
        (Counts(rows, changes={"payments": 10**9}), "bytes of changes"),
    ):
        with pytest.raises(CapacityError, match=named):
            graph_bytes(schema, counts)

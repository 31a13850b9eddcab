"""The native graph and sampler against the plain twin, on sequences made to collide: few keys, few times, all rules."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from online_sampler import Neighborhood, Sampler, SamplingPlan
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import HIDDEN, ReferenceEvent, ReferenceGraph
from temporal_graph.reference_sampler import ReferencePlan, sample_most_recent
from temporal_graph.reference_values import Key, Value, key_text
from temporal_graph.schema import ColumnKind, Schema, parse_schema
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US, visible_time_us

ARENA_BYTES = 64 << 20

SCHEMA = parse_schema("""
version: 1
name: oracle
tables:
  customers:
    primary_key: {customer_id: integer}
    columns: {city: categorical}
  shops:
    primary_key: {code: string}
    time_column: opened_at
    columns: {size: numerical}
    links: {owner: customers}
  orders:
    primary_key: {region: string, number: integer}
    time_column: at
  payments:
    primary_key: {payment_id: integer}
    time_column: at
    known_time: {column: reported_at}
    lateness: 10s
    future: 5s
    columns:
      amount: numerical
      fraud: {kind: boolean, outcome: true}
      note: text
      tags: multicategorical
      due: timestamp
      vector: {kind: embedding, dim: 2}
    links:
      customer_id: {table: customers, erase: true}
      shop: shops
      order: {table: orders, columns: [order_region, order_number]}
      refund_of: {table: payments, erase: true}
  visits:
    time_column: at
    columns: {pages: numerical}
    links: {customer_id: {table: customers, erase: true}}
""")

# A tick of the native children lists is 2**22 us: times within one, across two, and beyond both ends of what ticks say.
TICK_US = 1 << 22
LEAST_US = ALWAYS_US + 2  # the two before it are reserved
TIMES = [
    0,
    1,
    2,
    TICK_US - 1,
    TICK_US,
    TICK_US + 1,
    3 * TICK_US,
    -(1 << 52) - 5,
    -(1 << 52),
    1 << 53,
    1 << 53 | 1,
    LEAST_US,
    TIME_MAX_US,
]
DELAYS = [None, 0, 0, 1, TICK_US, 10_000_000, 10_000_001, -1, -5_000_000, -5_000_001]

KEYS: dict[str, list[Key]] = {
    "customers": [(-1,), (7,), (8,)],
    "shops": [("a",), ("é",), ("\U0001f600",)],
    "orders": [("a", 1), ("a", 2), ("ab", -1)],
    "payments": [(1,), (2,), (3,), (10,)],
    "visits": [("a",), ("b",)],  # a table without key: the event id stands for it
}
CELLS: dict[ColumnKind, list[Value]] = {
    ColumnKind.NUMERICAL: [None, 0.0, 1.5, -2.0],
    ColumnKind.CATEGORICAL: [None, "x", "y", ""],
    ColumnKind.TEXT: [None, "x", "yé"],
    ColumnKind.MULTICATEGORICAL: [None, [], ["b", "a"], ["a", "b", "a"], ["a"]],
    ColumnKind.BOOLEAN: [None, True, False],
    ColumnKind.TIMESTAMP: [None, 0, -5],
    ColumnKind.EMBEDDING: [None, [0.1, 2.0], [-1.0, 0.0]],
}


def cells_of(table: str) -> st.SearchStrategy[dict[str, Value]]:
    """Any of a table's cells, absent, null or with one of few values."""
    named = SCHEMA.table(table)
    values: dict[str, st.SearchStrategy[Value]] = {c.name: st.sampled_from(CELLS[c.kind]) for c in named.columns}
    values |= {link.name: st.sampled_from([None, *KEYS[link.parent]]) for link in named.links}
    return st.fixed_dictionaries({}, optional=values)


@st.composite
def events(draw: st.DrawFn) -> ReferenceEvent:
    """One event of any table; most are payments."""
    table = draw(st.sampled_from(["payments", "payments", "payments", "shops", "orders", "customers", "visits"]))
    operations = ["insert", "insert", "upsert", "upsert", "delete"]
    operation = draw(st.sampled_from([*operations, "erase"] if SCHEMA.table(table).primary_key else operations))
    timed = SCHEMA.table(table).time_column is not None or operation == "erase" or draw(st.booleans())
    event_time_us = draw(st.sampled_from(TIMES)) if timed else ALWAYS_US
    delay = draw(st.sampled_from(DELAYS)) if timed else None
    return ReferenceEvent(
        table,
        operation,
        draw(st.sampled_from(KEYS[table])),
        event_time_us,
        None if delay is None else min(max(event_time_us + delay, LEAST_US), TIME_MAX_US),
        draw(cells_of(table)),
    )


def put_key(message: pb.Key, key: Key) -> None:
    """Write a key part by part."""
    for part in key:
        message.parts.add(integer=part) if isinstance(part, int) else message.parts.add(text=part)


def wire(event: ReferenceEvent) -> bytes:
    """The event as a serialized RowEvent."""
    message = pb.RowEvent(table=event.table, operation=pb.Operation.Value(f"OPERATION_{event.operation.upper()}"))
    if SCHEMA.table(event.table).primary_key:
        put_key(message.key, event.key)
    else:
        message.event_id = str(event.key[0])
    if event.event_time_us != ALWAYS_US:
        message.event_time_us = event.event_time_us
    if event.known_time_us is not None:
        message.known_time_us = event.known_time_us
    kinds = {column.name: column.kind for column in SCHEMA.table(event.table).columns}
    for name, value in event.cells.items():
        put_cell(message.cells.add(column=name), kinds.get(name), value)
    return message.SerializeToString()


def put_cell(cell: pb.Cell, kind: ColumnKind | None, value: Any) -> None:
    """Write one typed value; kind None is a foreign key."""
    if value is None:
        cell.null = pb.NULL_VALUE_UNSPECIFIED
    elif kind is None and len(value) > 1:
        put_key(cell.key, value)
    elif kind is None:
        setattr(cell, "integer" if isinstance(value[0], int) else "text", value[0])
    elif kind is ColumnKind.MULTICATEGORICAL:
        cell.texts.values.extend(value)
        cell.texts.SetInParent()
    elif kind is ColumnKind.EMBEDDING:
        cell.vector.values.extend(value)
    else:
        fields = {ColumnKind.NUMERICAL: "number", ColumnKind.BOOLEAN: "boolean", ColumnKind.TIMESTAMP: "timestamp_us"}
        setattr(cell, fields.get(kind, "text"), value)


def both(batches: Iterable[Sequence[ReferenceEvent]], schema: Schema = SCHEMA) -> tuple[TemporalGraph, ReferenceGraph]:
    """The native graph and the twin with the same batches applied, each batch judged and counted alike."""
    graph = TemporalGraph.create(schema, arena_bytes=ARENA_BYTES)
    twin = ReferenceGraph(SCHEMA)
    for batch in batches:
        applied, expected = graph.apply([wire(event) for event in batch]), twin.apply(batch)
        counts = (applied.applied, applied.duplicate, applied.erased)
        assert counts == (expected.applied, expected.duplicate, expected.erased)
        assert tuple((one.index, one.reason) for one in applied.rejected) == expected.rejected
    return graph, twin


def split(items: Sequence[ReferenceEvent], at: Iterable[int]) -> list[Sequence[ReferenceEvent]]:
    """Cut a sequence into batches, empty ones among them."""
    cuts = [0, *sorted(cut % (len(items) + 1) for cut in at), len(items)]
    return [items[start:stop] for start, stop in pairwise(cuts)]


def cutoffs_of(sequence: Sequence[ReferenceEvent]) -> list[int]:
    """Both sides of every visible time of the sequence."""
    visible = {
        visible_time_us(event.event_time_us, event.known_time_us if event.known_time_us is not None else ALWAYS_US)
        for event in sequence
        if event.event_time_us != ALWAYS_US
    }
    return sorted({cutoff for time in visible for cutoff in (time - 1, time)} | {0})


PLAN = {
    "num_neighbors": [
        {"hop1": {"default": 2}},
        {"hop2": {"default": 3, "payments.shop->shops.code": 0}},
        {"hop3": {"default": 1}},
    ],
    "node_limit": 9,
}
REFERENCE_PLAN = ReferencePlan([next(iter(hop.values())) for hop in PLAN["num_neighbors"]], PLAN["node_limit"])  # type: ignore[attr-defined, index, arg-type]


def native_key(key: Key) -> Any:
    """A key as the view takes it: a scalar where it has one part."""
    return key[0] if len(key) == 1 else key


def walked(graph: TemporalGraph, found: Neighborhood, seeds: Sequence[tuple[str, Key]]) -> list[Any]:
    """A native sample in the twin's words: per seed its nodes (row, hop, parent, link, version, cells) and edges."""
    view, cells, walks = graph.view(), node_cells(graph, found), []
    for seed, (table, key) in enumerate(seeds):
        first, last = found.seed_offset[seed : seed + 2].tolist()
        nodes = []
        for node in range(first, last):
            name = SCHEMA.tables[found.table[node]].name
            row = view.keys(name, found.row[node : node + 1])[0] if node > first else native_key(key)
            link = SCHEMA.edge_types[found.link[node]] if found.link[node] >= 0 else None
            version = (int(each[node]) for each in (found.version, found.event_time_us, found.known_time_us))
            parent = max(int(found.parent[node]) - first, -1)
            nodes.append(((name, row), int(found.hop[node]), parent, link, tuple(version), cells[node]))
        assert nodes[0][0][0] == table
        edges = slice(*found.edge_offset[seed : seed + 2].tolist())
        source, target = (found.edge_source[edges] - first).tolist(), (found.edge_target[edges] - first).tolist()
        names = [SCHEMA.edge_types[link] for link in found.edge_link[edges]]
        walks.append((nodes, list(zip(source, target, names, strict=True))))
    return walks


def node_cells(graph: TemporalGraph, found: Neighborhood) -> dict[int, dict[str, Any]]:
    """The gathered cells of every node, nulls left out."""
    view, cells = graph.view(), {}
    for table in SCHEMA.tables:
        columns = found.columns[table.name]
        for at, node in enumerate(columns.node.tolist()):
            values: dict[str, Any] = dict(zip(columns.numerical_names, columns.numerical[at].tolist(), strict=True))
            values |= dict(
                zip(columns.boolean_names, [[False, True, None][b] for b in columns.boolean[at]], strict=True)
            )
            values |= dict(zip(columns.timestamp_names, columns.timestamp[at].tolist(), strict=True))
            for place, name in enumerate(columns.coded_names):
                text = view.strings(table.name, name, columns.coded[at, place : place + 1])[0]
                joined = table.column(name).kind is ColumnKind.MULTICATEGORICAL and text is not None
                values[name] = (text.split("\x1f") if text else []) if joined and text is not None else text
            for name in columns.embedding_names:
                vector = columns.embedding[at].tolist()
                values[name] = None if np.isnan(vector[0]) else vector
            cells[node] = {k: v for k, v in values.items() if v is not None and v == v and v != ALWAYS_US}  # noqa: PLR0124
    return cells


def expected_walks(twin: ReferenceGraph, seeds: Sequence[tuple[str, Key]], cutoffs: Sequence[int]) -> list[Any]:
    """What `walked` must give for seeds taken as of their cut-offs."""
    walks = []
    for found, cutoff in zip(sample_most_recent(twin, seeds, REFERENCE_PLAN, cutoffs), cutoffs, strict=True):
        nodes = []
        for node in found.nodes:
            state = twin.state(node.table, node.key, cutoff)
            version = twin.shown_version(node.table, node.key, cutoff)
            if state == HIDDEN:  # a deleted entity that is asked about is shown without cells
                version = (-1, ALWAYS_US, ALWAYS_US)
            links = {link.name for link in SCHEMA.table(node.table).links}
            cells = {} if isinstance(state, str) else {k: v for k, v in state.items() if k not in links}
            row = (node.table, native_key(node.key))
            nodes.append((row, node.hop, node.parent, node.edge_type, version, cells))
        walks.append((nodes, found.edges))
    return walks


SEQUENCES = st.lists(events(), min_size=1, max_size=14)
ON_DISK = replace(SCHEMA, tables=tuple(replace(t, storage="disk" if t.columns else "memory") for t in SCHEMA.tables))
SCHEMAS = st.sampled_from([SCHEMA, ON_DISK])
CUTS = st.lists(st.integers(0, 20), max_size=4)
SLOWER = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOWER
@given(SEQUENCES, CUTS, SCHEMAS)
def test_the_graph_is_the_twins(sequence: list[ReferenceEvent], cuts: list[int], schema: Schema) -> None:
    """Versions, bare rows, link intervals, counts and refusals are the twin's, whatever the batches and the storage."""
    graph, twin = both(split(sequence, cuts), schema)
    assert graph.dump() == twin.dump()
    graph.close()


@SLOWER
@given(SEQUENCES, CUTS, SCHEMAS, st.randoms(use_true_random=False))
def test_the_hash_knows_no_order(
    sequence: list[ReferenceEvent], cuts: list[int], schema: Schema, shuffler: random.Random
) -> None:
    """Shuffled, split and partly repeated, their columns in memory or on disk, the same events give the same hash."""
    graph, twin = both([sequence])
    shuffled = [*sequence, *sequence[::3]]
    shuffler.shuffle(shuffled)
    again, _ = both(split(shuffled, cuts), schema)
    assert again.dump() == graph.dump() == twin.dump()
    assert again.canonical_hash() == graph.canonical_hash()
    graph.close()
    again.close()


@SLOWER
@given(SEQUENCES, events())
def test_the_hash_knows_every_difference(sequence: list[ReferenceEvent], more: ReferenceEvent) -> None:
    """One more event changes the canonical hash exactly if it changes the graph, or what was asked to be erased."""
    graph, twin = both([sequence])
    before, before_hash = (graph.dump(), dict(twin.asked)), graph.canonical_hash()
    graph.apply([wire(more)])
    twin.apply([more])
    assert ((graph.dump(), twin.asked) == before) == (graph.canonical_hash() == before_hash)
    graph.close()


def assert_same_walks(sequence: Sequence[ReferenceEvent], schema: Schema) -> None:
    """Sample around every key at both sides of every visible time."""
    graph, twin = both([sequence], schema)
    sampler = Sampler(graph.view(), SamplingPlan.from_dict(PLAN))
    for table, keys in KEYS.items():
        asked = [((table, key), cutoff) for cutoff in cutoffs_of(sequence) for key in keys]
        seeds, cutoffs = [seed for seed, _ in asked], [cutoff for _, cutoff in asked]
        found = sampler.sample_keys(table, [native_key(key) for _, key in seeds], np.array(cutoffs, dtype=np.int64))
        assert walked(graph, found, seeds) == expected_walks(twin, seeds, cutoffs)
    graph.close()


@SLOWER
@given(SEQUENCES, SCHEMAS)
def test_the_sampler_walks_as_the_twin_does(sequence: list[ReferenceEvent], schema: Schema) -> None:
    """At both sides of every visible time and around every key: the same rows, edges, versions, clocks and cells."""
    assert_same_walks(sequence, schema)


@pytest.mark.parametrize("schema", [SCHEMA, ON_DISK], ids=["memory", "disk"])
def test_a_patch_that_comes_before_its_row(schema: Schema) -> None:
    """A row that a patch makes visible before its insert shows nothing of the insert until then, its links neither."""
    row = ReferenceEvent("payments", "insert", (2,), 100, None, {"amount": 1.5, "order_region+order_number": ("a", 1)})
    assert_same_walks([row, ReferenceEvent("payments", "upsert", (2,), 50, None, {"fraud": True})], schema)


@SLOWER
@given(SEQUENCES, SCHEMAS)
def test_outcomes_and_times_are_the_twins(sequence: list[ReferenceEvent], schema: Schema) -> None:
    """Every version that sets an outcome is listed with the row's own time; a row's times are its first version's."""
    graph, twin = both([sequence], schema)
    view, versions = graph.view(), {key: row["versions"] for key, row in twin.dump()["payments"].items()}
    keys = [key_text((key,)) for key in view.keys("payments", np.arange(view.row_count("payments")))]  # type: ignore[arg-type]
    outcomes = view.outcomes("payments", "fraud")
    found = zip(
        [keys[row] for row in outcomes.row],
        outcomes.event_time_us.tolist(),
        outcomes.value.tolist(),
        outcomes.visible_time_us.tolist(),
        strict=True,
    )
    assert sorted(found) == sorted(
        (key, changes[0][0], float(cells["fraud"]), visible_time_us(event, known))
        for key, changes in versions.items()
        for event, known, _, cells in changes
        if cells.get("fraud") is not None
    )
    times = zip(*(clock.tolist() for clock in view.times("payments")), strict=True)
    first = {key: tuple(changes[0][:2]) if changes else (ALWAYS_US, ALWAYS_US) for key, changes in versions.items()}
    assert {key: of for key, of in zip(keys, times, strict=True) if key != "[null]"} == first  # without the erased
    graph.close()


@pytest.mark.parametrize("seed", range(3))
def test_long_lists(seed: int) -> None:
    """Lists of thousands of children, arriving in any order, with ties, deletes and moves, are the twin's."""
    rng = random.Random(seed)
    customers: list[Value] = [(7,), (7,), (7,), (8,), None]
    sequence = []
    for key in range(3_000):
        at = rng.randrange(0, 60) * (TICK_US // 3)
        cells = {"amount": float(key), "customer_id": rng.choice(customers)}
        sequence.append(ReferenceEvent("payments", "insert", (key,), at, at + rng.choice([0, 0, 1, 9_000_000]), cells))
        if rng.random() < 0.2:
            later, moved = at + rng.randrange(0, 20) * (TICK_US // 3), {"customer_id": rng.choice(customers)}
            operation: Any = rng.choice(["upsert", "upsert", "delete"])
            sequence.append(ReferenceEvent("payments", operation, (key,), later, later, moved))
    rng.shuffle(sequence)
    graph, twin = both(split(sequence, [rng.randrange(10_000) for _ in range(9)]))
    assert graph.dump() == twin.dump()
    sampler = Sampler(graph.view(), SamplingPlan.from_dict({"num_neighbors": [{"hop1": 2_000}], "node_limit": 5_000}))
    to_children = "customers.customer_id->payments.customer_id"
    view = graph.view()
    for cutoff in [time + edge for time in range(-TICK_US, 40 * TICK_US, 5 * TICK_US) for edge in (-1, 0)]:
        found = sampler.sample_keys("customers", [7, 8], np.array([cutoff, cutoff]))
        for at, customer in enumerate((7, 8)):
            rows = found.row[found.seed_offset[at] + 1 : found.seed_offset[at + 1]]
            newest_first = [key for _, key in reversed(twin.children(to_children, (customer,), cutoff))]
            assert view.keys("payments", rows) == [key[0] for key in newest_first[:2_000]]
    graph.close()

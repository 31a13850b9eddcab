"""A table's states over all time, against the plain twin and by hand at both sides of both clocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.errors import SchemaError
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import BARE, HIDDEN, ReferenceEvent, ReferenceGraph
from temporal_graph.reference_values import Value
from temporal_graph.schema import Schema, parse_schema
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US
from temporal_graph.versions import TableVersions
from temporal_graph.view import GraphView

Build = Callable[..., bytes]

SCHEMA = parse_schema("""
version: 1
name: states
tables:
  shops: {primary_key: {shop_id: integer}, columns: {city: categorical}}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    known_time: {column: reported_at}
    columns:
      amount: numerical
      fraud: {kind: boolean, outcome: true}
      note: text
      weight: numerical
      due: timestamp
      vector: {kind: embedding, dim: 2}
    links: {shop: shops, sold_by: shops}
""")
CELLS: dict[str, list[Value]] = {
    "amount": [None, 0.0, 1.5],
    "fraud": [None, True, False],
    "note": [None, "x", "yé"],
    "weight": [None, -2.0],
    "due": [None, 0, -5],
    "vector": [None, [0.5, 2.0]],
    "shop": [None, (1,), (2,)],
    "sold_by": [None, (1,), (2,)],
}
TIMES = [0, 1, 2, 3, 1 << 22, 1 << 40]


@st.composite
def order_events(draw: st.DrawFn) -> ReferenceEvent:
    """One event of few orders at few times, any operation, any cells."""
    event_time_us = draw(st.sampled_from(TIMES))
    return ReferenceEvent(
        "orders",
        draw(st.sampled_from(["insert", "insert", "upsert", "upsert", "delete"])),
        (draw(st.sampled_from([1, 2, 3])),),
        event_time_us,
        max(event_time_us + draw(st.sampled_from([0, 0, 1, -1, 1 << 22])), 0),
        draw(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in CELLS.items()})),
    )


def wire(event: ReferenceEvent) -> bytes:
    """The event as a serialized RowEvent."""
    message = pb.RowEvent(
        table=event.table,
        operation=pb.Operation.Value(f"OPERATION_{event.operation.upper()}"),
        event_time_us=event.event_time_us,
        known_time_us=event.known_time_us,
    )
    cells: dict[str, Any] = dict(event.cells)
    message.key.parts.add(integer=int(event.key[0]))
    fields = {"amount": "number", "weight": "number", "fraud": "boolean", "note": "text", "due": "timestamp_us"}
    for name, value in cells.items():
        cell = message.cells.add(column=name)
        if value is None:
            cell.null = pb.NULL_VALUE_UNSPECIFIED
        elif isinstance(value, tuple):
            cell.integer = value[0]
        elif isinstance(value, list):
            cell.vector.values.extend(value)
        else:
            setattr(cell, fields[name], value)
    return message.SerializeToString()


def shown(view: GraphView, states: TableVersions, at: int) -> dict[str, Any]:
    """One state in the twin's words: cells and foreign keys that are not null."""
    cells: dict[str, Any] = dict(zip(states.numerical_names, states.numerical[at].tolist(), strict=True))
    cells = {name: number for name, number in cells.items() if not np.isnan(number)}
    cells |= {n: bool(v) for n, v in zip(states.boolean_names, states.boolean[at].tolist(), strict=True) if v != 2}
    cells |= {
        n: v for n, v in zip(states.timestamp_names, states.timestamp[at].tolist(), strict=True) if v != ALWAYS_US
    }
    for place, name in enumerate(states.coded_names):
        text = view.strings(states.table, name, states.coded[at, place : place + 1])[0]
        cells |= {} if text is None else {name: text}
    if not np.isnan(states.embedding[at, 0]):
        cells["vector"] = states.embedding[at].tolist()
    parents = zip(states.link_names, states.parents[at].tolist(), strict=True)
    return cells | {name: (view.keys("shops", np.array([row]))[0],) for name, row in parents if row >= 0}


@settings(max_examples=200, deadline=None)
@given(st.lists(order_events(), min_size=1, max_size=14), st.integers(0, 14))
def test_states_are_the_twins(sequence: list[ReferenceEvent], cut: int) -> None:
    """At both sides of every visible time each row's entry says what the twin says; before its first there is none."""
    twin = ReferenceGraph(SCHEMA)
    with TemporalGraph.create(SCHEMA, arena_bytes=64 << 20) as graph:
        for batch in (sequence[:cut], sequence[cut:]):
            graph.apply([wire(event) for event in batch], backfill=True)
            twin.apply(batch, backfill=True)
        view = graph.view()
        states = view.versions("orders")
        by_key = dict(
            zip(twin.keys("orders"), view.row_index("orders", [k[0] for k in twin.keys("orders")]), strict=True)
        )
        visible = {max(each.event_time_us, each.known_time_us or 0) for each in sequence}
        for cutoff in sorted({time + shift for time in visible for shift in (-1, 0)} | {TIME_MAX_US - 1}):
            holds = (states.valid_from_us <= cutoff) & (cutoff < states.valid_to_us)
            for key, row in by_key.items():
                expected = twin.state("orders", key, cutoff)
                found = np.flatnonzero(holds & (states.row == row)).tolist()
                if expected == BARE:
                    assert found == []
                    continue
                (at,) = found
                assert (states.deleted[at], states.event_time_us[at]) == (
                    expected == HIDDEN,
                    twin.shown_version("orders", key, cutoff)[1],
                )
                assert shown(view, states, at) == ({} if expected == HIDDEN else expected)
        assert np.all(np.diff(states.row) >= 0)
        assert np.all(states.valid_from_us < states.valid_to_us)


def test_each_clock_holds_at_one_microsecond(schema: Schema, payment: Build) -> None:
    """A state ends in the microsecond in which the next begins, and that is the later of the change's two clocks."""
    with TemporalGraph.create(schema) as graph:
        graph.apply([payment(1, 100, known_time_us=90, amount=1.0), payment(2, 100, known_time_us=130)], backfill=True)
        graph.apply([payment(1, 150, known_time_us=900, fraud=True, operation="UPSERT")])
        states = graph.view().versions("payments")
    assert states.row.tolist() == [0, 0, 1]
    assert states.event_time_us.tolist() == [100, 100, 100]
    assert states.valid_from_us.tolist() == [100, 900, 130]
    assert states.valid_to_us.tolist() == [900, TIME_MAX_US, TIME_MAX_US]
    assert states.boolean[:, 0].tolist() == [2, 1, 2]
    assert states.numerical[:2, 0].tolist() == [1.0, 1.0]


def test_a_deleted_row_shows_nothing_until_it_is_revived(schema: Schema, payment: Build) -> None:
    """Its own entry says deleted, with null cells and no parent; a later patch brings back what lay beneath."""
    with TemporalGraph.create(schema) as graph:
        graph.apply([payment(1, 100, customer=7, amount=1.0), payment(1, 200, operation="DELETE")], backfill=True)
        graph.apply([payment(1, 300, fraud=False, operation="UPSERT")], backfill=True)
        states = graph.view().versions("payments")
    assert states.deleted.tolist() == [False, True, False]
    assert states.parents.tolist() == [[0], [-1], [0]]
    assert np.isnan(states.numerical[1, 0])
    assert states.numerical[2, 0] == 1.0


def test_bare_and_timeless_rows(schema: Schema, payment: Build) -> None:
    """A row that only a foreign key names has no state; one without time holds from always to the end of time."""
    with TemporalGraph.create(schema) as graph:
        graph.apply([payment(1, 100, customer=7)])
        view = graph.view()
        bare = view.versions("customers")
        assert (len(bare), bare.coded.shape, bare.parents.shape, view.row_count("customers")) == (0, (0, 1), (0, 0), 1)
        customer = pb.RowEvent(table="customers", operation=pb.OPERATION_INSERT)
        customer.key.parts.add(integer=7)
        customer.cells.add(column="segment", text="gold")
        graph.apply([customer.SerializeToString()])
        states = view.versions("customers")
        assert view.strings("customers", "segment", states.coded[:, 0]) == ["gold"]
    assert states.event_time_us.tolist() == states.valid_from_us.tolist() == [ALWAYS_US]
    assert states.valid_to_us.tolist() == [TIME_MAX_US]


def test_rows_that_retention_dropped_are_left_out(payment: Build) -> None:
    """What the graph forgot is in no state."""
    schema = parse_schema("""
version: 1
name: kept
tables:
  customers: {primary_key: {customer_id: integer}}
  payments:
    primary_key: {payment_id: integer}
    time_column: at
    retention: {age: 1h}
    columns: {amount: numerical}
    links: {customer_id: customers}
""")
    with TemporalGraph.create(schema) as graph:
        graph.apply([payment(1, 0, customer=1), payment(2, 7_200_000_000, customer=1)], backfill=True)
        assert graph.evict().rows == 1
        assert graph.view().versions("payments").row.tolist() == [1]


def test_a_table_is_read_while_it_is_written(schema: Schema, payment: Build) -> None:
    """Each reading is one published state: rows of whole batches only, however the writer goes on meanwhile."""
    with TemporalGraph.create(schema) as graph:
        view, seen, failures = graph.view(), [0], []

        def read() -> None:
            while seen[-1] < 4000:
                states = view.versions("payments")
                seen.append(len(states))
                if len(states) % 100 != 0 or not (states.valid_from_us == states.event_time_us).all():
                    failures.append(len(states))

        reader = threading.Thread(target=read)
        reader.start()
        for start in range(0, 4000, 100):
            graph.apply([payment(key, key, customer=key % 7) for key in range(start, start + 100)], backfill=True)
        reader.join()
    assert failures == []
    assert seen == sorted(seen)


def test_the_schema_s_names_stand_beside_the_columns() -> None:
    """Each kind's columns and the links are named in the schema's order; an unknown table is refused."""
    with TemporalGraph.create(SCHEMA) as graph:
        states = graph.view().versions("orders")
        with pytest.raises(SchemaError):
            graph.view().versions("nowhere")
    assert states.numerical_names == ("amount", "weight")
    assert (states.boolean_names, states.coded_names) == (("fraud",), ("note",))
    assert (states.timestamp_names, states.embedding_names) == (("due",), ("vector",))
    assert states.link_names == ("shop", "sold_by")
    assert [states.numerical.shape, states.embedding.shape, states.parents.shape] == [(0, 2), (0, 2), (0, 2)]


def test_only_what_was_appended_since_is_told(schema: Schema, payment: Build) -> None:
    """The tail from a row on is the rows published after it, each as it arrived, and nothing when nothing came."""
    with TemporalGraph.create(schema) as graph:
        view = graph.view()
        graph.apply([payment(1, 100, customer=7, known_time_us=90), payment(2, 200, known_time_us=230)], backfill=True)
        tail = view.rows_from("payments", 0)
        assert (tail.row.tolist(), tail.event_time_us.tolist()) == ([0, 1], [100, 200])
        assert (tail.visible_time_us.tolist(), tail.parents.tolist()) == ([100, 230], [[0], [-1]])
        assert len(view.rows_from("payments", 2)) == len(view.rows_from("payments", 3)) == 0
        assert view.rows_from("payments", 2).parents.shape == (0, 1)
        graph.apply([payment(3, 300, customer=9), payment(1, 400, customer=9, operation="UPSERT")], backfill=True)
        tail = view.rows_from("payments", 2)
        assert (tail.row.tolist(), tail.parents.tolist(), tail.bare.tolist()) == ([2], [[1]], [False])
        assert view.rows_at("payments", np.array([0])).parents.tolist() == [[0]]
        with pytest.raises(ValueError, match="-1"):
            view.rows_from("payments", -1)
        with pytest.raises(IndexError):
            view.rows_at("payments", np.array([3]))


def test_a_bare_row_is_told_as_such_until_it_is_inserted(schema: Schema, payment: Build) -> None:
    """Named only, it has no times and is bare; asked for again after its insert, it has arrived."""
    with TemporalGraph.create(schema) as graph:
        graph.apply([payment(1, 100, operation="UPSERT", known_time_us=160, customer=7)], backfill=True)
        view = graph.view()
        bare = view.rows_from("customers", 0)
        assert (bare.event_time_us.tolist(), bare.visible_time_us.tolist(), bare.bare.tolist()) == (
            [ALWAYS_US],
            [ALWAYS_US],
            [True],
        )
        graph.apply([payment(1, 50, customer=8)], backfill=True)  # earlier in the graph's order than the patch
        arrived = view.rows_at("payments", np.array([0]))
        assert (arrived.event_time_us.tolist(), arrived.parents.tolist()) == ([50], [[1]])
        customer = pb.RowEvent(table="customers", operation=pb.OPERATION_INSERT)
        customer.key.parts.add(integer=7)
        graph.apply([customer.SerializeToString()])
        assert view.rows_at("customers", np.array([0])).bare.tolist() == [False]


@settings(max_examples=100, deadline=None)
@given(st.lists(order_events(), min_size=1, max_size=14))
def test_rows_arrive_as_their_first_versions(sequence: list[ReferenceEvent]) -> None:
    """Times and parents of every row are those of the twin's first version in order."""
    twin = ReferenceGraph(SCHEMA)
    with TemporalGraph.create(SCHEMA, arena_bytes=64 << 20) as graph:
        graph.apply([wire(event) for event in sequence], backfill=True)
        twin.apply(sequence, backfill=True)
        view = graph.view()
        tail = view.rows_from("orders", 0)
        shops = view.keys("shops", np.arange(view.row_count("shops")))
        for at, key in enumerate(view.keys("orders", tail.row)):
            event_time_us, known_time_us, *_ = twin.dump()["orders"][f"[{key}]"]["versions"][0]
            visible_time_us = max(event_time_us, known_time_us)
            assert (tail.event_time_us[at], tail.visible_time_us[at]) == (event_time_us, visible_time_us)
            cells = twin.first_version("orders", (key,))  # type: ignore[arg-type]
            found = {n: (shops[p],) for n, p in zip(("shop", "sold_by"), tail.parents[at], strict=True) if p >= 0}
            assert found == {name: value for name, value in cells.items() if name in ("shop", "sold_by")}
            assert not tail.bare[at]


def states_by_row(view: GraphView) -> dict[int, dict[int, object]]:
    """What each order shows from each of its visible times on."""
    states = view.versions("orders")
    found: dict[int, dict[int, object]] = {}
    for at, (row, from_us) in enumerate(zip(states.row.tolist(), states.valid_from_us.tolist(), strict=True)):
        shows = (bool(states.deleted[at]), int(states.event_time_us[at]), repr(sorted(shown(view, states, at).items())))
        found.setdefault(row, {})[from_us] = shows
    return found


def state_at(states: dict[int, object], cutoff_us: int) -> object:
    """The state that a cut-off sees, None before the first."""
    return states.get(max((time for time in states if time <= cutoff_us), default=-1))


@settings(max_examples=200, deadline=None)
@given(st.lists(order_events(), min_size=1, max_size=14), st.integers(0, 14))
def test_what_shows_another_state_is_told(sequence: list[ReferenceEvent], cut: int) -> None:
    """A row that says something else at some time is told from that time on, others of the batch at most, and once."""
    with TemporalGraph.create(SCHEMA, arena_bytes=64 << 20) as graph:
        view = graph.view()
        graph.apply([wire(event) for event in sequence[:cut]], backfill=True)
        before, mark = states_by_row(view), view.rows_changed("orders").mark
        graph.apply([wire(event) for event in sequence[cut:]], backfill=True)
        after, told = states_by_row(view), view.rows_changed("orders", mark)

        assert len(view.rows_changed("orders", told.mark)) == 0
        times = {row: told.visible_time_us[told.row == row].tolist() for row in set(told.row.tolist())}
        touched = {event.key[0] for event in sequence[cut:]}
        assert {view.keys("orders", np.array([row]))[0] for row in times} <= touched
        assert all(each == sorted(set(each)) and set(each) <= set(after[row]) for row, each in times.items())
        for row in before:
            for time in sorted({*before[row], *after[row]}):
                if state_at(before[row], time) != state_at(after[row], time):
                    assert row in times
                    assert times[row][0] <= time
        ever = view.rows_changed("orders")
        assert set(ever.row.tolist()) >= set(times)

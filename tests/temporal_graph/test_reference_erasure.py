"""The definition of what is erased, on histories small enough to read; and the native graph held against it."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import ReferenceEvent, ReferenceGraph
from temporal_graph.reference_erasure import Change, cut, erased_until
from temporal_graph.schema import parse_schema

SCHEMA = parse_schema("""
version: 1
name: people
tables:
  people: {primary_key: {id: integer}}
  orders:
    primary_key: {id: integer}
    time_column: at
    links: {person: {table: people, erase: true}, agent: people}
  lines:
    time_column: at
    links: {order: {table: orders, erase: true}}
""")


def change(table: str, key: int, at: int, **links: int) -> Change:
    """A patch that happened at a time."""
    return Change(table, "upsert", (key,), at, at, {name: (value,) for name, value in links.items()})


def test_erasure_spreads_to_what_is_ones_own() -> None:
    """Orders of a person and their lines are erased with it, until the same time; what names it otherwise is not."""
    history = [
        change("orders", 1, 5, person=7),
        change("lines", 10, 6, order=1),
        change("orders", 2, 5, person=8, agent=7),
    ]
    until = erased_until(SCHEMA, history, {("people", (7,)): 9})
    assert until == {("people", (7,)): 9, ("orders", (1,)): 9, ("lines", (10,)): 9}
    assert erased_until(SCHEMA, history[1:], {("people", (7,)): 9}) == {("people", (7,)): 9}


def test_one_change_is_enough_to_be_ones_own() -> None:
    """A row that moved on was the person's own once, whatever the order; the latest of all times counts."""
    history = [change("orders", 1, 5, person=7), change("orders", 1, 6, person=8)]
    for order in (history, history[::-1]):
        assert erased_until(SCHEMA, order, {("people", (7,)): 4, ("people", (8,)): 9})[("orders", (1,))] == 9
        assert erased_until(SCHEMA, order, {("people", (7,)): 4})[("orders", (1,))] == 4
        assert erased_until(SCHEMA, order, {("people", (7,)): 4, ("orders", (1,)): 5})[("orders", (1,))] == 5


def test_a_link_that_does_not_erase_is_cut() -> None:
    """It names nothing until the erasure's time, and the row again one microsecond later."""
    orders, until = SCHEMA.table("orders"), {("people", (7,)): 9}
    assert cut(orders, change("orders", 1, 9, agent=7), until).cells == {"agent": None}
    later = change("orders", 1, 10, agent=7)
    assert cut(orders, later, until) == later
    assert cut(orders, later, {}) == later


@st.composite
def histories(draw: st.DrawFn) -> list[ReferenceEvent]:
    """Events of few rows, each known when it happened or up to two microseconds later; a third of them erase."""
    events = []
    for _ in range(draw(st.integers(2, 10))):
        table = draw(st.sampled_from(["people", "orders", "orders", "orders", "lines"]))
        operation = draw(st.sampled_from(["insert", "upsert", "upsert", "erase"] if table != "lines" else ["insert"]))
        at = draw(st.integers(1, 6))
        names = st.fixed_dictionaries(
            {}, optional={link.name: st.sampled_from([None, (1,), (2,)]) for link in SCHEMA.table(table).links}
        )
        key = draw(st.integers(1, 2))
        known = None if operation == "erase" else at + draw(st.integers(0, 2))
        events.append(
            ReferenceEvent(table, operation, (key,) if table != "lines" else (str(key),), at, known, draw(names))
        )
    return events


def wire(event: ReferenceEvent) -> bytes:
    """The event as a serialized RowEvent."""
    made = pb.RowEvent(table=event.table, operation=pb.Operation.Value(f"OPERATION_{event.operation.upper()}"))
    made.event_time_us = event.event_time_us
    if event.known_time_us is not None:
        made.known_time_us = event.known_time_us
    if isinstance(event.key[0], int):
        made.key.parts.add(integer=event.key[0])
    else:
        made.event_id = event.key[0]
    for name, value in event.cells.items():
        cell = made.cells.add(column=name)
        if value is None:
            cell.null = pb.NULL_VALUE_UNSPECIFIED
        else:
            assert isinstance(value, tuple)
            cell.integer = value[0]  # type: ignore[assignment]
    return made.SerializeToString()


@settings(max_examples=300, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_the_native_graph_erases_by_this_definition(history: list[ReferenceEvent], shuffler: random.Random) -> None:
    """In any order, one by one, and once more in another: equal to the twin, and one hash."""
    hashes = set()
    for _ in range(3):
        twin = ReferenceGraph(SCHEMA)
        twin.apply(history)
        with TemporalGraph.create(SCHEMA, arena_bytes=32 << 20) as graph:
            for event in history:
                graph.apply([wire(event)])
            assert graph.dump() == twin.dump()
            hashes.add(graph.canonical_hash())
            shuffler.shuffle(history)
            graph.apply([wire(event) for event in history])
            assert graph.dump() == twin.dump()
            hashes.add(graph.canonical_hash())
    assert len(hashes) == 1
